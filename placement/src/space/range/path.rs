//! A way down the nodes above the leaves.

/// Levels of a tree at most. Nodes are rarely less than a third full, so this is more than 2^32 holes
/// need; growing beyond it is asserted against.
pub(super) const LEVELS: usize = 8;

/// The way from the root to a leaf: for each level above the leaves, lowest first, the node and the
/// slot in it.
#[derive(Clone, Copy)]
pub(super) struct Path {
    pub(super) nodes: [u32; LEVELS],
    pub(super) slots: [u8; LEVELS],
}

impl Path {
    pub(super) const EMPTY: Self = Self {
        nodes: [0; LEVELS],
        slots: [0; LEVELS],
    };

    #[inline]
    pub(super) const fn node(&self, level: usize) -> usize {
        self.nodes[level] as usize
    }

    #[inline]
    pub(super) const fn slot(&self, level: usize) -> usize {
        self.slots[level] as usize
    }

    #[inline]
    pub(super) const fn set(&mut self, level: usize, node: u32, slot: usize) {
        self.nodes[level] = node;
        self.slots[level] = slot as u8;
    }
}
