//! What is put by for a suspend.

use placement::PageCount;

use crate::pages::{Budget, FrameRun, Pool};

/// Frames that were taken ahead and paid for, for whoever may use them.
#[derive(Debug, Default)]
pub(crate) struct Stash {
    runs: Vec<FrameRun>,
    /// Pages that are charged to the budget and belong to nobody yet.
    charged: u64,
}

impl Stash {
    /// What pays for `pages`: with frames of that length, or without.
    pub(super) fn take(&mut self, pages: PageCount) -> Option<Option<FrameRun>> {
        self.charged = self.charged.checked_sub(pages.get())?;
        let at = self.runs.iter().position(|run| run.pages() == pages);
        Some(at.map(|at| self.runs.swap_remove(at)))
    }

    /// Adds frames that are paid for.
    pub(crate) fn put(&mut self, run: FrameRun) {
        self.charged += run.pages().get();
        self.runs.push(run);
    }

    /// Adds a charge without frames.
    pub(crate) fn pay(&mut self, pages: PageCount) {
        self.charged += pages.get();
    }

    /// Pages that are paid for.
    pub(crate) fn charged(&self) -> PageCount {
        PageCount::new(self.charged).expect("a sum of runs")
    }

    /// Pages that are paid for and have no frames yet.
    pub(crate) fn unbacked(&self) -> u64 {
        let backed: u64 = self.runs.iter().map(|run| run.pages().get()).sum();
        self.charged - backed
    }

    /// Gives everything back.
    pub(crate) fn empty(&mut self, pool: &Pool, budget: &Budget) {
        for run in self.runs.drain(..) {
            pool.give_unwritten(run);
        }
        budget.uncharge(self.charged(), None);
        self.charged = 0;
    }
}
