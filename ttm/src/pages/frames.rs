//! Runs of frames: which, of what kind, and whether they are zero.

use core::fmt;
use core::marker::PhantomData;

use placement::{CacheMode, PageCount};

use crate::cache::{Area, Memory};

/// Which frames: a description that owns nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameSpan {
    /// The page file, as its source numbers them.
    pub file: u32,
    /// The first page in the file.
    pub first: u64,
    /// How many pages.
    pub pages: PageCount,
}

impl FrameSpan {
    /// The part of `pages` pages that begins `offset` pages into this one.
    ///
    /// # Panics
    /// If the part is not inside.
    #[must_use]
    pub fn part(&self, offset: u64, pages: PageCount) -> Self {
        assert!(
            offset
                .checked_add(pages.get())
                .is_some_and(|end| end <= self.pages.get()),
            "{offset}+{} pages of {self:?}",
            pages.get()
        );
        Self {
            file: self.file,
            first: self.first + offset,
            pages,
        }
    }

    /// The page after the last.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first + self.pages.get()
    }

    /// Whether both have a page in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.file == other.file && self.first < other.end() && other.first < self.end()
    }

    /// The same pages, as a ledger names them.
    #[must_use]
    pub const fn area(&self) -> Area {
        Area {
            memory: Memory::Frames(self.file),
            first: self.first,
            pages: self.pages,
        }
    }
}

/// The least order that holds `pages`: 0 for one, 9 for 512, and for 257 as well.
///
/// ```
/// use ttm::pages::order_of;
/// use ttm::placement::PageCount;
/// let order = |n| order_of(PageCount::new(n).unwrap());
/// assert_eq!([order(1), order(2), order(3), order(512), order(513)], [0, 1, 2, 9, 10]);
/// ```
#[must_use]
pub const fn order_of(pages: PageCount) -> u8 {
    match pages.get() {
        0 | 1 => 0,
        n => (u64::BITS - (n - 1).leading_zeros()) as u8,
    }
}

/// Which addresses frames have, as far as their source promises any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Zone {
    /// Below 4 GiB.
    Dma32,
    /// Wherever the source likes. Memory of the host's is here: its real addresses are unknown.
    #[default]
    Normal,
    /// Above what a kernel of 32 bits would keep mapped.
    High,
}

impl Zone {
    /// All, from the lowest.
    pub const ALL: [Self; 3] = [Self::Dma32, Self::Normal, Self::High];
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dma32 => "dma32",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

/// What frames are like: what a pool sorts them by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FrameKind {
    /// Which addresses they have.
    pub zone: Zone,
    /// The NUMA node that they are on, as the source numbers them.
    pub node: u8,
    /// Their cache mode.
    pub mode: CacheMode,
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} node {}", self.mode, self.zone, self.node)
    }
}

/// A wish for frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// How many, adjoining.
    pub pages: PageCount,
    /// Of what kind.
    pub kind: FrameKind,
}

impl Want {
    /// `pages` frames of the default kind: cached, any address, node 0.
    #[must_use]
    pub fn new(pages: PageCount) -> Self {
        Self {
            pages,
            kind: FrameKind::default(),
        }
    }
}

/// Frames that read as zero to everybody who can read them (I-14, I-30).
#[derive(Clone, Copy, Debug)]
pub enum Zeroed {}

/// Frames with the content of whoever had them.
#[derive(Clone, Copy, Debug)]
pub enum Dirty {}

/// Frames and the duty to give them back. Not `Clone`: it has one owner.
///
/// Whether they are zero is part of the type: a pool hands [`Zeroed`] runs to new owners, and who
/// has written to one gives back a [`Dirty`] one. Only a pool, or a source, makes zeroes.
#[must_use = "frames that are not given back are lost"]
pub struct FrameRun<C = Zeroed> {
    span: FrameSpan,
    kind: FrameKind,
    huge: bool,
    generation: u64,
    clean: PhantomData<C>,
}

impl FrameRun<Zeroed> {
    /// For page sources: the ownership of cached frames that nobody else owns and that are zero.
    /// `generation` is greater than that of every earlier owner of one of them.
    pub const fn fresh(span: FrameSpan, zone: Zone, node: u8, generation: u64) -> Self {
        Self {
            span,
            kind: FrameKind {
                zone,
                node,
                mode: CacheMode::Cached,
            },
            huge: false,
            generation: generation << 24,
            clean: PhantomData,
        }
    }

    /// For page sources: says that the frames are huge pages of the host, whole ones.
    pub const fn of_huge_pages(mut self) -> Self {
        self.huge = true;
        self
    }

    /// The run, about to be written to.
    pub const fn dirtied(self) -> FrameRun<Dirty> {
        self.into_state()
    }
}

impl FrameRun<Dirty> {
    /// For pools: the frames have just been overwritten with zeroes that everybody sees.
    pub(super) const fn zeroed(self) -> FrameRun<Zeroed> {
        self.into_state()
    }
}

impl<C> FrameRun<C> {
    const fn into_state<D>(self) -> FrameRun<D> {
        FrameRun {
            span: self.span,
            kind: self.kind,
            huge: self.huge,
            generation: self.generation,
            clean: PhantomData,
        }
    }

    /// Which frames.
    #[must_use]
    pub const fn span(&self) -> FrameSpan {
        self.span
    }

    /// How many.
    #[must_use]
    pub const fn pages(&self) -> PageCount {
        self.span.pages
    }

    /// The least order that holds them.
    #[must_use]
    pub const fn order(&self) -> u8 {
        order_of(self.span.pages)
    }

    /// Of what kind they are.
    #[must_use]
    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Whether they are huge pages of the host.
    #[must_use]
    pub const fn is_huge(&self) -> bool {
        self.huge
    }

    /// Which owner of these frames this is; later ones are greater (I-18).
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Cuts the run in two: this one keeps the first `keep` pages.
    ///
    /// # Panics
    /// If either part would be empty.
    pub fn split_off(&mut self, keep: PageCount) -> Self {
        let whole = self.span;
        let rest = whole.pages.get().checked_sub(keep.get());
        let rest = rest.filter(|n| *n > 0 && !keep.is_zero());
        let rest = PageCount::new(rest.expect("both parts have pages")).expect("part of a run");
        self.span = whole.part(0, keep);
        // Parts of a huge page are none.
        self.huge = false;
        Self {
            span: whole.part(keep.get(), rest),
            kind: self.kind,
            huge: false,
            generation: self.generation,
            clean: PhantomData,
        }
    }

    /// For pools: what is zero may as well be taken for dirty.
    pub(super) const fn forget_state(self) -> FrameRun<Dirty> {
        self.into_state()
    }

    /// The run, with its next owner.
    pub(super) const fn handed_on(mut self) -> Self {
        self.generation += 1;
        self
    }

    /// Says that its mode was changed.
    pub(super) const fn set_mode(&mut self, mode: CacheMode) {
        self.kind.mode = mode;
    }
}

impl<C> fmt::Debug for FrameRun<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRun({:?}, {})", self.span, self.kind)
    }
}
