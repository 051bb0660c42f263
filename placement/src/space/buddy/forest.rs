//! Blocks of powers of two, split in halves and merged again.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

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
    // Split: the lower half, an even number; the upper one is the next.
    child: u32,
    // Free: the neighbours in the list of its order.
    prev: u32,
    next: u32,
    order: u8,
    // At least one more than the order of the greatest free block in here, zero only without any.
    best: u8,
    state: State,
}

/// Two halves, on one cache line; a root is alone in its pair.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Pair([Block; 2]);

/// The blocks by number: a block's other half has the same number but for the lowest bit.
#[derive(Debug)]
struct Blocks(Vec<Pair>);

impl Index<u32> for Blocks {
    type Output = Block;

    #[inline]
    fn index(&self, id: u32) -> &Block {
        &self.0[(id >> 1) as usize].0[(id & 1) as usize]
    }
}

impl IndexMut<u32> for Blocks {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut Block {
        &mut self.0[(id >> 1) as usize].0[(id & 1) as usize]
    }
}

/// All blocks: a tree for each power of two in the size, the greatest first.
///
/// # Invariants
/// Two free halves never stay beside each other. A list holds the free blocks of its order and
/// nothing else; a bit of `orders` is set where the list is not empty. `best` is a bound: giving
/// raises it, taking leaves it alone, and a search that it misled lowers it.
#[derive(Debug)]
pub(super) struct Forest {
    blocks: Blocks,
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
            blocks: Blocks(Vec::new()),
            roots: Vec::new(),
            vacant: NONE,
            lists: [NONE; ORDERS],
            orders: 0,
        };
        let mut start = 0;
        for order in (0..ORDERS as u8)
            .rev()
            .filter(|order| size >> order & 1 == 1)
        {
            let root = Block::new(start, NONE, order);
            let unused = Block {
                state: State::Taken,
                ..root.clone()
            };
            forest.blocks.0.push(Pair([root, unused]));
            let root = 2 * (forest.blocks.0.len() as u32 - 1);
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
        let start = self.blocks[id].start;
        Some((self.take_at(id, start, order), start))
    }

    /// Takes a block of `want`'s order at the lowest place that suits, or the highest.
    pub(super) fn take_special(&mut self, want: &Want) -> Option<(u32, u64)> {
        if self.orders >> want.order() == 0 {
            return None;
        }
        let count = self.roots.len();
        let mut roots = (0..count).map(|n| if want.top_down { count - 1 - n } else { n });
        let (id, start) = roots.find_map(|root| self.seek(self.roots[root], want))?;
        Some((self.take_at(id, start, want.order()), start))
    }

    /// The first free block below `id` that holds `want`, and where in it.
    fn seek(&mut self, id: u32, want: &Want) -> Option<(u32, u64)> {
        let block = &self.blocks[id];
        if u32::from(block.best) <= want.order() || !block.range().intersects(&want.window) {
            return None;
        }
        if block.state == State::Free {
            return want.place(block.range()).map(|start| (id, start));
        }
        let halves = [block.child, block.child + 1];
        let [first, second] = if want.top_down {
            [halves[1], halves[0]]
        } else {
            halves
        };
        let found = self.seek(first, want).or_else(|| self.seek(second, want));
        if found.is_none() {
            self.blocks[id].best = self.blocks[first].best.max(self.blocks[second].best);
        }
        found
    }

    /// Splits the free block `id` down to the one of `order` at `start`, and takes that.
    fn take_at(&mut self, mut id: u32, start: u64, order: u32) -> u32 {
        self.unlist(id);
        while u32::from(self.blocks[id].order) > order {
            let child = self.split(id);
            let upper = usize::from(start >= self.blocks[child + 1].start) as u32;
            self.list(child + 1 - upper);
            id = child + upper;
        }
        let block = &mut self.blocks[id];
        block.state = State::Taken;
        block.best = 0;
        id
    }

    /// Gives back what a run of `old` pages from block `id` has after its first `keep`.
    pub(super) fn shrink(&mut self, mut id: u32, mut old: u64, mut keep: u64) {
        while keep < old {
            let block = &self.blocks[id];
            let half = 1 << (block.order - 1);
            if block.state == State::Taken {
                let child = self.split(id);
                for half in [child, child + 1] {
                    self.blocks[half].state = State::Taken;
                    self.blocks[half].best = 0;
                }
            }
            let child = self.blocks[id].child;
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
            let block = &self.blocks[id];
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
        debug_assert_eq!(self.blocks[id].state, State::Taken);
        loop {
            let parent = self.blocks[id].parent;
            if parent == NONE {
                break;
            }
            let other = id ^ 1;
            if self.blocks[other].state != State::Free {
                break;
            }
            self.unlist(other);
            let lower = id & !1;
            self.blocks[lower].next = self.vacant;
            self.vacant = lower;
            id = parent;
        }
        self.list(id);
        self.raise(id);
    }

    /// Makes two halves of a block that is in no list; they are in none either.
    fn split(&mut self, id: u32) -> u32 {
        let block = &mut self.blocks[id];
        block.state = State::Split;
        let (start, order) = (block.start, block.order - 1);
        let upper = start + (1 << order);
        let halves = Pair([Block::new(start, id, order), Block::new(upper, id, order)]);
        let mut child = self.vacant;
        if child == NONE {
            child = 2 * self.blocks.0.len() as u32;
            assert!(
                self.blocks.0.len() < 1 << 31,
                "a space has fewer than 2^32 blocks"
            );
            self.blocks.0.push(halves);
        } else {
            self.vacant = self.blocks[child].next;
            self.blocks.0[(child >> 1) as usize] = halves;
        }
        self.blocks[id].child = child;
        child
    }

    /// Makes a block free and puts it into the list of its order.
    fn list(&mut self, id: u32) {
        let block = &mut self.blocks[id];
        let order = usize::from(block.order);
        let next = self.lists[order];
        block.state = State::Free;
        block.best = block.order + 1;
        block.prev = NONE;
        block.next = next;
        if next != NONE {
            self.blocks[next].prev = id;
        }
        self.lists[order] = id;
        self.orders |= 1 << order;
    }

    fn unlist(&mut self, id: u32) {
        let block = &self.blocks[id];
        let (order, prev, next) = (usize::from(block.order), block.prev, block.next);
        if next != NONE {
            self.blocks[next].prev = prev;
        }
        if prev != NONE {
            self.blocks[prev].next = next;
            return;
        }
        self.lists[order] = next;
        if next == NONE {
            self.orders &= !(1 << order);
        }
    }

    /// Raises the bounds above a block to its own.
    fn raise(&mut self, id: u32) {
        let Block {
            best, mut parent, ..
        } = self.blocks[id];
        while parent != NONE && self.blocks[parent].best < best {
            self.blocks[parent].best = best;
            parent = self.blocks[parent].parent;
        }
    }

    /// The pages of the greatest free block.
    pub(super) const fn largest(&self) -> u64 {
        if self.orders == 0 {
            0
        } else {
            1 << self.orders.ilog2()
        }
    }

    /// Checks the invariants; adds the ranges of taken and free blocks to `pieces`.
    pub(super) fn check(&self, taken: &mut Vec<PageRange>, free: &mut u64) -> Result<(), String> {
        let mut listed = 0;
        for (order, &head) in self.lists.iter().enumerate() {
            let mut last = NONE;
            let mut id = head;
            while id != NONE {
                let block = &self.blocks[id];
                if (block.state, usize::from(block.order), block.prev) != (State::Free, order, last)
                {
                    return Err(format!(
                        "{block:?} is in the list of order {order} after {last}"
                    ));
                }
                listed += 1;
                (last, id) = (id, block.next);
            }
            if (head == NONE) == (self.orders >> order & 1 == 1) {
                return Err(format!(
                    "the bit of order {order} is wrong: {:#x}",
                    self.orders
                ));
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
        let block = &self.blocks[id];
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
                    let child = &self.blocks[block.child + half as u32];
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
                let child = block.child;
                self.blocks[child].best.max(self.blocks[child + 1].best)
            }
        };
        match best <= block.best {
            true => Ok(()),
            false => Err(format!(
                "the best order in {block:?} is {best}, above its bound"
            )),
        }
    }
}

impl Block {
    const fn new(start: u64, parent: u32, order: u8) -> Self {
        let state = State::Free;
        Self {
            start,
            parent,
            child: NONE,
            prev: NONE,
            next: NONE,
            order,
            best: order + 1,
            state,
        }
    }

    const fn range(&self) -> PageRange {
        PageRange::within_max(self.start, self.start + (1 << self.order))
    }
}

const fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

const fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

// A block of the greatest order has a page count.
const _: () = assert!(PageCount::MAX.get().ilog2() as usize + 1 == ORDERS);
