//! Frames that are only counted.

use placement::PageCount;
use ttm::error::{Error, Result};
use ttm::pages::{FrameRun, FrameSpan, Mapped, PageSource};
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
    fn take(&self, pages: PageCount) -> Result<FrameRun> {
        // Relaxed: only counts.
        self.taken.fetch_add(pages.get(), Ordering::Relaxed);
        Ok(FrameRun::new(FrameSpan {
            file: 0,
            first: self.next.fetch_add(pages.get(), Ordering::Relaxed),
            pages,
        }))
    }

    fn give(&self, run: FrameRun) {
        self.taken.fetch_sub(run.pages().get(), Ordering::Relaxed);
    }

    fn map(&self, _: FrameSpan) -> Result<Mapped> {
        Err(Error::Unsupported(
            "these frames have no content; make the device with GpuConfig::contents",
        ))
    }

    fn taken(&self) -> PageCount {
        PageCount::new(self.taken.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }
}
