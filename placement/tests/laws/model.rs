//! A naive space: one entry a page, and each answer found by trying every place.

use placement::{Extent, PageCount, PageRange, Request, TakeError, Trim};

/// Which space the model stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Range,
    Buddy,
    Unbounded,
    Chunks,
}

pub(crate) fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("a size in range")
}

/// Who has each page, and the last generation seen on it.
pub(crate) struct Model {
    kind: Kind,
    owners: Vec<Option<u64>>,
    newest: Vec<u64>,
    pub(crate) held: Vec<Extent>,
}

impl Model {
    pub(crate) fn new(kind: Kind, size: u64) -> Self {
        let size = size as usize;
        Self {
            kind,
            owners: vec![None; size],
            newest: vec![0; size],
            held: Vec::new(),
        }
    }

    fn is_free(&self, start: u64, len: u64, empty: bool) -> bool {
        let end = start + len;
        end <= self.owners.len() as u64
            && (empty
                || self.owners[start as usize..end as usize]
                    .iter()
                    .all(Option::is_none))
    }

    /// The first pages at which one run can be, `len` pages long.
    fn places(&self, request: &Request, len: u64, empty: bool) -> Vec<u64> {
        let (step, block) = match self.kind {
            Kind::Buddy => {
                let block = len.next_power_of_two();
                (block.max(request.align.get()), block)
            }
            _ => (request.align.get(), len),
        };
        let size = self.owners.len() as u64;
        let window = request.window;
        (window.start().min(size)..window.end().min(size))
            .filter(|start| start % step == 0 && start + len <= window.end())
            .filter(|&start| self.is_free(start, block, empty))
            .collect()
    }

    /// Whether the request fits: in one run, or in several if it may be scattered.
    fn fits(&self, request: &Request, empty: bool) -> bool {
        let (len, align) = (request.pages.get(), request.align.get());
        if !self.places(request, len, empty).is_empty() {
            return true;
        }
        if request.contiguous {
            return false;
        }
        let (whole, tail) = (len / align, len % align);
        let slots = Request {
            window: request.window,
            ..*request
        };
        let aligned = |len: u64| self.places(&slots, len, empty);
        // All places of `align` pages at multiples of `align`: they cannot overlap.
        let full = aligned(align);
        let tail_fits = tail == 0 || aligned(tail).iter().any(|start| !full.contains(start));
        full.len() as u64 > whole || (full.len() as u64 == whole && tail_fits)
    }

    fn verdict(&self, request: &Request) -> Result<(), TakeError> {
        if request.pages.is_zero() || !request.align.get().is_power_of_two() {
            return Err(TakeError::Invalid);
        }
        match (self.fits(request, true), self.fits(request, false)) {
            (false, _) => Err(TakeError::Never),
            (true, false) => Err(TakeError::Full),
            (true, true) => Ok(()),
        }
    }

    /// Takes from the space and asserts that it did what it may.
    pub(crate) fn take(&mut self, space: &mut dyn Trim, request: &Request) -> bool {
        let verdict = self.verdict(request);
        let places = match verdict {
            Ok(()) => self.places(request, request.pages.get(), false),
            Err(_) => Vec::new(),
        };
        let extents = match space.take(request) {
            Ok(extents) => extents,
            Err(error) => {
                assert_eq!(Err(error), verdict, "{:?} {request:?}", self.kind);
                return false;
            }
        };
        assert_eq!(verdict, Ok(()), "{:?} {request:?} {extents:?}", self.kind);
        assert!(
            extents.len() == 1 || places.is_empty(),
            "{request:?} could be one run"
        );
        let sum: u64 = extents.iter().map(|extent| extent.pages().get()).sum();
        assert_eq!(sum, request.pages.get());
        for (index, extent) in extents.iter().enumerate() {
            let range = extent.range();
            assert!(
                request.window.contains_range(&range),
                "{request:?} {extent}"
            );
            assert_eq!(
                range.start() % request.align.get(),
                0,
                "{request:?} {extent}"
            );
            let last = index + 1 == extents.len();
            assert!(
                last || range.len().get().is_multiple_of(request.align.get()),
                "{extents:?}"
            );
            self.own(*extent);
        }
        if request.top_down && extents.len() == 1 {
            assert_eq!(Some(&extents[0].start()), places.last(), "{request:?}");
        }
        true
    }

    fn own(&mut self, extent: Extent) {
        for page in extent.start() as usize..extent.range().end() as usize {
            assert_eq!(self.owners[page], None, "page {page} of {extent}");
            assert!(
                extent.generation() > self.newest[page],
                "page {page} of {extent}"
            );
            self.owners[page] = Some(extent.generation());
            self.newest[page] = extent.generation();
        }
        self.held.push(extent);
    }

    pub(crate) fn give(&mut self, space: &mut dyn Trim, index: usize) {
        let extent = self.held.swap_remove(index);
        space.give(extent);
        self.disown(extent.range());
    }

    pub(crate) fn trim(&mut self, space: &mut dyn Trim, index: usize, keep: u64) {
        let old = self.held[index];
        let kept = space.trim(old, pages(keep));
        assert_eq!(
            kept.range(),
            PageRange::at(old.start(), pages(keep)).unwrap()
        );
        assert_eq!(kept.generation(), old.generation());
        self.disown(PageRange::new(kept.range().end(), old.range().end()).unwrap());
        self.held[index] = kept;
    }

    fn disown(&mut self, range: PageRange) {
        self.owners[range.start() as usize..range.end() as usize].fill(None);
    }

    /// Asserts that the space and the model hold the same.
    pub(crate) fn compare(&self, space: &dyn Trim) {
        space
            .check()
            .unwrap_or_else(|broken| panic!("{:?}: {broken}", self.kind));
        let mut taken: Vec<_> = self.held.iter().map(|extent| extent.range()).collect();
        taken.sort_by_key(|range| range.start());
        assert_eq!(space.taken(), taken);
        let sum: u64 = taken.iter().map(|range| range.len().get()).sum();
        assert_eq!(space.free().get() + sum, space.size().get());
        let size = self.owners.len() as u64;
        let one_fits = |len: &u64| {
            !self
                .places(&Request::new(pages(*len)), *len, false)
                .is_empty()
        };
        let mut lengths = (1..=size).rev().filter(|len| match self.kind {
            Kind::Buddy => len.is_power_of_two(),
            _ => true,
        });
        assert_eq!(
            space.largest_hole().get(),
            lengths.find(one_fits).unwrap_or(0)
        );
    }
}
