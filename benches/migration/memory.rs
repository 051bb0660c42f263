//! Memory for moves: frames that lie ready, and a window that stays mapped.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Mapped`] stays mapped, readable and
//! writable, until it drops, and whoever is handed a part of one holds the whole by an [`Arc`].

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;

use backends::host::MemfdPages;
use harness::copy::Span;
use parking_lot::Mutex;
use placement::{PAGE_SIZE, PageCount, PageRange};
use ttm::pages::{FrameRun, FrameSpan, Mapped, PageSource};
use ttm::resource::Region;

/// All of a mapping, for plain copies while nothing moves.
pub(crate) fn span(mapped: &Mapped) -> Span<'_> {
    // SAFETY: mapped while the borrow lasts (rule above). The benches use one thread, on which a
    // plain copy and a move take turns.
    unsafe { Span::new(mapped.as_ptr(), mapped.len()) }
}

/// A part of `whole`, which it keeps mapped; no system call.
fn part(whole: &Arc<Mapped>, offset: usize, len: usize) -> Mapped {
    assert!(offset + len <= whole.len(), "{offset}+{len}");
    let at = NonNull::new(whole.as_ptr().wrapping_add(offset)).expect("a mapping is not at null");
    // SAFETY: the part is inside (asserted), and its owner keeps the whole mapped (rule above).
    unsafe { Mapped::new(at, len, Box::new(Arc::clone(whole))) }
}

/// Device memory that the CPU sees whole, and that stays mapped.
pub(crate) struct Window {
    all: Arc<Mapped>,
}

impl Window {
    /// Memory of its own, every page of it there.
    pub(crate) fn new(pages: PageCount) -> ttm::Result<Self> {
        let source = MemfdPages::new()?;
        let run = source.take(pages)?;
        // The mapping keeps the file alive, and with it the run, which nobody else is given.
        let all = source.map(run.span())?;
        all.zero(0, all.len());
        Ok(Self { all: Arc::new(all) })
    }

    /// All of it.
    pub(crate) fn all(&self) -> &Mapped {
        &self.all
    }
}

impl Region for Window {
    fn size(&self) -> PageCount {
        PageCount::from_bytes_ceil(self.all.len() as u64).expect("a size")
    }

    fn aperture(&self) -> PageRange {
        PageRange::at(0, self.size()).expect("a size")
    }

    fn map(&self, pages: PageRange) -> ttm::Result<Mapped> {
        let bytes = |pages: u64| (pages * PAGE_SIZE) as usize;
        Ok(part(
            &self.all,
            bytes(pages.start()),
            bytes(pages.len().get()),
        ))
    }
}

/// Frames that were cleaned before they are asked for, so that taking them costs nothing.
pub(crate) struct ReadyFrames {
    source: MemfdPages,
    /// Mappings that stay, by the first frame; none if frames are mapped for each copy anew.
    kept: Option<Mutex<BTreeMap<FrameSpan, Arc<Mapped>>>>,
    ready: Mutex<Vec<FrameRun>>,
    used: Mutex<Vec<FrameRun>>,
}

impl ReadyFrames {
    /// None yet. `warm` ones stay mapped once they were.
    pub(crate) fn new(warm: bool) -> ttm::Result<Self> {
        Ok(Self {
            source: MemfdPages::new()?,
            kept: warm.then(Mutex::default),
            ready: Mutex::default(),
            used: Mutex::default(),
        })
    }

    /// Overwrites with zeroes what was given back, so that it can be given to the next.
    pub(crate) fn clean(&self) -> ttm::Result<()> {
        for run in self.used.lock().drain(..).rev() {
            let mapped = self.map(run.span())?;
            mapped.zero(0, mapped.len());
            self.ready.lock().push(run);
        }
        Ok(())
    }
}

impl PageSource for ReadyFrames {
    fn take(&self, pages: PageCount) -> ttm::Result<FrameRun> {
        let mut ready = self.ready.lock();
        match ready.pop_if(|run| run.pages() == pages) {
            Some(run) => Ok(run),
            None => self.source.take(pages),
        }
    }

    fn give(&self, run: FrameRun) {
        self.used.lock().push(run);
    }

    fn map(&self, span: FrameSpan) -> ttm::Result<Mapped> {
        let Some(kept) = &self.kept else {
            return self.source.map(span);
        };
        let mut kept = kept.lock();
        let whole = match kept.get(&span) {
            Some(whole) => whole,
            None => {
                let whole = Arc::new(self.source.map(span)?);
                kept.entry(span).or_insert(whole)
            }
        };
        Ok(part(whole, 0, whole.len()))
    }

    fn taken(&self) -> PageCount {
        self.source.taken()
    }
}
