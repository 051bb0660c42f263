//! I/O addresses: where a device finds what is mapped for it through translation.
//!
//! ```text
//!   alloc ──▶ lane's magazine ──▶ depot ──▶ bare space, from the limit down
//!   free  ──▶ (lazy: queue) ──▶ invalidation ──▶ lane's magazine ──▶ depot ──▶ bare space
//! ```
//!
//! An address is handed out under the limit of the device that asks, because nobody else looks
//! after that: a device drops the address lines that it does not have and hits somebody else's
//! bytes. What is freed can be handed out again once the device's cached translations of it are
//! gone: at once ([`Invalidation::Strict`]), or with a batch of others ([`Invalidation::Lazy`]).
//!
//! All locks here are leaves: of a lane, of a lane's queue, of the bare space. None is held while
//! the invalidation runs.

mod cache;
mod queue;
mod range;
mod request;
mod state;
#[cfg(test)]
mod tests;

use core::fmt;

use placement::{Extent, PAGE_SIZE, PageCount, PageRange, Range, Request, Space};

use super::words::last_byte;
use super::{DmaAddr, DmaError, Mask};
use crate::clock::Time;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

use self::cache::Cache;
use self::queue::Queues;
use self::request::Want;

pub use range::{IovaRange, IovaSpan};
pub use request::{Align, Invalidation, IovaConfig, IovaRequest};
pub use state::{IovaLink, IovaState};

/// Lets a device forget translations of these addresses. May wait; no lock of the space is held.
type Invalidate = dyn Fn(&[IovaSpan]) + Send + Sync;

/// How full a space is, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IovaStats {
    /// With callers. What is being invalidated at this moment counts here too.
    pub live: u64,
    /// Free, and kept at hand for threads.
    pub cached: u64,
    /// Freed, and not yet invalidated.
    pub queued: u64,
    /// The most that all three ever were together.
    pub high_water: u64,
}

/// The I/O addresses of one translation domain.
///
/// # Invariants
/// No address is in two ranges that are live. What is live lies within the limit and on one side
/// of every boundary that it was asked with, outside what is reserved, and never in granule 0.
///
/// ```
/// use ttm::clock::Time;
/// use ttm::dma::{DmaError, IovaConfig, IovaRequest, IovaSpace, Mask};
///
/// # fn main() -> Result<(), DmaError> {
/// let config = IovaConfig {
///     aperture: Mask::bits(39),
///     reserved: vec![0xfee0_0000..=0xfeef_ffff],
///     ..IovaConfig::default()
/// };
/// let space = IovaSpace::new(config, |_gone| { /* tell the device */ })?;
///
/// // From the limit down, aligned to its own size.
/// let range = space.alloc(&IovaRequest::new(10_000).limit(Mask::bits(28)))?;
/// assert_eq!((range.first().get(), range.len()), (0x0fff_c000, 0x4000));
///
/// let same = space.alloc_at(range.first(), 4096, Mask::ALL);
/// let (first, len) = (0x0fff_c000, 4096);
/// assert_eq!(same.unwrap_err(), DmaError::IovaInUse { first, len });
/// space.free(range, Time::ZERO);
/// # Ok(())
/// # }
/// ```
pub struct IovaSpace {
    /// Logarithm of the granule.
    shift: u32,
    aperture: Mask,
    /// Granules that are never handed out: sorted, apart from each other.
    reserved: Vec<PageRange>,
    bare: Mutex<Bare>,
    cache: Cache,
    /// Of a lazy space.
    queues: Option<Queues>,
    invalidate: Box<Invalidate>,
    low_first: AtomicBool,
}

/// What is taken, the reserved included; the unit is the granule.
struct Bare {
    range: Range,
    /// The fewest that were ever free.
    least_free: u64,
}

impl Bare {
    fn take(&mut self, request: &Request) -> Option<Extent> {
        Some(self.range.take(request).ok()?[0])
    }

    /// Notes that what was taken stays so.
    fn took(&mut self, extent: Extent) -> Extent {
        self.least_free = self.least_free.min(self.range.free().get());
        extent
    }

    fn take_at(&mut self, request: &Request) -> Option<Extent> {
        self.take(request).map(|extent| self.took(extent))
    }
}

impl IovaSpace {
    /// A space of which nothing is taken. `invalidate` is called before what was freed is handed
    /// out again: by [`IovaSpace::free`], by a flush, or by an allocation that found no room. It
    /// may be called by several threads at once. What it was called with is lost if it panics.
    ///
    /// # Errors
    /// [`DmaError::BadGranule`].
    pub fn new(
        config: IovaConfig,
        invalidate: impl Fn(&[IovaSpan]) + Send + Sync + 'static,
    ) -> Result<Self, DmaError> {
        let granule = config.granule;
        if !granule.is_power_of_two() || granule > PAGE_SIZE {
            let most = PAGE_SIZE;
            return Err(DmaError::BadGranule { granule, most });
        }
        let shift = granule.trailing_zeros();
        // The last address of all is never one, so that a granule less does not matter.
        let size = whole_granules(config.aperture, shift).min(PageCount::MAX.get());
        let mut range = Range::new(granules(size));
        let reserved = config.reserved_granules(size);
        for hole in &reserved {
            let taken = range.take(&Request::new(hole.len()).within(*hole));
            assert!(taken.is_ok(), "granules {hole} are reserved twice");
        }
        Ok(Self {
            shift,
            aperture: config.aperture,
            reserved,
            bare: Mutex::new(Bare {
                least_free: range.free().get(),
                range,
            }),
            cache: Cache::new(),
            queues: Queues::of(config.invalidation),
            invalidate: Box::new(invalidate),
            low_first: AtomicBool::new(config.limit32_first),
        })
    }

    /// Bytes in a granule.
    #[must_use]
    pub fn granule(&self) -> u64 {
        1 << self.shift
    }

    /// The most bytes that are kept at hand for threads, as a range of the power of two.
    #[must_use]
    pub fn largest_cached(&self) -> u64 {
        cache::LARGEST << self.shift
    }

    /// Whether addresses below 4 GiB are still handed out first. Once they did not suffice, they
    /// no longer are.
    #[must_use]
    pub fn is_low_first(&self) -> bool {
        // Relaxed: a preference guards nothing.
        self.low_first.load(Ordering::Relaxed)
    }

    /// Takes addresses that nobody has: at hand for this thread, or the highest that are free.
    ///
    /// Where there are none, what is queued is invalidated, what is kept for threads is given up,
    /// and it is tried once more.
    ///
    /// # Errors
    /// - [`DmaError::ZeroLength`];
    /// - [`DmaError::BadAlignment`]: the alignment is no power of two, or the boundary none
    ///   less one;
    /// - [`DmaError::LongerThanBoundary`]: more than any segment may have;
    /// - [`DmaError::AboveMask`]: the limit, or the aperture, does not hold it even if it is empty;
    /// - [`DmaError::IovaExhausted`]: nothing is free now; this one may be retried.
    pub fn alloc(&self, request: &IovaRequest) -> Result<IovaRange, DmaError> {
        let limit = request.limit.min(self.aperture);
        let want = Want::new(request, limit, self.shift)?;
        let low = whole_granules(Mask::bits(32), self.shift);
        if want.end > low && self.is_low_first() {
            match self.take(&want.below(low)) {
                Some(extent) => return Ok(self.range_of(extent)),
                None => self.low_first.store(false, Ordering::Relaxed),
            }
        }
        let found = self.take(&want).or_else(|| {
            self.give_up_spare();
            self.take(&want)
        });
        match found {
            Some(extent) => Ok(self.range_of(extent)),
            None => Err(DmaError::IovaExhausted {
                len: request.len,
                limit,
            }),
        }
    }

    /// Takes `len` bytes, rounded up to granules, at an address that the caller chose.
    ///
    /// # Errors
    /// - [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`];
    /// - [`DmaError::MisalignedAddress`]: not the first byte of a granule;
    /// - [`DmaError::AboveMask`]: beyond the limit, or the aperture;
    /// - [`DmaError::IovaReserved`], [`DmaError::IovaInUse`].
    pub fn alloc_at(&self, first: DmaAddr, len: u64, limit: Mask) -> Result<IovaRange, DmaError> {
        let limit = limit.min(self.aperture);
        let wanted = self.granules_at(first.get(), len, limit)?;
        let (first, reserved) = (first.get(), &self.reserved);
        if reserved.iter().any(|hole| hole.intersects(&wanted)) {
            return Err(DmaError::IovaReserved { first, len });
        }
        let request = Request::new(wanted.len()).within(wanted);
        let found = self.bare.lock().take_at(&request);
        let found = found.or_else(|| {
            self.give_up_spare();
            self.bare.lock().take_at(&request)
        });
        match found {
            Some(extent) => Ok(self.range_of(extent)),
            None => Err(DmaError::IovaInUse { first, len }),
        }
    }

    /// The granules of `len` bytes from `first` on.
    fn granules_at(&self, first: u64, len: u64, limit: Mask) -> Result<PageRange, DmaError> {
        let last = last_byte(first, len)?;
        let align = self.granule();
        if !first.is_multiple_of(align) {
            let address = first;
            return Err(DmaError::MisalignedAddress { address, align });
        }
        let end = (last >> self.shift) + 1;
        let holds = end <= whole_granules(limit, self.shift);
        match PageRange::new(first >> self.shift, end) {
            Some(range) if holds => Ok(range),
            _ => Err(DmaError::AboveMask {
                end: last | (align - 1),
                mask: limit,
            }),
        }
    }

    /// Takes addresses back. The device's tables must no longer show anything there; that it forgets
    /// what it read of them is seen to before they are handed out again. `now` is used by lazy
    /// spaces only.
    ///
    /// # Panics
    /// If the range is another space's.
    pub fn free(&self, range: IovaRange, now: Time) {
        assert_eq!(range.home, self.home(), "a range of another space");
        let extent = range.extent;
        match &self.queues {
            None => {
                (self.invalidate)(&[self.span_of(extent)]);
                self.recycle([extent]);
            }
            Some(queues) => {
                if let Some(due) = queues.push(extent, now) {
                    self.invalidate_all(&due);
                    self.recycle(due);
                }
            }
        }
    }

    /// Invalidates all that is queued; from then on it can be handed out again. Does nothing in a
    /// strict space.
    pub fn flush(&self) {
        self.retire(Queues::drain);
    }

    /// The same for the threads whose oldest freed range has waited for the timeout. Something has
    /// to call it now and then if nothing is freed.
    pub fn flush_due(&self, now: Time) {
        self.retire(|queues| queues.drain_due(now));
    }

    fn retire(&self, drain: impl FnOnce(&Queues) -> Vec<Extent>) {
        if let Some(queues) = &self.queues {
            let due = drain(queues);
            self.invalidate_all(&due);
            self.recycle(due);
        }
    }

    /// How full it is; approximate while others allocate and free.
    #[must_use]
    pub fn stats(&self) -> IovaStats {
        let (taken, most) = {
            let bare = self.bare.lock();
            let size = bare.range.size().get();
            (size - bare.range.free().get(), size - bare.least_free)
        };
        let cached = self.cache.granules();
        let queued = self.queues.as_ref().map_or(0, Queues::granules);
        let reserved: u64 = self.reserved.iter().map(|hole| hole.len().get()).sum();
        let live = taken.saturating_sub(reserved + cached + queued);
        IovaStats {
            live: live << self.shift,
            cached: cached << self.shift,
            queued: queued << self.shift,
            high_water: (most - reserved) << self.shift,
        }
    }

    /// Finds what is wanted, in the thread's cache or in the bare space.
    fn take(&self, want: &Want) -> Option<Extent> {
        let kept = cache::order(want.granules).and_then(|order| self.cache.take(order, want));
        kept.or_else(|| self.take_bare(want))
    }

    fn take_bare(&self, want: &Want) -> Option<Extent> {
        let mut bare = self.bare.lock();
        let mut end = want.end;
        loop {
            let request = Request::new(granules(want.granules))
                .aligned(granules(want.align))
                .within(PageRange::new(0, end)?)
                .top_down();
            let extent = bare.take(&request)?;
            // Whatever else ends above the boundary crosses it too: it would begin lower.
            match want.crosses_at(extent.start()) {
                None => return Some(bare.took(extent)),
                Some(boundary) => end = boundary,
            }
            bare.range.give(extent);
        }
    }

    /// Keeps what can be handed out again for this thread, or else gives it to the bare space.
    fn recycle(&self, extents: impl IntoIterator<Item = Extent>) {
        for extent in extents {
            let surplus = match cache::order(extent.pages().get()) {
                Some(order) => self.cache.give(order, extent),
                None => vec![extent],
            };
            self.give_bare(surplus);
        }
    }

    fn give_bare(&self, extents: Vec<Extent>) {
        if extents.is_empty() {
            return;
        }
        let mut bare = self.bare.lock();
        for extent in extents {
            bare.range.give(extent);
        }
    }

    /// Gives all that nobody has to the bare space: first what is queued, then what is cached.
    #[cold]
    fn give_up_spare(&self) {
        if let Some(queues) = &self.queues {
            let due = queues.drain();
            self.invalidate_all(&due);
            self.give_bare(due);
        }
        self.give_bare(self.cache.drain());
    }

    fn invalidate_all(&self, extents: &[Extent]) {
        if !extents.is_empty() {
            let spans: Vec<_> = extents.iter().map(|e| self.span_of(*e)).collect();
            (self.invalidate)(&spans);
        }
    }

    fn span_of(&self, extent: Extent) -> IovaSpan {
        IovaSpan::of(extent, self.shift)
    }

    fn range_of(&self, extent: Extent) -> IovaRange {
        IovaRange {
            extent,
            shift: self.shift,
            home: self.home(),
        }
    }

    /// What tells this space from others that live.
    fn home(&self) -> usize {
        self.cache.address()
    }
}

impl fmt::Debug for IovaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IovaSpace")
            .field("granule", &self.granule())
            .field("aperture", &self.aperture)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The granules whose last byte is within the mask.
const fn whole_granules(mask: Mask, shift: u32) -> u64 {
    let last = mask.last();
    let rest = last & ((1 << shift) - 1);
    match rest == (1 << shift) - 1 {
        // Saturates for all addresses in granules of a byte only, which are too many anyway.
        true => (last >> shift).saturating_add(1),
        false => last >> shift,
    }
}

/// A count that is at most the space's.
fn granules(count: u64) -> PageCount {
    PageCount::new(count).expect("no more granules than the space has")
}
