//! The default space: any run of pages, found by address order.

mod balance;
mod columns;
mod holes;
mod leaf;
mod links;
mod node;
mod path;
mod tree;
mod walk;
mod want;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::holes::Holes;
use self::links::{Neighbour, Place};
use self::node::Weight;
use self::want::Want;
use super::grants::Grants;
use super::{Space, Trim, align_down, align_up};
use crate::{Extent, Extents, PageCount, PageRange, Request, TakeError};

/// Pages in one run wherever a hole holds it.
///
/// A request without wishes is given a tight hole at a low address; one that is
/// [`top_down`](Request::top_down) the highest pages that fit. A scattered request is also given
/// one run if there is one; else wide holes are used up before narrow ones.
///
/// Memory is used by the hole and by the extent, never by the page. Finding a hole takes the
/// logarithm of their number, and so does giving an extent back; with a hole next to it that takes a
/// few steps only. That nothing is wide enough is known at once when it is asked again. Only a window
/// or an alignment that disagrees with many wide holes makes a search look at each of them.
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
    pages: PageRange,
    holes: Holes,
    grants: Grants,
}

impl Range {
    /// Makes a space of `size` pages of which nothing is taken.
    pub fn new(size: PageCount) -> Self {
        Self::over(PageRange::within_max(0, size.get()))
    }

    /// Makes a space of the pages `pages`, wherever they begin, of which nothing is taken.
    pub(super) fn over(pages: PageRange) -> Self {
        Self {
            pages,
            holes: Holes::new(pages),
            grants: Grants::new(),
        }
    }

    /// The pages there are.
    pub(super) const fn pages(&self) -> PageRange {
        self.pages
    }

    /// What no hole exceeds: seldom more than the widest has, and known at once.
    pub(super) fn widest(&self) -> u64 {
        let free = self.pages.len().get() - self.grants.taken();
        self.holes.widest().map_or(free, |widest| widest.min(free))
    }

    /// The generation of the last grant, or what [`resume`](Self::resume) was told.
    pub(super) const fn generation(&self) -> u64 {
        self.grants.generation()
    }

    /// Makes the generations of all later grants greater than `generation`.
    pub(super) fn resume(&mut self, generation: u64) {
        self.grants.resume(generation);
    }

    /// Finds room for one run: a hole, and the run's first page in it.
    fn find(&mut self, pages: u64, window: PageRange, request: &Request) -> Option<(Place, u64)> {
        if self.is_plain(request) && pages <= Weight::MAX as u64 {
            let place = self.holes.find(pages)?;
            return Some((place, self.holes.hole(place).start));
        }
        self.holes.find_special(&Want {
            pages,
            window,
            align: request.align.get(),
            top_down: request.top_down,
        })
    }

    /// Whether any hole that is wide enough will do, and any place in it.
    #[inline]
    fn is_plain(&self, request: &Request) -> bool {
        request.window.start() <= self.pages.start()
            && request.window.end() >= self.pages.end()
            && request.align.get() == 1
            && !request.top_down
    }

    /// Answers what is not a plain request that can be granted.
    #[cold]
    #[inline(never)]
    fn take_special(&mut self, request: &Request) -> Result<Extents, TakeError> {
        let window = request.usable_window(self.pages)?;
        let pages = request.pages.get();
        if let Some((place, start)) = self.find(pages, window, request) {
            return Ok(Extents::from_buf([self.grant(place, start, pages)]));
        }
        if request.contiguous || self.free() < request.pages {
            return Err(TakeError::Full);
        }
        self.take_scattered(window, request)
    }

    #[inline]
    fn grant(&mut self, place: Place, start: u64, pages: u64) -> Extent {
        let range = PageRange::within_max(start, start + pages);
        let extent = self.grants.grant(range, 0);
        self.holes.carve(place, start, range.end(), extent.token());
        extent
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
        let mut extents = Extents::new();
        // The last run may be shorter than the alignment, all others are multiples of it.
        let tail = request.pages.get() % align;
        let mut left = request.pages.get() - tail;
        let mut wide = align << (left.max(align) / align).ilog2();
        while left > 0 {
            let Some((place, _)) = self.find(wide.min(left), window, request) else {
                wide /= 2;
                continue;
            };
            let (start, run) = self.widen(place, left, window, request);
            extents.push(self.grant(place, start, run));
            left -= run;
        }
        if tail > 0 {
            let found = self.find(tail, window, request);
            let (place, start) = found.expect("room was counted above");
            extents.push(self.grant(place, start, tail));
        }
        Ok(extents)
    }

    /// As much of a hole as can be had of `left` pages: the first page and how many.
    fn widen(&self, place: Place, left: u64, window: PageRange, request: &Request) -> (u64, u64) {
        let align = request.align.get();
        let hole = self.holes.hole(place);
        let (low, high) = (hole.start.max(window.start()), hole.end.min(window.end()));
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
        if align == 1 && window == self.pages {
            return true;
        }
        let mut whole = 0;
        let mut tail_fits = tail == 0;
        self.holes.visit(window, |hole| {
            let (low, high) = (hole.start.max(window.start()), hole.end.min(window.end()));
            let room = high.saturating_sub(align_up(low, align));
            whole += align_down(room, align);
            tail_fits |= room % align >= tail;
            whole >= request.pages.get()
        });
        let left = request.pages.get() - tail;
        whole >= left && (tail_fits || whole > left)
    }
}

impl Space for Range {
    #[inline]
    fn take(&mut self, request: &Request) -> Result<Extents, TakeError> {
        let pages = request.pages.get();
        if self.is_plain(request)
            && !request.pages.is_zero()
            && let Some(place) = self.holes.find(pages)
        {
            let start = self.holes.hole(place).start;
            return Ok(Extents::from_buf([self.grant(place, start, pages)]));
        }
        self.take_special(request)
    }

    #[inline]
    fn give(&mut self, extent: Extent) {
        self.grants.revoke(&extent);
        let end = extent.range().end();
        self.holes.release(extent.token(), extent.start(), end);
    }

    fn size(&self) -> PageCount {
        self.pages.len()
    }

    fn free(&self) -> PageCount {
        PageCount::within_max(self.pages.len().get() - self.grants.taken())
    }

    fn largest_hole(&self) -> PageCount {
        PageCount::within_max(self.holes.largest())
    }

    fn check(&self) -> Result<(), String> {
        self.grants.check()?;
        self.holes.check()?;
        let grants = self.grants.iter().map(|(range, token)| {
            let sides = self.holes.links.sides(token);
            let this = Neighbour::grant(token);
            (range.start(), range.end(), this, sides.before, sides.after)
        });
        let mut blocks: Vec<_> = grants.chain(self.holes.blocks()).collect();
        blocks.sort_unstable_by_key(|&(start, end, ..)| (start, end));
        let (mut end, mut last, mut next) = (self.pages.start(), Neighbour::BORDER, None);
        for (start, block_end, block, before, after) in blocks {
            if start != end {
                return Err(format!(
                    "pages {end:#x}..{start:#x} are lost, or taken twice"
                ));
            }
            if before != last || next.is_some_and(|next| next != block) {
                return Err(format!("{last:?} and {block:?} meet at {start:#x} unknown"));
            }
            (end, last, next) = (block_end, block, Some(after));
        }
        if next.is_some_and(|next| next != Neighbour::BORDER) {
            return Err(format!("{last:?} is the last block and links on"));
        }
        match end == self.pages.end() {
            true => Ok(()),
            false => Err(format!("pages of {} end at {end:#x}", self.pages)),
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
            let (start, end) = (kept.range().end(), extent.range().end());
            self.holes.release_tail(extent.token(), start, end);
        }
        kept
    }
}
