//! Looking for space: as it is, then by eviction.

use placement::{MemType, Place, PlaceFlags, Placement, Request};

use crate::bo::{BoCore, BoState};
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::resource::{Ask, Home, Manager, MemoryKind, Order, TakeRefused, Taken, Victim};
use crate::sync::{Arc, Weak};

use super::hunt::{Attempt, Hunt};

impl BoCore {
    /// Takes space in the first place that has some: without eviction, or, if `forced`, with it.
    /// `None` if no place has.
    ///
    /// # Errors
    /// Those that end a validate: of waiting, of a victim's move, and a group's limit.
    pub(super) fn find_space(
        &self,
        state: &BoState,
        placement: &Placement,
        forced: bool,
        ask: &Ask<'_>,
    ) -> Result<Option<Taken>> {
        let mut limit = None;
        for place in placement.places().iter().filter(|p| p.considered(forced)) {
            let Some(manager) = self.device.manager(place.mem_type) else {
                continue;
            };
            if state.is_brought() && !manager.uses_frames() {
                continue;
            }
            // A requester within its own protection need not spill over to a worse place.
            let evicts = forced && place.mem_type != MemType::SYSTEM && !chained(ask, place)
                || !forced && self.is_protected_in(place);
            let near = self.near_place(state, manager, place);
            let near = near.map(|near| self.take(state, manager, &near, ask, None));
            let found = match near {
                Some(Ok(taken)) => Ok(taken),
                _ if evicts => self.take_evicting(state, manager, place, ask, !forced),
                _ => self.take(state, manager, place, ask, None),
            };
            match found {
                Ok(taken) => return Ok(Some(taken)),
                Err(Refused::Full | Refused::Next) => {}
                Err(Refused::Limit(error)) => limit = Some(error),
                Err(Refused::End(error)) => return Err(error),
            }
        }
        match limit {
            Some(error) if forced => Err(error),
            _ => Ok(None),
        }
    }

    /// The part of `place` that the CPU reaches, for an object that it wanted lately.
    fn near_place(&self, state: &BoState, manager: &Manager, place: &Place) -> Option<Place> {
        let MemoryKind::Device(region) = manager.kind() else {
            return None;
        };
        let near = place.window.intersection(region.aperture());
        let narrower = state.cpu_access && !near.is_empty() && near.len() < region.size();
        narrower.then(|| place.within(near))
    }

    fn is_protected_in(&self, place: &Place) -> bool {
        self.group
            .as_ref()
            .is_some_and(|g| g.is_protected_with(place.mem_type, self.pages))
    }

    fn take(
        &self,
        state: &BoState,
        manager: &Arc<Manager>,
        place: &Place,
        ask: &Ask<'_>,
        claim: Option<u64>,
    ) -> Result<Taken, Refused> {
        if self.device.fails(Site::Take) {
            return Err(Refused::Full);
        }
        let victim: Weak<dyn Victim> = self.me.clone();
        let home = if manager.mem_type() == MemType::SYSTEM {
            Home::Unevictable
        } else {
            Home::Ordered
        };
        let order = Order {
            request: Request {
                pages: self.pages,
                align: self.align,
                window: place.window,
                contiguous: place.flags.contains(PlaceFlags::CONTIGUOUS)
                    || self.contiguous && !manager.uses_frames(),
                top_down: place.flags.contains(PlaceFlags::TOP_DOWN),
            },
            flags: place.flags,
            victim: &victim,
            group: self.group.as_ref(),
            level: state.level(),
            bulk: state.bulk.as_ref(),
            home,
            last_stamp: self.device.stamps(1),
            accepts_fences: ask.context.may_wait(),
            claim,
            cache: place.cache,
        };
        let taken = manager.take(&order).map_err(|refused| match refused {
            TakeRefused::Full => Refused::Full,
            TakeRefused::Never | TakeRefused::Off => Refused::Next,
            TakeRefused::Invalid => Refused::End(Error::Invalid(
                "a place wants zero pages or an alignment that is no power of two",
            )),
            TakeRefused::Limit(error) => Refused::Limit(error),
        })?;
        match self.provide(&taken) {
            Ok(()) => Ok(taken),
            // It goes back to its space; whoever leaves next may make room.
            Err(Error::NoMemory { .. }) => Err(Refused::Full),
            Err(error) => Err(Refused::End(error)),
        }
    }

    fn provide(&self, taken: &Taken) -> Result<()> {
        self.device
            .probe(Site::Provide, || Error::no_memory(self.pages))?;
        taken.resource.provide()
    }

    /// Takes space, asking others to leave until it fits. `gently` asks only the unprotected.
    fn take_evicting(
        &self,
        state: &BoState,
        manager: &Arc<Manager>,
        place: &Place,
        ask: &Ask<'_>,
        gently: bool,
    ) -> Result<Taken, Refused> {
        self.device.release_batch();
        let clock = &*self.device.clock;
        let (claim, epoch) = manager.claim(clock, ask.ticket.age(), place.window);
        let ask = Ask {
            wanted_by: self.id,
            window: place.window,
            group: self.group.as_deref(),
            chain: ask.chain | 1 << manager.mem_type().index(),
            ..*ask
        };
        let mut limited = None;
        let mut never = false;
        let hunt = Hunt::new(&self.device, manager, &ask, &claim).gently(gently);
        let found = hunt.until(epoch, || {
            match self.take(state, manager, place, &ask, Some(claim.number())) {
                Ok(taken) => return Ok(Attempt::Done(taken)),
                Err(Refused::Full) => limited = None,
                Err(Refused::Limit(error)) => limited = Some(error),
                Err(Refused::Next) => {
                    never = true;
                    return Ok(Attempt::Stop);
                }
                Err(Refused::End(error)) => return Err(error),
            }
            Ok(Attempt::More {
                own_group: limited.is_some(),
            })
        });
        match found {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) if never => Err(Refused::Next),
            Ok(None) => Err(limited.map_or(Refused::Full, Refused::Limit)),
            Err(error) => Err(Refused::End(error)),
        }
    }
}

/// Why a place gave nothing.
pub(super) enum Refused {
    /// There is no room now; try the next place, or evict.
    Full,
    /// There can be none; try the next place.
    Next,
    /// Only the group's own objects could make room, and they did not.
    Limit(Error),
    /// The validate is over.
    End(Error),
}

/// Whether the chain of evictions came through the place's memory: nobody is pushed out of it.
fn chained(ask: &Ask<'_>, place: &Place) -> bool {
    ask.chain & 1 << place.mem_type.index() != 0
}
