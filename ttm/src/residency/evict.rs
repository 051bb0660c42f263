//! Asking others to leave.

use placement::{MemType, Place, Placement};

use crate::bo::{BoCore, BoState, Content};
use crate::device::DeviceCore;
use crate::driver::{Advice, BoKind, Eviction};
use crate::error::{Error, Result};
use crate::fence::Usage;
use crate::reservation::{Guard, Held, Member, Reservation, Taken as LockTaken, wait_lock};
use crate::resource::{Ask, ClaimGuard, Group, Left, Level, Manager, Protection, Victim, Walk};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::trace::{Event, Reason};

use super::find_space::lockable;

/// A search for victims in one manager: least recently used first, those that are locked by
/// others last, protected ones only if nothing else is left.
pub(super) struct Hunt<'a> {
    device: &'a DeviceCore,
    manager: &'a Arc<Manager>,
    ask: &'a Ask<'a>,
    claim: Option<&'a ClaimGuard<'a>>,
    walk: Walk<'a>,
    allowed: Protection,
    passed_protected: bool,
    gently: bool,
    own_group: bool,
    /// A busy victim was waited for and evicted; another full round is worth it.
    busy_progress: bool,
    in_busy_round: bool,
}

impl<'a> Hunt<'a> {
    pub(super) fn new(
        device: &'a DeviceCore,
        manager: &'a Arc<Manager>,
        ask: &'a Ask<'a>,
        claim: Option<&'a ClaimGuard<'a>>,
    ) -> Self {
        Self {
            device,
            manager,
            ask,
            claim,
            walk: Walk::new(manager),
            allowed: Protection::None,
            passed_protected: false,
            gently: false,
            own_group: false,
            busy_progress: false,
            in_busy_round: false,
        }
    }

    /// Ends the hunt. Answers how much of the manager's epoch is its own doing.
    pub(super) fn finish(self) -> u64 {
        self.walk.put_back();
        self.walk.own_changes()
    }

    /// Spares everything that is protected.
    pub(super) fn gently(&mut self, gently: bool) {
        self.gently = gently;
    }

    /// Asks only objects of the requester's own group.
    pub(super) fn only_own_group(&mut self, only: bool) {
        self.own_group = only;
    }

    /// Makes one more victim leave. Answers false if there is none left to ask.
    ///
    /// # Errors
    /// Those that the requester has to return: of waiting, of a lost device, `Deadlock`.
    pub(super) fn evict_one(&mut self) -> Result<bool> {
        loop {
            if !self.in_busy_round {
                while let Some((node, victim)) = self.walk.next() {
                    if self.ask_free(node, &victim)? {
                        return Ok(true);
                    }
                }
                self.in_busy_round = true;
                self.busy_progress = false;
                self.walk.rewind_busy();
            }
            if self.ask.context.may_wait() && !self.gently {
                while let Some(victim) = self.walk.next_busy() {
                    if self.ask_busy(&victim)? {
                        self.busy_progress = true;
                        return Ok(true);
                    }
                }
            }
            if !self.next_round() {
                return Ok(false);
            }
        }
    }

    /// Begins again if something has changed since the last full round.
    fn next_round(&mut self) -> bool {
        let protected = !self.gently && self.allowed == Protection::None && self.passed_protected;
        if !protected && !self.busy_progress {
            return false;
        }
        if protected {
            self.allowed = Protection::Low;
        }
        self.in_busy_round = false;
        self.walk.put_back();
        true
    }

    fn ask_free(
        &mut self,
        node: crate::resource::NodeId,
        victim: &Arc<dyn Victim>,
    ) -> Result<bool> {
        if let Some(reason) = self.spares(victim) {
            self.pass_over(victim, reason);
            return Ok(false);
        }
        let ticket = self.ask.ticket;
        let reservation = victim.reservation();
        match reservation.try_lock(ticket.thread()) {
            LockTaken::Now => {
                let gone = self.make_leave(victim, true)?;
                if gone {
                    self.walk.let_go(node);
                }
                Ok(gone)
            }
            // Ours by another object's name; objects locked by name stay.
            LockTaken::Before if self.may_evict_shared(&**victim) => self.make_leave(victim, false),
            LockTaken::Before => {
                self.pass_over(victim, "the requester holds it");
                Ok(false)
            }
            LockTaken::No => {
                self.walk.put_aside(node, &**victim, ticket.domain);
                Ok(false)
            }
        }
    }

    fn may_evict_shared(&self, victim: &dyn Victim) -> bool {
        !victim.is_locked_by_name() && (self.ask.context.evicts_shared() || victim.is_released())
    }

    fn ask_busy(&mut self, victim: &Arc<dyn Victim>) -> Result<bool> {
        if self.spares(victim).is_some() {
            return Ok(false);
        }
        let ticket = self.ask.ticket;
        let reservation = victim.reservation();
        match reservation.try_lock(ticket.thread()) {
            LockTaken::Now => {}
            LockTaken::Before => return Ok(false),
            LockTaken::No => match self.sleep_for(reservation) {
                Ok(()) => {}
                Err(Error::AlreadyLocked) => return Ok(false),
                Err(error) => {
                    if matches!(error, Error::Deadlock) {
                        (self.ask.lost)(Some(lockable(victim)));
                    }
                    return Err(error);
                }
            },
        }
        self.make_leave(victim, true)
    }

    fn level(&self) -> Level<'_> {
        Level {
            walk: &self.walk,
            claim: self.claim,
            outer: self.ask.level,
        }
    }

    fn sleep_for(&self, reservation: &Reservation) -> Result<()> {
        let level = self.level();
        level.rest();
        let result = wait_lock(&self.ask.ticket, self.ask.context, reservation, true);
        level.awake();
        result
    }

    /// Why the victim is spared, before its lock is worth taking.
    fn spares(&mut self, victim: &Arc<dyn Victim>) -> Option<&'static str> {
        let group = victim.group().map(Arc::as_ref);
        if self.own_group {
            let own = |g: &Group| self.ask.group.is_some_and(|own| g.is_within(own));
            if !group.is_some_and(own) {
                return Some("only the requester's own group has to give");
            }
        }
        let protection = group.map_or(Protection::None, |g| {
            g.protection(self.manager.mem_type(), self.ask.group)
        });
        if protection > self.allowed {
            self.passed_protected |= protection == Protection::Low;
            return Some("its group is protected");
        }
        None
    }

    fn make_leave(&mut self, victim: &Arc<dyn Victim>, took: bool) -> Result<bool> {
        let ticket = self.ask.ticket;
        let lock = Guard::of(victim.reservation(), ticket, took);
        let held = lock.held();
        let level = self.level();
        let ask = Ask {
            level: Some(&level),
            ..*self.ask
        };
        match Arc::clone(victim).leave(&held, self.manager.mem_type(), &ask) {
            Ok(Left::Gone) => Ok(true),
            Ok(Left::Stays(reason)) => {
                self.pass_over(victim, reason);
                Ok(false)
            }
            Err(error) if error.skips_victim() => {
                self.pass_over(victim, "its own move found no room or failed");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn pass_over(&self, victim: &Arc<dyn Victim>, because: &'static str) {
        self.device.emit_to_sink(|| Event::PassedOver {
            object: victim.object(),
            wanted_by: self.ask.wanted_by,
            because,
        });
    }
}

impl Victim for BoCore {
    fn object(&self) -> u64 {
        self.id
    }

    fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
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
        if state.advice == Advice::DontNeed || state.content == Content::Lost {
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
            state.moving.is_none()
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
        self.swap_out(held, &mut state, ask).map(|_| ())
    }

    /// Moves the object's pages to the backup. It stays in the system memory type.
    fn swap_out(&self, held: &Held<'_>, state: &mut BoState, ask: &Ask<'_>) -> Result<Left> {
        if self.kind == BoKind::Imported {
            return Ok(Left::Stays("its pages belong to somebody else"));
        }
        self.wait_idle(held, Usage::Bookkeep, ask)?;
        let device = &self.device;
        let since = device.clock.now();
        let fault = |site| device.fails(site);
        let supply = device.supply(&fault);
        let Some(tt) = &mut state.tt else {
            return Ok(Left::Stays("it has no pages"));
        };
        let (gone, result) = tt.swap_out(&supply);
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
