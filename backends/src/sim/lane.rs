//! A lane: jobs one after the other, each with its fence. Engines and queues are lanes.
//!
//! ```text
//!            head, lane free        all `after` signalled        its time has passed
//!   queued ──────────────▶ waiting ────────────────────▶ working ──────────────▶ done
//!                            │  one failed                                          │
//!                            └──────────────▶ DependencyFailed                    signal
//! ```
//!
//! Scheduled calls hold the lane weakly and name their job by epoch and point, so a call that
//! comes after the lane was shut finds nothing to do.

use core::fmt;
use std::collections::VecDeque;

use ttm::clock::Time;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, FenceError, Status, Timeline};
use ttm::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::gpu::{Core, EngineConfig};
use super::inject::At;
use super::timer::Timer;

/// What a job does at the end of its time.
pub(super) type Run = Box<dyn FnOnce(&Core) -> Result<(), FenceError> + Send>;

/// Jobs in order.
pub(super) struct Lane {
    core: Arc<Core>,
    speed: EngineConfig,
    timer: Timer,
    me: Weak<Self>,
    /// Held while a job moves bytes, so that shutting the lane can wait for the last write.
    working: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<Job>,
    /// The job that was taken from the queue and has not signalled.
    current: Option<Job>,
    timeline: Arc<Timeline>,
    /// Counts how often the lane was shut.
    epoch: u64,
}

struct Job {
    seqno: u64,
    bytes: u64,
    after: Vec<Fence>,
    /// Waited for; whether they failed makes no difference.
    behind: Vec<Fence>,
    /// Taken when it runs.
    run: Option<Run>,
}

/// Names a job to a later call.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ticket {
    epoch: u64,
    seqno: u64,
}

impl Lane {
    pub(super) fn new(core: &Arc<Core>, speed: EngineConfig, timer: Timer) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            core: Arc::clone(core),
            speed,
            timer,
            me: Weak::clone(me),
            working: Mutex::new(()),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                current: None,
                timeline: core.timeline(),
                epoch: 0,
            }),
        })
    }

    /// The number of the lane's timeline.
    pub(super) fn timeline_id(&self) -> u64 {
        self.state.lock().timeline.id()
    }

    /// Queues a job of `bytes` bytes. It begins after all fences, and fails if one of `after` did.
    pub(super) fn submit(
        &self,
        bytes: u64,
        after: Vec<Fence>,
        behind: Vec<Fence>,
        run: Run,
    ) -> Result<Fence> {
        let fence = {
            let mut state = self.state.lock();
            // `shut` takes the lock after the flag was set: a job is refused, or closed with the
            // timeline.
            if self.core.is_lost() {
                return Err(Error::DeviceLost);
            }
            let fence = state.timeline.issue();
            state.queue.push_back(Job {
                seqno: fence.seqno(),
                bytes,
                after,
                behind,
                run: Some(run),
            });
            fence
        };
        self.take_next();
        Ok(fence)
    }

    /// Begins with the job at the head if the lane is free.
    fn take_next(&self) {
        let (ticket, after, behind) = {
            let mut state = self.state.lock();
            if state.current.is_some() {
                return;
            }
            let Some(mut job) = state.queue.pop_front() else {
                return;
            };
            let after = core::mem::take(&mut job.after);
            let behind = core::mem::take(&mut job.behind);
            let ticket = Ticket {
                epoch: state.epoch,
                seqno: job.seqno,
            };
            state.current = Some(job);
            (ticket, after, behind)
        };
        let gate = Arc::new(Gate {
            // One more for this function, so that the gate opens once, after the last fence.
            left: AtomicUsize::new(after.len() + behind.len() + 1),
            failed: AtomicBool::new(false),
            lane: Weak::clone(&self.me),
            ticket,
        });
        for fence in after {
            let gate = Arc::clone(&gate);
            fence.on_signal(move |status| gate.pass(status));
        }
        for fence in behind {
            let gate = Arc::clone(&gate);
            fence.on_signal(move |_| gate.pass(Status::Done));
        }
        gate.pass(Status::Done);
    }

    /// All that the job waited for has happened.
    fn begin(&self, ticket: Ticket, failed: bool) {
        let bytes = {
            let state = self.state.lock();
            let Some(job) = state.current(ticket) else {
                return;
            };
            job.bytes
        };
        let now = self.core.clock().now();
        if failed {
            // Through the timer, so that a chain of failures does not nest.
            self.later(now, move |lane| {
                lane.finish(ticket, Some(FenceError::DependencyFailed));
            });
            return;
        }
        if self.core.inject().fails(At::DEVICE_LOST) {
            self.core.lose();
            return;
        }
        let end = now.after_nanos(self.speed.duration_ns(bytes));
        self.later(end, move |lane| lane.work(ticket));
    }

    fn later(&self, at: Time, call: impl FnOnce(&Self) + Send + 'static) {
        let me = Weak::clone(&self.me);
        let call = move |_| {
            if let Some(lane) = me.upgrade() {
                call(&lane);
            }
        };
        self.timer.schedule(at, Box::new(call));
    }

    /// The job's time has passed: moves the bytes.
    fn work(&self, ticket: Ticket) {
        let mut error = {
            let _working = self.working.lock();
            let Some(run) = self.state.lock().take_run(ticket) else {
                return;
            };
            run(&self.core).err()
        };
        let inject = self.core.inject();
        if inject.fails(At::FENCE_ERROR) {
            error = error.or(Some(FenceError::Failed));
        }
        if inject.fails(At::FENCE_NEVER) {
            return;
        }
        if inject.fails(At::FENCE_LATE) {
            let late = self.core.clock().now().after_nanos(inject.late_ns());
            self.later(late, move |lane| lane.finish(ticket, error));
            return;
        }
        self.finish(ticket, error);
    }

    /// Signals the job and begins with the next.
    fn finish(&self, ticket: Ticket, error: Option<FenceError>) {
        let (job, timeline) = {
            let mut state = self.state.lock();
            if state.current(ticket).is_none() {
                return;
            }
            (state.current.take(), Arc::clone(&state.timeline))
        };
        drop(job);
        match error {
            None => timeline.signal(ticket.seqno),
            Some(error) => timeline.fail(ticket.seqno, error),
        }
        self.take_next();
    }

    /// Drops all jobs and signals every pending fence with `error`, after the last write.
    pub(super) fn shut(&self, error: FenceError) {
        let (queue, current, timeline) = {
            let mut state = self.state.lock();
            state.epoch += 1;
            let queue = core::mem::take(&mut state.queue);
            (queue, state.current.take(), Arc::clone(&state.timeline))
        };
        // What is being written now is written when this lock was had.
        drop(self.working.lock());
        timeline.close(error);
        drop((queue, current));
    }

    /// A new timeline, for a device that came back.
    pub(super) fn reopen(&self) {
        self.state.lock().timeline = self.core.timeline();
    }
}

impl State {
    fn current(&self, ticket: Ticket) -> Option<&Job> {
        let job = self.current.as_ref()?;
        (self.epoch == ticket.epoch && job.seqno == ticket.seqno).then_some(job)
    }

    fn take_run(&mut self, ticket: Ticket) -> Option<Run> {
        self.current(ticket)?;
        self.current.as_mut()?.run.take()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(
            f,
            "Lane({:?}, {} queued)",
            state.timeline,
            state.queue.len()
        )
    }
}

/// Opens when the last fence of a job has signalled.
struct Gate {
    left: AtomicUsize,
    failed: AtomicBool,
    lane: Weak<Lane>,
    ticket: Ticket,
}

impl Gate {
    fn pass(&self, status: Status) {
        if matches!(status, Status::Failed(_)) {
            self.failed.store(true, Ordering::Relaxed);
        }
        // AcqRel: the last one sees what the others stored.
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if let Some(lane) = self.lane.upgrade() {
            lane.begin(self.ticket, self.failed.load(Ordering::Relaxed));
        }
    }
}
