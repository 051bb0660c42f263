//! Frames that are kept for the next owner.
//!
//! ```text
//!   take                                                                 give
//!    ▲ one cached frame: this thread's magazine ◀─ depot of magazines ◀──┐ │
//!    ├─ anything else:    the shelf of its kind, order and cleanliness ◀─┤─┘
//!    └─ nothing there:    fresh from the source                          │
//!                                        over the limit, or shrunk: back to the source
//! ```
//!
//! - What is taken is zero to everybody; a dirty run is overwritten on the way, or before by the
//!   refill service. Who overwrites every byte himself takes a run as it is.
//! - A run of another mode than cached is switched once and then kept in its mode; it is switched
//!   back when it leaves the pool.
//! - Orders are not mixed: a wish for one frame breaks up no larger run. A run that is a little
//!   longer than wished for is cut, and its tail stays pooled.
//! - When the source has nothing left, all that is pooled goes back to it before a wish is refused;
//!   nothing else is asked to give way. That is residency's business.
//!
//! No lock of the pool is held while the source is called.

mod config;
mod magazine;
mod refill;
mod shelf;
mod shrink;
mod switch;
mod table;
mod zero;

pub use config::{PoolConfig, PoolLimit};
pub use table::{PoolCounts, PoolRow, PoolTable};

use core::fmt;

use placement::PageCount;

use crate::cache::{CacheMode, Ledger, LedgerCounts};
use crate::clock::{Background, Clock, Service, WaitCell};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

use super::kmap::Kmaps;
use super::{
    Dirty, FileRange, FrameKind, FrameRun, FrameSpan, Kmap, KmapUsage, Offers, PageSource, Want,
    Zeroed,
};

use config::Limits;
use magazine::{BATCH, Magazines};
use shelf::{Found, Shelves};

/// A pool of frames over one page source. Devices may share one.
pub struct Pool {
    source: Arc<dyn PageSource>,
    offers: Offers,
    ledger: Arc<Ledger>,
    kmaps: Arc<Kmaps>,
    magazines: Magazines,
    shelves: Mutex<Shelves>,
    limits: Limits,
    counters: Counters,
    /// Memory is short: nothing is refilled.
    pressed: AtomicBool,
    /// The refill service has been told already.
    rung: AtomicBool,
    bell: Arc<WaitCell>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Counters {
    fresh: AtomicU64,
    released: AtomicU64,
    zeroed_at_once: AtomicU64,
    zeroed_behind: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    // Relaxed: read by people and tests, orders nothing.
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Pool {
    /// An empty pool over `source`.
    #[must_use]
    pub fn new(
        source: Arc<dyn PageSource>,
        clock: Arc<dyn Clock>,
        config: PoolConfig,
    ) -> Arc<Self> {
        let offers = source.offers();
        let ledger = Arc::new(Ledger::new());
        Arc::new(Self {
            kmaps: Kmaps::new(Arc::clone(&source), Arc::clone(&ledger)),
            ledger,
            offers,
            magazines: Magazines::new(),
            shelves: Mutex::new(Shelves::new(offers.nodes)),
            limits: Limits::new(&config, offers.nodes),
            counters: Counters::default(),
            pressed: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            bell: WaitCell::new(),
            clock,
            source,
        })
    }

    /// What its source can give.
    #[must_use]
    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// Its source.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn PageSource> {
        &self.source
    }

    /// Takes frames that are zero to everybody.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if neither pool nor source has any;
    /// [`Error::Unsupported`] for a zone, node or mode that the source does not offer;
    /// [`Error::Invalid`] for no pages; [`Error::Backend`]. Nothing was taken.
    pub fn take(&self, want: &Want) -> Result<FrameRun<Zeroed>> {
        let run = self.take_unswitched(want)?;
        if run.kind().mode == want.kind.mode {
            return Ok(run);
        }
        let mut run = run.dirtied();
        match self.switch(&mut [&mut run], want.kind.mode) {
            // Zero before, and maintained on the way.
            Ok(()) => Ok(run.zeroed()),
            Err(error) => {
                self.give(run);
                Err(error)
            }
        }
    }

    /// The same, but frames that had to be fetched are still cached: who takes many switches them
    /// together, with [`Pool::switch`].
    ///
    /// # Errors
    /// Those of [`Pool::take`].
    pub fn take_unswitched(&self, want: &Want) -> Result<FrameRun<Zeroed>> {
        self.admit(want)?;
        if is_small(want.pages, want.kind) {
            return self.take_small();
        }
        match self.find(want, true) {
            Some(Found::Zeroed(run)) => Ok(run.handed_on()),
            Some(Found::Dirty(run)) => self.zero_now(run),
            None => self.fresh(want),
        }
    }

    /// Takes frames for somebody who overwrites every byte of them before anybody else can read
    /// them. They may be in the wrong mode, as with [`Pool::take_unswitched`].
    ///
    /// # Errors
    /// Those of [`Pool::take`].
    pub fn take_to_overwrite(&self, want: &Want) -> Result<FrameRun<Dirty>> {
        self.admit(want)?;
        if is_small(want.pages, want.kind) {
            return match self.magazines.take_any() {
                Some(run) => Ok(run.handed_on()),
                None => self.take_small().map(FrameRun::dirtied),
            };
        }
        match self.find(want, false) {
            Some(Found::Zeroed(run)) => Ok(run.dirtied().handed_on()),
            Some(Found::Dirty(run)) => Ok(run.handed_on()),
            None => self.fresh(want).map(FrameRun::dirtied),
        }
    }

    /// Takes frames back. Nobody reaches them any more.
    pub fn give(&self, run: FrameRun<Dirty>) {
        if is_small(run.pages(), run.kind()) {
            if let Some(batch) = self.magazines.give_dirty(run) {
                self.store(batch, |m, batch| m.depot_dirty(batch));
            }
            return;
        }
        match self.shelve(Found::Dirty(run)) {
            Ok(()) => self.wake(),
            Err(run) => {
                self.release(run);
            }
        }
    }

    /// Takes frames back that nobody has written to.
    pub fn give_unwritten(&self, run: FrameRun<Zeroed>) {
        if is_small(run.pages(), run.kind()) {
            if let Some(batch) = self.magazines.give_zeroed(run) {
                self.store(batch, |m, batch| m.depot_zeroed(batch));
            }
            return;
        }
        if let Err(run) = self.shelve(Found::Zeroed(run)) {
            self.release(run);
        }
    }

    /// Puts a run that comes back on its shelf, or answers it if that would be over a limit.
    fn shelve(&self, run: Found) -> core::result::Result<(), FrameRun<Dirty>> {
        let mut shelves = self.shelves.lock();
        shelves.owned -= run.pages().get().cast_signed();
        let loose = self.magazines.in_depot();
        let fits = self.limits.admit(&shelves, loose, run.kind(), run.pages());
        match run {
            Found::Zeroed(run) if fits => shelves.put_zeroed(run),
            Found::Dirty(run) if fits => shelves.put_dirty(run),
            Found::Zeroed(run) => return Err(run.dirtied()),
            Found::Dirty(run) => return Err(run),
        }
        Ok(())
    }

    /// Opens a window over frames, until it drops. Windows nest.
    ///
    /// # Errors
    /// [`Error::Busy`] while the frames are viewed in another mode, and those of the source.
    pub fn kmap(&self, span: FrameSpan) -> Result<Kmap> {
        self.kmaps.map(span)
    }

    /// Where frames lie in a file, for somebody who keeps them mapped in `mode`.
    ///
    /// # Errors
    /// Those of [`PageSource::file`].
    pub(crate) fn file(&self, span: FrameSpan, mode: CacheMode) -> Result<FileRange> {
        self.source.file(span, mode)
    }

    /// Somebody is about to look at frames through a mapping that lasts: what devices wrote before
    /// shows there.
    pub(crate) fn before_looks(&self, span: FrameSpan, mode: CacheMode) {
        self.kmaps.before_looks(span, mode);
    }

    /// Nobody looks at frames through a lasting mapping any more: what was written there shows to
    /// devices.
    pub(crate) fn hide(&self, span: FrameSpan, mode: CacheMode) {
        self.kmaps.after_looks(span, mode);
    }

    /// What of its frames is mapped.
    #[must_use]
    pub fn kmaps(&self) -> KmapUsage {
        self.kmaps.usage()
    }

    /// Sets how many bytes windows may keep mapped without a user; 0 unmaps each at its drop.
    pub fn set_kept_windows(&self, bytes: u64) {
        self.kmaps.set_kept_bytes(bytes);
    }

    /// Unmaps all windows that are kept without a user.
    pub fn trim_windows(&self) {
        self.kmaps.trim();
    }

    /// What its frames' ledger has seen.
    #[must_use]
    pub fn ledger(&self) -> LedgerCounts {
        self.ledger.counts()
    }

    /// Frames that are pooled: what [`Pool::scan`] could give back.
    #[must_use]
    pub fn count(&self) -> PageCount {
        let shelved = self.shelves.lock().pages();
        PageCount::new(shelved + self.magazines.pages()).unwrap_or(PageCount::MAX)
    }

    /// Frames that are with owners.
    #[must_use]
    pub fn owned(&self) -> PageCount {
        let shelves = self.shelves.lock().owned;
        let owned = shelves + self.magazines.owned();
        PageCount::new(owned.max(0).cast_unsigned()).unwrap_or(PageCount::MAX)
    }

    /// A limit, in pages.
    #[must_use]
    pub fn limit(&self, limit: PoolLimit) -> PageCount {
        self.limits.get(limit)
    }

    /// What is pooled, one row for each kind, order and cleanliness that has any.
    #[must_use]
    pub fn table(&self) -> PoolTable {
        let rows = self.shelves.lock().rows(&self.magazines);
        PoolTable::new(rows, self.counts(), self.owned(), self.count())
    }

    /// What it has done.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (takes, gives) = self.magazines.traffic();
        PoolCounts {
            small_takes: takes,
            small_gives: gives,
            fresh_pages: get(&self.counters.fresh),
            released_pages: get(&self.counters.released),
            zeroed_at_once: get(&self.counters.zeroed_at_once),
            zeroed_behind: get(&self.counters.zeroed_behind),
            cut: get(&self.counters.cut),
            refused: get(&self.counters.refused),
        }
    }

    /// The service that zeroes what is dirty, and fetches what will be wanted.
    #[must_use]
    pub fn service(self: &Arc<Self>) -> Arc<dyn Service> {
        Arc::new(Background::new(
            "refill",
            self,
            &self.bell,
            Self::work_ahead,
        ))
    }

    /// Says whether memory is short: then nothing is refilled.
    pub fn set_pressed(&self, pressed: bool) {
        self.pressed.store(pressed, Ordering::Relaxed);
    }

    fn wake(&self) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.clock.unpark(&self.bell);
        }
    }

    /// Asserts I-28 and I-29 for what is pooled, I-32, and I-23.
    ///
    /// # Errors
    /// A text that begins with the number of the invariant.
    pub fn check(&self) -> core::result::Result<(), String> {
        self.ledger.check()?;
        let shelves = self.shelves.lock();
        shelves.check(&self.ledger)?;
        self.limits.check(&shelves)?;
        drop(shelves);
        let (owned, pooled, out) = (self.owned(), self.count(), self.source.taken());
        if owned.get() + pooled.get() != out.get() {
            return Err(format!(
                "I-28: {} frames with owners and {} pooled, {} out of the page source",
                owned.get(),
                pooled.get(),
                out.get()
            ));
        }
        Ok(())
    }

    fn admit(&self, want: &Want) -> Result<()> {
        if want.pages.is_zero() {
            return Err(Error::Invalid("a run of frames has at least one page"));
        }
        if !self.offers.zones.has(want.kind.zone) {
            return Err(Error::Unsupported(
                "the page source does not know real addresses, so it vouches for no zone but the \
                 normal one; the simulator's frames have zones, as have a kernel's",
            ));
        }
        if want.kind.node >= self.offers.nodes {
            return Err(Error::Unsupported(
                "the page source has no such NUMA node; its offers say how many it has",
            ));
        }
        self.admit_mode(want.kind.mode)
    }

    fn find(&self, want: &Want, zeroed_first: bool) -> Option<Found> {
        let mut shelves = self.shelves.lock();
        let (found, rest) = shelves.take(want, zeroed_first)?;
        shelves.owned += want.pages.get().cast_signed();
        if let Some(rest) = rest {
            // As if its owner had given it back.
            shelves.owned += rest.pages().get().cast_signed();
            drop(shelves);
            add(&self.counters.cut, 1);
            match rest {
                Found::Zeroed(run) => self.give_unwritten(run),
                Found::Dirty(run) => self.give(run),
            }
        }
        Some(found)
    }

    fn take_small(&self) -> Result<FrameRun<Zeroed>> {
        if let Some(run) = self.magazines.take_zeroed() {
            return Ok(run.handed_on());
        }
        self.wake();
        if let Some(run) = self.magazines.take_dirty() {
            return self.zero_now(run);
        }
        let wants = [BATCH, 1].map(|n| Want::new(PageCount::new(n as u64).expect("few")));
        let mut run = match self.source.take(&wants[0]) {
            Ok(run) => run,
            Err(Error::NoMemory { .. }) => self.take_from_source(&wants[1])?,
            Err(error) => return Err(error),
        };
        add(&self.counters.fresh, run.pages().get());
        let mut rest = Vec::new();
        while run.pages() > PageCount::ONE {
            let last = PageCount::new(run.pages().get() - 1).expect("less");
            rest.push(run.split_off(last));
        }
        Ok(self.magazines.receive(run, rest).handed_on())
    }

    /// Fresh frames; the shelves had none.
    fn fresh(&self, want: &Want) -> Result<FrameRun<Zeroed>> {
        let run = self.take_from_source(want)?;
        add(&self.counters.fresh, run.pages().get());
        self.shelves.lock().owned += run.pages().get().cast_signed();
        self.wake();
        Ok(run.handed_on())
    }

    fn take_from_source(&self, want: &Want) -> Result<FrameRun<Zeroed>> {
        match self.source.take(want) {
            Err(Error::NoMemory { .. }) if !self.scan(PageCount::MAX).is_zero() => {}
            Err(error) => {
                add(&self.counters.refused, 1);
                return Err(error);
            }
            run => return run,
        }
        self.source
            .take(want)
            .inspect_err(|_| add(&self.counters.refused, 1))
    }
}

/// Whether frames are such as the magazines have.
fn is_small(pages: PageCount, kind: FrameKind) -> bool {
    pages == PageCount::ONE && kind == FrameKind::default()
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shrink();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Pool({} with owners, {} pooled)",
            self.owned(),
            self.count()
        )
    }
}
