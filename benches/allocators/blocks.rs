//! Who is asked for pages: spaces of ours, the opponents, and nobody at all.

use offset_allocator::{Allocation, Allocator};
use placement::{Extent, Extents, PageCount, PageRange, Request, Space};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// How many pages, at least one.
    pub(crate) pages: u32,
    /// What the first page is a multiple of: a power of two.
    pub(crate) align: u32,
    /// The page they end at or before.
    pub(crate) end: u32,
}

/// A block of pages, some of them taken.
pub(crate) trait Block {
    /// What is needed to give pages back.
    type Grant;

    /// Takes pages, if there is room for them.
    fn take(&mut self, wish: Wish) -> Option<Self::Grant>;

    /// Gives pages back.
    fn give(&mut self, grant: Self::Grant);

    /// How many pages nobody has.
    fn free(&self) -> u32;
}

fn pages_free(space: &dyn Space) -> u32 {
    u32::try_from(space.free().get()).expect("a block of fewer than 2^32 pages")
}

/// Counts pages and finds none: what a mix costs by itself.
pub(crate) struct Null {
    free: u32,
}

impl Null {
    /// Counts down from `pages`.
    pub(crate) fn new(pages: u32) -> Self {
        Self { free: pages }
    }
}

impl Block for Null {
    type Grant = u32;

    fn take(&mut self, wish: Wish) -> Option<u32> {
        self.free = self.free.checked_sub(wish.pages)?;
        Some(wish.pages)
    }

    fn give(&mut self, pages: u32) {
        self.free += pages;
    }

    fn free(&self) -> u32 {
        self.free
    }
}

fn request(wish: Wish) -> Request {
    let count = |pages: u32| PageCount::new(pages.into()).expect("every u32 is a page count");
    let window = PageRange::new(0, wish.end.into()).expect("a window from the first page on");
    Request::new(count(wish.pages))
        .aligned(count(wish.align))
        .within(window)
}

/// A space of ours, asked for one run.
pub(crate) struct OneRun<'a>(pub(crate) &'a mut dyn Space);

impl Block for OneRun<'_> {
    type Grant = Extent;

    fn take(&mut self, wish: Wish) -> Option<Extent> {
        self.0.take(&request(wish)).ok().map(|extents| extents[0])
    }

    fn give(&mut self, extent: Extent) {
        self.0.give(extent);
    }

    fn free(&self) -> u32 {
        pages_free(self.0)
    }
}

/// A space of ours, asked for any number of runs.
pub(crate) struct ManyRuns<'a>(pub(crate) &'a mut dyn Space);

impl Block for ManyRuns<'_> {
    type Grant = Extents;

    fn take(&mut self, wish: Wish) -> Option<Extents> {
        self.0.take(&request(wish).scattered()).ok()
    }

    fn give(&mut self, extents: Extents) {
        for extent in extents {
            self.0.give(extent);
        }
    }

    fn free(&self) -> u32 {
        pages_free(self.0)
    }
}

/// The offset-allocator crate, which knows neither windows nor alignment; a unit is a page.
pub(crate) struct Offsets(Allocator);

impl Offsets {
    /// An empty block of so many pages.
    pub(crate) fn new(pages: u32) -> Self {
        Self(Allocator::new(pages))
    }
}

impl Block for Offsets {
    type Grant = Allocation;

    fn take(&mut self, wish: Wish) -> Option<Allocation> {
        self.0.allocate(wish.pages)
    }

    fn give(&mut self, grant: Allocation) {
        self.0.free(grant);
    }

    fn free(&self) -> u32 {
        self.0.storage_report().total_free_space
    }
}

/// Which hole [`Naive`] takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    /// The smallest that holds the wish, of those the lowest.
    BestFit,
    /// The lowest that holds the wish.
    FirstFit,
}

/// A sorted list of holes, walked for every wish; without windows and alignment.
pub(crate) struct Naive {
    policy: Policy,
    /// First page and pages of each hole, in address order, no two adjoining.
    holes: Vec<(u32, u32)>,
}

impl Naive {
    /// An empty block of so many pages.
    pub(crate) fn new(pages: u32, policy: Policy) -> Self {
        Self {
            policy,
            holes: vec![(0, pages)],
        }
    }

    fn find(&self, pages: u32) -> Option<usize> {
        let mut fitting = self
            .holes
            .iter()
            .enumerate()
            .filter(|(_, hole)| hole.1 >= pages);
        let found = match self.policy {
            Policy::FirstFit => fitting.next(),
            Policy::BestFit => fitting.min_by_key(|(_, hole)| hole.1),
        };
        found.map(|(index, _)| index)
    }
}

impl Block for Naive {
    type Grant = (u32, u32);

    fn take(&mut self, wish: Wish) -> Option<(u32, u32)> {
        let index = self.find(wish.pages)?;
        let (start, pages) = self.holes[index];
        if pages == wish.pages {
            self.holes.remove(index);
        } else {
            self.holes[index] = (start + wish.pages, pages - wish.pages);
        }
        Some((start, wish.pages))
    }

    fn give(&mut self, (start, pages): (u32, u32)) {
        let next = self.holes.partition_point(|hole| hole.0 < start);
        let joins_next = self
            .holes
            .get(next)
            .is_some_and(|hole| hole.0 == start + pages);
        let joins_last = next > 0 && {
            let last = self.holes[next - 1];
            last.0 + last.1 == start
        };
        match (joins_last, joins_next) {
            (true, true) => {
                let (_, more) = self.holes.remove(next);
                self.holes[next - 1].1 += pages + more;
            }
            (true, false) => self.holes[next - 1].1 += pages,
            (false, true) => self.holes[next] = (start, pages + self.holes[next].1),
            (false, false) => self.holes.insert(next, (start, pages)),
        }
    }

    fn free(&self) -> u32 {
        self.holes.iter().map(|hole| hole.1).sum()
    }
}
