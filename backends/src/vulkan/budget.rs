//! How much of each heap may be used: what the driver says, smoothed, less a reserve.

use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

use super::raw::Raw;

/// What the driver says changes from one moment to the next, as other programs come and go: an
/// eighth of each change is believed at a time, all of what is less.
const SMOOTHING: u64 = 8;

/// What is left to others of a heap: a hundredth, at most so many bytes.
const RESERVE: u64 = 64 << 20;

/// The heaps of a device.
pub(super) struct Budgets {
    raw: Arc<Raw>,
    heaps: Vec<HeapBudget>,
    /// One asks at a time.
    asking: Mutex<()>,
}

#[derive(Default)]
struct HeapBudget {
    /// Smoothed; `u64::MAX` where the driver says nothing.
    budget: AtomicU64,
    /// What the driver counts as used by this process, and what was allocated here since.
    used: AtomicU64,
}

impl Budgets {
    pub(super) fn new(raw: &Arc<Raw>) -> Arc<Self> {
        let heaps = raw.facts.heaps.iter().map(|_| HeapBudget {
            budget: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(0),
        });
        let budgets = Arc::new(Self {
            raw: Arc::clone(raw),
            heaps: heaps.collect(),
            asking: Mutex::new(()),
        });
        budgets.ask();
        budgets
    }

    /// Asks the driver. A budget that shrank is believed at once, one that grew little by little.
    pub(super) fn ask(&self) {
        let _turn = self.asking.lock();
        let Some(said) = self.raw.heap_budgets() else {
            return;
        };
        for (heap, (budget, used)) in self.heaps.iter().zip(said) {
            // Relaxed: figures, which order nothing.
            let before = heap.budget.load(Ordering::Relaxed);
            heap.budget
                .store(smoothed(before, budget), Ordering::Relaxed);
            heap.used.store(used, Ordering::Relaxed);
        }
    }

    /// Notes an allocation that the driver has not been asked about since.
    pub(super) fn grew(&self, heap: u32, bytes: u64) {
        if let Some(heap) = self.heaps.get(heap as usize) {
            heap.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether so much more would stay within the budget of a heap. If not, the driver is asked again
    /// first: what was freed meanwhile counts.
    pub(super) fn allows(&self, heap: u32, bytes: u64) -> bool {
        let Some(budget) = self.heaps.get(heap as usize) else {
            return true;
        };
        if budget.allows(bytes) {
            return true;
        }
        self.ask();
        budget.allows(bytes)
    }

    /// The budget of a heap as it is believed now, in bytes; `None` where the driver says nothing.
    pub(super) fn of(&self, heap: u32) -> Option<u64> {
        let budget = self
            .heaps
            .get(heap as usize)?
            .budget
            .load(Ordering::Relaxed);
        (budget != u64::MAX).then_some(budget)
    }
}

impl HeapBudget {
    fn allows(&self, bytes: u64) -> bool {
        let budget = self.budget.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed);
        budget == u64::MAX || used.saturating_add(bytes) <= budget - (budget / 100).min(RESERVE)
    }
}

fn smoothed(before: u64, now: u64) -> u64 {
    match before {
        u64::MAX => now,
        before if now <= before => now,
        before => before + ((now - before) / SMOOTHING).max(1).min(now - before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinks_is_believed_at_once_and_what_grows_little_by_little() {
        assert_eq!(smoothed(u64::MAX, 100), 100);
        assert_eq!(smoothed(100, 20), 20);
        assert_eq!(smoothed(100, 0), 0);
        let mut budget = 100;
        let mut steps = 0;
        while budget < 900 {
            budget = smoothed(budget, 900);
            steps += 1;
        }
        assert!((20..80).contains(&steps), "{steps}");
        assert_eq!(smoothed(900, 900), 900);
    }

    #[test]
    fn a_hundredth_is_left_to_others() {
        let heap = HeapBudget {
            budget: AtomicU64::new(1000),
            used: AtomicU64::new(900),
        };
        assert!(heap.allows(90) && !heap.allows(91));
        heap.budget.store(0, Ordering::Relaxed);
        assert!(!heap.allows(1));
        heap.budget.store(u64::MAX, Ordering::Relaxed);
        assert!(heap.allows(u64::MAX));
    }
}
