//! Ranges that were freed and that a device may still reach, by thread.

use placement::Extent;

use super::request::Invalidation;
use crate::clock::Time;
use crate::sync::{CachePadded, Mutex, lane};

/// Threads that have a queue for themselves; more share.
const LANES: usize = 64;

pub(super) struct Queues {
    lanes: Box<[CachePadded<Mutex<Waiting>>]>,
    batch: usize,
    timeout_ns: u64,
}

#[derive(Default)]
struct Waiting {
    extents: Vec<Extent>,
    /// When the first of them was freed.
    since: Time,
}

impl Waiting {
    fn is_due(&self, now: Time, timeout_ns: u64) -> bool {
        !self.extents.is_empty() && now >= self.since.after_nanos(timeout_ns)
    }
}

impl Queues {
    /// Those of a lazy space.
    pub(super) fn of(invalidation: Invalidation) -> Option<Self> {
        match invalidation {
            Invalidation::Strict => None,
            Invalidation::Lazy { batch, timeout_ns } => Some(Self {
                lanes: (0..LANES).map(|_| CachePadded::default()).collect(),
                batch,
                timeout_ns,
            }),
        }
    }

    /// Queues a range; answers the thread's queue if that is to be invalidated now.
    pub(super) fn push(&self, extent: Extent, now: Time) -> Option<Vec<Extent>> {
        let mut waiting = self.lanes[lane() as usize % LANES].lock();
        if waiting.extents.is_empty() {
            waiting.since = now;
        }
        waiting.extents.push(extent);
        let due = waiting.extents.len() >= self.batch || waiting.is_due(now, self.timeout_ns);
        due.then(|| core::mem::take(&mut waiting.extents))
    }

    /// All that is queued.
    pub(super) fn drain(&self) -> Vec<Extent> {
        self.drain_where(|_| true)
    }

    /// What is queued with threads whose oldest range has waited long enough.
    pub(super) fn drain_due(&self, now: Time) -> Vec<Extent> {
        self.drain_where(|waiting| waiting.is_due(now, self.timeout_ns))
    }

    fn drain_where(&self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Extent> {
        let mut all = Vec::new();
        for lane in &self.lanes {
            let mut waiting = lane.lock();
            if wanted(&waiting) {
                all.append(&mut waiting.extents);
            }
        }
        all
    }

    /// Granules of all that is queued.
    pub(super) fn granules(&self) -> u64 {
        let of_lane = |lane: &CachePadded<Mutex<Waiting>>| {
            let waiting = lane.lock();
            waiting.extents.iter().map(|e| e.pages().get()).sum::<u64>()
        };
        self.lanes.iter().map(of_lane).sum()
    }
}
