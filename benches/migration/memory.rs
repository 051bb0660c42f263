//! Memory for moves: a window that stays mapped.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Mapped`] stays mapped, readable and
//! writable, until it drops, and whoever is handed a part of one holds the whole by an [`Arc`].

use std::ptr::NonNull;
use std::sync::Arc;

use backends::host::MemfdPages;
use harness::copy::Span;
use placement::{CacheMode, PAGE_SIZE, PageCount, PageRange};
use ttm::cache::Modes;
use ttm::pages::{FileRange, Mapped, PageSource, Want};
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
    unsafe { Mapped::new(at, len, Arc::clone(whole)) }
}

/// Device memory that the CPU sees whole, and that stays mapped.
pub(crate) struct Window {
    all: Arc<Mapped>,
}

impl Window {
    /// Memory of its own, every page of it there.
    pub(crate) fn new(pages: PageCount) -> ttm::Result<Self> {
        let source = MemfdPages::new()?;
        let run = source.take(&Want::new(pages))?;
        // The mapping keeps the file alive, and with it the run, which nobody else is given.
        let all = source.map(run.span(), CacheMode::Cached)?;
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

    fn modes(&self) -> Modes {
        Modes::CACHED
    }

    fn own_mode(&self) -> CacheMode {
        CacheMode::Cached
    }

    fn map(&self, pages: PageRange, _: CacheMode) -> ttm::Result<Mapped> {
        let bytes = |pages: u64| (pages * PAGE_SIZE) as usize;
        Ok(part(
            &self.all,
            bytes(pages.start()),
            bytes(pages.len().get()),
        ))
    }

    fn file(&self, _: PageRange, _: CacheMode) -> ttm::Result<FileRange> {
        Err(ttm::Error::Unsupported("these benches open no windows"))
    }
}
