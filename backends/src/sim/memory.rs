//! What the system memory around a fake device is like.

use placement::PageCount;
use ttm::pages::Zones;

use super::cache::CacheModel;
use super::link::Link;

/// What the memory of the machine is like that a fake device is in.
///
/// ```
/// use backends::sim::{CacheModel, SimMemory};
/// use placement::PageCount;
///
/// let pages = |n| PageCount::new(n).expect("few");
/// let memory = SimMemory::new(pages(1024))
///     .dma32(pages(256))
///     .nodes(2)
///     .cache(CacheModel::seeded(7));
/// assert_eq!(memory.high, PageCount::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimMemory {
    /// Frames below 4 GiB, from 1 MiB on.
    pub dma32: PageCount,
    /// Frames from 4 GiB on.
    pub normal: PageCount,
    /// Frames above those.
    pub high: PageCount,
    /// NUMA nodes. Each has the same share of every zone.
    pub nodes: u8,
    /// The CPU's caches, if they are to be seen.
    pub cache: Option<CacheModel>,
    /// What happens to devices' accesses on their way to it.
    pub link: Link,
}

impl SimMemory {
    /// `normal` frames from 4 GiB on, on one node, and no other zone.
    #[must_use]
    pub const fn new(normal: PageCount) -> Self {
        Self {
            dma32: PageCount::ZERO,
            normal,
            high: PageCount::ZERO,
            nodes: 1,
            cache: None,
            link: Link::Plain,
        }
    }

    /// With so many frames below 4 GiB.
    #[must_use]
    pub const fn dma32(mut self, pages: PageCount) -> Self {
        self.dma32 = pages;
        self
    }

    /// With so many frames above the normal ones.
    #[must_use]
    pub const fn high(mut self, pages: PageCount) -> Self {
        self.high = pages;
        self
    }

    /// Cut between so many nodes.
    #[must_use]
    pub const fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// With caches between the CPU and it.
    #[must_use]
    pub const fn cache(mut self, model: CacheModel) -> Self {
        self.cache = Some(model);
        self
    }

    /// With something on the way between it and devices. Not together with caches.
    #[must_use]
    pub const fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    /// Those that have frames.
    pub(super) fn zones(&self) -> Zones {
        let zones = [
            (Zones::DMA32, self.dma32),
            (Zones::NORMAL, self.normal),
            (Zones::HIGH, self.high),
        ];
        let filled = zones.into_iter().filter(|(_, pages)| !pages.is_zero());
        filled.fold(Zones::empty(), |all, (zone, _)| all | zone)
    }
}

impl Default for SimMemory {
    /// More than any host has: 1 GiB of DMA32, 64 GiB of normal and 256 GiB of high memory.
    fn default() -> Self {
        let gib = |n: u64| PageCount::new(n << 18).expect("below the greatest count");
        Self::new(gib(64)).dma32(gib(1)).high(gib(256))
    }
}
