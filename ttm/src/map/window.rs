//! One window: its addresses, what it shows, and how that changes.
//!
//! ```text
//!              show (run by run, or all)             poison
//!   waiting ─────────────────────────────▶ shown   waiting ──▶ dead
//!      ▲                                     │                  │
//!      └──────────── revoke (zap, cover) ────┴──────────────────┘
//! ```
//!
//! Zapped addresses keep the mapping of the old place, emptied and watched; nobody sees through it,
//! and showing something puts another one over it.

use core::ops::Range;

use placement::PAGE_SIZE;

use crate::bo::{BoCore, Shown, ShownPart, View};
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, MutexGuard};

use super::layout::{LEAST_MAPPINGS, Layout};
use super::registry::Registry;
use super::space::{Access, Addresses, Aside, Piece, Revoke};

/// So many pages at most have their page-table entries filled when a fault shows them; of more, the
/// kernel fills the others when they are touched.
const FILLED_BY_FAULT: u64 = 16;

/// A window that was used follows so many moves at once before one is left to a fault, to see
/// whether it is still used.
const CREDIT: u32 = 256;
/// A thread that waits for itself is heard of so often before its access is ended: one that has gone
/// on since it was heard of is not heard of again.
const SURE: u32 = 8;
/// The most that credit grows to by being used again and again.
const MOST_CREDIT: u32 = 4096;

pub(super) struct WindowCore {
    registry: Arc<Registry>,
    pub(super) bo: Arc<BoCore>,
    /// The object's pages that it is of.
    pub(super) pages: Range<u64>,
    pub(super) access: Access,
    pub(super) at: Addresses,
    inner: Mutex<Inner>,
}

struct Inner {
    layout: Layout,
    /// The place that the content will have soon, mapped aside.
    aside: Option<(Vec<ShownPart>, Aside)>,
    /// Writes are noted since the last revocation.
    tracking: bool,
    /// Moves that it follows at once from here on.
    credit: u32,
    /// What a fault makes of `credit`.
    grant: u32,
    /// Mappings that it is charged for.
    mappings: usize,
    /// A thread that seemed to wait for itself, and how often since something was shown.
    stuck: (u64, u32),
    closed: bool,
}

impl WindowCore {
    /// A window that waits. Its [`LEAST_MAPPINGS`] are charged already.
    pub(super) fn new(
        registry: &Arc<Registry>,
        bo: &Arc<BoCore>,
        pages: Range<u64>,
        access: Access,
        at: Addresses,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            bo: Arc::clone(bo),
            pages,
            access,
            at,
            inner: Mutex::new(Inner {
                layout: Layout::default(),
                aside: None,
                tracking: false,
                credit: 0,
                grant: CREDIT,
                mappings: LEAST_MAPPINGS,
                stuck: (0, 0),
                closed: false,
            }),
        }
    }

    /// The object's page at `address`.
    pub(super) fn page_at(&self, address: usize) -> u64 {
        self.pages.start + (address - self.at.base) as u64 / PAGE_SIZE
    }

    fn addresses(&self, pages: &Range<u64>) -> Addresses {
        let bytes = |pages: u64| (pages * PAGE_SIZE) as usize;
        self.at.part(
            bytes(pages.start - self.pages.start),
            bytes(pages.end - pages.start),
        )
    }

    /// The pages that are shown together with `page`, if it is not shown yet.
    pub(super) fn run_of(&self, page: u64) -> Range<u64> {
        let run = self.registry.config.run.get();
        let start = page - page % run;
        start.max(self.pages.start)..(start + run).min(self.pages.end)
    }

    /// Whether an access to `page` goes on, or ends, without anything being done for it.
    pub(super) fn is_settled(&self, page: u64) -> bool {
        let inner = self.inner.lock();
        inner.layout.is_shown(page) || inner.layout.is_dead(page) || inner.closed
    }

    /// Where those wait who wait for something of the run around `page`.
    pub(super) fn run_at(&self, page: u64) -> Addresses {
        self.addresses(&self.run_of(page))
    }

    /// Shows the run around `page`, which somebody touched, out of `shown`. Answers its pages, none
    /// if they are shown already.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it cannot be mapped, and what the address space says; accesses wait.
    pub(super) fn show_run(&self, page: u64, shown: &Shown) -> Result<u64> {
        let mut inner = self.inner.lock();
        if inner.closed || inner.layout.is_shown(page) || inner.layout.is_dead(page) {
            return Ok(0);
        }
        let gap = inner.layout.gap_around(page, self.run_of(page));
        let part = shown
            .within(gap)
            .find(|p| p.first <= page && page < p.end());
        let part = part.ok_or(Error::Unsupported(
            "the page is where the CPU cannot map it",
        ))?;
        let pages = part.pages;
        if inner.credit == 0 {
            inner.credit = inner.grant;
            inner.grant = (inner.grant * 2).min(MOST_CREDIT);
        }
        self.show(&mut inner, vec![part], pages <= FILLED_BY_FAULT)?;
        Ok(pages)
    }

    /// Shows everything of the window that is in `shown`, page tables filled.
    ///
    /// # Errors
    /// As [`WindowCore::show_run`].
    pub(super) fn show_all(&self, shown: &Shown) -> Result<()> {
        let mut inner = self.inner.lock();
        let parts: Vec<_> = shown.within(self.pages.clone()).collect();
        if inner.closed || inner.layout.shown == parts {
            return Ok(());
        }
        inner.credit = inner.credit.max(inner.grant);
        self.cover_dead(&mut inner)?;
        self.show(&mut inner, parts, true)
    }

    /// Maps `parts` over what is there.
    fn show(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        parts: Vec<ShownPart>,
        filled: bool,
    ) -> Result<()> {
        let aside = self.map_aside(inner, &parts, filled)?;
        self.switch(inner, parts, aside)
    }

    fn map_aside(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        parts: &[ShownPart],
        filled: bool,
    ) -> Result<Aside> {
        let device = &self.bo.device;
        device.probe(Site::Show, || {
            Error::Backend("showing something in a window was made to fail".into())
        })?;
        self.charge(inner, parts)?;
        let pieces = parts.iter().map(|part| self.piece(part));
        let pieces = pieces.collect::<Result<Vec<_>>>()?;
        self.registry.space.prepare(&pieces, self.access, filled)
    }

    fn switch(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        parts: Vec<ShownPart>,
        aside: Aside,
    ) -> Result<()> {
        if let Err(error) = self.registry.space.switch(aside) {
            // Nobody knows what is there (I-26).
            inner.layout.forget_all();
            let covered = self.registry.space.revoke(self.at, Revoke::Cover);
            return Err(covered.err().unwrap_or(error));
        }
        for part in parts {
            inner.layout.enter(part);
        }
        inner.stuck = (0, 0);
        // Relaxed: a count for people.
        self.registry.counters.shown.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn piece(&self, part: &ShownPart) -> Result<Piece> {
        let at = self.addresses(&(part.first..part.end()));
        let whole = |n: u64| n.is_multiple_of(part.file.granule);
        let fits = whole(at.base as u64) && whole(at.bytes as u64) && whole(part.file.offset);
        if !fits {
            return Err(Error::Unsupported(
                "of huge pages that the administrator has set aside, a window shows whole ones only",
            ));
        }
        Ok(Piece {
            at,
            file: part.file.clone(),
        })
    }

    /// Pays for the mappings that the window will have with `parts`. Without enough, all that it
    /// shows goes first.
    fn charge(&self, inner: &mut MutexGuard<'_, Inner>, parts: &[ShownPart]) -> Result<()> {
        let needed = inner.layout.mappings_with(parts, &self.pages);
        if self.registry.recharge(&mut inner.mappings, needed).is_ok() {
            return Ok(());
        }
        self.registry.space.revoke(self.at, Revoke::Cover)?;
        inner.layout.forget_all();
        let needed = inner.layout.mappings_with(parts, &self.pages);
        self.registry.recharge(&mut inner.mappings, needed)
    }

    /// Ends accesses to the run around `page` in a signal.
    pub(super) fn poison(&self, page: u64) {
        let mut inner = self.inner.lock();
        if inner.closed || inner.layout.is_shown(page) || inner.layout.is_dead(page) {
            return;
        }
        let gap = inner.layout.gap_around(page, self.run_of(page));
        // If that is refused, they try again, and so do we.
        if self.registry.space.poison(self.addresses(&gap)).is_ok() {
            inner.layout.cut_stale(&gap);
            inner.layout.dead.push(gap);
        }
    }

    /// Makes accesses that end in a signal wait again.
    pub(super) fn mend(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        self.cover_dead(&mut inner)
    }

    fn cover_dead(&self, inner: &mut MutexGuard<'_, Inner>) -> Result<()> {
        if !inner.layout.dead.is_empty() {
            self.registry.space.revoke(self.at, Revoke::Cover)?;
            inner.layout.forget_all();
        }
        Ok(())
    }

    /// Gives the addresses back.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        inner.closed = true;
        inner.layout.forget_all();
        inner.aside = None;
        // First: the addresses may be another window's as soon as they are given back.
        self.registry.remove(self.at.base);
        self.registry.space.release(self.at);
        self.registry.uncharge(inner.mappings);
    }

    /// Whether `thread`, which has the object locked, has been heard of so often, with nothing shown
    /// in between, that it surely waits for itself.
    pub(super) fn comes_again(&self, thread: u64) -> bool {
        let mut inner = self.inner.lock();
        let times = match inner.stuck {
            (who, times) if who == thread => times + 1,
            _ => 1,
        };
        inner.stuck = (thread, times);
        times >= SURE
    }

    /// Whether accesses wait while content is on its way.
    pub(super) fn waits(&self) -> bool {
        self.registry.abilities.loads_wait
    }

    /// How many of its pages are shown.
    pub(super) fn shown_pages(&self) -> u64 {
        self.inner
            .lock()
            .layout
            .shown
            .iter()
            .map(|part| part.pages)
            .sum()
    }
}

impl View for WindowCore {
    fn prepare(&self, shown: &Shown) {
        let mut inner = self.inner.lock();
        if inner.closed || !self.registry.follows_at_once(inner.credit) {
            return;
        }
        let parts: Vec<_> = shown.within(self.pages.clone()).collect();
        if !parts.is_empty()
            && let Ok(aside) = self.map_aside(&mut inner, &parts, self.is_filled())
        {
            inner.aside = Some((parts, aside));
        }
    }

    fn track(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.layout.shown.is_empty() || self.access == Access::Read {
            return true;
        }
        let watchable = inner.layout.dead.is_empty() && inner.layout.is_watchable();
        let tracking = self.registry.space.tracking().filter(|_| watchable);
        inner.tracking = tracking.is_some_and(|tracking| tracking.track(self.at).is_ok());
        inner.tracking
    }

    fn revoke(&self) -> Result<bool> {
        let mut inner = self.inner.lock();
        if inner.layout.shown.is_empty() && inner.layout.dead.is_empty() {
            return Ok(false);
        }
        if inner.layout.dead.is_empty()
            && inner.layout.is_watchable()
            && self.registry.abilities.loads_wait
        {
            self.registry.space.revoke(self.at, Revoke::Zap)?;
            let shown = core::mem::take(&mut inner.layout.shown);
            inner.layout.stale.extend(shown);
            inner.layout.stale.sort_by_key(|part| part.first);
        } else {
            self.registry.space.revoke(self.at, Revoke::Cover)?;
            inner.layout.forget_all();
        }
        // Relaxed: a count for people.
        self.registry
            .counters
            .revoked
            .fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn written(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let mut inner = self.inner.lock();
        if !core::mem::take(&mut inner.tracking) {
            return Ok(());
        }
        let Some(tracking) = self.registry.space.tracking() else {
            return Ok(());
        };
        tracking.written(self.at, &mut |bytes| {
            let page = |bytes: usize| self.pages.start + bytes as u64 / PAGE_SIZE;
            each(page(bytes.start)..page(bytes.end + PAGE_SIZE as usize - 1));
        })
    }

    fn follow(&self, shown: &Shown) {
        let mut inner = self.inner.lock();
        let aside = inner.aside.take();
        let tracked = core::mem::take(&mut inner.tracking);
        if inner.closed || !inner.layout.dead.is_empty() {
            return;
        }
        let parts: Vec<_> = shown.within(self.pages.clone()).collect();
        if parts.is_empty() || inner.layout.shown == parts && !tracked {
            return;
        }
        if !self.registry.follows_at_once(inner.credit) {
            return;
        }
        inner.credit = inner.credit.saturating_sub(1);
        // What fails here is met again by the next access, which then tells.
        let _ = match aside {
            Some((prepared, aside)) if prepared == parts => self.switch(&mut inner, parts, aside),
            _ => {
                let filled = self.is_filled();
                self.show(&mut inner, parts, filled)
            }
        };
        // Who waits is woken by whoever serves it in any case; this is sooner.
        if !self.registry.device.clock.takes_turns() {
            self.registry.space.wake(self.at);
        }
    }

    fn check(&self, shown: &Shown) -> core::result::Result<(), String> {
        let inner = self.inner.lock();
        let object = self.bo.id;
        for part in &inner.layout.shown {
            let there: Vec<_> = shown.within(part.first..part.end()).collect();
            let pages: u64 = there.iter().map(|p| p.pages).sum();
            let same = there.iter().all(|p| {
                let at = part.within(&(p.first..p.end()));
                at.is_some_and(|at| at.file == p.file)
            });
            if !same || pages != part.pages {
                return Err(format!(
                    "I-20: a window of object {object} shows {part:?}, the content is in {there:?}"
                ));
            }
        }
        let needed = inner.layout.mappings_with(&[], &self.pages);
        if needed > inner.mappings {
            return Err(format!(
                "I-25: a window of object {object} has {needed} mappings and pays for {}",
                inner.mappings
            ));
        }
        Ok(())
    }
}

impl WindowCore {
    /// Whether page tables are filled before a switch.
    fn is_filled(&self) -> bool {
        let pages = self.pages.end - self.pages.start;
        !self.registry.abilities.loads_wait || pages <= self.registry.config.filled_most.get()
    }
}
