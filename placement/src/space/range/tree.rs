//! The way from an address, or a width, to a leaf.

use alloc::vec::Vec;

use super::node::{Entry, Node, WIDTH, Weight};
use super::path::{LEVELS, Path};
use super::want::Want;

/// Below this, a node is merged with a neighbour if that leaves the neighbour some room.
const SPARSE: usize = WIDTH / 4;

/// The nodes above the leaves; leaves are numbers here.
///
/// # Invariants
/// No node is empty, and the root has two entries at least. Each weight is the greatest of the node
/// below, or what the leaf below is said to weigh; `widest` is the root's, or that of the only leaf.
/// A key is at most each key below it, except in slot 0, which also takes what is lower.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    vacant: Vec<u32>,
    // A leaf if `height`, the number of levels of nodes, is zero.
    pub(super) root: u32,
    pub(super) height: usize,
    widest: Weight,
}

impl Tree {
    /// Makes the tree of leaf 0.
    pub(super) const fn new(widest: Weight) -> Self {
        Self {
            nodes: Vec::new(),
            vacant: Vec::new(),
            root: 0,
            height: 0,
            widest,
        }
    }

    /// Whether there is one leaf only.
    pub(super) const fn is_leaf(&self) -> bool {
        self.height == 0
    }

    /// What no hole exceeds in weight.
    pub(super) const fn widest(&self) -> Weight {
        self.widest
    }

    /// The first leaf, in address order, said to weigh as much; there is one.
    #[inline]
    pub(super) fn first(&self, weight: Weight) -> u32 {
        (0..self.height).fold(self.root, |id, _| {
            let node = &self.nodes[id as usize];
            node.below(node.first(weight))
        })
    }

    /// The leaf where holes that begin at `page` belong, and the way there.
    #[inline]
    pub(super) fn path_to(&self, page: u64) -> (Path, u32) {
        let mut path = Path::EMPTY;
        let mut id = self.root;
        for level in (0..self.height).rev() {
            let node = &self.nodes[id as usize];
            let slot = node.rank(page).saturating_sub(1);
            path.set(level, id, slot);
            id = node.below(slot);
        }
        (path, id)
    }

    /// As [`path_to`](Self::path_to), the leaf alone.
    #[inline]
    pub(super) fn leaf_at(&self, page: u64) -> u32 {
        (0..self.height).fold(self.root, |id, _| {
            let node = &self.nodes[id as usize];
            node.below(node.rank(page).saturating_sub(1))
        })
    }

    /// Looks into the leaves that may hold what is wanted, in address order or against it, until
    /// something is found.
    pub(super) fn seek<T>(
        &self,
        want: &Want,
        look: &mut impl FnMut(u32) -> Option<T>,
    ) -> Option<T> {
        self.seek_below(want, self.root, self.height, look)
    }

    fn seek_below<T>(
        &self,
        want: &Want,
        id: u32,
        height: usize,
        look: &mut impl FnMut(u32) -> Option<T>,
    ) -> Option<T> {
        if height == 0 {
            return look(id);
        }
        let node = &self.nodes[id as usize];
        let mut mask = want.slots(node);
        while mask != 0 {
            let slot = match want.top_down {
                true => mask.ilog2() as usize,
                false => mask.trailing_zeros() as usize,
            };
            mask &= !(1 << slot);
            let found = self.seek_below(want, node.below(slot), height - 1, look);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Makes the leaf at `page` weigh that, which is more than before.
    pub(super) fn raise(&mut self, page: u64, weight: Weight) {
        let mut id = self.root;
        for _ in 0..self.height {
            let node = &mut self.nodes[id as usize];
            let slot = node.rank(page).saturating_sub(1);
            node.set_weight(slot, weight.max(node.weight(slot)));
            id = node.below(slot);
        }
        self.widest = self.widest.max(weight);
    }

    /// Says what the leaf of a path weighs now, as far up as it matters.
    pub(super) fn reweigh(&mut self, path: &Path, weight: Weight) {
        self.reweigh_from(path, 0, weight);
    }

    fn reweigh_from(&mut self, path: &Path, level: usize, mut weight: Weight) {
        for level in level..self.height {
            let node = &mut self.nodes[path.node(level)];
            let slot = path.slot(level);
            if node.weight(slot) == weight {
                return;
            }
            node.set_weight(slot, weight);
            weight = node.widest();
        }
        self.widest = weight;
    }

    /// The leaves before and after a path's under the same node.
    pub(super) fn siblings(&self, path: &Path) -> [Option<u32>; 2] {
        if self.is_leaf() {
            return [None, None];
        }
        let (node, slot) = (&self.nodes[path.node(0)], path.slot(0));
        [
            slot.checked_sub(1),
            Some(slot + 1).filter(|&s| s < node.len()),
        ]
        .map(|slot| slot.map(|slot| node.below(slot)))
    }

    /// Inserts a leaf split off the path's; `first` and `weight` are those of what is left of that.
    #[cold]
    #[inline(never)]
    pub(super) fn insert(&mut self, path: &Path, first: u64, weight: Weight, mut entry: Entry) {
        let (mut key, mut weight) = (first, weight);
        for level in 0..self.height {
            let (node, slot) = (&mut self.nodes[path.node(level)], path.slot(level));
            node.set_weight(slot, weight);
            // What slot 0 took below its key must not end up after it.
            node.set_key(slot, key.min(node.key(slot)));
            if node.len() < WIDTH {
                node.insert(slot + 1, entry);
                let widest = node.widest();
                return self.reweigh_from(path, level + 1, widest);
            }
            let mut upper = node.split_off(WIDTH / 2);
            match (slot + 1).checked_sub(WIDTH / 2) {
                Some(slot) if slot > 0 => upper.insert(slot, entry),
                _ => node.insert(slot + 1, entry),
            }
            (key, weight) = (node.key(0), node.widest());
            entry = Entry {
                key: upper.key(0),
                below: 0,
                weight: upper.widest(),
            };
            entry.below = self.add(upper);
        }
        let (mut root, below) = (Node::EMPTY, self.root);
        root.insert(0, Entry { key, below, weight });
        root.insert(1, entry);
        self.widest = root.widest();
        self.root = self.add(root);
        self.height += 1;
        assert!(self.height <= LEVELS, "a tree of {} levels", self.height);
    }

    /// Removes the path's leaf, which is not the only one.
    #[cold]
    #[inline(never)]
    pub(super) fn remove(&mut self, path: &Path) {
        let mut level = 0;
        self.nodes[path.node(0)].remove(path.slot(0));
        while level + 1 < self.height && self.nodes[path.node(level)].len() < SPARSE {
            let (above, own) = (path.nodes[level + 1], path.slot(level + 1));
            let emptied = match self.nodes[path.node(level)].len() {
                0 => {
                    self.drop_node(path.nodes[level]);
                    own
                }
                _ => match self.merge(above, own) {
                    Some(emptied) => emptied,
                    None => break,
                },
            };
            self.nodes[above as usize].remove(emptied);
            level += 1;
        }
        let widest = self.nodes[path.node(level)].widest();
        self.reweigh_from(path, level + 1, widest);
        while self.height > 0 && self.nodes[self.root as usize].len() == 1 {
            let only = self.nodes[self.root as usize].below(0);
            self.drop_node(self.root);
            self.root = only;
            self.height -= 1;
        }
    }

    /// Merges the node in slot `own` of `above` with a neighbour that has room for it; returns
    /// the slot that is then to be removed.
    fn merge(&mut self, above: u32, own: usize) -> Option<usize> {
        let parent = &self.nodes[above as usize];
        let len = |slot: usize| self.nodes[parent.below(slot) as usize].len();
        let fits = |left: usize| len(left) + len(left + 1) <= WIDTH - SPARSE;
        let left = match own {
            _ if own + 1 < parent.len() && fits(own) => own,
            _ if own > 0 && fits(own - 1) => own - 1,
            _ => return None,
        };
        let (key, id) = (parent.key(left + 1), parent.below(left + 1));
        let into = parent.below(left) as usize;
        let mut from = core::mem::replace(&mut self.nodes[id as usize], Node::EMPTY);
        // Slot 0 took what is lower than its key; elsewhere the key must be a lower bound.
        from.set_key(0, key);
        self.nodes[into].append(&from, 0);
        let widest = self.nodes[into].widest();
        self.nodes[above as usize].set_weight(left, widest);
        self.drop_node(id);
        Some(left + 1)
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
