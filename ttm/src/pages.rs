//! Frames: pages of system memory that are mapped nowhere until someone asks.
//!
//! A [`PageSource`] hands out [`FrameRun`]s, zeroed for their new owner, and takes them back. A
//! run is named by (file, first index); looking inside needs a [`Mapped`], a short mapping that
//! undoes itself. This module never reclaims: what does not fit the [`Budget`] is
//! [`Error::NoMemory`](crate::Error::NoMemory), and residency decides what to do about it.

mod budget;
mod copy;
mod frames;
mod mapped;

pub use budget::Budget;
pub use copy::copy_memory;
pub use frames::{FrameRun, FrameSpan, PageSource};
pub use mapped::Mapped;
