//! How a device wants its lists cut.

use core::fmt;

use placement::PAGE_SIZE;

use super::{DmaError, DmaSegment};

/// What a device takes of a list: how long its segments may be, where they begin and end, how many
/// there are.
///
/// ```
/// use ttm::dma::{DmaError, ParmsFault, SegmentParms};
///
/// let parms = SegmentParms { max_segment: 10_000, ..SegmentParms::DEFAULT };
/// parms.validate().unwrap();
/// assert_eq!(parms.longest(), 8192);
///
/// let parms = SegmentParms { max_segment: 4095, ..parms };
/// let fault = ParmsFault::SegmentBelowPage;
/// assert_eq!(parms.validate(), Err(DmaError::BadParms { fault }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SegmentParms {
    /// The most bytes of a segment; at least a page. Lists are built with whole pages.
    pub max_segment: u64,
    /// No segment goes from one multiple of this plus one across the next. A power of two less one,
    /// at least a page.
    pub boundary_mask: u64,
    /// Low bits of an address that the device counts on: the first byte has them as in memory, and
    /// where a segment ends and the next begins they are zero. A power of two less one.
    pub min_align_mask: u64,
    /// The most segments; `None` for as many as there are.
    pub max_segments: Option<u32>,
}

/// Why no list can be built.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ParmsFault {
    /// Segments of less than a page.
    SegmentBelowPage,
    /// The boundary mask is no power of two less one.
    BoundaryNoMask,
    /// Boundaries closer than a page.
    BoundaryBelowPage,
    /// The low bits to keep are no power of two less one.
    AlignNoMask,
    /// The longest segment, or what lies between two boundaries, does not reach from one aligned
    /// address to the next.
    AlignAboveSegment,
    /// No segments at all.
    NoSegments,
}

impl fmt::Display for ParmsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SegmentBelowPage => "segments are at least a page long",
            Self::BoundaryNoMask => "the boundary mask has to be a power of two less one",
            Self::BoundaryBelowPage => "boundaries are at least a page apart",
            Self::AlignNoMask => "the low bits to keep have to be a power of two less one",
            Self::AlignAboveSegment => {
                "the longest segment does not reach from one aligned address to the next"
            }
            Self::NoSegments => "a list has at least one segment",
        })
    }
}

impl Default for SegmentParms {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl SegmentParms {
    /// The parameters of a device that takes anything: segments as long as they get, anywhere.
    pub const WIDEST: Self = Self {
        max_segment: u64::MAX,
        boundary_mask: u64::MAX,
        min_align_mask: 0,
        max_segments: None,
    };

    /// The parameters of a device that nobody said anything else of: segments of 64 KiB, anywhere,
    /// as many as there are.
    pub const DEFAULT: Self = Self {
        max_segment: 64 << 10,
        boundary_mask: u64::MAX,
        min_align_mask: 0,
        max_segments: None,
    };

    /// Whether lists can be built by them.
    ///
    /// # Errors
    /// [`DmaError::BadParms`].
    pub const fn validate(&self) -> Result<(), DmaError> {
        let fault = if self.max_segment < PAGE_SIZE {
            ParmsFault::SegmentBelowPage
        } else if !is_mask(self.boundary_mask) {
            ParmsFault::BoundaryNoMask
        } else if self.boundary_mask < PAGE_SIZE - 1 {
            ParmsFault::BoundaryBelowPage
        } else if !is_mask(self.min_align_mask) {
            ParmsFault::AlignNoMask
        } else if self.min_align_mask >= self.max_segment
            || self.min_align_mask > self.boundary_mask
        {
            ParmsFault::AlignAboveSegment
        } else if matches!(self.max_segments, Some(0)) {
            ParmsFault::NoSegments
        } else {
            return Ok(());
        };
        Err(DmaError::BadParms { fault })
    }

    /// The most bytes of a segment that is built: [`max_segment`](Self::max_segment) rounded down
    /// to whole pages, and to what [`min_align_mask`](Self::min_align_mask) asks for.
    #[must_use]
    pub const fn longest(&self) -> u64 {
        self.max_segment & !self.step_mask()
    }

    /// Holds a list to the parameters, whoever made it.
    ///
    /// # Errors
    /// - [`DmaError::BadParms`].
    /// - [`DmaError::ZeroLength`]: no segments, or one without bytes.
    /// - [`DmaError::AddressOverflow`]: a segment past the last address.
    /// - [`DmaError::TooManySegments`], [`DmaError::SegmentTooLong`],
    ///   [`DmaError::BoundaryCrossed`], [`DmaError::Misaligned`].
    pub fn check(&self, segments: &[DmaSegment]) -> Result<(), DmaError> {
        self.validate()?;
        let end = segments.len().checked_sub(1).ok_or(DmaError::ZeroLength)?;
        for (index, segment) in segments.iter().enumerate() {
            let last = segment.last()?;
            self.check_one(index, segment, last)?;
            let mask = self.min_align_mask;
            let first = segment.addr.get() & mask;
            let rest = !last & mask;
            if (index > 0 && first != 0) || (index < end && rest != 0) {
                return Err(DmaError::Misaligned { index, mask });
            }
        }
        match self.max_segments {
            Some(most) if segments.len() as u64 > u64::from(most) => {
                Err(DmaError::TooManySegments {
                    have: segments.len(),
                    most,
                })
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn check_one(&self, index: usize, segment: &DmaSegment, last: u64) -> Result<(), DmaError> {
        if segment.len > self.max_segment {
            return Err(DmaError::SegmentTooLong {
                index,
                len: segment.len,
                max: self.max_segment,
            });
        }
        match (segment.addr.get() ^ last) & !self.boundary_mask {
            0 => Ok(()),
            _ => Err(DmaError::BoundaryCrossed { index }),
        }
    }

    /// Where the first segment of `start..end` ends. For valid parameters.
    #[inline]
    pub(super) fn cut(&self, start: u64, end: u64) -> u64 {
        let by_length = (start & !self.step_mask()).saturating_add(self.longest());
        let by_boundary = (start | self.boundary_mask).saturating_add(1);
        end.min(by_length).min(by_boundary)
    }

    /// Segments are cut where these bits are zero.
    const fn step_mask(&self) -> u64 {
        self.min_align_mask | (PAGE_SIZE - 1)
    }
}

/// Whether it is a power of two less one.
const fn is_mask(mask: u64) -> bool {
    mask & mask.wrapping_add(1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::DmaAddr;

    fn fault(parms: SegmentParms) -> ParmsFault {
        match parms.validate() {
            Err(DmaError::BadParms { fault }) => fault,
            other => panic!("{other:?} of {parms:?}"),
        }
    }

    #[test]
    fn parameters_that_build_nothing_are_refused() {
        let parms = SegmentParms::DEFAULT;
        parms.validate().unwrap();
        let cases = [
            (4095, u64::MAX, 0, None, ParmsFault::SegmentBelowPage),
            (4096, 0x1_0000, 0, None, ParmsFault::BoundaryNoMask),
            (4096, 0x7ff, 0, None, ParmsFault::BoundaryBelowPage),
            (4096, 0xffff, 0x800, None, ParmsFault::AlignNoMask),
            (4096, 0xffff, 0x1fff, None, ParmsFault::AlignAboveSegment),
            (1 << 20, 0xfff, 0x1fff, None, ParmsFault::AlignAboveSegment),
            (
                u64::MAX,
                u64::MAX,
                u64::MAX,
                None,
                ParmsFault::AlignAboveSegment,
            ),
            (4096, 0xffff, 0, Some(0), ParmsFault::NoSegments),
        ];
        for (max_segment, boundary_mask, min_align_mask, max_segments, why) in cases {
            let parms = SegmentParms {
                max_segment,
                boundary_mask,
                min_align_mask,
                max_segments,
            };
            assert_eq!(fault(parms), why, "{parms:?}");
        }
    }

    #[test]
    fn any_list_can_be_held_to_the_parameters() {
        let parms = SegmentParms {
            max_segment: 0x3000,
            boundary_mask: 0xffff,
            min_align_mask: 0x7ff,
            max_segments: Some(2),
        };
        let list = |segments: &[(u64, u64)]| -> Vec<DmaSegment> {
            let segments = segments.iter().map(|(addr, len)| DmaSegment {
                addr: DmaAddr::new(*addr).unwrap(),
                len: *len,
                bus: false,
            });
            segments.collect()
        };
        let check = |segments: &[(u64, u64)]| parms.check(&list(segments));
        assert_eq!(check(&[(0x100, 0x700), (0x9000, 5)]), Ok(()));
        assert_eq!(check(&[(0xd000, 0x3000)]), Ok(()));
        assert_eq!(check(&[]), Err(DmaError::ZeroLength));
        assert_eq!(check(&[(0, 0)]), Err(DmaError::ZeroLength));
        assert_eq!(check(&[(u64::MAX - 1, 3)]), Err(DmaError::AddressOverflow));
        assert_eq!(
            check(&[(0, 0x1000), (0, 0x3001)]),
            Err(DmaError::SegmentTooLong {
                index: 1,
                len: 0x3001,
                max: 0x3000
            })
        );
        assert_eq!(
            check(&[(0xf000, 0x1001)]),
            Err(DmaError::BoundaryCrossed { index: 0 })
        );
        let misaligned = |index| Err(DmaError::Misaligned { index, mask: 0x7ff });
        assert_eq!(check(&[(0, 0x400), (0x800, 8)]), misaligned(0));
        assert_eq!(check(&[(0, 0x800), (0x400, 8)]), misaligned(1));
        assert_eq!(
            check(&[(0, 0x800), (0x800, 0x800), (0, 8)]),
            Err(DmaError::TooManySegments { have: 3, most: 2 })
        );
    }
}
