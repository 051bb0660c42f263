//! A small device made of counters, for the examples in the documentation and for the schedule
//! tests: one MiB of memory without content, moves that copy nothing.

mod growing;

pub use growing::{Growing, growing_device};

use placement::{CacheMode, MemType, PAGE_SIZE, PageCount, PageRange, Place, Placement, Range};

use crate::cache::{Maintenance, Modes};
use crate::clock::{Blocking, Clock, Time};
use crate::device::{Device, DeviceBuilder};
use crate::dma::DmaAddr;
use crate::driver::{BoFacts, Driver, Eviction, MoveFacts, Route};
use crate::error::{Error, Result};
use crate::fence::Timeline;
use crate::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want, Zone};
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

/// Where device memory that is only counted begins on the bus.
pub const BUS: u64 = 0x10_0000_0000;

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

impl Nothing {
    /// Frames of a user's own, which are not counted.
    pub fn borrow(&self, pages: PageCount) -> FrameRun<Dirty> {
        let first = self.next.fetch_add(pages.get(), Ordering::Relaxed);
        let file = OTHERS;
        let span = FrameSpan { file, first, pages };
        FrameRun::fresh(span, Zone::Normal, 0, first).dirtied()
    }
}

/// The file that users' frames are in.
const OTHERS: u32 = 1;

impl PageSource for Nothing {
    fn offers(&self) -> Offers {
        Offers::ordinary(self.size)
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let pages = want.pages;
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
        if run.span().file != OTHERS {
            self.taken.fetch_sub(run.pages().get(), Ordering::Relaxed);
        }
    }

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn map(&self, _: FrameSpan, _: CacheMode) -> Result<Mapped> {
        Err(Error::Unsupported(
            "frames that are only counted have no content",
        ))
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<FileRange> {
        Err(Error::Unsupported(
            "frames that are only counted are in no file",
        ))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {}

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

    fn modes(&self) -> Modes {
        Modes::all()
    }

    fn own_mode(&self) -> CacheMode {
        CacheMode::WriteCombined
    }

    fn map(&self, _: PageRange, _: CacheMode) -> Result<Mapped> {
        Err(Error::Unsupported(
            "memory that is only counted has no content",
        ))
    }

    fn file(&self, _: PageRange, _: CacheMode) -> Result<FileRange> {
        Err(Error::Unsupported(
            "memory that is only counted is in no file",
        ))
    }

    fn bus(&self, pages: PageRange) -> Option<DmaAddr> {
        DmaAddr::new(BUS + pages.start() * PAGE_SIZE)
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

/// The parts of a device with `pages` pages of VRAM.
///
/// # Panics
/// If `pages` is beyond all memory.
#[must_use]
pub fn builder_of(pages: u64) -> DeviceBuilder<Counting> {
    builder_on(
        Nothing::new(PageCount::new(1 << 20).expect("a size")),
        pages,
    )
}

/// Those of one whose system pages come from there.
///
/// # Panics
/// If `pages` is beyond all memory.
#[must_use]
pub fn builder_on(source: Arc<Nothing>, pages: u64) -> DeviceBuilder<Counting> {
    let pages = PageCount::new(pages).expect("a size");
    Device::builder(Counting, still()).pages(source).memory(
        MemType::VRAM,
        Box::new(Range::new(pages)),
        Nothing::new(pages),
    )
}

/// Those of one with one MiB.
#[must_use]
pub fn builder() -> DeviceBuilder<Counting> {
    builder_of(256)
}

/// A device with `pages` pages of VRAM.
///
/// # Panics
/// If `pages` is beyond all memory.
#[must_use]
pub fn device_of(pages: u64) -> Device<Counting> {
    builder_of(pages).build().expect("all parts are there")
}

/// A device with one MiB of VRAM, and the timeline of a queue.
#[must_use]
pub fn device() -> (Device<Counting>, Timeline) {
    (device_of(256), Timeline::new(1, still()))
}
