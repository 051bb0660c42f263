//! Which wishes come in which order.

use harness::measure::Stopwatch;
use harness::xorshift::{Xorshift, XorshiftStar};

use crate::blocks::{Block, Wish};

/// Sizes for [`Slots`], in pages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    /// 1 to 512 in powers of two.
    Pow2,
    /// Any number from 1 to 512.
    Uniform,
}

impl Sizes {
    fn draw(self, generator: &mut Xorshift) -> u32 {
        match self {
            Self::Pow2 => 1 << generator.below(10),
            Self::Uniform => 1 + generator.below(512) as u32,
        }
    }
}

/// A fixed number of live allocations; an operation frees a random one and allocates another size
/// in its stead. Every block sees the same sizes and slots.
pub(crate) struct Slots<B: Block> {
    block: B,
    sizes: Sizes,
    generator: Xorshift,
    slots: Vec<Option<(B::Grant, u32)>>,
    planned: Vec<(usize, u32)>,
    /// How many allocations found no room so far.
    pub(crate) refused: usize,
}

impl<B: Block> Slots<B> {
    /// Fills `live` slots from `block`.
    pub(crate) fn filled(block: B, live: usize, sizes: Sizes) -> Self {
        let generator = Xorshift::new();
        let mut slots = Self {
            block,
            sizes,
            generator,
            slots: Vec::new(),
            planned: Vec::new(),
            refused: 0,
        };
        for _ in 0..live {
            let pages = sizes.draw(&mut slots.generator);
            let grant = slots.take(pages);
            slots.slots.push(grant);
        }
        slots
    }

    /// Draws the slots and sizes of `ops` operations.
    pub(crate) fn plan(&mut self, ops: usize) {
        self.planned.clear();
        for _ in 0..ops {
            let slot = self.generator.below(self.slots.len());
            self.planned
                .push((slot, self.sizes.draw(&mut self.generator)));
        }
    }

    /// Does what is planned.
    pub(crate) fn run(&mut self) {
        for index in 0..self.planned.len() {
            let (slot, pages) = self.planned[index];
            if let Some((grant, _)) = self.slots[slot].take() {
                self.block.give(grant);
            }
            self.slots[slot] = self.take(pages);
        }
    }

    /// Plans untimed, runs timed.
    pub(crate) fn repeat(&mut self, watch: &mut Stopwatch, ops: usize) {
        self.plan(ops);
        watch.time(ops, || self.run());
    }

    /// How many pages are held.
    pub(crate) fn pages_held(&self) -> u32 {
        self.slots.iter().flatten().map(|(_, pages)| pages).sum()
    }

    /// How many pages are free.
    pub(crate) fn pages_free(&self) -> u32 {
        self.block.free()
    }

    fn take(&mut self, pages: u32) -> Option<(B::Grant, u32)> {
        let grant = self.block.take(Wish {
            pages,
            align: 1,
            end: u32::MAX,
        });
        self.refused += usize::from(grant.is_none());
        Some((grant?, pages))
    }
}

/// What buffers ask for besides their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demands {
    /// A page to begin at, anywhere.
    None,
    /// One wish in four begins at a multiple of 64 KiB, one in eight lies in the lower three
    /// quarters of the block.
    Some,
}

/// Buffer-like sizes around a target: an operation frees a random live one while more than the
/// target is held, and otherwise allocates, or frees a random one when there is no room.
pub(crate) struct Buffers<B: Block> {
    block: B,
    demands: Demands,
    generator: XorshiftStar,
    live: Vec<(B::Grant, u32)>,
    pages: u32,
    held: u32,
    target: u32,
}

impl<B: Block> Buffers<B> {
    /// Fills an empty `block` of so many pages up to the target, four fifths of it.
    pub(crate) fn filled(block: B, pages: u32, demands: Demands, seed: u64) -> Self {
        let mut buffers = Self {
            block,
            demands,
            generator: XorshiftStar::seeded(seed),
            live: Vec::new(),
            pages,
            held: 0,
            target: pages / 5 * 4,
        };
        while buffers.held <= buffers.target && buffers.allocate() {}
        buffers
    }

    /// Does so many operations.
    pub(crate) fn run(&mut self, ops: usize) {
        for _ in 0..ops {
            if self.held > self.target || !self.allocate() {
                self.free_one();
            }
        }
    }

    /// Allocates until there is no room, and says which share of the block is held then.
    pub(crate) fn fill(mut self) -> f64 {
        while self.allocate() {}
        f64::from(self.held) / f64::from(self.pages)
    }

    fn allocate(&mut self) -> bool {
        let wish = self.draw();
        let Some(grant) = self.block.take(wish) else {
            return false;
        };
        self.live.push((grant, wish.pages));
        self.held += wish.pages;
        true
    }

    fn free_one(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let chosen = self.generator.below(self.live.len());
        let (grant, pages) = self.live.swap_remove(chosen);
        self.held -= pages;
        self.block.give(grant);
    }

    /// 4, 16, 64, 256, 1024 or 4096 KiB with 40, 20, 20, 12, 6 and 2 %, times a random share from
    /// a half to the whole, in whole pages.
    fn draw(&mut self) -> Wish {
        let most = match self.generator.unit() {
            share if share < 0.40 => 1,
            share if share < 0.60 => 4,
            share if share < 0.80 => 16,
            share if share < 0.92 => 64,
            share if share < 0.98 => 256,
            _ => 1024,
        };
        let pages = (f64::from(most) * (1.0 - 0.5 * self.generator.unit())).ceil() as u32;
        let (align, end) = match self.demands {
            Demands::None => (1, self.pages),
            Demands::Some => {
                let demand = self.generator.below(8);
                let align = if demand < 2 { 16 } else { 1 };
                (
                    align,
                    if demand == 7 {
                        self.pages / 4 * 3
                    } else {
                        self.pages
                    },
                )
            }
        };
        Wish { pages, align, end }
    }
}
