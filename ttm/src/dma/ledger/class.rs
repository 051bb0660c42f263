//! What can be done wrong.

use core::fmt;

/// A kind of misuse. The codes stay.
///
/// The first 25 are those that the kernel's own checks tell apart; the last is ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Mappings that are left when their device goes, or that are dropped while it owns them.
    Leak,
    /// The address is freed that says that mapping failed.
    FreeOfError,
    /// What was never mapped is freed.
    FreeOfUnmapped,
    /// Another size is freed.
    FreeOfOtherSize,
    /// Freed as another kind of mapping.
    FreeAsOtherKind,
    /// Freed with another CPU address.
    FreeOfOtherMemory,
    /// Freed with another number of segments.
    FreeOfOtherCount,
    /// Freed in another direction.
    FreeInOtherDirection,
    /// Nobody looked at whether mapping had failed.
    Unchecked,
    /// Freed with other attributes.
    FreeWithOtherAttrs,
    /// Memory of a stack is mapped.
    Stack,
    /// Text or constants are mapped.
    ReadOnlyMemory,
    /// Memory that is not there is mapped.
    InvalidMemory,
    /// Memory is mapped that nobody registered, and that does not lie as its addresses do.
    Unregistered,
    /// Memory is mapped as if it were registers of a device.
    MemoryAsRegisters,
    /// What was never mapped is synced.
    SyncOfUnmapped,
    /// A sync goes past the mapping.
    SyncOutOfRange,
    /// A sync in another direction than the mapping's.
    SyncInOtherDirection,
    /// A sync for the CPU of what the device only reads.
    SyncForCpuOfReadOnly,
    /// A sync for the device of what it only writes.
    SyncForDeviceOfWriteOnly,
    /// A sync of another number of segments.
    SyncOfOtherCount,
    /// A segment is longer than the device takes.
    SegmentTooLong,
    /// A segment crosses a boundary of the device's.
    SegmentAcrossBoundary,
    /// A cache line is in two mappings, one of which the device writes.
    OverlappingLines,
    /// A cache line is in more than eight mappings: somebody forgets to unmap.
    TooManyOverlaps,
    /// A device wrote to memory after the fence of its work.
    LateWrite,
}

/// What the types of this crate say to a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed {
    /// It can be done by them, and is found; where.
    Found(&'static str),
    /// It cannot be written with them; why.
    Impossible(&'static str),
}

impl Class {
    /// All of them, by their codes.
    pub const ALL: [Self; 26] = [
        Self::Leak,
        Self::FreeOfError,
        Self::FreeOfUnmapped,
        Self::FreeOfOtherSize,
        Self::FreeAsOtherKind,
        Self::FreeOfOtherMemory,
        Self::FreeOfOtherCount,
        Self::FreeInOtherDirection,
        Self::Unchecked,
        Self::FreeWithOtherAttrs,
        Self::Stack,
        Self::ReadOnlyMemory,
        Self::InvalidMemory,
        Self::Unregistered,
        Self::MemoryAsRegisters,
        Self::SyncOfUnmapped,
        Self::SyncOutOfRange,
        Self::SyncInOtherDirection,
        Self::SyncForCpuOfReadOnly,
        Self::SyncForDeviceOfWriteOnly,
        Self::SyncOfOtherCount,
        Self::SegmentTooLong,
        Self::SegmentAcrossBoundary,
        Self::OverlappingLines,
        Self::TooManyOverlaps,
        Self::LateWrite,
    ];

    /// What the types of this crate say to it. Whoever tells a ledger himself can do all of them.
    #[must_use]
    pub const fn typed(self) -> Typed {
        use Typed::{Found, Impossible};
        match self {
            Self::Leak => Found("dropping what a device owns, dropping a device"),
            Self::FreeOfError => Impossible("there is no such address: mapping answers a Result"),
            Self::FreeOfUnmapped => Impossible("unmapping takes the mapping, which then is gone"),
            Self::FreeOfOtherSize => Impossible("the size is in the mapping; unmapping names none"),
            Self::FreeAsOtherKind => Impossible("each kind is a type with an unmap of its own"),
            Self::FreeOfOtherMemory => Impossible("the memory is in the mapping"),
            Self::FreeOfOtherCount => Impossible("the list is in the mapping"),
            Self::FreeInOtherDirection => Impossible("the direction is part of the type"),
            Self::Unchecked => Impossible("only who looks at the Result has the mapping"),
            Self::FreeWithOtherAttrs => Impossible("the attributes are in the mapping"),
            Self::Stack | Self::ReadOnlyMemory | Self::InvalidMemory | Self::Unregistered => {
                Impossible("only a Backing is mapped, which is made of frames")
            }
            Self::MemoryAsRegisters => {
                Impossible("registers are MappedList::peer's, which takes no frames")
            }
            Self::SyncOfUnmapped => Impossible("a sync is a method of the mapping"),
            Self::SyncOutOfRange => Found("Streaming::to_cpu_range"),
            Self::SyncInOtherDirection => Found("AnyStreaming::to_cpu, to_device"),
            Self::SyncForCpuOfReadOnly => Found("AnyStreaming::to_cpu"),
            Self::SyncForDeviceOfWriteOnly => Found("AnyStreaming::to_device"),
            Self::SyncOfOtherCount => Impossible("the list is in the mapping"),
            Self::SegmentTooLong | Self::SegmentAcrossBoundary => {
                Impossible("a MappedList is checked against the device's parameters when made")
            }
            Self::OverlappingLines | Self::TooManyOverlaps => {
                Found("backings of the user's own that have the same frames")
            }
            Self::LateWrite => Found("DmaDevice::reap_quarantine, where that is checked"),
        }
    }
}

impl fmt::Display for Class {
    /// Its code, and a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{:02} {self:?}", *self as usize + 1)
    }
}
