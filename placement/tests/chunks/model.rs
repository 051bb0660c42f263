//! A naive model of chunks: each answer found by trying every page, each new chunk foretold.

use std::collections::BTreeMap;

use placement::{
    ChunkSizes, Chunks, Extent, PageCount, PageRange, Request, Space, TakeError, Trim,
};

pub(crate) fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("a size in range")
}

pub(crate) fn sizes(least: u64, most: u64, granule: u64) -> ChunkSizes {
    ChunkSizes {
        least: pages(least),
        most: pages(most),
        granule: pages(granule),
    }
}

/// What has to become of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Plan {
    Refusal(TakeError),
    /// One run of a chunk that is open.
    Run,
    /// One run of a new chunk of this size, once these are closed.
    New {
        size: u64,
        closing: Vec<PageRange>,
    },
    /// Several runs of open chunks, and a chunk of this size.
    Several {
        size: Option<u64>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    range: PageRange,
    refused: bool,
}

/// What is open, who has it, and what the memory behind it can do.
pub(crate) struct Model {
    pub(crate) space: Chunks,
    sizes: ChunkSizes,
    limit: u64,
    chunks: Vec<Known>,
    pub(crate) held: Vec<Extent>,
    newest: BTreeMap<u64, u64>,
    /// Pages closed since a chunk was refused.
    returned: Option<u64>,
    /// Closed by a take, and not yet drained.
    pub(crate) closed: Vec<PageRange>,
}

impl Model {
    pub(crate) fn new(limit: u64, sizes: ChunkSizes) -> Self {
        Self {
            space: Chunks::new(pages(limit), sizes),
            sizes,
            limit,
            chunks: Vec::new(),
            held: Vec::new(),
            newest: BTreeMap::new(),
            returned: None,
            closed: Vec::new(),
        }
    }

    pub(crate) fn taken(&self) -> u64 {
        self.held.iter().map(|extent| extent.pages().get()).sum()
    }

    pub(crate) fn open(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| chunk.range.len().get())
            .sum()
    }

    fn taken_in(&self, range: PageRange) -> u64 {
        let inside = |extent: &&Extent| range.contains_range(&extent.range());
        let inside = self.held.iter().filter(inside);
        inside.map(|extent| extent.pages().get()).sum()
    }

    /// The empty chunks, the highest first.
    fn empties(&self) -> Vec<PageRange> {
        let ranges = self.chunks.iter().rev().map(|chunk| chunk.range);
        ranges.filter(|range| self.taken_in(*range) == 0).collect()
    }

    fn is_free(&self, range: PageRange) -> bool {
        let chunk = |known: &Known| !known.refused && known.range.contains_range(&range);
        self.chunks.iter().any(chunk)
            && !self
                .held
                .iter()
                .any(|extent| extent.range().intersects(&range))
    }

    /// The first pages at which a run of `len` pages can be in an open chunk.
    fn places(&self, request: &Request, len: u64) -> Vec<u64> {
        let numbers = self
            .chunks
            .iter()
            .flat_map(|chunk| chunk.range.start()..chunk.range.end());
        numbers
            .filter(|start| start % request.align.get() == 0)
            .filter(|&start| {
                let range = PageRange::at(start, pages(len)).unwrap();
                request.window.contains_range(&range) && self.is_free(range)
            })
            .collect()
    }

    fn room(&self, closing: u64) -> u64 {
        let room = self.limit.saturating_sub(self.open() - closing);
        room.min(
            self.returned
                .map_or(u64::MAX, |returned| returned + closing),
        )
    }

    /// The size of a new chunk, by counting up.
    fn size(&self, len: u64, closing: u64) -> u64 {
        let open = self.open() - closing;
        let [least, most, granule] =
            [self.sizes.least, self.sizes.most, self.sizes.granule].map(PageCount::get);
        let mut next = least;
        while 0 < next && 2 * next <= open / 4 {
            next *= 2;
        }
        let wish = match self.returned {
            None => len.max(next.min(most)),
            Some(_) => len,
        };
        let room = self.room(closing);
        let wholes = (1..).map(|n| n * granule).take_while(|&size| size <= room);
        let wholes: Vec<u64> = wholes.take_while(|&size| size < wish + granule).collect();
        match wholes.last() {
            Some(&size) if size >= len => size,
            _ => room,
        }
    }

    fn plan(&self, request: &Request) -> Plan {
        let (len, align) = (request.pages.get(), request.align.get());
        if len == 0 || !align.is_power_of_two() {
            return Plan::Refusal(TakeError::Invalid);
        }
        let first = request.window.start().next_multiple_of(align);
        if first + len > request.window.end() || len > self.limit {
            return Plan::Refusal(TakeError::Never);
        }
        if self.taken() + len > self.limit {
            return Plan::Refusal(TakeError::Full);
        }
        if !self.places(request, len).is_empty() {
            return Plan::Run;
        }
        if len <= self.room(0) {
            return Plan::New {
                size: self.size(len, 0),
                closing: Vec::new(),
            };
        }
        let several = match request.contiguous {
            true => None,
            false => self.plan_several(request),
        };
        several.unwrap_or_else(|| self.plan_replacement(len))
    }

    fn plan_several(&self, request: &Request) -> Option<Plan> {
        let (len, align) = (request.pages.get(), request.align.get());
        let (blocks, tail) = (len / align, len % align);
        let full = self.places(request, align);
        let missing = blocks.saturating_sub(full.len() as u64);
        let elsewhere = |start: &u64| !full.contains(start);
        let tail_fits = tail == 0
            || full.len() as u64 > blocks
            || self.places(request, tail).iter().any(elsewhere);
        if missing == 0 && tail_fits {
            return Some(Plan::Several { size: None });
        }
        let rest = missing * align + tail;
        (rest < len && rest <= self.room(0)).then(|| Plan::Several {
            size: Some(self.size(rest, 0)),
        })
    }

    fn plan_replacement(&self, len: u64) -> Plan {
        let (mut closing, mut closed) = (Vec::new(), 0);
        for range in self.empties() {
            closing.push(range);
            closed += range.len().get();
            if len <= self.room(closed) {
                let size = self.size(len, closed);
                return Plan::New { size, closing };
            }
        }
        Plan::Refusal(TakeError::Full)
    }

    /// Takes from the space and asserts that it did what the model foretells; whether it granted.
    pub(crate) fn take(&mut self, request: &Request) -> bool {
        let plan = self.plan(request);
        let places = self.places(request, request.pages.get().max(1));
        let anywhere = request.window == PageRange::ALL;
        let extents = match self.space.take(request) {
            Ok(extents) => extents,
            Err(error) => {
                // Within a window no chunk need be opened or closed.
                let opens = matches!(plan, Plan::New { .. } | Plan::Several { size: Some(_) });
                let excused = !anywhere && opens && error == TakeError::Full;
                assert!(
                    excused || plan == Plan::Refusal(error),
                    "{request:?} {plan:?} {error:?}"
                );
                return false;
            }
        };
        let (opened, closed) = self.follow();
        match &plan {
            Plan::Refusal(_) => panic!("{request:?} {plan:?} {extents:?}"),
            Plan::Run => {
                assert_eq!(
                    (opened, extents.len()),
                    (None, 1),
                    "{request:?} {extents:?}"
                );
                let place = if request.top_down {
                    let top = |start: &&u64| self.same_chunk(**start, extents[0].start());
                    places.iter().rev().find(top)
                } else {
                    places.iter().find(|start| **start == extents[0].start())
                };
                assert_eq!(place, Some(&extents[0].start()), "{request:?}");
            }
            Plan::New { size, closing } if anywhere => {
                assert_eq!(opened, Some(*size), "{request:?} {plan:?}");
                assert_eq!(
                    (&closed, extents.len()),
                    (closing, 1),
                    "{request:?} {extents:?}"
                );
            }
            Plan::Several { size } if anywhere => {
                assert_eq!((opened, &closed), (*size, &Vec::new()), "{request:?}");
            }
            Plan::New { .. } | Plan::Several { .. } => {}
        }
        self.closed.extend(closed);
        self.own_all(request, &extents);
        true
    }

    fn same_chunk(&self, a: u64, b: u64) -> bool {
        self.chunks
            .iter()
            .any(|chunk| chunk.range.contains(a) && chunk.range.contains(b))
    }

    /// Learns which chunk a take has opened, and which it has closed.
    fn follow(&mut self) -> (Option<u64>, Vec<PageRange>) {
        let now: Vec<PageRange> = self.space.chunks().map(|chunk| chunk.range).collect();
        let mut gone: Vec<PageRange> = self.chunks.iter().map(|chunk| chunk.range).collect();
        gone.retain(|range| !now.contains(range));
        gone.reverse();
        for range in &gone {
            assert_eq!(self.taken_in(*range), 0, "{range} was closed with grants");
            self.forget(*range);
        }
        let old = |range: &PageRange| self.chunks.iter().any(|chunk| chunk.range == *range);
        let new: Vec<PageRange> = now.into_iter().filter(|range| !old(range)).collect();
        assert!(new.len() <= 1, "{new:?}");
        for &range in &new {
            let numbered = self.closed.iter().chain(&gone);
            assert!(!numbered.clone().any(|closed| closed.intersects(&range)));
            assert!(
                range.len().get() <= self.room(0),
                "{range} is more than there is room for"
            );
            self.returned = self.returned.map(|returned| returned - range.len().get());
            self.chunks.push(Known {
                range,
                refused: false,
            });
            self.chunks.sort_by_key(|chunk| chunk.range.start());
            assert!(self.open() <= self.limit);
        }
        (new.first().map(|range| range.len().get()), gone)
    }

    /// Forgets a closed chunk.
    fn forget(&mut self, range: PageRange) {
        self.chunks.retain(|chunk| chunk.range != range);
        self.returned = self.returned.map(|returned| returned + range.len().get());
    }

    fn own_all(&mut self, request: &Request, extents: &[Extent]) {
        let sum: u64 = extents.iter().map(|extent| extent.pages().get()).sum();
        assert_eq!(sum, request.pages.get());
        let align = request.align.get();
        for (index, extent) in extents.iter().enumerate() {
            let range = extent.range();
            assert!(
                request.window.contains_range(&range),
                "{request:?} {extent}"
            );
            assert!(
                self.is_free(range),
                "{extent} is taken, refused or crosses a chunk"
            );
            let chunk = self.space.chunk_of(extent.start()).expect("it was opened");
            let offset = extent.start() - chunk.range.start();
            assert_eq!(
                (extent.start() % align, offset % align),
                (0, 0),
                "{request:?} {extent}"
            );
            let last = index + 1 == extents.len();
            assert!(
                last || range.len().get().is_multiple_of(align),
                "{extents:?}"
            );
            for page in range.start()..range.end() {
                let before = self.newest.insert(page, extent.generation());
                assert!(
                    before < Some(extent.generation()),
                    "page {page} of {extent}"
                );
            }
            self.held.push(*extent);
        }
    }

    pub(crate) fn give(&mut self, index: usize) {
        let extent = self.held.swap_remove(index);
        self.space.give(extent);
        self.drop_refused();
    }

    /// A refused chunk goes with its last grant, and returns no memory.
    fn drop_refused(&mut self) {
        let gone = |chunk: &Known| chunk.refused && self.taken_in(chunk.range) == 0;
        let gone: Vec<bool> = self.chunks.iter().map(gone).collect();
        let mut gone = gone.into_iter();
        self.chunks.retain(|_| gone.next() == Some(false));
    }

    pub(crate) fn trim(&mut self, index: usize, keep: u64) {
        let old = self.held[index];
        let kept = self.space.trim(old, pages(keep));
        assert_eq!(
            kept.range(),
            PageRange::at(old.start(), pages(keep)).unwrap()
        );
        assert_eq!(kept.generation(), old.generation());
        self.held[index] = kept;
    }

    pub(crate) fn refuse(&mut self, page: u64) {
        self.space.refuse(page);
        let chunk = self
            .chunks
            .iter_mut()
            .find(|chunk| chunk.range.contains(page));
        if let Some(chunk) = chunk
            && !chunk.refused
        {
            chunk.refused = true;
            self.returned = Some(chunk.range.len().get() / 2);
            self.drop_refused();
        }
    }

    pub(crate) fn close_empty(&mut self, keep: u64) {
        let mut expected = Vec::new();
        let empties = self.empties();
        let mut left: u64 = empties.iter().map(|range| range.len().get()).sum();
        for range in empties {
            if left > keep {
                left -= range.len().get();
                self.forget(range);
                expected.push(range);
            }
        }
        assert_eq!(self.space.close_empty(pages(keep)), expected);
    }

    pub(crate) fn drain_closed(&mut self) {
        let drained: Vec<PageRange> = self.space.drain_closed().collect();
        assert_eq!(drained, std::mem::take(&mut self.closed));
        assert_eq!(self.space.drain_closed().count(), 0);
    }

    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
        self.space.set_limit(pages(limit));
    }

    pub(crate) fn allow_growth(&mut self) {
        self.returned = None;
        self.space.allow_growth();
    }

    /// Asserts that the space and the model hold the same.
    pub(crate) fn compare(&self) {
        let space = &self.space;
        space.check().unwrap_or_else(|broken| panic!("{broken}"));
        let mut ranges: Vec<_> = self.held.iter().map(|extent| extent.range()).collect();
        ranges.sort_by_key(|range| range.start());
        assert_eq!(space.taken(), ranges);
        let taken = self.taken();
        assert_eq!(space.free().get() + taken, space.size().get());
        assert_eq!(space.size().get(), self.limit.max(taken));
        assert_eq!(space.limit().get(), self.limit);
        assert_eq!(space.open().get(), self.open());
        assert_eq!(space.growth_stopped(), self.returned.is_some());
        let empties = self.empties();
        let empty: u64 = empties.iter().map(|range| range.len().get()).sum();
        assert_eq!(space.empties().get(), empty);
        let chunks: Vec<_> = space.chunks().collect();
        assert_eq!(chunks.len(), self.chunks.len());
        for (chunk, known) in chunks.iter().zip(&self.chunks) {
            assert_eq!((chunk.range, chunk.refused), (known.range, known.refused));
            assert_eq!(chunk.taken.get(), self.taken_in(known.range));
            assert_eq!(space.chunk_of(known.range.start()), Some(*chunk));
            assert_eq!(space.chunk_of(known.range.end() - 1), Some(*chunk));
        }
        let granted =
            |len: &u64| !matches!(self.plan(&Request::new(pages(*len))), Plan::Refusal(_));
        let longest = (1..=self.limit).rev().find(granted);
        assert_eq!(space.largest_hole().get(), longest.unwrap_or(0));
    }

    /// What tells this state from others.
    pub(crate) fn state(&self) -> Vec<u64> {
        let mut held: Vec<_> = self.held.iter().map(|extent| extent.range()).collect();
        held.sort_by_key(|range| range.start());
        let refused = self.chunks.iter().filter(|chunk| chunk.refused);
        let lists = [
            held,
            self.chunks.iter().map(|chunk| chunk.range).collect(),
            refused.map(|chunk| chunk.range).collect(),
            self.closed.clone(),
        ];
        let mut state = vec![
            self.limit,
            self.returned.map_or(u64::MAX, |returned| returned),
        ];
        for list in lists {
            state.push(u64::MAX);
            state.extend(list.iter().flat_map(|range| [range.start(), range.end()]));
        }
        state
    }
}
