//! What a space is made of, and what is wanted of it.

use core::ops::RangeInclusive;

use placement::{PAGE_SIZE, PageRange};

use super::cache;
use crate::dma::words::{boundary_step, power_of_two};
use crate::dma::{DmaError, Mask};

/// When a device forgets translations of what was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Invalidation {
    /// Before it is free: nothing that was unmapped is reached any more.
    #[default]
    Strict,
    /// With a batch of others. Until then a device may still reach what was unmapped, and nobody
    /// else is given those addresses.
    Lazy {
        /// How many ranges a thread frees before they are invalidated.
        batch: usize,
        /// How long the oldest of them waits, in nanoseconds, if there are fewer.
        timeout_ns: u64,
    },
}

/// What the address of a range is a multiple of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Align {
    /// The power of two from its length on. Up to 32 granules are rounded up to one, so that ranges
    /// of a few sizes are used over and over.
    #[default]
    Natural,
    /// So many bytes, a power of two, and a granule. The length is rounded up to granules only.
    Min(u64),
}

/// What an [`IovaSpace`](super::IovaSpace) is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IovaConfig {
    /// The smallest page of the device's tables in bytes: a power of two, a page at most.
    pub granule: u64,
    /// The last address that the tables translate.
    pub aperture: Mask,
    /// Addresses that belong to the platform: windows of bridges, firmware, interrupts. Each granule
    /// that has one of them is left out.
    pub reserved: Vec<RangeInclusive<u64>>,
    /// Whether devices that reach more are given addresses below 4 GiB while there are any: some
    /// say that they reach more and do not.
    pub limit32_first: bool,
    /// When what was freed is invalidated.
    pub invalidation: Invalidation,
}

impl Default for IovaConfig {
    /// Granules of a page, 48 bits, nothing reserved, strict.
    fn default() -> Self {
        Self {
            granule: PAGE_SIZE,
            aperture: Mask::bits(48),
            reserved: Vec::new(),
            limit32_first: false,
            invalidation: Invalidation::Strict,
        }
    }
}

impl IovaConfig {
    /// The granules that are never handed out, of `size` in all: sorted, with gaps in between.
    pub(super) fn reserved_granules(&self, size: u64) -> Vec<PageRange> {
        let shift = self.granule.trailing_zeros();
        let asked = self.reserved.iter().filter(|range| !range.is_empty());
        let mut bounds: Vec<_> = asked
            .map(|range| (range.start() >> shift, (range.end() >> shift).min(size)))
            .map(|(first, last)| (first.min(size), last.saturating_add(1).min(size)))
            .chain([(0, size.min(1))])
            .filter(|(first, end)| first < end)
            .collect();
        bounds.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, end) in bounds {
            match merged.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((first, end)),
            }
        }
        let ranges = merged.into_iter();
        ranges
            .filter_map(|(first, end)| PageRange::new(first, end))
            .collect()
    }
}

/// What is wanted of an [`IovaSpace`](super::IovaSpace).
///
/// ```
/// use ttm::dma::{Align, IovaRequest, Mask};
///
/// let request = IovaRequest::new(64 << 10).limit(Mask::bits(28)).boundary(0xffff_ffff);
/// assert_eq!(request.align, Align::Natural);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IovaRequest {
    /// How many bytes.
    pub len: u64,
    /// What the device reaches.
    pub limit: Mask,
    /// Multiples of this and one are not crossed: a power of two less one.
    pub boundary: u64,
    /// What the first address is a multiple of.
    pub align: Align,
}

impl IovaRequest {
    /// Asks for `len` bytes within 32 bits, naturally aligned.
    #[must_use]
    pub const fn new(len: u64) -> Self {
        Self {
            len,
            limit: Mask::DEFAULT,
            boundary: u64::MAX,
            align: Align::Natural,
        }
    }

    /// Asks for addresses that such a device reaches.
    #[must_use]
    pub const fn limit(mut self, limit: Mask) -> Self {
        self.limit = limit;
        self
    }

    /// Asks for addresses on one side of each multiple of `boundary` and one.
    #[must_use]
    pub const fn boundary(mut self, boundary: u64) -> Self {
        self.boundary = boundary;
        self
    }

    /// Asks for an address so aligned.
    #[must_use]
    pub const fn align(mut self, align: Align) -> Self {
        self.align = align;
        self
    }
}

/// A request in granules that holds in an empty space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) granules: u64,
    /// A power of two.
    pub(super) align: u64,
    /// The first granule beyond the limit.
    pub(super) end: u64,
    /// Multiples of it are not crossed; a power of two.
    window: u64,
}

impl Want {
    /// Checks a request under a limit that is its own or less.
    pub(super) fn new(request: &IovaRequest, limit: Mask, shift: u32) -> Result<Self, DmaError> {
        let (len, boundary) = (request.len, request.boundary);
        let least = len.checked_sub(1).ok_or(DmaError::ZeroLength)? >> shift;
        let least = least.saturating_add(1);
        let (granules, align) = match request.align {
            Align::Natural if least <= cache::LARGEST => {
                (least.next_power_of_two(), least.next_power_of_two())
            }
            Align::Natural => (least, least.checked_next_power_of_two().unwrap_or(least)),
            Align::Min(align) => (least, (power_of_two(align)? >> shift).max(1)),
        };
        let window = match boundary {
            u64::MAX => 1 << 63,
            _ => boundary_step(boundary)? >> shift,
        };
        if granules > window {
            return Err(DmaError::LongerThanBoundary { len, boundary });
        }
        let end = super::whole_granules(limit, shift);
        let want = Self {
            granules,
            align,
            end: end.min(PageRange::ALL.end()),
            window,
        };
        // Granule 0 is never handed out, so the lowest address is the alignment.
        match align.saturating_add(granules) <= want.end {
            true => Ok(want),
            false => Err(DmaError::AboveMask {
                end: align
                    .saturating_add(granules)
                    .saturating_mul(1 << shift)
                    .saturating_sub(1),
                mask: limit,
            }),
        }
    }

    /// The same with the first granule beyond it at `end` or lower.
    pub(super) fn below(mut self, end: u64) -> Self {
        self.end = self.end.min(end);
        self
    }

    /// The boundary that granules from `start` on would cross. There is one at most.
    pub(super) fn crosses_at(&self, start: u64) -> Option<u64> {
        let last = start + (self.granules - 1);
        let crossed = (start ^ last) >= self.window;
        crossed.then_some(last & !(self.window - 1))
    }

    /// Whether granules from `start` on are what is wanted.
    pub(super) fn is_met_at(&self, start: u64) -> bool {
        start + self.granules <= self.end
            && start & (self.align - 1) == 0
            && self.crosses_at(start).is_none()
    }
}
