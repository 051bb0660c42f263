//! The default space: any run of pages, found by address order.

mod columns;
mod holes;
mod node;
mod path;
mod walk;
mod want;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::holes::Holes;
use self::path::Path;
use super::grants::Grants;
use super::{Space, Trim, align_down, align_up};
use crate::{Extent, Extents, PageCount, PageRange, Request, TakeError};

/// Pages in one run wherever a hole holds it.
///
/// A request without wishes is given a tight hole at a low address; one that is
/// [`top_down`](Request::top_down) the highest pages that fit. A scattered request is also given
/// one run if there is one; else wide holes are used up before narrow ones.
///
/// Memory is used by the hole and by the extent, never by the page. Finding, splitting and merging
/// take the logarithm of the number of holes; that nothing is wide enough is known at once. Only a
/// window or an alignment that disagrees with many wide holes makes a search look at each of them.
///
/// ```
/// use placement::{PageCount, PageRange, Range, Request, Space, TakeError};
///
/// # fn main() -> Result<(), TakeError> {
/// let pages = |n| PageCount::new(n).expect("few");
/// let mut vram = Range::new(pages(64));
///
/// let page = Request::new(pages(1));
/// let middle = vram.take(&page.within(PageRange::at(32, pages(1)).expect("low")))?;
/// assert_eq!(middle[0].start(), 32);
///
/// // 63 pages are free, but not in one run.
/// let most = Request::new(pages(40));
/// assert_eq!(vram.take(&most), Err(TakeError::Full));
/// assert_eq!(vram.take(&most.scattered())?.len(), 2);
/// assert_eq!(vram.take(&Request::new(pages(65))), Err(TakeError::Never));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Range {
    size: u64,
    holes: Holes,
    grants: Grants,
}

impl Range {
    /// Makes a space of `size` pages of which nothing is taken.
    pub fn new(size: PageCount) -> Self {
        Self {
            size: size.get(),
            holes: Holes::new(size.get()),
            grants: Grants::new(),
        }
    }

    /// Finds room for one run; returns its first page, and in `path` the way to its hole.
    #[inline]
    fn find(
        &self,
        pages: u64,
        window: PageRange,
        request: &Request,
        path: &mut Path,
    ) -> Option<u64> {
        let plain = request.align.get() == 1
            && !request.top_down
            && window.start() == 0
            && window.end() == self.size;
        match i16::try_from(pages) {
            Ok(pages) if plain => self.holes.find(pages, path),
            _ if !self.holes.may_hold(pages) => None,
            _ => self.holes.find_special(pages, window, request, path),
        }
    }

    #[inline]
    fn grant(&mut self, path: &Path, start: u64, pages: u64) -> Extent {
        self.holes.carve(path, start, pages);
        self.grants
            .grant(PageRange::within_max(start, start + pages), 0)
    }

    /// Takes several runs: first from all holes at least as wide as a power of two, then from
    /// those of half that width, and so on; nothing unless all of it fits.
    #[cold]
    fn take_scattered(
        &mut self,
        window: PageRange,
        request: &Request,
    ) -> Result<Extents, TakeError> {
        if !self.holds_scattered(window, request) {
            return Err(TakeError::Full);
        }
        let align = request.align.get();
        let (mut extents, mut path) = (Extents::new(), Path::EMPTY);
        // The last run may be shorter than the alignment, all others are multiples of it.
        let tail = request.pages.get() % align;
        let mut left = request.pages.get() - tail;
        let mut wide = align << (left.max(align) / align).ilog2();
        while left > 0 {
            if self
                .find(wide.min(left), window, request, &mut path)
                .is_none()
            {
                wide /= 2;
                continue;
            }
            let (start, run) = self.widen(&path, left, window, request);
            extents.push(self.grant(&path, start, run));
            left -= run;
        }
        if tail > 0 {
            let start = self.find(tail, window, request, &mut path);
            let start = start.expect("room was counted above");
            extents.push(self.grant(&path, start, tail));
        }
        Ok(extents)
    }

    /// As much of the path's hole as can be had of `left` pages: the first page and how many.
    fn widen(&self, path: &Path, left: u64, window: PageRange, request: &Request) -> (u64, u64) {
        let align = request.align.get();
        let (start, end) = self.holes.hole_at(path);
        let (low, high) = (start.max(window.start()), end.min(window.end()));
        let first = align_up(low, align);
        let run = align_down(high - first, align).min(left);
        match request.top_down {
            true => (align_down(high - run, align), run),
            false => (first, run),
        }
    }

    /// Whether the holes of the window hold the request in runs of multiples of its alignment.
    fn holds_scattered(&self, window: PageRange, request: &Request) -> bool {
        let align = request.align.get();
        let tail = request.pages.get() % align;
        if align == 1 && window.start() == 0 && window.end() == self.size {
            return true;
        }
        let mut whole = 0;
        let mut tail_fits = tail == 0;
        for (start, end) in self.holes.from(window.start()) {
            let (low, high) = (start.max(window.start()), end.min(window.end()));
            if start >= window.end() || whole >= request.pages.get() {
                break;
            }
            let room = high.saturating_sub(align_up(low, align));
            whole += align_down(room, align);
            tail_fits |= room % align >= tail;
        }
        let left = request.pages.get() - tail;
        whole >= left && (tail_fits || whole > left)
    }
}

impl Space for Range {
    #[inline]
    fn take(&mut self, request: &Request) -> Result<Extents, TakeError> {
        let window = request.usable_window(self.size)?;
        let pages = request.pages.get();
        let mut path = Path::EMPTY;
        if let Some(start) = self.find(pages, window, request, &mut path) {
            return Ok(Extents::from_buf([self.grant(&path, start, pages)]));
        }
        if request.contiguous || self.free() < request.pages {
            return Err(TakeError::Full);
        }
        self.take_scattered(window, request)
    }

    #[inline]
    fn give(&mut self, extent: Extent) {
        self.grants.revoke(extent);
        self.holes.release(extent.start(), extent.range().end());
    }

    fn size(&self) -> PageCount {
        PageCount::within_max(self.size)
    }

    fn free(&self) -> PageCount {
        PageCount::within_max(self.size - self.grants.taken())
    }

    fn largest_hole(&self) -> PageCount {
        PageCount::within_max(self.holes.largest())
    }

    fn check(&self) -> Result<(), String> {
        self.grants.check()?;
        self.holes.check()?;
        let mut pieces: Vec<_> = self.taken().iter().map(|r| (r.start(), r.end())).collect();
        pieces.extend(self.holes.iter());
        pieces.sort_unstable();
        let mut end = 0;
        for (start, next) in pieces {
            if start != end {
                return Err(format!(
                    "pages {end:#x}..{start:#x} are lost, or taken twice"
                ));
            }
            end = next;
        }
        match end == self.size {
            true => Ok(()),
            false => Err(format!("pages end at {end:#x}, not at {:#x}", self.size)),
        }
    }

    fn taken(&self) -> Vec<PageRange> {
        self.grants
            .sorted()
            .into_iter()
            .map(|(range, _)| range)
            .collect()
    }
}

impl Trim for Range {
    fn trim(&mut self, extent: Extent, keep: PageCount) -> Extent {
        let (kept, _) = self.grants.shorten(extent, keep);
        if keep < extent.pages() {
            self.holes.release(kept.range().end(), extent.range().end());
        }
        kept
    }
}
