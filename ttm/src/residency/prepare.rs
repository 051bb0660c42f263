//! The first half of a suspend: making sure that everything fits before anything stops.
//!
//! 1. What device memory holds is counted; what the driver would discard needs no room.
//! 2. If system memory and the backup together cannot take it, the shortfall is reported and
//!    nothing has happened.
//! 3. Others are swapped out until it fits into system memory. If it never does, some of it leaves
//!    device memory now and is swapped out in its turn.
//! 4. The room is charged and the frames are put by.
//!
//! The second half, [`Prepared::commit`], then moves everything into what was put by, without
//! asking anybody for memory. Dropping a [`Prepared`] gives what is left of it back.

use placement::{PageCount, PageRange};

use crate::bo::{BoCore, BoState, Content};
use crate::context::OpContext;
use crate::device::{Device, DeviceCore};
use crate::driver::{Advice, Driver, Eviction};
use crate::error::{Error, Result, Shortfall};
use crate::pages::{FrameKind, Want};
use crate::resource::Ask;
use crate::sync::atomic::Ordering;
use crate::tt::RUN_PAGES;

use super::hunt::Hunt;
use super::suspend::{Suspended, residents, with_ask};

/// Room that was put by for a suspend. Dropping it gives back what was not used.
#[must_use = "dropping it gives the room back"]
pub struct Prepared<D: Driver> {
    device: Device<D>,
    pages: PageCount,
}

impl<D: Driver> Prepared<D> {
    pub(super) fn new(device: &Device<D>, context: OpContext) -> Result<Self> {
        let core = &device.core;
        if core.preparing.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy);
        }
        // From here on the drop puts everything right.
        let mut prepared = Self {
            device: device.clone(),
            pages: PageCount::ZERO,
        };
        prepared.pages = with_ask(core, context, |ask| core.put_by(ask))?;
        Ok(prepared)
    }

    /// Pages that were put by.
    #[must_use]
    pub fn pages(&self) -> PageCount {
        self.pages
    }

    /// Empties the device's memories: what is evictable leaves, the content of what is pinned is
    /// saved to system pages. May be called again after an error.
    ///
    /// # Errors
    /// The first that an object met. [`Error::NoMemory`] only if more came to be in device memory
    /// since, and the rest of the system has no room for it. Nothing is lost, and the device works
    /// on.
    pub fn commit(&mut self, context: OpContext) -> Result<Suspended> {
        let core = &self.device.core;
        let mut report = Suspended::default();
        with_ask(core, context, |ask| {
            let ask = Ask {
                stash: true,
                ..*ask
            };
            core.suspend(&ask, &mut report)
        })?;
        Ok(report)
    }
}

impl<D: Driver> Drop for Prepared<D> {
    fn drop(&mut self) {
        let core = &self.device.core;
        core.stash.lock().empty(&core.pool, &core.budget);
        core.preparing.store(false, Ordering::Release);
    }
}

impl<D: Driver> core::fmt::Debug for Prepared<D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Prepared({})", self.pages)
    }
}

impl DeviceCore {
    /// Puts by what device memory needs elsewhere. Answers how much.
    fn put_by(&self, ask: &Ask<'_>) -> Result<PageCount> {
        self.stash.lock().empty(&self.pool, &self.budget);
        let mut sizes = self.sizes_to_move(ask)?;
        let mut needed = sum(&sizes)?;
        let room = self.room();
        if needed > room {
            return Err(self.shortfall(needed, room));
        }
        loop {
            let target = self.budget.limit().saturating_sub(needed);
            if self.budget.used() <= target || self.reclaim_to(target, 0, ask)? {
                break;
            }
            // Not all of it fits beside what has to stay: some leaves now, and is swapped out.
            if !self.evict_ahead(ask)? {
                let free = self.budget.limit().saturating_sub(self.budget.used());
                return Err(self.shortfall(needed, free));
            }
            sizes = self.sizes_to_move(ask)?;
            needed = sum(&sizes)?;
        }
        for size in sizes {
            self.put_by_one(size)?;
        }
        Ok(needed)
    }

    /// The sizes of what device memory holds and what cannot be thrown away.
    fn sizes_to_move(&self, ask: &Ask<'_>) -> Result<Vec<PageCount>> {
        let mut sizes = Vec::new();
        for manager in self.device_managers() {
            for bo in residents(manager) {
                let pages = bo.locked(ask, |_, state| Ok(bo.room_elsewhere(state)))?;
                sizes.extend(pages);
            }
        }
        Ok(sizes)
    }

    /// Evicts one object from device memory. Answers false if none can leave.
    fn evict_ahead(&self, ask: &Ask<'_>) -> Result<bool> {
        for manager in self.device_managers() {
            let ask = Ask {
                chain: ask.chain | 1 << manager.mem_type().index(),
                ..*ask
            };
            let (claim, _) = manager.claim(&*self.clock, ask.ticket.age(), PageRange::EMPTY);
            if Hunt::new(self, manager, &ask, &claim).evict_one()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Frames for an object of that size, in the runs that it would take.
    fn put_by_one(&self, pages: PageCount) -> Result<()> {
        let mut left = pages.get();
        while left > 0 {
            let run = PageCount::new(left.min(RUN_PAGES)).expect("part of an object");
            self.budget
                .charge(run, None)
                .map_err(|_| self.shortage(run))?;
            let want = Want {
                pages: run,
                kind: FrameKind {
                    zone: self.zone,
                    node: self.node,
                    ..FrameKind::default()
                },
            };
            match self.pool.take(&want) {
                Ok(run) => self.stash.lock().put(run),
                // Real addresses need not adjoin: the room is paid for, the frames come later.
                Err(Error::NoMemory { .. }) if !self.pool.offers().runs_are_free => {
                    self.stash.lock().pay(run);
                }
                Err(error) => {
                    self.budget.uncharge(run, None);
                    return Err(match error {
                        Error::NoMemory { .. } => self.shortage(run),
                        error => error,
                    });
                }
            }
            left -= run.get();
        }
        Ok(())
    }

    /// Pages that system memory could take if everything in it were swapped out.
    fn room(&self) -> PageCount {
        let free = self.budget.limit().saturating_sub(self.budget.used());
        let swapped = self.backup_free().min(self.budget.used());
        PageCount::new(free.get().saturating_add(swapped.get())).unwrap_or(PageCount::MAX)
    }

    fn backup_free(&self) -> PageCount {
        let backup = self.backup.as_ref();
        backup.map_or(PageCount::ZERO, |b| b.limit().saturating_sub(b.used()))
    }

    fn shortfall(&self, needed: PageCount, available: PageCount) -> Error {
        Error::Shortfall(Box::new(Shortfall {
            needed,
            available,
            used: self.budget.used(),
            limit: self.budget.limit(),
            backup_free: self.backup_free(),
        }))
    }
}

fn sum(sizes: &[PageCount]) -> Result<PageCount> {
    let sum = sizes.iter().map(|pages| pages.get()).sum();
    PageCount::new(sum).ok_or(Error::no_memory(PageCount::MAX))
}

impl BoCore {
    /// Pages that the object needs when it has to leave device memory; none if it may be thrown
    /// away, or has nothing to lose.
    fn room_elsewhere(&self, state: &BoState) -> Option<PageCount> {
        if state.content != Content::Kept || state.suspended.is_some() {
            return None;
        }
        if state.pins == 0 {
            let facts = self.facts(state);
            let goes = match self.device.driver.evict_to(&facts, &*self.object) {
                _ if state.advice == Advice::DontNeed => false,
                Eviction::Discard => false,
                Eviction::To(placement) => !placement.is_empty(),
                // It stays, and is saved.
                Eviction::Never => true,
            };
            if !goes {
                return None;
            }
        }
        Some(self.pages)
    }
}
