//! Asking others to leave.

use placement::{MemType, Place, Placement};

use crate::bo::{BoCore, BoState, Content};
use crate::driver::{Advice, BoKind, Eviction};
use crate::error::{Error, Result};
use crate::fence::Usage;
use crate::reservation::{Held, Member};
use crate::resource::{Ask, Group, Left, Victim};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::trace::{Event, Reason};

use super::migrate::pending;

impl Victim for BoCore {
    fn object(&self) -> u64 {
        self.id
    }

    fn stamp(&self) -> u64 {
        self.last_use()
    }

    fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    fn is_released(&self) -> bool {
        Self::is_released(self)
    }

    fn is_locked_by_name(&self) -> bool {
        self.seat().load(Ordering::Relaxed) != 0
    }

    fn leave(self: Arc<Self>, held: &Held<'_>, mem_type: MemType, ask: &Ask<'_>) -> Result<Left> {
        let mut state = self.state(held);
        // Between the list and the lock anything may have happened.
        match &state.resource {
            Some(resource) if resource.mem_type() == mem_type => {
                if !resource.intersects(ask.window) {
                    return Ok(Left::Stays("it holds nothing of the wanted range"));
                }
            }
            _ => return Ok(Left::Stays("it has left already")),
        }
        if self.is_released() {
            self.abandon(held, &mut state);
            return Ok(Left::Gone);
        }
        if state.pins > 0 {
            return Ok(Left::Stays("it is pinned"));
        }
        if ask.idle_only && !held.fences().is_idle(Usage::Bookkeep) {
            return Ok(Left::Stays("a device still uses it"));
        }
        if state.moving.is_some() {
            if !ask.context.may_wait() {
                return Ok(Left::Stays("its content is still on its way"));
            }
            self.wait_for_move(held, &mut state, ask)?;
            if state.mem_type() != Some(mem_type) {
                return Ok(Left::Gone);
            }
        }
        let why = match ask.wanted_by {
            0 => Reason::Cleared,
            object => Reason::EvictedFor(object),
        };
        self.make_ready(held, &mut state, ask)
            .or_else(|error| match error {
                // Nothing is left to move.
                Error::ContentLost | Error::DeviceLost => Ok(()),
                error => Err(error),
            })?;
        let needed = state.advice != Advice::DontNeed || state.is_brought();
        if !needed || state.content == Content::Lost {
            self.discard_victim(held, &mut state, why)?;
            return Ok(Left::Gone);
        }
        if mem_type == MemType::SYSTEM {
            return self.swap_out(held, &mut state, ask);
        }
        self.evict(held, &mut state, ask, why)
    }

    fn take_down(&self) -> bool {
        let done = self.with_free(|held| {
            let mut state = self.state(held);
            self.device.driver.released(&*self.object, &pending(held));
            self.abandon(held, &mut state);
        });
        if done.is_some() {
            self.device.one_less();
            self.device
                .emit_to_sink(|| Event::Released { object: self.id });
        }
        done.is_some()
    }

    fn try_settle(&self) -> bool {
        self.with_free(|held| {
            let mut state = self.state(held);
            // What went wrong is found again by whoever uses the object next.
            let _ = self.settle(held, &mut state);
            let done = match self.is_found_in_passing(&state) {
                true => self.unmap_if_idle(held, &mut state),
                false => state.moving.is_none(),
            };
            done && !state.tt.as_ref().is_some_and(|tt| tt.has_ended_leases())
        })
        .unwrap_or(false)
    }
}

impl BoCore {
    /// Moves the object out of its memory, to where the driver says.
    pub(super) fn evict(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
        why: Reason,
    ) -> Result<Left> {
        let facts = self.facts(state);
        let driver = &self.device.driver;
        if why != Reason::Cleared && !driver.worth_evicting(&facts, &*self.object, ask.window) {
            return Ok(Left::Stays("its driver finds it not worth it"));
        }
        let placement = match driver.evict_to(&facts, &*self.object) {
            Eviction::To(placement) => placement,
            Eviction::Never => return Ok(Left::Stays("its driver keeps it")),
            // Its pages belong to somebody else: nothing is gained but the place.
            Eviction::Discard if state.is_brought() => Placement::of(Place::new(MemType::SYSTEM)),
            Eviction::Discard => {
                self.discard_victim(held, state, why)?;
                return Ok(Left::Gone);
            }
        };
        if placement.is_empty() {
            self.discard_victim(held, state, why)?;
            return Ok(Left::Gone);
        }
        let from = state.mem_type().expect("a victim is somewhere");
        // A place that leaves the victim in the way is none: two of them would push each other
        // around for ever.
        let helps = |p: &&Place| p.mem_type != from || !p.window.intersects(&ask.window);
        let placement: Placement = placement.places().iter().filter(helps).copied().collect();
        if placement.is_empty() {
            return Ok(Left::Stays("its driver sends it where the room is wanted"));
        }
        let ask = Ask {
            chain: ask.chain | 1 << from.index(),
            ..*ask
        };
        for forced in [false, true] {
            if let Some(taken) = self.find_space(state, &placement, forced, &ask)? {
                self.migrate(held, state, taken, &ask, why)?;
                state.note(&placement);
                return Ok(Left::Gone);
            }
        }
        Err(self.refusal(placement.places()))
    }

    fn discard_victim(&self, held: &Held<'_>, state: &mut BoState, why: Reason) -> Result<()> {
        if let Some(resource) = &mut state.resource {
            resource.evicted();
        }
        self.discard(held, state, why)
    }

    /// Moves the pages of an object that is in system memory to the backup, because its user
    /// says so.
    pub(super) fn swap_out_here(&self, held: &Held<'_>, ask: &Ask<'_>) -> Result<()> {
        let mut state = self.state(held);
        self.make_ready(held, &mut state, ask)?;
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        if state.mem_type() != Some(MemType::SYSTEM) {
            return Err(Error::Invalid(
                "only an object in system memory is swapped out",
            ));
        }
        if self.device.backup.is_none() {
            return Err(Error::Unsupported(
                "swapping needs a backup; give the device one",
            ));
        }
        self.swap_out(held, &mut state, ask).map(|_| ())
    }

    /// Moves the object's pages to the backup. It stays in the system memory type.
    fn swap_out(&self, held: &Held<'_>, state: &mut BoState, ask: &Ask<'_>) -> Result<Left> {
        if self.kind == BoKind::Imported {
            return Ok(Left::Stays("its pages belong to somebody else"));
        }
        let Some(backup) = &self.device.backup else {
            return Ok(Left::Stays("there is no backup to swap to"));
        };
        self.wait_idle(held, Usage::Bookkeep, ask)?;
        self.revoke_views(state)?;
        let device = &self.device;
        let since = device.clock.now();
        let fault = |site| device.fails(site);
        let supply = device.supply(&fault);
        let Some(tt) = &mut state.tt else {
            return Ok(Left::Stays("it has no pages"));
        };
        let used = device.budget.used();
        let enough = |begun| {
            ask.until
                .is_some_and(|until| used.saturating_sub(begun) <= until)
        };
        let (gone, result) = tt.swap_out(&**backup, &supply, &enough);
        device.note_refusal(&result);
        if !gone.is_zero() {
            // Only then: the entry is in a walk's hand, and would be proposed again at once.
            state.update_home();
            device.emit(Event::SwappedOut {
                object: self.id,
                bytes: gone.bytes(),
                since,
            });
        }
        match result {
            Ok(()) if gone.is_zero() => Ok(Left::Stays("it has no pages")),
            // Some pages went: whoever asked can use them.
            Ok(()) => Ok(Left::Gone),
            Err(_) if !gone.is_zero() => Ok(Left::Gone),
            Err(error) => Err(error),
        }
    }
}
