//! The holes of a range, in a tree that knows the widest hole below each node.
//!
//! A B+ tree in address order. A leaf holds up to 32 holes; each entry above it names a node of
//! the level below, a page at or before its first hole, and the width of its widest hole.
//!
//! ```text
//!              page    0    0x400   0x900            one entry a node below:
//!     root     widest  12     80       3             "from here on, at most that wide"
//!                      |      |        |
//!     leaf    0x10..0x1c      |   0x900..0x903       one entry a hole
//!             0x40..0x48   0x400..0x450 ...
//! ```
//!
//! A plain search goes to the first leaf, in address order, with a hole wide enough, and takes the
//! tightest hole of that leaf. Address order alone leaves slivers at low addresses, best fit alone
//! spreads small objects over the whole memory; first-then-best keeps the high addresses whole and
//! is better than both when the memory fills up (`examples/churn.rs` measures it).

use alloc::vec::Vec;

use super::node::{Entry, Node, WIDTH, Weight, hole, weight};
use super::path::{LEVELS, Path};
use super::want::Want;
use crate::{PageRange, Request};

/// Below this, a node is merged with a neighbour if that leaves the neighbour some room.
const SPARSE: usize = WIDTH / 4;

/// All holes of a range.
///
/// # Invariants
/// Holes are sorted, disjoint, not empty and do not touch each other. No node but the root is
/// empty. Each weight above the leaves is the greatest below it; `widest` is the root's. A key
/// above the leaves is at most each key below it, except in slot 0, which also takes what is lower.
#[derive(Debug)]
pub(super) struct Holes {
    pub(super) nodes: Vec<Node>,
    vacant: Vec<u32>,
    pub(super) root: u32,
    // Levels above the leaves.
    pub(super) height: usize,
    pub(super) widest: Weight,
}

impl Holes {
    /// Makes the holes of a range of which nothing is taken.
    pub(super) fn new(size: u64) -> Self {
        let mut root = Node::EMPTY;
        if size > 0 {
            root.insert(0, hole(0, size));
        }
        let widest = root.widest();
        Self {
            nodes: [root].into(),
            vacant: Vec::new(),
            root: 0,
            height: 0,
            widest,
        }
    }

    /// Whether a hole may be `pages` wide; false is certain.
    pub(super) const fn may_hold(&self, pages: u64) -> bool {
        weight(pages) <= self.widest
    }

    /// Finds room for `pages` in one hole: the tightest of the first leaf that has some. Returns
    /// the run's first page, and in `path` the way to its hole.
    #[inline]
    pub(super) fn find(&self, pages: Weight, path: &mut Path) -> Option<u64> {
        if pages > self.widest {
            return None;
        }
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let node = &self.nodes[id as usize];
            let slot = node.first(pages);
            path.set(level, id, slot);
            id = node.value(slot) as u32;
        }
        let leaf = &self.nodes[id as usize];
        let slot = leaf.tightest(pages);
        path.set(0, id, slot);
        Some(leaf.key(slot))
    }

    /// As [`find`](Self::find) for a run that has wishes: aligned, in `window`, or the highest.
    pub(super) fn find_special(
        &self,
        pages: u64,
        window: PageRange,
        request: &Request,
        path: &mut Path,
    ) -> Option<u64> {
        let want = Want {
            pages,
            window,
            align: request.align.get(),
            top_down: request.top_down,
        };
        self.seek(&want, self.root, self.height, path)
    }

    fn seek(&self, want: &Want, id: u32, level: usize, path: &mut Path) -> Option<u64> {
        let node = &self.nodes[id as usize];
        let mut mask = want.slots(node, level);
        path.set(level, id, 0);
        if level == 0 && !want.top_down {
            let (slot, start) = want.tightest(node, mask)?;
            path.set(0, id, slot);
            return Some(start);
        }
        while mask != 0 {
            let slot = match want.top_down {
                true => mask.ilog2() as usize,
                false => mask.trailing_zeros() as usize,
            };
            mask &= !(1 << slot);
            path.set(level, id, slot);
            let found = match level {
                0 => want.place(node.key(slot), node.value(slot)),
                _ => self.seek(want, node.value(slot) as u32, level - 1, path),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Takes `pages` pages from `start` on out of the path's hole.
    #[inline]
    pub(super) fn carve(&mut self, path: &Path, start: u64, pages: u64) {
        let end = start + pages;
        let slot = path.slot(0);
        let leaf = &mut self.nodes[path.node(0)];
        let (from, to) = (leaf.key(slot), leaf.value(slot));
        debug_assert!(from <= start && end <= to);
        let old = leaf.weight(slot);
        if from < start {
            leaf.set(slot, hole(from, start));
            if end < to {
                let slot = slot + 1;
                return self.insert_after(path, slot, hole(end, to));
            }
        } else if end < to && end < self.bound(path) {
            self.nodes[path.node(0)].set(slot, hole(end, to));
        } else {
            self.remove(path);
            if end < to {
                let path = self.path_to(end);
                self.insert(&path, path.slot(0), hole(end, to));
            }
            return;
        }
        self.shrunk(path, old);
    }

    /// Inserts what is left of a carved hole; a hole may reach past its leaf's bound.
    #[cold]
    #[inline(never)]
    fn insert_after(&mut self, path: &Path, slot: usize, entry: Entry) {
        self.reweigh(path, 0);
        if entry.key < self.bound(path) {
            return self.insert(path, slot, entry);
        }
        let path = self.path_to(entry.key);
        self.insert(&path, path.slot(0), entry);
    }

    /// The page from which on holes belong in a later leaf than the path's.
    #[inline]
    fn bound(&self, path: &Path) -> u64 {
        for level in 1..=self.height {
            let (node, next) = (&self.nodes[path.node(level)], path.slot(level) + 1);
            if next < node.len() {
                return node.key(next);
            }
        }
        u64::MAX
    }

    /// Makes `start..end` free, merged with the holes that touch it.
    #[inline]
    pub(super) fn release(&mut self, start: u64, end: u64) {
        let mut path = self.path_to(start);
        let next = path.slot(0);
        let leaf = &self.nodes[path.node(0)];
        if (next == 0 && self.touches_earlier_leaf(path, start))
            || (next == leaf.len() && end >= self.bound(&path))
        {
            return self.release_at_edge(start, end);
        }
        let leaf = &mut self.nodes[path.node(0)];
        let follows = next > 0 && leaf.value(next - 1) == start;
        let leads = next < leaf.len() && leaf.key(next) == end;
        let (slot, merged) = match (follows, leads) {
            (false, false) => return self.insert(&path, next, hole(start, end)),
            (true, false) => (next - 1, hole(leaf.key(next - 1), end)),
            (false, true) => (next, hole(start, leaf.value(next))),
            (true, true) => (next - 1, hole(leaf.key(next - 1), leaf.value(next))),
        };
        leaf.set(slot, merged);
        self.raise(&path, 0, merged.weight);
        if follows && leads {
            path.slots[0] = next as u8;
            self.remove(&path);
        }
    }

    /// Releases where a neighbour may be in another leaf.
    #[cold]
    #[inline(never)]
    fn release_at_edge(&mut self, mut start: u64, mut end: u64) {
        if let Some(path) = self.path_to_hole(end)
            && self.hole_at(&path).0 == end
        {
            end = self.hole_at(&path).1;
            self.remove(&path);
        }
        if let Some(path) = start
            .checked_sub(1)
            .and_then(|before| self.path_to_hole(before))
            && self.hole_at(&path).1 == start
        {
            start = self.hole_at(&path).0;
            self.remove(&path);
        }
        let path = self.path_to(start);
        self.insert(&path, path.slot(0), hole(start, end));
    }

    /// The way to the leaf where a hole at `page` belongs, and to the slot after those up to it.
    #[inline(always)]
    pub(super) fn path_to(&self, page: u64) -> Path {
        let mut path = Path::EMPTY;
        let mut id = self.root;
        for level in (1..=self.height).rev() {
            let node = &self.nodes[id as usize];
            let slot = node.rank(page).saturating_sub(1);
            path.set(level, id, slot);
            id = node.value(slot) as u32;
        }
        path.set(0, id, self.nodes[id as usize].rank(page));
        path
    }

    /// The way to the last hole that begins at or before `page`.
    pub(super) fn path_to_hole(&self, page: u64) -> Option<Path> {
        let mut path = self.path_to(page);
        self.step_back(&mut path).then_some(path)
    }

    /// Whether the last hole before the path's leaf ends at `page`.
    fn touches_earlier_leaf(&self, mut path: Path, page: u64) -> bool {
        self.step_back(&mut path) && self.hole_at(&path).1 == page
    }

    /// Moves a path to the hole before, if there is one.
    fn step_back(&self, path: &mut Path) -> bool {
        // Up to where a way further left leaves, then down along the right edge.
        let Some(turn) = (0..=self.height).find(|&level| path.slot(level) > 0) else {
            return false;
        };
        path.slots[turn] -= 1;
        for level in (0..turn).rev() {
            let id = self.nodes[path.node(level + 1)].value(path.slot(level + 1)) as u32;
            path.set(level, id, self.nodes[id as usize].len() - 1);
        }
        true
    }

    /// The path's hole, as `(start, end)`.
    pub(super) fn hole_at(&self, path: &Path) -> (u64, u64) {
        let leaf = &self.nodes[path.node(0)];
        (leaf.key(path.slot(0)), leaf.value(path.slot(0)))
    }

    /// Puts `entry` before `slot` of the path's leaf.
    #[inline]
    fn insert(&mut self, path: &Path, slot: usize, entry: Entry) {
        let leaf = &mut self.nodes[path.node(0)];
        if leaf.len() == WIDTH {
            return self.insert_splitting(path, slot, entry);
        }
        leaf.insert(slot, entry);
        self.raise(path, 0, entry.weight);
    }

    /// Inserts into a full leaf, splitting what is full on the way up.
    #[cold]
    #[inline(never)]
    fn insert_splitting(&mut self, path: &Path, mut slot: usize, mut entry: Entry) {
        for level in 0..=self.height {
            let id = path.nodes[level];
            let node = &mut self.nodes[id as usize];
            if node.len() < WIDTH {
                node.insert(slot, entry);
                return self.raise(path, level, entry.weight);
            }
            let mut upper = node.split_off(WIDTH / 2);
            match slot.checked_sub(WIDTH / 2) {
                Some(slot) if slot > 0 => upper.insert(slot, entry),
                _ => node.insert(slot, entry),
            }
            let (key, below) = (node.key(0), node.widest());
            entry = Entry {
                key: upper.key(0),
                value: 0,
                weight: upper.widest(),
            };
            entry.value = u64::from(self.add(upper));
            if level == self.height {
                let mut root = Node::EMPTY;
                root.insert(
                    0,
                    Entry {
                        key,
                        value: u64::from(id),
                        weight: below,
                    },
                );
                root.insert(1, entry);
                self.root = self.add(root);
                self.height += 1;
                assert!(self.height < LEVELS, "a tree of {} levels", self.height);
                break;
            }
            slot = path.slot(level + 1);
            let above = &mut self.nodes[path.node(level + 1)];
            above.set_weight(slot, below);
            // What slot 0 took below its key must not end up after it.
            above.set_key(slot, key.min(above.key(slot)));
            slot += 1;
        }
        self.widest = self.nodes[self.root as usize].widest();
    }

    /// Removes the path's hole, and above it what thereby becomes empty or too sparse.
    #[inline]
    fn remove(&mut self, path: &Path) {
        let leaf = &mut self.nodes[path.node(0)];
        let slot = path.slot(0);
        let old = leaf.weight(slot);
        leaf.remove(slot);
        if leaf.len() >= SPARSE || self.height == 0 {
            return self.shrunk(path, old);
        }
        self.thin_out(path);
    }

    /// Merges or drops the path's nodes, from the leaf up, as long as they are sparse.
    #[cold]
    #[inline(never)]
    fn thin_out(&mut self, path: &Path) {
        let mut level = 0;
        while level < self.height {
            let id = path.nodes[level];
            let (above, own) = (path.nodes[level + 1], path.slot(level + 1));
            let len = self.nodes[id as usize].len();
            if len >= SPARSE {
                break;
            }
            let emptied = if len == 0 {
                self.drop_node(id);
                own
            } else {
                match self.merge(above, own, level) {
                    Some(emptied) => emptied,
                    None => break,
                }
            };
            self.nodes[above as usize].remove(emptied);
            level += 1;
        }
        self.reweigh(path, level);
        while self.height > 0 && self.nodes[self.root as usize].len() == 1 {
            let only = self.nodes[self.root as usize].value(0) as u32;
            self.drop_node(self.root);
            self.root = only;
            self.height -= 1;
        }
    }

    /// Merges the node in slot `own` of `above` with a neighbour that has room for it; returns
    /// the slot that is then to be removed.
    fn merge(&mut self, above: u32, own: usize, level: usize) -> Option<usize> {
        let parent = &self.nodes[above as usize];
        let len = |slot: usize| self.nodes[parent.value(slot) as usize].len();
        let fits = |left: usize| len(left) + len(left + 1) <= WIDTH - SPARSE;
        let left = match own {
            _ if own + 1 < parent.len() && fits(own) => own,
            _ if own > 0 && fits(own - 1) => own - 1,
            _ => return None,
        };
        let (key, id) = (parent.key(left + 1), parent.value(left + 1) as u32);
        let into = parent.value(left) as usize;
        let mut from = core::mem::replace(&mut self.nodes[id as usize], Node::EMPTY);
        if level > 0 {
            // Slot 0 took what is lower than its key; elsewhere the key must be a lower bound.
            from.set_key(0, key);
        }
        self.nodes[into].append(&from, 0);
        let widest = self.nodes[into].widest();
        self.nodes[above as usize].set_weight(left, widest);
        self.drop_node(id);
        Some(left + 1)
    }

    /// Carries the weight of the path's node at `level` up to the root, as far as it changes.
    #[inline]
    fn reweigh(&mut self, path: &Path, level: usize) {
        for level in level..self.height {
            let widest = self.nodes[path.node(level)].widest();
            let above = &mut self.nodes[path.node(level + 1)];
            let slot = path.slot(level + 1);
            if above.weight(slot) == widest {
                return;
            }
            above.set_weight(slot, widest);
        }
        self.widest = self.nodes[self.root as usize].widest();
    }

    /// As [`reweigh`](Self::reweigh) where an entry of the node now weighs `weight` and none less
    /// than before.
    #[inline]
    fn raise(&mut self, path: &Path, level: usize, weight: Weight) {
        for level in level..self.height {
            let above = &mut self.nodes[path.node(level + 1)];
            let slot = path.slot(level + 1);
            if above.weight(slot) >= weight {
                return;
            }
            above.set_weight(slot, weight);
        }
        self.widest = self.widest.max(weight);
    }

    /// As [`reweigh`](Self::reweigh) after a hole of `old` pages shrank: nothing changes above
    /// unless it was the widest of its leaf.
    #[inline]
    fn shrunk(&mut self, path: &Path, old: Weight) {
        let widest = match self.height {
            0 => self.widest,
            _ => self.nodes[path.node(1)].weight(path.slot(1)),
        };
        if old == widest {
            self.reweigh(path, 0);
        }
    }

    fn add(&mut self, node: Node) -> u32 {
        if let Some(id) = self.vacant.pop() {
            self.nodes[id as usize] = node;
            return id;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn drop_node(&mut self, id: u32) {
        self.nodes[id as usize] = Node::EMPTY;
        self.vacant.push(id);
    }
}
