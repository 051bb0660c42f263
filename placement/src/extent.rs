//! Pages that a space has granted.

use core::fmt;

use smallvec::SmallVec;

use crate::{PageCount, PageRange};

/// A run of pages granted by a [`Space`](crate::Space), to be given back to the same one.
///
/// Its generation tells this grant from every other: when a page changes hands, its new owner's
/// generation is greater than the old one's. A private token leads the space back to its own
/// record, so that giving back searches nothing.
///
/// An extent is a plain value and can be copied; the space notices when a copy is given back a
/// second time.
///
/// # Invariants
/// Not empty, and its end is at most [`PageCount::MAX`]. Only spaces make extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    start: u64,
    pages: u64,
    generation: u64,
    token: u32,
}

// Resources hold extents by value.
const _: () = assert!(size_of::<Extent>() <= 32);

/// The extents of one grant: nearly always a single run.
pub type Extents = SmallVec<[Extent; 1]>;

impl Extent {
    pub(crate) const fn granted(range: PageRange, generation: u64, token: u32) -> Self {
        Self {
            start: range.start(),
            pages: range.len().get(),
            generation,
            token,
        }
    }

    /// The pages.
    pub const fn range(self) -> PageRange {
        PageRange::within_max(self.start, self.start + self.pages)
    }

    /// The first page.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// How many pages there are.
    pub const fn pages(self) -> PageCount {
        PageCount::within_max(self.pages)
    }

    /// Which grant of its space this is; later ones are greater.
    pub const fn generation(self) -> u64 {
        self.generation
    }

    pub(crate) const fn token(self) -> u32 {
        self.token
    }
}

/// Shows the pages and the generation, such as `0x10..0x18 #3`.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.range(), self.generation)
    }
}
