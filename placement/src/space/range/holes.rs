//! The holes of a range, in a tree that knows how wide the holes below each node may be.
//!
//! A B+ tree in address order. A leaf holds up to 64 holes; each entry above it names a node of
//! the level below, a page at or before its first hole, and a width that none of its holes exceeds.
//!
//! ```text
//!              page    0    0x400   0x900            one entry a node below:
//!     root     widest  12     80       3             "from here on, at most that wide"
//!                      |      |        |
//!     leaf    0x40..0x48      |   0x900..0x903       one slot a hole, in no order;
//!             0x10..0x1c   0x400..0x450 ...          for each width, which slots are that wide
//!                |  |
//!     grant   before after                           so that merging searches nothing
//! ```
//!
//! A plain search goes to the first leaf, in address order, with a hole wide enough, and takes the
//! tightest hole of that leaf. Address order alone leaves slivers at low addresses, best fit alone
//! spreads small objects over the whole memory; first-then-best keeps the high addresses whole and
//! is better than both when the memory fills up (`examples/churn.rs` measures it).
//!
//! The width above a leaf is raised at once, and lowered when a search has found nothing there: a
//! hole that is taken from is often made wider again before anybody asks.

use alloc::vec::Vec;

use super::balance::SPARSE;
use super::leaf::{Hole, Leaf, ROOM};
use super::links::{BORDER, Links, Neighbour, Place};
use super::node::{Weight, weight};
use super::tree::Tree;
use super::want::Want;
use crate::PageRange;

/// All holes of a range, and the order of its blocks.
///
/// # Invariants
/// Holes are disjoint, not empty and do not touch each other. A hole is in the leaf that the tree
/// names for its first page. No leaf but an only one is empty. Each grant and each hole knows the
/// blocks on either side of it. A leaf in `vacant` has no holes.
#[derive(Debug)]
pub(super) struct Holes {
    pub(super) leaves: Vec<Leaf>,
    pub(super) vacant: Vec<u32>,
    pub(super) tree: Tree,
    pub(super) links: Links,
}

impl Holes {
    /// Makes the holes of a range of which nothing is taken.
    pub(super) fn new(pages: PageRange) -> Self {
        let mut leaf = Leaf::new(0, u64::MAX);
        if !pages.is_empty() {
            leaf.insert(Hole {
                start: pages.start(),
                end: pages.end(),
                before: BORDER,
                after: BORDER,
            });
        }
        leaf.widest = leaf.weigh();
        Self {
            tree: Tree::new(leaf.widest),
            leaves: [leaf].into(),
            vacant: Vec::new(),
            links: Links::new(),
        }
    }

    /// A width that no hole exceeds; `None` where that is more than a weight can say.
    pub(super) fn widest(&self) -> Option<u64> {
        let widest = self.tree.widest();
        (widest < Weight::MAX).then_some(widest as u64)
    }

    /// Finds a hole for `pages` pages: the tightest of the first leaf that has some.
    #[inline]
    pub(super) fn find(&mut self, pages: u64) -> Option<Place> {
        while pages <= self.tree.widest() as u64 {
            let leaf = self.tree.first(pages as Weight);
            if let Some(slot) = self.leaves[leaf as usize].tightest(pages) {
                return Some(Place::new(leaf, slot));
            }
            self.lower(leaf);
        }
        None
    }

    /// As [`find`](Self::find) for a run that has wishes: aligned, in a window, or the highest.
    /// Returns also the run's first page.
    pub(super) fn find_special(&self, want: &Want) -> Option<(Place, u64)> {
        if weight(want.pages) > self.tree.widest() {
            return None;
        }
        self.tree.seek(want, &mut |leaf| {
            let (slot, start) = self.leaves[leaf as usize].seek(want)?;
            Some((Place::new(leaf, slot), start))
        })
    }

    #[inline]
    pub(super) fn hole(&self, place: Place) -> Hole {
        self.leaves[place.leaf()].hole(place.slot())
    }

    /// Takes `start..end` out of a hole for the grant `token`.
    #[inline]
    pub(super) fn carve(&mut self, place: Place, start: u64, end: u64, token: u32) {
        let leaf = &mut self.leaves[place.leaf()];
        let hole = leaf.hole(place.slot());
        debug_assert!(hole.start <= start && end <= hole.end);
        if hole.start < start {
            return self.carve_behind(place, start, end, token);
        }
        let this = Neighbour::grant(token);
        let before = Neighbour::grant(hole.before);
        if end == hole.end {
            leaf.remove(place.slot());
            let sparse = leaf.len() < SPARSE;
            self.links.set_after(hole.before, this);
            self.links.set_before(hole.after, this);
            self.links.set(token, before, Neighbour::grant(hole.after));
            if sparse {
                self.thin_out(hole.start);
            }
            return;
        }
        let rest = Hole {
            start: end,
            before: token,
            ..hole
        };
        let stays = end < leaf.high;
        if stays {
            leaf.set(place.slot(), rest);
        }
        self.links.set_after(hole.before, this);
        self.links.set(token, before, Neighbour::hole(place));
        if !stays {
            self.relocate(place, rest);
        }
    }

    /// Carves where a part of the hole is left before the grant.
    #[cold]
    #[inline(never)]
    fn carve_behind(&mut self, place: Place, start: u64, end: u64, token: u32) {
        let hole = self.hole(place);
        let (this, after) = (Neighbour::grant(token), Neighbour::grant(hole.after));
        self.links.set(token, Neighbour::hole(place), after);
        self.links.set_before(hole.after, this);
        let front = Hole {
            end: start,
            after: token,
            ..hole
        };
        self.change(place, front);
        if end < hole.end {
            self.insert(Hole {
                start: end,
                before: token,
                ..hole
            });
        }
    }

    /// Makes `start..end` free, which were the grant `token`; merges it with the holes next to it.
    #[inline]
    pub(super) fn release(&mut self, token: u32, start: u64, end: u64) {
        let sides = self.links.sides(token);
        match (sides.before.token(), sides.after.token()) {
            (Ok(before), Ok(after)) => self.insert(Hole {
                start,
                end,
                before,
                after,
            }),
            (Err(lower), Ok(after)) => {
                let hole = self.hole(lower);
                self.links.set_before(after, sides.before);
                self.change(lower, Hole { end, after, ..hole });
            }
            (Ok(before), Err(upper)) => {
                let hole = self.hole(upper);
                self.links.set_after(before, sides.after);
                self.change(
                    upper,
                    Hole {
                        start,
                        before,
                        ..hole
                    },
                );
            }
            (Err(lower), Err(upper)) => {
                let (hole, next) = (self.hole(lower), self.hole(upper));
                self.links.set_before(next.after, sides.before);
                let merged = Hole {
                    end: next.end,
                    after: next.after,
                    ..hole
                };
                self.change(lower, merged);
                self.remove(upper);
            }
        }
    }

    /// Makes `start..end` free, which were the end of the grant `token`.
    pub(super) fn release_tail(&mut self, token: u32, start: u64, end: u64) {
        match self.links.sides(token).after.token() {
            Ok(after) => self.insert(Hole {
                start,
                end,
                before: token,
                after,
            }),
            Err(upper) => {
                let hole = self.hole(upper);
                self.change(upper, Hole { start, ..hole });
            }
        }
    }

    /// Changes the bounds of a hole and the grants next to it, which already know.
    #[inline(always)]
    fn change(&mut self, place: Place, hole: Hole) {
        let leaf = &mut self.leaves[place.leaf()];
        let old = leaf.hole(place.slot());
        if hole.start != old.start && !(leaf.low..leaf.high).contains(&hole.start) {
            return self.relocate(place, hole);
        }
        leaf.set(place.slot(), hole);
        if weight(hole.width()) > leaf.widest {
            self.raise(place.leaf(), &hole);
        }
    }

    /// Changes a hole that then may belong in another leaf.
    #[cold]
    #[inline(never)]
    fn relocate(&mut self, place: Place, hole: Hole) {
        self.remove(place);
        self.insert(hole);
    }

    #[inline]
    pub(super) fn insert(&mut self, hole: Hole) {
        let id = self.tree.leaf_at(hole.start);
        let leaf = &mut self.leaves[id as usize];
        if leaf.len() == ROOM {
            return self.insert_splitting(hole);
        }
        let place = Place::new(id, leaf.insert(hole));
        let rises = weight(hole.width()) > leaf.widest;
        self.link(place, &hole);
        if rises {
            self.raise(id as usize, &hole);
        }
    }

    /// Tells the grants next to a hole where it is.
    #[inline]
    pub(super) fn link(&mut self, place: Place, hole: &Hole) {
        self.links.set_after(hole.before, Neighbour::hole(place));
        self.links.set_before(hole.after, Neighbour::hole(place));
    }

    /// Removes a hole; the grants next to it know already.
    #[inline]
    fn remove(&mut self, place: Place) {
        let leaf = &mut self.leaves[place.leaf()];
        let hole = leaf.hole(place.slot());
        leaf.remove(place.slot());
        if leaf.len() < SPARSE {
            self.thin_out(hole.start);
        }
    }

    /// Makes a leaf weigh what its hole does.
    #[inline(never)]
    fn raise(&mut self, leaf: usize, hole: &Hole) {
        let weight = weight(hole.width());
        self.leaves[leaf].widest = weight;
        self.tree.raise(hole.start, weight);
    }

    /// Weighs a leaf anew in which a search has found nothing.
    #[cold]
    #[inline(never)]
    fn lower(&mut self, leaf: u32) {
        let leaf = &mut self.leaves[leaf as usize];
        leaf.widest = leaf.weigh();
        let page = leaf.slots().next().map_or(0, |slot| leaf.hole(slot).start);
        let (path, _) = self.tree.path_to(page);
        self.tree.reweigh(&path, leaf.widest);
    }
}
