//! Buffers that are mapped as they are and handed to and fro between the CPU and a device.
//!
//! ```text
//!                 map_streaming                to_cpu
//!   Backing ───────────────────▶ DeviceOwned ─────────▶ CpuOwned
//!      ▲                          │  │    ▲             │   │
//!      │          unmap           │  │    └─────────────┘   │
//!      └──────────────────────────┘  │       to_device      │
//!      └─────────────────────────────┼──────────────────────┘  unmap
//!                                    │ dropped
//!                                    ▼
//!                                quarantine, behind the fences of the device's work
//! ```
//!
//! Who owns it is part of the type, and so is the direction: addresses are only to be had while the
//! device owns the buffer, bytes only while the CPU does. What there is to do at a hand-over,
//! nothing, maintenance of caches or a copy, is what the [decision table](super::choose) said of this
//! mapping; the caller does the same in all cases.
//!
//! Bytes are copied by `read` and `write`. There is no `&mut [u8]`, not even while the CPU owns the
//! buffer: a device that is late, or broken, writes all the same, and memory that a device can write
//! is never a reference here.
//!
//! Addresses are not readable while the CPU owns the buffer:
//! ```compile_fail,E0599
//! # use ttm::dma::{CpuOwned, Streaming, dir};
//! fn program(buffer: &Streaming<CpuOwned, dir::To>) {
//!     buffer.dma();
//! }
//! ```
//! What the device writes, the CPU does not:
//! ```compile_fail,E0277
//! # use ttm::dma::{CpuOwned, Streaming, dir};
//! fn scribble(buffer: &mut Streaming<CpuOwned, dir::From>) {
//!     buffer.write(0, &[1]).unwrap();
//! }
//! ```
//! Nor anything while the device owns it:
//! ```compile_fail,E0599
//! # use ttm::dma::{DeviceOwned, Streaming, dir};
//! fn peek(buffer: &Streaming<DeviceOwned, dir::Bidi>) {
//!     buffer.read(0, &mut [0]).unwrap();
//! }
//! ```
//! What was unmapped is gone:
//! ```compile_fail,E0382
//! # use ttm::dma::{CpuOwned, Keep, Streaming, dir};
//! fn twice(buffer: Streaming<CpuOwned, dir::To>) {
//!     buffer.unmap(Keep::Sync);
//!     buffer.unmap(Keep::Sync);
//! }
//! ```
//! A proof that the device owns it ends with that:
//! ```compile_fail,E0505
//! # use ttm::dma::{DeviceOwned, MapAttrs, Streaming, dir};
//! fn stale(buffer: Streaming<DeviceOwned, dir::To>) {
//!     let attrs = MapAttrs::new().skip_cpu_sync(buffer.device_owned_proof());
//!     let _ = buffer.to_cpu();
//!     let _ = attrs.validate();
//! }
//! ```

mod any;
mod guest;
mod hold;
mod inner;
mod map;
mod marks;
mod proof;
mod shared;
#[cfg(test)]
mod tests;
mod window;

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use super::{Backing, DmaDevice, DmaError, MapAttrs, MappedList};
use crate::fence::Fence;
use crate::sync::Arc;

use self::inner::Inner;

pub use any::AnyStreaming;
pub use guest::Guest;
pub(super) use hold::{Hold, chunks};
pub use marks::{CpuOwned, DeviceOwned, Dir, Owned, Owner, Writable, dir};
pub use proof::DeviceOwnedProof;
pub use shared::{Access, SharedAccess, SharedId, SharedState, SharedStreaming};
pub use window::CpuWindow;

/// Whether unmapping shows the CPU what the device wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// It does.
    #[default]
    Sync,
    /// It does not: what the device wrote since the last hand-over may be there or not. For who has
    /// no use for it.
    SkipSync,
}

/// A range of a backing that is mapped for a device, owned by `O`, for transfers in direction `D`.
///
/// See the [module](self) for its states. What a device owns is not freed by a drop: it goes to the
/// device's quarantine, until the [fences](Streaming::attach_fence) of its work have signalled, or
/// without any until the device is reset; a [`Ledger`](super::Ledger) counts that as a leak.
///
/// ```
/// use ttm::dma::{Backing, DmaError, Keep, MapAttrs, dir, fixture::{Machine, Platform}};
///
/// # fn main() -> Result<(), DmaError> {
/// // It does not matter which: with caches to maintain, with copies, with neither.
/// for platform in Platform::ALL {
///     let machine = Machine::new(platform, 1);
///     let backing = Backing::alloc(&machine.source(), 8192, Default::default())?;
///     backing.write(0, b"ping")?;
///
///     let attrs = MapAttrs::new().allow_bounce();
///     let mapped = machine.dma.map_streaming(backing, 0..8192, dir::Bidi, &attrs);
///     let mapped = mapped.map_err(|(_, error)| error)?;
///     let mut seen = [0; 4];
///     machine.device.read(mapped.dma(), 0, &mut seen);
///     assert_eq!(&seen, b"ping");
///     machine.device.write(mapped.dma(), 0, b"pong");
///
///     let mut ours = mapped.to_cpu().map_err(|(_, error)| error)?;
///     ours.read(0, &mut seen)?;
///     assert_eq!(&seen, b"pong");
///     ours.write(8188, b"done")?;
///     let backing = ours.unmap(Keep::Sync);
///     backing.read(8188, &mut seen)?;
///     assert_eq!(&seen, b"done");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "what the device owns is not freed by a drop; unmap it"]
pub struct Streaming<O: Owned, D: Dir> {
    inner: Box<Inner>,
    state: PhantomData<(O, D)>,
}

impl DmaDevice {
    /// Maps a range of a backing. The device owns it from then on, and sees what is in it.
    ///
    /// How that is done, [`choose`](super::choose) decides of the device's verdict, the range and
    /// the attributes.
    ///
    /// # Errors
    /// With the backing:
    /// - [`DmaError::AttrConflict`], [`DmaError::SkipSyncWithoutProof`];
    /// - [`DmaError::ZeroLength`], [`DmaError::RangeOutOfBuffer`], [`DmaError::AddressOverflow`];
    /// - [`DmaError::NotCoherent`] if coherency is demanded, [`DmaError::WouldBounce`] if it would
    ///   have to be copied and that is not allowed, [`DmaError::NeedsAllocation`] if only memory
    ///   will do that is allocated for the device;
    /// - [`DmaError::NoBouncePool`], [`DmaError::BouncePoolFull`] (which may be retried) and the
    ///   other errors of [`BouncePool::map`](super::BouncePool::map), if it is to be copied;
    /// - those of [`Mapper::map`](super::Mapper::map) otherwise.
    #[track_caller]
    pub fn map_streaming<D: Dir>(
        self: &Arc<Self>,
        backing: Backing,
        range: Range<u64>,
        direction: D,
        attrs: &MapAttrs<'_>,
    ) -> Result<Streaming<DeviceOwned, D>, (Backing, DmaError)> {
        let _ = direction;
        let inner = Inner::map(self, backing, &range, D::DIRECTION, attrs)?;
        Ok(Streaming::of(inner))
    }
}

impl<O: Owned, D: Dir> Streaming<O, D> {
    const fn of(inner: Box<Inner>) -> Self {
        Self {
            inner,
            state: PhantomData,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn device(&self) -> &Arc<DmaDevice> {
        self.inner.device()
    }

    /// How many bytes are mapped.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.hold().len()
    }

    /// Whether something is done at its hand-overs.
    #[must_use]
    pub fn need_sync(&self) -> bool {
        self.inner.hold().is_synced()
    }
}

impl<D: Dir> Streaming<DeviceOwned, D> {
    /// Where the device finds what.
    #[must_use]
    pub fn dma(&self) -> &MappedList {
        self.inner.hold().mapping().list()
    }

    /// Says that the device uses it until `fence`.
    pub fn attach_fence(&mut self, fence: Fence) {
        self.inner.fences.push(fence);
    }

    /// Hands it to the CPU.
    ///
    /// # Errors
    /// [`DmaError::FencePending`], with the mapping: the device may still use it.
    pub fn to_cpu(mut self) -> Result<Streaming<CpuOwned, D>, (Self, DmaError)> {
        match self.inner.hand_to_cpu() {
            Ok(()) => Ok(Streaming::of(self.inner)),
            Err(error) => Err((self, error)),
        }
    }

    /// Hands bytes of it to the CPU until the window drops, while the device has the rest. That the
    /// device leaves them alone meanwhile is the caller's to know: no fence is looked at.
    ///
    /// # Errors
    /// - [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`];
    /// - [`DmaError::PartialCacheLine`]: both would write to one line;
    /// - [`DmaError::DecisionChanged`].
    #[track_caller]
    pub fn to_cpu_range(&mut self, bytes: Range<u64>) -> Result<CpuWindow<'_, D>, DmaError> {
        self.inner.open(&bytes)?;
        Ok(CpuWindow::new(&mut self.inner, bytes))
    }

    /// Shows that a device owns the backing: another need not sync it when it is mapped for that.
    pub fn device_owned_proof(&self) -> DeviceOwnedProof<'_> {
        self.inner.proof()
    }

    /// Maps the same for another device beside this one, while this one owns it.
    ///
    /// # Errors
    /// As [`DmaDevice::map_streaming`], with [`DmaError::WouldBounceShared`] if one of both would
    /// have a copy.
    #[track_caller]
    pub fn map_for(
        &self,
        other: &Arc<DmaDevice>,
        direction: super::Direction,
        attrs: &MapAttrs<'_>,
    ) -> Result<Guest<'_>, DmaError> {
        Guest::map(&self.inner, other, direction, attrs)
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

impl<D: Dir> Streaming<CpuOwned, D> {
    /// Copies bytes out, `at` bytes into the mapping.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        self.inner.read(at, out)
    }

    /// Copies bytes in. The device sees them when it owns the buffer again.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), DmaError>
    where
        D: Writable,
    {
        self.inner.write(at, bytes)
    }

    /// Hands it to the device.
    ///
    /// # Errors
    /// [`DmaError::DecisionChanged`], with the mapping: the device has another verdict by now.
    pub fn to_device(mut self) -> Result<Streaming<DeviceOwned, D>, (Self, DmaError)> {
        match self.inner.hand_to_device() {
            Ok(()) => Ok(Streaming::of(self.inner)),
            Err(error) => Err((self, error)),
        }
    }

    /// Ends the mapping. The CPU has the buffer already, so there is nothing to sync.
    #[track_caller]
    pub fn unmap(self, keep: Keep) -> Backing {
        self.inner.end(keep)
    }
}

impl<O: Owned, D: Dir> fmt::Debug for Streaming<O, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Streaming({:?})", self.inner)
    }
}
