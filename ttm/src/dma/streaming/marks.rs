//! Who owns a buffer, and which way it goes, as types.

use core::fmt;

use crate::dma::Direction;

/// Who owns a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// The CPU: the device must not use it.
    Cpu,
    /// The device: the CPU does not see it as it is.
    Device,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "the CPU",
            Self::Device => "the device",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

use sealed::Sealed;

/// An [`Owner`], as a type.
pub trait Owned: Sealed {
    /// The owner.
    const OWNER: Owner;
}

/// The CPU owns it.
#[derive(Debug)]
pub enum CpuOwned {}

/// The device owns it.
#[derive(Debug)]
pub enum DeviceOwned {}

impl Sealed for CpuOwned {}
impl Sealed for DeviceOwned {}

impl Owned for CpuOwned {
    const OWNER: Owner = Owner::Cpu;
}

impl Owned for DeviceOwned {
    const OWNER: Owner = Owner::Device;
}

/// A [`Direction`], as a type.
pub trait Dir: Sealed {
    /// The direction.
    const DIRECTION: Direction;
}

/// A direction in which the CPU writes.
pub trait Writable: Dir {}

/// Directions, as types and their values.
pub mod dir {
    use super::{Dir, Direction, Sealed, Writable};

    /// To the device: the CPU writes.
    #[derive(Clone, Copy, Debug)]
    pub struct To;

    /// From the device: the CPU reads.
    #[derive(Clone, Copy, Debug)]
    pub struct From;

    /// Both ways.
    #[derive(Clone, Copy, Debug)]
    pub struct Bidi;

    impl Sealed for To {}
    impl Sealed for From {}
    impl Sealed for Bidi {}

    impl Dir for To {
        const DIRECTION: Direction = Direction::ToDevice;
    }

    impl Dir for From {
        const DIRECTION: Direction = Direction::FromDevice;
    }

    impl Dir for Bidi {
        const DIRECTION: Direction = Direction::Both;
    }

    impl Writable for To {}
    impl Writable for Bidi {}
}
