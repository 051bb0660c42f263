//! Where memory may be, and which pages of it are taken.
//!
//! The lowest floor of the memory manager: plain values and plain bookkeeping. Nothing here does
//! I/O, takes a lock, waits, or knows what a buffer or a device is.
//!
//! - [`units`]: [`PageCount`] and [`PageRange`], the only sizes and addresses there are. Bytes
//!   become pages here and nowhere else.
//! - [`mem_type`]: [`MemType`], a kind of memory: system, translation table, VRAM, private ones.
//! - [`place`]: [`Place`], one wish: a memory type, a window in it, flags, a cache mode.
//! - [`placement`](mod@placement): [`Placement`], wishes in order of preference.
//! - [`extent`]: [`Extent`], pages that a space has granted, with their generation.
//! - [`space`]: [`Space`], who says which pages are taken, and its kinds [`Range`], [`Buddy`],
//!   [`Unbounded`] and [`Chunks`].
//!
//! ```
//! use placement::{PageCount, Range, Request, Space, TakeError};
//!
//! # fn main() -> Result<(), TakeError> {
//! let pages = |n| PageCount::new(n).expect("a small number of pages");
//! let mut vram = Range::new(pages(256));
//!
//! let extents = vram.take(&Request::new(pages(200)))?;
//! assert_eq!(vram.free(), pages(56));
//! assert_eq!(vram.take(&Request::new(pages(57))), Err(TakeError::Full));
//!
//! for extent in extents {
//!     vram.give(extent);
//! }
//! assert_eq!(vram.largest_hole(), pages(256));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

mod units;

mod mem_type;

mod place;

mod placement;

mod extent;

pub mod space;

pub use extent::{Extent, Extents};
pub use mem_type::MemType;
pub use place::{CacheMode, Place, PlaceFlags};
pub use placement::Placement;
pub use space::{
    Buddy, Chunk, ChunkSizes, Chunks, Range, Request, Space, TakeError, Trim, Unbounded,
};
pub use units::{PAGE_SHIFT, PAGE_SIZE, PageCount, PageRange, human_bytes};
