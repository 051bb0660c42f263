//! What has to be done to a cache so that memory and its readers agree.

use placement::CacheMode;

/// One kind of work on the CPU's caches and write buffers, over a range of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maintenance {
    /// Dirty lines and gathered writes are written to memory; the lines stay.
    Clean,
    /// Lines are dropped, dirty or not: the next read sees memory.
    Invalidate,
    /// Dirty lines are written to memory, then all are dropped.
    Flush,
}

impl Maintenance {
    /// What a change of mode needs, once no view is left.
    ///
    /// Lines of cached memory must be neither newer than memory nor in the way of reads that go
    /// around them; gathered writes must have arrived. Memory that was not cached has no lines, but
    /// may have old ones that were fetched on speculation before.
    ///
    /// ```
    /// use ttm::cache::{CacheMode, Maintenance};
    /// use CacheMode::{Cached, Uncached, WriteCombined};
    /// assert_eq!(Maintenance::of_switch(Cached, WriteCombined), Some(Maintenance::Flush));
    /// assert_eq!(Maintenance::of_switch(WriteCombined, Uncached), Some(Maintenance::Clean));
    /// assert_eq!(Maintenance::of_switch(Uncached, WriteCombined), None);
    /// assert_eq!(Maintenance::of_switch(Cached, Cached), None);
    /// ```
    #[must_use]
    pub const fn of_switch(from: CacheMode, to: CacheMode) -> Option<Self> {
        match (from, to) {
            (CacheMode::Cached, CacheMode::Cached) => None,
            (CacheMode::Cached, _) | (CacheMode::WriteCombined, CacheMode::Cached) => {
                Some(Self::Flush)
            }
            (CacheMode::WriteCombined, CacheMode::Uncached) => Some(Self::Clean),
            (CacheMode::Uncached, CacheMode::Cached) => Some(Self::Invalidate),
            (CacheMode::WriteCombined, CacheMode::WriteCombined) | (CacheMode::Uncached, _) => None,
        }
    }

    /// What the CPU's writes to memory of that mode need before a device reads them.
    ///
    /// A device that snoops sees what is in caches, but not what is gathered in write buffers.
    ///
    /// ```
    /// use ttm::cache::{CacheMode, Maintenance};
    /// assert_eq!(Maintenance::of_writes(CacheMode::Cached, true), None);
    /// assert!(Maintenance::of_writes(CacheMode::Cached, false).is_some());
    /// assert!(Maintenance::of_writes(CacheMode::WriteCombined, true).is_some());
    /// assert_eq!(Maintenance::of_writes(CacheMode::Uncached, false), None);
    /// ```
    #[must_use]
    pub const fn of_writes(mode: CacheMode, snooped: bool) -> Option<Self> {
        match mode {
            CacheMode::Cached if snooped => None,
            CacheMode::Cached | CacheMode::WriteCombined => Some(Self::Clean),
            CacheMode::Uncached => None,
        }
    }
}
