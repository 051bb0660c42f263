//! A leaf of the tree of holes: up to 64 holes, filed by their width.

use super::node::{Weight, weight};
use super::want::Want;

/// How many holes a leaf has room for.
pub(super) const ROOM: usize = 64;

/// The file of the holes of 64 pages and more; before it there is one for each width.
const WIDE: usize = ROOM - 1;

/// A hole, and the grants on either side of it.
///
/// Holes do not touch, so each neighbour is a grant, or [`BORDER`](super::links::BORDER).
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) before: u32,
    pub(super) after: u32,
}

impl Hole {
    pub(super) const EMPTY: Self = Self {
        start: 0,
        end: 0,
        before: 0,
        after: 0,
    };

    pub(super) const fn width(&self) -> u64 {
        self.end - self.start
    }
}

/// Up to [`ROOM`] holes in slots, in no order.
///
/// A file is a set of slots, one bit each; there is one for each width below 64 pages and one for
/// all that is wider. Finding the tightest hole, adding one and removing one take a few
/// instructions; only wide holes are compared with each other.
///
/// # Invariants
/// Each slot of `used` is in the file of its width and in no other; `filled` has a bit for each
/// file that is not empty. No hole weighs more than `widest`. A hole that begins in `low..high`
/// belongs here, one elsewhere may: the tree knows.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Leaf {
    files: [u64; ROOM],
    filled: u64,
    used: u64,
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) widest: Weight,
    len: u32,
    holes: [Hole; ROOM],
}

impl Leaf {
    pub(super) const fn new(low: u64, high: u64) -> Self {
        Self {
            files: [0; ROOM],
            filled: 0,
            used: 0,
            low,
            high,
            widest: 0,
            len: 0,
            holes: [Hole::EMPTY; ROOM],
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn hole(&self, slot: usize) -> Hole {
        self.holes[slot % ROOM]
    }

    /// All slots with a hole.
    pub(super) const fn slots(&self) -> Slots {
        Slots(self.used)
    }

    /// The slot of the tightest hole of at least `pages` pages.
    #[inline]
    pub(super) fn tightest(&self, pages: u64) -> Option<usize> {
        let fits = self.filled & (u64::MAX << file(pages));
        match fits.trailing_zeros() as usize {
            WIDE.. => self.tightest_wide(pages),
            file => Some(self.files[file].trailing_zeros() as usize),
        }
    }

    /// As [`tightest`](Self::tightest) among wide holes: the least of width and slot, in one number
    /// so that no comparison is a branch.
    fn tightest_wide(&self, pages: u64) -> Option<usize> {
        let mut least = u64::MAX;
        for slot in Slots(self.files[WIDE]) {
            let width = self.holes[slot].width();
            let rank = width * ROOM as u64 + slot as u64;
            least = least.min(if width >= pages { rank } else { u64::MAX });
        }
        (least != u64::MAX).then_some(least as usize % ROOM)
    }

    /// The hole for a run with wishes: of those that can hold it the tightest, or the highest.
    pub(super) fn seek(&self, want: &Want) -> Option<(usize, u64)> {
        let mut files = self.filled & (u64::MAX << file(want.pages));
        let mut best = None;
        while files != 0 {
            let file = files.trailing_zeros() as usize;
            files &= files - 1;
            for slot in Slots(self.files[file]) {
                let hole = &self.holes[slot];
                if let Some(start) = want.place(hole.start, hole.end) {
                    let rank = match want.top_down {
                        true => u64::MAX - start,
                        false => hole.width(),
                    };
                    if best.is_none_or(|(least, _, _)| rank < least) {
                        best = Some((rank, slot, start));
                    }
                }
            }
        }
        best.map(|(_, slot, start)| (slot, start))
    }

    /// Adds a hole to a leaf that is not full. Here and below, `widest` is left to the caller.
    #[inline]
    pub(super) fn insert(&mut self, hole: Hole) -> usize {
        let slot = (!self.used).trailing_zeros() as usize % ROOM;
        self.used |= 1 << slot;
        self.len += 1;
        self.put(slot, hole);
        slot
    }

    /// Removes a hole.
    #[inline]
    pub(super) fn remove(&mut self, slot: usize) {
        self.unfile(slot);
        self.used &= !(1 << slot);
        self.len -= 1;
    }

    /// Changes a hole.
    #[inline]
    pub(super) fn set(&mut self, slot: usize, hole: Hole) {
        self.unfile(slot);
        self.put(slot, hole);
    }

    #[inline]
    fn put(&mut self, slot: usize, hole: Hole) {
        let file = file(hole.width());
        self.files[file] |= 1 << slot;
        self.filled |= 1 << file;
        self.holes[slot % ROOM] = hole;
    }

    #[inline]
    fn unfile(&mut self, slot: usize) {
        let file = file(self.holes[slot % ROOM].width());
        self.files[file] &= !(1 << slot);
        self.filled &= !(u64::from(self.files[file] == 0) << file);
    }

    /// The weight of the widest hole.
    pub(super) fn weigh(&self) -> Weight {
        weight(self.widest_width())
    }

    /// The width of the widest hole.
    pub(super) fn widest_width(&self) -> u64 {
        let file = self.filled.checked_ilog2().map_or(0, |file| file as usize);
        let widths = Slots(self.files[file]).map(|slot| self.holes[slot].width());
        widths.max().unwrap_or(0)
    }

    /// The slots of a full leaf, those of its upper half last, the first page of its lowest hole
    /// and that of the upper half.
    pub(super) fn halves(&self) -> ([u8; ROOM], u64, u64) {
        let start = |slot: u8| self.hole(slot.into()).start;
        let mut slots = core::array::from_fn(|slot| slot as u8);
        let (lower, &mut middle, _) =
            slots.select_nth_unstable_by_key(ROOM / 2, |&slot| start(slot));
        let lowest = lower.iter().map(|&slot| start(slot)).min();
        (slots, lowest.unwrap_or(0), start(middle))
    }

    /// Whether the files agree with the holes.
    pub(super) fn is_in_order(&self) -> bool {
        let mut files = [0; ROOM];
        for slot in self.slots() {
            files[file(self.holes[slot].width())] |= 1 << slot;
        }
        let filled = (0..ROOM).fold(0, |filled, file| {
            filled | u64::from(files[file] != 0) << file
        });
        let len = self.used.count_ones();
        files == self.files && filled == self.filled && len == self.len
    }
}

/// The file of holes that wide, of one page at least.
#[inline]
const fn file(width: u64) -> usize {
    if width > WIDE as u64 {
        return WIDE;
    }
    width.wrapping_sub(1) as usize % ROOM
}

/// The slots of a set.
#[derive(Clone, Copy)]
pub(super) struct Slots(u64);

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (slot < ROOM).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_hole_is_found_as_a_plain_loop_would() {
        let mut leaf = Leaf::new(0, u64::MAX);
        for step in 0..ROOM as u64 {
            let (start, width) = (1000 * step, 1 + step * step * 7 % 131);
            leaf.insert(Hole {
                start,
                end: start + width,
                ..Hole::EMPTY
            });
            if step % 3 == 2 {
                let slot = leaf.slots().nth(leaf.len() / 2).expect("three at least");
                leaf.remove(slot);
            }
            let widths = || leaf.slots().map(|slot| leaf.hole(slot).width());
            assert!(leaf.is_in_order());
            assert_eq!(leaf.widest_width(), widths().max().unwrap_or(0));
            for pages in 1..140 {
                let tightest = leaf.tightest(pages).map(|slot| leaf.hole(slot).width());
                assert_eq!(tightest, widths().filter(|&width| width >= pages).min());
            }
        }
    }
}
