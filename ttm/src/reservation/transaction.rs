//! A transaction: many reservations under one ticket, released together.

use core::cell::{Cell, RefCell};

use smallvec::SmallVec;

use crate::context::OpContext;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering};

use super::domain::{Domain, Ticket};
use super::lock::{Held, Reservation, Taken};

/// Something that has a reservation.
pub(crate) trait Lockable: Send + Sync {
    /// The reservation; the same one for the whole life of the object.
    fn reservation(&self) -> &Reservation;
}

/// Something that a transaction can hold.
pub(crate) trait Member: Lockable {
    /// Its place in the transaction that holds it, from 1 on; 0 outside. Guarded by its
    /// reservation.
    fn seat(&self) -> &AtomicU32;
}

/// Room that is made at once for a transaction of more than a few objects.
const SPILL: usize = 62;

struct Entry<'o, M> {
    member: &'o M,
    /// This entry took the reservation; the others share it with one that did.
    took: bool,
    /// The closure has asked for it in this round.
    claimed: bool,
}

/// On whose behalf and on which terms a transaction works: what its locked objects need of it.
pub(crate) struct Terms<'o> {
    ticket: Ticket<'o>,
    context: OpContext,
    /// `Deadlock` was answered; nothing works until the restart.
    backing_off: Cell<bool>,
}

impl<'o> Terms<'o> {
    pub(crate) fn ticket(&self) -> Ticket<'o> {
        self.ticket
    }

    pub(crate) fn context(&self) -> &OpContext {
        &self.context
    }

    /// Whether `Deadlock` was answered since the last restart.
    #[inline]
    pub(crate) fn is_backing_off(&self) -> bool {
        self.backing_off.get()
    }

    /// Notes that something deep inside this transaction met an older one over `other`.
    pub(crate) fn lost(&self, other: Option<Arc<dyn Lockable>>) {
        if !self.backing_off.replace(true) {
            self.ticket.set_lost(other);
        }
    }

    /// The proof for something that this transaction holds.
    #[inline]
    pub(crate) fn held<'t>(&self, member: &'t impl Lockable) -> Held<'t> {
        member.reservation().held(self.ticket.thread())
    }
}

/// Locks by a ticket. Dropping it releases everything, last taken first.
pub(crate) struct Transaction<'o, M: Member> {
    terms: Terms<'o>,
    /// Few inline: the transaction is moved once, and larger ones pay for the heap.
    entries: RefCell<SmallVec<[Entry<'o, M>; 2]>>,
    /// The member that was lost to an older transaction; waited for first at the restart.
    lost: Cell<Option<&'o M>>,
}

impl<'o, M: Member> Transaction<'o, M> {
    /// Begins a transaction of the calling thread.
    ///
    /// # Errors
    /// [`Error::Reentrant`] inside another one of the same domain.
    #[inline]
    pub(crate) fn begin(domain: &'o Domain, context: OpContext) -> Result<Self> {
        let ticket = domain.ticket()?;
        ticket.enter()?;
        Ok(Self {
            terms: Terms {
                ticket,
                context,
                backing_off: Cell::new(false),
            },
            entries: RefCell::new(SmallVec::new()),
            lost: Cell::new(None),
        })
    }

    /// What the objects of the transaction need of it.
    pub(crate) fn terms(&self) -> &Terms<'o> {
        &self.terms
    }

    /// Takes the reservation of `member`, waiting for it if the context allows.
    ///
    /// # Errors
    /// [`Error::AlreadyLocked`], [`Error::Deadlock`], [`Error::Busy`], [`Error::Interrupted`],
    /// [`Error::TimedOut`], [`Error::Stalled`].
    #[inline]
    pub(crate) fn lock(&self, member: &'o M) -> Result<()> {
        if self.terms.is_backing_off() {
            return Err(Error::Deadlock);
        }
        match member.reservation().try_lock(self.terms.ticket.thread()) {
            Taken::Now => self.push(member, true),
            Taken::Before => return self.share(member),
            Taken::No => {
                self.wait_for(member)?;
                self.push(member, true);
            }
        }
        Ok(())
    }

    #[inline]
    fn push(&self, member: &'o M, took: bool) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() == entries.inline_size() {
            entries.reserve(SPILL);
        }
        entries.push(Entry {
            member,
            took,
            claimed: true,
        });
        // Relaxed: guarded by the reservation.
        member.seat().store(entries.len() as u32, Ordering::Relaxed);
    }

    /// The reservation is ours already: through another member, or from the restart.
    fn share(&self, member: &'o M) -> Result<()> {
        let seat = member.seat().load(Ordering::Relaxed);
        if seat == 0 {
            self.push(member, false);
            return Ok(());
        }
        let entry = &mut self.entries.borrow_mut()[seat as usize - 1];
        if entry.claimed {
            return Err(Error::AlreadyLocked);
        }
        entry.claimed = true;
        Ok(())
    }

    #[cold]
    fn wait_for(&self, member: &'o M) -> Result<()> {
        let result = self.wait_lock(member.reservation());
        if matches!(result, Err(Error::Deadlock)) {
            self.terms.lost(None);
            self.lost.set(Some(member));
        }
        result
    }

    fn wait_lock(&self, lock: &Reservation) -> Result<()> {
        let holds = !self.entries.borrow().is_empty();
        wait_lock(&self.terms.ticket, &self.terms.context, lock, holds)
    }

    /// Releases everything, waits for what was lost, and is ready for another round.
    ///
    /// # Errors
    /// Those of waiting, but never `Deadlock`: nothing is held.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.release();
        let ticket = self.terms.ticket;
        ticket.restart();
        self.terms.backing_off.set(false);
        if let Some(other) = ticket.take_lost() {
            self.take_first(other.reservation())?;
            other.reservation().unlock(ticket.thread(), ticket.domain);
        }
        if let Some(member) = self.lost.take() {
            self.take_first(member.reservation())?;
            self.push(member, true);
            self.entries.get_mut()[0].claimed = false;
        }
        Ok(())
    }

    fn take_first(&self, lock: &Reservation) -> Result<()> {
        match lock.try_lock(self.terms.ticket.thread()) {
            Taken::Now => Ok(()),
            Taken::Before | Taken::No => self.wait_lock(lock),
        }
    }

    /// The members that the closure locked, in the order in which it did.
    pub(crate) fn for_each(&self, mut f: impl FnMut(usize, &'o M)) {
        for (n, entry) in self.entries.borrow().iter().enumerate() {
            f(n, entry.member);
        }
    }

    /// Whether the transaction holds `member`, which `is_it` recognises.
    pub(crate) fn holds(&self, is_it: impl Fn(&M) -> bool, member: &M) -> bool {
        // Another transaction's seat names another member here, or none.
        let seat = member.seat().load(Ordering::Relaxed) as usize;
        let entries = self.entries.borrow();
        seat > 0 && entries.get(seat - 1).is_some_and(|e| is_it(e.member))
    }

    /// How many members the transaction holds.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    #[inline]
    fn release(&mut self) {
        let ticket = self.terms.ticket;
        let (thread, domain) = (ticket.thread(), ticket.domain);
        for entry in self.entries.get_mut().drain(..).rev() {
            entry.member.seat().store(0, Ordering::Relaxed);
            if entry.took {
                let reservation = entry.member.reservation();
                reservation.held(thread).fences().unreserve();
                reservation.unlock(thread, domain);
            }
        }
    }
}

impl<M: Member> Drop for Transaction<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.release();
        self.terms.ticket.leave();
    }
}

/// Waits for `lock` on the terms of `context`.
///
/// # Errors
/// [`Error::Busy`] if the context does not wait; those of [`Ticket::lock_contended`].
pub(crate) fn wait_lock(
    ticket: &Ticket<'_>,
    context: &OpContext,
    lock: &Reservation,
    holds: bool,
) -> Result<()> {
    if !context.may_wait() {
        return Err(Error::Busy);
    }
    if context.is_cancelled() {
        return Err(Error::Interrupted);
    }
    ticket.forget_now();
    context.sleeping(ticket.cell(), ticket.domain.clock(), || {
        ticket.lock_contended(lock, holds, context.deadline(), &|| context.is_cancelled())
    })
}
