//! Memory that is allocated for a device: both see it alike at any time, without hand-overs.
//!
//! ```text
//!   frames ──mode, zeroed──▶ mapped under the coherent mask ──▶ CoherentBuf
//!                                                                │ free: the device has stopped
//!                              frames, cached again ◀────────────┤
//!                                                                └ dropped: quarantine
//! ```
//!
//! Where the device snoops, the memory is cached, whatever was asked for; where it does not, or
//! nobody knows, it is not cached, in a mode that the source offers, or refused. What was granted is
//! always said.
//!
//! Seeing alike is not seeing in order: [`publish`](CoherentBuf::publish) before the device is told,
//! [`observe`](CoherentBuf::observe) after it has told. The CPU reads and writes words, each by a
//! single access, and bytes by copying; never a reference.

mod allocated;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Deref;

use placement::CacheMode;

use self::allocated::Allocated;
use super::words::in_buffer;
use super::{AllocAttrs, DmaDevice, DmaError, MappedList, OwnedMemory};
use crate::cache::Maintenance;
use crate::fence::Fence;
use crate::pages::{Mapped, PageSource};
use crate::sync::Arc;
use crate::sync::foreign::{Ordering, fence};

/// What was allocated, and in which mode. Never silently in another than asked.
#[derive(Debug)]
pub struct Granted<B> {
    /// The memory.
    pub buf: B,
    /// The mode that was asked for.
    pub asked: CacheMode,
    /// The mode that it has.
    pub got: CacheMode,
}

/// Memory that the CPU and a device see alike.
///
/// ```
/// use ttm::cache::CacheMode;
/// use ttm::dma::{AllocAttrs, DmaError, fixture::{Machine, Platform}};
///
/// # fn main() -> Result<(), DmaError> {
/// for platform in Platform::ALL {
///     let machine = Machine::new(platform, 1);
///     let asked = CacheMode::WriteCombined;
///     let ring = machine.dma.alloc_coherent(&machine.source(), 100, asked, AllocAttrs::new())?;
///     // A device that snoops gets by with cached memory, and that is said.
///     let snoops = !matches!(platform, Platform::Deaf | Platform::TranslatedDeaf);
///     assert_eq!(ring.got == CacheMode::Cached, snoops);
///
///     let mut ring = ring.buf;
///     assert_eq!(ring.bytes(), 4096);
///     ring.store_u32(8, 0x600d_f00d)?;
///     ring.publish();
///     let mut seen = [0; 4];
///     machine.device.read(ring.dma(), 8, &mut seen);
///     assert_eq!(u32::from_ne_bytes(seen), 0x600d_f00d);
///
///     machine.device.write(ring.dma(), 0, &7_u64.to_ne_bytes());
///     ring.observe();
///     assert_eq!(ring.load_u64(0)?, 7);
///     ring.free().map_err(|(_, error)| error)?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "what the device may use is not freed by a drop; free it"]
pub struct CoherentBuf {
    handle: CoherentHandle,
}

/// Memory that a device sees, and the CPU has no view of: there is nothing to read or write by.
///
/// ```compile_fail,E0599
/// # use ttm::dma::CoherentHandle;
/// fn peek(buffer: &CoherentHandle) {
///     buffer.load_u32(0).unwrap();
/// }
/// ```
#[must_use = "what the device may use is not freed by a drop; free it"]
pub struct CoherentHandle {
    inner: Box<Allocated>,
}

impl DmaDevice {
    /// Allocates memory that the device and the CPU see alike: whole pages, zeroed, in the mode that
    /// was asked for if the device needs one other than cached.
    ///
    /// # Errors
    /// - [`DmaError::AttrConflict`], [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`];
    /// - [`DmaError::CoherentUnsupported`]: the device is not known to snoop, and the source has no
    ///   mode that does without;
    /// - [`DmaError::NeedsAllocation`]: the memory must not be encrypted, and the attributes do not
    ///   say that it is not;
    /// - [`DmaError::PoolExhausted`] of a pool of the device's own, else
    ///   [`DmaError::OutOfMemory`], which both may be retried; [`DmaError::Source`];
    /// - [`DmaError::AboveMask`]: the source has none within reach;
    /// - those of [`Mapper::map`](super::Mapper::map) otherwise.
    #[track_caller]
    pub fn alloc_coherent(
        self: &Arc<Self>,
        source: &Arc<dyn PageSource>,
        bytes: u64,
        asked: CacheMode,
        attrs: AllocAttrs,
    ) -> Result<Granted<CoherentBuf>, DmaError> {
        let Granted { buf, asked, got } = self.grant(source, bytes, asked, attrs, true)?;
        let buf = CoherentBuf { handle: buf };
        Ok(Granted { buf, asked, got })
    }

    /// The same without a view for the CPU.
    ///
    /// # Errors
    /// As [`DmaDevice::alloc_coherent`].
    #[track_caller]
    pub fn alloc_coherent_unmapped(
        self: &Arc<Self>,
        source: &Arc<dyn PageSource>,
        bytes: u64,
        asked: CacheMode,
        attrs: AllocAttrs,
    ) -> Result<Granted<CoherentHandle>, DmaError> {
        self.grant(source, bytes, asked, attrs, false)
    }

    #[track_caller]
    fn grant(
        self: &Arc<Self>,
        source: &Arc<dyn PageSource>,
        bytes: u64,
        asked: CacheMode,
        attrs: AllocAttrs,
        viewed: bool,
    ) -> Result<Granted<CoherentHandle>, DmaError> {
        let inner = Allocated::new(self, source, bytes, asked, attrs, viewed)?;
        let got = inner.mode;
        let inner = Box::new(inner);
        let buf = CoherentHandle { inner };
        Ok(Granted { buf, asked, got })
    }
}

/// What is known without a view. Not to be written by, so that a handle that has none never takes its
/// place.
impl Deref for CoherentBuf {
    type Target = CoherentHandle;

    fn deref(&self) -> &CoherentHandle {
        &self.handle
    }
}

impl CoherentBuf {
    fn check(&self, offset: u64, len: u64) -> Result<(), DmaError> {
        in_buffer(offset, len, self.bytes())
    }

    /// The mapping with the word of `len` bytes there.
    fn word(&self, address: u64, len: u64) -> Result<(&Mapped, usize), DmaError> {
        self.check(address, len)?;
        match address.is_multiple_of(len) {
            true => Ok(self.inner.frames.find(address)),
            false => Err(DmaError::MisalignedAddress {
                address,
                align: len,
            }),
        }
    }

    /// Reads a word by one access.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfBuffer`]; [`DmaError::MisalignedAddress`] if `at` is no multiple of 4.
    pub fn load_u32(&self, at: u64) -> Result<u32, DmaError> {
        let (mapped, offset) = self.word(at, 4)?;
        Ok(mapped.load_u32(offset))
    }

    /// Writes a word by one access.
    ///
    /// # Errors
    /// As [`CoherentBuf::load_u32`].
    pub fn store_u32(&self, at: u64, value: u32) -> Result<(), DmaError> {
        let (mapped, offset) = self.word(at, 4)?;
        mapped.store_u32(offset, value);
        Ok(())
    }

    /// Reads a word by one access.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfBuffer`]; [`DmaError::MisalignedAddress`] if `at` is no multiple of 8.
    pub fn load_u64(&self, at: u64) -> Result<u64, DmaError> {
        let (mapped, offset) = self.word(at, 8)?;
        Ok(mapped.load_u64(offset))
    }

    /// Writes a word by one access.
    ///
    /// # Errors
    /// As [`CoherentBuf::load_u64`].
    pub fn store_u64(&self, at: u64, value: u64) -> Result<(), DmaError> {
        let (mapped, offset) = self.word(at, 8)?;
        mapped.store_u64(offset, value);
        Ok(())
    }

    /// Copies bytes out, in any order and by any accesses.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfBuffer`], [`DmaError::AddressOverflow`].
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        self.check(at, out.len() as u64)?;
        self.inner.frames.read(at, out);
        Ok(())
    }

    /// Copies bytes in, in any order and by any accesses.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfBuffer`], [`DmaError::AddressOverflow`].
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.check(at, bytes.len() as u64)?;
        self.inner.frames.write(at, bytes);
        Ok(())
    }

    /// From here on the device sees what was written before: gathered writes are written out, and
    /// no later write, such as one that tells the device, comes before.
    pub fn publish(&self) {
        if self.inner.mode == CacheMode::WriteCombined {
            let all = 0..self.bytes();
            self.inner.frames.maintain(all, Maintenance::Clean);
        }
        fence(Ordering::SeqCst);
    }

    /// From here on the CPU sees what the device wrote before it wrote what was just read.
    pub fn observe(&self) {
        fence(Ordering::Acquire);
    }

    /// Says that the device uses it until `fence`.
    pub fn attach_fence(&mut self, fence: Fence) {
        self.handle.attach_fence(fence);
    }

    /// Frees it: the device has stopped using it.
    ///
    /// # Errors
    /// [`DmaError::FencePending`], with the buffer.
    #[track_caller]
    pub fn free(self) -> Result<(), (Self, DmaError)> {
        let freed = self.handle.free();
        freed.map_err(|(handle, error)| (Self { handle }, error))
    }
}

impl CoherentHandle {
    /// Where the device finds what.
    #[must_use]
    pub fn dma(&self) -> &MappedList {
        self.inner.dma()
    }

    /// How many bytes: whole pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.frames.bytes()
    }

    /// The mode that it has.
    #[must_use]
    pub fn mode(&self) -> CacheMode {
        self.inner.mode
    }

    /// Says that the device uses it until `fence`.
    pub fn attach_fence(&mut self, fence: Fence) {
        self.inner.fences.push(fence);
    }

    /// Frees it: the device has stopped using it.
    ///
    /// # Errors
    /// [`DmaError::FencePending`], with the buffer.
    #[track_caller]
    pub fn free(mut self) -> Result<(), (Self, DmaError)> {
        match self.inner.free() {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }
}

impl fmt::Debug for CoherentBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoherentBuf({} bytes, {})", self.bytes(), self.mode())
    }
}

impl fmt::Debug for CoherentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoherentHandle({} bytes, {})", self.bytes(), self.mode())
    }
}
