//! Time, sleeping and background work, all of which come from outside.
//!
//! Every sleep of this crate is a [`Clock::park`] on a [`WaitCell`], every wake-up an
//! [`Clock::unpark`]. A wall clock sleeps on the cell's condition variable ([`Blocking`]); a
//! virtual one lets another client run, or the next device event happen. This crate spawns no
//! thread: what has to happen in the background is a [`Service`] that the host steps.

use core::fmt;
use core::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, Weak};

/// A moment, in nanoseconds since the clock's own beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The clock's beginning.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `ns` nanoseconds after the clock's beginning.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's beginning.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The moment `ns` nanoseconds later, [`Time::NEVER`] at most.
    #[must_use]
    pub const fn after_nanos(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// The time from `earlier` to now, zero if the clock ran backwards.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// How a park ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// Somebody unparked the cell.
    Notified,
    /// The deadline passed.
    TimedOut,
    /// Nothing can ever unpark the cell: all clients are parked and no event is due. Ask
    /// [`Clock::wait_graph`] for the reasons.
    Stalled,
}

/// What a parked thread waits for, for the wait graph and the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFor {
    /// A reservation that the given transaction age holds (0: not yet aged).
    Reservation {
        /// The age of the transaction that holds it.
        holder: u64,
    },
    /// A point of a timeline.
    Fence {
        /// The timeline's number.
        timeline: u64,
        /// The point.
        seqno: u64,
    },
    /// Space that an older transaction has a claim on.
    Claim,
    /// Work for a service.
    Work,
    /// Something outside this crate; the text says what.
    Other(&'static str),
}

/// One thread's place to sleep at. A wake-up before the sleep is kept, like a token.
#[derive(Debug, Default)]
pub struct WaitCell {
    token: Mutex<bool>,
    wake: Condvar,
}

impl WaitCell {
    /// A cell without a token.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Leaves a token and wakes the sleeper, if one is there. For implementations of [`Clock`].
    pub fn notify(&self) {
        *self.token.lock() = true;
        self.wake.notify_all();
    }

    /// Takes the token, if one is there. For implementations of [`Clock`].
    pub fn take_token(&self) -> bool {
        core::mem::take(&mut *self.token.lock())
    }

    /// Sleeps until the token is there, `timeout` at most. For implementations of [`Clock`].
    pub fn block(&self, timeout: Option<Duration>) -> Woken {
        let mut token = self.token.lock();
        while !*token {
            match timeout {
                None => self.wake.wait(&mut token),
                Some(left) => {
                    if self.wake.wait_for(&mut token, left).timed_out() {
                        break;
                    }
                }
            }
        }
        if core::mem::take(&mut *token) {
            Woken::Notified
        } else {
            Woken::TimedOut
        }
    }
}

/// Time and sleeping. One clock serves a device and everything that signals to it.
pub trait Clock: Send + Sync {
    /// The present moment. Never runs backwards.
    fn now(&self) -> Time;

    /// The last of `n` adjoining numbers, all greater than every number that this thread has drawn
    /// before, and than those that others drew before it, but for the last hundred nanoseconds or
    /// so. They order uses by age; a clock whose threads share no counter for them lets
    /// transactions scale.
    fn tick(&self, n: u64) -> u64;

    /// Sleeps until `cell` is unparked or `deadline` passes. May wake early for no reason.
    fn park(&self, cell: &Arc<WaitCell>, deadline: Option<Time>, what: WaitFor) -> Woken;

    /// Wakes whoever sleeps at `cell`, or the next one who will.
    fn unpark(&self, cell: &Arc<WaitCell>);

    /// Runs `work` for a thread that waits for it without the clock's knowing, as one does that
    /// touches a page which is not there: on a clock whose threads take turns, in that thread's turn.
    fn on_behalf(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Whether its threads run one at a time, in turns. Then nobody lets another one go on but by
    /// [`Clock::unpark`], and by serving it [on its behalf](Clock::on_behalf).
    fn takes_turns(&self) -> bool {
        false
    }

    /// Who waits for what, one line each; empty where the clock does not know.
    fn wait_graph(&self) -> String;
}

/// A clock whose sleepers block their threads, over any source of time.
///
/// ```
/// use ttm::clock::{Blocking, Clock, Time, WaitCell, WaitFor, Woken};
/// let clock = Blocking::new(|| Time::from_nanos(7));
/// let cell = WaitCell::new();
/// clock.unpark(&cell);
/// assert_eq!(clock.park(&cell, None, WaitFor::Work), Woken::Notified);
/// assert_eq!(clock.park(&cell, Some(Time::ZERO), WaitFor::Work), Woken::TimedOut);
/// ```
pub struct Blocking<N> {
    now: N,
    ticks: AtomicU64,
}

impl<N: Fn() -> Time + Send + Sync> Blocking<N> {
    /// A clock that asks `now` for the time.
    pub fn new(now: N) -> Self {
        Self {
            now,
            ticks: AtomicU64::new(0),
        }
    }
}

impl<N> fmt::Debug for Blocking<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blocking")
    }
}

impl<N: Fn() -> Time + Send + Sync> Clock for Blocking<N> {
    fn now(&self) -> Time {
        (self.now)()
    }

    fn tick(&self, n: u64) -> u64 {
        // Relaxed: what orders two draws is what told the later thread of the earlier.
        self.ticks.fetch_add(n, Ordering::Relaxed) + n
    }

    fn park(&self, cell: &Arc<WaitCell>, deadline: Option<Time>, _: WaitFor) -> Woken {
        let Some(deadline) = deadline.filter(|d| *d != Time::NEVER) else {
            return cell.block(None);
        };
        loop {
            if cell.take_token() {
                return Woken::Notified;
            }
            let left = deadline.since(self.now());
            if left.is_zero() {
                return Woken::TimedOut;
            }
            if cell.block(Some(left)) == Woken::Notified {
                return Woken::Notified;
            }
        }
    }

    fn unpark(&self, cell: &Arc<WaitCell>) {
        cell.notify();
    }

    fn wait_graph(&self) -> String {
        String::new()
    }
}

/// Whether a step found something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Something was done; step again.
    Did,
    /// Nothing to do until the bell rings.
    Idle,
}

/// Background work in steps: retiring, reclaim, fence pumping.
///
/// The host runs `step` from a thread of its own, sleeping on the bell while idle; the simulator
/// runs it between events. A step never blocks for long and never panics.
pub trait Service: Send + Sync {
    /// A short name for traces and thread names.
    fn name(&self) -> &'static str;

    /// Does a bounded piece of work.
    fn step(&self) -> Progress;

    /// Unparked when there may be work.
    fn bell(&self) -> &Arc<WaitCell>;
}

/// A service that steps something for as long as that lives.
pub(crate) struct Background<T> {
    name: &'static str,
    of: Weak<T>,
    bell: Arc<WaitCell>,
    /// Does some work; false if there was none.
    step: fn(&T) -> bool,
}

impl<T> Background<T> {
    pub(crate) fn new(
        name: &'static str,
        of: &Arc<T>,
        bell: &Arc<WaitCell>,
        step: fn(&T) -> bool,
    ) -> Self {
        Self {
            name,
            of: Arc::downgrade(of),
            bell: Arc::clone(bell),
            step,
        }
    }
}

impl<T: Send + Sync> Service for Background<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn step(&self) -> Progress {
        match self.of.upgrade() {
            Some(of) if (self.step)(&of) => Progress::Did,
            _ => Progress::Idle,
        }
    }

    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}
