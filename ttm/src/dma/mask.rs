//! What a device reaches, and when that may change.
//!
//! A device has two masks: one for memory that is mapped for it as it is, one for memory that is
//! allocated for it. The first live mapping under a mask commits it: from then on it may grow, but
//! never shrink below what is mapped. Nothing else depends on a mask; above all not the path.

use core::fmt;

use super::DmaError;
use super::words::last_byte;

/// The addresses that a device reaches: from 0 to the mask, inclusive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask(u64);

impl Mask {
    /// The mask of a device that nobody said anything else of.
    pub const DEFAULT: Self = Self::bits(32);
    /// Everything.
    pub const ALL: Self = Self::bits(64);

    /// So many address lines.
    ///
    /// # Panics
    /// Unless there are 1 to 64.
    #[must_use]
    pub const fn bits(bits: u32) -> Self {
        assert!(bits >= 1 && bits <= 64, "1 to 64 address lines");
        Self(u64::MAX >> (64 - bits))
    }

    /// Up to `last`, which need not be a power of two less one.
    #[must_use]
    pub const fn up_to(last: u64) -> Self {
        Self(last)
    }

    /// The last address.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.0
    }

    /// How many address lines it takes.
    #[must_use]
    pub const fn lines(self) -> u32 {
        64 - self.0.leading_zeros()
    }

    /// Whether `len` bytes from `first` on are reached. No bytes are reached anywhere.
    #[must_use]
    pub const fn covers(self, first: u64, len: u64) -> bool {
        match (len, first.checked_add(len.saturating_sub(1))) {
            (0, _) => true,
            (_, Some(last)) => last <= self.0,
            (_, None) => false,
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.wrapping_add(1).is_power_of_two() || self.0 == u64::MAX {
            true => write!(f, "{}-bit mask", self.lines()),
            false => write!(f, "limit of {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({:#x})", self.0)
    }
}

/// What setting a mask did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaskChange {
    /// It was so already.
    Same,
    /// More is reached, by what is mapped from now on.
    Widened,
    /// Less is reached; everything that is mapped still is.
    Narrowed,
}

/// One mask, and what is mapped under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Committed {
    mask: Mask,
    live: u64,
    /// The highest byte that was mapped since nothing was.
    highest: u64,
}

impl Committed {
    const fn new() -> Self {
        Self {
            mask: Mask::DEFAULT,
            live: 0,
            highest: 0,
        }
    }

    fn set(&mut self, mask: Mask) -> Result<MaskChange, DmaError> {
        if mask < self.mask && self.live > 0 && self.highest > mask.last() {
            return Err(DmaError::MaskNarrowedWhileLive {
                live: self.live,
                highest: self.highest,
                asked: mask,
            });
        }
        let change = match mask.cmp(&self.mask) {
            core::cmp::Ordering::Equal => MaskChange::Same,
            core::cmp::Ordering::Greater => MaskChange::Widened,
            core::cmp::Ordering::Less => MaskChange::Narrowed,
        };
        self.mask = mask;
        Ok(change)
    }

    fn enter(&mut self, last: u64) {
        self.live += 1;
        self.highest = self.highest.max(last);
    }

    fn leave(&mut self) {
        self.live -= 1;
        if self.live == 0 {
            self.highest = 0;
        }
    }
}

/// What a device reaches.
///
/// ```
/// use ttm::dma::{Mask, MaskChange, Masks};
///
/// let mut masks = Masks::new(Mask::bits(24));
/// masks.set_streaming(Mask::bits(28)).unwrap();
/// masks.enter_streaming(0x0fff_0000, 4096).unwrap();
/// // Something is mapped: the mask is committed.
/// assert!(masks.set_streaming(Mask::bits(20)).is_err());
/// assert_eq!(masks.set_streaming(Mask::bits(32)), Ok(MaskChange::Widened));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Masks {
    streaming: Committed,
    coherent: Committed,
    bus_limit: Option<Mask>,
    /// The narrowest that the platform can serve.
    least: Mask,
}

impl Masks {
    /// Both of 32 bits, on a platform that can serve devices from `least` on.
    #[must_use]
    pub const fn new(least: Mask) -> Self {
        Self {
            streaming: Committed::new(),
            coherent: Committed::new(),
            bus_limit: None,
            least,
        }
    }

    /// The same behind a bus that carries addresses up to `limit` only.
    #[must_use]
    pub const fn behind(mut self, limit: Mask) -> Self {
        self.bus_limit = Some(limit);
        self
    }

    fn limited(&self, mask: Mask) -> Mask {
        self.bus_limit.map_or(mask, |limit| limit.min(mask))
    }

    /// What is reached of memory that is mapped as it is, by the device and its bus.
    #[must_use]
    pub fn streaming(&self) -> Mask {
        self.limited(self.streaming.mask)
    }

    /// What is reached of memory that is allocated for the device.
    #[must_use]
    pub fn coherent(&self) -> Mask {
        self.limited(self.coherent.mask)
    }

    /// Whether a device with that mask can be served. Changes nothing.
    #[must_use]
    pub fn is_supported(&self, mask: Mask) -> bool {
        mask >= self.least
    }

    fn supported(&self, mask: Mask) -> Result<(), DmaError> {
        match self.is_supported(mask) {
            true => Ok(()),
            false => Err(DmaError::MaskUnsupported {
                mask,
                least: self.least,
            }),
        }
    }

    /// Sets what is reached of memory that is mapped as it is.
    ///
    /// # Errors
    /// [`DmaError::MaskUnsupported`], and [`DmaError::MaskNarrowedWhileLive`] if something that is
    /// mapped lies above; nothing has changed.
    pub fn set_streaming(&mut self, mask: Mask) -> Result<MaskChange, DmaError> {
        self.supported(mask)?;
        self.streaming.set(mask)
    }

    /// Sets what is reached of memory that is allocated for the device.
    ///
    /// # Errors
    /// As [`Masks::set_streaming`].
    pub fn set_coherent(&mut self, mask: Mask) -> Result<MaskChange, DmaError> {
        self.supported(mask)?;
        self.coherent.set(mask)
    }

    /// Sets both.
    ///
    /// # Errors
    /// As [`Masks::set_streaming`]; neither has changed.
    pub fn set_both(&mut self, mask: Mask) -> Result<MaskChange, DmaError> {
        let before = *self;
        let change = self.set_streaming(mask)?;
        match self.set_coherent(mask) {
            Ok(other) if change == MaskChange::Same => Ok(other),
            Ok(_) => Ok(change),
            Err(error) => {
                *self = before;
                Err(error)
            }
        }
    }

    /// Notes that memory is mapped as it is, at these addresses.
    ///
    /// # Errors
    /// [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`], [`DmaError::AboveMask`]; nothing was
    /// noted.
    pub fn enter_streaming(&mut self, first: u64, len: u64) -> Result<(), DmaError> {
        let last = checked(first, len, self.streaming())?;
        self.streaming.enter(last);
        Ok(())
    }

    /// The same for memory that was allocated for the device.
    ///
    /// # Errors
    /// As [`Masks::enter_streaming`].
    pub fn enter_coherent(&mut self, first: u64, len: u64) -> Result<(), DmaError> {
        let last = checked(first, len, self.coherent())?;
        self.coherent.enter(last);
        Ok(())
    }

    /// One mapping less.
    ///
    /// # Panics
    /// If there is none.
    pub fn leave_streaming(&mut self) {
        self.streaming.leave();
    }

    /// One allocation less.
    ///
    /// # Panics
    /// If there is none.
    pub fn leave_coherent(&mut self) {
        self.coherent.leave();
    }

    /// Mappings and allocations that are live.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.streaming.live + self.coherent.live
    }
}

/// The last of `len` bytes from `first` on, if the mask reaches it.
fn checked(first: u64, len: u64, mask: Mask) -> Result<u64, DmaError> {
    let last = last_byte(first, len)?;
    match last <= mask.last() {
        true => Ok(last),
        false => Err(DmaError::AboveMask { end: last, mask }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reaches_its_last_byte_and_no_further() {
        let mask = Mask::bits(28);
        assert!(mask.covers(0x0fff_f000, 4096));
        assert!(!mask.covers(0x0fff_f001, 4096));
        assert!(!mask.covers(u64::MAX, 2));
        assert!(mask.covers(u64::MAX, 0));
        assert_eq!(mask.to_string(), "28-bit mask");
        assert_eq!(Mask::ALL.to_string(), "64-bit mask");
        assert_eq!(Mask::up_to(0xbfff_ffff).to_string(), "limit of 0xbfffffff");
    }

    #[test]
    fn what_is_live_commits_its_own_mask_only() {
        let mut masks = Masks::new(Mask::bits(24));
        assert_eq!(masks.set_both(Mask::bits(40)), Ok(MaskChange::Widened));
        masks.enter_coherent(0xff_0000_0000, 4096).unwrap();
        assert_eq!(
            masks.set_streaming(Mask::bits(32)),
            Ok(MaskChange::Narrowed)
        );
        let refused = masks.set_coherent(Mask::bits(32)).unwrap_err();
        assert_eq!(
            refused,
            DmaError::MaskNarrowedWhileLive {
                live: 1,
                highest: 0xff_0000_0fff,
                asked: Mask::bits(32)
            }
        );
        // Both or neither.
        assert!(masks.set_both(Mask::bits(30)).is_err());
        assert_eq!(masks.streaming(), Mask::bits(32));
        masks.leave_coherent();
        assert_eq!(masks.set_coherent(Mask::bits(32)), Ok(MaskChange::Narrowed));
        assert!(masks.set_streaming(Mask::bits(23)).is_err());
        assert!(!masks.is_supported(Mask::bits(23)));
    }

    #[test]
    fn a_bus_limits_what_a_device_reaches() {
        let mut masks = Masks::new(Mask::bits(24)).behind(Mask::up_to(0xbfff_ffff));
        masks.set_both(Mask::ALL).unwrap();
        assert_eq!(masks.streaming(), Mask::up_to(0xbfff_ffff));
        assert!(masks.enter_streaming(0xc000_0000, 1).is_err());
        assert_eq!(masks.enter_streaming(5, 0), Err(DmaError::ZeroLength));
        assert_eq!(
            masks.enter_streaming(u64::MAX, 2),
            Err(DmaError::AddressOverflow)
        );
        assert_eq!(masks.live(), 0);
    }
}
