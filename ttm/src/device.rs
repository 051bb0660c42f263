//! A device: its memories, its transactions, its end.

mod builder;
mod core;
mod reap;

pub(crate) use self::core::DeviceCore;
pub use builder::DeviceBuilder;

use ::core::fmt;

use placement::{MemType, PageCount};

use crate::cache::LedgerCounts;
use crate::clock::{Clock, Time};
use crate::driver::Driver;
use crate::fence::FenceError;
use crate::pages::{Budget, Pool};
use crate::resource::{Manager, UNNEEDED, level_of};
use crate::sync::{Arc, Weak};
use crate::trace::Record;

/// A device. Clones are the same device.
pub struct Device<D: Driver> {
    pub(crate) core: Arc<DeviceCore>,
    driver: Arc<D>,
}

/// Tells a device that it is gone; see [`Device::loss`].
#[derive(Clone)]
pub struct Loss(Weak<DeviceCore>);

impl Loss {
    /// As [`Device::set_lost`]. Nothing if the device is there no more.
    pub fn tell(&self) {
        if let Some(core) = self.0.upgrade() {
            core.set_lost();
        }
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loss")
    }
}

/// Who keeps a device from closing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holders {
    /// Objects that still have handles, or work in flight.
    pub objects: u64,
    /// A fence that has not signalled: its timeline and point.
    pub fence: Option<(u64, u64)>,
}

impl<D: Driver> Device<D> {
    /// Begins a device.
    #[must_use]
    pub fn builder(driver: D, clock: Arc<dyn Clock>) -> DeviceBuilder<D> {
        DeviceBuilder::new(driver, clock)
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.clock
    }

    /// The manager of a memory type.
    #[must_use]
    pub fn manager(&self, mem_type: MemType) -> Option<&Arc<Manager>> {
        self.core.manager(mem_type)
    }

    /// The system limit, changeable at any time, and what is used of it.
    #[must_use]
    pub fn system_budget(&self) -> &Budget {
        &self.core.budget
    }

    /// Where its system pages come from: what is pooled, mapped and switched.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.core.pool
    }

    /// What the ledger of its apertures' cache modes has seen.
    #[must_use]
    pub fn aperture_ledger(&self) -> LedgerCounts {
        self.core.ledger.counts()
    }

    /// Pages in the backup and its limit; `None` without a backup.
    #[must_use]
    pub fn backup_usage(&self) -> Option<(PageCount, PageCount)> {
        let backup = self.core.backup.as_ref()?;
        Some((backup.used(), backup.limit()))
    }

    /// The objects of a memory type and priority, the next to be evicted first; without those whose
    /// content nobody needs, which go before all: [`Device::unneeded`].
    #[must_use]
    pub fn eviction_order(&self, mem_type: MemType, priority: u8) -> Vec<u64> {
        let manager = self.core.manager(mem_type);
        manager.map_or_else(Vec::new, |m| m.eviction_order(level_of(priority)))
    }

    /// The objects of a memory type whose content nobody needs, the next to go first.
    #[must_use]
    pub fn unneeded(&self, mem_type: MemType) -> Vec<u64> {
        let manager = self.core.manager(mem_type);
        manager.map_or_else(Vec::new, |m| m.eviction_order(UNNEEDED))
    }

    /// The objects of a memory type that eviction does not see: pinned, or swapped out.
    #[must_use]
    pub fn unevictable(&self, mem_type: MemType) -> Vec<u64> {
        let entries = self.core.manager(mem_type).map(|m| m.residents());
        let entries = entries.unwrap_or_default();
        let apart = entries
            .iter()
            .filter(|(home, _)| *home == crate::resource::Home::Unevictable);
        apart
            .filter_map(|(_, v)| v.upgrade().map(|v| v.object()))
            .collect()
    }

    /// The last events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Record> {
        self.core.trace.recorder().records()
    }

    /// What is remembered of an object: where it went and why, one line an event.
    #[must_use]
    pub fn explain(&self, object: u64) -> String {
        use ::core::fmt::Write as _;
        let mut text = String::new();
        for record in self.events() {
            if record.event.object() == object {
                let _ = writeln!(text, "{:>14} ns  {}", record.at.nanos(), record.event);
            }
        }
        text
    }

    /// Transactions that gave way to an older one so far.
    #[must_use]
    pub fn back_offs(&self) -> u64 {
        self.core.domain.back_offs()
    }

    /// Objects that exist, those that are on their way out included.
    #[must_use]
    pub fn live_objects(&self) -> u64 {
        self.core.live()
    }

    /// Gives back everything that can be given back without waiting: released objects, old
    /// places of finished moves. Answers whether anything was.
    pub fn reap(&self) -> bool {
        self.core.reap()
    }

    /// Notes that the device is gone: content that was only in its memory is lost, what is in
    /// system memory stays readable. The backend signals its fences with
    /// [`FenceError::DeviceLost`].
    pub fn set_lost(&self) -> FenceError {
        self.core.set_lost();
        FenceError::DeviceLost
    }

    /// Who tells the device that it is gone, without keeping it alive: for backends that find out.
    #[must_use]
    pub fn loss(&self) -> Loss {
        Loss(Arc::downgrade(&self.core))
    }

    /// Notes that the device is back, its memory empty. Content that was lost stays lost until
    /// its owner discards it.
    pub fn set_restored(&self) {
        self.core.set_restored();
    }

    /// Whether [`Device::set_lost`] was called, and [`Device::set_restored`] was not.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.core.is_lost()
    }

    /// Ends the device: takes down what was released, waiting for its fences until `deadline`.
    /// Give back every object first, and end the threads that serve the device and its windows:
    /// these may have an object in hand a moment longer than anybody waits for them.
    ///
    /// # Errors
    /// Who is still there at the deadline; the device works on.
    pub fn close(&self, deadline: Option<Time>) -> Result<(), Holders> {
        loop {
            self.core.reap();
            let fence = self.core.next_fence();
            let Some(fence) = fence else {
                break;
            };
            let done = fence
                .wait(deadline)
                .is_ok_and(|s| s != crate::fence::Status::Pending);
            if !done {
                return Err(Holders {
                    objects: self.core.live(),
                    fence: Some((fence.timeline(), fence.seqno())),
                });
            }
        }
        if self.core.live() > 0 {
            return Err(Holders {
                objects: self.core.live(),
                fence: None,
            });
        }
        self.core.set_closed();
        Ok(())
    }
}

impl<D: Driver> Clone for Device<D> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            driver: Arc::clone(&self.driver),
        }
    }
}

impl<D: Driver> Drop for Device<D> {
    fn drop(&mut self) {
        if Arc::strong_count(&self.driver) == 2 {
            // The last handle: from now on objects take themselves down.
            self.core.set_closed();
            self.core.reap();
        }
    }
}

impl<D: Driver> fmt::Debug for Device<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({} objects)", self.core.live())
    }
}
