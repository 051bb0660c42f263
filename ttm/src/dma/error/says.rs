//! What each error says: what is so, and what to do next.

mod sharing;

use core::fmt;

use super::DmaError;

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroLength => f.write_str("no bytes to map"),
            Self::AddressOverflow => f.write_str("the range goes past the last address"),
            Self::RangeOutOfMapping {
                offset,
                len,
                mapped,
            } => write!(f, "bytes {offset}+{len} of a mapping of {mapped}"),
            Self::MaskUnsupported { mask, least } => write!(
                f,
                "a device of {mask} cannot be served here; the narrowest is {least}"
            ),
            Self::MaskNarrowedWhileLive {
                live,
                highest,
                asked,
            } => write!(
                f,
                "{live} live mappings reach up to byte {highest:#x}, above {asked}; unmap them first"
            ),
            Self::PathChangeWhileLive { live } => write!(
                f,
                "{live} mappings are live; the path changes only when there is none"
            ),
            Self::NoPath { path } => write!(
                f,
                "memory is not mapped so for a device whose path is {path}; ask the probe, and make \
                 the device for the path that it finds"
            ),
            Self::AboveMask { end, mask } => {
                write!(f, "byte {end:#x} is above the device's {mask}")
            }
            Self::NotCoherent { cause } => write!(f, "coherency was demanded, and {cause}"),
            Self::WouldBounce { cause } => write!(
                f,
                "it would have to be copied, because {cause}; allow that, or allocate for the device"
            ),
            Self::WouldBounceShared { cause } => write!(
                f,
                "a shared buffer is never copied, and would have to be, because {cause}; allocate \
                 it for the device"
            ),
            Self::DirectionMismatch { mapped, asked } => {
                write!(f, "the mapping is {mapped}, and the sync {asked}")
            }
            Self::SkipSyncWithoutProof => f.write_str(
                "only a buffer that a device owns already can be mapped for another without a sync",
            ),
            Self::BadParms { fault } => write!(f, "no list is built by these parameters: {fault}"),
            Self::BadGranule { granule, most } => write!(
                f,
                "a page size is a power of two up to {most:#x}, and {granule:#x} is none; take one"
            ),
            Self::NotAMultiple { index, granule } => write!(
                f,
                "segment {index} does not begin and end on pages of {granule:#x}; take smaller \
                 pages, or walk the segments"
            ),
            Self::SegmentTooLong { index, len, max } => write!(
                f,
                "segment {index} has {len:#x} bytes of at most {max:#x}; build the list by the \
                 device's own parameters"
            ),
            Self::TooManySegments { have, most } => write!(
                f,
                "{have} segments of at most {most}; translate the addresses, or move the buffer \
                 to longer runs"
            ),
            Self::BoundaryCrossed { index } => write!(
                f,
                "segment {index} crosses a boundary; build the list by the device's own \
                 parameters, with shorter segments if its frames do not lie as they are numbered"
            ),
            Self::Misaligned { index, mask } => write!(
                f,
                "segment {index} begins or ends where some of the low bits {mask:#x} are set; \
                 move the buffer to aligned frames"
            ),
            Self::AlignmentUnsupported { mask, granule } => write!(
                f,
                "the low bits {mask:#x} are not kept by a translation of pages of {granule:#x}; \
                 map the frames as they are"
            ),
            Self::NoAddress { index } => write!(
                f,
                "the frames of segment {index} have no address of their own; translate them, or \
                 build the list with shorter segments"
            ),
            Self::BadAlignment { asked, most } => write!(
                f,
                "an alignment of {asked:#x} cannot be kept; ask for a power of two up to {most:#x}"
            ),
            Self::MisalignedAddress { address, align } => write!(
                f,
                "{address:#x} is out of step by {:#x}; move it by whole units of {align:#x}",
                address & align.wrapping_sub(1)
            ),
            Self::LongerThanBoundary { len, boundary } => write!(
                f,
                "{len} bytes cross a boundary of {boundary:#x}; map them in pieces"
            ),
            Self::IovaExhausted { len, limit } => write!(
                f,
                "no {len} I/O addresses are left within the {limit}; unmap something and retry"
            ),
            Self::IovaReserved { first, len } => write!(
                f,
                "addresses {first:#x}+{len:#x} belong to the platform; choose others"
            ),
            Self::IovaInUse { first, len } => write!(
                f,
                "addresses {first:#x}+{len:#x} are in use; unmap what is there, or choose others"
            ),
            Self::TablesRefuse { why } => write!(
                f,
                "the IOMMU's tables refuse: {why}; unmap what is not needed, or make the device anew"
            ),
            Self::PartialUnmap { offset, len, link } => write!(
                f,
                "bytes {offset}+{len} cut the link at {link}; unlink all of it"
            ),
            Self::NotMapped { offset } => {
                write!(f, "byte {offset} is not linked; unlink only what is")
            }
            Self::TooLargeForBounce { len, max } => write!(
                f,
                "{len} bytes cannot be copied at once; map at most {max} a piece"
            ),
            Self::BouncePoolFull { need, total, used } => write!(
                f,
                "the bounce pool has {used} of {total} bytes in use and no run of {need}; unmap \
                 something and retry"
            ),
            Self::BouncePoolTooSmall { len, least } => write!(
                f,
                "{len} bytes are no bounce pool; give it at least {least}"
            ),
            Self::RangeOutOfBuffer {
                offset,
                len,
                buffer,
            } => write!(
                f,
                "bytes {offset}+{len} of a buffer of {buffer}; choose a range inside"
            ),
            Self::AttrConflict { a, b } => {
                write!(f, "{a} and {b} exclude each other; ask for one of them")
            }
            Self::WrongOwner { have, want } => write!(
                f,
                "{have} owns the buffer, and only {want} may do that; hand it over first"
            ),
            Self::FencePending { pending, lost: 0 } => write!(
                f,
                "{pending} fences of the device's work are pending; wait for them and retry"
            ),
            Self::FencePending { pending, lost } => write!(
                f,
                "{pending} fences of the device's work are pending and {lost} were given up; reset \
                 the device, then release its quarantine"
            ),
            Self::PartialCacheLine { head, tail, line } => write!(
                f,
                "the range leaves {head} bytes before it and {tail} after it in lines of {line}, \
                 which the device may write; begin and end at lines, or allow a bounce"
            ),
            Self::NeedsAllocation {
                code,
                decrypted: false,
            } => write!(
                f,
                "by {code} such a buffer is allocated for the device, not mapped; use coherent memory"
            ),
            Self::NeedsAllocation { code, .. } => write!(
                f,
                "by {code} the buffer has to be of memory that is not encrypted; allocate it from \
                 such, or allow a bounce"
            ),
            Self::NoBouncePool => f.write_str(
                "the buffer has to be copied, and the device has no bounce pool; give it one",
            ),
            Self::DecisionChanged { code } => write!(
                f,
                "the verdict has changed, and {code} decides now; unmap the buffer and map it again"
            ),
            Self::CoherentUnsupported { asked } => write!(
                f,
                "the device does not snoop, and the source has no mode that does without in place \
                 of {asked}; use another source, or streaming mappings with syncs"
            ),
            Self::OutOfMemory { bytes } => write!(
                f,
                "there are no frames for {bytes} bytes; give some back and retry"
            ),
            Self::PoolExhausted { pool } => write!(
                f,
                "the device's own pool {pool:?} has no frames left, and nothing else will do; give \
                 some back and retry"
            ),
            Self::Source { says } => write!(
                f,
                "the source of frames failed: {says}; see to that, or take another"
            ),
            Self::StillMapped { devices } => write!(
                f,
                "{devices} devices have the buffer mapped; detach them first"
            ),
            Self::Released
            | Self::Vetoed { .. }
            | Self::AttachIncompatible { .. }
            | Self::NeedsMigration { .. }
            | Self::PeerNotReachable { .. }
            | Self::Revoked { .. }
            | Self::NotLent
            | Self::AlreadyLent
            | Self::NotDynamic
            | Self::NotRevocable { .. }
            | Self::TooManyPins { .. } => sharing::describe(self, f),
        }
    }
}
