//! Seams that fail when they are told to.

use placement::{CacheMode, PageCount};
use ttm::cache::Maintenance;
use ttm::error::{Error, Result};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::tt::{Backup, Direction, SlotRun, SlotTag, Transfer, Transfers};

use super::inject::{At, Inject};

/// A page source with the sites `pages.take` ([`Error::NoMemory`]), `pages.zero`, `pages.map` and
/// `pages.switch` ([`Error::Backend`]), and `cache.skip-clean` and `cache.skip-invalidate`: that
/// part of the maintenance is not done, and nobody is told.
pub struct FailingPages {
    inner: Arc<dyn PageSource>,
    inject: Arc<Inject>,
}

impl FailingPages {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn PageSource>, inject: Arc<Inject>) -> Self {
        Self { inner, inject }
    }
}

impl PageSource for FailingPages {
    fn offers(&self) -> Offers {
        self.inner.offers()
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        if self.inject.fails(At::PAGES_TAKE) {
            return Err(Error::no_memory(want.pages));
        }
        self.inner.take(want)
    }

    fn give(&self, run: FrameRun<Dirty>) {
        self.inner.give(run);
    }

    fn zero(&self, span: FrameSpan, mode: CacheMode) -> Result<()> {
        if self.inject.fails(At::PAGES_ZERO) {
            return Err(Error::Backend(
                "zeroing was made to fail (pages.zero)".into(),
            ));
        }
        self.inner.zero(span, mode)
    }

    fn map(&self, span: FrameSpan, mode: CacheMode) -> Result<Mapped> {
        if self.inject.fails(At::PAGES_MAP) {
            return Err(Error::Backend(
                "a mapping was made to fail (pages.map)".into(),
            ));
        }
        self.inner.map(span, mode)
    }

    fn file(&self, span: FrameSpan, mode: CacheMode) -> Result<FileRange> {
        if self.inject.fails(At::PAGES_MAP) {
            return Err(Error::Backend(
                "a mapping was made to fail (pages.map)".into(),
            ));
        }
        self.inner.file(span, mode)
    }

    fn switch(&self, spans: &[FrameSpan], from: CacheMode, to: CacheMode) -> Result<()> {
        if self.inject.fails(At::PAGES_SWITCH) {
            return Err(Error::Backend(
                "a cache switch was made to fail (pages.switch)".into(),
            ));
        }
        self.inner.switch(spans, from, to)
    }

    fn maintain(&self, span: FrameSpan, what: Maintenance) {
        let cleans = what != Maintenance::Invalidate && !self.inject.fails(At::CACHE_SKIP_CLEAN);
        let drops = what != Maintenance::Clean && !self.inject.fails(At::CACHE_SKIP_INVALIDATE);
        match (cleans, drops) {
            (true, true) => self.inner.maintain(span, Maintenance::Flush),
            (true, false) => self.inner.maintain(span, Maintenance::Clean),
            (false, true) => self.inner.maintain(span, Maintenance::Invalidate),
            (false, false) => {}
        }
    }

    fn taken(&self) -> PageCount {
        self.inner.taken()
    }
}

/// A backup with the sites `backup.prepare` ([`Error::NoMemory`]), `backup.full`, `backup.store`,
/// `backup.load` (all three [`Error::Backup`]) and `backup.flip` (data with one bit flipped, and no
/// error).
pub struct FailingBackup {
    inner: Arc<dyn Backup>,
    inject: Arc<Inject>,
    flips: AtomicU64,
}

impl FailingBackup {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backup>, inject: Arc<Inject>) -> Self {
        Self {
            inner,
            inject,
            flips: AtomicU64::new(0),
        }
    }
}

impl Backup for FailingBackup {
    fn prepare(&self, runs: usize) -> Result<()> {
        if self.inject.fails(At::BACKUP_PREPARE) {
            return Err(Error::no_memory(PageCount::ZERO));
        }
        self.inner.prepare(runs)
    }

    fn unprepare(&self, runs: usize) {
        self.inner.unprepare(runs);
    }

    fn take(&self, pages: PageCount, tag: SlotTag) -> Result<SlotRun> {
        if self.inject.fails(At::BACKUP_FULL) {
            return Err(Error::Backup(
                "is full: it was made so (backup.full)".into(),
            ));
        }
        self.inner.take(pages, tag)
    }

    fn transfer(&self, direction: Direction, work: &mut dyn Transfers) {
        self.inner.transfer(
            direction,
            &mut Spoiled {
                direction,
                backup: self,
                work,
            },
        );
    }

    fn discard(&self, slots: SlotRun) {
        self.inner.discard(slots);
    }

    fn limit(&self) -> PageCount {
        self.inner.limit()
    }

    fn used(&self) -> PageCount {
        self.inner.used()
    }
}

/// Lets transfers through, and spoils what became of some.
struct Spoiled<'a> {
    direction: Direction,
    backup: &'a FailingBackup,
    work: &'a mut dyn Transfers,
}

impl Transfers for Spoiled<'_> {
    fn next(&mut self) -> Option<Transfer> {
        self.work.next()
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        let inject = &self.backup.inject;
        let (site, what) = match self.direction {
            Direction::Out => (
                At::BACKUP_STORE,
                "cannot store: it was made to fail (backup.store)",
            ),
            Direction::In => (
                At::BACKUP_LOAD,
                "cannot load: it was made to fail (backup.load)",
            ),
        };
        let result = match inject.fails(site) {
            true => Err(Error::Backup(what.into())),
            false => result,
        };
        if self.direction == Direction::In && result.is_ok() && inject.fails(At::BACKUP_FLIP) {
            let n = self.backup.flips.fetch_add(1, Ordering::Relaxed);
            let at = (n.wrapping_mul(4099) as usize) % transfer.memory.len();
            let mut byte = [0];
            transfer.memory.read(at, &mut byte);
            transfer.memory.write(at, &[byte[0] ^ (1 << (n % 8))]);
        }
        self.work.done(transfer, result);
    }
}
