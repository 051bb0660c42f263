//! Buffers.

use ash::vk;
use smallvec::SmallVec;
use ttm::sync::Arc;

use super::{Memory, Raw, VulkanError};

/// Numbers of queue families, of which a device has few.
pub(in super::super) type FamilyNumbers = SmallVec<[u32; 4]>;

/// How what these families use is shared among them: at the same time if there are several. Their
/// numbers are ignored otherwise, so that they can be given always.
pub(super) fn sharing_of(families: &[u32]) -> vk::SharingMode {
    match families.len() {
        0 | 1 => vk::SharingMode::EXCLUSIVE,
        _ => vk::SharingMode::CONCURRENT,
    }
}

/// What buffer is wanted.
#[derive(Clone, Debug)]
pub(in super::super) struct BufferWant {
    pub(in super::super) bytes: u64,
    pub(in super::super) usage: vk::BufferUsageFlags,
    pub(in super::super) flags: vk::BufferCreateFlags,
    /// Queue families that use it at the same time; none or one for one at a time.
    pub(in super::super) families: FamilyNumbers,
    /// What kind of external memory it is bound to.
    pub(in super::super) external: vk::ExternalMemoryHandleTypeFlags,
}

impl BufferWant {
    /// A plain buffer that is copied from and to.
    pub(in super::super) fn for_copies(bytes: u64, families: &[u32]) -> Self {
        Self {
            bytes,
            usage: vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST,
            flags: vk::BufferCreateFlags::empty(),
            families: families.into(),
            external: vk::ExternalMemoryHandleTypeFlags::empty(),
        }
    }
}

/// What a buffer needs of its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Requirements {
    pub(in super::super) bytes: u64,
    pub(in super::super) align: u64,
    /// A bit for each memory type that will do.
    pub(in super::super) types: u32,
}

impl From<vk::MemoryRequirements> for Requirements {
    fn from(requirements: vk::MemoryRequirements) -> Self {
        Self {
            bytes: requirements.size,
            align: requirements.alignment,
            types: requirements.memory_type_bits,
        }
    }
}

/// A buffer. It does not keep its memory: whoever uses it does.
pub(in super::super) struct Buffer {
    raw: Arc<Raw>,
    handle: vk::Buffer,
    bytes: u64,
    addressed: bool,
}

impl Buffer {
    /// Makes a buffer without memory.
    ///
    /// # Errors
    /// Those of `vkCreateBuffer`.
    pub(in super::super) fn create(raw: &Arc<Raw>, want: &BufferWant) -> Result<Self, VulkanError> {
        let mut external =
            vk::ExternalMemoryBufferCreateInfo::default().handle_types(want.external);
        let mut info = vk::BufferCreateInfo::default()
            .size(want.bytes)
            .usage(want.usage)
            .flags(want.flags)
            .sharing_mode(sharing_of(&want.families))
            .queue_family_indices(&want.families);
        if !want.external.is_empty() {
            info = info.push_next(&mut external);
        }
        // SAFETY: the device lives (rule at the head); the structure is valid, and what it asks for
        // was checked against what the device can do by its makers.
        let answer = unsafe { raw.device.create_buffer(&info, None) };
        let handle = raw.said("vkCreateBuffer", answer)?;
        Ok(Self {
            raw: Arc::clone(raw),
            handle,
            bytes: want.bytes,
            addressed: want
                .usage
                .contains(vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS),
        })
    }

    /// Makes a buffer that is some bytes of `memory`.
    ///
    /// # Errors
    /// Those of `vkCreateBuffer` and `vkBindBufferMemory`; [`VulkanError::Unsuitable`] if such a
    /// buffer does not go there.
    pub(in super::super) fn within(
        raw: &Arc<Raw>,
        want: &BufferWant,
        memory: &Memory,
        type_index: Option<u32>,
        offset: u64,
    ) -> Result<Self, VulkanError> {
        let buffer = Self::create(raw, want)?;
        let needs = buffer.requirements();
        let fits = offset.is_multiple_of(needs.align) && offset + needs.bytes <= memory.bytes();
        let allowed = type_index.is_none_or(|n| needs.types & 1 << n != 0);
        if !fits || !allowed {
            return Err(raw.lacks(format!(
                "room for such a buffer at byte {offset} of {}: it needs {needs:?}",
                memory.bytes()
            )));
        }
        // SAFETY: both live and are of the device, the buffer has no memory yet, and size, alignment
        // and type are as it needs them (checked; imported memory is of the type that the device
        // named for it).
        let answer = unsafe {
            raw.device
                .bind_buffer_memory(buffer.handle, memory.handle(), offset)
        };
        raw.said("vkBindBufferMemory", answer)?;
        Ok(buffer)
    }

    /// What it needs of its memory.
    pub(in super::super) fn requirements(&self) -> Requirements {
        // SAFETY: the buffer lives (rule at the head).
        let needs = unsafe { self.raw.device.get_buffer_memory_requirements(self.handle) };
        needs.into()
    }

    /// The handle.
    pub(in super::super) fn handle(&self) -> vk::Buffer {
        self.handle
    }

    /// How many bytes it has.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where shaders find it; `None` if it was not made for that.
    pub(in super::super) fn address(&self) -> Option<u64> {
        if !self.addressed || !self.raw.facts.can.buffer_address {
            return None;
        }
        let info = vk::BufferDeviceAddressInfo::default().buffer(self.handle);
        // SAFETY: the buffer lives, was made for this, and the feature is on (checked). It has memory,
        // or is sparse.
        Some(unsafe { self.raw.device.get_buffer_device_address(&info) })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: nothing submitted uses the buffer (rule at the head).
        unsafe { self.raw.device.destroy_buffer(self.handle, None) }
    }
}
