//! Timelines, and the points on them.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clock::{Clock, Time, WaitCell, WaitFor, Woken};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

/// Why a point was reached without its work being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceError {
    /// The device is gone.
    DeviceLost,
    /// The work failed; what it should have written is undefined.
    Failed,
    /// Work that it had to wait for failed, so it was not begun.
    DependencyFailed,
    /// The timeline's owner went away without signalling.
    Abandoned,
}

impl fmt::Display for FenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceLost => "the device was lost before the fence",
            Self::Failed => "the work of the fence failed",
            Self::DependencyFailed => "work that the fence waited for failed",
            Self::Abandoned => "the timeline ended before the fence",
        })
    }
}

impl std::error::Error for FenceError {}

/// The state of a fence. It leaves `Pending` once, and for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Not reached yet.
    Pending,
    /// Reached, the work done.
    Done,
    /// Reached, the work not done.
    Failed(FenceError),
}

type Callback = Box<dyn FnOnce(Status) + Send>;

enum Waiter {
    Cell(Arc<WaitCell>),
    Task(Waker),
    Call(Callback),
}

struct Shared {
    id: u64,
    clock: Arc<dyn Clock>,
    issued: AtomicU64,
    /// The last point reached. Release when stored, after errors were recorded; acquire when
    /// read, so that whoever sees a point reached sees what its work wrote.
    reached: AtomicU64,
    /// Whether `inner.errors` or `inner.closed` say anything; pairs like `reached`.
    failed: AtomicBool,
    /// The earliest moment at which somebody wants the timeline to be further; a hint.
    wanted_by: AtomicU64,
    panics: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    errors: BTreeMap<u64, FenceError>,
    /// From this point on everything fails.
    closed: Option<(u64, FenceError)>,
    waiters: Vec<(u64, Waiter)>,
}

/// The writing end of a timeline. Dropping it signals all that is pending with
/// [`FenceError::Abandoned`], so that no waiter hangs.
///
/// ```
/// # use ttm::{clock::{Blocking, Time}, fence::{Timeline, Status, FenceError}, sync::Arc};
/// let clock = Arc::new(Blocking::new(|| Time::ZERO));
/// let timeline = Timeline::new(1, clock);
/// let (first, second) = (timeline.issue(), timeline.issue());
/// timeline.signal(first.seqno());
/// assert_eq!(first.status(), Status::Done);
/// timeline.fail(second.seqno(), FenceError::Failed);
/// assert_eq!(second.status(), Status::Failed(FenceError::Failed));
/// ```
pub struct Timeline {
    shared: Arc<Shared>,
}

/// A point on a timeline.
#[derive(Clone)]
#[must_use]
pub struct Fence {
    shared: Arc<Shared>,
    seqno: u64,
}

impl Timeline {
    /// A timeline at point 0. `id` (the *context*) should be unique in the device.
    #[must_use]
    pub fn new(id: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                id,
                clock,
                issued: AtomicU64::new(0),
                reached: AtomicU64::new(0),
                failed: AtomicBool::new(false),
                wanted_by: AtomicU64::new(u64::MAX),
                panics: AtomicU64::new(0),
                inner: Mutex::new(Inner::default()),
            }),
        }
    }

    /// The timeline's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The next point. The owner promises to reach it without waiting for anything that waits
    /// for it.
    pub fn issue(&self) -> Fence {
        // Relaxed: the number orders nothing by itself; whoever gets the fence got it from us.
        let seqno = self.shared.issued.fetch_add(1, Ordering::Relaxed) + 1;
        Fence {
            shared: Arc::clone(&self.shared),
            seqno,
        }
    }

    /// The last point that was issued.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.shared.issued.load(Ordering::Relaxed)
    }

    /// The last point that was reached.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.shared.reached.load(Ordering::Acquire)
    }

    /// The earliest moment at which a waiter wants progress; [`Time::NEVER`] if none said so.
    #[must_use]
    pub fn wanted_by(&self) -> Time {
        Time::from_nanos(self.shared.wanted_by.load(Ordering::Relaxed))
    }

    /// Callbacks that panicked so far. The others ran all the same.
    #[must_use]
    pub fn callback_panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Reaches `seqno` and every point before it. A point that was reached stays reached.
    pub fn signal(&self, seqno: u64) {
        self.shared.advance(seqno, None);
    }

    /// Reaches `seqno` with an error, after the points before it without one.
    pub fn fail(&self, seqno: u64, error: FenceError) {
        self.shared.advance(seqno, Some(error));
    }

    /// Fails every point that has not been reached, also those still to be issued.
    pub fn close(&self, error: FenceError) {
        self.shared.close(error);
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        if self.reached() < self.issued() {
            self.shared.close(FenceError::Abandoned);
        }
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Timeline({}: {} of {})",
            self.id(),
            self.reached(),
            self.issued()
        )
    }
}

impl Shared {
    fn advance(&self, seqno: u64, error: Option<FenceError>) {
        let due = {
            let mut inner = self.inner.lock();
            let reached = self.reached.load(Ordering::Relaxed);
            if seqno <= reached || inner.closed.is_some() {
                return;
            }
            if let Some(error) = error {
                inner.errors.insert(seqno, error);
                self.failed.store(true, Ordering::Release);
            }
            self.reached.store(seqno, Ordering::Release);
            inner.due(seqno)
        };
        self.wake(due);
    }

    fn close(&self, error: FenceError) {
        let due = {
            let mut inner = self.inner.lock();
            if inner.closed.is_some() {
                return;
            }
            let from = self.reached.load(Ordering::Relaxed) + 1;
            inner.closed = Some((from, error));
            self.failed.store(true, Ordering::Release);
            self.reached.store(u64::MAX, Ordering::Release);
            inner.due(u64::MAX)
        };
        self.wake(due);
    }

    /// Runs what waited, in the order of the points, with no lock held.
    fn wake(&self, due: Vec<(u64, Waiter)>) {
        for (seqno, waiter) in due {
            match waiter {
                Waiter::Cell(cell) => self.clock.unpark(&cell),
                Waiter::Task(waker) => waker.wake(),
                Waiter::Call(call) => self.call(call, self.status(seqno)),
            }
        }
    }

    fn call(&self, call: Callback, status: Status) {
        if catch_unwind(AssertUnwindSafe(|| call(status))).is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn status(&self, seqno: u64) -> Status {
        if self.reached.load(Ordering::Acquire) < seqno {
            return Status::Pending;
        }
        if !self.failed.load(Ordering::Acquire) {
            return Status::Done;
        }
        let inner = self.inner.lock();
        match inner.closed {
            Some((from, error)) if seqno >= from => Status::Failed(error),
            _ => inner
                .errors
                .get(&seqno)
                .map_or(Status::Done, |error| Status::Failed(*error)),
        }
    }
}

impl Inner {
    /// Takes the waiters of all points up to `seqno`, in order.
    fn due(&mut self, seqno: u64) -> Vec<(u64, Waiter)> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let mut due: Vec<_> = self.waiters.extract_if(.., |w| w.0 <= seqno).collect();
        due.sort_by_key(|w| w.0);
        due
    }
}

impl Fence {
    /// The number of its timeline.
    #[must_use]
    pub fn timeline(&self) -> u64 {
        self.shared.id
    }

    /// Its point on the timeline, from 1 on.
    #[must_use]
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    /// Whether the point was reached, with or without an error. Never waits, takes no lock.
    #[inline]
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        self.shared.reached.load(Ordering::Acquire) >= self.seqno
    }

    /// The state. Takes the timeline's lock only if something on it failed.
    #[inline]
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status(self.seqno)
    }

    /// Whether both are points on one timeline and `self` is not before `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.seqno >= other.seqno
    }

    /// Whether both are points on one timeline.
    #[must_use]
    pub fn same_timeline(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Tells the timeline's owner that somebody wants the point reached by `deadline`.
    pub fn set_deadline(&self, deadline: Time) {
        self.shared
            .wanted_by
            .fetch_min(deadline.nanos(), Ordering::Relaxed);
    }

    /// Sleeps until the point is reached or `deadline` passes. Answers the state; `Pending`
    /// only after the deadline.
    ///
    /// # Errors
    /// [`Error::Stalled`] if the clock knows that nothing will ever signal it.
    pub fn wait(&self, deadline: Option<Time>) -> Result<Status> {
        self.wait_at(&WaitCell::new(), deadline, &|| false)
    }

    /// Like [`Fence::wait`] at a given cell; ends early, `Pending`, when `stop` says so after a
    /// wake-up of the cell.
    pub(crate) fn wait_at(
        &self,
        cell: &Arc<WaitCell>,
        deadline: Option<Time>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Status> {
        if !self.is_signalled() && !self.wait_by(deadline, || Waiter::Cell(Arc::clone(cell))) {
            return Ok(self.status());
        }
        let what = WaitFor::Fence {
            timeline: self.shared.id,
            seqno: self.seqno,
        };
        while !self.is_signalled() && !stop() {
            match self.shared.clock.park(cell, deadline, what) {
                Woken::Notified => {}
                Woken::TimedOut => break,
                Woken::Stalled => {
                    return Err(Error::Stalled(self.shared.clock.wait_graph().into()));
                }
            }
        }
        self.forget(cell);
        Ok(self.status())
    }

    /// Calls `call` with the state once the point is reached, at once if it was. The call comes
    /// from whoever signals, holds no lock, must not block, and may panic.
    pub fn on_signal(&self, call: impl FnOnce(Status) + Send + 'static) {
        let mut call: Option<Callback> = Some(Box::new(call));
        self.wait_by(None, || Waiter::Call(call.take().expect("asked once")));
        if let Some(call) = call {
            self.shared.call(call, self.status());
        }
    }

    /// Registers a waiter unless the point was reached. Answers whether it did.
    fn wait_by(&self, deadline: Option<Time>, waiter: impl FnOnce() -> Waiter) -> bool {
        if let Some(deadline) = deadline {
            self.set_deadline(deadline);
        }
        let mut inner = self.shared.inner.lock();
        if self.is_signalled() {
            return false;
        }
        inner.waiters.push((self.seqno, waiter()));
        true
    }

    fn forget(&self, cell: &Arc<WaitCell>) {
        let mut inner = self.shared.inner.lock();
        inner
            .waiters
            .retain(|(_, w)| !matches!(w, Waiter::Cell(c) if Arc::ptr_eq(c, cell)));
    }
}

impl Future for Fence {
    type Output = Status;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Status> {
        let waker = context.waker();
        if !self.is_signalled() && self.wait_by(None, || Waiter::Task(waker.clone())) {
            return Poll::Pending;
        }
        Poll::Ready(self.status())
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        self.same_timeline(other) && self.seqno == other.seqno
    }
}

impl Eq for Fence {}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({}:{}", self.shared.id, self.seqno)?;
        write!(f, " {:?})", self.status())
    }
}
