//! A mapping and its owner, as values.

use core::fmt;
use core::ops::Range;

use super::hold::Hold;
use super::map::Ask;
use super::{DeviceOwnedProof, Keep, Owner};
use crate::dma::cache_ops::foreign;
use crate::dma::ledger::Class;
use crate::dma::quarantine::{Fences, Kept, Until};
use crate::dma::{Backing, Direction, DmaDevice, DmaError, MapAttrs, Share};
use crate::fence::Fence;
use crate::sync::Arc;

/// # Invariants
/// Both parts are there until it is ended or dropped.
pub(super) struct Inner {
    device: Arc<DmaDevice>,
    parts: Option<(Backing, Hold)>,
    pub(super) owner: Owner,
    /// Of the device's work; none while the CPU owns it.
    pub(super) fences: Vec<Fence>,
}

impl Inner {
    #[track_caller]
    pub(super) fn map(
        device: &Arc<DmaDevice>,
        backing: Backing,
        range: &Range<u64>,
        direction: Direction,
        attrs: &MapAttrs<'_>,
    ) -> Result<Box<Self>, (Backing, DmaError)> {
        let ask = Ask {
            range,
            direction,
            attrs,
            share: Share::Exclusive,
        };
        match device.hold(&backing, ask) {
            Ok(hold) => Ok(Box::new(Self {
                device: Arc::clone(device),
                parts: Some((backing, hold)),
                owner: Owner::Device,
                fences: Vec::new(),
            })),
            Err(error) => Err((backing, error)),
        }
    }

    pub(super) const fn device(&self) -> &Arc<DmaDevice> {
        &self.device
    }

    const fn parts(&self) -> &(Backing, Hold) {
        self.parts.as_ref().expect("there until it is ended")
    }

    pub(super) const fn backing(&self) -> &Backing {
        &self.parts().0
    }

    pub(super) const fn hold(&self) -> &Hold {
        &self.parts().1
    }

    pub(super) fn direction(&self) -> Direction {
        self.hold().mapping().direction()
    }

    pub(super) fn proof(&self) -> DeviceOwnedProof<'_> {
        DeviceOwnedProof::new(self.backing(), self.hold().is_synced())
    }

    /// Whether the device has stopped.
    pub(super) fn may_end(&self) -> Result<(), DmaError> {
        Fences::of(&self.fences).check()
    }

    pub(super) fn hand_to_cpu(&mut self) -> Result<(), DmaError> {
        self.may_end()?;
        let (backing, hold) = self.parts();
        hold.for_cpu(&self.device, &**backing.memory(), &(0..hold.len()));
        self.fences.clear();
        self.owner = Owner::Cpu;
        Ok(())
    }

    pub(super) fn hand_to_device(&mut self) -> Result<(), DmaError> {
        self.decide_again()?;
        let (backing, hold) = self.parts();
        hold.for_device(&self.device, &**backing.memory(), &(0..hold.len()));
        self.owner = Owner::Device;
        Ok(())
    }

    fn decide_again(&mut self) -> Result<(), DmaError> {
        let (backing, hold) = self.parts.as_mut().expect("there until it is ended");
        hold.decide_again(&self.device, backing.memory())
    }

    /// Opens a window of the CPU's.
    #[track_caller]
    pub(super) fn open(&mut self, bytes: &Range<u64>) -> Result<(), DmaError> {
        let len = bytes.end.checked_sub(bytes.start);
        let checked = match len {
            Some(len) => self.hold().check(bytes.start, len),
            None => Err(DmaError::RangeOutOfMapping {
                offset: bytes.start,
                len: 0,
                mapped: self.hold().len(),
            }),
        };
        if let Err(error) = checked {
            self.offence(Class::SyncOutOfRange, error.to_string());
            return Err(error);
        }
        self.decide_again()?;
        self.check_lines(bytes)?;
        let (backing, hold) = self.parts();
        hold.for_cpu(&self.device, &**backing.memory(), bytes);
        Ok(())
    }

    /// Gives a window back.
    pub(super) fn close(&self, bytes: &Range<u64>) {
        let (backing, hold) = self.parts();
        hold.for_device(&self.device, &**backing.memory(), bytes);
    }

    /// Whether CPU and device would write to one line. At the ends of the mapping there is no device.
    fn check_lines(&self, bytes: &Range<u64>) -> Result<(), DmaError> {
        if !self.hold().has_lines() || self.direction() != Direction::Both {
            return Ok(());
        }
        let line = u64::from(self.device.verdict().line.max(1));
        let (first, end) = (self.hold().first(), self.hold().len());
        let head = match bytes.start {
            0 => 0,
            start => (first + start) % line,
        };
        let tail = match bytes.end {
            at if at == end => 0,
            at => (first + at).wrapping_neg() % line,
        };
        // Below a line, which has 32 bits.
        foreign(head as u32, tail as u32, line as u32)
    }

    pub(super) fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        let (backing, hold) = self.parts();
        hold.check(at, out.len() as u64)?;
        backing.read(hold.first() + at, out)
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let (backing, hold) = self.parts();
        hold.check(at, bytes.len() as u64)?;
        backing.write(hold.first() + at, bytes)
    }

    /// Ends the mapping, which the device no longer uses.
    #[track_caller]
    pub(super) fn end(mut self, keep: Keep) -> Backing {
        let (backing, hold) = self.parts.take().expect("there until it is ended");
        if self.owner == Owner::Device && keep == Keep::Sync {
            hold.for_cpu(&self.device, &**backing.memory(), &(0..hold.len()));
        }
        hold.end(&self.device);
        backing
    }

    /// Tells the ledger, if there is one.
    #[track_caller]
    pub(super) fn offence(&self, class: Class, text: String) {
        if let Some(ledger) = self.device.ledger() {
            let ticket = self.device.ticket(self.hold().mapping());
            ledger.offence(class, ticket, text, false);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some((backing, hold)) = self.parts.take() else {
            return;
        };
        if self.owner == Owner::Cpu {
            hold.end(&self.device);
            return;
        }
        abandon(
            &self.device,
            &backing,
            hold,
            core::mem::take(&mut self.fences),
        );
    }
}

/// Has a device keep what it owns and nobody will unmap.
pub(super) fn abandon(device: &DmaDevice, backing: &Backing, hold: Hold, fences: Vec<Fence>) {
    if let Some(ledger) = device.ledger() {
        let text = format!("{backing:?} is dropped while the device owns it");
        let ticket = device.ticket(hold.mapping());
        ledger.offence(Class::Leak, ticket, text, true);
    }
    device.quarantine(Kept {
        hold,
        memory: Arc::clone(backing.memory()),
        viewed: true,
        until: Until::behind(fences),
    });
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} owns it", self.hold().mapping(), self.owner)
    }
}
