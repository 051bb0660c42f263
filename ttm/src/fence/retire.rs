//! Things that may be reused only after their fences.

use std::collections::VecDeque;

use super::set::FenceVec;
use super::timeline::Fence;

/// A queue of things with the fences that still protect them, oldest first.
///
/// # Invariants
/// What comes out of [`RetireQueue::reap`] has no pending fence (I-35).
#[derive(Debug)]
pub struct RetireQueue<T> {
    items: VecDeque<(FenceVec, T)>,
}

impl<T> Default for RetireQueue<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
        }
    }
}

impl<T> RetireQueue<T> {
    /// Keeps `item` behind `fences`.
    pub fn push(&mut self, fences: impl IntoIterator<Item = Fence>, item: T) {
        self.items.push_back((fences.into_iter().collect(), item));
    }

    /// Takes out, oldest first, every item whose fences have all signalled and that `ready`
    /// agrees to, into `taken`.
    pub fn reap(&mut self, mut ready: impl FnMut(&T, &[Fence]) -> bool, mut taken: impl FnMut(T)) {
        if self.items.is_empty() {
            return;
        }
        let mut kept = 0;
        for n in 0..self.items.len() {
            let (fences, item) = &self.items[n];
            #[cfg(feature = "plant")]
            let early = crate::plant::is(crate::plant::Defect::EarlyReuse);
            #[cfg(not(feature = "plant"))]
            let early = false;
            if (early || fences.iter().all(Fence::is_signalled)) && ready(item, fences) {
                continue;
            }
            self.items.swap(kept, n);
            kept += 1;
        }
        // The kept ones were swapped to the front in their order; the rest is ready.
        for (_, item) in self.items.drain(kept..) {
            taken(item);
        }
    }

    /// Takes out the oldest item that `wanted` agrees to, with the fences that it still has.
    pub(crate) fn take_oldest(
        &mut self,
        mut wanted: impl FnMut(&T, &[Fence]) -> bool,
    ) -> Option<(FenceVec, T)> {
        let n = self.items.iter().position(|(f, item)| wanted(item, f))?;
        self.items.remove(n)
    }

    /// The oldest pending fence.
    #[must_use]
    pub fn oldest_fence(&self) -> Option<&Fence> {
        self.items
            .iter()
            .flat_map(|(fences, _)| fences)
            .find(|fence| !fence.is_signalled())
    }

    /// All items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&[Fence], &T)> {
        self.items.iter().map(|(fences, item)| (&fences[..], item))
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Blocking, Time};
    use crate::fence::Timeline;
    use crate::sync::Arc;

    #[test]
    fn nothing_leaves_before_its_fences() {
        let timeline = Timeline::new(1, Arc::new(Blocking::new(|| Time::ZERO)));
        let mut queue = RetireQueue::default();
        for n in 0..4 {
            queue.push([timeline.issue()], n);
        }
        queue.push([], 9);
        let mut out = Vec::new();
        queue.reap(|_, _| true, |n| out.push(n));
        assert_eq!(out, [9]);
        timeline.signal(2);
        queue.reap(|_, _| true, |n| out.push(n));
        out[1..].sort_unstable();
        assert_eq!(out, [9, 0, 1]);
        assert_eq!(queue.oldest_fence().map(Fence::seqno), Some(3));
        timeline.signal(4);
        queue.reap(|n, _| *n != 3, |n| out.push(n));
        assert_eq!((out.last(), queue.len()), (Some(&2), 1));
    }
}
