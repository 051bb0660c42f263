//! Which block lies before and after each grant.

use alloc::vec::Vec;

/// What lies beyond the first and the last page, where a grant would be named.
pub(super) const BORDER: u32 = HOLE - 1;

const HOLE: u32 = 1 << 31;

/// Where a hole is: the number of its leaf and the slot in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

impl Place {
    pub(super) const fn new(leaf: u32, slot: usize) -> Self {
        Self(leaf << 6 | slot as u32)
    }

    pub(super) const fn leaf(self) -> usize {
        (self.0 >> 6) as usize
    }

    pub(super) const fn slot(self) -> usize {
        (self.0 & 63) as usize
    }
}

/// The block next to a grant: a hole, another grant by its token, or [`BORDER`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Neighbour(u32);

impl Neighbour {
    pub(super) const BORDER: Self = Self(BORDER);

    pub(super) const fn grant(token: u32) -> Self {
        Self(token)
    }

    pub(super) const fn hole(place: Place) -> Self {
        Self(place.0 | HOLE)
    }

    /// The grant's token, or else the hole's place.
    #[inline]
    pub(super) const fn token(self) -> Result<u32, Place> {
        match self.0 & HOLE {
            0 => Ok(self.0),
            _ => Err(Place(self.0 & !HOLE)),
        }
    }
}

/// The blocks on either side of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sides {
    pub(super) before: Neighbour,
    pub(super) after: Neighbour,
}

/// The neighbours of each grant, by its token; together with those of each hole, a chain of all
/// blocks in address order.
#[derive(Debug)]
pub(super) struct Links(Vec<Sides>);

impl Links {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    #[inline]
    pub(super) fn sides(&self, token: u32) -> Sides {
        self.0[token as usize]
    }

    /// Sets both sides of a grant, which may be new.
    #[inline]
    pub(super) fn set(&mut self, token: u32, before: Neighbour, after: Neighbour) {
        let sides = Sides { before, after };
        match self.0.get_mut(token as usize) {
            Some(place) => *place = sides,
            None => self.add(token, sides),
        }
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, token: u32, sides: Sides) {
        assert!(token < BORDER, "a range has fewer than 2^31 - 1 extents");
        self.0.push(sides);
    }

    /// Says what lies before a grant; nothing is said of the border.
    #[inline]
    pub(super) fn set_before(&mut self, token: u32, before: Neighbour) {
        if let Some(sides) = self.0.get_mut(token as usize) {
            sides.before = before;
        }
    }

    /// Says what lies after a grant; nothing is said of the border.
    #[inline]
    pub(super) fn set_after(&mut self, token: u32, after: Neighbour) {
        if let Some(sides) = self.0.get_mut(token as usize) {
            sides.after = after;
        }
    }
}
