//! What can be chosen of a Vulkan device.

use core::time::Duration;
use std::collections::BTreeMap;

use placement::{ChunkSizes, MemType, PAGE_SIZE, PageCount};

use super::costs::Copies;

/// How a device is opened and its memory used.
///
/// ```
/// use backends::vulkan::VulkanConfig;
/// use placement::MemType;
///
/// let config = VulkanConfig::new("my engine").limit(MemType::VRAM, 512 << 20);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct VulkanConfig {
    pub(super) name: String,
    pub(super) device: Option<String>,
    pub(super) limits: BTreeMap<MemType, u64>,
    pub(super) chunk: Option<(u64, u64)>,
    pub(super) idle: Duration,
    pub(super) copies: Copies,
    pub(super) stable: bool,
    pub(super) windows: bool,
    pub(super) import: bool,
}

impl VulkanConfig {
    /// For a program of that name: all of each heap, chunks of an eighth of a memory and at most
    /// 256 MiB, empty ones kept for 5 s, copies by whoever is sooner.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            device: None,
            limits: BTreeMap::new(),
            chunk: None,
            idle: Duration::from_secs(5),
            copies: Copies::default(),
            stable: true,
            windows: true,
            import: true,
        }
    }

    /// The first device whose name has this in it, whatever the case; without this, a discrete one
    /// before an integrated one before any other.
    #[must_use]
    pub fn device(mut self, part_of_name: &str) -> Self {
        self.device = Some(part_of_name.to_lowercase());
        self
    }

    /// The most bytes of a memory that are allocated; without this, its heap's size. Can be changed
    /// later.
    #[must_use]
    pub fn limit(mut self, mem_type: MemType, bytes: u64) -> Self {
        self.limits.insert(mem_type, bytes);
        self
    }

    /// Sizes of chunks, in bytes: from the first on, doubling to the last. An object that is larger
    /// has one of its own.
    #[must_use]
    pub fn chunks(mut self, least: u64, most: u64) -> Self {
        self.chunk = Some((least, most));
        self
    }

    /// How long an empty chunk is kept.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Who copies.
    #[must_use]
    pub fn copies(mut self, copies: Copies) -> Self {
        self.copies = copies;
        self
    }

    /// Whether buffers keep their handle where the device can do that.
    #[must_use]
    pub fn stable(mut self, stable: bool) -> Self {
        self.stable = stable;
        self
    }

    /// Whether windows show device memory where it can be mapped; without, objects come to system
    /// memory for that.
    #[must_use]
    pub fn windows(mut self, windows: bool) -> Self {
        self.windows = windows;
        self
    }

    /// Whether system pages are imported where the device takes them.
    #[must_use]
    pub fn import(mut self, import: bool) -> Self {
        self.import = import;
        self
    }

    /// Sizes of chunks for a memory of `bytes` bytes, of which `most` can be allocated at once.
    pub(super) fn sizes(&self, bytes: u64, most: u64) -> ChunkSizes {
        let (low, high) = self
            .chunk
            .unwrap_or_else(|| ((bytes / 64).clamp(1 << 20, 32 << 20), 256 << 20));
        let high = high.min(bytes / 8).min(most).max(1 << 16);
        let pages =
            |bytes: u64| PageCount::new((bytes / PAGE_SIZE).max(1)).unwrap_or(PageCount::MAX);
        ChunkSizes {
            least: pages(low.min(high)),
            most: pages(high),
            granule: pages(64 << 10),
        }
    }
}

impl Default for VulkanConfig {
    /// [`VulkanConfig::new`] for a program without a name.
    fn default() -> Self {
        Self::new("gpu-ttm")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_suit_the_memory() {
        let config = VulkanConfig::new("test");
        let of = |bytes, most| {
            let sizes = config.sizes(bytes, most);
            (sizes.least.bytes(), sizes.most.bytes())
        };
        assert_eq!(of(16 << 30, u64::MAX), (32 << 20, 256 << 20));
        assert_eq!(of(256 << 20, u64::MAX), (4 << 20, 32 << 20));
        assert_eq!(of(16 << 30, 64 << 20), (32 << 20, 64 << 20));
        assert_eq!(of(1 << 20, u64::MAX), (128 << 10, 128 << 10));
    }
}
