//! Small ranges that are free, by thread.
//!
//! A thread takes from and gives to magazines of its own, one for each size, under a lock that
//! nobody else wants. A full magazine gives its older half to a depot, which has no lock; what the
//! depot has too much of goes to the bare space.

use core::array;

use placement::Extent;

use super::request::Want;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{CachePadded, Mutex, Queue, lane};

/// Powers of two of granules that are kept: 1 to [`LARGEST`].
const ORDERS: usize = 6;

/// The largest range that is kept, in granules.
pub(super) const LARGEST: u64 = 1 << (ORDERS - 1);

/// Ranges that go to and come from the depot at once.
const BATCH: usize = if cfg!(ttm_zeal) { 1 } else { 64 };

/// Batches of a size in the depot.
const DEPOT: u64 = 32;

/// Threads that have magazines for themselves; more share.
const LANES: usize = 64;

/// Which size that is, if ranges of it are kept.
pub(super) fn order(granules: u64) -> Option<usize> {
    let kept = granules.is_power_of_two() && granules <= LARGEST;
    kept.then_some(granules.trailing_zeros() as usize)
}

pub(super) struct Cache {
    lanes: Box<[CachePadded<Mutex<Lane>>]>,
    depots: [Depot; ORDERS],
}

#[derive(Default)]
struct Lane {
    magazines: [Vec<Extent>; ORDERS],
}

/// Batches that are no thread's.
struct Depot {
    batches: Queue<Vec<Extent>>,
    /// Ranges in them.
    ranges: AtomicU64,
}

impl Depot {
    fn new() -> Self {
        Self {
            batches: Queue::new(),
            ranges: AtomicU64::new(0),
        }
    }

    /// Takes a batch, or answers it if there are enough.
    fn push(&self, batch: Vec<Extent>) -> Vec<Extent> {
        // Relaxed: the queue hands over; this only counts.
        if self.ranges.load(Ordering::Relaxed) >= DEPOT * BATCH as u64 {
            return batch;
        }
        self.ranges.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.batches.push(batch);
        Vec::new()
    }

    fn pop(&self) -> Option<Vec<Extent>> {
        let batch = self.batches.pop()?;
        self.ranges.fetch_sub(batch.len() as u64, Ordering::Relaxed);
        Some(batch)
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            lanes: (0..LANES).map(|_| CachePadded::default()).collect(),
            depots: array::from_fn(|_| Depot::new()),
        }
    }

    /// Where it is, which no other cache can be.
    pub(super) fn address(&self) -> usize {
        self.lanes.as_ptr().addr()
    }

    #[inline]
    fn lane(&self) -> &Mutex<Lane> {
        &self.lanes[lane() as usize % LANES]
    }

    /// The range of the thread's own that was given last, among those that are wanted.
    #[inline]
    pub(super) fn take(&self, order: usize, want: &Want) -> Option<Extent> {
        let mut lane = self.lane().lock();
        let magazine = &mut lane.magazines[order];
        if magazine.is_empty() {
            magazine.extend(self.depots[order].pop()?);
        }
        let at = magazine.iter().rposition(|e| want.is_met_at(e.start()))?;
        Some(magazine.swap_remove(at))
    }

    /// Keeps a range; answers those that are too many.
    #[inline]
    pub(super) fn give(&self, order: usize, extent: Extent) -> Vec<Extent> {
        let batch: Vec<_> = {
            let mut lane = self.lane().lock();
            let magazine = &mut lane.magazines[order];
            magazine.push(extent);
            if magazine.len() <= 2 * BATCH {
                return Vec::new();
            }
            magazine.drain(..BATCH).collect()
        };
        self.depots[order].push(batch)
    }

    /// All of it.
    pub(super) fn drain(&self) -> Vec<Extent> {
        let mut all = Vec::new();
        for lane in &self.lanes {
            for magazine in &mut lane.lock().magazines {
                all.append(magazine);
            }
        }
        for depot in &self.depots {
            while let Some(mut batch) = depot.pop() {
                all.append(&mut batch);
            }
        }
        all
    }

    /// Granules of all that is kept.
    pub(super) fn granules(&self) -> u64 {
        let of_lane = |lane: &CachePadded<Mutex<Lane>>| {
            let lane = lane.lock();
            let sizes = lane.magazines.iter().enumerate();
            sizes
                .map(|(order, ranges)| (ranges.len() as u64) << order)
                .sum::<u64>()
        };
        let depots = self.depots.iter().enumerate();
        let in_depots = depots.map(|(order, depot)| depot.ranges.load(Ordering::Relaxed) << order);
        self.lanes.iter().map(of_lane).sum::<u64>() + in_depots.sum::<u64>()
    }
}
