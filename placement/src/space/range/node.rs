//! A node above the leaves of the tree of holes: up to 32 entries, sorted by key.

use super::columns;

/// How many entries a node holds.
pub(super) const WIDTH: usize = 32;

/// The pages of a hole, as far as an `i16` goes.
///
/// So narrow that a node's weights are one cache line and are compared eight at a time; signed,
/// because that is what x86-64 compares without further ado. Up to [`Weight::MAX`] pages (128 MiB)
/// weights are exact.
pub(super) type Weight = i16;

/// One entry: a node, or a leaf, of the level below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// At most the first page of any hole below.
    pub(super) key: u64,
    /// The number of the node or leaf.
    pub(super) below: u32,
    /// The greatest weight below.
    pub(super) weight: Weight,
}

/// Up to [`WIDTH`] entries in columns, so that a column is compared at once.
///
/// # Invariants
/// Keys ascend. Past `len`, keys are `u64::MAX` and weights zero, so that neither is ever chosen.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Node {
    weights: [Weight; WIDTH],
    keys: [u64; WIDTH],
    below: [u32; WIDTH],
    len: usize,
}

impl Node {
    pub(super) const EMPTY: Self = Self {
        weights: [0; WIDTH],
        keys: [u64::MAX; WIDTH],
        below: [0; WIDTH],
        len: 0,
    };

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn key(&self, slot: usize) -> u64 {
        self.keys[slot]
    }

    pub(super) const fn below(&self, slot: usize) -> u32 {
        self.below[slot]
    }

    pub(super) const fn weight(&self, slot: usize) -> Weight {
        self.weights[slot]
    }

    /// How many keys are at most `key`.
    ///
    /// Looks at every eighth key, then at the seven after the last that passed: no branch depends
    /// on the data.
    #[inline]
    pub(super) fn rank(&self, key: u64) -> usize {
        let eighths = usize::from(self.keys[8] <= key)
            + usize::from(self.keys[16] <= key)
            + usize::from(self.keys[24] <= key);
        let mut rank = 8 * eighths;
        for &after in &self.keys[8 * eighths..8 * eighths + 8] {
            rank += usize::from(after <= key);
        }
        rank
    }

    /// The greatest weight.
    #[inline]
    pub(super) fn widest(&self) -> Weight {
        columns::greatest(&self.weights)
    }

    /// The first slot whose weight is at least `weight`, if there is one.
    #[inline]
    pub(super) fn first(&self, weight: Weight) -> usize {
        columns::first(&self.weights, weight)
    }

    /// A bit for each slot whose weight is at least `weight`.
    pub(super) fn at_least(&self, weight: Weight) -> u32 {
        let slots = self.weights.iter().enumerate();
        slots.fold(0, |mask, (slot, &w)| mask | u32::from(w >= weight) << slot)
    }

    pub(super) const fn set(&mut self, slot: usize, entry: Entry) {
        self.keys[slot] = entry.key;
        self.below[slot] = entry.below;
        self.weights[slot] = entry.weight;
    }

    pub(super) const fn set_weight(&mut self, slot: usize, weight: Weight) {
        self.weights[slot] = weight;
    }

    pub(super) const fn set_key(&mut self, slot: usize, key: u64) {
        self.keys[slot] = key;
    }

    /// Puts an entry before `slot`; the node is not full.
    pub(super) fn insert(&mut self, slot: usize, entry: Entry) {
        let len = self.len;
        self.keys.copy_within(slot..len, slot + 1);
        self.below.copy_within(slot..len, slot + 1);
        self.weights.copy_within(slot..len, slot + 1);
        self.set(slot, entry);
        self.len = len + 1;
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let len = self.len;
        self.keys.copy_within(slot + 1..len, slot);
        self.below.copy_within(slot + 1..len, slot);
        self.weights.copy_within(slot + 1..len, slot);
        self.keys[len - 1] = u64::MAX;
        self.weights[len - 1] = 0;
        self.len = len - 1;
    }

    /// Moves the entries from `slot` on to a new node.
    pub(super) fn split_off(&mut self, slot: usize) -> Self {
        let mut upper = Self::EMPTY;
        upper.append(self, slot);
        self.keys[slot..].fill(u64::MAX);
        self.weights[slot..].fill(0);
        self.len = slot;
        upper
    }

    /// Adds the entries of `other` from `slot` on; they fit.
    pub(super) fn append(&mut self, other: &Self, slot: usize) {
        let (at, count) = (self.len, other.len - slot);
        self.keys[at..at + count].copy_from_slice(&other.keys[slot..other.len]);
        self.below[at..at + count].copy_from_slice(&other.below[slot..other.len]);
        self.weights[at..at + count].copy_from_slice(&other.weights[slot..other.len]);
        self.len = at + count;
    }
}

/// The weight of a hole of that many pages.
pub(super) const fn weight(pages: u64) -> Weight {
    if pages > Weight::MAX as u64 {
        Weight::MAX
    } else {
        pages as Weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(entries: &[(u64, Weight)]) -> Node {
        let mut node = Node::EMPTY;
        for (slot, &(key, weight)) in entries.iter().enumerate() {
            node.insert(
                slot,
                Entry {
                    key,
                    below: key as u32,
                    weight,
                },
            );
        }
        node
    }

    #[test]
    fn columns_are_searched_as_a_plain_loop_would() {
        for len in 0..=WIDTH {
            let entries: [(u64, Weight); WIDTH] =
                core::array::from_fn(|i| (10 * i as u64, 1 + (7 * i as Weight) % 13));
            let entries = &entries[..len];
            let node = node(entries);
            for key in 0..330 {
                let rank = entries.iter().filter(|entry| entry.0 <= key).count();
                assert_eq!(node.rank(key), rank, "{len} {key}");
            }
            assert_eq!(
                node.widest(),
                entries.iter().map(|entry| entry.1).max().unwrap_or(0)
            );
            for weight in 1..15 {
                let fits = |entry: &&(u64, Weight)| entry.1 >= weight;
                let count = entries.iter().filter(fits).count();
                assert_eq!(node.at_least(weight).count_ones() as usize, count);
                if let Some(first) = entries.iter().find(fits) {
                    assert_eq!(node.key(node.first(weight)), first.0);
                }
            }
        }
    }

    #[test]
    fn what_is_split_off_can_be_appended_again() {
        let entries: [(u64, Weight); 20] =
            core::array::from_fn(|i| (3 * i as u64, 1 + i as Weight));
        for slot in 0..=20 {
            let mut lower = node(&entries);
            let upper = lower.split_off(slot);
            assert_eq!((lower.len(), upper.len()), (slot, 20 - slot));
            assert_eq!(lower.widest(), slot as Weight);
            lower.append(&upper, 0);
            for (slot, entry) in entries.iter().enumerate() {
                assert_eq!((lower.key(slot), lower.weight(slot)), *entry);
            }
        }
    }
}
