//! Command buffers.

use ash::vk;
use ttm::sync::Arc;

use super::{Buffer, Image, Raw, VulkanError};

/// A pool of command buffers for one queue family. One thread uses it, and what is of it, at a time.
pub(in super::super) struct CommandPool {
    raw: Arc<Raw>,
    handle: vk::CommandPool,
}

/// A command buffer. Has its pool, and is freed with it.
pub(in super::super) struct Commands {
    pool: Arc<CommandPool>,
    handle: vk::CommandBuffer,
}

impl CommandPool {
    /// Makes a pool.
    ///
    /// # Errors
    /// Those of `vkCreateCommandPool`.
    pub(in super::super) fn create(raw: &Arc<Raw>, family: u32) -> Result<Arc<Self>, VulkanError> {
        let info = vk::CommandPoolCreateInfo::default()
            .flags(
                vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER
                    | vk::CommandPoolCreateFlags::TRANSIENT,
            )
            .queue_family_index(family);
        // SAFETY: the device lives and has a queue of that family (rule at the head).
        let answer = unsafe { raw.device.create_command_pool(&info, None) };
        Ok(Arc::new(Self {
            handle: raw.said("vkCreateCommandPool", answer)?,
            raw: Arc::clone(raw),
        }))
    }
}

impl Drop for CommandPool {
    fn drop(&mut self) {
        // SAFETY: nothing submitted is of the pool (rule at the head): its command buffers have it.
        unsafe { self.raw.device.destroy_command_pool(self.handle, None) }
    }
}

impl Commands {
    /// Takes a command buffer of the pool.
    ///
    /// # Errors
    /// Those of `vkAllocateCommandBuffers`.
    pub(in super::super) fn create(pool: &Arc<CommandPool>) -> Result<Self, VulkanError> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool.handle)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool lives, and nobody else uses it now (its users take turns).
        let answer = unsafe { pool.raw.device.allocate_command_buffers(&info) };
        let handles = pool.raw.said("vkAllocateCommandBuffers", answer)?;
        Ok(Self {
            pool: Arc::clone(pool),
            handle: handles[0],
        })
    }

    fn device(&self) -> &ash::Device {
        &self.pool.raw.device
    }

    /// The handle.
    pub(in super::super) fn handle(&self) -> vk::CommandBuffer {
        self.handle
    }

    /// Forgets what was recorded, which is not pending, and begins anew.
    ///
    /// # Errors
    /// Those of `vkBeginCommandBuffer`.
    pub(in super::super) fn begin(&self) -> Result<(), VulkanError> {
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the buffer is of a pool whose buffers can be reset, and is not pending (its users
        // take one back only after its signal).
        let answer = unsafe { self.device().begin_command_buffer(self.handle, &info) };
        self.pool.raw.said("vkBeginCommandBuffer", answer)
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// Those of `vkEndCommandBuffer`.
    pub(in super::super) fn end(&self) -> Result<(), VulkanError> {
        // SAFETY: the buffer is being recorded.
        let answer = unsafe { self.device().end_command_buffer(self.handle) };
        self.pool.raw.said("vkEndCommandBuffer", answer)
    }

    /// Everything before is done, and seen, before anything after begins.
    pub(in super::super) fn barrier(&self) {
        let all = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(all)
            .dst_access_mask(all)];
        self.pipeline_barrier(vk::PipelineStageFlags::ALL_COMMANDS, &barrier, &[]);
    }

    /// What was written is seen by the CPU once the signal is.
    pub(in super::super) fn show_to_host(&self) {
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ | vk::AccessFlags::HOST_WRITE)];
        self.pipeline_barrier(vk::PipelineStageFlags::HOST, &barrier, &[]);
    }

    /// Brings an image from one layout to another.
    pub(in super::super) fn transition(
        &self,
        image: &Image,
        from: vk::ImageLayout,
        to: vk::ImageLayout,
    ) {
        let all = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = [vk::ImageMemoryBarrier::default()
            .src_access_mask(all)
            .dst_access_mask(all)
            .old_layout(from)
            .new_layout(to)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(image.handle())
            .subresource_range(image.whole())];
        self.pipeline_barrier(vk::PipelineStageFlags::ALL_COMMANDS, &[], &barrier);
    }

    fn pipeline_barrier(
        &self,
        before: vk::PipelineStageFlags,
        memory: &[vk::MemoryBarrier<'_>],
        images: &[vk::ImageMemoryBarrier<'_>],
    ) {
        // SAFETY: the buffer is being recorded, outside a render pass; the images live until the
        // commands are done (rule at the head).
        unsafe {
            self.device().cmd_pipeline_barrier(
                self.handle,
                vk::PipelineStageFlags::ALL_COMMANDS,
                before,
                vk::DependencyFlags::empty(),
                memory,
                &[],
                images,
            );
        }
    }

    /// Copies between buffers.
    ///
    /// # Panics
    /// If a region is not inside both.
    pub(in super::super) fn copy(&self, from: &Buffer, to: &Buffer, regions: &[vk::BufferCopy]) {
        for r in regions {
            let inside =
                r.src_offset + r.size <= from.bytes() && r.dst_offset + r.size <= to.bytes();
            assert!(inside, "a copy beyond its buffers");
        }
        // SAFETY: the buffer is being recorded; both live until the commands are done (rule at the
        // head), were made for transfers, and the regions are inside (asserted).
        unsafe {
            self.device()
                .cmd_copy_buffer(self.handle, from.handle(), to.handle(), regions);
        }
    }

    /// Fills bytes, a multiple of four, with zeroes.
    ///
    /// # Panics
    /// If they are not inside.
    pub(in super::super) fn clear(&self, to: &Buffer, at: u64, bytes: u64) {
        assert!(at + bytes <= to.bytes(), "zeroes beyond their buffer");
        // SAFETY: as for `copy`; offset and size are those of pages.
        unsafe {
            self.device()
                .cmd_fill_buffer(self.handle, to.handle(), at, bytes, 0);
        }
    }

    /// Copies all of an image to the bytes of a buffer, or the other way.
    pub(in super::super) fn copy_image_out(
        &self,
        image: &Image,
        to: &Buffer,
        regions: &[vk::BufferImageCopy],
    ) {
        // SAFETY: as for `copy`; the image is in the layout of a source, and the regions are those of
        // its own levels, which end inside the buffer (their maker computes both).
        unsafe {
            self.device().cmd_copy_image_to_buffer(
                self.handle,
                image.handle(),
                vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
                to.handle(),
                regions,
            );
        }
    }

    /// The other way.
    pub(in super::super) fn copy_image_in(
        &self,
        from: &Buffer,
        image: &Image,
        regions: &[vk::BufferImageCopy],
    ) {
        // SAFETY: as above; the image is in the layout of a target.
        unsafe {
            self.device().cmd_copy_buffer_to_image(
                self.handle,
                from.handle(),
                image.handle(),
                vk::ImageLayout::TRANSFER_DST_OPTIMAL,
                regions,
            );
        }
    }

    /// Copies all of one image to another like it.
    pub(in super::super) fn copy_image(&self, from: &Image, to: &Image) {
        let regions = from.copies();
        // SAFETY: as above; both images were made alike (their object's), one in the layout of a
        // source, the other in that of a target.
        unsafe {
            self.device().cmd_copy_image(
                self.handle,
                from.handle(),
                vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
                to.handle(),
                vk::ImageLayout::TRANSFER_DST_OPTIMAL,
                &regions,
            );
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // SAFETY: the buffer is not pending (rule at the head), and nobody else uses its pool now.
        unsafe {
            self.device()
                .free_command_buffers(self.pool.handle, &[self.handle]);
        }
    }
}
