//! Taking down what nobody uses any more, and giving back what waited for a fence.

use crate::fence::Fence;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

use super::DeviceCore;

/// Objects that one call releases at most on behalf of another.
const BATCH: usize = 32;

impl DeviceCore {
    /// Gives back everything that can be given back without waiting. Answers whether anything was.
    pub(crate) fn reap(&self) -> bool {
        let mut any = self.release_some(usize::MAX);
        if self.untold.load(Ordering::Relaxed) {
            self.tell_of_loss();
        }
        any |= self.settle_some();
        any |= self.reap_pages();
        for manager in self.managers.iter().flatten() {
            any |= manager.reap();
        }
        any
    }

    /// Takes a few objects down whose last handle is gone. Cheap if there is none.
    #[inline]
    pub(crate) fn release_batch(&self) {
        if !self.released.is_empty() {
            self.release_some(BATCH);
        }
    }

    fn release_some(&self, most: usize) -> bool {
        let mut any = false;
        // Those that are locked go to the end; look at each once.
        let mut left = self.released.len().min(most);
        while left > 0
            && let Some(bo) = self.released.pop()
        {
            left -= 1;
            if bo.take_down() {
                any = true;
                continue;
            }
            self.released.push(Arc::clone(&bo));
            // Whoever unlocks it looks here, but may have done so while it was not here.
            if !bo.reservation().is_locked() {
                left += 1;
            }
        }
        any
    }

    /// Has every object that was in lost memory notice it, which keeps the CPU out of there. Those
    /// that are locked are told the next time.
    fn tell_of_loss(&self) {
        self.untold.store(false, Ordering::Relaxed);
        let managers = self.managers.iter().flatten();
        for manager in managers.filter(|m| !m.uses_frames()) {
            for (_, victim) in manager.residents() {
                if victim.upgrade().is_some_and(|victim| !victim.try_settle()) {
                    self.untold.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn settle_some(&self) -> bool {
        let mut any = false;
        for _ in 0..self.moving.len() {
            let Some(weak) = self.moving.pop() else {
                break;
            };
            let Some(bo) = weak.upgrade() else {
                continue;
            };
            if bo.try_settle() {
                any = true;
            } else {
                self.moving.push(weak);
            }
        }
        any
    }

    fn reap_pages(&self) -> bool {
        let mut ready = Vec::new();
        self.retired_pages
            .lock()
            .reap(|_, _| true, |tt| ready.push(tt));
        let any = !ready.is_empty();
        for mut tt in ready {
            tt.unpopulate(&self.supply(&|_| false));
        }
        any
    }

    /// A fence after which `reap` will find something.
    pub(crate) fn next_fence(&self) -> Option<Fence> {
        if let Some(fence) = self.retired_pages.lock().oldest_fence() {
            return Some(fence.clone());
        }
        let managers = self.managers.iter().flatten();
        managers.filter_map(|m| m.oldest_fence()).next()
    }
}
