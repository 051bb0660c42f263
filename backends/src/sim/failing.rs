//! Seams that fail when they are told to.

use placement::PageCount;
use ttm::error::{Error, Result};
use ttm::pages::{FrameRun, FrameSpan, Mapped, PageSource};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::tt::{Backup, SlotRun, SlotTag};

use super::inject::{At, Inject};

/// A page source with the sites `pages.take` ([`Error::NoMemory`]) and `pages.map`
/// ([`Error::Backend`]).
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
    fn take(&self, pages: PageCount) -> Result<FrameRun> {
        if self.inject.fails(At::PAGES_TAKE) {
            return Err(Error::NoMemory { wanted: pages });
        }
        self.inner.take(pages)
    }

    fn give(&self, run: FrameRun) {
        self.inner.give(run);
    }

    fn map(&self, span: FrameSpan) -> Result<Mapped> {
        if self.inject.fails(At::PAGES_MAP) {
            return Err(Error::Backend(
                "a mapping was made to fail (pages.map)".into(),
            ));
        }
        self.inner.map(span)
    }

    fn taken(&self) -> PageCount {
        self.inner.taken()
    }
}

/// A backup with the sites `backup.store`, `backup.load` (both [`Error::Backup`]) and
/// `backup.flip` (data with one bit flipped, and no error).
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
    fn store(&self, tag: SlotTag, from: &Mapped) -> Result<SlotRun> {
        if self.inject.fails(At::BACKUP_STORE) {
            return Err(Error::Backup(
                "a store was made to fail (backup.store)".into(),
            ));
        }
        self.inner.store(tag, from)
    }

    fn load(&self, slots: &SlotRun, tag: SlotTag, into: &Mapped) -> Result<()> {
        if self.inject.fails(At::BACKUP_LOAD) {
            return Err(Error::Backup(
                "a load was made to fail (backup.load)".into(),
            ));
        }
        self.inner.load(slots, tag, into)?;
        if self.inject.fails(At::BACKUP_FLIP) {
            let n = self.flips.fetch_add(1, Ordering::Relaxed);
            let at = (n.wrapping_mul(4099) as usize) % into.len();
            let mut byte = [0];
            into.read(at, &mut byte);
            into.write(at, &[byte[0] ^ (1 << (n % 8))]);
        }
        Ok(())
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
