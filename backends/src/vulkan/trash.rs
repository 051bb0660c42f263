//! What is destroyed once nothing uses it.

use core::any::Any;
use std::collections::VecDeque;

use ttm::fence::Fence;
use ttm::sync::Mutex;
use ttm::sync::atomic::{AtomicUsize, Ordering};

/// How many things [`Trash::reap_some`] looks at in any case.
const SOME: usize = 16;

/// Things, with the fences of what may still use them.
#[derive(Default)]
pub(super) struct Trash {
    things: Mutex<VecDeque<Thing>>,
    /// How many there are; changed under the lock.
    len: AtomicUsize,
}

type Thing = (Vec<Fence>, Box<dyn Any + Send>);

impl Trash {
    /// Drops `thing` after the fences: now, or at a later [`Trash::reap`].
    pub(super) fn put(&self, fences: Vec<Fence>, thing: impl Any + Send) {
        if fences.iter().any(|fence| !fence.is_signalled()) {
            let mut things = self.things.lock();
            things.push_back((fences, Box::new(thing)));
            self.len.store(things.len(), Ordering::Relaxed);
        }
    }

    /// Drops what nothing uses any more. Answers whether there was something.
    pub(super) fn reap(&self) -> bool {
        self.reap_of(usize::MAX)
    }

    /// The same of a few, those that were looked at the longest ago: of more than a call with so many
    /// objects puts in, so that a caller pays for his own, and not for all that others wait for.
    pub(super) fn reap_some(&self, objects: usize) {
        self.reap_of(SOME + 2 * objects);
    }

    fn reap_of(&self, most: usize) -> bool {
        // Relaxed: whoever sees it later looks again.
        if self.len.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut done: Vec<Thing> = Vec::new();
        {
            let mut things = self.things.lock();
            for _ in 0..things.len().min(most) {
                let Some(thing) = things.pop_front() else {
                    break;
                };
                match thing.0.iter().all(Fence::is_signalled) {
                    true => done.push(thing),
                    false => things.push_back(thing),
                }
            }
            self.len.store(things.len(), Ordering::Relaxed);
        }
        // Outside the lock: things have drops of their own.
        !done.is_empty()
    }

    /// Drops everything: the device is idle, or gone.
    pub(super) fn empty(&self) {
        let mut things = self.things.lock();
        let all = core::mem::take(&mut *things);
        self.len.store(0, Ordering::Relaxed);
        drop(things);
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use ttm::fence::Timeline;
    use ttm::sync::Arc;

    use super::*;
    use crate::host::wall_clock;

    #[test]
    fn a_call_looks_at_few_things_and_the_next_at_others() {
        let timeline = Timeline::new(1, wall_clock());
        let (first, second) = (timeline.issue(), timeline.issue());
        let trash = Trash::default();
        let pending = Arc::new(());
        for _ in 0..2 * SOME - 1 {
            trash.put(vec![second.clone()], Arc::clone(&pending));
        }
        let idle = Arc::new(());
        trash.put(vec![first.clone()], Arc::clone(&idle));
        timeline.signal(first.seqno());
        trash.reap_some(0);
        assert_eq!(Arc::strong_count(&idle), 2, "it is behind the first few");
        trash.reap_some(0);
        assert_eq!(Arc::strong_count(&idle), 1, "its turn came");
        assert_eq!(Arc::strong_count(&pending), 2 * SOME);
        timeline.signal(second.seqno());
        assert!(trash.reap() && !trash.reap());
        assert_eq!(Arc::strong_count(&pending), 1);
    }
}
