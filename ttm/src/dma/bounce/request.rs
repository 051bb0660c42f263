//! What is wanted of a bounce pool, and where in a set that can be.

use placement::PAGE_SIZE;

use super::area::bits;
use super::{SET, SET_SLOTS, SLOT};
use crate::dma::words::boundary_step;
use crate::dma::{Direction, DmaError, Mask};

/// How bytes are to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BounceRequest {
    /// Where the first of them is: only what is to be kept of that matters.
    pub original: u64,
    /// Who writes and who reads.
    pub direction: Direction,
    /// The bits of the address that the device wants kept: a power of two less one.
    pub min_align_mask: u64,
    /// Multiples of this and one are not crossed: a power of two less one.
    pub boundary: u64,
    /// What the device reaches.
    pub limit: Mask,
}

impl BounceRequest {
    /// Asks for any address, for a device that reaches 32 bits.
    #[must_use]
    pub const fn new(original: u64, direction: Direction) -> Self {
        Self {
            original,
            direction,
            min_align_mask: 0,
            boundary: u64::MAX,
            limit: Mask::DEFAULT,
        }
    }

    /// Asks for an address that agrees with the original in these bits.
    #[must_use]
    pub const fn min_align_mask(mut self, mask: u64) -> Self {
        self.min_align_mask = mask;
        self
    }

    /// Asks for addresses on one side of each multiple of `boundary` and one.
    #[must_use]
    pub const fn boundary(mut self, boundary: u64) -> Self {
        self.boundary = boundary;
        self
    }

    /// Asks for a device that reaches so much.
    #[must_use]
    pub const fn limit(mut self, limit: Mask) -> Self {
        self.limit = limit;
        self
    }

    /// The most bytes that can be mapped so at once, while the pool is empty.
    ///
    /// # Errors
    /// [`DmaError::BadAlignment`].
    pub fn largest(&self) -> Result<u64, DmaError> {
        let kept = self.min_align_mask.wrapping_add(1);
        if !kept.is_power_of_two() || kept > SET {
            return Err(DmaError::BadAlignment {
                asked: kept,
                most: SET,
            });
        }
        let window = boundary_step(self.boundary)?.min(SET);
        Ok(window - (self.original & self.min_align_mask & (window - 1)))
    }

    /// Where `len` bytes can be in a set.
    pub(super) fn place(&self, len: u64) -> Result<BouncePlace, DmaError> {
        let max = self.largest()?;
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        if len > max {
            return Err(DmaError::TooLargeForBounce { len, max });
        }
        let kept = self.original & self.min_align_mask;
        let aligned = match len >= PAGE_SIZE {
            true => self.min_align_mask | (PAGE_SIZE - 1),
            false => self.min_align_mask,
        };
        Ok(BouncePlace {
            first: kept / SLOT,
            step: aligned / SLOT + 1,
            head: kept % SLOT,
            len,
            boundary: self.boundary,
        })
    }
}

/// Where in a set a mapping can be. Sets begin at multiples of their size, so that an address within
/// one says all about boundaries that are smaller, and larger ones are never crossed.
#[derive(Clone, Copy, Debug)]
pub(super) struct BouncePlace {
    /// The first slot that will do.
    first: u64,
    /// Every so many slots from there on do too.
    step: u64,
    /// Where in its slot the mapping begins.
    head: u64,
    len: u64,
    boundary: u64,
}

impl BouncePlace {
    /// How many slots it takes.
    pub(super) const fn slots(&self) -> u64 {
        (self.head + self.len).div_ceil(SLOT)
    }

    /// Where in its first slot it begins.
    pub(super) const fn head(&self) -> u64 {
        self.head
    }

    /// The lowest slot of a set where it can be, beside those that are used.
    pub(super) fn find(&self, used: u128) -> Option<u64> {
        let count = self.slots();
        let mut slot = self.first;
        while slot + count <= SET_SLOTS {
            if used & bits(slot, count) == 0 && !self.crosses_at(slot) {
                return Some(slot);
            }
            slot += self.step;
        }
        None
    }

    const fn crosses_at(&self, slot: u64) -> bool {
        let first = slot * SLOT + self.head;
        let last = first + (self.len - 1);
        (first ^ last) & !self.boundary != 0
    }
}
