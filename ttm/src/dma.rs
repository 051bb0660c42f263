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
//! For a device that does not snoop, [`CacheOps`] cleans the CPU's caches at each hand-over.
//!
//! Memory that a device uses is either handed to and fro, or seen alike by both at any time:
//!
//! ```text
//!   Backing ──map_streaming──▶ Streaming<DeviceOwned, D> ⇄ Streaming<CpuOwned, D> ──unmap──▶
//!   alloc_coherent ──────────▶ CoherentBuf, with the mode that was granted ──free──▶
//!                               └ dropped instead: quarantine, until the device has stopped
//! ```
//!
//! See [`streaming`] for the states, and [`Ledger`] for what finds their misuse where types do not.
//!
//! Devices that share one are held to what all of them can use, [`Constraints`], by its [`Solver`].

mod attrs;
mod backing;
mod bounce;
mod cache_ops;
mod choice;
mod coherent;
mod constraints;
mod device;
mod error;
mod iova;
mod ledger;
mod mapper;
mod mask;
mod parms;
mod quarantine;
mod peer;
mod segments;
mod solver;
pub mod streaming;
mod verdict;
mod words;

#[doc(hidden)]
pub mod fixture;

#[cfg(test)]
mod dice;

pub use attrs::{AllocAttrs, Attr, MapAttrs};
pub use backing::{Backing, OwnedMemory};
pub use bounce::{
    BounceBytes, BounceMemory, BouncePool, BounceRequest, BounceStats, Bounced, Unmap,
};
pub use cache_ops::{CacheOps, maintain, whole_lines};
pub use choice::{
    Choice, Code, CpuUse, Decision, Ends, Memory, Need, Row, Share, SkipSync, TABLE, choose,
};
pub use coherent::{CoherentBuf, CoherentHandle, Granted};
pub use constraints::{
    Bound, CacheModes, Constraints, Empty, Encryption, Field, Misfit, Storage, StorageKind,
    StorageKinds,
};
pub use device::{DmaDevice, DmaStats, FrameAddresses, LiveMappings, PathDecision, Translation};
pub use error::{DmaError, NotCoherent};
pub use iova::{
    Align, Invalidation, IovaConfig, IovaLink, IovaRange, IovaRequest, IovaSpace, IovaSpan,
    IovaState, IovaStats,
};
pub use ledger::{
    Claim, Class, Kind, Ledger, Origin, Record, RecordAttrs, Report, SyncTo, Synced, Ticket, Typed,
    Violation,
};
pub use mapper::{DmaMapping, Mapper};
pub use mask::{Mask, MaskChange, Masks};
pub use parms::{ParmsFault, SegmentParms};
pub use peer::{Listed, NoPeerPath, PciHost, PciNode, PciTree, PeerPath};
pub use quarantine::DeviceReset;
pub use segments::{
    BusRange, CpuPage, CpuSegment, DmaPage, DmaSegment, FrameBytes, IoLayout, IoRun, MappedList,
    PageList,
};
pub use solver::{
    AttachOutcome, AttachRequest, AttachmentId, Explanation, Migration, Reason, Solver,
};
pub use streaming::{
    Access, AnyStreaming, CpuOwned, CpuWindow, DeviceOwned, DeviceOwnedProof, Dir, Guest, Keep,
    Owned, Owner, SharedAccess, SharedId, SharedState, SharedStreaming, Streaming, Writable, dir,
};
pub use verdict::{BouncePolicy, Coherency, Fact, Missing, Path, Topic, Trust, Verdict};
pub use words::{Direction, DmaAddr, Tri};
