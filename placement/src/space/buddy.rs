//! Power-of-two blocks.

mod forest;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::forest::{Forest, Want};
use super::grants::Grants;
use super::{Space, Trim, align_down};
use crate::{Extent, Extents, PageCount, PageRange, Request, TakeError};

/// Blocks of a power of two of pages, each at a multiple of its size.
///
/// One run of `n` pages is cut from the front of a block of the next power of two, and the rest of
/// the block is free again at once. So it is refused where runs are free but no block is: a space
/// of six pages is a block of four and one of two, and never holds five in one run
/// ([`TakeError::Never`]). A scattered request takes one block if it can, else the greatest blocks
/// first. Any size will do; it is cut into one block for each bit.
///
/// Taking and giving depend on how often blocks are split and merged, not on how many there are.
///
/// ```
/// use placement::{Buddy, PageCount, Request, Space, TakeError};
///
/// # fn main() -> Result<(), TakeError> {
/// let pages = |n| PageCount::new(n).expect("few");
/// let mut vram = Buddy::new(pages(16));
///
/// let three = vram.take(&Request::new(pages(3)))?;
/// assert_eq!(three[0].start() % 4, 0);
/// assert_eq!((vram.free(), vram.largest_hole()), (pages(13), pages(8)));
///
/// // 13 pages are free, the greatest block has eight.
/// assert_eq!(vram.take(&Request::new(pages(12))), Err(TakeError::Full));
/// assert_eq!(vram.take(&Request::new(pages(12)).scattered())?.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Buddy {
    size: u64,
    forest: Forest,
    grants: Grants,
}

impl Buddy {
    /// Makes a space of `size` pages of which nothing is taken.
    pub fn new(size: PageCount) -> Self {
        Self {
            size: size.get(),
            forest: Forest::new(size.get()),
            grants: Grants::new(),
        }
    }

    /// Takes one run.
    #[inline]
    fn take_run(&mut self, want: &Want) -> Option<Extent> {
        let order = want.order();
        let plain = !want.top_down
            && want.align >> order <= 1
            && want.window.start() == 0
            && want.window.end() == self.size;
        let (block, start) = match plain {
            true => self.forest.take_any(order)?,
            false => self.forest.take_special(want)?,
        };
        if want.pages < 1 << order {
            self.forest.shrink(block, 1 << order, want.pages);
        }
        let range = PageRange::within_max(start, start + want.pages);
        Some(self.grants.grant(range, block))
    }

    /// Takes several blocks, the greatest first; nothing unless all of it fits.
    #[cold]
    fn take_scattered(&mut self, want: &Want) -> Result<Extents, TakeError> {
        // The last run may be shorter than the alignment, all others are multiples of it.
        let tail = want.pages % want.align;
        if !self.ever_holds_scattered(want, tail) {
            return Err(TakeError::Never);
        }
        if self.free().get() < want.pages {
            return Err(TakeError::Full);
        }
        let mut extents = Extents::new();
        let mut left = want.pages - tail;
        let mut block = self.forest.largest();
        while left > 0 && block >= want.align {
            block = block.min(1 << left.ilog2());
            match self.take_run(&Want {
                pages: block,
                ..*want
            }) {
                Some(extent) => {
                    extents.push(extent);
                    left -= block;
                }
                None => block /= 2,
            }
        }
        if left == 0 && tail > 0 {
            match self.take_run(&Want {
                pages: tail,
                ..*want
            }) {
                Some(extent) => extents.push(extent),
                None => left = tail,
            }
        }
        if left > 0 {
            extents.into_iter().for_each(|extent| self.give(extent));
            return Err(TakeError::Full);
        }
        Ok(extents)
    }

    /// Whether the empty space holds the request in blocks that are multiples of its alignment.
    fn ever_holds_scattered(&self, want: &Want, tail: u64) -> bool {
        // The window holds the request in one run, so its first aligned page is in bounds.
        let first = super::align_up(want.window.start(), want.align);
        let whole = align_down(want.window.end() - first, want.align);
        let left = want.pages - tail;
        let after = PageRange::within_max(first + left, want.window.end());
        left + want.align <= whole
            || tail == 0
            || Want {
                pages: tail,
                window: after,
                ..*want
            }
            .fits(self.size)
    }
}

impl Space for Buddy {
    #[inline]
    fn take(&mut self, request: &Request) -> Result<Extents, TakeError> {
        let want = Want {
            window: request.usable_window(PageRange::within_max(0, self.size))?,
            pages: request.pages.get(),
            align: request.align.get(),
            top_down: request.top_down,
        };
        match self.take_run(&want) {
            Some(extent) => Ok(Extents::from_buf([extent])),
            None if !request.contiguous => self.take_scattered(&want),
            None if want.fits(self.size) => Err(TakeError::Full),
            None => Err(TakeError::Never),
        }
    }

    #[inline]
    fn give(&mut self, extent: Extent) {
        let block = self.grants.revoke(&extent);
        self.forest.give(block, extent.pages().get());
    }

    fn size(&self) -> PageCount {
        PageCount::within_max(self.size)
    }

    fn free(&self) -> PageCount {
        PageCount::within_max(self.size - self.grants.taken())
    }

    /// The pages of the greatest free block: runs are cut from one block.
    fn largest_hole(&self) -> PageCount {
        PageCount::within_max(self.forest.largest())
    }

    fn check(&self) -> Result<(), String> {
        self.grants.check()?;
        let (mut blocks, mut free) = (Vec::new(), 0);
        self.forest.check(&mut blocks, &mut free)?;
        if free != self.free().get() {
            return Err(format!(
                "{free} pages are in free blocks, {} are free",
                self.free().get()
            ));
        }
        // Each extent is some blocks in a row, in the order in which both are sorted.
        let mut blocks = blocks.into_iter();
        for (range, _) in self.grants.sorted() {
            let mut end = range.start();
            while end < range.end() {
                match blocks.next() {
                    Some(block) if block.start() == end && block.end() <= range.end() => {
                        end = block.end();
                    }
                    other => return Err(format!("taken block {other:?} in extent {range}")),
                }
            }
        }
        match blocks.next() {
            Some(block) => Err(format!("block {block} is taken by nobody")),
            None => Ok(()),
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

impl Trim for Buddy {
    fn trim(&mut self, extent: Extent, keep: PageCount) -> Extent {
        let (kept, block) = self.grants.shorten(extent, keep);
        self.forest.shrink(block, extent.pages().get(), keep.get());
        kept
    }
}
