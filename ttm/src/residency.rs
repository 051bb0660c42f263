//! Being somewhere, and getting there.
//!
//! One validate, from wish to fence:
//!
//! 1. Is the object in one of the places already? Then nothing happens (`validate`).
//! 2. Space is looked for in each place as it is; only then, if nothing fits anywhere, by asking
//!    the least recently used objects to leave (`find_space`, `evict`). Who evicts has a claim on
//!    what becomes free.
//! 3. The driver says how the content gets there; perhaps through another place first
//!    (`migrate`). System pages are populated, reclaiming others' if need be (`populate`).
//! 4. An engine copies behind a fence, or the CPU does (`copy`). The object has its new place at
//!    once; the old one stays taken behind the fence, and takes the object back should the copy
//!    fail (`settle`).
//!
//! Eviction is the same from step 2 on, with a placement that the driver chooses. System memory
//! gives its content to the backup (`swap`). A device that is put to sleep evicts everything
//! (`suspend`); an object whose last handle is dropped leaves its space behind its fences
//! (`release`), unless it is kept for somebody who wants the like (`spare`).
//!
//! Everything that can fail comes before the point of no return of a move (I-66): after it, the
//! old place is retired, the new one entered, the fence added, and none of that can fail.

mod bring;
mod check;
mod copy;
mod cpu;
mod dma;
mod evict;
mod find_space;
mod hunt;
mod lend;
mod migrate;
mod mode;
mod populate;
mod prepare;
mod reclaim;
mod release;
mod settle;
mod spare;
mod suspend;
mod validate;
mod verbs;
mod view;

pub use bring::NotBrought;
pub use check::{Checked, Violation};
pub(crate) use copy::View as Look;
pub use prepare::Prepared;
pub use suspend::Suspended;
pub(crate) use suspend::with_ask;
pub use validate::Rest;
