//! How the CPU caches memory: the modes, the ledger that allows one at a time, and the maintenance
//! that a change needs.
//!
//! A frame, or a page of a device's aperture, has exactly one [`CacheMode`] at a time. The
//! [`Ledger`] knows it, knows every view that is open, and refuses a second mode while one is. A
//! change of mode first closes every view, then does the [`Maintenance`] that keeps both sides
//! right, and only then sets the new mode. Nothing here touches memory: the page source and the
//! region do, as the owner of the pages says.

mod ledger;
mod maintenance;

pub use ledger::{Area, Ledger, LedgerCounts, Memory, ViewId};
pub use maintenance::Maintenance;
pub use placement::CacheMode;

use bitflags::bitflags;

bitflags! {
    /// A set of cache modes.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Modes: u8 {
        /// [`CacheMode::Cached`].
        const CACHED = 1 << 0;
        /// [`CacheMode::WriteCombined`].
        const WRITE_COMBINED = 1 << 1;
        /// [`CacheMode::Uncached`].
        const UNCACHED = 1 << 2;
    }
}

impl Modes {
    /// Whether `mode` is in the set.
    ///
    /// ```
    /// use ttm::cache::{CacheMode, Modes};
    /// assert!(Modes::CACHED.has(CacheMode::Cached));
    /// assert!(!Modes::CACHED.has(CacheMode::Uncached));
    /// ```
    #[must_use]
    pub const fn has(self, mode: CacheMode) -> bool {
        self.contains(Self::of(mode))
    }

    /// The set of one mode.
    #[must_use]
    pub const fn of(mode: CacheMode) -> Self {
        match mode {
            CacheMode::Cached => Self::CACHED,
            CacheMode::WriteCombined => Self::WRITE_COMBINED,
            CacheMode::Uncached => Self::UNCACHED,
        }
    }
}
