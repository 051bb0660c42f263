//! What one constraint says of one thing.

use core::fmt;

use super::{CacheModes, Encryption, StorageKinds};
use crate::dma::Mask;

/// What a constraint is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Field {
    /// Which addresses are reached.
    Limit,
    /// How long a segment is.
    MaxSegment,
    /// Where a segment ends at the latest.
    BoundaryMask,
    /// Which low bits are kept.
    MinAlignMask,
    /// What the addresses of runs are multiples of.
    Alignment,
    /// How many segments there are.
    MaxSegments,
    /// Whether all is one run.
    Contiguous,
    /// Whether there are frames.
    CpuPages,
    /// How the CPU caches it.
    Caching,
    /// Whether coherency is demanded.
    Coherent,
    /// Whether a device passes the CPU's caches by.
    NeverSnoops,
    /// Whether a copy on the way is ruled out.
    NoBounce,
    /// Whether a device is never served without such a copy.
    AlwaysBounces,
    /// In what kind of memory it is.
    Storage,
    /// How it is encrypted.
    Encryption,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Limit,
        Self::MaxSegment,
        Self::BoundaryMask,
        Self::MinAlignMask,
        Self::Alignment,
        Self::MaxSegments,
        Self::Contiguous,
        Self::CpuPages,
        Self::Caching,
        Self::Coherent,
        Self::NeverSnoops,
        Self::NoBounce,
        Self::AlwaysBounces,
        Self::Storage,
        Self::Encryption,
    ];
}

/// What a constraint, or a buffer as it is, says of one field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bound {
    /// Of [`Field::Limit`].
    Limit(Mask),
    /// Of [`Field::MaxSegment`], in bytes.
    MaxSegment(u64),
    /// Of [`Field::BoundaryMask`].
    BoundaryMask(u64),
    /// Of [`Field::MinAlignMask`].
    MinAlignMask(u64),
    /// Of [`Field::Alignment`], in bytes.
    Alignment(u64),
    /// Of [`Field::MaxSegments`]; `None` for as many as there are.
    MaxSegments(Option<u64>),
    /// Of [`Field::Contiguous`].
    Contiguous(bool),
    /// Of [`Field::CpuPages`].
    CpuPages(bool),
    /// Of [`Field::Caching`].
    Caching(CacheModes),
    /// Of [`Field::Coherent`].
    Coherent(bool),
    /// Of [`Field::NeverSnoops`].
    NeverSnoops(bool),
    /// Of [`Field::NoBounce`].
    NoBounce(bool),
    /// Of [`Field::AlwaysBounces`].
    AlwaysBounces(bool),
    /// Of [`Field::Storage`].
    Storage(StorageKinds),
    /// Of [`Field::Encryption`].
    Encryption(Encryption),
}

impl Bound {
    /// What it is about.
    #[must_use]
    pub const fn field(&self) -> Field {
        match self {
            Self::Limit(_) => Field::Limit,
            Self::MaxSegment(_) => Field::MaxSegment,
            Self::BoundaryMask(_) => Field::BoundaryMask,
            Self::MinAlignMask(_) => Field::MinAlignMask,
            Self::Alignment(_) => Field::Alignment,
            Self::MaxSegments(_) => Field::MaxSegments,
            Self::Contiguous(_) => Field::Contiguous,
            Self::CpuPages(_) => Field::CpuPages,
            Self::Caching(_) => Field::Caching,
            Self::Coherent(_) => Field::Coherent,
            Self::NeverSnoops(_) => Field::NeverSnoops,
            Self::NoBounce(_) => Field::NoBounce,
            Self::AlwaysBounces(_) => Field::AlwaysBounces,
            Self::Storage(_) => Field::Storage,
            Self::Encryption(_) => Field::Encryption,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_or_no = |f: &mut fmt::Formatter<'_>, yes: bool, what: [&str; 2]| {
            f.write_str(what[usize::from(!yes)])
        };
        match *self {
            Self::Limit(mask) => write!(f, "addresses within a {mask}"),
            Self::MaxSegment(len) => write!(f, "segments of {len:#x} bytes"),
            Self::BoundaryMask(mask) => write!(f, "a boundary mask of {mask:#x}"),
            Self::MinAlignMask(mask) => write!(f, "cuts where the bits {mask:#x} are zero"),
            Self::Alignment(align) => write!(f, "runs at multiples of {align:#x}"),
            Self::MaxSegments(Some(most)) => write!(f, "{most} segments"),
            Self::MaxSegments(None) => f.write_str("any number of segments"),
            Self::Contiguous(yes) => yes_or_no(f, yes, ["one run", "several runs"]),
            Self::CpuPages(yes) => yes_or_no(f, yes, ["frames", "no frames"]),
            Self::Caching(modes) => write!(f, "{modes} memory"),
            Self::Coherent(yes) => yes_or_no(f, yes, ["coherency demanded", "syncs allowed"]),
            Self::NeverSnoops(yes) => {
                let what = ["a device that does not snoop", "devices that snoop"];
                yes_or_no(f, yes, what)
            }
            Self::NoBounce(yes) => yes_or_no(f, yes, ["no copies", "copies allowed"]),
            Self::AlwaysBounces(yes) => {
                let what = ["a device that needs copies", "devices that need no copies"];
                yes_or_no(f, yes, what)
            }
            Self::Storage(kinds) => kinds.fmt(f),
            Self::Encryption(encryption) => write!(f, "memory that is {encryption}"),
        }
    }
}
