//! Which pages have which mode, and who looks at them.

use std::collections::BTreeMap;

use placement::{CacheMode, MemType, PageCount};

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Views that are open at once without the ledger allocating.
const VIEWS: usize = 256;

/// Which memory an [`Area`] is part of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Memory {
    /// The page file of that number.
    Frames(u32),
    /// The memory of a device.
    Device(MemType),
}

/// Pages of one memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// Which memory.
    pub memory: Memory,
    /// The first page.
    pub first: u64,
    /// How many.
    pub pages: PageCount,
}

impl Area {
    const fn end(&self) -> u64 {
        self.first + self.pages.get()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.memory == other.memory && self.first < other.end() && other.first < self.end()
    }
}

/// A view that is open, to be closed once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViewId(u64);

/// What a ledger has seen. Counts never run backwards but for `views`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LedgerCounts {
    /// Views that are open now.
    pub views: u64,
    /// Views that were opened.
    pub opened: u64,
    /// Areas whose mode was changed.
    pub switches: u64,
    /// Bytes of them.
    pub switched_bytes: u64,
    /// Areas on which caches were cleaned, invalidated or flushed.
    pub flushes: u64,
    /// Bytes of them.
    pub flushed_bytes: u64,
    /// Views and switches that were refused, because pages would have had two modes.
    pub refused: u64,
}

#[derive(Default)]
struct Inner {
    /// Pages that are not in their memory's own mode, by (memory, first page).
    modes: BTreeMap<(Memory, u64), (PageCount, CacheMode)>,
    views: Vec<(u64, Area, CacheMode)>,
    next: u64,
    counts: LedgerCounts,
}

/// The one place that knows the cache mode of pages. What it was never told has its memory's own
/// mode.
///
/// Its lock is a leaf and is held for bookkeeping only.
///
/// # Invariants
/// I-23: all open views of a page have one mode, which is the page's.
#[derive(Default)]
pub struct Ledger {
    /// Entries in `modes`; whoever changes a page's mode owns the page.
    entries: AtomicU64,
    inner: Mutex<Inner>,
}

impl Ledger {
    /// A ledger in which everything has its memory's own mode.
    #[must_use]
    pub fn new() -> Self {
        let ledger = Self::default();
        ledger.inner.lock().views.reserve(VIEWS);
        ledger
    }

    /// The mode of `area`, if it was set and is one for all of it; else `own`, its memory's.
    #[must_use]
    pub fn mode_of(&self, area: Area, own: CacheMode) -> CacheMode {
        self.inner.lock().mode_of(area).unwrap_or(own)
    }

    /// Opens a view of `area`. Answers its number and the mode in which it has to be mapped.
    ///
    /// # Errors
    /// [`Error::Busy`] if a view in another mode is open on some of the pages, or the pages have
    /// several modes.
    pub fn open(&self, area: Area, own: CacheMode) -> Result<(ViewId, CacheMode)> {
        let mut inner = self.inner.lock();
        let mode = inner.mode_of(area);
        let clash = inner.is_mixed(area)
            || inner.views.iter().any(|(_, open, open_mode)| {
                open.overlaps(&area) && *open_mode != mode.unwrap_or(own)
            });
        if clash {
            inner.counts.refused += 1;
            return Err(Error::Busy);
        }
        let mode = mode.unwrap_or(own);
        inner.next += 1;
        let id = inner.next;
        inner.views.push((id, area, mode));
        inner.counts.views += 1;
        inner.counts.opened += 1;
        Ok((ViewId(id), mode))
    }

    /// Closes a view.
    ///
    /// # Panics
    /// If it is not open.
    pub fn close(&self, view: ViewId) {
        let mut inner = self.inner.lock();
        let at = inner.views.iter().position(|(id, ..)| *id == view.0);
        inner
            .views
            .swap_remove(at.expect("a view is closed by its owner, once"));
        inner.counts.views -= 1;
    }

    /// Whether a view is open on some pages of `area`.
    #[must_use]
    pub fn is_viewed(&self, area: Area) -> bool {
        self.inner.lock().is_viewed(area)
    }

    /// Refuses, and counts the refusal, while a view is open on some pages of `area`.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn may_switch(&self, area: Area) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.is_viewed(area) {
            inner.counts.refused += 1;
            return Err(Error::Busy);
        }
        Ok(())
    }

    /// Sets the mode of `area`, which is the caller's and on which no view is open; `None` is its
    /// memory's own.
    ///
    /// # Errors
    /// [`Error::Busy`] if one is; nothing has changed.
    pub fn set(&self, area: Area, mode: Option<CacheMode>) -> Result<()> {
        // Relaxed: an entry over pages of the caller's was made by him, or by who gave them to him.
        if mode.is_none() && self.entries.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        if !inner.is_mixed(area) && inner.mode_of(area) == mode {
            return Ok(());
        }
        if inner.is_viewed(area) {
            inner.counts.refused += 1;
            return Err(Error::Busy);
        }
        inner.cut(area);
        if let Some(mode) = mode {
            inner
                .modes
                .insert((area.memory, area.first), (area.pages, mode));
        }
        self.entries
            .store(inner.modes.len() as u64, Ordering::Relaxed);
        inner.counts.switches += 1;
        inner.counts.switched_bytes += area.pages.bytes();
        Ok(())
    }

    /// Counts maintenance of `pages`.
    pub fn flushed(&self, pages: PageCount) {
        let mut inner = self.inner.lock();
        inner.counts.flushes += 1;
        inner.counts.flushed_bytes += pages.bytes();
    }

    /// What it has seen.
    #[must_use]
    pub fn counts(&self) -> LedgerCounts {
        self.inner.lock().counts
    }

    /// I-23, and that no page has two entries.
    ///
    /// # Errors
    /// A text that names the pages.
    pub fn check(&self) -> core::result::Result<(), String> {
        let inner = self.inner.lock();
        let mut before: Option<Area> = None;
        for (&(memory, first), &(pages, _)) in &inner.modes {
            let area = Area {
                memory,
                first,
                pages,
            };
            if before.is_some_and(|b| b.overlaps(&area)) {
                return Err(format!("I-23: {area:?} has two modes"));
            }
            before = Some(area);
        }
        for (n, (_, area, mode)) in inner.views.iter().enumerate() {
            if inner.mode_of(*area).is_some_and(|m| m != *mode) {
                return Err(format!("I-23: {area:?} is viewed as {mode} and is not"));
            }
            let later = &inner.views[n + 1..];
            if later.iter().any(|(_, a, m)| a.overlaps(area) && m != mode) {
                return Err(format!("I-23: {area:?} is viewed in two modes"));
            }
        }
        Ok(())
    }
}

impl Inner {
    fn is_viewed(&self, area: Area) -> bool {
        self.views.iter().any(|(_, open, _)| open.overlaps(&area))
    }

    /// The entries that share pages with `area`.
    fn over(&self, area: Area) -> impl Iterator<Item = (Area, CacheMode)> {
        let before = self
            .modes
            .range(..(area.memory, area.first))
            .next_back()
            .filter(|((memory, _), _)| *memory == area.memory);
        let inside = self
            .modes
            .range((area.memory, area.first)..(area.memory, area.end()));
        before
            .into_iter()
            .chain(inside)
            .map(|(&(memory, first), &(pages, mode))| {
                let area = Area {
                    memory,
                    first,
                    pages,
                };
                (area, mode)
            })
            .filter(move |(entry, _)| entry.overlaps(&area))
    }

    /// The mode that was set for the first page of `area`.
    fn mode_of(&self, area: Area) -> Option<CacheMode> {
        if self.modes.is_empty() {
            return None;
        }
        let (entry, mode) = self.over(area).next()?;
        (entry.first <= area.first).then_some(mode)
    }

    /// Whether the pages of `area` have several modes.
    fn is_mixed(&self, area: Area) -> bool {
        if self.modes.is_empty() {
            return false;
        }
        let mut covered = area.first;
        let mut mode = None;
        for (entry, entry_mode) in self.over(area) {
            if entry.first > covered || mode.is_some_and(|m| m != entry_mode) {
                return true;
            }
            mode = Some(entry_mode);
            covered = entry.end();
        }
        mode.is_some() && covered < area.end()
    }

    /// Forgets what was set for the pages of `area`.
    fn cut(&mut self, area: Area) {
        let entries: smallvec::SmallVec<[(Area, CacheMode); 2]> = self.over(area).collect();
        let pages = |n| PageCount::new(n).expect("part of an entry");
        for (entry, mode) in entries {
            self.modes.remove(&(entry.memory, entry.first));
            if entry.first < area.first {
                self.modes.insert(
                    (entry.memory, entry.first),
                    (pages(area.first - entry.first), mode),
                );
            }
            if area.end() < entry.end() {
                self.modes.insert(
                    (entry.memory, area.end()),
                    (pages(entry.end() - area.end()), mode),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CacheMode::{Cached, Uncached, WriteCombined};

    fn area(first: u64, pages: u64) -> Area {
        Area {
            memory: Memory::Frames(0),
            first,
            pages: PageCount::new(pages).unwrap(),
        }
    }

    #[test]
    fn a_page_has_one_mode_at_a_time() {
        let ledger = Ledger::new();
        ledger.set(area(10, 10), Some(WriteCombined)).unwrap();
        let (view, mode) = ledger.open(area(12, 2), Cached).unwrap();
        assert_eq!(mode, WriteCombined);
        assert!(matches!(
            ledger.set(area(0, 13), Some(Uncached)),
            Err(Error::Busy)
        ));
        assert_eq!(ledger.mode_of(area(0, 1), Cached), Cached);
        ledger.close(view);
        ledger.set(area(0, 13), Some(Uncached)).unwrap();
        assert_eq!(ledger.mode_of(area(12, 1), Cached), Uncached);
        assert_eq!(ledger.mode_of(area(13, 7), Cached), WriteCombined);
        ledger.set(area(14, 2), None).unwrap();
        assert_eq!(ledger.mode_of(area(14, 2), Cached), Cached);
        assert_eq!(ledger.mode_of(area(16, 4), Cached), WriteCombined);
        ledger.check().unwrap();
        assert_eq!(ledger.counts().refused, 1);
    }

    #[test]
    fn a_view_over_two_modes_is_refused() {
        let ledger = Ledger::new();
        ledger.set(area(4, 4), Some(WriteCombined)).unwrap();
        for mixed in [area(0, 5), area(3, 5), area(5, 6), area(0, 20)] {
            assert!(matches!(ledger.open(mixed, Cached), Err(Error::Busy)));
        }
        ledger.set(area(8, 4), Some(WriteCombined)).unwrap();
        let (view, mode) = ledger.open(area(4, 8), Cached).unwrap();
        assert_eq!(mode, WriteCombined);
        ledger.close(view);
    }

    #[test]
    fn every_cut_keeps_the_rest() {
        // Exhaustive: an entry of 6 pages, every part of it forgotten, against a table.
        for first in 0..8 {
            for len in 1..=8 {
                let ledger = Ledger::new();
                ledger.set(area(1, 6), Some(Uncached)).unwrap();
                ledger.set(area(first, len), None).unwrap();
                for page in 0..9 {
                    let kept = (1..7).contains(&page) && !(first..first + len).contains(&page);
                    let wanted = if kept { Uncached } else { Cached };
                    assert_eq!(ledger.mode_of(area(page, 1), Cached), wanted);
                }
                ledger.check().unwrap();
            }
        }
    }
}
