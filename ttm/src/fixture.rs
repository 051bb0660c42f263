//! A small device made of counters, for the examples in the documentation and for the schedule
//! tests: one MiB of memory without content, moves that copy nothing.

use placement::{MemType, PageCount, PageRange, Place, Placement, Range};

use crate::clock::{Blocking, Clock, Time};
use crate::device::Device;
use crate::driver::{BoFacts, Driver, Eviction, MoveFacts, Route};
use crate::error::{Error, Result};
use crate::fence::Timeline;
use crate::pages::{FrameRun, FrameSpan, Mapped, PageSource};
use crate::resource::Region;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A driver that evicts to system memory and copies nothing.
#[derive(Debug)]
pub struct Counting;

impl Driver for Counting {
    type Object = ();

    fn evict_to(&self, _: &BoFacts, (): &()) -> Eviction {
        Eviction::To(system())
    }

    fn route(&self, _: &BoFacts, (): &(), _: &MoveFacts) -> Route {
        Route::Null
    }
}

/// Frames and device memory that are only counted.
#[derive(Debug)]
pub struct Nothing {
    size: PageCount,
    next: AtomicU64,
    taken: AtomicU64,
}

impl Nothing {
    /// A region of `size`, or an endless page source.
    #[must_use]
    pub fn new(size: PageCount) -> Arc<Self> {
        Arc::new(Self {
            size,
            next: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        })
    }
}

impl PageSource for Nothing {
    fn take(&self, pages: PageCount) -> Result<FrameRun> {
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
            "frames that are only counted have no content",
        ))
    }

    fn taken(&self) -> PageCount {
        PageCount::new(self.taken.load(Ordering::Relaxed)).expect("a sum of runs")
    }
}

impl Region for Nothing {
    fn size(&self) -> PageCount {
        self.size
    }

    fn aperture(&self) -> PageRange {
        PageRange::EMPTY
    }

    fn map(&self, _: PageRange) -> Result<Mapped> {
        Err(Error::Unsupported(
            "memory that is only counted has no content",
        ))
    }
}

/// One MiB of VRAM.
#[must_use]
pub fn vram() -> Placement {
    Placement::of(Place::new(MemType::VRAM))
}

/// System memory.
#[must_use]
pub fn system() -> Placement {
    Placement::of(Place::new(MemType::SYSTEM))
}

/// A clock that stands still.
#[must_use]
pub fn still() -> Arc<dyn Clock> {
    Arc::new(Blocking::new(|| Time::ZERO))
}

/// A device with `pages` pages of VRAM.
///
/// # Panics
/// If `pages` is beyond all memory.
#[must_use]
pub fn device_of(pages: u64) -> Device<Counting> {
    let pages = PageCount::new(pages).expect("a size");
    let size = PageCount::new(1 << 20).expect("a size");
    Device::builder(Counting, still())
        .pages(Nothing::new(size))
        .memory(
            MemType::VRAM,
            Box::new(Range::new(pages)),
            Nothing::new(pages),
        )
        .build()
        .expect("all parts are there")
}

/// A device with one MiB of VRAM, and the timeline of a queue.
#[must_use]
pub fn device() -> (Device<Counting>, Timeline) {
    (device_of(256), Timeline::new(1, still()))
}
