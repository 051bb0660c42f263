//! Images of optimal tiling.

use ash::vk;
use ttm::sync::Arc;

use super::buffer::sharing_of;
use super::{Memory, Raw, Requirements, VulkanError};

/// What image is wanted.
#[derive(Clone, Debug)]
pub(in super::super) struct ImageWant {
    pub(in super::super) kind: vk::ImageType,
    pub(in super::super) format: vk::Format,
    pub(in super::super) extent: vk::Extent3D,
    pub(in super::super) levels: u32,
    pub(in super::super) layers: u32,
    pub(in super::super) usage: vk::ImageUsageFlags,
    pub(in super::super) flags: vk::ImageCreateFlags,
    pub(in super::super) families: Vec<u32>,
    /// As what the memory that it is bound to may go out: one kind, or none.
    pub(in super::super) external: vk::ExternalMemoryHandleTypeFlags,
}

impl ImageWant {
    /// The extent of a level.
    pub(in super::super) fn extent_of(&self, level: u32) -> vk::Extent3D {
        let half = |n: u32| (n >> level).max(1);
        vk::Extent3D {
            width: half(self.extent.width),
            height: half(self.extent.height),
            depth: half(self.extent.depth),
        }
    }

    /// All layers of a level.
    pub(in super::super) fn layers_of(&self, level: u32) -> vk::ImageSubresourceLayers {
        vk::ImageSubresourceLayers {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            mip_level: level,
            base_array_layer: 0,
            layer_count: self.layers,
        }
    }
}

/// An image. It does not keep its memory: whoever uses it does.
pub(in super::super) struct Image {
    raw: Arc<Raw>,
    handle: vk::Image,
    want: ImageWant,
}

impl Image {
    /// Makes an image without memory.
    ///
    /// # Errors
    /// Those of `vkCreateImage`.
    pub(in super::super) fn create(raw: &Arc<Raw>, want: &ImageWant) -> Result<Self, VulkanError> {
        let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(want.external);
        let mut info = vk::ImageCreateInfo::default()
            .flags(want.flags)
            .image_type(want.kind)
            .format(want.format)
            .extent(want.extent)
            .mip_levels(want.levels)
            .array_layers(want.layers)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(want.usage)
            .initial_layout(vk::ImageLayout::UNDEFINED)
            .sharing_mode(sharing_of(&want.families))
            .queue_family_indices(&want.families);
        if !want.external.is_empty() {
            info = info.push_next(&mut external);
        }
        // SAFETY: the device lives (rule at the head); the structure is valid, and the device was
        // asked whether it has such images when the object was described.
        let answer = unsafe { raw.device.create_image(&info, None) };
        Ok(Self {
            raw: Arc::clone(raw),
            handle: raw.said("vkCreateImage", answer)?,
            want: want.clone(),
        })
    }

    /// Gives it its memory.
    ///
    /// # Errors
    /// Those of `vkBindImageMemory`; [`VulkanError::Unsuitable`] if it does not go there.
    pub(in super::super) fn bind(
        &self,
        memory: &Memory,
        type_index: u32,
        offset: u64,
    ) -> Result<(), VulkanError> {
        let needs = self.requirements();
        let fits = offset.is_multiple_of(needs.align) && offset + needs.bytes <= memory.bytes();
        if !fits || needs.types & 1 << type_index == 0 {
            return Err(self.raw.lacks(format!(
                "room for an image at byte {offset}: it needs {needs:?}"
            )));
        }
        // SAFETY: both live and are of the device, the image has no memory yet, and size, alignment
        // and type are as it needs them (checked).
        let answer = unsafe {
            self.raw
                .device
                .bind_image_memory(self.handle, memory.handle(), offset)
        };
        self.raw.said("vkBindImageMemory", answer)
    }

    /// What it needs of its memory.
    pub(in super::super) fn requirements(&self) -> Requirements {
        // SAFETY: the image lives (rule at the head).
        let needs = unsafe { self.raw.device.get_image_memory_requirements(self.handle) };
        needs.into()
    }

    /// The handle.
    pub(in super::super) fn handle(&self) -> vk::Image {
        self.handle
    }

    /// All of it.
    pub(in super::super) fn whole(&self) -> vk::ImageSubresourceRange {
        vk::ImageSubresourceRange {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            base_mip_level: 0,
            level_count: self.want.levels,
            base_array_layer: 0,
            layer_count: self.want.layers,
        }
    }

    /// The regions of a copy of all of it to one like it.
    pub(super) fn copies(&self) -> Vec<vk::ImageCopy> {
        (0..self.want.levels)
            .map(|level| {
                let layers = self.want.layers_of(level);
                vk::ImageCopy::default()
                    .src_subresource(layers)
                    .dst_subresource(layers)
                    .extent(self.want.extent_of(level))
            })
            .collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: nothing submitted uses the image (rule at the head).
        unsafe { self.raw.device.destroy_image(self.handle, None) }
    }
}
