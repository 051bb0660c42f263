//! The space of one object.

use placement::{CacheMode, Extent, Extents, MemType, PageCount, PageRange, PlaceFlags};
use smallvec::SmallVec;

use crate::error::Result;
use crate::fence::Fence;
use crate::sync::Arc;

use super::group::Group;
use super::lru::{Home, NodeId};
use super::manager::{Manager, MemoryKind};

/// Why a resource is given back; what the counters say of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Leaving {
    /// It never came to be used: a step before failed.
    #[default]
    Unused,
    /// Its object went somewhere else, or away.
    Moved,
    /// Its object was pushed out.
    Evicted,
}

/// The space that an object holds in one memory, given back on drop.
///
/// # Invariants
/// `extents` are taken in the manager's space and belong to nobody else; `node` is the resource's
/// entry in the manager's order, for as long as it lives.
pub(crate) struct Resource {
    pub(super) manager: Arc<Manager>,
    pub(super) extents: Extents,
    pub(super) node: NodeId,
    pub(super) group: Option<Arc<Group>>,
    pub(super) pages: PageCount,
    pub(super) flags: PlaceFlags,
    pub(super) cache: Option<CacheMode>,
    pub(super) leaving: Leaving,
}

impl Resource {
    pub(crate) fn manager(&self) -> &Arc<Manager> {
        &self.manager
    }

    #[inline]
    pub(crate) fn mem_type(&self) -> MemType {
        self.manager.mem_type()
    }

    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    pub(crate) fn flags(&self) -> PlaceFlags {
        self.flags
    }

    /// The cache mode that its place wished for.
    pub(crate) fn cache(&self) -> Option<CacheMode> {
        self.cache
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Has memory behind its pages, which are its own since just now.
    ///
    /// # Errors
    /// Those of [`Region::provide`](super::Region::provide).
    pub(crate) fn provide(&self) -> Result<()> {
        let MemoryKind::Device(region) = self.manager.kind() else {
            return Ok(());
        };
        let mut ranges = self.extents.iter().map(|e| e.range());
        ranges.try_for_each(|range| region.provide(range))
    }

    /// The pages as ranges of the memory, in the object's order.
    pub(crate) fn ranges(&self) -> SmallVec<[PageRange; 1]> {
        self.extents.iter().map(|e| e.range()).collect()
    }

    /// Whether all pages adjoin: a lucky scattered grant counts.
    pub(crate) fn is_contiguous(&self) -> bool {
        let goes_on = |page| match self.manager.kind() {
            MemoryKind::Device(region) => region.goes_on_at(page),
            MemoryKind::Frames => true,
        };
        self.extents
            .windows(2)
            .all(|pair| pair[0].range().end() == pair[1].start() && goes_on(pair[1].start()))
    }

    /// Whether every page lies in `window`.
    #[inline]
    pub(crate) fn is_within(&self, window: PageRange) -> bool {
        window == PageRange::ALL
            || self
                .extents
                .iter()
                .all(|e| window.contains_range(&e.range()))
    }

    /// Whether any page lies in `window`.
    pub(crate) fn intersects(&self, window: PageRange) -> bool {
        window == PageRange::ALL || self.extents.iter().any(|e| window.intersects(&e.range()))
    }

    /// The object lives here now; from here on leaving counts.
    pub(crate) fn settle(&mut self) {
        self.leaving = Leaving::Moved;
    }

    /// The object is being pushed out; dropping counts as an eviction.
    pub(crate) fn evicted(&mut self) {
        self.leaving = Leaving::Evicted;
    }

    pub(crate) fn set_home(&self, home: Home) {
        self.manager.set_home(self.node, home);
    }

    /// Gives the space up once `fences` have signalled; until then it stays taken. With
    /// `recoverable`, a failed fence keeps it until [`Manager::unretire`] or
    /// [`Manager::forget`]. Answers the number under which the manager keeps it.
    pub(crate) fn retire(self, fences: impl IntoIterator<Item = Fence>, recoverable: bool) -> u64 {
        Manager::retire(self, fences, recoverable)
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        if !self.extents.is_empty() {
            Manager::give(self);
        }
    }
}
