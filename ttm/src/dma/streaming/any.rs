//! Mappings whose owner and direction are values, for tables of buffers.

use core::fmt;

use super::inner::Inner;
use super::{Dir, Keep, Owned, Owner, Streaming};
use crate::dma::ledger::{Class, SyncTo};
use crate::dma::{Backing, Direction, DmaError, MappedList};
use crate::fence::Fence;

/// A [`Streaming`] mapping in whatever state. What the types would not let be written is an error
/// here, and a [violation](super::super::Violation) for the ledger where one looks for it.
#[must_use = "what the device owns is not freed by a drop; unmap it"]
pub struct AnyStreaming {
    inner: Box<Inner>,
}

impl<O: Owned, D: Dir> From<Streaming<O, D>> for AnyStreaming {
    fn from(typed: Streaming<O, D>) -> Self {
        Self { inner: typed.inner }
    }
}

impl AnyStreaming {
    /// Who owns it.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.inner.owner
    }

    /// Who writes and who reads.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.inner.direction()
    }

    /// The same with its state as a type.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`], [`DmaError::DirectionMismatch`], with the mapping.
    pub fn into_typed<O: Owned, D: Dir>(self) -> Result<Streaming<O, D>, (Self, DmaError)> {
        let mapped = self.direction();
        let error = match self.wants(O::OWNER) {
            Err(error) => error,
            Ok(()) if mapped != D::DIRECTION => DmaError::DirectionMismatch {
                mapped,
                asked: D::DIRECTION,
            },
            Ok(()) => return Ok(Streaming::of(self.inner)),
        };
        Err((self, error))
    }

    fn wants(&self, want: Owner) -> Result<(), DmaError> {
        match self.inner.owner {
            have if have == want => Ok(()),
            have => Err(DmaError::WrongOwner { have, want }),
        }
    }

    /// Where the device finds what.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`].
    pub fn dma(&self) -> Result<&MappedList, DmaError> {
        self.wants(Owner::Device)?;
        Ok(self.inner.hold().mapping().list())
    }

    /// Says that the device uses it until `fence`.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`].
    pub fn attach_fence(&mut self, fence: Fence) -> Result<(), DmaError> {
        self.wants(Owner::Device)?;
        self.inner.fences.push(fence);
        Ok(())
    }

    /// Hands it to the CPU, for a transfer in that direction: the mapping's, or any if it goes both
    /// ways.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`], [`DmaError::DirectionMismatch`], [`DmaError::FencePending`].
    #[track_caller]
    pub fn to_cpu(&mut self, asked: Direction) -> Result<(), DmaError> {
        self.wants(Owner::Device)?;
        self.goes(asked, SyncTo::Cpu)?;
        self.inner.hand_to_cpu()
    }

    /// Hands it to the device, likewise.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`], [`DmaError::DirectionMismatch`], [`DmaError::DecisionChanged`].
    #[track_caller]
    pub fn to_device(&mut self, asked: Direction) -> Result<(), DmaError> {
        self.wants(Owner::Cpu)?;
        self.goes(asked, SyncTo::Device)?;
        self.inner.hand_to_device()
    }

    #[track_caller]
    fn goes(&self, asked: Direction, to: SyncTo) -> Result<(), DmaError> {
        let mapped = self.direction();
        if mapped == asked || mapped == Direction::Both {
            return Ok(());
        }
        let error = DmaError::DirectionMismatch { mapped, asked };
        let class = match (to, mapped) {
            (SyncTo::Cpu, Direction::ToDevice) => Class::SyncForCpuOfReadOnly,
            (SyncTo::Device, Direction::FromDevice) => Class::SyncForDeviceOfWriteOnly,
            _ => Class::SyncInOtherDirection,
        };
        self.inner.offence(class, error.to_string());
        Err(error)
    }

    /// Copies bytes out, `at` bytes into the mapping.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`], [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        self.wants(Owner::Cpu)?;
        self.inner.read(at, out)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`], [`DmaError::DirectionMismatch`] of what only the device writes,
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.wants(Owner::Cpu)?;
        let mapped = self.direction();
        if mapped == Direction::FromDevice {
            let asked = Direction::ToDevice;
            return Err(DmaError::DirectionMismatch { mapped, asked });
        }
        self.inner.write(at, bytes)
    }

    /// Ends the mapping.
    ///
    /// # Errors
    /// [`DmaError::FencePending`], with the mapping: the device may still use it.
    #[track_caller]
    pub fn unmap(self, keep: Keep) -> Result<Backing, (Self, DmaError)> {
        match self.inner.may_end() {
            Ok(()) => Ok(self.inner.end(keep)),
            Err(error) => Err((self, error)),
        }
    }
}

impl fmt::Debug for AnyStreaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyStreaming({:?})", self.inner)
    }
}
