//! Physical memory: which page numbers there are, of which zone and node, and which are free.
//!
//! ```text
//!   0      1 MiB              4 GiB                       a multiple of 1 GiB
//!   │ nothing │ dma32 │ nothing │ normal ....... │ nothing │ high ........ │
//!                                 node 0 │ node 1            node 0 │ node 1
//! ```
//!
//! Each zone is a range of addresses, cut between the nodes. Frames that adjoin really adjoin, so
//! a wish for a long run can fail although there are enough single frames: of every zone the lowest
//! run that fits is taken, at a multiple of its size up to 2 MiB.

use placement::{PAGE_SIZE, PageCount, PageRange};
use ttm::error::{Error, Result};
use ttm::pages::{Want, Zone, Zones, order_of};

use super::memory::SimMemory;
use super::random::Random;
use super::runs::Runs;

/// The page at 1 MiB, the first that there can be.
const FIRST: u64 = 1 << 8;

/// The page at 4 GiB, the first that is not DMA32.
const DMA32_END: u64 = 1 << 20;

/// The high zone begins at a multiple of so many pages: 1 GiB.
const HIGH_ALIGN: u64 = 1 << 18;

/// The page after the last that there can be: addresses of 46 bits.
const END: u64 = 1 << 34;

/// A zone on a node.
#[derive(Debug)]
struct Part {
    zone: Zone,
    node: u8,
    range: PageRange,
    free: Runs,
}

/// # Invariants
/// A page of a part is free there, or in `taken`, or with somebody who fragments.
#[derive(Debug)]
pub(super) struct Physical {
    parts: Vec<Part>,
    taken: Runs,
    end: u64,
}

impl Physical {
    /// # Errors
    /// [`Error::Invalid`] for no node, or a zone that its addresses cannot hold.
    pub(super) fn new(memory: &SimMemory) -> Result<Self> {
        if memory.nodes == 0 {
            return Err(Error::Invalid("memory has at least one node"));
        }
        let high = (DMA32_END.saturating_add(memory.normal.get())).next_multiple_of(HIGH_ALIGN);
        let zones = [
            (Zone::Dma32, FIRST, memory.dma32, DMA32_END),
            (Zone::Normal, DMA32_END, memory.normal, END),
            (Zone::High, high, memory.high, END),
        ];
        let mut parts = Vec::new();
        let mut last = FIRST;
        for (zone, first, pages, end) in zones {
            if pages.get() > end.saturating_sub(first) {
                return Err(Error::Invalid(
                    "the DMA32 zone ends at 4 GiB, and all memory at 64 TiB",
                ));
            }
            let nodes = u64::from(memory.nodes);
            let cut = |n: u64| first + pages.get() / nodes * n + (pages.get() % nodes).min(n);
            parts.extend((0..memory.nodes).map(|node| {
                let n = u64::from(node);
                let range = PageRange::new(cut(n), cut(n + 1)).expect("the cuts are in order");
                let free = Runs::of(range);
                Part {
                    zone,
                    node,
                    range,
                    free,
                }
            }));
            if !pages.is_zero() {
                last = first + pages.get();
            }
        }
        Ok(Self {
            parts,
            taken: Runs::default(),
            end: last,
        })
    }

    /// The last byte of the DMA32 zone.
    pub(super) fn dma32_last(memory: &SimMemory) -> u64 {
        (FIRST + memory.dma32.get()) * PAGE_SIZE - 1
    }

    /// The page after the last that there is.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// How many frames are taken.
    pub(super) const fn taken(&self) -> u64 {
        self.taken.pages()
    }

    /// Whether all pages of `range` are taken.
    pub(super) fn is_taken(&self, range: PageRange) -> bool {
        self.taken.contains(range)
    }

    /// Takes adjoining frames. No other zone or node stands in for the one that is wanted.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a zone without pages or a node that there is not;
    /// [`Error::NoMemory`] if no run is long enough.
    pub(super) fn take(&mut self, want: &Want, offered: Zones) -> Result<PageRange> {
        let kind = want.kind;
        let wanted = |p: &&mut Part| p.zone == kind.zone && p.node == kind.node;
        let part = self.parts.iter_mut().find(wanted);
        let part = part
            .filter(|_| offered.has(kind.zone))
            .ok_or(Error::Unsupported(
                "the simulated memory has no such zone or node; give it one in GpuConfig::memory",
            ))?;
        let align = 1 << order_of(want.pages).min(9);
        let range = part.free.take(want.pages, align);
        let range = range.ok_or_else(|| Error::no_memory(want.pages))?;
        self.taken.insert(range);
        Ok(range)
    }

    /// Takes frames back that one call of [`Physical::take`] took, or a part of them.
    ///
    /// # Panics
    /// If one of them is not taken.
    pub(super) fn give(&mut self, range: PageRange) {
        self.taken.remove(range);
        self.free(range);
    }

    /// Ends what [`Physical::take`] began; nobody gets the frames again.
    pub(super) fn retire(&mut self, range: PageRange) {
        self.taken.remove(range);
    }

    /// Takes one free frame of every `every` that adjoin, and counts none of them as taken.
    pub(super) fn fragment(&mut self, random: &mut Random, every: u64) -> Vec<PageRange> {
        let mut chosen = Vec::new();
        for part in &mut self.parts {
            let first = chosen.len();
            for run in part.free.iter() {
                let groups =
                    (run.start()..run.end()).step_by(usize::try_from(every).unwrap_or(usize::MAX));
                chosen.extend(groups.map(|start| {
                    let page = start + random.below(every.min(run.end() - start));
                    PageRange::at(page, PageCount::ONE).expect("a free page")
                }));
            }
            chosen[first..]
                .iter()
                .for_each(|page| part.free.remove(*page));
        }
        chosen
    }

    /// Takes back what [`Physical::fragment`] answered.
    pub(super) fn mend(&mut self, frames: &[PageRange]) {
        frames.iter().for_each(|frame| self.free(*frame));
    }

    fn free(&mut self, range: PageRange) {
        let part = self
            .parts
            .iter_mut()
            .find(|p| p.range.contains_range(&range));
        part.expect("runs of frames are of one part")
            .free
            .insert(range);
    }
}
