//! What buffers of a kind need of memory, asked once.
//!
//! Vulkan promises that alignment and memory types are the same for all buffers of equal usage, flags
//! and external handle types. So a buffer need not be made to ask for them; only the first of a kind
//! is, and each that is larger than all before, which the device might refuse.

use ash::vk;
use ttm::sync::{Arc, Mutex};

use super::error::VulkanError;
use super::raw::{Buffer, BufferWant, Raw};

/// What a buffer needs of its memory, whatever its size.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) align: u64,
    /// A bit for each memory type that will do.
    pub(super) types: u32,
}

/// Kinds of buffers that were asked for.
#[derive(Default)]
pub(super) struct Known {
    kinds: Mutex<Vec<Kind>>,
}

struct Kind {
    usage: vk::BufferUsageFlags,
    flags: vk::BufferCreateFlags,
    external: vk::ExternalMemoryHandleTypeFlags,
    /// The largest that was made.
    bytes: u64,
    fit: Fit,
}

impl Kind {
    fn is_of(&self, want: &BufferWant) -> bool {
        (self.usage, self.flags, self.external) == (want.usage, want.flags, want.external)
    }
}

impl Known {
    /// What such a buffer needs.
    ///
    /// # Errors
    /// Those of `vkCreateBuffer`.
    pub(super) fn fit_of(&self, raw: &Arc<Raw>, want: &BufferWant) -> Result<Fit, VulkanError> {
        let known = {
            let kinds = self.kinds.lock();
            let kind = kinds.iter().find(|kind| kind.is_of(want));
            kind.filter(|kind| kind.bytes >= want.bytes)
                .map(|kind| kind.fit)
        };
        match known {
            Some(fit) => Ok(fit),
            None => Ok(self.learn(want, &Buffer::create(raw, want)?)),
        }
    }

    /// Asks a buffer that was made as it was wanted.
    pub(super) fn learn(&self, want: &BufferWant, buffer: &Buffer) -> Fit {
        let needs = buffer.requirements();
        let fit = Fit {
            align: needs.align,
            types: needs.types,
        };
        let mut kinds = self.kinds.lock();
        match kinds.iter_mut().find(|kind| kind.is_of(want)) {
            Some(kind) => kind.bytes = kind.bytes.max(want.bytes),
            None => kinds.push(Kind {
                usage: want.usage,
                flags: want.flags,
                external: want.external,
                bytes: want.bytes,
                fit,
            }),
        }
        fit
    }
}
