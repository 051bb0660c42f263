//! What an operation may do and for how long, and what it did.

use core::cell::Cell;

use crate::clock::{Clock, Time, WaitCell};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};

/// What happens when system memory is short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OomPolicy {
    /// Swap others out, waiting for them if the operation may wait, before giving up.
    #[default]
    Reclaim,
    /// Give up at once.
    FailFast,
}

/// Interrupts the operations that carry it. Clones are the same token.
#[derive(Clone, Default)]
pub struct CancelToken {
    inner: Arc<Cancel>,
}

type Sleeper = (Arc<WaitCell>, Arc<dyn Clock>);

#[derive(Default)]
struct Cancel {
    cancelled: AtomicBool,
    sleepers: Mutex<Vec<Sleeper>>,
}

impl CancelToken {
    /// A token that nobody has used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Interrupts every operation that carries the token, now and later.
    pub fn cancel(&self) {
        // SeqCst with the load in `register`: either the sleeper sees the flag, or we see it.
        self.inner.cancelled.store(true, Ordering::SeqCst);
        let sleepers = core::mem::take(&mut *self.inner.sleepers.lock());
        for (cell, clock) in sleepers {
            clock.unpark(&cell);
        }
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    fn register(&self, cell: &Arc<WaitCell>, clock: &Arc<dyn Clock>) {
        self.inner
            .sleepers
            .lock()
            .push((Arc::clone(cell), Arc::clone(clock)));
        if self.is_cancelled() {
            clock.unpark(cell);
        }
    }

    fn forget(&self, cell: &Arc<WaitCell>) {
        self.inner
            .sleepers
            .lock()
            .retain(|(c, _)| !Arc::ptr_eq(c, cell));
    }
}

impl core::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CancelToken({})", self.is_cancelled())
    }
}

/// The terms of one operation.
///
/// ```
/// use ttm::context::{CancelToken, OpContext};
/// use ttm::clock::Time;
/// let token = CancelToken::new();
/// let ctx = OpContext::new().cancelled_by(&token).until(Time::from_nanos(1_000_000));
/// assert!(ctx.may_wait());
/// token.cancel();
/// assert!(ctx.is_cancelled());
/// ```
#[derive(Clone, Debug)]
pub struct OpContext {
    cancel: Option<CancelToken>,
    no_wait: bool,
    /// `Time::NEVER` for none: the context is moved on every transaction, so it is small.
    deadline: Time,
    oom: OomPolicy,
    evict_shared: bool,
    bytes_moved: Cell<u64>,
    waited_ns: Cell<u64>,
}

impl Default for OpContext {
    fn default() -> Self {
        Self::new()
    }
}

impl OpContext {
    /// Uninterruptible, may wait for the GPU for ever, reclaims memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cancel: None,
            no_wait: false,
            deadline: Time::NEVER,
            oom: OomPolicy::Reclaim,
            evict_shared: false,
            bytes_moved: Cell::new(0),
            waited_ns: Cell::new(0),
        }
    }

    /// Ends with [`Error::Interrupted`](crate::Error::Interrupted) once `token` is used.
    #[must_use]
    pub fn cancelled_by(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// Never waits: neither for a reservation nor for a fence.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.no_wait = true;
        self
    }

    /// Ends with [`Error::TimedOut`](crate::Error::TimedOut) at `deadline`.
    #[must_use]
    pub fn until(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    /// May evict objects that share a reservation which the operation holds, if it has not
    /// locked them by name.
    #[must_use]
    pub fn evicting_shared(mut self) -> Self {
        self.evict_shared = true;
        self
    }

    /// Chooses what happens when system memory is short.
    #[must_use]
    pub fn oom(mut self, policy: OomPolicy) -> Self {
        self.oom = policy;
        self
    }

    /// Whether the operation may wait for reservations and for the GPU.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        !self.no_wait
    }

    /// The moment at which waiting ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        Some(self.deadline).filter(|d| *d != Time::NEVER)
    }

    /// Whether objects that share a held reservation may be evicted.
    #[must_use]
    pub fn evicts_shared(&self) -> bool {
        self.evict_shared
    }

    /// What happens when system memory is short.
    #[must_use]
    pub fn oom_policy(&self) -> OomPolicy {
        self.oom
    }

    /// Whether its cancel token was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }

    /// Bytes that this operation moved so far, every hop and every victim counted.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.bytes_moved.get()
    }

    /// Nanoseconds that this operation slept so far.
    #[must_use]
    pub fn waited_ns(&self) -> u64 {
        self.waited_ns.get()
    }

    pub(crate) fn add_moved(&self, bytes: u64) {
        self.bytes_moved.set(self.bytes_moved.get() + bytes);
    }

    /// Runs `sleep`, which parks at `cell`, so that the cancel token wakes it; measures it.
    pub(crate) fn sleeping<T>(
        &self,
        cell: &Arc<WaitCell>,
        clock: &Arc<dyn Clock>,
        sleep: impl FnOnce() -> T,
    ) -> T {
        if let Some(token) = &self.cancel {
            token.register(cell, clock);
        }
        let since = clock.now();
        let result = sleep();
        let ns = u64::try_from(clock.now().since(since).as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.set(self.waited_ns.get().saturating_add(ns));
        if let Some(token) = &self.cancel {
            token.forget(cell);
        }
        result
    }
}
