//! The search for victims.

use core::cell::Cell;

use placement::PageCount;

use crate::clock::WaitFor;
use crate::device::DeviceCore;
use crate::error::{Error, Result};
use crate::reservation::{Guard, Lockable, Reservation, Taken as LockTaken, Waited, wait_lock};
use crate::resource::{
    AfterHunt, Ask, ClaimGuard, Group, Left, Level, Manager, Protection, Victim, Walk,
};
use crate::sync::Arc;
use crate::trace::Event;

/// Full rounds that a request may go without finding anybody to ask, and without anybody else
/// evicting there, before it gives up: what changed meanwhile was its own doing.
const FRUITLESS_ROUNDS: u32 = 16;

/// Victims of modest clients that a fair hunt passes over before it gives up: looking for the
/// greedy may not cost more than it brings.
const MODEST: u32 = 256;

/// How a try went, for which victims are asked to leave.
pub(super) enum Attempt<T> {
    /// It is done.
    Done(T),
    /// Somebody more has to leave; with `own_group`, somebody of the requester's own group.
    More { own_group: bool },
    /// It can never be done.
    Stop,
}

/// A search for victims in one manager: least recently used first, those that are locked by
/// others last, protected ones only if nothing else is left.
pub(super) struct Hunt<'a> {
    device: &'a DeviceCore,
    manager: &'a Arc<Manager>,
    ask: &'a Ask<'a>,
    claim: &'a ClaimGuard<'a>,
    walk: Walk<'a>,
    allowed: Protection,
    passed_protected: bool,
    gently: bool,
    unneeded_only: bool,
    /// Victims that were spared because their clients have no more than their share.
    modest: u32,
    own_group: bool,
    /// What the victims' own search for system pages came to, see [`Ask::dry`].
    dry: Cell<Option<PageCount>>,
    /// A busy victim was waited for and evicted; another full round is worth it.
    busy_progress: bool,
    in_busy_round: bool,
}

impl<'a> Hunt<'a> {
    pub(super) fn new(
        device: &'a DeviceCore,
        manager: &'a Arc<Manager>,
        ask: &'a Ask<'a>,
        claim: &'a ClaimGuard<'a>,
    ) -> Self {
        Self {
            device,
            manager,
            ask,
            claim,
            walk: Walk::new(manager),
            // Clearing a memory spares nobody.
            allowed: if ask.wanted_by == 0 {
                Protection::Min
            } else {
                Protection::None
            },
            passed_protected: false,
            gently: false,
            unneeded_only: false,
            modest: 0,
            own_group: false,
            dry: Cell::new(None),
            busy_progress: false,
            in_busy_round: false,
        }
    }

    /// Spares everything that is protected.
    pub(super) fn gently(mut self, gently: bool) -> Self {
        self.gently = gently;
        self
    }

    /// Asks only objects whose content nobody needs.
    pub(super) fn unneeded_only(mut self, only: bool) -> Self {
        self.unneeded_only = only;
        self.walk = Walk::new(self.manager).unneeded_only(only);
        self
    }

    /// Makes victims leave until `attempt` is done, or nobody is left to ask. `epoch` is the
    /// manager's as it was before.
    ///
    /// # Errors
    /// Those of `attempt`, and those of [`Hunt::evict_one`].
    pub(super) fn until<T>(
        mut self,
        mut epoch: u64,
        mut attempt: impl FnMut() -> Result<Attempt<T>>,
    ) -> Result<Option<T>> {
        let mut rounds = 0;
        loop {
            loop {
                match attempt()? {
                    Attempt::Done(value) => return Ok(Some(value)),
                    Attempt::More { own_group } => self.own_group = own_group,
                    Attempt::Stop => return Ok(None),
                }
                if !self.evict_one()? {
                    break;
                }
                rounds = 0;
            }
            // What the hunt itself puts back is no news to it.
            self.walk.put_back();
            epoch += self.walk.own_changes();
            if !self.device.reap() && !self.wait_for_others(epoch, &mut rounds)? {
                return Ok(None);
            }
            epoch = self.manager.epoch();
            self = Self::new(self.device, self.manager, self.ask, self.claim)
                .gently(self.gently)
                .unneeded_only(self.unneeded_only);
        }
    }

    /// Nobody is left to ask. Sleeps while other transactions that evict here may leave
    /// something: what they had in hand, or what they took. The younger waits for the older to
    /// end, the oldest only for the others to sleep; so somebody always goes on.
    fn wait_for_others(&self, epoch: u64, rounds: &mut u32) -> Result<bool> {
        let context = self.ask.context;
        let (ticket, clock) = (self.ask.ticket, &self.device.clock);
        if self.gently || !context.may_wait() {
            return Ok(false);
        }
        let cell = ticket.cell();
        let number = self.claim.number();
        match self.manager.after_hunt(number, epoch, cell, &**clock) {
            AfterHunt::GiveUp => return Ok(false),
            AfterHunt::Again => return Ok(true),
            AfterHunt::AgainAlone => {
                *rounds += 1;
                return Ok(*rounds < FRUITLESS_ROUNDS);
            }
            AfterHunt::Sleep => {}
        }
        let level = self.level();
        level.rest();
        ticket.forget_now();
        let slept = context.sleeping(cell, clock, || {
            let stop = || context.is_cancelled();
            ticket.sleep(context.deadline(), &stop, WaitFor::Claim)
        });
        level.awake();
        match slept {
            Ok(Waited::Woken) => Ok(true),
            Ok(Waited::TimedOut) => Err(Error::TimedOut),
            Err(error) => {
                if matches!(error, Error::Deadlock) {
                    (self.ask.lost)(None);
                }
                Err(error)
            }
        }
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
                    if self.modest == MODEST {
                        break;
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
                self.pass_over(victim, "it is locked");
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
                        (self.ask.lost)(Some(Arc::clone(victim) as Arc<dyn Lockable>));
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
            claim: Some(self.claim),
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
        if self.ask.fairly && group.is_some_and(|g| !self.device.budget.is_over_share(g.client())) {
            self.modest += 1;
            return Some("its client has no more than its share");
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
            dry: Some(&self.dry),
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
