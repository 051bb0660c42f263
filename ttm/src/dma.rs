//! Memory as devices reach it: by which path, through which caches, at which addresses.
//!
//! ```text
//!   facts ──▶ Verdict (path, snoop, bounce: apart) ──▶ choose(need) ──▶ Choice, with its code
//! ```
//!
//! A buffer is a list of segments: of frames for the CPU, of addresses for a device.
//!
//! ```text
//!   frames ──build──▶ PageList ──direct, layout──▶ MappedList (a CPU side, a device side)
//! ```
//!
//! A [`Mapper`], such as a [`DmaDevice`], does both for its device, and undoes it:
//!
//! ```text
//!   frames ──Mapper::map──▶ DmaMapping (its list, its path) ──Mapper::unmap──▶
//! ```
//!
//! Devices that share one are held to what all of them can use, [`Constraints`], by its [`Solver`].

mod bounce;
mod choice;
mod constraints;
mod device;
mod error;
mod iova;
mod mapper;
mod mask;
mod parms;
mod peer;
mod segments;
mod solver;
mod verdict;
mod words;

#[cfg(test)]
mod dice;

pub use bounce::{
    BounceBytes, BounceMemory, BouncePool, BounceRequest, BounceStats, Bounced, Unmap,
};
pub use choice::{
    Choice, Code, CpuUse, Decision, Ends, Memory, Need, Row, Share, SkipSync, TABLE, choose,
};
pub use constraints::{
    Bound, CacheModes, Constraints, Empty, Encryption, Field, Misfit, Storage, StorageKind,
    StorageKinds,
};
pub use device::{DmaDevice, FrameAddresses, PathDecision, Translation};
pub use error::{DmaError, NotCoherent};
pub use iova::{
    Align, Invalidation, IovaConfig, IovaLink, IovaRange, IovaRequest, IovaSpace, IovaSpan,
    IovaState, IovaStats,
};
pub use mapper::{DmaMapping, Mapper};
pub use mask::{Mask, MaskChange, Masks};
pub use parms::{ParmsFault, SegmentParms};
pub use peer::{Listed, NoPeerPath, PciHost, PciNode, PciTree, PeerPath};
pub use segments::{
    BusRange, CpuPage, CpuSegment, DmaPage, DmaSegment, FrameBytes, IoLayout, IoRun, MappedList,
    PageList,
};
pub use solver::{
    AttachOutcome, AttachRequest, AttachmentId, Explanation, Migration, Reason, Solver,
};
pub use verdict::{BouncePolicy, Coherency, Fact, Missing, Path, Topic, Trust, Verdict};
pub use words::{Direction, DmaAddr, Tri};
