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

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::node::{Entry, Node, WIDTH, Weight};
use crate::space::{align_down, align_up};
use crate::{PageRange, Request};

/// More levels than holes with 32-bit names could ever need.
const LEVELS: usize = 8;

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
    nodes: Vec<Node>,
    vacant: Vec<u32>,
    root: u32,
    // Levels above the leaves.
    height: usize,
    widest: Weight,
}

/// The way from the root to a leaf: for each level, leaves first, the node and the slot in it.
#[derive(Clone, Copy)]
pub(super) struct Path {
    nodes: [u32; LEVELS],
    slots: [u8; LEVELS],
}

impl Path {
    pub(super) const EMPTY: Self = Self { nodes: [0; LEVELS], slots: [0; LEVELS] };

    #[inline]
    const fn node(&self, level: usize) -> usize {
        self.nodes[level] as usize
    }

    #[inline]
    const fn slot(&self, level: usize) -> usize {
        self.slots[level] as usize
    }

    #[inline]
    const fn set(&mut self, level: usize, node: u32, slot: usize) {
        self.nodes[level] = node;
        self.slots[level] = slot as u8;
    }
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
        let want = Want { pages, window, align: request.align.get(), top_down: request.top_down };
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
        let at_edge = next == 0 || (next == leaf.len() && end >= self.bound(&path));
        if at_edge && self.height > 0 {
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
    #[inline]
    fn path_to(&self, page: u64) -> Path {
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
    fn path_to_hole(&self, page: u64) -> Option<Path> {
        let mut path = self.path_to(page);
        if path.slot(0) > 0 {
            path.slots[0] -= 1;
            return Some(path);
        }
        // Up to where a way further left leaves, then down along the right edge.
        let turn = (1..=self.height).find(|&level| path.slot(level) > 0)?;
        path.slots[turn] -= 1;
        for level in (0..turn).rev() {
            let above = &self.nodes[path.node(level + 1)];
            let id = above.value(path.slot(level + 1)) as u32;
            path.set(level, id, self.nodes[id as usize].len() - 1);
        }
        Some(path)
    }

    /// The path's hole, as `(start, end)`.
    pub(super) fn hole_at(&self, path: &Path) -> (u64, u64) {
        let leaf = &self.nodes[path.node(0)];
        (leaf.key(path.slot(0)), leaf.value(path.slot(0)))
    }

    /// Puts `entry` before `slot` of the path's leaf, splitting what is full on the way up.
    fn insert(&mut self, path: &Path, mut slot: usize, mut entry: Entry) {
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

    /// The width of the widest hole.
    pub(super) fn largest(&self) -> u64 {
        match self.widest {
            Weight::MAX => self.largest_of(self.root, self.height),
            exact => exact as u64,
        }
    }

    /// The width of the widest hole below a node; looks only at those too wide for a weight.
    fn largest_of(&self, id: u32, level: usize) -> u64 {
        let node = &self.nodes[id as usize];
        let wide = (0..node.len()).filter(|&slot| node.weight(slot) == Weight::MAX);
        let widths = wide.map(|slot| match level {
            0 => node.value(slot) - node.key(slot),
            _ => self.largest_of(node.value(slot) as u32, level - 1),
        });
        widths.max().unwrap_or(0)
    }

    /// All holes, in address order, as `(start, end)`.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.from(0)
    }

    /// The holes from the last one that begins at or before `page` on, in address order.
    pub(super) fn from(&self, page: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut path = self.path_to_hole(page).unwrap_or_else(|| self.path_to(0));
        core::iter::from_fn(move || {
            let leaf = &self.nodes[path.node(0)];
            if path.slot(0) >= leaf.len() {
                let up = (1..=self.height).find(|&level| {
                    path.slot(level) + 1 < self.nodes[path.node(level)].len()
                })?;
                path.slots[up] += 1;
                for level in (0..up).rev() {
                    let above = &self.nodes[path.node(level + 1)];
                    path.nodes[level] = above.value(path.slot(level + 1)) as u32;
                    path.slots[level] = 0;
                }
                if self.nodes[path.node(0)].len() == 0 {
                    return None;
                }
            }
            let hole = self.hole_at(&path);
            path.slots[0] += 1;
            Some(hole)
        })
    }

    /// Checks the invariants.
    pub(super) fn check(&self) -> Result<(), String> {
        let widest = self.check_node(self.root, self.height, 0..u64::MAX)?;
        if widest != self.widest {
            return Err(format!("the widest hole is {widest}, not {}", self.widest));
        }
        let mut last = None;
        for (start, end) in self.iter() {
            if end <= start || last.is_some_and(|last| start <= last) {
                return Err(format!(
                    "hole {start:#x}..{end:#x} after one that ends at {last:x?}"
                ));
            }
            last = Some(end);
        }
        Ok(())
    }

    fn check_node(
        &self,
        id: u32,
        level: usize,
        bounds: core::ops::Range<u64>,
    ) -> Result<Weight, String> {
        let node = &self.nodes[id as usize];
        if node.len() == 0 && (level > 0 || id != self.root) {
            return Err(format!("node {id} at level {level} is empty"));
        }
        for slot in 0..node.len() {
            let (key, value) = (node.key(slot), node.value(slot));
            if (slot > 0 || level == 0) && !bounds.contains(&key) {
                return Err(format!("key {key:#x} of node {id} is not in {bounds:#x?}"));
            }
            let weighs = match level {
                0 => weight(value - key),
                _ => {
                    let lower = if slot == 0 { bounds.start } else { key };
                    let upper = if slot + 1 < node.len() {
                        node.key(slot + 1)
                    } else {
                        bounds.end
                    };
                    self.check_node(value as u32, level - 1, lower..upper)?
                }
            };
            if weighs != node.weight(slot) {
                return Err(format!(
                    "slot {slot} of node {id} weighs {weighs}: {node:?}"
                ));
            }
        }
        Ok(node.widest())
    }
}

/// What a special search looks for.
struct Want {
    pages: u64,
    window: PageRange,
    align: u64,
    top_down: bool,
}

impl Want {
    /// The first page of the run in the hole `start..end`, if it can be there.
    fn place(&self, start: u64, end: u64) -> Option<u64> {
        let (low, high) = (start.max(self.window.start()), end.min(self.window.end()));
        if self.top_down {
            let first = align_down(high.checked_sub(self.pages)?, self.align);
            return (first >= low).then_some(first);
        }
        let first = align_up(low, self.align);
        (first + self.pages <= high).then_some(first)
    }

    /// A bit for each slot that may hold the run: wide enough, and not clear of the window.
    fn slots(&self, node: &Node, level: usize) -> u32 {
        let wide = node.at_least(weight(self.pages));
        if self.window.start() == 0 && self.window.end() > node.key(node.len().max(1) - 1) {
            return wide;
        }
        // Slot 0 takes what is lower than its key, so its key says nothing above the leaves.
        let below_end = node.rank(self.window.end() - 1).max(usize::from(level > 0));
        // The hole that spans the window's start is in the last slot up to it, or above the
        // leaves at the end of the one before: no node is empty, so it is never further back.
        let before = node
            .rank(self.window.start())
            .saturating_sub(1 + usize::from(level > 0));
        wide & below(below_end) & !below(before)
    }

    /// The tightest hole of a leaf, among the slots of `mask`, that holds the run.
    fn tightest(&self, leaf: &Node, mut mask: u32) -> Option<(usize, u64)> {
        let mut best: Option<(usize, u64)> = None;
        while mask != 0 {
            let slot = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            if best.is_some_and(|(best, _)| leaf.weight(best) <= leaf.weight(slot)) {
                continue;
            }
            if let Some(start) = self.place(leaf.key(slot), leaf.value(slot)) {
                best = Some((slot, start));
            }
        }
        best
    }
}

/// The `count` lowest bits.
const fn below(count: usize) -> u32 {
    if count >= WIDTH {
        u32::MAX
    } else {
        (1 << count) - 1
    }
}

/// The weight of a hole of that many pages.
const fn weight(pages: u64) -> Weight {
    if pages > Weight::MAX as u64 { Weight::MAX } else { pages as Weight }
}

const fn hole(start: u64, end: u64) -> Entry {
    Entry {
        key: start,
        value: end,
        weight: weight(end - start),
    }
}
