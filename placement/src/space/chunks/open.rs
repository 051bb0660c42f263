//! The chunks that are open, by page number.
//!
//! Each is a [`Range`] of its own over its page numbers, so nothing crosses from one to the next.
//! The numbers come from one more `Range`, over all there are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Chunk;
use super::widths::Widths;
use crate::space::{Range, Space, Trim};
use crate::{Extent, Extents, PageCount, PageRange, Request};

/// The chunks that are open, and the numbers that closed ones still have.
///
/// # Invariants
/// `chunks` is sorted. `widths` has zero for a refused chunk, and for any other what none of its
/// holes exceeds. A refused chunk has grants. `pages`, `taken` and `empty` are sums over the
/// chunks: of all pages, of those taken, and of the pages of chunks without grants. No generation
/// is above `generation`.
#[derive(Debug)]
pub(super) struct Open {
    numbers: Range,
    chunks: Vec<Held>,
    widths: Widths,
    pages: u64,
    taken: u64,
    empty: u64,
    generation: u64,
}

/// An open chunk.
#[derive(Debug)]
struct Held {
    numbers: Extent,
    space: Range,
    refused: bool,
}

impl Held {
    const fn range(&self) -> PageRange {
        self.space.pages()
    }

    fn pages(&self) -> u64 {
        self.range().len().get()
    }

    fn taken(&self) -> u64 {
        self.pages() - self.space.free().get()
    }

    /// What none of the holes exceeds that may be granted.
    fn widest(&self) -> u64 {
        match self.refused {
            true => 0,
            false => self.space.widest(),
        }
    }

    /// Its pages if it could be closed, else none.
    fn empty(&self) -> u64 {
        match self.taken() {
            0 => self.pages(),
            _ => 0,
        }
    }

    fn describe(&self) -> Chunk {
        Chunk {
            range: self.range(),
            taken: PageCount::within_max(self.taken()),
            refused: self.refused,
        }
    }
}

impl Open {
    pub(super) fn new() -> Self {
        Self {
            numbers: Range::over(PageRange::ALL),
            chunks: Vec::new(),
            widths: Widths::new(),
            pages: 0,
            taken: 0,
            empty: 0,
            generation: 0,
        }
    }

    /// The pages of all chunks.
    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Those of them that are granted.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The pages of chunks of which nothing is granted.
    pub(super) const fn empty(&self) -> u64 {
        self.empty
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Chunk> + '_ {
        self.chunks.iter().map(Held::describe)
    }

    pub(super) fn chunk_of(&self, page: u64) -> Option<Chunk> {
        self.find(page).map(|index| self.chunks[index].describe())
    }

    /// The widest hole of all.
    pub(super) fn largest_hole(&self) -> u64 {
        let usable = self.chunks.iter().filter(|chunk| !chunk.refused);
        let holes = usable.map(|chunk| chunk.space.largest_hole().get());
        holes.max().unwrap_or(0)
    }

    /// Takes one run from the first chunk that has it.
    #[inline]
    pub(super) fn take_run(&mut self, request: &Request) -> Option<Extents> {
        let request = Request {
            contiguous: true,
            ..*request
        };
        let pages = request.pages.get();
        let mut from = 0;
        while let Some(index) = self.widths.first(from, pages) {
            let taken = self.take_in(index, &request);
            if taken.is_some() {
                return taken;
            }
            from = index + 1;
        }
        None
    }

    /// Takes as much of a scattered request as there is: multiples of the alignment first, and what
    /// is left over below it once all those are found.
    pub(super) fn gather(&mut self, request: &Request) -> Extents {
        let align = request.align.get();
        let tail = request.pages.get() % align;
        let mut whole = request.pages.get() - tail;
        let mut extents = Extents::new();
        let mut from = 0;
        while whole > 0
            && let Some(index) = self.widths.first(from, align)
        {
            whole -= self.gather_in(index, whole, request, &mut extents);
            from = index + 1;
        }
        let end = Request {
            pages: PageCount::within_max(tail),
            ..*request
        };
        if whole == 0 && tail > 0 {
            extents.extend(self.take_run(&end).into_iter().flatten());
        }
        extents
    }

    /// Takes up to `most` pages, a multiple of the alignment, from one chunk; returns how many.
    ///
    /// What is granted leaves all other aligned places whole, so halving what is asked for until
    /// nothing more is granted takes all there is.
    fn gather_in(
        &mut self,
        index: usize,
        most: u64,
        request: &Request,
        extents: &mut Extents,
    ) -> u64 {
        let align = request.align.get();
        let free = self.chunks[index].space.free().get();
        let mut ask = (free - free % align).min(most);
        let mut sum = 0;
        while ask > 0 {
            let part = Request {
                pages: PageCount::within_max(ask),
                contiguous: false,
                ..*request
            };
            match self.take_in(index, &part) {
                Some(granted) => {
                    extents.extend(granted);
                    sum += ask;
                    ask = ask.min(most - sum);
                }
                None => ask = ask / 2 - ask / 2 % align,
            }
        }
        sum
    }

    /// Takes from one chunk.
    #[inline]
    fn take_in(&mut self, index: usize, request: &Request) -> Option<Extents> {
        let chunk = &mut self.chunks[index];
        let empty = chunk.empty();
        chunk.space.resume(self.generation);
        let taken = chunk.space.take(request).ok();
        self.generation = chunk.space.generation();
        if taken.is_some() {
            self.taken += request.pages.get();
            self.empty -= empty;
        }
        self.widths.set(index, chunk.widest());
        taken
    }

    /// Gives an extent back; drops a refused chunk with its last one. False if no chunk has it.
    #[inline]
    pub(super) fn give(&mut self, extent: Extent) -> bool {
        let Some(index) = self.find(extent.start()) else {
            return false;
        };
        let chunk = &mut self.chunks[index];
        chunk.space.give(extent);
        self.taken -= extent.pages().get();
        self.empty += chunk.empty();
        self.widths.set(index, chunk.widest());
        if chunk.refused && chunk.taken() == 0 {
            self.drop_at(index);
        }
        true
    }

    /// As [`Trim::trim`]; `None` if no chunk has the extent.
    pub(super) fn trim(&mut self, extent: Extent, keep: PageCount) -> Option<Extent> {
        let index = self.find(extent.start())?;
        let chunk = &mut self.chunks[index];
        let kept = chunk.space.trim(extent, keep);
        self.taken -= extent.pages().get() - keep.get();
        self.widths.set(index, chunk.widest());
        Some(kept)
    }

    /// Takes numbers for a chunk of `pages` pages that holds `request`.
    pub(super) fn reserve(&mut self, pages: u64, request: &Request) -> Option<Extent> {
        // Aligned to a power of two above its size, what is aligned as a number is also aligned
        // as an offset in the chunk. Above the last such power only zero is a multiple, so the
        // last one serves.
        let own = pages.next_power_of_two().min(1 << 51);
        let align = own.max(request.align.get());
        let want = Request::new(PageCount::within_max(pages))
            .aligned(PageCount::within_max(align))
            .within(request.window);
        let numbers = self.numbers.take(&want).ok()?;
        numbers.into_iter().next()
    }

    /// Opens a chunk and takes one run from it.
    pub(super) fn open(&mut self, numbers: Extent, request: &Request) -> Extents {
        let range = numbers.range();
        let index = self.place_of(range.start());
        let chunk = Held {
            numbers,
            space: Range::over(range),
            refused: false,
        };
        self.chunks.insert(index, chunk);
        self.pages += range.len().get();
        self.empty += range.len().get();
        self.weigh_all();
        let request = Request {
            contiguous: true,
            ..*request
        };
        let taken = self.take_in(index, &request);
        taken.expect("a chunk begins aligned and holds the request it is opened for")
    }

    /// The empty chunk with the highest numbers below `page`.
    pub(super) fn empty_below(&self, page: u64) -> Option<PageRange> {
        let below = &self.chunks[..self.place_of(page)];
        let empty = below.iter().rev().find(|chunk| chunk.empty() > 0);
        empty.map(Held::range)
    }

    /// Closes the empty chunk at `range`, which keeps its numbers until they are
    /// [released](Self::release).
    pub(super) fn close(&mut self, range: PageRange) -> Extent {
        let index = self.place_of(range.start());
        debug_assert_eq!(self.chunks[index].empty(), range.len().get());
        self.remove(index)
    }

    /// Makes the numbers of a closed chunk free for others.
    pub(super) fn release(&mut self, numbers: Extent) {
        self.numbers.give(numbers);
    }

    /// Grants nothing more of the chunk of `page`; drops it if it is empty. False if there is no
    /// such chunk, or it is refused already.
    pub(super) fn refuse(&mut self, page: u64) -> bool {
        let Some(index) = self.find(page) else {
            return false;
        };
        let chunk = &mut self.chunks[index];
        if chunk.refused {
            return false;
        }
        chunk.refused = true;
        self.widths.set(index, 0);
        if self.chunks[index].taken() == 0 {
            self.drop_at(index);
        }
        true
    }

    /// Drops an empty chunk with its numbers.
    fn drop_at(&mut self, index: usize) {
        let numbers = self.remove(index);
        self.release(numbers);
    }

    fn remove(&mut self, index: usize) -> Extent {
        let chunk = self.chunks.remove(index);
        self.pages -= chunk.pages();
        self.empty -= chunk.empty();
        self.weigh_all();
        chunk.numbers
    }

    fn weigh_all(&mut self) {
        self.widths.rebuild(self.chunks.iter().map(Held::widest));
    }

    /// How many chunks begin before `page`.
    fn place_of(&self, page: u64) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.range().start() < page)
    }

    /// The chunk that has `page`.
    #[inline]
    fn find(&self, page: u64) -> Option<usize> {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.range().start() <= page);
        let index = after.checked_sub(1)?;
        self.chunks[index].range().contains(page).then_some(index)
    }

    /// The ranges granted, sorted.
    pub(super) fn granted(&self) -> Vec<PageRange> {
        let granted = self.chunks.iter().flat_map(|chunk| chunk.space.taken());
        granted.collect()
    }

    /// Checks the invariants; `closed` are the closed chunks whose numbers are not released.
    pub(super) fn check(&self, closed: &[Extent]) -> Result<(), String> {
        self.numbers.check()?;
        self.widths.check()?;
        let numbers = self.chunks.iter().map(|chunk| chunk.numbers);
        let mut numbered: Vec<_> = numbers.chain(closed.iter().copied()).collect();
        numbered.sort_unstable_by_key(|numbers| numbers.start());
        let numbered: Vec<_> = numbered.into_iter().map(Extent::range).collect();
        if numbered != self.numbers.taken() {
            return Err(format!(
                "chunks have numbers {numbered:?}, taken are {:?}",
                self.numbers.taken()
            ));
        }
        if !self.chunks.is_sorted_by_key(|chunk| chunk.range().start()) {
            return Err("the chunks are out of order".into());
        }
        for (index, chunk) in self.chunks.iter().enumerate() {
            let lost = |broken| format!("chunk {}: {broken}", chunk.range());
            self.check_chunk(index, chunk).map_err(lost)?;
        }
        let sum = |of: fn(&Held) -> u64| self.chunks.iter().map(of).sum::<u64>();
        let sums = [sum(Held::pages), sum(Held::taken), sum(Held::empty)];
        match sums == [self.pages, self.taken, self.empty] {
            true => Ok(()),
            false => Err(format!(
                "pages, taken, empty are counted as {:?}, but are {sums:?}",
                [self.pages, self.taken, self.empty]
            )),
        }
    }

    fn check_chunk(&self, index: usize, chunk: &Held) -> Result<(), String> {
        chunk.space.check()?;
        if chunk.range() != chunk.numbers.range() {
            return Err(format!("has the numbers {}", chunk.numbers));
        }
        if chunk.refused && chunk.taken() == 0 {
            return Err("is refused and empty, and still there".into());
        }
        let generation = chunk.space.generation();
        if generation > self.generation {
            return Err(format!("generation {generation} is in the future"));
        }
        let width = self.widths.get(index);
        let fits = match chunk.refused {
            true => width == 0,
            false => width >= chunk.space.largest_hole().get(),
        };
        match fits {
            true => Ok(()),
            false => Err(format!("is believed to be {width} pages wide")),
        }
    }
}
