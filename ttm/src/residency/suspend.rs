//! Clearing memories: one of them, or all of the device's before it sleeps.

use placement::{CacheMode, MemType, PageRange};

use crate::bo::{BoCore, BoState, Content};
use crate::context::OpContext;
use crate::device::DeviceCore;
use crate::driver::{CopyJob, Side};
use crate::error::{Error, Result};
use crate::fence::{Status, Usage};
use crate::reservation::{Guard, Held, Lockable, Terms, Transaction, wait_lock};
use crate::resource::{Ask, Manager, Victim};
use crate::sync::{Arc, Weak};
use crate::tt::{Fill, Tt};

use super::hunt::Hunt;
use super::migrate::{device_side, frames, pending};
use super::settle::wait_fence;

/// What a suspend did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Suspended {
    /// Objects that were moved out of device memory.
    pub evicted: u64,
    /// Pinned objects whose content was saved and comes back to the same place.
    pub saved: u64,
}

/// Which way content goes, and its place in device memory.
#[derive(Clone, Copy)]
enum Saved<'a> {
    From(&'a Side),
    Back(&'a Side),
}

/// Runs `f` with the terms of a call that wants nothing for an object of its own, again if it met
/// an older transaction on the way.
pub(crate) fn with_ask<T>(
    device: &DeviceCore,
    context: OpContext,
    mut f: impl FnMut(&Ask<'_>) -> Result<T>,
) -> Result<T> {
    let mut transaction = Transaction::<Arc<BoCore>>::begin(&device.domain, context)?;
    loop {
        match with_terms(transaction.terms(), &mut f) {
            Err(Error::Deadlock) => transaction.restart()?,
            result => return result,
        }
    }
}

fn with_terms<T>(terms: &Terms<'_>, f: &mut impl FnMut(&Ask<'_>) -> Result<T>) -> Result<T> {
    f(&Ask {
        ticket: terms.ticket(),
        context: terms.context(),
        wanted_by: 0,
        window: PageRange::ALL,
        group: None,
        chain: 0,
        idle_only: false,
        fairly: false,
        until: None,
        dry: None,
        stash: false,
        level: None,
        lost: &|other| terms.lost(other),
    })
}

impl DeviceCore {
    /// Evicts everything evictable from a memory type; counts the objects that left in `gone`.
    ///
    /// # Errors
    /// The first that a victim met for another reason than that it may stay.
    pub(crate) fn evict_all(&self, mem_type: MemType, ask: &Ask<'_>, gone: &mut u64) -> Result<()> {
        let Some(manager) = self.manager(mem_type) else {
            return Err(Error::Invalid("the device has no such memory type"));
        };
        self.reap();
        let ask = Ask {
            chain: ask.chain | 1 << mem_type.index(),
            ..*ask
        };
        // A claim on nothing: others see that there is somebody with victims in hand.
        let (claim, _) = manager.claim(&*self.clock, ask.ticket.age(), PageRange::EMPTY);
        let mut hunt = Hunt::new(self, manager, &ask, &claim);
        while hunt.evict_one()? {
            *gone += 1;
        }
        Ok(())
    }

    pub(super) fn device_managers(&self) -> impl Iterator<Item = &Arc<Manager>> {
        self.managers.iter().flatten().filter(|m| !m.uses_frames())
    }

    /// Empties the device's memories: what is evictable leaves, what is pinned is saved.
    pub(super) fn suspend(&self, ask: &Ask<'_>, report: &mut Suspended) -> Result<()> {
        for manager in self.device_managers() {
            self.evict_all(manager.mem_type(), ask, &mut report.evicted)?;
        }
        // What is on its way out has arrived before the memory may go.
        for manager in self.device_managers() {
            while let Some(fence) = manager.oldest_fence() {
                wait_fence(&fence, ask)?;
                manager.reap();
            }
        }
        self.reap();
        for manager in self.device_managers() {
            for bo in residents(manager) {
                let saved = bo.locked(ask, |held, state| bo.save(held, state, ask))?;
                report.saved += u64::from(saved);
            }
        }
        Ok(())
    }

    /// Puts the content of pinned objects back where it was.
    pub(crate) fn resume(&self, ask: &Ask<'_>, restored: &mut u64) -> Result<()> {
        for manager in self.device_managers() {
            for bo in residents(manager) {
                *restored += u64::from(bo.locked(ask, |held, state| bo.restore(held, state, ask))?);
            }
        }
        Ok(())
    }
}

/// The objects of a manager, each kept alive.
pub(super) fn residents(manager: &Manager) -> Vec<Arc<BoCore>> {
    let entries = manager.residents();
    let alive = entries.iter().filter_map(|(_, weak)| Weak::upgrade(weak));
    alive.filter_map(as_bo).collect()
}

/// A victim as what it is.
pub(super) fn as_bo(victim: Arc<dyn Victim>) -> Option<Arc<BoCore>> {
    let any: &dyn core::any::Any = &*victim;
    any.downcast_ref::<BoCore>()?.me.upgrade()
}

impl BoCore {
    /// Runs `f` under the reservation.
    pub(super) fn locked<T>(
        &self,
        ask: &Ask<'_>,
        f: impl FnOnce(&Held<'_>, &mut BoState) -> Result<T>,
    ) -> Result<T> {
        let reservation = self.reservation();
        let guard = match Guard::try_take(reservation, ask.ticket) {
            Some(guard) => guard,
            None => {
                wait_lock(&ask.ticket, ask.context, reservation, true)?;
                Guard::of(reservation, ask.ticket, true)
            }
        };
        let held = guard.held();
        let mut state = self.state(&held);
        f(&held, &mut state)
    }

    /// Copies the content of an object that stays in device memory to system pages.
    fn save(&self, held: &Held<'_>, state: &mut BoState, ask: &Ask<'_>) -> Result<bool> {
        self.wait_idle(held, Usage::Bookkeep, ask)?;
        self.settle(held, state)?;
        if state.content != Content::Kept || state.suspended.is_some() {
            return Ok(false);
        }
        let Some(resource) = &state.resource else {
            return Ok(false);
        };
        let src = device_side(resource);
        let mut copy = self.new_tt(CacheMode::Cached);
        let copied = self
            .populate_tt(&mut copy, Fill::Zeroes, ask)
            .and_then(|()| self.revoke_views(state))
            .and_then(|()| self.copy_now(held, Saved::From(&src), &mut copy, ask));
        match copied {
            Ok(()) => {
                state.suspended = Some(copy);
                Ok(true)
            }
            Err(error) => {
                // An engine may still be writing to them.
                self.device.retire_pages(copy, pending(held));
                self.follow_views(state);
                Err(error)
            }
        }
    }

    pub(super) fn restore(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
    ) -> Result<bool> {
        let (Some(mut copy), Some(resource)) = (state.suspended.take(), &state.resource) else {
            return Ok(false);
        };
        let dst = device_side(resource);
        let copied = self
            .wait_idle(held, Usage::Bookkeep, ask)
            .and_then(|()| self.populate_tt(&mut copy, Fill::Zeroes, ask))
            .and_then(|()| self.copy_now(held, Saved::Back(&dst), &mut copy, ask));
        match copied {
            Ok(()) => {
                copy.unpopulate(&self.device.supply(&|_| false));
                state.losses = self.device.losses();
                if state.content == Content::Lost {
                    state.content = Content::Kept;
                }
                self.follow_views(state);
                Ok(true)
            }
            Err(error) => {
                // Kept for another try.
                state.suspended = Some(copy);
                Err(error)
            }
        }
    }

    /// Copies and waits: by the CPU where it reaches, else by the first engine. Should the wait
    /// end early, the engine's fence stays with the reservation.
    fn copy_now(
        &self,
        held: &Held<'_>,
        what: Saved<'_>,
        copy: &mut Tt,
        ask: &Ask<'_>,
    ) -> Result<()> {
        let ends = |pages: Side| match what {
            Saved::From(device) => (device.clone(), pages),
            Saved::Back(device) => (pages, device.clone()),
        };
        let (src, dst) = ends(frames(copy));
        let why = match self.device.copy_by_cpu(&src, &dst) {
            Err(Error::Unsupported(why)) => why,
            result => return result,
        };
        let Some(engine) = self.device.engines.first() else {
            return Err(Error::Unsupported(why));
        };
        self.device.map_tt(copy, self.id, ask)?;
        let (src, dst) = ends(self.device.frames_for_device(copy));
        held.fences().make_room_for_moves(1)?;
        let fence = engine.submit(CopyJob {
            object: self.id,
            pages: self.pages,
            src,
            dst,
            after: Vec::new(),
            behind: Vec::new(),
        })?;
        held.fences().add_move(fence.clone());
        match self.wait_fence(&fence, ask)? {
            Status::Failed(error) => Err(Error::Backend(Box::new(error))),
            _ => {
                self.device.unmap_tt(copy);
                Ok(())
            }
        }
    }
}
