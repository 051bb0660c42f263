//! One wish: where an object may be, and how.

use core::fmt;

use bitflags::bitflags;

use crate::{MemType, PageRange};

bitflags! {
    /// How a [`Place`] is meant.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct PlaceFlags: u32 {
        /// The pages must be one run.
        const CONTIGUOUS = 1 << 0;
        /// The highest pages that fit are wanted, not the lowest.
        const TOP_DOWN = 1 << 1;
        /// Wanted, but nobody is evicted for it.
        const DESIRED = 1 << 2;
        /// Taken only once the pass without eviction has failed everywhere.
        const FALLBACK = 1 << 3;
        /// A stop on the way of a move; the object does not stay.
        const TEMPORARY = 1 << 4;
    }
}

/// How a CPU caches pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CacheMode {
    /// Through the caches, read and written.
    #[default]
    Cached,
    /// Writes are gathered and passed on, reads are not cached.
    WriteCombined,
    /// Each access goes to memory.
    Uncached,
}

impl CacheMode {
    /// All, from the one that the CPU likes best.
    pub const ALL: [Self; 3] = [Self::Cached, Self::WriteCombined, Self::Uncached];
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cached => "cached",
            Self::WriteCombined => "write-combined",
            Self::Uncached => "uncached",
        })
    }
}

/// One wish: a memory type, a window in it, flags, a cache mode.
///
/// ```
/// use placement::{CacheMode, MemType, PageRange, Place};
///
/// let aperture = PageRange::new(0, 65536).expect("in order");
/// let wish = Place::new(MemType::VRAM).within(aperture).contiguous().desired();
/// assert!(wish.considered(false));
/// assert!(!wish.considered(true), "nobody is evicted for a desire");
///
/// let last = Place::new(MemType::TT).fallback().cached(CacheMode::WriteCombined);
/// assert!(!last.considered(false) && last.considered(true));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The kind of memory.
    pub mem_type: MemType,
    /// The pages of it that will do; [`PageRange::ALL`] is the whole memory.
    pub window: PageRange,
    /// How the wish is meant.
    pub flags: PlaceFlags,
    /// The cache mode wanted; `None` leaves it as it is.
    pub cache: Option<CacheMode>,
}

impl Place {
    /// Wishes for anywhere in `mem_type`.
    pub const fn new(mem_type: MemType) -> Self {
        Self {
            mem_type,
            window: PageRange::ALL,
            flags: PlaceFlags::empty(),
            cache: None,
        }
    }

    /// Narrows the wish to the pages of `window`.
    pub const fn within(mut self, window: PageRange) -> Self {
        self.window = window;
        self
    }

    /// Adds [`PlaceFlags::CONTIGUOUS`].
    pub const fn contiguous(self) -> Self {
        self.with(PlaceFlags::CONTIGUOUS)
    }

    /// Adds [`PlaceFlags::TOP_DOWN`].
    pub const fn top_down(self) -> Self {
        self.with(PlaceFlags::TOP_DOWN)
    }

    /// Adds [`PlaceFlags::DESIRED`].
    pub const fn desired(self) -> Self {
        self.with(PlaceFlags::DESIRED)
    }

    /// Adds [`PlaceFlags::FALLBACK`].
    pub const fn fallback(self) -> Self {
        self.with(PlaceFlags::FALLBACK)
    }

    /// Adds [`PlaceFlags::TEMPORARY`].
    pub const fn temporary(self) -> Self {
        self.with(PlaceFlags::TEMPORARY)
    }

    /// Asks for a cache mode.
    pub const fn cached(mut self, mode: CacheMode) -> Self {
        self.cache = Some(mode);
        self
    }

    /// Whether the place counts in a pass: `forced` is the pass that evicts.
    ///
    /// [`DESIRED`](PlaceFlags::DESIRED) counts only in the pass without eviction,
    /// [`FALLBACK`](PlaceFlags::FALLBACK) only in the forced one; with both it never counts.
    pub fn considered(&self, forced: bool) -> bool {
        let skipped = if forced {
            PlaceFlags::DESIRED
        } else {
            PlaceFlags::FALLBACK
        };
        !self.flags.contains(skipped)
    }

    const fn with(mut self, flag: PlaceFlags) -> Self {
        self.flags = self.flags.union(flag);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn desired_and_fallback_count_in_opposite_passes() {
        let any = Place::new(MemType::VRAM);
        let cases = [
            (any, true, true),
            (any.desired(), true, false),
            (any.fallback(), false, true),
            (any.desired().fallback(), false, false),
            (any.contiguous().top_down().temporary(), true, true),
        ];
        for (place, free_pass, forced_pass) in cases {
            assert_eq!(place.considered(false), free_pass, "{place:?}");
            assert_eq!(place.considered(true), forced_pass, "{place:?}");
        }
    }
}
