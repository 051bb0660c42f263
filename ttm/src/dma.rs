//! Memory as devices reach it: by which path, through which caches, at which addresses.
//!
//! ```text
//!   facts ──▶ Verdict (path, snoop, bounce: apart) ──▶ choose(need) ──▶ Choice, with its code
//! ```

mod choice;
mod error;
mod mask;
mod verdict;
mod words;

pub use choice::{
    Choice, Code, CpuUse, Decision, Ends, Memory, Need, Row, Share, SkipSync, TABLE, choose,
};
pub use error::{DmaError, NotCoherent};
pub use mask::{Mask, MaskChange, Masks};
pub use verdict::{BouncePolicy, Coherency, Fact, Missing, Path, Topic, Trust, Verdict};
pub use words::{Direction, DmaAddr, Tri};
