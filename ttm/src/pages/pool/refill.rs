//! What the refill service does ahead: zeroes what is dirty, fetches what will be wanted.

use placement::PageCount;

use crate::pages::{FrameKind, Want};
use crate::sync::atomic::Ordering;

use super::{Pool, add};

/// Pages that one step works on at most: 2 MiB.
const STEP: PageCount = PageCount::new(512).expect("a small count");

impl Pool {
    /// Zeroes a run or a magazine, or fetches a run. Answers whether there was something to do.
    pub(super) fn work_ahead(&self) -> bool {
        self.rung.store(false, Ordering::Relaxed);
        if self.pressed.load(Ordering::Relaxed) {
            return false;
        }
        self.zero_run_behind() || self.zero_magazine_behind() || self.fetch_ahead()
    }

    fn zero_run_behind(&self) -> bool {
        let Some(run) = self.shelves.lock().take_dirty(STEP.get()) else {
            return false;
        };
        add(&self.counters.zeroed_behind, run.pages().get());
        match self.zero(run) {
            Ok(run) => self.shelves.lock().put_zeroed(run),
            // Whoever takes it tries again, and is told.
            Err((run, _)) => {
                self.shelves.lock().put_dirty(run);
                return false;
            }
        }
        true
    }

    fn zero_magazine_behind(&self) -> bool {
        let Some(batch) = self.magazines.dirty_batch() else {
            return false;
        };
        let mut zeroed = Vec::with_capacity(batch.len());
        let mut dirty = Vec::new();
        for run in batch {
            match self.zero(run) {
                Ok(run) => zeroed.push(run),
                Err((run, _)) => dirty.push(run),
            }
        }
        add(&self.counters.zeroed_behind, zeroed.len() as u64);
        let did = !zeroed.is_empty();
        if did {
            self.magazines.depot_zeroed(zeroed);
        }
        if !dirty.is_empty() {
            self.magazines.depot_dirty(dirty);
        }
        did
    }

    fn fetch_ahead(&self) -> bool {
        let wanted = {
            let shelves = self.shelves.lock();
            let depot = self.magazines.in_depot();
            shelves.ready(STEP) + STEP.get() <= self.limits.reserve
                && self
                    .limits
                    .admit(&shelves, depot, FrameKind::default(), STEP)
        };
        if !wanted {
            return false;
        }
        // Not by way of `take_from_source`: nothing is shrunk for what nobody waits for.
        match self.source.take(&Want::new(STEP)) {
            Ok(run) => {
                add(&self.counters.fresh, run.pages().get());
                self.shelves.lock().put_zeroed(run);
                true
            }
            Err(_) => false,
        }
    }
}
