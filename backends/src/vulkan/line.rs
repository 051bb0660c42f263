//! A timeline semaphore as a timeline of the manager's.

use std::collections::VecDeque;

use ash::vk;
use ttm::clock::Clock;
use ttm::fence::{Fence, FenceError, Timeline};
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::raw::{Raw, Semaphore};
use super::watch::{Standing, Watch, Watched};

/// Points of a semaphore that somebody submits work up to, in order.
pub(super) struct Line {
    raw: Arc<Raw>,
    watch: Weak<Watch>,
    timeline: Timeline,
    semaphore: Semaphore,
    /// Points of the timeline that are not reached, with the semaphore's values.
    points: Mutex<VecDeque<(u64, u64)>>,
    /// Whether its user has let go of it.
    left: AtomicBool,
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
            raw: Arc::clone(raw),
            watch: Arc::downgrade(watch),
            timeline: Timeline::new(number, Arc::clone(clock)),
            semaphore,
            points: Mutex::new(VecDeque::new()),
            left: AtomicBool::new(false),
        });
        let watched: Arc<dyn Watched> = Arc::clone(&line) as _;
        watch.add(number, Arc::downgrade(&watched));
        line
    }

    pub(super) fn semaphore(&self) -> &Semaphore {
        &self.semaphore
    }

    /// A fence for the moment at which the semaphore comes to `value`, which is more than any before;
    /// `None` if it is not.
    pub(super) fn fence_at(&self, value: u64) -> Option<Fence> {
        let (fence, first) = {
            let mut points = self.points.lock();
            if points.back().is_some_and(|(_, last)| *last >= value) {
                return None;
            }
            let fence = self.timeline.issue();
            points.push_back((fence.seqno(), value));
            (fence, points.len() == 1)
        };
        if self.raw.is_lost() {
            self.lose();
        }
        if first && let Some(watch) = self.watch.upgrade() {
            watch.ring();
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

    /// The point of a fence fails: what was to signal it was not submitted. The semaphore is brought
    /// there all the same, so that nothing waits for it in vain.
    pub(super) fn fail(&self, fence: &Fence, value: u64) {
        self.points
            .lock()
            .retain(|(seqno, _)| *seqno != fence.seqno());
        self.timeline.fail(fence.seqno(), FenceError::Failed);
        let _ = self.semaphore.signal(value);
    }
}

impl Watched for Line {
    fn next(&self) -> Option<(vk::Semaphore, u64)> {
        let points = self.points.lock();
        points
            .front()
            .map(|(_, value)| (self.semaphore.handle(), *value))
    }

    fn poll(&self) {
        if self.points.lock().is_empty() {
            return;
        }
        let Ok(value) = self.semaphore.value() else {
            return;
        };
        let mut reached = None;
        {
            let mut points = self.points.lock();
            while let Some((seqno, _)) = points.pop_front_if(|(_, at)| *at <= value) {
                reached = Some(seqno);
            }
        }
        if let Some(seqno) = reached {
            self.timeline.signal(seqno);
        }
    }

    fn lose(&self) {
        self.points.lock().clear();
        self.timeline.close(FenceError::DeviceLost);
    }

    /// Its users submit what reaches a point before they hand its fence to anybody.
    fn standing(&self, seqno: u64) -> Standing {
        let points = self.points.lock();
        match points.iter().find(|(number, _)| *number >= seqno) {
            Some((_, value)) => Standing::Point(self.semaphore.handle(), *value),
            None => Standing::Reached,
        }
    }
}
