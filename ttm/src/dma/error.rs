//! What can go wrong between memory and a device.

mod says;

use core::fmt;

use placement::CacheMode;

use super::{Attr, Bound, Code, Direction, Field, Mask, NoPeerPath, Owner, ParmsFault, Path};

/// Why a mapping is not coherent without help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NotCoherent {
    /// The device's accesses pass the CPU's caches by.
    DeviceDoesNotSnoop,
    /// The platform copies everything that is mapped for it.
    ForcedBounce,
    /// The memory ends above what the device reaches.
    AboveMask {
        /// The last byte.
        end: u64,
        /// What it reaches.
        mask: Mask,
    },
    /// The device is not trusted, and the ends share pages with something else.
    UntrustedUnaligned,
    /// The device reaches a pool of its own and nothing else.
    RestrictedPool,
    /// The memory is encrypted, and the device has no key.
    EncryptedMemory,
    /// Nobody knows whether it is.
    Unknown,
}

impl fmt::Display for NotCoherent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceDoesNotSnoop => f.write_str("the device does not snoop the CPU's caches"),
            Self::ForcedBounce => f.write_str("the platform copies whatever is mapped"),
            Self::AboveMask { end, mask } => {
                write!(f, "byte {end:#x} is above the device's {mask}")
            }
            Self::UntrustedUnaligned => {
                f.write_str("the device is not trusted and the ends are not aligned")
            }
            Self::RestrictedPool => f.write_str("the device reaches only a pool of its own"),
            Self::EncryptedMemory => f.write_str("the memory is encrypted"),
            Self::Unknown => f.write_str("nothing says whether it is coherent"),
        }
    }
}

/// Why memory cannot be used by a device as asked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DmaError {
    /// No bytes.
    ZeroLength,
    /// The range goes past the last address.
    AddressOverflow,
    /// A range that is not inside the mapping.
    RangeOutOfMapping {
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// How many the mapping has.
        mapped: u64,
    },
    /// The platform cannot serve so narrow a device.
    MaskUnsupported {
        /// What was asked for.
        mask: Mask,
        /// The narrowest that it can serve.
        least: Mask,
    },
    /// A mask below what live mappings use.
    MaskNarrowedWhileLive {
        /// Live mappings.
        live: u64,
        /// Their highest byte.
        highest: u64,
        /// What was asked for.
        asked: Mask,
    },
    /// The path cannot change while something is mapped by it.
    PathChangeWhileLive {
        /// Live mappings.
        live: u64,
    },
    /// Nothing is mapped so on that path.
    NoPath {
        /// The path.
        path: Path,
    },
    /// An address that the device does not reach.
    AboveMask {
        /// The last byte.
        end: u64,
        /// What it reaches.
        mask: Mask,
    },
    /// Coherency was demanded.
    NotCoherent {
        /// Why there is none.
        cause: NotCoherent,
    },
    /// It would have to be copied on its way, which was not allowed.
    WouldBounce {
        /// Why.
        cause: NotCoherent,
    },
    /// The same for a buffer that several share, where it never is.
    WouldBounceShared {
        /// Why.
        cause: NotCoherent,
    },
    /// A sync in another direction than that of the mapping.
    DirectionMismatch {
        /// The mapping's.
        mapped: Direction,
        /// What was asked for.
        asked: Direction,
    },
    /// The device's cache maintenance was to be skipped by somebody who cannot show that the device
    /// owns the buffer.
    SkipSyncWithoutProof,
    /// No list can be built by these parameters.
    BadParms {
        /// What is wrong with them.
        fault: ParmsFault,
    },
    /// A page size that is no power of two, or greater than it may be.
    BadGranule {
        /// What was asked for, in bytes.
        granule: u64,
        /// The greatest that will do, in bytes.
        most: u64,
    },
    /// A segment that does not begin and end on pages of the size asked for.
    NotAMultiple {
        /// Which segment.
        index: usize,
        /// The page size, in bytes.
        granule: u64,
    },
    /// A segment longer than the device takes.
    SegmentTooLong {
        /// Which segment.
        index: usize,
        /// Its bytes.
        len: u64,
        /// The most bytes.
        max: u64,
    },
    /// More segments than the device takes.
    TooManySegments {
        /// How many there are.
        have: usize,
        /// How many it takes.
        most: u32,
    },
    /// A segment across one of the addresses that the device cannot pass in one go.
    BoundaryCrossed {
        /// Which segment.
        index: usize,
    },
    /// A segment that begins or ends between the addresses where it may.
    Misaligned {
        /// Which segment.
        index: usize,
        /// The low bits that are to be zero there.
        mask: u64,
    },
    /// Low bits of addresses are to be kept that a translation of such pages does not keep.
    AlignmentUnsupported {
        /// The low bits to keep.
        mask: u64,
        /// The translation's page size, in bytes.
        granule: u64,
    },
    /// The frames of a segment have no address, or not one after the other.
    NoAddress {
        /// Which segment.
        index: usize,
    },
    /// An alignment that is no power of two, or wider than can be kept.
    BadAlignment {
        /// What was asked for.
        asked: u64,
        /// The widest.
        most: u64,
    },
    /// An address or an offset that does not begin, or end, where it has to.
    MisalignedAddress {
        /// The address.
        address: u64,
        /// What it has to be a multiple of, or to agree with another address in.
        align: u64,
    },
    /// More bytes than any segment may have.
    LongerThanBoundary {
        /// How many.
        len: u64,
        /// The boundary: a power of two less one.
        boundary: u64,
    },
    /// No I/O addresses are left below the limit.
    IovaExhausted {
        /// How many bytes were asked for.
        len: u64,
        /// Below what.
        limit: Mask,
    },
    /// Addresses that belong to the platform.
    IovaReserved {
        /// The first.
        first: u64,
        /// How many.
        len: u64,
    },
    /// Addresses that somebody has.
    IovaInUse {
        /// The first.
        first: u64,
        /// How many.
        len: u64,
    },
    /// The tables of the IOMMU show nothing more.
    TablesRefuse {
        /// Why.
        why: &'static str,
    },
    /// A part of a link, which is unlinked whole or not at all.
    PartialUnmap {
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Where the link that it cuts begins.
        link: u64,
    },
    /// Bytes that are not linked.
    NotMapped {
        /// The first of them.
        offset: u64,
    },
    /// More bytes than adjoin anywhere in the bounce pool.
    TooLargeForBounce {
        /// How many.
        len: u64,
        /// The most that one mapping of this alignment can have.
        max: u64,
    },
    /// The bounce pool has no room now.
    BouncePoolFull {
        /// How many bytes of slots are needed.
        need: u64,
        /// How many there are.
        total: u64,
        /// How many of them are used.
        used: u64,
    },
    /// A cache line that the device writes a part of, while something else is, or may be, in the rest.
    PartialCacheLine {
        /// Foreign bytes in the first line.
        head: u32,
        /// Foreign bytes in the last.
        tail: u32,
        /// Bytes of a line.
        line: u32,
    },
    /// Memory that is no bounce pool.
    BouncePoolTooSmall {
        /// How many bytes it has.
        len: u64,
        /// The fewest that will do.
        least: u64,
    },
    /// A range that is not inside the buffer.
    RangeOutOfBuffer {
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// How many the buffer has.
        buffer: u64,
    },
    /// Two attributes that exclude each other.
    AttrConflict {
        /// One.
        a: Attr,
        /// The other.
        b: Attr,
    },
    /// Something that only the other owner of a buffer may do.
    WrongOwner {
        /// Who owns it.
        have: Owner,
        /// Who would have to.
        want: Owner,
    },
    /// The device may still use the buffer.
    FencePending {
        /// Fences of its work that have not signalled.
        pending: usize,
        /// Fences that were given up by a device that was lost, or by their owner: nobody knows
        /// whether the device has stopped.
        lost: usize,
    },
    /// Such a buffer has to be allocated for the device.
    NeedsAllocation {
        /// The row of the table that says so.
        code: Code,
        /// From memory that is not encrypted.
        decrypted: bool,
    },
    /// It is to be copied, and the device has no pool to copy to.
    NoBouncePool,
    /// The verdict has changed, and a buffer that is mapped would be mapped otherwise by now.
    DecisionChanged {
        /// The row that decides now.
        code: Code,
    },
    /// The device does not snoop, and the memory has no mode that does without.
    CoherentUnsupported {
        /// What was asked for.
        asked: CacheMode,
    },
    /// There are no frames now.
    OutOfMemory {
        /// How many bytes were wanted.
        bytes: u64,
    },
    /// The device's own pool has no frames now; it is not filled from elsewhere.
    PoolExhausted {
        /// Which.
        pool: &'static str,
    },
    /// The source of frames failed.
    Source {
        /// What it says.
        says: Box<str>,
    },
    /// A buffer that devices have mapped.
    StillMapped {
        /// How many have.
        devices: usize,
    },
    /// An object that was exported, and that nobody has any more.
    Released,
    /// The exporter's driver refuses somebody who wants to attach.
    Vetoed {
        /// Why.
        why: Box<str>,
    },
    /// Somebody who wants to attach cannot use the memory, and it cannot be moved for him.
    AttachIncompatible {
        /// What it is about.
        field: Field,
        /// What there is.
        have: Box<Bound>,
        /// What is wanted.
        want: Box<Bound>,
        /// Those that keep it where it is, if it could be moved otherwise.
        held_by: Box<[String]>,
    },
    /// Somebody who wants to attach cannot use the memory where it is; it could be moved.
    NeedsMigration {
        /// What it is about.
        field: Field,
        /// What there is.
        have: Box<Bound>,
        /// What is wanted.
        want: Box<Bound>,
        /// Those that would be told, and have to map it again.
        unmap: Box<[String]>,
    },
    /// The memory of one device is not reached by another.
    PeerNotReachable {
        /// Why.
        reason: NoPeerPath,
    },
    /// The mapping was taken away, because the object was about to move.
    Revoked {
        /// How often that happened so far.
        generation: u64,
    },
    /// Whoever is attached has nothing mapped.
    NotLent,
    /// Whoever is attached has it mapped already.
    AlreadyLent,
    /// Somebody pins who is not told of moves.
    NotDynamic,
    /// Somebody has it mapped from whom it cannot be taken away.
    NotRevocable {
        /// Who.
        by: String,
    },
    /// Those who are attached have it pinned as often as the exporter lets them.
    TooManyPins {
        /// How often that is.
        most: u32,
    },
}

impl DmaError {
    /// Whether the same may succeed once others have given back what they have.
    ///
    /// ```
    /// use ttm::dma::{DmaError, Mask};
    ///
    /// let limit = Mask::bits(28);
    /// assert!(DmaError::IovaExhausted { len: 4096, limit }.is_retryable());
    /// assert!(!DmaError::ZeroLength.is_retryable());
    /// ```
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::IovaExhausted { .. }
                | Self::BouncePoolFull { .. }
                | Self::FencePending { lost: 0, .. }
                | Self::OutOfMemory { .. }
                | Self::PoolExhausted { .. }
        )
    }
}

impl core::error::Error for DmaError {}

impl DmaError {
    /// The number that the Linux kernel's DMA API would answer with, for those who know it: whether
    /// memory is short, somebody is in the way, it cannot be done so, or the request makes no sense.
    ///
    /// ```
    /// use ttm::dma::{DmaError, Mask};
    ///
    /// assert_eq!(DmaError::ZeroLength.to_errno(), 22);
    /// let limit = Mask::bits(28);
    /// assert_eq!(DmaError::IovaExhausted { len: 4096, limit }.to_errno(), 12);
    /// ```
    #[must_use]
    pub fn to_errno(&self) -> i32 {
        match self {
            error if error.is_retryable() => 12,
            Self::AttachIncompatible { .. }
            | Self::NeedsMigration { .. }
            | Self::NotRevocable { .. }
            | Self::StillMapped { .. }
            | Self::FencePending { .. }
            | Self::MaskNarrowedWhileLive { .. }
            | Self::PathChangeWhileLive { .. }
            | Self::TooManyPins { .. } => 16,
            Self::IovaInUse { .. } => 17,
            Self::PeerNotReachable { .. } => 121,
            Self::Vetoed { .. } => 1,
            Self::NotCoherent { .. }
            | Self::WouldBounce { .. }
            | Self::WouldBounceShared { .. }
            | Self::CoherentUnsupported { .. }
            | Self::NeedsAllocation { .. }
            | Self::NoPath { .. } => 95,
            Self::AboveMask { .. }
            | Self::TablesRefuse { .. }
            | Self::Source { .. }
            | Self::NoBouncePool
            | Self::MaskUnsupported { .. } => 5,
            Self::Released | Self::Revoked { .. } | Self::NotLent => 19,
            _ => 22,
        }
    }
}

impl From<DmaError> for crate::error::Error {
    fn from(error: DmaError) -> Self {
        Self::Dma {
            retry: error.is_retryable(),
            errno: error.to_errno(),
            source: Box::new(error),
        }
    }
}
