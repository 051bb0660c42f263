//! Giving an object system pages, at others' cost if need be.

use placement::{MemType, PageCount, PageRange, PlaceFlags, Request};

use crate::bo::{BoCore, BoState};
use crate::context::OomPolicy;
use crate::device::DeviceCore;
use crate::error::{Error, Result};
use crate::reservation::Held;
use crate::resource::{Ask, Home, Order, Resource, TakeRefused, Victim};
use crate::sync::Weak;
use crate::trace::Event;
use crate::tt::Tt;

use super::hunt::{Attempt, Hunt};
use super::settle::wait_fence;

impl BoCore {
    /// Gives every page of the object a frame, with its content.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if nothing more can be swapped out, [`Error::Backup`],
    /// [`Error::Corrupt`], and those of waiting. What was populated stays; the next call goes on.
    pub(super) fn populate(&self, state: &mut BoState, ask: &Ask<'_>) -> Result<()> {
        let tt = state
            .tt
            .get_or_insert_with(|| Box::new(Tt::new(self.id, self.pages)));
        self.populate_tt(tt, ask)?;
        state.update_home();
        Ok(())
    }

    /// Populates an object that is in system memory, or nowhere.
    pub(super) fn populate_here(&self, held: &Held<'_>, ask: &Ask<'_>) -> Result<()> {
        let mut state = self.state(held);
        self.make_ready(held, &mut state, ask)?;
        match &state.resource {
            None => state.resource = Some(self.system_resource(&state)?),
            Some(resource) if resource.manager().uses_frames() => {}
            Some(_) => return Err(Error::Invalid("the object is in device memory")),
        }
        self.populate(&mut state, ask)
    }

    /// The same for pages that are not the object's yet.
    pub(super) fn populate_tt(&self, tt: &mut Tt, ask: &Ask<'_>) -> Result<()> {
        if tt.is_populated() {
            return Ok(());
        }
        let device = &self.device;
        let since = device.clock.now();
        let fault = |site| device.fails(site);
        let supply = device.supply(&fault);
        let swapped = tt.swapped();
        let result = loop {
            match tt.populate(&supply) {
                Err(Error::NoMemory { wanted }) => {
                    if !device.reclaim(wanted, self.id, ask)? {
                        break Err(Error::NoMemory { wanted });
                    }
                }
                result => break result,
            }
        };
        let back = swapped.saturating_sub(tt.swapped());
        if !back.is_zero() {
            device.emit(Event::SwappedIn {
                object: self.id,
                bytes: back.bytes(),
                since,
            });
        }
        result.map(|_| ())
    }

    /// An order for any space that fits, out of eviction's reach.
    pub(super) fn plain_order<'a>(
        &self,
        state: &'a BoState,
        victim: &'a Weak<dyn Victim>,
    ) -> Order<'a> {
        Order {
            request: Request::new(self.pages),
            flags: PlaceFlags::empty(),
            victim,
            group: None,
            priority: state.priority,
            bulk: state.bulk.as_ref(),
            home: Home::Unevictable,
            last_stamp: self.device.stamps(1),
            accepts_fences: true,
            claim: None,
        }
    }

    /// A resource in the system memory type, which is never full.
    pub(super) fn system_resource(&self, state: &BoState) -> Result<Resource> {
        let victim: Weak<dyn Victim> = self.me.clone();
        let order = self.plain_order(state, &victim);
        match self.device.system().take(&order) {
            Ok(taken) => {
                let mut resource = taken.resource;
                resource.settle();
                Ok(resource)
            }
            Err(TakeRefused::Off) => Err(Error::Invalid("the system memory type is switched off")),
            Err(_) => Err(Error::NoMemory { wanted: self.pages }),
        }
    }
}

impl DeviceCore {
    /// Frees system pages until `wanted` fit the limit, by swapping others out. Answers false if
    /// nothing was freed.
    pub(super) fn reclaim(&self, wanted: PageCount, object: u64, ask: &Ask<'_>) -> Result<bool> {
        if self.reap() {
            return Ok(true);
        }
        let fails_fast = ask.context.oom_policy() == OomPolicy::FailFast;
        if fails_fast || wanted > self.budget.limit() {
            return Ok(false);
        }
        let before = self.budget.used();
        let limit = self.budget.limit().saturating_sub(wanted);
        // If the limit was not what stood in the way, the source was: others have to give as much.
        let target = if before > limit {
            limit
        } else {
            before.saturating_sub(wanted)
        };
        let room = || self.budget.used() <= target;
        if self.backup.is_none() || room() {
            return self.wait_for_pages(ask);
        }
        let ask = Ask {
            wanted_by: object,
            window: PageRange::ALL,
            ..*ask
        };
        // What leaves TT is in SYSTEM then, with its pages.
        for mem_type in [MemType::SYSTEM, MemType::TT, MemType::SYSTEM] {
            let chained = ask.chain & 1 << mem_type.index() != 0 && mem_type != MemType::SYSTEM;
            let Some(manager) = self.manager(mem_type).filter(|m| m.uses_frames()) else {
                continue;
            };
            if chained {
                continue;
            }
            let (claim, epoch) = manager.claim(&*self.clock, ask.ticket.age(), PageRange::EMPTY);
            let found = Hunt::new(self, manager, &ask, &claim).until(epoch, || {
                Ok(if room() {
                    Attempt::Done(())
                } else {
                    Attempt::More { own_group: false }
                })
            })?;
            if found.is_some() {
                return Ok(true);
            }
        }
        if self.budget.used() < before {
            return Ok(true);
        }
        self.wait_for_pages(&ask)
    }

    /// Waits for pages that only a fence keeps. Answers false if there are none, or the caller
    /// may not wait.
    fn wait_for_pages(&self, ask: &Ask<'_>) -> Result<bool> {
        let fence = self.retired_pages.lock().oldest_fence().cloned();
        match fence {
            Some(fence) if ask.context.may_wait() => {
                wait_fence(&fence, ask)?;
                self.reap();
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
