//! Memory that a device may still use although nobody waits for it: it is not freed before.
//!
//! ```text
//!   dropped while the device owns it ──▶ kept behind its fences ──signalled──▶ freed
//!                                     │                            └─▶ a pattern ──▶ freed, or
//!                                     │                                written over: lost
//!                                     └▶ kept without fences ──the device is reset──▶ freed
//! ```
//!
//! A fence that was given up, because its device was lost or its owner went, says nothing about what
//! the device does: what is behind such a one waits for the reset as well.

use core::fmt;

use super::ledger::Class;
use super::streaming::{Hold, chunks};
use super::{DmaDevice, DmaError, OwnedMemory};
use crate::cache::Maintenance;
use crate::fence::{Fence, FenceError, Status};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};

/// Says that the device has been reset: from then on it uses nothing of what it was given before.
///
/// Nobody can check that. Who makes one without a reset lets the device write to memory that is
/// somebody else's.
#[derive(Debug)]
pub struct DeviceReset {
    how: &'static str,
}

impl DeviceReset {
    /// It has been reset, in this way.
    #[must_use]
    pub const fn done(how: &'static str) -> Self {
        Self { how }
    }
}

impl fmt::Display for DeviceReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reset by {}", self.how)
    }
}

/// What became of the fences of some work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Fences {
    pub(super) pending: usize,
    pub(super) lost: usize,
}

impl Fences {
    pub(super) fn of<'f>(fences: impl IntoIterator<Item = &'f Fence>) -> Self {
        let mut found = Self::default();
        for fence in fences {
            match fence.status() {
                Status::Pending => found.pending += 1,
                Status::Failed(FenceError::DeviceLost | FenceError::Abandoned) => found.lost += 1,
                Status::Done
                | Status::Failed(FenceError::Failed | FenceError::DependencyFailed) => {}
            }
        }
        found
    }

    /// Whether the device has stopped.
    pub(super) const fn settled(self) -> bool {
        self.pending == 0 && self.lost == 0
    }

    /// The same for who goes on only then.
    ///
    /// # Errors
    /// [`DmaError::FencePending`].
    pub(super) const fn check(self) -> Result<(), DmaError> {
        let Self { pending, lost } = self;
        match self.settled() {
            true => Ok(()),
            false => Err(DmaError::FencePending { pending, lost }),
        }
    }
}

/// Until when something is kept.
pub(super) enum Until {
    /// The device is reset.
    Reset,
    /// These have signalled, and the device lives.
    Fences(Vec<Fence>),
    /// The pattern has been looked for.
    Checked,
}

impl Until {
    /// What is behind these fences. Without any, nobody says when the device stops.
    pub(super) fn behind(fences: Vec<Fence>) -> Self {
        match fences.is_empty() {
            true => Self::Reset,
            false => Self::Fences(fences),
        }
    }
}

/// A mapping and the memory that it is of.
pub(super) struct Kept {
    pub(super) hold: Hold,
    pub(super) memory: Arc<dyn OwnedMemory>,
    /// Whether the CPU can look at it.
    pub(super) viewed: bool,
    pub(super) until: Until,
}

/// What a device has not been seen to stop using. Its lock is a leaf.
#[derive(Default)]
pub(super) struct Quarantine {
    pub(super) poisons: bool,
    kept: Mutex<Vec<Kept>>,
}

impl Quarantine {
    pub(super) fn len(&self) -> usize {
        self.kept.lock().len()
    }

    fn take(&self, ready: impl Fn(&Until) -> bool) -> Vec<Kept> {
        let mut kept = self.kept.lock();
        kept.extract_if(.., |item| ready(&item.until)).collect()
    }

    /// Nobody will ever know: what is left is nobody's any more.
    pub(super) fn lose(&self) {
        for item in self.take(|_| true) {
            item.lose();
        }
    }
}

impl DmaDevice {
    /// Frees what is in quarantine and whose fences have signalled. Answers how many buffers.
    #[track_caller]
    pub fn reap_quarantine(&self) -> usize {
        let ready = self.quarantine.take(|until| match until {
            Until::Reset => false,
            Until::Fences(fences) => Fences::of(fences).settled(),
            Until::Checked => true,
        });
        let mut freed = 0;
        for item in ready {
            // Memory that other devices have is written by them with good reason.
            let alone = Arc::strong_count(&item.memory) == 1;
            match item.until {
                Until::Checked => match item.is_intact(self) {
                    true => freed += self.free(item),
                    false => self.accuse(item),
                },
                _ if self.quarantine.poisons && item.viewed && alone => {
                    item.poison(self);
                    let until = Until::Checked;
                    self.quarantine.kept.lock().push(Kept { until, ..item });
                }
                _ => freed += self.free(item),
            }
        }
        freed
    }

    /// Frees all that is in quarantine, since the device has been reset. Answers how many buffers.
    #[track_caller]
    pub fn release_quarantine(&self, reset: DeviceReset) -> usize {
        let DeviceReset { how: _ } = reset;
        let all = self.quarantine.take(|_| true);
        all.into_iter().map(|item| self.free(item)).sum()
    }

    /// Keeps a mapping and its memory.
    pub(super) fn quarantine(&self, item: Kept) {
        // Relaxed: it only counts.
        self.counts.quarantined.fetch_add(1, Ordering::Relaxed);
        self.quarantine.kept.lock().push(item);
    }

    #[track_caller]
    fn free(&self, item: Kept) -> usize {
        item.hold.end(self);
        drop(item.memory);
        self.counts.reaped.fetch_add(1, Ordering::Relaxed);
        1
    }

    /// A device that writes where it should not is not told where others read.
    #[track_caller]
    fn accuse(&self, item: Kept) {
        self.counts.late_writes.fetch_add(1, Ordering::Relaxed);
        if let Some(ledger) = self.ledger() {
            let text = "the device wrote after the fence of its work; the memory is lost".into();
            let ticket = self.ticket(item.hold.mapping());
            ledger.offence(Class::LateWrite, ticket, text, true);
        }
        item.lose();
    }
}

/// Bytes that no device is likely to write.
const PATTERN: [u8; 8] = [0xd0, 0x5e, 0xa1, 0x0f, 0x7b, 0xc4, 0x39, 0x92];

/// The pattern, for a piece that is copied at once.
fn pattern() -> [u8; 512] {
    core::array::from_fn(|n| PATTERN[n % PATTERN.len()])
}

impl Kept {
    /// Writes the pattern where the device would.
    fn poison(&self, device: &DmaDevice) {
        let pattern = pattern();
        chunks(0..self.hold.len(), pattern.len(), |at, len| {
            self.hold.put(device, &*self.memory, at, &pattern[..len]);
        });
        self.hold.maintain(&*self.memory, Maintenance::Clean);
    }

    fn is_intact(&self, device: &DmaDevice) -> bool {
        self.hold.maintain(&*self.memory, Maintenance::Invalidate);
        let pattern = pattern();
        let mut seen = [0; 512];
        let mut intact = true;
        chunks(0..self.hold.len(), pattern.len(), |at, len| {
            self.hold.get(device, &*self.memory, at, &mut seen[..len]);
            intact &= seen[..len] == pattern[..len];
        });
        intact
    }

    fn lose(self) {
        core::mem::forget(self.memory);
    }
}
