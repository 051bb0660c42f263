//! A part of a buffer that the CPU has while the device has the rest.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use super::inner::Inner;
use super::{Dir, Writable};
use crate::dma::DmaError;
use crate::dma::words::in_mapping;

/// Bytes that the CPU owns until this drops.
///
/// The window is to be dropped: where it is forgotten, the device does not see what was written.
pub struct CpuWindow<'m, D: Dir> {
    inner: &'m mut Inner,
    bytes: Range<u64>,
    direction: PhantomData<D>,
}

impl<'m, D: Dir> CpuWindow<'m, D> {
    pub(super) const fn new(inner: &'m mut Inner, bytes: Range<u64>) -> Self {
        Self {
            inner,
            bytes,
            direction: PhantomData,
        }
    }

    /// How many bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    fn place(&self, offset: u64, len: u64) -> Result<u64, DmaError> {
        in_mapping(offset, len, self.bytes())?;
        Ok(self.bytes.start + offset)
    }

    /// Copies bytes out, `at` bytes into the window.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        let place = self.place(at, out.len() as u64)?;
        self.inner.read(place, out)
    }

    /// Copies bytes in, `at` bytes into the window. The device sees them when the window drops.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), DmaError>
    where
        D: Writable,
    {
        let place = self.place(at, bytes.len() as u64)?;
        self.inner.write(place, bytes)
    }
}

impl<D: Dir> Drop for CpuWindow<'_, D> {
    fn drop(&mut self) {
        self.inner.close(&self.bytes);
    }
}

impl<D: Dir> fmt::Debug for CpuWindow<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuWindow({:?})", self.bytes)
    }
}
