//! A timeline semaphore as a timeline of the manager's.

use std::collections::VecDeque;

use ash::vk;
use ttm::clock::Clock;
use ttm::fence::{Fence, FenceError, Timeline};
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::raw::{Raw, Semaphore};
use super::watch::{Point as At, Watch, Watched};

/// Points of a semaphore that somebody submits work up to, in order.
pub(super) struct Line {
    watch: Weak<Watch>,
    timeline: Timeline,
    semaphore: Semaphore,
    /// Those that are not reached, in order.
    points: Mutex<VecDeque<Point>>,
    /// Whether its user has let go of it.
    left: AtomicBool,
}

struct Point {
    /// Of the timeline.
    seqno: u64,
    /// Of the semaphore.
    value: u64,
    /// Nobody submits work up to it: it fails when it is its turn.
    cancelled: bool,
}

impl Line {
    pub(super) fn new(
        raw: &Arc<Raw>,
        watch: &Arc<Watch>,
        semaphore: Semaphore,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Self> {
        let number = watch.number();
        let line = Arc::new(Self {
            watch: Arc::downgrade(watch),
            timeline: Timeline::new(number, Arc::clone(clock)),
            semaphore,
            points: Mutex::new(VecDeque::new()),
            left: AtomicBool::new(false),
        });
        let watched: Arc<dyn Watched> = Arc::clone(&line) as _;
        watch.add(number, Arc::downgrade(&watched));
        if raw.is_lost() {
            watch.ring();
        }
        line
    }

    pub(super) fn semaphore(&self) -> &Semaphore {
        &self.semaphore
    }

    /// A fence for the moment at which the semaphore comes to `value`, which is more than any before;
    /// `None` if it is not. On a lost device it fails as soon as the watching thread comes by: not
    /// here, under the locks of the caller.
    pub(super) fn fence_at(&self, value: u64) -> Option<Fence> {
        let (fence, first) = {
            let mut points = self.points.lock();
            if points.back().is_some_and(|last| last.value >= value) {
                return None;
            }
            let fence = self.timeline.issue();
            points.push_back(Point {
                seqno: fence.seqno(),
                value,
                cancelled: false,
            });
            (fence, points.len() == 1)
        };
        if first {
            self.ring();
        }
        Some(fence)
    }

    /// Its user lets go of it.
    pub(super) fn leave(&self) {
        // Relaxed: whoever sees it later looks again.
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether its user has let go of it and all its points are reached.
    pub(super) fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) && self.points.lock().is_empty()
    }

    /// What was to signal a point was not submitted. Its fence fails once those before it are reached,
    /// for they protect memory until then; the semaphore is brought there as well, so that nothing
    /// waits for it in vain.
    pub(super) fn cancel(&self, fence: &Fence) {
        let mut points = self.points.lock();
        if fence.timeline() == self.timeline.id()
            && let Some(point) = points.iter_mut().find(|p| p.seqno == fence.seqno())
        {
            point.cancelled = true;
        }
        drop(points);
        self.ring();
    }

    fn ring(&self) {
        if let Some(watch) = self.watch.upgrade() {
            watch.ring();
        }
    }

    /// Takes out what the semaphore, which is at `value`, has reached, and cancelled points whose turn
    /// it is.
    fn due(&self, value: u64) -> Vec<Point> {
        let mut points = self.points.lock();
        let mut due = Vec::new();
        while let Some(front) = points.front() {
            let reached = front.value <= value;
            if !reached && !front.cancelled {
                break;
            }
            // A later point brings the semaphore there by itself: work up to it may be under way, and
            // two may not signal at once. The lock keeps the next one from being given out meanwhile.
            let last = points.len() == 1;
            if !reached && last && self.semaphore.signal(front.value).is_err() {
                break;
            }
            due.extend(points.pop_front());
        }
        due
    }
}

impl Watched for Line {
    fn next(&self) -> Option<(vk::Semaphore, u64)> {
        let points = self.points.lock();
        points
            .front()
            .map(|point| (self.semaphore.handle(), point.value))
    }

    fn poll(&self) {
        if self.points.lock().is_empty() {
            return;
        }
        let Ok(value) = self.semaphore.value() else {
            return;
        };
        for point in self.due(value) {
            match point.cancelled {
                true => self.timeline.fail(point.seqno, FenceError::Failed),
                false => self.timeline.signal(point.seqno),
            }
        }
    }

    fn lose(&self) {
        self.points.lock().clear();
        self.timeline.close(FenceError::DeviceLost);
    }

    fn point(&self, seqno: u64) -> At {
        let points = self.points.lock();
        let at = points.iter().find(|point| point.seqno >= seqno);
        at.map_or(At::Reached, |point| {
            At::At(self.semaphore.handle(), point.value)
        })
    }
}
