//! A list in a block of I/O addresses.

use placement::PAGE_SIZE;

use crate::dma::{CpuSegment, DmaAddr, DmaError, DmaSegment, MappedList, PageList, SegmentParms};
use crate::pages::FrameSpan;

/// What is translated: so many bytes of frames, at a place in the block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IoRun {
    /// Where in the block, in bytes; a multiple of the granule.
    pub at: u64,
    /// The frames.
    pub span: FrameSpan,
    /// The first byte, in the first frame; a multiple of the granule.
    pub offset: u64,
    /// How many bytes; a multiple of the granule.
    pub len: u64,
}

/// One block of I/O addresses for a list: how long, how aligned, and what goes where.
///
/// A segment that would cross a boundary is moved up to it; what lies between is translated to
/// nothing.
///
/// ```
/// use ttm::dma::{DmaAddr, DmaError, FrameBytes, PageList, SegmentParms};
/// use ttm::pages::FrameSpan;
/// use ttm::placement::PageCount;
///
/// # fn main() -> Result<(), DmaError> {
/// let parms = SegmentParms { max_segments: Some(1), ..SegmentParms::DEFAULT };
/// let spans = [7, 3, 5].map(|first| FrameSpan { file: 0, first, pages: PageCount::ONE });
/// let bytes = FrameBytes { spans: &spans, offset: 0, len: 3 * 4096 };
/// let list = PageList::build(&parms, bytes)?;
/// let layout = list.layout(&parms, 4096)?;
/// assert_eq!((layout.bytes(), layout.align()), (3 * 4096, 4 * 4096));
///
/// // Three segments for the CPU, one for the device.
/// let mapped = layout.at(DmaAddr::new(0x8000).expect("not the last address"))?;
/// assert_eq!(mapped.dma_segments().len(), 1);
/// assert!(layout.at(DmaAddr::new(0x1000).expect("nor this")).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct IoLayout<'l> {
    list: &'l PageList,
    parms: SegmentParms,
    granule: u64,
    /// Where each segment's first granule is.
    places: Vec<u64>,
    bytes: u64,
    align: u64,
}

impl<'l> IoLayout<'l> {
    pub(super) fn new(
        list: &'l PageList,
        parms: &SegmentParms,
        granule: u64,
    ) -> Result<Self, DmaError> {
        parms.validate()?;
        check_granule(parms, granule)?;
        let mut places = Vec::with_capacity(list.cpu_segments().len());
        let mut bytes: u64 = 0;
        for (index, segment) in list.cpu_segments().iter().enumerate() {
            let size = granules(segment, granule).1;
            if size - 1 > parms.boundary_mask {
                return Err(DmaError::BoundaryCrossed { index });
            }
            let to_boundary = bytes.wrapping_neg() & parms.boundary_mask;
            let gap = match to_boundary < size {
                true => to_boundary,
                false => 0,
            };
            let place = bytes.checked_add(gap).ok_or(DmaError::AddressOverflow)?;
            places.push(place);
            let end = place.checked_add(size);
            bytes = end.ok_or(DmaError::AddressOverflow)?;
        }
        let around = bytes.checked_next_power_of_two();
        let around = around.ok_or(DmaError::AddressOverflow)?;
        // Either the block lies between two boundaries, or it begins at one.
        let align = granule.max(around.min(parms.boundary_mask.saturating_add(1)));
        Ok(Self {
            list,
            parms: *parms,
            granule,
            places,
            bytes,
            align,
        })
    }

    /// How long the block is.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What its first address is a multiple of.
    #[must_use]
    pub const fn align(&self) -> u64 {
        self.align
    }

    /// What is translated, in order of addresses.
    pub fn runs(&self) -> impl Iterator<Item = IoRun> + '_ {
        let segments = self.list.cpu_segments().iter();
        segments.zip(&self.places).map(|(segment, at)| {
            let (offset, len) = granules(segment, self.granule);
            let (at, span) = (*at, segment.span);
            IoRun {
                at,
                span,
                offset,
                len,
            }
        })
    }

    /// The list for a device that finds the block at `base`.
    ///
    /// A segment is joined to the one before if that ended at the end of a granule, this begins at
    /// the start of the next, which is no boundary, and both are not too long together.
    ///
    /// # Errors
    /// - [`DmaError::Misaligned`]: `base` is no multiple of [`IoLayout::align`].
    /// - [`DmaError::AddressOverflow`]: the block goes past the last address.
    /// - What [`SegmentParms::check`] finds.
    pub fn at(&self, base: DmaAddr) -> Result<MappedList, DmaError> {
        let mask = self.align - 1;
        if base.get() & mask != 0 {
            return Err(DmaError::Misaligned { index: 0, mask });
        }
        let end = base.get().checked_add(self.bytes);
        end.ok_or(DmaError::AddressOverflow)?;
        let mut dma: Vec<DmaSegment> = Vec::new();
        for (segment, place) in self.list.cpu_segments().iter().zip(&self.places) {
            let first = base.get() + place + segment.offset % self.granule;
            let addr = DmaAddr::new(first).expect("inside the block");
            let len = segment.len;
            match dma.last_mut() {
                Some(before) if self.joins(before, addr, len) => before.len += len,
                _ => dma.push(DmaSegment {
                    addr,
                    len,
                    bus: false,
                }),
            }
        }
        MappedList::checked(Some(self.list.clone()), dma, &self.parms)
    }

    fn joins(&self, before: &DmaSegment, addr: DmaAddr, len: u64) -> bool {
        let addr = addr.get();
        // All but the first segment begin with a frame (invariant of `PageList`), and so with a
        // granule: that they adjoin is the rule's first half.
        addr == before.addr.get() + before.len
            && addr & self.parms.boundary_mask != 0
            && len <= self.parms.max_segment.saturating_sub(before.len)
    }
}

/// Whether pages of that size can translate lists cut by `parms`.
fn check_granule(parms: &SegmentParms, granule: u64) -> Result<(), DmaError> {
    if !granule.is_power_of_two() || granule > PAGE_SIZE {
        return Err(DmaError::BadGranule {
            granule,
            most: PAGE_SIZE,
        });
    }
    match parms.min_align_mask < granule {
        true => Ok(()),
        false => Err(DmaError::AlignmentUnsupported {
            mask: parms.min_align_mask,
            granule,
        }),
    }
}

/// The whole granules that a segment touches: the first, in its first frame, and their bytes.
fn granules(segment: &CpuSegment, granule: u64) -> (u64, u64) {
    let offset = segment.offset & !(granule - 1);
    let end = (segment.offset + segment.len).next_multiple_of(granule);
    (offset, end - offset)
}
