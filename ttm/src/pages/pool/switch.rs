//! Changing the cache mode of frames.

use placement::CacheMode;
use smallvec::SmallVec;

use crate::cache::Maintenance;
use crate::error::{Error, Result};
use crate::pages::{Dirty, FrameRun, FrameSpan};

use super::Pool;

impl Pool {
    /// Changes the mode of runs that their caller owns, all in one go: every window goes, caches
    /// are maintained and the maintenance counted, then the source is asked once for each mode that
    /// they had.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the source does not offer the mode, [`Error::Busy`] while somebody
    /// looks at one of them, [`Error::Backend`]. Runs that had been switched before the failure
    /// stay so; each has one mode.
    pub fn switch(&self, runs: &mut [&mut FrameRun<Dirty>], to: CacheMode) -> Result<()> {
        self.admit_mode(to)?;
        for from in CacheMode::ALL {
            if from == to {
                continue;
            }
            let of_mode = runs.iter().filter(|run| run.kind().mode == from);
            let spans: SmallVec<[FrameSpan; 8]> = of_mode.map(|run| run.span()).collect();
            if spans.is_empty() {
                continue;
            }
            self.switch_spans(&spans, from, to)?;
            let of_mode = runs.iter_mut().filter(|run| run.kind().mode == from);
            of_mode.for_each(|run| run.set_mode(to));
        }
        Ok(())
    }

    fn switch_spans(&self, spans: &[FrameSpan], from: CacheMode, to: CacheMode) -> Result<()> {
        for span in spans {
            self.ledger.may_switch(span.area())?;
        }
        let maintenance = Maintenance::of_switch(from, to);
        for span in spans {
            self.kmaps.forget(*span);
            if let Some(what) = maintenance {
                self.source.maintain(*span, what);
                self.ledger.flushed(span.pages);
            }
        }
        // The ledger first: from here on nobody opens a view in the old mode.
        let entry = |mode| (mode != CacheMode::Cached && !planted_untold()).then_some(mode);
        let mut done = 0;
        let set = spans.iter().try_for_each(|span| {
            self.ledger.set(span.area(), entry(to))?;
            done += 1;
            Ok(())
        });
        let result = set.and_then(|()| self.source.switch(spans, from, to));
        if result.is_err() {
            for span in &spans[..done] {
                self.ledger
                    .set(span.area(), entry(from))
                    .expect("nobody looks at frames that their owner switches");
            }
        }
        result
    }

    /// Whether the source's frames can have `mode`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], which names who could.
    pub fn admit_mode(&self, mode: CacheMode) -> Result<()> {
        if self.offers.modes.has(mode) {
            return Ok(());
        }
        Err(Error::Unsupported(
            "ordinary memory of a process is cached, and only a kernel driver can change that (a \
             DRM driver's mmap, or dma-heap memory); ask for a cached place, or try it on the \
             simulator's cache model",
        ))
    }
}

/// With the defect planted, the ledger is not told.
fn planted_untold() -> bool {
    #[cfg(feature = "plant")]
    if crate::plant::is(crate::plant::Defect::UntoldMode) {
        return true;
    }
    false
}
