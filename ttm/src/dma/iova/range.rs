//! Addresses that somebody has.

use placement::Extent;

use crate::dma::DmaAddr;

/// Adjoining I/O addresses: whole granules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IovaSpan {
    first: u64,
    len: u64,
}

impl IovaSpan {
    pub(super) fn of(extent: Extent, shift: u32) -> Self {
        Self {
            first: extent.start() << shift,
            len: extent.pages().get() << shift,
        }
    }

    /// Bytes that are known to be within a range.
    pub(in crate::dma) const fn within(first: u64, len: u64) -> Self {
        Self { first, len }
    }

    /// The first address.
    ///
    /// # Panics
    /// Never: a space has no granule at the last of all addresses.
    #[must_use]
    pub fn first(self) -> DmaAddr {
        DmaAddr::new(self.first).expect("no range begins at the last address")
    }

    /// The last address.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.first + (self.len - 1)
    }

    /// How many bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether an address is in both.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

/// Addresses that were taken from an [`IovaSpace`](super::IovaSpace).
///
/// They go back by [`IovaSpace::free`](super::IovaSpace::free) and not by drop: whoever unwinds may
/// have left them mapped, and addresses that a device still reaches must rather be lost than be
/// handed out again. Giving them back also takes the time of day, which a drop does not have.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "addresses that are dropped are lost; free them"]
pub struct IovaRange {
    pub(super) extent: Extent,
    pub(super) shift: u32,
    /// The space that they are of.
    pub(super) home: usize,
}

impl IovaRange {
    /// All of them.
    #[must_use]
    pub fn span(&self) -> IovaSpan {
        IovaSpan::of(self.extent, self.shift)
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> DmaAddr {
        self.span().first()
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.span().last()
    }

    /// How many bytes: what was asked for, rounded up to granules at least; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(&self) -> u64 {
        self.span().len()
    }
}
