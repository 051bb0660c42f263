//! Overwriting frames with zeroes that everybody sees.

use placement::PageCount;

use crate::cache::Maintenance;
use crate::error::{Error, Result};
use crate::pages::{Dirty, FrameRun, Zeroed};

use super::{Pool, add};

/// Runs from this length on are zeroed through a window: mapping one costs a little more than
/// writing without, and saves twice that when the run is zeroed again while the window is kept.
const MAPPED: PageCount = PageCount::new(16).expect("a small count");

impl Pool {
    /// Overwrites a run that its new owner has, counted as his already.
    pub(super) fn zero_now(&self, run: FrameRun<Dirty>) -> Result<FrameRun<Zeroed>> {
        add(&self.counters.zeroed_at_once, run.pages().get());
        self.zero(run)
            .map(FrameRun::handed_on)
            .map_err(|(run, error)| {
                self.give(run);
                error
            })
    }

    /// Overwrites a run with zeroes that everybody sees (I-30).
    pub(super) fn zero(
        &self,
        run: FrameRun<Dirty>,
    ) -> core::result::Result<FrameRun<Zeroed>, (FrameRun<Dirty>, Error)> {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::SkippedZeroing) {
            return Ok(run.zeroed());
        }
        let span = run.span();
        let mapped = run.is_huge() || span.pages >= MAPPED || self.kmaps.has_kept(span);
        let zeroed = match mapped {
            // The window's end cleans the caches.
            true => self.kmaps.map(span).map(|map| map.zero(0, map.len())),
            false => self.zero_unmapped(&run),
        };
        let zeroed = match zeroed {
            Err(Error::Unsupported(_)) => self.zero_unmapped(&run),
            other => other,
        };
        match zeroed {
            Ok(()) => Ok(run.zeroed()),
            Err(error) => Err((run, error)),
        }
    }

    pub(super) fn zero_unmapped(&self, run: &FrameRun<Dirty>) -> Result<()> {
        let (span, mode) = (run.span(), run.kind().mode);
        self.source.zero(span, mode)?;
        if let Some(what) = Maintenance::of_writes(mode, self.offers.snooped) {
            self.source.maintain(span, what);
            self.ledger.flushed(span.pages);
        }
        Ok(())
    }
}
