//! A number for each chunk, and the first or last chunk whose number is large enough.
//!
//! The numbers are the leaves of a binary tree in which each node is the larger of its two
//! children, so a search goes down one path: 20 steps for 2 TiB.

use std::collections::TryReserveError;

/// # Invariants
/// `nodes` has twice as many entries as there are leaves, which are a power of two; leaf `n` is
/// entry `leaves + n`, and entry `n` is the larger of entries `2n` and `2n + 1`.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<u16>,
}

impl Tree {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    pub(super) fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// A tree with the same numbers and `leaves` leaves, a power of two; the new ones are 0.
    pub(super) fn grown(&self, leaves: usize) -> Result<Self, TryReserveError> {
        debug_assert!(leaves.is_power_of_two() && leaves >= self.leaves());
        let mut nodes = Vec::new();
        nodes.try_reserve_exact(2 * leaves)?;
        nodes.resize(2 * leaves, 0);
        nodes[leaves..leaves + self.leaves()].copy_from_slice(&self.nodes[self.leaves()..]);
        for n in (1..leaves).rev() {
            nodes[n] = nodes[2 * n].max(nodes[2 * n + 1]);
        }
        Ok(Self { nodes })
    }

    pub(super) fn get(&self, leaf: usize) -> usize {
        self.nodes[self.leaves() + leaf].into()
    }

    pub(super) fn set(&mut self, leaf: usize, number: usize) {
        let mut n = self.leaves() + leaf;
        self.nodes[n] = u16::try_from(number).expect("at most the slots of a chunk");
        while n > 1 {
            n /= 2;
            let larger = self.nodes[2 * n].max(self.nodes[2 * n + 1]);
            if self.nodes[n] == larger {
                return;
            }
            self.nodes[n] = larger;
        }
    }

    /// The first leaf with `least` or more.
    pub(super) fn first(&self, least: usize) -> Option<usize> {
        self.find(least, [0, 1])
    }

    /// The last leaf with `least` or more.
    pub(super) fn last(&self, least: usize) -> Option<usize> {
        self.find(least, [1, 0])
    }

    fn find(&self, least: usize, order: [usize; 2]) -> Option<usize> {
        let enough = |n: usize| usize::from(self.nodes[n]) >= least;
        if self.nodes.is_empty() || !enough(1) {
            return None;
        }
        let mut n = 1;
        while n < self.leaves() {
            let [preferred, other] = order.map(|child| 2 * n + child);
            n = if enough(preferred) { preferred } else { other };
        }
        Some(n - self.leaves())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_last_large_enough_are_found() {
        let mut tree = Tree::new();
        assert_eq!(tree.first(1), None);
        let mut numbers = vec![0; 8];
        let mut seed = 1_u32;
        for round in 0..2000 {
            if round == 1000 {
                numbers.resize(32, 0);
            }
            if tree.leaves() < numbers.len() {
                tree = tree.grown(numbers.len()).unwrap();
            }
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let leaf = (seed >> 8) as usize % numbers.len();
            numbers[leaf] = (seed >> 20) as usize % 513;
            tree.set(leaf, numbers[leaf]);
            for least in [1, 100, 400, 512] {
                let first = numbers.iter().position(|have| *have >= least);
                let last = numbers.iter().rposition(|have| *have >= least);
                assert_eq!((tree.first(least), tree.last(least)), (first, last));
            }
        }
    }
}
