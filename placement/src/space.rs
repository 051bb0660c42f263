//! Which pages of a memory are taken.
//!
//! A [`Space`] is asked with a [`Request`] and grants [`Extent`]s, or says why not
//! ([`TakeError`]). It knows pages and nothing else: who owns them, whether a device still uses
//! them and who must leave when they run out is decided above.
//!
//! - [`Range`]: the default. One run where a hole holds it, memory by the hole and extent.
//! - [`Buddy`]: power-of-two blocks, for devices that map large blocks cheaply.
//! - [`Unbounded`]: counts only, for memory whose addresses mean nothing.
//! - [`Chunks`]: grows in chunks and gives them back, for memory made of separate allocations.

mod buddy;
mod chunks;
mod grants;
mod range;
mod unbounded;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::{Extent, Extents, PageCount, PageRange};

pub use buddy::Buddy;
pub use chunks::{Chunk, ChunkSizes, Chunks};
pub use range::Range;
pub use unbounded::Unbounded;

/// What is wanted of a [`Space`].
///
/// ```
/// use placement::{PageCount, PageRange, Request};
///
/// let pages = |n| PageCount::new(n).expect("few");
/// let low = PageRange::new(0, 4096).expect("in order");
/// let request = Request::new(pages(512)).aligned(pages(512)).within(low).top_down();
/// assert!(request.contiguous && request.top_down);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// How many pages.
    pub pages: PageCount,
    /// What the first page of each run is a multiple of: a power of two, 1 for any page.
    ///
    /// Where several runs are granted, all but the last are also a multiple of it long.
    pub align: PageCount,
    /// Where they must be; [`PageRange::ALL`] for anywhere.
    pub window: PageRange,
    /// Whether they must be one run.
    pub contiguous: bool,
    /// Whether the highest pages that fit are wanted.
    pub top_down: bool,
}

impl Request {
    /// Asks for `pages` pages in one run, anywhere.
    pub const fn new(pages: PageCount) -> Self {
        Self {
            pages,
            align: PageCount::ONE,
            window: PageRange::ALL,
            contiguous: true,
            top_down: false,
        }
    }

    /// Asks for each run to begin at a multiple of `align`.
    pub const fn aligned(mut self, align: PageCount) -> Self {
        self.align = align;
        self
    }

    /// Asks for pages of `window` only.
    pub const fn within(mut self, window: PageRange) -> Self {
        self.window = window;
        self
    }

    /// Accepts several runs.
    pub const fn scattered(mut self) -> Self {
        self.contiguous = false;
        self
    }

    /// Asks for the highest pages that fit.
    pub const fn top_down(mut self) -> Self {
        self.top_down = true;
        self
    }

    /// Checks the request against a space of the pages `space`: the window cut to the space.
    ///
    /// # Errors
    /// [`TakeError::Invalid`] and [`TakeError::Never`]; what is returned holds the request while
    /// the space is empty.
    #[inline]
    fn usable_window(&self, space: PageRange) -> Result<PageRange, TakeError> {
        if self.pages.is_zero() || !self.align.get().is_power_of_two() {
            return Err(TakeError::Invalid);
        }
        let start = self.window.start().max(space.start());
        let end = self.window.end().min(space.end());
        // Both terms are below 2^53, the sums cannot wrap.
        let first = align_up(start, self.align.get());
        if first + self.pages.get() > end {
            return Err(TakeError::Never);
        }
        Ok(PageRange::within_max(start, end))
    }
}

/// Why a [`Space`] grants nothing.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum TakeError {
    /// It does not fit now; it may once something is given back.
    Full,
    /// It does not fit even while nothing is taken: too large for the space or the window, or no
    /// page of the window is so aligned.
    Never,
    /// No page is asked for, or the alignment is not a power of two.
    Invalid,
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no hole holds the request now",
            Self::Never => "the request does not fit even in the empty space",
            Self::Invalid => "the request has no pages or an alignment that is no power of two",
        })
    }
}

impl core::error::Error for TakeError {}

/// Says which pages of a memory are taken.
///
/// A failed call changes nothing. Once a load has been seen, `take` and `give` allocate no memory.
pub trait Space: Send {
    /// Takes pages that nobody has.
    ///
    /// # Errors
    /// See [`TakeError`].
    fn take(&mut self, request: &Request) -> Result<Extents, TakeError>;

    /// Gives an extent back.
    ///
    /// # Panics
    /// If this space did not grant the extent, or it has been given back or trimmed since.
    fn give(&mut self, extent: Extent);

    /// How many pages there are.
    fn size(&self) -> PageCount;

    /// How many of them nobody has.
    fn free(&self) -> PageCount;

    /// The longest run of free pages that could be taken at once.
    ///
    /// May walk all holes.
    fn largest_hole(&self) -> PageCount;

    /// Checks the space's own laws: no page twice, none lost, holes merged, counters right.
    ///
    /// # Errors
    /// A text that says which law is broken where.
    fn check(&self) -> Result<(), String>;

    /// The taken pages, one range an extent, sorted.
    fn taken(&self) -> Vec<PageRange>;
}

/// A [`Space`] that takes back the tail of an extent.
pub trait Trim: Space {
    /// Gives the pages of `extent` after the first `keep` back; what is kept is the same grant.
    ///
    /// Keeping all of them changes nothing. The old, longer extent is no longer known.
    ///
    /// # Panics
    /// As [`Space::give`], and if `keep` is zero or more than the extent has.
    fn trim(&mut self, extent: Extent, keep: PageCount) -> Extent;
}

/// The first multiple of `align`, a power of two, from `page` on.
const fn align_up(page: u64, align: u64) -> u64 {
    (page + (align - 1)) & !(align - 1)
}

/// The last multiple of `align`, a power of two, up to `page`.
const fn align_down(page: u64, align: u64) -> u64 {
    page & !(align - 1)
}
