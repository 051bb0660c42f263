//! The transfer queue as a copy engine.
//!
//! ```text
//!   submit ─▶ waiting ── head, nothing foreign pending ──▶ batch ─▶ queue ─▶ done: signal
//!                                                            │ the call fails
//!                                                            └─▶ failed, in its turn
//! ```
//!
//! Jobs go to the queue at once while few submissions are in flight; while many are, they gather, and
//! the next submission takes all. A job whose device-side dependencies are other queues' begins a
//! submission of its own, so that nothing waits for them that need not. Jobs that others are about to
//! wait for on a queue go at once as well: it may be the same queue, on which nothing overtakes.
//!
//! Fences of this device are waited for by the queue; others by the CPU, before the job is submitted.

use std::collections::VecDeque;

use ash::vk;
use smallvec::SmallVec;
use ttm::clock::Clock;
use ttm::driver::{CopyEngine, CopyJob};
use ttm::error::{Error, Result};
use ttm::fence::{Fence, FenceError, Status, Timeline};
use ttm::sync::{Arc, Mutex, Weak};

use super::error::VulkanError;
use super::raw::{CommandPool, Commands, Raw, Semaphore, SharedQueue, Submission};
use super::step::{Sides, Step};
use super::watch::{Point, Standing, Watch, Watched};

/// Submissions that are in flight at once.
const FLIGHTS: usize = 3;

/// Jobs that one submission takes.
const BATCH: usize = 64;

/// Submissions that one call makes.
const GROUPS: usize = 8;

/// Points of semaphores, one for each.
type Points = SmallVec<[(vk::Semaphore, u64); 4]>;

/// The transfer queue.
pub(super) struct Engine {
    raw: Arc<Raw>,
    watch: Weak<Watch>,
    queue: Arc<SharedQueue>,
    sides: Arc<Sides>,
    pool: Arc<CommandPool>,
    timeline: Timeline,
    semaphore: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    flights: VecDeque<Flight>,
    /// Command buffers that are not in flight.
    spare: Vec<Commands>,
    counts: EngineCounts,
    /// Of the last job.
    last: Option<Fence>,
    /// Nothing is submitted any more.
    lost: bool,
}

struct Job {
    seqno: u64,
    bytes: u64,
    steps: Vec<Step>,
    /// What the queue waits for.
    waits: Points,
    /// Whose semaphores these are.
    kept: Vec<Arc<dyn Watched>>,
    /// The fences that the semaphores stand for.
    behind: Vec<Fence>,
    /// What the CPU waits for.
    foreign: Vec<Foreign>,
    /// The last point of this engine that the job is behind.
    own: u64,
    /// Why it is not to be done.
    doomed: Option<FenceError>,
}

/// A fence that only the CPU can wait for.
struct Foreign {
    fence: Fence,
    /// Whether its failure is the job's, too.
    binding: bool,
    /// Whether its signal is heard.
    heard: bool,
}

/// Jobs that were submitted together, or could not be.
struct Flight {
    last: u64,
    jobs: Vec<Job>,
    commands: Option<Commands>,
    failed: Option<FenceError>,
}

/// What an engine has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineCounts {
    /// Jobs that were submitted.
    pub jobs: u64,
    /// Submissions that they went in.
    pub submissions: u64,
    /// Calls that submitted them.
    pub calls: u64,
    /// The most submissions that were in flight at once.
    pub most_in_flight: u64,
    /// Bytes that were copied or cleared.
    pub bytes: u64,
    /// Jobs that failed.
    pub failed: u64,
}

impl Engine {
    pub(super) fn new(
        raw: &Arc<Raw>,
        watch: &Arc<Watch>,
        queue: &Arc<SharedQueue>,
        sides: &Arc<Sides>,
        clock: &Arc<dyn Clock>,
    ) -> core::result::Result<Arc<Self>, VulkanError> {
        let number = watch.number();
        let pool = CommandPool::create(raw, queue.family())?;
        let semaphore = Semaphore::create(raw, raw.exports_semaphores())?;
        let engine = Arc::new(Self {
            raw: Arc::clone(raw),
            watch: Arc::downgrade(watch),
            queue: Arc::clone(queue),
            sides: Arc::clone(sides),
            pool,
            timeline: Timeline::new(number, Arc::clone(clock)),
            semaphore,
            state: Mutex::new(State::default()),
        });
        let watched: Arc<dyn Watched> = Arc::clone(&engine) as _;
        watch.add(number, Arc::downgrade(&watched));
        Ok(engine)
    }

    /// The fence of the last job; nothing if there was none.
    pub(super) fn last(&self) -> Option<Fence> {
        self.state.lock().last.clone()
    }

    /// The last point that was reached, if there was one.
    pub(super) fn seen(&self) -> Option<(vk::Semaphore, u64)> {
        let reached = self.timeline.reached();
        (1..u64::MAX)
            .contains(&reached)
            .then(|| (self.semaphore.handle(), reached))
    }

    pub(super) fn counts(&self) -> EngineCounts {
        self.state.lock().counts
    }

    /// Submits nothing more.
    pub(super) fn stop(&self) {
        self.state.lock().lost = true;
    }

    /// Sorts what a job waits for. `binding` says whether the fences' failure is the job's, too.
    fn sort(&self, job: &mut Job, fences: Vec<Fence>, binding: bool) {
        let watch = self.watch.upgrade();
        for fence in fences {
            if fence.timeline() == self.timeline.id() && !binding {
                // The queue is in order.
                job.own = job.own.max(fence.seqno());
                continue;
            }
            match watch.as_ref().map(|watch| watch.standing(&fence)) {
                Some(Standing::Point(semaphore, value, whose)) if !binding => {
                    add_point(&mut job.waits, semaphore, value);
                    job.kept.push(whose);
                    job.behind.push(fence);
                }
                Some(Standing::Reached) if !binding => {}
                _ => job.foreign.push(Foreign {
                    fence,
                    binding,
                    heard: false,
                }),
            }
        }
    }

    /// Submits what can be submitted now. Behind what failed nothing is, until that was said.
    fn pump(&self, state: &mut State) {
        self.pump_to(state, 0);
    }

    /// The same, and jobs up to `seqno` however many are in flight.
    fn pump_to(&self, state: &mut State, seqno: u64) {
        let failed = |state: &State| state.flights.back().is_some_and(|f| f.failed.is_some());
        let wanted = |state: &State| state.waiting.front().is_some_and(|job| job.seqno <= seqno);
        while !state.lost && !failed(state) && (state.flights.len() < FLIGHTS || wanted(state)) {
            let groups = self.ready(state);
            if groups.is_empty() {
                return;
            }
            self.submit_all(state, groups);
        }
    }

    /// Jobs from the head that nothing foreign holds up, in groups that are submitted together. One
    /// that is not to be done is alone, and the last.
    fn ready(&self, state: &mut State) -> Vec<Vec<Job>> {
        let mut groups: Vec<Vec<Job>> = Vec::new();
        while let Some(job) = state.waiting.front_mut() {
            if !self.is_free(job) {
                break;
            }
            let doomed = job.doomed.is_some();
            let alone = doomed || !job.waits.is_empty();
            if alone || groups.last().is_none_or(|group| group.len() >= BATCH) {
                if groups.len() == GROUPS {
                    break;
                }
                groups.push(Vec::new());
            }
            let job = state.waiting.pop_front().expect("seen above");
            groups.last_mut().expect("just made").push(job);
            if doomed {
                break;
            }
        }
        groups
    }

    /// Whether nothing foreign holds a job up. If something does, the engine is looked at again once
    /// that has signalled.
    fn is_free(&self, job: &mut Job) -> bool {
        let doomed = &mut job.doomed;
        job.foreign.retain(|foreign| {
            let status = foreign.fence.status();
            if foreign.binding && matches!(status, Status::Failed(_)) {
                *doomed = Some(FenceError::DependencyFailed);
            }
            status == Status::Pending
        });
        // One that is not to be done waits all the same: its fence says that others are done with both
        // ends.
        let Some(foreign) = job.foreign.first_mut() else {
            return true;
        };
        if !core::mem::replace(&mut foreign.heard, true) {
            self.ring_at(&foreign.fence);
        }
        false
    }

    /// Has the engine looked at again once a fence has signalled.
    fn ring_at(&self, fence: &Fence) {
        let watch = Weak::clone(&self.watch);
        // The signal may come under any lock, and at once: it only rings.
        fence.on_signal(move |_| {
            if let Some(watch) = watch.upgrade() {
                watch.ring();
            }
        });
    }

    fn submit_all(&self, state: &mut State, groups: Vec<Vec<Job>>) {
        let mut flights: Vec<Flight> = Vec::new();
        let mut groups = groups.into_iter();
        for jobs in groups.by_ref() {
            let flight = self.prepare(state, jobs);
            let failed = flight.failed.is_some();
            flights.push(flight);
            if failed {
                break;
            }
        }
        // In their old order, at the head.
        for job in groups.flatten().collect::<Vec<_>>().into_iter().rev() {
            state.waiting.push_front(job);
        }
        if self.launch(state, &flights).is_err() {
            for flight in &mut flights {
                flight.failed.get_or_insert(FenceError::Failed);
            }
        }
        let idle = state.flights.is_empty();
        let any_failed = flights.iter().any(|flight| flight.failed.is_some());
        for flight in flights.iter().filter(|flight| flight.failed.is_some()) {
            flight.behind().for_each(|fence| self.ring_at(fence));
        }
        state.enter(flights);
        if (idle || any_failed)
            && let Some(watch) = self.watch.upgrade()
        {
            watch.ring();
        }
    }

    fn prepare(&self, state: &mut State, jobs: Vec<Job>) -> Flight {
        let last = jobs.last().expect("groups have jobs").seqno;
        let recorded = match jobs[0].doomed {
            Some(error) => Err(error),
            None => self.record(state, &jobs).map_err(|_| FenceError::Failed),
        };
        let failed = recorded.as_ref().err().copied();
        Flight {
            last,
            jobs,
            commands: recorded.ok(),
            failed,
        }
    }

    fn launch(
        &self,
        state: &mut State,
        flights: &[Flight],
    ) -> core::result::Result<(), VulkanError> {
        let submissions: Vec<_> = flights
            .iter()
            .filter_map(|flight| {
                Some(Submission {
                    commands: flight.commands.as_ref()?,
                    waits: &flight.jobs[0].waits,
                    signal: (&self.semaphore, flight.last),
                })
            })
            .collect();
        if submissions.is_empty() {
            return Ok(());
        }
        self.queue.submit(&self.raw, &submissions)?;
        state.counts.calls += 1;
        state.counts.submissions += submissions.len() as u64;
        Ok(())
    }

    fn record(
        &self,
        state: &mut State,
        jobs: &[Job],
    ) -> core::result::Result<Commands, VulkanError> {
        let commands = match state.spare.pop() {
            Some(commands) => commands,
            None => Commands::create(&self.pool)?,
        };
        commands.begin()?;
        commands.barrier();
        let first = jobs[0].seqno;
        let mut settled = first;
        for job in jobs {
            if job.own >= settled {
                commands.barrier();
                settled = job.seqno;
            }
            job.steps.iter().for_each(|step| step.record(&commands));
        }
        commands.show_to_host();
        commands.end()?;
        Ok(commands)
    }
}

fn add_point(points: &mut Points, semaphore: vk::Semaphore, value: u64) {
    match points.iter_mut().find(|point| point.0 == semaphore) {
        Some(point) => point.1 = point.1.max(value),
        None => points.push((semaphore, value)),
    }
}

impl CopyEngine for Engine {
    /// # Errors
    /// Also [`Error::Invalid`] if a side is shorter than the job or not of this device, and
    /// [`Error::Unsupported`] for system pages that the device does not find.
    fn submit(&self, job: CopyJob) -> Result<Fence> {
        if self.raw.is_lost() {
            return Err(Error::DeviceLost);
        }
        let steps = self.sides.steps(&job)?;
        let mut queued = Job {
            seqno: 0,
            bytes: job.pages.bytes(),
            steps,
            waits: Points::new(),
            kept: Vec::new(),
            behind: Vec::new(),
            foreign: Vec::new(),
            own: 0,
            doomed: None,
        };
        self.sort(&mut queued, job.after, true);
        self.sort(&mut queued, job.behind, false);
        let mut state = self.state.lock();
        if state.lost {
            return Err(Error::DeviceLost);
        }
        let fence = self.timeline.issue();
        queued.seqno = fence.seqno();
        state.last = Some(fence.clone());
        queued.steps.iter().for_each(|step| step.belongs_to(&fence));
        state.waiting.push_back(queued);
        self.pump(&mut state);
        Ok(fence)
    }
}

impl Watched for Engine {
    fn next(&self) -> Option<(vk::Semaphore, u64)> {
        let state = self.state.lock();
        let flight = state.flights.front()?;
        Some((self.semaphore.handle(), flight.last))
    }

    fn poll(&self) {
        loop {
            let Ok(value) = self.semaphore.value() else {
                return;
            };
            let mut state = self.state.lock();
            let mut over = Vec::new();
            while let Some(mut flight) = state.flights.pop_front_if(|f| f.is_over(value)) {
                // Before anything that is behind it: its users wait for the semaphore too.
                if flight.failed.is_some()
                    && value < flight.last
                    && self.semaphore.signal(flight.last).is_err()
                {
                    // Tried again at the next look.
                    state.flights.push_front(flight);
                    break;
                }
                state.spare.extend(flight.commands.take());
                over.push(flight);
            }
            self.pump(&mut state);
            drop(state);
            if over.is_empty() || self.raw.is_lost() {
                return;
            }
            over.into_iter().for_each(|flight| self.end(flight));
        }
    }

    fn lose(&self) {
        let (waiting, flights) = {
            let mut state = self.state.lock();
            state.lost = true;
            (
                core::mem::take(&mut state.waiting),
                core::mem::take(&mut state.flights),
            )
        };
        if !(waiting.is_empty() && flights.is_empty()) {
            // What was submitted since the loss was seen.
            self.queue.wait_idle(&self.raw);
        }
        self.timeline.close(FenceError::DeviceLost);
        drop((waiting, flights));
    }

    fn point(&self, seqno: u64) -> Point {
        if self.timeline.reached() >= seqno {
            return Point::Reached;
        }
        let mut state = self.state.lock();
        self.pump_to(&mut state, seqno);
        let held_up = |job: &Job| job.seqno <= seqno;
        match state.lost || state.waiting.front().is_some_and(held_up) {
            true => Point::HeldUp,
            false => Point::At(self.semaphore.handle(), seqno),
        }
    }
}

impl Engine {
    /// A flight is over: its jobs' fences signal. Called by the watching thread alone, so in order.
    fn end(&self, flight: Flight) {
        let (last, failed) = (flight.last, flight.failed);
        let points: Vec<u64> = flight.jobs.iter().map(|job| job.seqno).collect();
        // First what the jobs used, then the news: whoever hears it finds that given back.
        drop(flight);
        match failed {
            Some(error) => points.iter().for_each(|p| self.timeline.fail(*p, error)),
            None => self.timeline.signal(last),
        }
    }
}

impl Flight {
    /// Fences that its jobs wait for by semaphores.
    fn behind(&self) -> impl Iterator<Item = &Fence> {
        self.jobs.iter().flat_map(|job| &job.behind)
    }

    /// Whether it is over while the semaphore is at `value`. What was not submitted is so only when it
    /// could have begun: until then others use what its fence gives free.
    fn is_over(&self, value: u64) -> bool {
        match self.failed {
            Some(_) => self.behind().all(Fence::is_signalled),
            None => self.last <= value,
        }
    }
}

impl State {
    fn enter(&mut self, flights: Vec<Flight>) {
        for flight in flights {
            let jobs = flight.jobs.len() as u64;
            match flight.failed {
                Some(_) => self.counts.failed += jobs,
                None => {
                    self.counts.jobs += jobs;
                    self.counts.bytes += flight.jobs.iter().map(|job| job.bytes).sum::<u64>();
                }
            }
            self.flights.push_back(flight);
        }
        let now = self.flights.len() as u64;
        self.counts.most_in_flight = self.counts.most_in_flight.max(now);
    }
}
