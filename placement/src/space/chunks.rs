//! A space that grows in chunks, for memory that is made of separate allocations.

mod growth;
mod open;
mod widths;

use alloc::string::String;
use alloc::vec::Vec;

use self::growth::Growth;
use self::open::Open;
use super::grants::unknown;
use super::{Space, Trim};
use crate::{Extent, Extents, PageCount, PageRange, Request, TakeError};

pub use growth::ChunkSizes;

/// Pages in chunks that are opened when they are needed and can be closed when they are empty.
///
/// It says which chunks there should be; their memory is allocated and freed by the caller. A
/// chunk is a range of page numbers, and no extent crosses from one to the next.
///
/// ```text
///   page numbers   0      8      16             32          40
///                  |chunk |      |    chunk     |   chunk   |
///                  |##..##| none |..............|#####......|
///                                 empty: stays open, or is closed for room
/// ```
///
/// A request is given one run of the first chunk that has it. If none has, a chunk is opened
/// ([`ChunkSizes`] says how large) within the limit, for the room of empty ones if need be. A
/// [scattered](Request::scattered) request is given runs of several chunks before an empty one is
/// closed. [`top_down`](Request::top_down) is obeyed within a chunk. What is aligned is so by its
/// page number and by its offset in the chunk. A window narrower than all numbers is obeyed; no
/// chunk is closed to have its numbers, so within a window a request may stay
/// [`Full`](TakeError::Full).
///
/// Neither what is taken nor what is open grows above the limit. It can be lowered below either:
/// then nothing is granted until enough was given back, and no chunk opened until enough were
/// closed.
///
/// # The memory behind it
/// After [`take`](Space::take), the caller
/// 1. frees the memory of the chunks that [`drain_closed`](Self::drain_closed) answers,
/// 2. allocates that of the [chunk](Self::chunk_of) of each extent, if it has none yet,
/// 3. calls [`refuse`](Self::refuse) where there is none to be had; then, or where it finds the
///    chunk refused by another, it gives the extents back and asks again, once more was given back
///    if the space is full.
///
/// This ends. After a refusal new chunks only have half of what was refused, as there may be less
/// than a whole chunk, and pages of chunks that were closed since; the next refusal takes those away.
/// So each refusal leaves less to open, and at last the space is full; one whose chunks are all gone
/// stays full until [`allow_growth`](Self::allow_growth), to be called when the memory may have more
/// again.
///
/// Finding a chunk takes the logarithm of their number, and then what a [`Range`](super::Range) of
/// its size does. Memory is allocated when a chunk is opened.
///
/// ```
/// use placement::{ChunkSizes, Chunks, PageCount, Request, Space, TakeError};
///
/// # fn main() -> Result<(), TakeError> {
/// let pages = |n| PageCount::new(n).expect("few");
/// let sizes = ChunkSizes { least: pages(16), most: pages(64), granule: pages(4) };
/// let mut heap = Chunks::new(pages(100), sizes);
///
/// let small = heap.take(&Request::new(pages(3)))?[0];
/// let large = heap.take(&Request::new(pages(70)))?[0];
/// // Here the caller allocates 16 pages, and 72.
/// let chunks: Vec<_> = heap.chunks().map(|chunk| chunk.range.len().get()).collect();
/// assert_eq!(chunks, [16, 72]);
/// assert_eq!(heap.take(&Request::new(pages(28))), Err(TakeError::Full));
///
/// // 72 pages cannot be had: somebody else has them. There may be half of them, and no more.
/// heap.refuse(large.start());
/// heap.give(large);
/// assert_eq!(heap.open(), pages(16));
/// assert_eq!(heap.take(&Request::new(pages(40))), Err(TakeError::Full));
///
/// // The memory of the closed chunk is there for another.
/// heap.give(small);
/// assert_eq!(heap.close_empty(PageCount::ZERO).len(), 1);
/// assert_eq!(heap.take(&Request::new(pages(14)))?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Chunks {
    limit: u64,
    growth: Growth,
    open: Open,
    // Closed to make room, and not yet drained: their numbers are still taken.
    closed: Vec<Extent>,
}

/// A chunk of [`Chunks`] that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Its page numbers.
    pub range: PageRange,
    /// How many of its pages are granted.
    pub taken: PageCount,
    /// Whether it has no memory, and goes with its last extent.
    pub refused: bool,
}

impl Chunks {
    /// Makes a space of up to `limit` pages, none of them open.
    ///
    /// # Panics
    /// If `sizes` has a granule of no page, or more as the least than as the most.
    pub fn new(limit: PageCount, sizes: ChunkSizes) -> Self {
        Self {
            limit: limit.get(),
            growth: Growth::new(sizes),
            open: Open::new(),
            closed: Vec::new(),
        }
    }

    /// How many pages may be taken, or open.
    pub const fn limit(&self) -> PageCount {
        PageCount::within_max(self.limit)
    }

    /// Changes the limit; what is taken or open stays so.
    pub fn set_limit(&mut self, limit: PageCount) {
        self.limit = limit.get();
    }

    /// How many pages the open chunks have.
    pub const fn open(&self) -> PageCount {
        PageCount::within_max(self.open.pages())
    }

    /// How many pages the open chunks have of which nothing is taken.
    pub const fn empties(&self) -> PageCount {
        PageCount::within_max(self.open.empty())
    }

    /// The open chunks, sorted.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        self.open.iter()
    }

    /// The open chunk that has `page`.
    pub fn chunk_of(&self, page: u64) -> Option<Chunk> {
        self.open.chunk_of(page)
    }

    /// Closes empty chunks, the highest first, while they have more than `keep` pages together.
    /// Returns the chunks whose memory can be freed.
    pub fn close_empty(&mut self, keep: PageCount) -> Vec<PageRange> {
        let mut closed = Vec::new();
        while self.open.empty() > keep.get()
            && let Some(range) = self.open.empty_below(u64::MAX)
        {
            let numbers = self.open.close(range);
            self.open.release(numbers);
            self.growth.closed(range.len().get());
            closed.push(range);
        }
        closed
    }

    /// Hands out the chunks that [`take`](Space::take) has closed, each once; their memory can be
    /// freed.
    ///
    /// Until then no chunk gets their page numbers.
    pub fn drain_closed(&mut self) -> impl Iterator<Item = PageRange> + '_ {
        for &numbers in &self.closed {
            self.open.release(numbers);
        }
        self.closed.drain(..).map(Extent::range)
    }

    /// Says that there is no memory for the chunk of `page`.
    ///
    /// Nothing more is granted of it, and it goes with its last extent. New chunks are as small as
    /// their requests from now on, and have half of its pages together, and those of chunks that are
    /// closed. Of a chunk that is refused already, or is there no more, nothing is changed.
    pub fn refuse(&mut self, page: u64) {
        let pages = self
            .chunk_of(page)
            .map_or(0, |chunk| chunk.range.len().get());
        if self.open.refuse(page) {
            self.growth.stop(pages);
        }
    }

    /// Whether a chunk was refused, so that new ones only have half as many pages as that had, and
    /// those of chunks closed since.
    pub const fn growth_stopped(&self) -> bool {
        self.growth.is_stopped()
    }

    /// Allows chunks to be opened within the limit again.
    pub fn allow_growth(&mut self) {
        self.growth.allow();
    }

    /// How many pages a new chunk may have once `closing` pages of empty chunks are closed.
    fn room(&self, closing: u64) -> u64 {
        let open = self.open.pages() - closing;
        self.growth.cap(self.limit.saturating_sub(open), closing)
    }

    /// Answers what no open chunk has in one run.
    #[cold]
    #[inline(never)]
    fn take_growing(&mut self, request: &Request) -> Result<Extents, TakeError> {
        if let Some(extents) = self.open_one(request) {
            return Ok(extents);
        }
        if !request.contiguous
            && let Some(extents) = self.take_scattered(request)
        {
            return Ok(extents);
        }
        self.replace_empty(request).ok_or(TakeError::Full)
    }

    /// Opens a chunk for `request`, closing none.
    fn open_one(&mut self, request: &Request) -> Option<Extents> {
        let numbers = self.reserve(request, 0)?;
        Some(self.open_at(numbers, request))
    }

    /// Takes runs of several chunks, the last from a new one if need be; all or nothing.
    fn take_scattered(&mut self, request: &Request) -> Option<Extents> {
        let mut extents = self.open.gather(request);
        let gathered: u64 = extents.iter().map(|extent| extent.pages().get()).sum();
        let rest = Request {
            pages: PageCount::within_max(request.pages.get() - gathered),
            ..*request
        };
        if rest.pages.is_zero() {
            return Some(extents);
        }
        if let Some(end) = self.open_one(&rest) {
            extents.extend(end);
            return Some(extents);
        }
        for extent in extents {
            self.open.give(extent);
        }
        None
    }

    /// Closes as many empty chunks as make room for `request`, the highest first, and opens one.
    fn replace_empty(&mut self, request: &Request) -> Option<Extents> {
        let pages = request.pages.get();
        if self.room(self.open.empty()) < pages {
            return None;
        }
        let (mut lowest, mut closing) = (u64::MAX, 0);
        while self.room(closing) < pages {
            let range = self.open.empty_below(lowest)?;
            lowest = range.start();
            closing += range.len().get();
        }
        let numbers = self.reserve(request, closing)?;
        while closing > 0 {
            let range = self.open.empty_below(u64::MAX)?;
            closing -= range.len().get();
            self.growth.closed(range.len().get());
            self.closed.push(self.open.close(range));
        }
        Some(self.open_at(numbers, request))
    }

    /// Takes numbers for a chunk that holds `request`, if it may be opened once `closing` pages
    /// are closed.
    fn reserve(&mut self, request: &Request, closing: u64) -> Option<Extent> {
        let (pages, room) = (request.pages.get(), self.room(closing));
        if pages > room {
            return None;
        }
        let size = self.growth.size(pages, self.open.pages() - closing, room);
        let numbers = self.open.reserve(size, request);
        // A window may be too narrow for more than what is asked for.
        numbers.or_else(|| self.open.reserve(pages, request))
    }

    fn open_at(&mut self, numbers: Extent, request: &Request) -> Extents {
        self.growth.opened(numbers.pages().get());
        self.open.open(numbers, request)
    }
}

impl Space for Chunks {
    #[inline]
    fn take(&mut self, request: &Request) -> Result<Extents, TakeError> {
        request.usable_window(PageRange::ALL)?;
        let pages = request.pages.get();
        if pages > self.limit {
            return Err(TakeError::Never);
        }
        if self.open.taken() + pages > self.limit {
            return Err(TakeError::Full);
        }
        match self.open.take_run(request) {
            Some(extents) => Ok(extents),
            None => self.take_growing(request),
        }
    }

    #[inline]
    fn give(&mut self, extent: Extent) {
        if !self.open.give(extent) {
            unknown(&extent);
        }
    }

    /// The limit, or what is taken where that is more.
    fn size(&self) -> PageCount {
        PageCount::within_max(self.limit.max(self.open.taken()))
    }

    fn free(&self) -> PageCount {
        PageCount::within_max(self.limit.saturating_sub(self.open.taken()))
    }

    /// The longest run of an open chunk, or of one that could be opened.
    fn largest_hole(&self) -> PageCount {
        let new = self.room(self.open.empty());
        let longest = self.open.largest_hole().max(new);
        PageCount::within_max(longest.min(self.free().get()))
    }

    fn check(&self) -> Result<(), String> {
        self.open.check(&self.closed)
    }

    fn taken(&self) -> Vec<PageRange> {
        self.open.granted()
    }
}

impl Trim for Chunks {
    fn trim(&mut self, extent: Extent, keep: PageCount) -> Extent {
        match self.open.trim(extent, keep) {
            Some(kept) => kept,
            None => unknown(&extent),
        }
    }
}
