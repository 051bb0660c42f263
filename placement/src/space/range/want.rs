//! What a search with wishes looks for.

use super::node::{Node, WIDTH, weight};
use crate::PageRange;
use crate::space::{align_down, align_up};

/// A run with an alignment, a window, or the highest address.
pub(super) struct Want {
    pub(super) pages: u64,
    pub(super) window: PageRange,
    pub(super) align: u64,
    pub(super) top_down: bool,
}

impl Want {
    /// The first page of the run in the hole `start..end`, if it can be there.
    pub(super) fn place(&self, start: u64, end: u64) -> Option<u64> {
        let (low, high) = (start.max(self.window.start()), end.min(self.window.end()));
        if self.top_down {
            let first = align_down(high.checked_sub(self.pages)?, self.align);
            return (first >= low).then_some(first);
        }
        let first = align_up(low, self.align);
        (first + self.pages <= high).then_some(first)
    }

    /// A bit for each slot that may hold the run: wide enough, and not clear of the window.
    pub(super) fn slots(&self, node: &Node, level: usize) -> u32 {
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
    pub(super) fn tightest(&self, leaf: &Node, mut mask: u32) -> Option<(usize, u64)> {
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
