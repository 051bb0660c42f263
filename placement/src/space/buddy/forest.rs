//! Blocks of powers of two, split in halves and merged again.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::space::{align_down, align_up};
use crate::{PageCount, PageRange};

/// No block.
const NONE: u32 = u32::MAX;

/// Orders 0 to 51: what [`PageCount::MAX`] has bits for.
const ORDERS: usize = 52;

/// What a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Taken,
    Split,
}

/// `1 << order` pages from `start`, a multiple of that.
#[derive(Clone, Debug)]
struct Block {
    start: u64,
    parent: u32,
    // Split: the lower half, the upper one follows it.
    child: u32,
    // Free: the neighbours in the list of its order.
    prev: u32,
    next: u32,
    order: u8,
    // One more than the order of the greatest free block in here; zero without any.
    best: u8,
    state: State,
}

/// All blocks: a tree for each power of two in the size, the greatest first.
///
/// # Invariants
/// Two free halves never stay beside each other. A list holds the free blocks of its order and
/// nothing else; a bit of `orders` is set where the list is not empty.
#[derive(Debug)]
pub(super) struct Forest {
    blocks: Vec<Block>,
    roots: Vec<u32>,
    // First of the chain of vacant pairs.
    vacant: u32,
    lists: [u32; ORDERS],
    orders: u64,
}

/// Where a block is wanted.
pub(super) struct Want {
    pub(super) pages: u64,
    pub(super) align: u64,
    pub(super) window: PageRange,
    pub(super) top_down: bool,
}

impl Want {
    /// The order of the block that holds the pages.
    pub(super) const fn order(&self) -> u32 {
        self.pages.next_power_of_two().ilog2()
    }

    /// What the block's first page is a multiple of.
    const fn step(&self) -> u64 {
        let (block, align) = (1 << self.order(), self.align);
        if block > align { block } else { align }
    }

    /// Whether the empty space holds it.
    pub(super) const fn fits(&self, size: u64) -> bool {
        let first = align_up(self.window.start(), self.step());
        first + self.pages <= self.window.end() && first + (1 << self.order()) <= size
    }

    /// The first page of the run in a free block.
    const fn place(&self, block: PageRange) -> Option<u64> {
        let pages = 1 << self.order();
        let low = align_up(max(block.start(), self.window.start()), self.step());
        if low + pages > block.end() || low + self.pages > self.window.end() {
            return None;
        }
        if !self.top_down {
            return Some(low);
        }
        let last = min(block.end() - pages, self.window.end() - self.pages);
        Some(align_down(last, self.step()))
    }
}

impl Forest {
    pub(super) fn new(size: u64) -> Self {
        let mut forest = Self {
            blocks: Vec::new(),
            roots: Vec::new(),
            vacant: NONE,
            lists: [NONE; ORDERS],
            orders: 0,
        };
        let mut start = 0;
        for order in (0..ORDERS as u8).rev().filter(|order| size >> order & 1 == 1) {
            let root = forest.blocks.len() as u32;
            forest.blocks.push(Block::new(start, NONE, order));
            forest.roots.push(root);
            forest.list(root);
            start += 1 << order;
        }
        forest
    }

    /// Takes a block of exactly `want`'s order wherever there is one, a small one split first.
    #[inline]
    pub(super) fn take_any(&mut self, order: u32) -> Option<(u32, u64)> {
        let fitting = self.orders >> order;
        if fitting == 0 {
            return None;
        }
        let id = self.lists[(order + fitting.trailing_zeros()) as usize];
        let start = self.blocks[id as usize].start;
        Some((self.take_at(id, start, order), start))
    }

    /// Takes a block of `want`'s order at the lowest place that suits, or the highest.
    pub(super) fn take_special(&mut self, want: &Want) -> Option<(u32, u64)> {
        if self.orders >> want.order() == 0 {
            return None;
        }
        let seek = |&root: &u32| self.seek(root, want);
        let (id, start) = match want.top_down {
            true => self.roots.iter().rev().find_map(seek)?,
            false => self.roots.iter().find_map(seek)?,
        };
        Some((self.take_at(id, start, want.order()), start))
    }

    /// The first free block below `id` that holds `want`, and where in it.
    fn seek(&self, id: u32, want: &Want) -> Option<(u32, u64)> {
        let block = &self.blocks[id as usize];
        if u32::from(block.best) <= want.order() || !block.range().intersects(&want.window) {
            return None;
        }
        if block.state == State::Free {
            return want.place(block.range()).map(|start| (id, start));
        }
        let halves = [block.child, block.child + 1];
        let [first, second] = if want.top_down { [halves[1], halves[0]] } else { halves };
        self.seek(first, want).or_else(|| self.seek(second, want))
    }

    /// Splits the free block `id` down to the one of `order` at `start`, and takes that.
    fn take_at(&mut self, mut id: u32, start: u64, order: u32) -> u32 {
        self.unlist(id);
        while u32::from(self.blocks[id as usize].order) > order {
            let child = self.split(id);
            let upper = usize::from(start >= self.blocks[child as usize + 1].start) as u32;
            self.list(child + 1 - upper);
            id = child + upper;
        }
        let block = &mut self.blocks[id as usize];
        block.state = State::Taken;
        block.best = 0;
        self.improve(block_parent(&self.blocks, id));
        id
    }

    /// Gives back what a run of `old` pages from block `id` has after its first `keep`.
    pub(super) fn shrink(&mut self, mut id: u32, mut old: u64, mut keep: u64) {
        while keep < old {
            let block = &self.blocks[id as usize];
            let half = 1 << (block.order - 1);
            if block.state == State::Taken {
                let child = self.split(id);
                self.blocks[id as usize].best = 0;
                for half in [child, child + 1] {
                    self.blocks[half as usize].state = State::Taken;
                    self.blocks[half as usize].best = 0;
                }
            }
            let child = self.blocks[id as usize].child;
            if keep > half {
                id = child + 1;
                (old, keep) = (old - half, keep - half);
                continue;
            }
            if old > half {
                self.give(child + 1, old - half);
            }
            id = child;
            old = old.min(half);
        }
    }

    /// Gives the run of `pages` pages from block `id` back, one block after the other.
    #[inline]
    pub(super) fn give(&mut self, mut id: u32, mut pages: u64) {
        // Merging never removes a block that is still taken, so going down first is safe.
        let mut pieces = [NONE; ORDERS];
        let mut count = 0;
        loop {
            let block = &self.blocks[id as usize];
            if pages == 1 << block.order {
                break;
            }
            let half = 1 << (block.order - 1);
            let child = block.child;
            id = child;
            if pages > half {
                pieces[count] = child;
                count += 1;
                pages -= half;
                id = child + 1;
            }
        }
        self.give_block(id);
        for &piece in &pieces[..count] {
            self.give_block(piece);
        }
    }

    fn give_block(&mut self, mut id: u32) {
        debug_assert_eq!(self.blocks[id as usize].state, State::Taken);
        loop {
            let parent = self.blocks[id as usize].parent;
            if parent == NONE {
                break;
            }
            let child = self.blocks[parent as usize].child;
            let other = child + (child + 1 - id);
            if self.blocks[other as usize].state != State::Free {
                break;
            }
            self.unlist(other);
            self.blocks[child as usize].next = self.vacant;
            self.vacant = child;
            id = parent;
        }
        self.list(id);
        self.improve(block_parent(&self.blocks, id));
    }

    /// Makes two halves of a block that is in no list; they are in none either.
    fn split(&mut self, id: u32) -> u32 {
        let block = &mut self.blocks[id as usize];
        block.state = State::Split;
        let (start, order) = (block.start, block.order - 1);
        let halves = [Block::new(start, id, order), Block::new(start + (1 << order), id, order)];
        let child = self.vacant;
        if child == NONE {
            let child = self.blocks.len() as u32;
            assert!(child < NONE - 1, "a space has fewer than 2^32 - 2 blocks");
            self.blocks.extend(halves);
            self.blocks[id as usize].child = child;
            return child;
        }
        self.vacant = self.blocks[child as usize].next;
        let [lower, upper] = halves;
        self.blocks[child as usize] = lower;
        self.blocks[child as usize + 1] = upper;
        self.blocks[id as usize].child = child;
        child
    }

    /// Makes a block free and puts it into the list of its order.
    fn list(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        let order = usize::from(block.order);
        let next = self.lists[order];
        block.state = State::Free;
        block.best = block.order + 1;
        block.prev = NONE;
        block.next = next;
        if next != NONE {
            self.blocks[next as usize].prev = id;
        }
        self.lists[order] = id;
        self.orders |= 1 << order;
    }

    fn unlist(&mut self, id: u32) {
        let block = &self.blocks[id as usize];
        let (order, prev, next) = (usize::from(block.order), block.prev, block.next);
        if next != NONE {
            self.blocks[next as usize].prev = prev;
        }
        if prev != NONE {
            self.blocks[prev as usize].next = next;
            return;
        }
        self.lists[order] = next;
        if next == NONE {
            self.orders &= !(1 << order);
        }
    }

    /// Carries the best order up from `id`, as far as it changes.
    fn improve(&mut self, mut id: u32) {
        while id != NONE {
            let (child, old) = (self.blocks[id as usize].child as usize, self.blocks[id as usize].best);
            let best = self.blocks[child].best.max(self.blocks[child + 1].best);
            if best == old {
                return;
            }
            self.blocks[id as usize].best = best;
            id = self.blocks[id as usize].parent;
        }
    }

    /// The pages of the greatest free block.
    pub(super) const fn largest(&self) -> u64 {
        if self.orders == 0 { 0 } else { 1 << self.orders.ilog2() }
    }

    /// Checks the invariants; adds the ranges of taken and free blocks to `pieces`.
    pub(super) fn check(&self, taken: &mut Vec<PageRange>, free: &mut u64) -> Result<(), String> {
        let mut listed = 0;
        for (order, &head) in self.lists.iter().enumerate() {
            let mut last = NONE;
            let mut id = head;
            while id != NONE {
                let block = &self.blocks[id as usize];
                if (block.state, usize::from(block.order), block.prev) != (State::Free, order, last) {
                    return Err(format!("{block:?} is in the list of order {order} after {last}"));
                }
                listed += 1;
                (last, id) = (id, block.next);
            }
            if (head == NONE) == (self.orders >> order & 1 == 1) {
                return Err(format!("the bit of order {order} is wrong: {:#x}", self.orders));
            }
        }
        let mut count = 0;
        for &root in &self.roots {
            self.check_block(root, taken, free, &mut count)?;
        }
        match count == listed {
            true => Ok(()),
            false => Err(format!("{listed} blocks are listed, {count} are free")),
        }
    }

    fn check_block(
        &self,
        id: u32,
        taken: &mut Vec<PageRange>,
        free: &mut u64,
        count: &mut u64,
    ) -> Result<(), String> {
        let block = &self.blocks[id as usize];
        let best = match block.state {
            State::Taken => {
                taken.push(block.range());
                0
            }
            State::Free => {
                *free += 1 << block.order;
                *count += 1;
                block.order + 1
            }
            State::Split => {
                let mut states = [State::Split; 2];
                for (half, state) in states.iter_mut().enumerate() {
                    let child = &self.blocks[block.child as usize + half];
                    let start = block.start + ((half as u64) << child.order);
                    if (child.parent, child.order + 1, child.start) != (id, block.order, start) {
                        return Err(format!("{child:?} is no half of {block:?}"));
                    }
                    self.check_block(block.child + half as u32, taken, free, count)?;
                    *state = child.state;
                }
                if states == [State::Free; 2] {
                    return Err(format!("both halves of {block:?} are free"));
                }
                let child = block.child as usize;
                self.blocks[child].best.max(self.blocks[child + 1].best)
            }
        };
        match best == block.best {
            true => Ok(()),
            false => Err(format!("the best order of {block:?} is {best}")),
        }
    }
}

impl Block {
    const fn new(start: u64, parent: u32, order: u8) -> Self {
        let state = State::Free;
        Self { start, parent, child: NONE, prev: NONE, next: NONE, order, best: order + 1, state }
    }

    const fn range(&self) -> PageRange {
        PageRange::within_max(self.start, self.start + (1 << self.order))
    }
}

fn block_parent(blocks: &[Block], id: u32) -> u32 {
    blocks[id as usize].parent
}

const fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

const fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

// A block of the greatest order has a page count.
const _: () = assert!(PageCount::MAX.get().ilog2() as usize + 1 == ORDERS);
