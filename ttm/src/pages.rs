//! Frames: pages of system memory that are mapped nowhere until someone asks.
//!
//! ```text
//!   PageSource ──take, give──▶ Pool ──take, give──▶ objects
//!   (system calls)              │ shelves by kind, order and cleanliness; magazines by thread
//!                               └ kmap: short windows, from a bounded, kept set
//! ```
//!
//! A [`Pool`] hands out [`FrameRun`]s, zeroed for their new owner, and takes them back; behind it a
//! [`PageSource`] gets memory from the system and gives it back. A run is named by (file, first
//! index); looking inside needs a [`Kmap`], a short mapping that undoes itself. This module never
//! reclaims: what does not fit the [`Budget`] is [`Error::NoMemory`](crate::Error::NoMemory), and
//! residency decides what to do about it. A [`Reclaimer`] watches [`Pressure`] and shrinks what is
//! pooled, then asks those who can [`Reclaim`].

mod budget;
mod copy;
mod file_range;
mod frames;
mod heap;
mod kmap;
mod mapped;
mod owner;
mod pool;
mod reclaimer;
mod source;

pub use budget::{Budget, Client};
pub use copy::copy_memory;
pub use file_range::FileRange;
pub use frames::{Dirty, FrameKind, FrameRun, FrameSpan, Want, Zeroed, Zone, order_of};
pub use heap::Heap;
pub use kmap::{Kmap, KmapUsage};
pub use mapped::Mapped;
pub use pool::{Pool, PoolConfig, PoolCounts, PoolLimit, PoolRow, PoolTable};
pub use reclaimer::{Level, Pressure, Reclaim, Reclaimer, ReclaimerCounts};
pub use source::{Offers, PageSource, Zones};
