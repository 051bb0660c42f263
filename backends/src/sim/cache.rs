//! The CPU's caches and write buffers, in front of memory that a device reads past them.
//!
//! What happens, and when:
//!
//! - A CPU mapping that is cached, or write-combined, shows the *view*; one that is uncached shows
//!   memory. A device that does not snoop sees memory; one that does sees the view of cached frames.
//! - What the CPU writes stays in its lines, or in its write buffers, until it is cleaned, or
//!   leaves by itself.
//! - What a device writes shows in cached lines once they are invalidated, or fetched again by
//!   themselves. Write-combined frames are not cached: they show it as soon as the device is done,
//!   but for writes that are still gathered.
//! - A change of mode drops what the caches still hold: without the maintenance that has to come
//!   before it, what was written is lost.
//! - With every event a page that was lately in use may lose or get some lines by itself, as the
//!   seed says.
//!
//! Two modes at once for the same frame so show two contents. The model is of one cache for all
//! CPUs, of unlimited size, and knows no order between lines.

mod lines;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;

use placement::{CacheMode, PageCount, PageRange};
use rustix::io::Errno;
use ttm::cache::Maintenance;
use ttm::error::{Error, Result};
use ttm::sync::{Arc, Mutex};

use super::random::Random;

use lines::{Deed, Done, Lines, Seen};

/// How many ranges count as lately used.
const RECENT: usize = 32;

/// What the caches are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheModel {
    /// Whether the device sees what is in the CPU's caches.
    pub snoops: bool,
    /// How many events in a thousand make lines of a page leave, or come, by themselves.
    pub spontaneous_per_mille: u16,
    /// Chooses which.
    pub seed: u64,
}

impl CacheModel {
    /// Caches that a device does not snoop, of which nothing moves by itself.
    #[must_use]
    pub const fn still() -> Self {
        Self {
            snoops: false,
            spontaneous_per_mille: 0,
            seed: 1,
        }
    }

    /// Caches that a device does not snoop, with lines that move by themselves as `seed` says.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self {
            snoops: false,
            spontaneous_per_mille: 250,
            seed,
        }
    }

    /// The same for a device that snoops.
    #[must_use]
    pub const fn snooped(mut self) -> Self {
        self.snoops = true;
        self
    }
}

/// What the caches have done, in lines of 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounts {
    /// Written to memory by [`Maintenance::Clean`] or [`Maintenance::Flush`].
    pub cleaned: u64,
    /// Stale ones that [`Maintenance::Invalidate`] or [`Maintenance::Flush`] dropped.
    pub invalidated: u64,
    /// Dirty ones that were dropped: what the CPU wrote is gone.
    pub lost: u64,
    /// Written to memory by themselves.
    pub written_back: u64,
    /// Stale ones that were fetched again by themselves.
    pub fetched: u64,
    /// Dirty ones that a device looked past when it began a job.
    pub unseen: u64,
}

/// The model, for one range of physical memory.
pub(super) struct Cache {
    model: CacheModel,
    lines: Lines,
    state: Mutex<State>,
}

struct State {
    random: Random,
    counts: CacheCounts,
    /// The mode of each page that is not cached.
    modes: BTreeMap<u64, CacheMode>,
    recent: VecDeque<PageRange>,
}

impl Cache {
    /// Caches in front of `bytes` bytes; `view` is the file that the CPU's mappings are of.
    pub(super) fn new(model: CacheModel, view: Arc<File>, bytes: u64) -> io::Result<Self> {
        Ok(Self {
            lines: Lines::new(view, bytes)?,
            state: Mutex::new(State {
                random: Random::new(model.seed),
                counts: CacheCounts::default(),
                modes: BTreeMap::new(),
                recent: VecDeque::new(),
            }),
            model,
        })
    }

    pub(super) const fn snoops(&self) -> bool {
        self.model.snoops
    }

    /// What the device, and an uncached mapping, sees.
    pub(super) const fn dram(&self) -> &Arc<File> {
        self.lines.dram()
    }

    pub(super) fn counts(&self) -> CacheCounts {
        self.state.lock().counts
    }

    pub(super) fn reserve(&self, pages: PageRange) -> Result<(), Errno> {
        self.lines.reserve(pages)
    }

    /// Nobody has the pages any more: nothing of them is left in any cache. False if the host kept
    /// something of them.
    pub(super) fn forget(&self, pages: PageRange) -> bool {
        let mut state = self.state.lock();
        state.recent.retain(|recent| !recent.intersects(&pages));
        state.set_mode(pages, CacheMode::Cached);
        // Under the lock, so that no line moves on its own meanwhile.
        self.lines.discard(pages)
    }

    /// The CPU has the pages mapped from now on.
    pub(super) fn used(&self, pages: PageRange) {
        let mut state = self.state.lock();
        state.used(pages);
        self.move_by_itself(&mut state);
    }

    /// Lets lines leave and come by themselves, whatever the chance for it is.
    pub(super) fn tick(&self) {
        self.stir(&mut self.state.lock());
    }

    pub(super) fn maintain(&self, pages: PageRange, what: Maintenance) {
        let mut state = self.state.lock();
        self.move_by_itself(&mut state);
        let cleans = what != Maintenance::Invalidate;
        let drops = what != Maintenance::Clean;
        let done = self.visit(pages, |line| match line.dirty {
            true if cleans => Deed::WriteBack,
            _ if drops => Deed::Fetch,
            _ => Deed::Keep,
        });
        state.counts.cleaned += done.written;
        state.counts.invalidated += done.fetched;
        state.counts.lost += done.lost;
    }

    /// The CPU writes zeroes to all of the pages.
    pub(super) fn zero(&self, pages: PageRange, mode: CacheMode) -> io::Result<()> {
        let mut state = self.state.lock();
        match mode {
            CacheMode::Uncached => self.lines.zero_dram(pages)?,
            CacheMode::Cached | CacheMode::WriteCombined => self.lines.zero(pages)?,
        }
        state.used(pages);
        self.move_by_itself(&mut state);
        Ok(())
    }

    /// The pages have another mode from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one has not the mode `from`; nothing has changed.
    pub(super) fn switch(
        &self,
        ranges: &[PageRange],
        from: CacheMode,
        to: CacheMode,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let all = |range: &PageRange| (range.start()..range.end()).all(|n| state.mode(n) == from);
        if !ranges.iter().all(all) {
            return Err(Error::Invalid(
                "frames do not have the mode that is changed",
            ));
        }
        for range in ranges {
            // Lines that were fetched before may still be there when memory is cached again.
            if (from, to) != (CacheMode::Uncached, CacheMode::Cached) {
                let done = self.visit(*range, |_| Deed::Fetch);
                state.counts.lost += done.lost;
            }
            state.set_mode(*range, to);
        }
        Ok(())
    }

    /// Whether the device sees the view of these pages rather than memory.
    pub(super) fn device_sees_view(&self, pages: PageRange) -> bool {
        self.model.snoops && self.state.lock().mode(pages.start()) == CacheMode::Cached
    }

    /// A device begins to use the pages, past the caches.
    pub(super) fn device_begins(&self, pages: PageRange) {
        let mut state = self.state.lock();
        self.move_by_itself(&mut state);
        let mut unseen = 0;
        self.visit(pages, |line| {
            unseen += u64::from(line.dirty);
            Deed::Keep
        });
        state.counts.unseen += unseen;
    }

    /// A device that went past the caches is done with the pages.
    pub(super) fn device_ends(&self, pages: PageRange) {
        let mut state = self.state.lock();
        if state.mode(pages.start()) == CacheMode::WriteCombined {
            self.visit(pages, |line| match line.dirty {
                true => Deed::Keep,
                false => Deed::Fetch,
            });
        }
        self.move_by_itself(&mut state);
    }

    fn move_by_itself(&self, state: &mut State) {
        if state.random.chance(self.model.spontaneous_per_mille) {
            self.stir(state);
        }
    }

    /// Some lines of a page that was lately used leave, or come.
    fn stir(&self, state: &mut State) {
        let Some(page) = state.any_recent() else {
            return;
        };
        if state.mode(page.start()) == CacheMode::Uncached {
            return;
        }
        let random = &mut state.random;
        let done = self.visit(page, |Seen { dirty, .. }| {
            match (random.chance(500), dirty) {
                (false, _) => Deed::Keep,
                (true, true) => Deed::WriteBack,
                (true, false) => Deed::Fetch,
            }
        });
        state.counts.written_back += done.written;
        state.counts.fetched += done.fetched;
    }

    fn visit(&self, pages: PageRange, decide: impl FnMut(Seen) -> Deed) -> Done {
        let done = self.lines.visit(pages, decide);
        done.expect("memory files are read and written where they are reserved")
    }
}

impl State {
    fn mode(&self, page: u64) -> CacheMode {
        self.modes.get(&page).copied().unwrap_or_default()
    }

    fn set_mode(&mut self, pages: PageRange, mode: CacheMode) {
        for page in pages.start()..pages.end() {
            match mode {
                CacheMode::Cached => self.modes.remove(&page),
                mode => self.modes.insert(page, mode),
            };
        }
    }

    fn used(&mut self, pages: PageRange) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(pages);
    }

    /// A page out of the ranges that were lately used.
    fn any_recent(&mut self) -> Option<PageRange> {
        let len = self.recent.len() as u64;
        let n = (len > 0).then(|| self.random.below(len))?;
        let range = self.recent[usize::try_from(n).expect("few ranges")];
        let page = range.start() + self.random.below(range.len().get());
        PageRange::at(page, PageCount::ONE)
    }
}
