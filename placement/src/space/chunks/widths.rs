//! Which of many chunks is wide enough, found in a logarithm of their number.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A row of numbers below a tree of maxima.
///
/// # Invariants
/// `nodes[0]` is not used; each inner node is the greater of the two below it. The row is the
/// second half of `nodes`, zero behind its last number.
#[derive(Debug)]
pub(super) struct Widths {
    nodes: Vec<u64>,
}

impl Widths {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// Where the row begins, which is also how long it is.
    const fn row(&self) -> usize {
        self.nodes.len() / 2
    }

    /// Replaces the whole row.
    pub(super) fn rebuild(&mut self, widths: impl ExactSizeIterator<Item = u64>) {
        let row = widths.len().next_power_of_two();
        self.nodes.clear();
        self.nodes.resize(row, 0);
        self.nodes.extend(widths);
        self.nodes.resize(2 * row, 0);
        for node in (1..row).rev() {
            self.nodes[node] = self.nodes[2 * node].max(self.nodes[2 * node + 1]);
        }
    }

    /// Sets one number.
    pub(super) fn set(&mut self, index: usize, width: u64) {
        let mut node = self.row() + index;
        self.nodes[node] = width;
        while node > 1 {
            node /= 2;
            let greater = self.nodes[2 * node].max(self.nodes[2 * node + 1]);
            if self.nodes[node] == greater {
                return;
            }
            self.nodes[node] = greater;
        }
    }

    /// The number at `index`.
    pub(super) fn get(&self, index: usize) -> u64 {
        self.nodes[self.row() + index]
    }

    /// The first index from `from` on whose number is at least `width`, which is not zero.
    pub(super) fn first(&self, from: usize, width: u64) -> Option<usize> {
        if from >= self.row() {
            return None;
        }
        let mut node = self.row() + from;
        while self.nodes[node] < width {
            // The largest subtree that begins right of this one.
            node += 1;
            if node.is_power_of_two() {
                return None;
            }
            node >>= node.trailing_zeros();
        }
        while node < self.row() {
            node *= 2;
            if self.nodes[node] < width {
                node += 1;
            }
        }
        Some(node - self.row())
    }

    /// Checks that each inner node is the greater of the two below it.
    pub(super) fn check(&self) -> Result<(), String> {
        let right =
            |&node: &usize| self.nodes[node] == self.nodes[2 * node].max(self.nodes[2 * node + 1]);
        match (1..self.row()).find(|node| !right(node)) {
            None => Ok(()),
            Some(node) => Err(format!(
                "node {node} of the widths is not the greater of two"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_wide_enough_is_found_from_anywhere() {
        let mut widths = Widths::new();
        assert_eq!(widths.first(0, 1), None);
        for len in 0..10 {
            for code in 0..3usize.pow(len as u32) {
                let row: Vec<u64> = (0..len as u32)
                    .map(|digit| (code / 3usize.pow(digit) % 3) as u64)
                    .collect();
                // Half of them by `rebuild`, half by `set`.
                widths.rebuild(row.iter().map(|&width| width * (code as u64 % 2)));
                for (index, &width) in row.iter().enumerate() {
                    widths.set(index, width);
                    assert_eq!(widths.get(index), width);
                }
                widths.check().unwrap();
                for (from, width) in (0..=len).flat_map(|from| [1, 2, 3].map(|w| (from, w))) {
                    let found = (from..len).find(|&index| row[index] >= width);
                    assert_eq!(widths.first(from, width), found, "{row:?} {from} {width}");
                }
            }
        }
    }
}
