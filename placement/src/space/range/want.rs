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
    /// Any page at all.
    pub(super) const ANY: Self = Self {
        pages: 1,
        window: PageRange::ALL,
        align: 1,
        top_down: false,
    };

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

    /// A bit for each slot below which the run may be: wide enough, and not clear of the window.
    pub(super) fn slots(&self, node: &Node) -> u32 {
        let wide = node.at_least(weight(self.pages));
        // Slot 0 takes what is lower than its key, so its key says nothing.
        let below_end = node.rank(self.window.end() - 1).max(1);
        // The hole that spans the window's start is below the last slot up to it, or at the end of
        // the one before: no leaf is empty, so it is never further back.
        let before = node.rank(self.window.start()).saturating_sub(2);
        wide & below(below_end) & !below(before)
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
