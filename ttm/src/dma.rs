//! Memory as devices reach it: by which path, through which caches, at which addresses.
//!
//! ```text
//!   facts ──▶ Verdict (path, snoop, bounce: apart) ──▶ choose(need) ──▶ Choice, with its code
//! ```

mod bounce;
#[cfg(test)]
mod draws;
mod error;
mod iova;
mod mask;
mod words;

pub use bounce::{
    BounceBytes, BounceMemory, BouncePool, BounceRequest, BounceStats, Bounced, Unmap,
};
pub use error::{DmaError, NotCoherent};
pub use iova::{
    Align, Invalidation, IovaConfig, IovaLink, IovaRange, IovaRequest, IovaSpace, IovaSpan,
    IovaState, IovaStats,
};
pub use mask::{Mask, MaskChange, Masks};
pub use words::{Direction, DmaAddr, Tri};
