//! Memory as devices reach it: by which path, through which caches, at which addresses.
//!
//! ```text
//!   facts ──▶ Verdict (path, snoop, bounce: apart) ──▶ choose(need) ──▶ Choice, with its code
//! ```

mod error;
mod mask;
mod words;

pub use error::{DmaError, NotCoherent};
pub use mask::{Mask, MaskChange, Masks};
pub use words::{Direction, DmaAddr, Tri};
