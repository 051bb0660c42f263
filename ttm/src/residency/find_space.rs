//! Looking for space: as it is, then by eviction.

use placement::{MemType, PageCount, Place, PlaceFlags, Placement, Request};

use crate::bo::{BoCore, BoState};
use crate::clock::WaitFor;
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::reservation::Lockable;
use crate::resource::{
    AfterHunt, Ask, ClaimGuard, Home, Manager, Order, TakeRefused, Taken, Victim,
};
use crate::sync::{Arc, Weak};

use super::evict::Hunt;

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
            // A requester within its own protection need not spill over to a worse place.
            let evicts = forced && place.mem_type != MemType::SYSTEM && !chained(ask, place)
                || !forced && self.is_protected_in(place);
            let found = if evicts {
                self.take_evicting(state, manager, place, ask, !forced)
            } else {
                self.take(state, manager, place, ask, None)
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
            request: request(self.pages, self.align, place),
            flags: place.flags,
            victim: &victim,
            group: self.group.as_ref(),
            priority: state.priority,
            bulk: state.bulk.as_ref(),
            home,
            last_stamp: self.device.stamps(1),
            accepts_fences: ask.context.may_wait(),
            claim,
        };
        manager.take(&order).map_err(|refused| match refused {
            TakeRefused::Full => Refused::Full,
            TakeRefused::Never | TakeRefused::Off => Refused::Next,
            TakeRefused::Invalid => Refused::End(Error::Invalid(
                "a place wants zero pages or an alignment that is no power of two",
            )),
            TakeRefused::Limit(error) => Refused::Limit(error),
        })
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
        let (claim, mut epoch) = manager.claim(clock, ask.ticket.age(), place.window);
        let mut limited = None;
        let mut rounds = 0;
        let ask = Ask {
            wanted_by: self.id,
            window: place.window,
            group: self.group.as_deref(),
            chain: ask.chain | 1 << manager.mem_type().index(),
            ..*ask
        };
        loop {
            let mut hunt = Hunt::new(&self.device, manager, &ask, Some(&claim));
            hunt.gently(gently);
            hunt.only_own_group(limited.is_some());
            loop {
                match self.take(state, manager, place, &ask, Some(claim.number())) {
                    Err(Refused::Full) => limited = None,
                    Err(Refused::Limit(error)) => limited = Some(error),
                    result => return result,
                }
                hunt.only_own_group(limited.is_some());
                if !hunt.evict_one().map_err(Refused::End)? {
                    break;
                }
            }
            // What this hunt puts back is no news to it.
            epoch += hunt.finish();
            if self.device.reap() {
                continue;
            }
            let again =
                !gently && self.wait_for_others(manager, &claim, epoch, &mut rounds, &ask)?;
            if !again {
                return Err(limited.map_or(Refused::Full, Refused::Limit));
            }
            epoch = manager.epoch();
        }
    }

    /// Nobody is left to ask. Sleeps while other transactions that evict here may leave
    /// something: what they had in hand, or what they took. The younger waits for the older to
    /// end, the oldest only for the others to sleep; so somebody always goes on.
    fn wait_for_others(
        &self,
        manager: &Manager,
        claim: &ClaimGuard<'_>,
        epoch: u64,
        rounds: &mut u32,
        ask: &Ask<'_>,
    ) -> Result<bool, Refused> {
        let cell = ask.ticket.cell();
        if !ask.context.may_wait() {
            return Ok(false);
        }
        match manager.after_hunt(claim.number(), epoch, cell, &*self.device.clock) {
            AfterHunt::GiveUp => return Ok(false),
            AfterHunt::Again => {
                *rounds = 0;
                return Ok(true);
            }
            AfterHunt::AgainAlone => {
                *rounds += 1;
                return Ok(*rounds < FRUITLESS_ROUNDS);
            }
            AfterHunt::Sleep => {}
        }
        if let Some(outer) = ask.level {
            outer.rest();
        }
        let context = ask.context;
        let slept = context.sleeping(cell, &self.device.clock, || {
            let stop = || context.is_cancelled();
            ask.ticket.sleep(context.deadline(), &stop, WaitFor::Claim)
        });
        claim.awake();
        if let Some(outer) = ask.level {
            outer.awake();
        }
        match slept {
            Ok(crate::reservation::Waited::Woken) => Ok(true),
            Ok(crate::reservation::Waited::TimedOut) => Err(Refused::End(Error::TimedOut)),
            Err(error) => {
                if matches!(error, Error::Deadlock) {
                    (ask.lost)(None);
                }
                Err(Refused::End(error))
            }
        }
    }
}

/// Full rounds that a request may go without finding anybody to ask, and without anybody else
/// evicting there, before it gives up: what changed meanwhile was its own doing.
const FRUITLESS_ROUNDS: u32 = 16;

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

fn request(pages: PageCount, align: PageCount, place: &Place) -> Request {
    Request {
        pages,
        align,
        window: place.window,
        contiguous: place.flags.contains(PlaceFlags::CONTIGUOUS),
        top_down: place.flags.contains(PlaceFlags::TOP_DOWN),
    }
}

/// Names the trait that an object's lock is reached by, for `ask.lost`.
pub(super) fn lockable(victim: &Arc<dyn Victim>) -> Arc<dyn Lockable> {
    Arc::clone(victim) as Arc<dyn Lockable>
}
