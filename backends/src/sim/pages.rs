//! Frames with physical addresses.
//!
//! The number of a frame is that of its simulated physical page, so masks mean something and runs
//! adjoin only where memory does. What the CPU sees of page *n* is at byte *n* × 4096 of a sparse
//! memory file. With a [`CacheModel`](super::CacheModel) there is a second content, the one that devices see: the
//! CPU's writes have to be cleaned and its lines invalidated, or the wrong bytes really show.
//! Without one CPU and device see the same bytes in every mode.

use core::fmt;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use placement::{CacheMode, PAGE_SIZE, PageCount, PageRange};
use rustix::io::Errno;
use ttm::cache::{Maintenance, Modes};
use ttm::error::{Error, Result};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

use crate::host::{FileMap, discard, host_pages, memfd, out_of_memory, reserve, write_zeroes};

use super::cache::{Cache, CacheCounts};
use super::link::{Found, Link, LinkState};
use super::memory::SimMemory;
use super::physical::Physical;
use super::random::Random;

/// A page source with simulated physical addresses.
///
/// A wish is granted from the zone and node that it names or not at all. Content costs the host
/// memory from taking to giving, three times with a [`CacheModel`](super::CacheModel); more than the host has is
/// [`Error::NoMemory`], whatever the simulated size.
pub struct SimPages {
    memory: SimMemory,
    /// What the CPU sees.
    view: Arc<File>,
    cache: Option<Cache>,
    link: Option<LinkState>,
    /// Pages of memory and swap that the host has.
    host: u64,
    live: Arc<AtomicU64>,
    inner: Mutex<Inner>,
}

struct Inner {
    physical: Physical,
    /// Where runs begin that users have, and how many pages they have together.
    brought: BTreeSet<u64>,
    users: u64,
    /// Counts takes; later ones are greater.
    generation: u64,
}

impl SimPages {
    /// Memory of which nothing is taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no node or a zone that is larger than its addresses;
    /// [`Error::Backend`] if the host gives no memory files.
    pub fn new(memory: SimMemory) -> Result<Self> {
        let physical = Physical::new(&memory)?;
        let bytes = physical.end() * PAGE_SIZE;
        if memory.cache.is_some() && memory.link != Link::Plain {
            return Err(Error::Invalid("memory has caches or a link, not both"));
        }
        let files = || {
            let view = memfd("sim memory")?;
            rustix::fs::ftruncate(&view, bytes)?;
            let view = Arc::new(view);
            let cached = |model| Cache::new(model, Arc::clone(&view), bytes);
            let linked = (memory.link != Link::Plain).then(|| LinkState::new(memory.link, bytes));
            Ok((
                Arc::clone(&view),
                memory.cache.map(cached).transpose()?,
                linked.transpose()?,
            ))
        };
        let (view, cache, link) =
            files().map_err(|error: io::Error| Error::Backend(error.into()))?;
        Ok(Self {
            memory,
            view,
            cache,
            link,
            host: host_pages(),
            live: Arc::new(AtomicU64::new(0)),
            inner: Mutex::new(Inner {
                physical,
                brought: BTreeSet::new(),
                users: 0,
                generation: 0,
            }),
        })
    }

    /// What it was made with.
    #[must_use]
    pub const fn memory(&self) -> &SimMemory {
        &self.memory
    }

    /// The physical address of the first byte of frames.
    #[must_use]
    pub const fn address(&self, span: FrameSpan) -> u64 {
        span.first * PAGE_SIZE
    }

    /// What the caches have done; nothing without a [`CacheModel`](super::CacheModel).
    #[must_use]
    pub fn cache_counts(&self) -> CacheCounts {
        self.cache.as_ref().map(Cache::counts).unwrap_or_default()
    }

    /// Lets some lines of a page that was lately used be written back or fetched by themselves.
    /// The model does the same now and then, as its chance and seed say.
    pub fn tick(&self) {
        if let Some(cache) = &self.cache {
            cache.tick();
        }
    }

    /// How many mappings of frames are alive, devices' included.
    #[must_use]
    pub fn live_mappings(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Takes one free frame, chosen by `seed`, of every `every` that adjoin, until the result
    /// drops: no run of free frames is then twice as long. They do not count as taken. Meant for
    /// small memories; it takes time and space by the frame.
    ///
    /// # Panics
    /// If `every` is 0.
    #[must_use = "dropping it gives the frames back"]
    pub fn fragment(self: &Arc<Self>, seed: u64, every: u64) -> Fragments {
        assert!(every > 0, "one frame of every 0");
        let mut random = Random::new(seed);
        let frames = self.inner.lock().physical.fragment(&mut random, every);
        Fragments {
            home: Arc::clone(self),
            frames,
        }
    }

    /// Frames of a user's own, for [`Device::bring`](ttm::device::Device::bring). They do not count
    /// as taken.
    ///
    /// # Errors
    /// Those of [`PageSource::take`].
    pub fn bring(&self, want: &Want) -> Result<FrameRun<Dirty>> {
        let run = self.take(want)?;
        let mut inner = self.inner.lock();
        inner.brought.insert(run.span().first);
        inner.users += want.pages.get();
        Ok(run.dirtied())
    }

    /// The device's view of frames. [`SimPages::device_ends`] has to follow.
    ///
    /// # Errors
    /// Those of [`PageSource::map`].
    pub(super) fn device_begins(&self, span: FrameSpan) -> Result<Mapped> {
        let pages = self.taken_range(span)?;
        if let Some(link) = &self.link {
            return match link.begins(pages, || self.both_sides(link, pages))? {
                Found::View(pages) => self.map_file(&self.view, pages),
                Found::Shadow => self.map_file(link.shadow(), pages),
            };
        }
        match &self.cache {
            Some(cache) if !cache.device_sees_view(pages) => {
                cache.device_begins(pages);
                self.map_file(cache.dram(), pages)
            }
            _ => self.map_file(&self.view, pages),
        }
    }

    /// Frames as the CPU and as devices see them.
    fn both_sides(&self, link: &LinkState, pages: PageRange) -> Result<(Mapped, Mapped)> {
        let view = self.map_file(&self.view, pages)?;
        Ok((view, self.map_file(link.shadow(), pages)?))
    }

    /// Frames of this memory that are allocated for devices: what happens to others on the way does
    /// not happen to them, as far as they are within reach.
    #[must_use]
    pub fn for_devices(self: &Arc<Self>) -> Arc<dyn PageSource> {
        Arc::new(Handed {
            home: Arc::clone(self),
            for_devices: true,
        })
    }

    /// Frames as they are, from a source that says that devices snoop, whatever they do. What that
    /// leads to can be seen.
    #[must_use]
    pub fn as_if_coherent(self: &Arc<Self>) -> Arc<dyn PageSource> {
        Arc::new(Handed {
            home: Arc::clone(self),
            for_devices: false,
        })
    }

    /// The device is done with frames that it had a view of.
    pub(super) fn device_ends(&self, span: FrameSpan) {
        if let (Some(link), Some(pages)) = (&self.link, range_of(span)) {
            link.ends(pages, || self.both_sides(link, pages));
        }
        if let (Some(cache), Some(pages)) = (&self.cache, range_of(span))
            && !cache.device_sees_view(pages)
        {
            cache.device_ends(pages);
        }
    }

    fn taken_range(&self, span: FrameSpan) -> Result<PageRange> {
        let range = range_of(span).filter(|range| span.file == 0 && !range.is_empty());
        range
            .filter(|range| self.inner.lock().physical.is_taken(*range))
            .ok_or(Error::Invalid("only frames that are taken are mapped"))
    }

    fn map_file(&self, file: &File, pages: PageRange) -> Result<Mapped> {
        let len = usize::try_from(pages.len().bytes())
            .map_err(|_| Error::Invalid("the run is longer than the address space"))?;
        FileMap::populated(file, pages.start() * PAGE_SIZE, len, &self.live)
            .map(FileMap::into_mapped)
            .map_err(|error| Error::Backend(error.into()))
    }

    /// Pages of the host's that a frame costs.
    const fn copies(&self) -> u64 {
        match (&self.cache, &self.link) {
            (Some(_), _) => 3,
            (None, Some(_)) => 2,
            (None, None) => 1,
        }
    }

    fn reserve(&self, pages: PageRange) -> Result<(), Errno> {
        reserve(&self.view, pages)?;
        match &self.cache {
            Some(cache) => cache.reserve(pages),
            None => Ok(()),
        }
    }

    /// Nobody has the frames any more, and their content is gone. If the host lets nobody discard
    /// it, nobody gets them again.
    fn end(&self, pages: PageRange) {
        let view = discard(&self.view, pages);
        let cache = self.cache.as_ref();
        let link = self.link.as_ref();
        let gone = cache.is_none_or(|cache| cache.forget(pages))
            && link.is_none_or(|link| link.forget(pages))
            && view;
        let mut inner = self.inner.lock();
        if inner.brought.remove(&pages.start()) {
            inner.users -= pages.len().get();
        }
        match gone {
            true => inner.physical.give(pages),
            false => inner.physical.retire(pages),
        }
    }
}

impl PageSource for SimPages {
    fn offers(&self) -> Offers {
        let memory = &self.memory;
        let pages = memory.dma32.get() + memory.normal.get() + memory.high.get();
        Offers {
            zones: memory.zones(),
            nodes: memory.nodes,
            modes: Modes::all(),
            snooped: self.cache.as_ref().is_none_or(Cache::snoops),
            runs_are_free: false,
            capacity: PageCount::new(pages).unwrap_or(PageCount::MAX),
            dma32_last: Physical::dma32_last(memory),
        }
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        if want.pages.is_zero() {
            return Err(Error::Invalid("a run of frames has at least one page"));
        }
        let (range, generation) = {
            let mut inner = self.inner.lock();
            // The host would rather kill somebody than refuse what it can never have.
            let taken = inner.physical.taken();
            if want.pages.get() > (self.host / self.copies()).saturating_sub(taken) {
                return Err(Error::no_memory(want.pages));
            }
            let range = inner.physical.take(want, self.memory.zones())?;
            inner.generation += 1;
            (range, inner.generation)
        };
        if let Err(error) = self.reserve(range) {
            self.end(range);
            return Err(out_of_memory(error, want.pages));
        }
        let span = FrameSpan {
            file: 0,
            first: range.start(),
            pages: want.pages,
        };
        Ok(FrameRun::fresh(
            span,
            want.kind.zone,
            want.kind.node,
            generation,
        ))
    }

    /// # Panics
    /// If the frames are not ones that this source gave out.
    fn give(&self, run: FrameRun<Dirty>) {
        let span = run.span();
        let range = self.taken_range(span);
        let range = range.unwrap_or_else(|_| panic!("{span:?} was not taken here"));
        self.end(range);
    }

    fn zero(&self, span: FrameSpan, mode: CacheMode) -> Result<()> {
        let pages = self.taken_range(span)?;
        match &self.cache {
            Some(cache) => cache.zero(pages, mode),
            None => write_zeroes(&self.view, pages),
        }
        .map_err(|error| Error::Backend(error.into()))
    }

    /// Maps frames in `mode`, whatever mode they have: two at once are two views.
    ///
    /// # Errors
    /// [`Error::Invalid`] for frames that nobody has taken; [`Error::Backend`] if the host refuses.
    fn map(&self, span: FrameSpan, mode: CacheMode) -> Result<Mapped> {
        let pages = self.taken_range(span)?;
        match (&self.cache, mode) {
            (Some(cache), CacheMode::Uncached) => self.map_file(cache.dram(), pages),
            (cache, _) => {
                if let Some(cache) = cache {
                    cache.used(pages);
                }
                self.map_file(&self.view, pages)
            }
        }
    }

    /// The file of the view that the CPU has of them in `mode`.
    fn file(&self, span: FrameSpan, mode: CacheMode) -> Result<FileRange> {
        let pages = self.taken_range(span)?;
        let file = match (&self.cache, mode) {
            (Some(cache), CacheMode::Uncached) => cache.dram(),
            (cache, _) => {
                if let Some(cache) = cache {
                    cache.used(pages);
                }
                &self.view
            }
        };
        Ok(FileRange::new(Arc::clone(file), pages.start() * PAGE_SIZE))
    }

    /// # Errors
    /// [`Error::Invalid`] for frames that nobody has taken, or that have not the mode `from`.
    fn switch(&self, spans: &[FrameSpan], from: CacheMode, to: CacheMode) -> Result<()> {
        let ranges = spans.iter().map(|span| self.taken_range(*span));
        let ranges = ranges.collect::<Result<Vec<_>>>()?;
        match &self.cache {
            Some(cache) => cache.switch(&ranges, from, to),
            None => Ok(()),
        }
    }

    fn maintain(&self, span: FrameSpan, what: Maintenance) {
        if let (Some(cache), Ok(pages)) = (&self.cache, self.taken_range(span)) {
            cache.maintain(pages, what);
        }
    }

    fn taken(&self) -> PageCount {
        let inner = self.inner.lock();
        let taken = inner.physical.taken() - inner.users;
        PageCount::new(taken).expect("part of the memory")
    }
}

/// Frames that are handed out otherwise.
struct Handed {
    home: Arc<SimPages>,
    /// Allocated for devices; else said to be snooped.
    for_devices: bool,
}

impl PageSource for Handed {
    fn offers(&self) -> Offers {
        let offers = self.home.offers();
        Offers {
            snooped: offers.snooped || !self.for_devices,
            ..offers
        }
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let run = self.home.take(want)?;
        if self.for_devices
            && let (Some(link), Some(pages)) = (&self.home.link, range_of(run.span()))
        {
            link.allocated(pages);
        }
        Ok(run)
    }

    fn give(&self, run: FrameRun<Dirty>) {
        self.home.give(run);
    }

    fn zero(&self, span: FrameSpan, mode: CacheMode) -> Result<()> {
        self.home.zero(span, mode)
    }

    fn map(&self, span: FrameSpan, mode: CacheMode) -> Result<Mapped> {
        self.home.map(span, mode)
    }

    fn file(&self, span: FrameSpan, mode: CacheMode) -> Result<FileRange> {
        self.home.file(span, mode)
    }

    fn switch(&self, spans: &[FrameSpan], from: CacheMode, to: CacheMode) -> Result<()> {
        self.home.switch(spans, from, to)
    }

    fn maintain(&self, span: FrameSpan, what: Maintenance) {
        self.home.maintain(span, what);
    }

    fn taken(&self) -> PageCount {
        self.home.taken()
    }
}

impl fmt::Debug for SimPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimPages({} taken)", self.taken())
    }
}

/// Single frames that lie in the way of long runs. Dropping it gives them back.
pub struct Fragments {
    home: Arc<SimPages>,
    frames: Vec<PageRange>,
}

impl Fragments {
    /// How many frames lie in the way.
    #[must_use]
    pub fn frames(&self) -> PageCount {
        PageCount::new(self.frames.len() as u64).expect("fewer than pages")
    }
}

impl Drop for Fragments {
    fn drop(&mut self) {
        self.home.inner.lock().physical.mend(&self.frames);
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fragments({} frames)", self.frames.len())
    }
}

fn range_of(span: FrameSpan) -> Option<PageRange> {
    PageRange::at(span.first, span.pages)
}
