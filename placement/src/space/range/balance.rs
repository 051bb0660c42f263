//! Keeping the leaves of the tree of holes neither too full nor too empty.

use super::holes::Holes;
use super::leaf::{Hole, Leaf, ROOM};
use super::links::Place;
use super::node::Entry;

/// Below this, a leaf is merged with a neighbour if that leaves the neighbour as much room.
pub(super) const SPARSE: usize = ROOM / 8;

impl Holes {
    /// Moves the upper half of a full leaf to a new one, then inserts.
    #[cold]
    #[inline(never)]
    pub(super) fn insert_splitting(&mut self, hole: Hole) {
        let (path, id) = self.tree.path_to(hole.start);
        let (slots, lowest, key) = self.leaves[id as usize].halves();
        let leaf = &mut self.leaves[id as usize];
        let mut upper = Leaf::new(key, leaf.high);
        leaf.high = key;
        upper.low = key;
        let new = self.add(upper);
        for &slot in &slots[ROOM / 2..] {
            self.move_hole(Place::new(id, slot.into()), new);
        }
        let [lower, upper] = [id, new].map(|id| {
            let leaf = &mut self.leaves[id as usize];
            leaf.widest = leaf.weigh();
            leaf.widest
        });
        let entry = Entry {
            key,
            below: new,
            weight: upper,
        };
        self.tree.insert(&path, lowest, lower, entry);
        self.insert(hole);
    }

    fn move_hole(&mut self, place: Place, to: u32) {
        let hole = self.hole(place);
        self.leaves[place.leaf()].remove(place.slot());
        let place = Place::new(to, self.leaves[to as usize].insert(hole));
        self.link(place, &hole);
    }

    /// Merges a sparse leaf, the one where holes at `page` belong, with one next to it, or drops it
    /// if it is empty; else it stays as it is.
    #[cold]
    #[inline(never)]
    pub(super) fn thin_out(&mut self, page: u64) {
        if self.tree.is_leaf() {
            return;
        }
        let (mut path, id) = self.tree.path_to(page);
        let len = |id: u32| self.leaves[id as usize].len();
        let fits = |other: &u32| len(*other) + len(id) <= ROOM - SPARSE;
        let [lower, upper] = self.tree.siblings(&path);
        let Leaf { low, high, .. } = self.leaves[id as usize];
        if let Some(upper) = upper.filter(fits) {
            self.absorb(id, upper);
            self.tree.reweigh(&path, self.leaves[id as usize].widest);
            path.slots[0] += 1;
            self.vacant.push(upper);
        } else if let Some(lower) = lower.filter(fits) {
            self.absorb(lower, id);
            path.slots[0] -= 1;
            self.tree.reweigh(&path, self.leaves[lower as usize].widest);
            path.slots[0] += 1;
            self.vacant.push(id);
        } else if len(id) == 0 {
            if let Some(lower) = lower {
                self.leaves[lower as usize].high = high;
            } else if let Some(upper) = upper {
                self.leaves[upper as usize].low = low;
            }
            self.vacant.push(id);
        } else {
            return;
        }
        self.tree.remove(&path);
    }

    /// Moves all holes of `from`, the leaf after `into`, to that.
    fn absorb(&mut self, into: u32, from: u32) {
        for slot in self.leaves[from as usize].slots() {
            self.move_hole(Place::new(from, slot), into);
        }
        let high = self.leaves[from as usize].high;
        let leaf = &mut self.leaves[into as usize];
        (leaf.high, leaf.widest) = (high, leaf.weigh());
    }

    fn add(&mut self, leaf: Leaf) -> u32 {
        if let Some(id) = self.vacant.pop() {
            self.leaves[id as usize] = leaf;
            return id;
        }
        assert!(
            self.leaves.len() < 1 << 25,
            "a range has fewer than 2^31 holes"
        );
        self.leaves.push(leaf);
        (self.leaves.len() - 1) as u32
    }
}
