//! Memory that can be mapped for a device: only such as somebody has alone.
//!
//! Nothing else can be mapped. What a stack, a constant or a register file is at, no [`Backing`] is
//! made of; that two of them have the same frames is a contract of whoever brings memory of his own.
//!
//! The CPU gets at the bytes by [`read`](Backing::read) and [`write`](Backing::write) alone. Memory
//! that a device can write is never a reference here, not even while the CPU owns it: a device that
//! is late, or broken, writes all the same.

mod frames;

use core::fmt;
use core::ops::Range;

use super::DmaError;
use super::words::in_buffer;
use crate::cache::Maintenance;
use crate::pages::{FrameSpan, PageSource, Zone};
use crate::sync::Arc;

pub(super) use frames::{Frames, Wanted};

/// Memory that is exclusively its owner's: whole frames in which nobody else has anything.
///
/// For those who bring memory of their own; frames of a [`PageSource`] are had by
/// [`Backing::alloc`]. The size, the frames and the answer of [`OwnedMemory::is_snooped`] never
/// change. All ranges are inside; the memory may panic at others.
pub trait OwnedMemory: Send + Sync {
    /// How many bytes can be used, at least one.
    fn bytes(&self) -> u64;

    /// The frames, in the order of the bytes; the first byte is the first frame's. They have as many
    /// bytes or more.
    fn frames(&self) -> &[FrameSpan];

    /// Copies bytes out, as the CPU sees them. A device may write meanwhile.
    fn read(&self, at: u64, out: &mut [u8]);

    /// Copies bytes in, as the CPU does. A device may read or write meanwhile.
    fn write(&self, at: u64, bytes: &[u8]);

    /// Maintains the CPU's caches over the bytes. It may do more than asked, as far as the frames
    /// go: while a part of a backing is mapped, nobody writes the rest.
    fn maintain(&self, bytes: Range<u64>, what: Maintenance);

    /// Whether devices see what is in the CPU's caches, as far as the memory knows.
    fn is_snooped(&self) -> bool;
}

/// Memory that can be mapped for devices. Dropping it gives it back to where it is from.
///
/// ```
/// use ttm::dma::{Backing, DmaError, fixture::{Machine, Platform}};
///
/// # fn main() -> Result<(), DmaError> {
/// let machine = Machine::new(Platform::Coherent, 1);
/// let backing = Backing::alloc(&machine.source(), 6000, Default::default())?;
/// backing.write(5990, b"the end")?;
/// let mut seen = [0; 7];
/// backing.read(5990, &mut seen)?;
/// assert_eq!(&seen, b"the end");
/// let refused = backing.write(5994, b"the end");
/// assert_eq!(refused, Err(DmaError::RangeOutOfBuffer { offset: 5994, len: 7, buffer: 6000 }));
/// # Ok(())
/// # }
/// ```
pub struct Backing {
    /// The quarantine of a device may have it too, while it is freed.
    memory: Arc<dyn OwnedMemory>,
}

impl Backing {
    /// Takes frames of a zone, which read as zero: in one run if there is such a one, else in
    /// several. They are cached.
    ///
    /// # Errors
    /// [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`], [`DmaError::OutOfMemory`] and
    /// [`DmaError::Source`]; nothing was taken.
    pub fn alloc(source: &Arc<dyn PageSource>, bytes: u64, zone: Zone) -> Result<Self, DmaError> {
        let wanted = Wanted {
            zone,
            ..Wanted::default()
        };
        Frames::take(source, bytes, wanted).map(|frames| Self::adopt(Box::new(frames)))
    }

    /// Memory of the caller's own.
    ///
    /// # Panics
    /// If it has no bytes, or more than its frames.
    #[must_use]
    pub fn adopt(memory: Box<dyn OwnedMemory>) -> Self {
        let frames = memory.frames().iter().map(|span| span.pages.bytes());
        let (bytes, frames) = (memory.bytes(), frames.sum());
        assert!(
            0 < bytes && bytes <= frames,
            "{bytes} bytes in frames of {frames}"
        );
        Self {
            memory: memory.into(),
        }
    }

    /// How many bytes it has, at least one.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// The frames that it is in.
    #[must_use]
    pub fn frames(&self) -> &[FrameSpan] {
        self.memory.frames()
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfBuffer`]; nothing was copied.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        self.check(at, out.len() as u64)?;
        self.memory.read(at, out);
        Ok(())
    }

    /// Copies bytes in. What maps it for a device shows them to it.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfBuffer`]; nothing was copied.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.check(at, bytes.len() as u64)?;
        self.memory.write(at, bytes);
        Ok(())
    }

    /// Whether there are such bytes.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<(), DmaError> {
        in_buffer(offset, len, self.bytes())
    }

    pub(super) const fn memory(&self) -> &Arc<dyn OwnedMemory> {
        &self.memory
    }

    /// A number that no other backing has meanwhile.
    pub(super) fn number(&self) -> u64 {
        number_of(&self.memory)
    }
}

/// A number that no other memory has meanwhile.
pub(super) fn number_of(memory: &Arc<dyn OwnedMemory>) -> u64 {
    Arc::as_ptr(memory).cast::<()>().addr() as u64
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backing({} bytes)", self.bytes())
    }
}

#[cfg(test)]
mod tests;
