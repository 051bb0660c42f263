//! Where tickets meet: ages, wounds, and the queues of contended reservations.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::clock::{Clock, Time, WaitCell, WaitFor, Woken};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, CachePadded, Mutex, MutexGuard, OnceLock};

use super::lock::{CONTENDED, HOLDER, Reservation};
use super::transaction::Lockable;

/// Tickets are kept in blocks of this many.
const BLOCK: usize = 32;
/// Blocks, so that 4096 threads may be inside transactions at once.
const BLOCKS: usize = 128;

/// What a thread's transaction shows to others. One per thread; a thread is in one transaction
/// of a device at a time.
pub(crate) struct Slot {
    /// Drawn at the first conflict, kept over restarts; 0 before. Smaller is older.
    age: AtomicU64,
    /// An older transaction wants something of this one. Written under the domain's lock.
    wounded: AtomicBool,
    /// Whether a transaction of the thread runs. Written by the thread alone.
    busy: AtomicBool,
    /// Where the thread sleeps.
    cell: Arc<WaitCell>,
    /// The thread.
    index: u32,
    /// A moment that is still now for the thread's transaction, in nanoseconds; `u64::MAX` if it
    /// has not looked. Written by the thread alone.
    now: AtomicU64,
    /// The system's number of the thread, if somebody needs to know.
    system_thread: AtomicU64,
    /// What was lost to an older transaction deep inside this one; waited for at the restart.
    lost: Mutex<Option<Arc<dyn Lockable>>>,
}

/// All tickets of a device, and who waits for what.
pub(crate) struct Domain {
    clock: Arc<dyn Clock>,
    slots: Box<[OnceLock<Block>]>,
    next_age: AtomicU64,
    back_offs: AtomicU64,
    queues: Mutex<Queues>,
    /// The number that the system has for the calling thread, where somebody needs to know.
    system_thread: OnceLock<fn() -> u64>,
}

type Block = Box<[CachePadded<Slot>]>;
type Queues = BTreeMap<usize, Queue>;

/// Who waits for one reservation.
#[derive(Default)]
struct Queue {
    /// Thread indices, oldest transaction first.
    waiters: SmallVec<[u32; 4]>,
    /// Told at the next release.
    watchers: SmallVec<[(Arc<dyn Released>, u64); 2]>,
}

/// Told once when a reservation that was found locked is free again.
pub(crate) trait Released: Send + Sync {
    /// The reservation that was watched under `key` was released. Called without locks.
    fn released(&self, key: u64);
}

/// How a wait for a ticket's own cell ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// Somebody woke the cell.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// One transaction's right to wait: the thread's slot in the domain.
#[derive(Clone, Copy)]
pub(crate) struct Ticket<'d> {
    pub(crate) domain: &'d Domain,
    slot: &'d Slot,
    not_send: core::marker::PhantomData<*const ()>,
}

impl Domain {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            slots: (0..BLOCKS).map(|_| OnceLock::new()).collect(),
            next_age: AtomicU64::new(0),
            back_offs: AtomicU64::new(0),
            queues: Mutex::new(BTreeMap::new()),
            system_thread: OnceLock::new(),
        }
    }

    /// From now on transactions note the system's number of their thread.
    pub(crate) fn note_threads(&self, number: fn() -> u64) {
        self.system_thread.get_or_init(|| number);
    }

    /// Whether the holder of `lock` is the thread that the system gives that number.
    pub(crate) fn is_held_by(&self, lock: &Reservation, system_thread: u64) -> bool {
        let holder = lock.word.load(Ordering::Relaxed) & HOLDER;
        let slot = holder.checked_sub(1).map(|thread| self.slot(thread));
        slot.is_some_and(|slot| {
            slot.busy.load(Ordering::Relaxed)
                && slot.system_thread.load(Ordering::Relaxed) == system_thread
        })
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How many transactions have backed off so far.
    pub(crate) fn back_offs(&self) -> u64 {
        self.back_offs.load(Ordering::Relaxed)
    }

    /// The ticket of the calling thread.
    ///
    /// # Errors
    /// [`Error::Busy`] if more than 4096 threads are alive.
    #[inline]
    pub(crate) fn ticket(&self) -> Result<Ticket<'_>> {
        let thread = crate::sync::thread_index();
        let block = self.slots.get(thread as usize / BLOCK).ok_or(Error::Busy)?;
        let slots = match block.get() {
            Some(slots) => slots,
            None => block.get_or_init(|| new_block(thread)),
        };
        Ok(Ticket {
            domain: self,
            slot: &slots[thread as usize % BLOCK],
            not_send: core::marker::PhantomData,
        })
    }

    fn slot(&self, thread: u32) -> &Slot {
        let slots = self.slots[thread as usize / BLOCK]
            .get()
            .expect("a holder has a slot");
        &slots[thread as usize % BLOCK]
    }

    fn draw_age(&self, slot: &Slot) -> u64 {
        let age = slot.age.load(Ordering::Relaxed);
        if age != 0 {
            return age;
        }
        let drawn = self.next_age.fetch_add(1, Ordering::Relaxed) + 1;
        // The thread itself (for a claim) and a contender may draw at the same time.
        match slot
            .age
            .compare_exchange(0, drawn, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => drawn,
            Err(age) => age,
        }
    }

    /// Marks `lock` as contended while somebody holds it; answers the holder, or none if it is
    /// free. Under the queues' lock.
    fn contend(&self, lock: &Reservation) -> Option<u32> {
        let mut word = lock.word.load(Ordering::Relaxed);
        loop {
            if word & HOLDER == 0 {
                return None;
            }
            if word & CONTENDED != 0 {
                return Some((word & HOLDER) - 1);
            }
            match lock.word.compare_exchange_weak(
                word,
                word | CONTENDED,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some((word & HOLDER) - 1),
                Err(now) => word = now,
            }
        }
    }

    /// Hands the lock to the oldest waiter, or frees it, and tells the watchers.
    #[cold]
    pub(super) fn unlock_contended(&self, lock: &Reservation, thread: u32) {
        let mut queues = self.queues.lock();
        debug_assert_eq!(lock.word.load(Ordering::Relaxed) & HOLDER, thread + 1);
        let mut queue = queues.remove(&address(lock)).unwrap_or_default();
        let watchers = core::mem::take(&mut queue.watchers);
        if queue.waiters.is_empty() {
            lock.word.store(0, Ordering::Release);
        } else {
            let next = queue.waiters.remove(0);
            let rest = if queue.waiters.is_empty() {
                0
            } else {
                queues.insert(address(lock), queue);
                CONTENDED
            };
            // Release: the heir acquires when it reads the word.
            lock.word.store((next + 1) | rest, Ordering::Release);
            self.clock.unpark(&self.slot(next).cell);
        }
        drop(queues);
        for (watcher, key) in watchers {
            watcher.released(key);
        }
    }

    /// Tells `watcher` when `lock` is released. Answers false, and does nothing, if it is free.
    pub(crate) fn watch(&self, lock: &Reservation, watcher: Arc<dyn Released>, key: u64) -> bool {
        let mut queues = self.queues.lock();
        if self.contend(lock).is_none() {
            return false;
        }
        queues
            .entry(address(lock))
            .or_default()
            .watchers
            .push((watcher, key));
        true
    }

    /// I-46 and I-47 as far as a snapshot shows them.
    pub(crate) fn check(&self) -> core::result::Result<(), String> {
        let queues = self.queues.lock();
        for queue in queues.values() {
            let ages: Vec<_> = queue
                .waiters
                .iter()
                .map(|t| self.slot(*t).age.load(Ordering::Relaxed))
                .collect();
            if !ages.is_sorted() || ages.contains(&0) {
                return Err(format!("I-46: waiters out of order by age: {ages:?}"));
            }
        }
        Ok(())
    }
}

fn address(lock: &Reservation) -> usize {
    core::ptr::from_ref(lock).addr()
}

/// The slots of `thread` and its neighbours.
#[cold]
fn new_block(thread: u32) -> Block {
    let first = thread - thread % BLOCK as u32;
    (first..first + BLOCK as u32)
        .map(|index| CachePadded::new(Slot::new(index)))
        .collect()
}

impl Slot {
    fn new(index: u32) -> Self {
        Self {
            index,
            now: AtomicU64::new(u64::MAX),
            system_thread: AtomicU64::new(0),
            lost: Mutex::new(None),
            age: AtomicU64::new(0),
            wounded: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            cell: WaitCell::new(),
        }
    }
}

impl<'d> Ticket<'d> {
    /// The thread.
    #[inline]
    pub(crate) fn thread(&self) -> u32 {
        self.slot.index
    }

    /// The present moment. Steps that take no time share one reading of the clock; `afresh` takes
    /// another.
    pub(crate) fn now(&self, afresh: bool) -> Time {
        let known = self.slot.now.load(Ordering::Relaxed);
        if !afresh && known != u64::MAX {
            return Time::from_nanos(known);
        }
        let now = self.domain.clock.now();
        self.slot.now.store(now.nanos(), Ordering::Relaxed);
        now
    }

    /// The thread slept, or a transaction begins: what was now is past.
    #[inline]
    pub(crate) fn forget_now(&self) {
        self.slot.now.store(u64::MAX, Ordering::Relaxed);
    }

    /// Notes what was lost to an older transaction.
    pub(super) fn set_lost(&self, other: Option<Arc<dyn Lockable>>) {
        *self.slot.lost.lock() = other;
    }

    /// What was lost, once.
    pub(super) fn take_lost(&self) -> Option<Arc<dyn Lockable>> {
        self.slot.lost.lock().take()
    }

    /// Begins the thread's transaction.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if the thread is in one already.
    #[inline]
    pub(super) fn enter(&self) -> Result<()> {
        if self.slot.busy.load(Ordering::Relaxed) {
            return Err(Error::Reentrant);
        }
        self.slot.busy.store(true, Ordering::Relaxed);
        self.forget_now();
        if let Some(number) = self.domain.system_thread.get() {
            self.slot.system_thread.store(number(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ends the thread's transaction; its locks are released.
    #[inline]
    pub(super) fn leave(&self) {
        if self.slot.age.load(Ordering::Relaxed) != 0 {
            self.slot.age.store(0, Ordering::Relaxed);
            self.slot.wounded.store(false, Ordering::Relaxed);
        }
        self.slot.busy.store(false, Ordering::Relaxed);
    }

    /// The transaction gave everything up and starts again, as old as it was.
    pub(super) fn restart(&self) {
        self.domain.back_offs.fetch_add(1, Ordering::Relaxed);
        let _queues = self.domain.queues.lock();
        self.slot.wounded.store(false, Ordering::Relaxed);
    }

    /// The age, drawn now if there was no conflict before.
    pub(crate) fn age(&self) -> u64 {
        self.domain.draw_age(self.slot)
    }

    pub(crate) fn cell(&self) -> &'d Arc<WaitCell> {
        &self.slot.cell
    }

    fn is_wounded(&self) -> bool {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::NoBackOff) {
            return false;
        }
        self.slot.wounded.load(Ordering::Relaxed)
    }

    /// Waits for `lock` until it is ours.
    ///
    /// # Errors
    /// [`Error::Deadlock`] if an older transaction wants something of ours (`holds` says that
    /// there is something), [`Error::TimedOut`], [`Error::Interrupted`] when `stop` says so,
    /// [`Error::Stalled`].
    #[cold]
    pub(crate) fn lock_contended(
        &self,
        lock: &Reservation,
        holds: bool,
        deadline: Option<Time>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut queues = self.domain.queues.lock();
        let Some(holder) = self.domain.contend(lock) else {
            // Free, and nobody queues while it is free: the word is 0 but for a racing taker.
            drop(queues);
            return self.retry(lock, holds, deadline, stop);
        };
        if holder == self.thread() {
            return Err(Error::AlreadyLocked);
        }
        let theirs = self.domain.draw_age(self.domain.slot(holder));
        let ours = self.age();
        if holds && self.is_wounded() {
            return Err(Error::Deadlock);
        }
        if ours < theirs {
            self.wound(holder);
        }
        self.enqueue(&mut queues, lock, ours);
        drop(queues);
        self.sleep_for(lock, holds, deadline, stop, theirs)
    }

    fn retry(
        &self,
        lock: &Reservation,
        holds: bool,
        deadline: Option<Time>,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        match lock.try_lock(self.thread()) {
            super::Taken::Now => Ok(()),
            super::Taken::Before => Err(Error::AlreadyLocked),
            super::Taken::No => self.lock_contended(lock, holds, deadline, stop),
        }
    }

    fn wound(&self, holder: u32) {
        let slot = self.domain.slot(holder);
        if !slot.wounded.swap(true, Ordering::Relaxed) {
            // It may sleep for another lock, a fence or a claim.
            self.domain.clock.unpark(&slot.cell);
        }
    }

    fn enqueue(&self, queues: &mut MutexGuard<'_, Queues>, lock: &Reservation, age: u64) {
        let queue = queues.entry(address(lock)).or_default();
        let at = queue
            .waiters
            .partition_point(|t| self.domain.slot(*t).age.load(Ordering::Relaxed) < age);
        queue.waiters.insert(at, self.thread());
    }

    fn sleep_for(
        &self,
        lock: &Reservation,
        holds: bool,
        deadline: Option<Time>,
        stop: &dyn Fn() -> bool,
        holder: u64,
    ) -> Result<()> {
        let what = WaitFor::Reservation { holder };
        loop {
            let woken = self.domain.clock.park(&self.slot.cell, deadline, what);
            // Acquire: pairs with the release of the one who handed the lock over.
            if lock.word.load(Ordering::Acquire) & HOLDER == self.thread() + 1 {
                return Ok(());
            }
            let error = if holds && self.is_wounded() {
                Error::Deadlock
            } else if stop() {
                Error::Interrupted
            } else if woken == Woken::TimedOut {
                Error::TimedOut
            } else if woken == Woken::Stalled {
                Error::Stalled(self.domain.clock.wait_graph().into())
            } else {
                self.wound_again(lock);
                continue;
            };
            return self.give_up_waiting(lock, error);
        }
    }

    /// The lock may have gone to another, younger one meanwhile.
    fn wound_again(&self, lock: &Reservation) {
        let queues = self.domain.queues.lock();
        let word = lock.word.load(Ordering::Relaxed) & HOLDER;
        if word != 0 && word != self.thread() + 1 {
            let theirs = self.domain.draw_age(self.domain.slot(word - 1));
            if self.age() < theirs {
                self.wound(word - 1);
            }
        }
        drop(queues);
    }

    /// Leaves the queue, unless the lock came at the last moment: then it is ours after all.
    fn give_up_waiting(&self, lock: &Reservation, error: Error) -> Result<()> {
        let mut queues = self.domain.queues.lock();
        if lock.word.load(Ordering::Acquire) & HOLDER == self.thread() + 1 {
            return Ok(());
        }
        // The contended bit stays: the holder takes the slow way once and finds nobody.
        if let Some(queue) = queues.get_mut(&address(lock)) {
            queue.waiters.retain(|t| *t != self.thread());
        }
        Err(error)
    }

    /// Sleeps at the ticket's cell, once. A wound ends it.
    ///
    /// # Errors
    /// [`Error::Deadlock`] if wounded, [`Error::Interrupted`], [`Error::Stalled`].
    pub(crate) fn sleep(
        &self,
        deadline: Option<Time>,
        stop: &dyn Fn() -> bool,
        what: WaitFor,
    ) -> Result<Waited> {
        if self.is_wounded() {
            return Err(Error::Deadlock);
        }
        let woken = self.domain.clock.park(&self.slot.cell, deadline, what);
        if self.is_wounded() {
            Err(Error::Deadlock)
        } else if stop() {
            Err(Error::Interrupted)
        } else {
            match woken {
                Woken::Notified => Ok(Waited::Woken),
                Woken::TimedOut => Ok(Waited::TimedOut),
                Woken::Stalled => Err(Error::Stalled(self.domain.clock.wait_graph().into())),
            }
        }
    }
}
