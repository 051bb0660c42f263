//! Words that everything about DMA uses.

use core::fmt;

use super::DmaError;

/// Who writes and who reads what is mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// The CPU writes, the device reads.
    ToDevice,
    /// The device writes, the CPU reads.
    FromDevice,
    /// Both do both.
    Both,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ToDevice, Self::FromDevice, Self::Both];

    /// Whether the device writes.
    #[must_use]
    pub const fn device_writes(self) -> bool {
        !matches!(self, Self::ToDevice)
    }

    /// Whether the device reads.
    #[must_use]
    pub const fn device_reads(self) -> bool {
        !matches!(self, Self::FromDevice)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ToDevice => "to the device",
            Self::FromDevice => "from the device",
            Self::Both => "both ways",
        })
    }
}

/// An answer that may not be known. Not knowing is never yes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Tri {
    /// Yes, and somebody can say how it is known.
    Yes,
    /// No, and somebody can say how it is known.
    No,
    /// Nobody knows.
    #[default]
    Unknown,
}

impl Tri {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Yes, Self::No, Self::Unknown];

    /// Whether it is known to be so.
    #[must_use]
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }

    /// Whether it is known not to be so.
    #[must_use]
    pub const fn is_no(self) -> bool {
        matches!(self, Self::No)
    }
}

impl From<bool> for Tri {
    fn from(yes: bool) -> Self {
        match yes {
            true => Self::Yes,
            false => Self::No,
        }
    }
}

impl fmt::Display for Tri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

/// An address as a device puts it on its bus. Made by who maps memory for a device; the last of all
/// addresses is never one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmaAddr(u64);

impl DmaAddr {
    /// The address; `None` for the last of all.
    #[must_use]
    pub const fn new(address: u64) -> Option<Self> {
        match address {
            u64::MAX => None,
            _ => Some(Self(address)),
        }
    }

    /// The number that a device is given.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaAddr({:#x})", self.0)
    }
}

impl fmt::LowerHex for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// The last of `len` bytes from `first` on.
///
/// # Errors
/// [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`].
#[inline]
pub(super) fn last_byte(first: u64, len: u64) -> Result<u64, DmaError> {
    // Asked of every segment: no error is made before there is one.
    match (len, first.checked_add(len.wrapping_sub(1))) {
        (0, _) => Err(DmaError::ZeroLength),
        (_, Some(last)) => Ok(last),
        (_, None) => Err(DmaError::AddressOverflow),
    }
}

/// What the multiples are of that a boundary, a power of two less one, does not let be crossed; of
/// no boundary, the largest power of two.
///
/// # Errors
/// [`DmaError::BadAlignment`].
pub(super) fn boundary_step(boundary: u64) -> Result<u64, DmaError> {
    match boundary {
        u64::MAX => Ok(1 << 63),
        _ => power_of_two(boundary + 1),
    }
}

/// An alignment, if it is one.
///
/// # Errors
/// [`DmaError::BadAlignment`].
pub(super) fn power_of_two(asked: u64) -> Result<u64, DmaError> {
    match asked.is_power_of_two() {
        true => Ok(asked),
        false => Err(DmaError::BadAlignment {
            asked,
            most: 1 << 63,
        }),
    }
}

/// Whether a mapping of `mapped` bytes has those.
///
/// # Errors
/// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
pub(super) fn in_mapping(offset: u64, len: u64, mapped: u64) -> Result<(), DmaError> {
    match offset.checked_add(len) {
        Some(end) if end <= mapped => Ok(()),
        Some(_) => Err(DmaError::RangeOutOfMapping {
            offset,
            len,
            mapped,
        }),
        None => Err(DmaError::AddressOverflow),
    }
}

/// Whether a buffer of `buffer` bytes has those.
///
/// # Errors
/// [`DmaError::RangeOutOfBuffer`], [`DmaError::AddressOverflow`].
pub(super) fn in_buffer(offset: u64, len: u64, buffer: u64) -> Result<(), DmaError> {
    in_mapping(offset, len, buffer).map_err(|error| match error {
        DmaError::RangeOutOfMapping { offset, len, .. } => DmaError::RangeOutOfBuffer {
            offset,
            len,
            buffer,
        },
        error => error,
    })
}
