//! Frames that are only counted.

use placement::{CacheMode, PageCount};
use ttm::cache::Maintenance;
use ttm::error::{Error, Result};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want, Zone};
use ttm::sync::atomic::{AtomicU64, Ordering};

/// A page source without memory, for simulations larger than the machine. It never runs out; the
/// manager's limit says how much there is.
#[derive(Debug, Default)]
pub struct CountingPages {
    taken: AtomicU64,
    /// The first index that was never given out. Indices are not used again, so that no two runs
    /// ever look alike; 2^64 of them are enough.
    next: AtomicU64,
}

impl CountingPages {
    /// A source of which nothing is taken.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl PageSource for CountingPages {
    fn offers(&self) -> Offers {
        Offers::ordinary(PageCount::MAX)
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let pages = want.pages;
        // Relaxed: only counts.
        self.taken.fetch_add(pages.get(), Ordering::Relaxed);
        let first = self.next.fetch_add(pages.get(), Ordering::Relaxed);
        let span = FrameSpan {
            file: 0,
            first,
            pages,
        };
        Ok(FrameRun::fresh(span, Zone::Normal, 0, first))
    }

    fn give(&self, run: FrameRun<Dirty>) {
        self.taken.fetch_sub(run.pages().get(), Ordering::Relaxed);
    }

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn map(&self, _: FrameSpan, _: CacheMode) -> Result<Mapped> {
        Err(Error::Unsupported(
            "these frames have no content; make the device with GpuConfig::contents",
        ))
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<FileRange> {
        Err(Error::Unsupported(
            "these frames have no content; make the device with GpuConfig::contents",
        ))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {}

    fn taken(&self) -> PageCount {
        PageCount::new(self.taken.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }
}
