//! Lists of segments: a buffer's frames, and where a device finds them.
//!
//! First frames become a [`PageList`], cut by the [`SegmentParms`] of the device. Then it is given
//! addresses, as often as there are devices, each time for a [`MappedList`] of its own:
//!
//! ```text
//!   CPU side      |0.............|1......|2..............|      as many as were built
//!   direct        |0.............|1......|2..............|      n to n, where the frames are
//!   translated    |0.....................|1..............|      one block, joined
//! ```
//!
//! Building cuts, mapping checks: which segments a device sees is known only when it has addresses.
//! Nothing is mapped here: who maps does what [`IoLayout::runs`] says.

mod layout;
mod pages;
#[cfg(test)]
mod tests;

use placement::{PAGE_SIZE, PageCount, PageRange};

use super::words::{in_mapping, last_byte};
use super::{DmaAddr, DmaError, SegmentParms};
use crate::pages::FrameSpan;
use crate::sync::Arc;

pub use layout::{IoLayout, IoRun};
pub use pages::{CpuPage, DmaPage};

/// A part of a buffer as the CPU has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CpuSegment {
    /// The frames that it touches, one after the other.
    pub span: FrameSpan,
    /// The first byte, in the first frame.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// A part of a buffer as a device finds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DmaSegment {
    /// The first byte.
    pub addr: DmaAddr,
    /// How many bytes.
    pub len: u64,
    /// Whether the address is raw, for the bus: neither translated nor synced.
    pub bus: bool,
}

impl DmaSegment {
    /// The address of the last byte.
    ///
    /// # Errors
    /// [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`].
    #[inline]
    pub fn last(&self) -> Result<u64, DmaError> {
        last_byte(self.addr.get(), self.len)
    }
}

/// Which bytes of which frames a list is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameBytes<'a> {
    /// Frames, in the buffer's order.
    pub spans: &'a [FrameSpan],
    /// The first byte, counted from the start of the first span.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Memory by its address on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BusRange {
    /// The first byte.
    pub addr: DmaAddr,
    /// How many bytes.
    pub len: u64,
}

/// A buffer's bytes in segments of frames, for no device yet.
///
/// # Invariants
/// There is at least one segment, none is empty, and only the first begins and only the last ends
/// inside a frame.
///
/// ```
/// use ttm::dma::{DmaError, FrameBytes, PageList, SegmentParms};
/// use ttm::pages::FrameSpan;
/// use ttm::placement::PageCount;
///
/// # fn main() -> Result<(), DmaError> {
/// let span = |first, pages| FrameSpan { file: 0, first, pages: PageCount::new(pages).unwrap() };
/// // Pages 4 to 6, then 9: three adjoin.
/// let spans = [span(4, 2), span(6, 1), span(9, 1)];
/// let bytes = FrameBytes { spans: &spans, offset: 512, len: 13_000 };
/// let list = PageList::build(&SegmentParms::DEFAULT, bytes)?;
/// let lens: Vec<u64> = list.cpu_segments().iter().map(|s| s.len).collect();
/// assert_eq!(lens, [3 * 4096 - 512, 1224]);
///
/// // A device that has memory at 1 GiB takes the frames as they are.
/// let direct = list.direct(&SegmentParms::DEFAULT, |span| Some((1 << 30) + span.first * 4096))?;
/// assert_eq!(direct.dma_segments()[0].addr.get(), (1 << 30) + 4 * 4096 + 512);
///
/// // One that takes a single segment does not.
/// let single = SegmentParms { max_segments: Some(1), ..SegmentParms::DEFAULT };
/// let refused = list.direct(&single, |span| Some(span.first * 4096));
/// assert_eq!(refused.unwrap_err(), DmaError::TooManySegments { have: 2, most: 1 });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageList {
    /// Those that have it mapped have the same ones.
    segments: Arc<Vec<CpuSegment>>,
    bytes: u64,
}

impl PageList {
    /// Cuts frames into segments.
    ///
    /// Frames that adjoin become one segment of up to [`SegmentParms::longest`] bytes, and none
    /// crosses a boundary. Boundaries are counted by the places of frames in their file, since
    /// addresses are not known yet; a file that begins at a boundary loses nothing by it.
    ///
    /// How many segments there are is checked when they have addresses: a translation joins them.
    ///
    /// # Errors
    /// - [`DmaError::BadParms`].
    /// - [`DmaError::ZeroLength`]: no bytes.
    /// - [`DmaError::RangeOutOfMapping`]: the spans have fewer bytes.
    /// - [`DmaError::AddressOverflow`]: frames or bytes past the last.
    pub fn build(parms: &SegmentParms, bytes: FrameBytes<'_>) -> Result<Self, DmaError> {
        parms.validate()?;
        let mut segments = Vec::with_capacity(bytes.spans.len());
        each_run(bytes, |run| cut(&mut segments, parms, run))?;
        Ok(Self {
            segments: Arc::new(segments),
            bytes: bytes.len,
        })
    }

    /// The segments, at least one.
    #[must_use]
    pub fn cpu_segments(&self) -> &[CpuSegment] {
        &self.segments
    }

    /// The pages that the segments touch, in order.
    pub fn cpu_pages(&self) -> impl Iterator<Item = CpuPage> + '_ {
        pages::of_cpu(&self.segments)
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The list for a device that finds frames where they are: a segment for each.
    ///
    /// `address` says where frames begin, if they lie there one after the other.
    ///
    /// # Errors
    /// - [`DmaError::NoAddress`]: they do not.
    /// - [`DmaError::Misaligned`]: it says something between two pages.
    /// - What [`SegmentParms::check`] finds.
    pub fn direct(
        &self,
        parms: &SegmentParms,
        address: impl Fn(FrameSpan) -> Option<u64>,
    ) -> Result<MappedList, DmaError> {
        let mut dma = Vec::with_capacity(self.segments.len());
        for (index, cpu) in self.segments.iter().enumerate() {
            let Some(base) = address(cpu.span) else {
                return Err(DmaError::NoAddress { index });
            };
            let mask = PAGE_SIZE - 1;
            if base & mask != 0 {
                return Err(DmaError::Misaligned { index, mask });
            }
            // The offset is less than a page: it only sets low bits.
            let Some(addr) = DmaAddr::new(base | cpu.offset) else {
                return Err(DmaError::AddressOverflow);
            };
            let len = cpu.len;
            let bus = false;
            dma.push(DmaSegment { addr, len, bus });
        }
        MappedList::checked(Some(self.clone()), dma, parms)
    }

    /// Plans one block of I/O addresses for the whole list, translated by pages of `granule` bytes.
    ///
    /// # Errors
    /// - [`DmaError::BadParms`].
    /// - [`DmaError::BadGranule`]: no power of two, or more than a page, which would show the device
    ///   the frames next to those of the list.
    /// - [`DmaError::AlignmentUnsupported`]: more low bits are to be kept than a granule has.
    /// - [`DmaError::BoundaryCrossed`]: a segment is longer than boundaries are apart; the list was
    ///   built for another device.
    /// - [`DmaError::AddressOverflow`]: no block is so long.
    pub fn layout(&self, parms: &SegmentParms, granule: u64) -> Result<IoLayout<'_>, DmaError> {
        IoLayout::new(self, parms, granule)
    }
}

/// A list as one device has it: what it is for the CPU, and what it is for the device.
///
/// Both sides have segments of their own, and need not have as many. Memory of another device has
/// no CPU side.
///
/// ```
/// use ttm::dma::{BusRange, DmaAddr, DmaError, MappedList, SegmentParms};
///
/// # fn main() -> Result<(), DmaError> {
/// let addr = DmaAddr::new(0xf000_0000).expect("not the last address");
/// let peer = MappedList::peer(&SegmentParms::DEFAULT, &[BusRange { addr, len: 8192 }])?;
/// assert!(peer.cpu_segments().is_none());
/// assert_eq!(peer.dma_pages(4096)?.count(), 2);
/// // No page is left out: where they do not fit, it says so.
/// let refused = peer.dma_pages(1 << 14).err();
/// assert_eq!(refused, Some(DmaError::NotAMultiple { index: 0, granule: 1 << 14 }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MappedList {
    cpu: Option<PageList>,
    dma: Vec<DmaSegment>,
}

impl MappedList {
    /// The list of memory of another device. Its ranges are cut, but never joined.
    ///
    /// # Errors
    /// [`DmaError::AddressOverflow`], and what [`SegmentParms::check`] finds.
    pub fn peer(parms: &SegmentParms, ranges: &[BusRange]) -> Result<Self, DmaError> {
        parms.validate()?;
        let mut dma = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut start = range.addr.get();
            let end = start.checked_add(range.len);
            let end = end.ok_or(DmaError::AddressOverflow)?;
            if range.len == 0 {
                return Err(DmaError::ZeroLength);
            }
            while start < end {
                let cut = parms.cut(start, end);
                let addr = DmaAddr::new(start).ok_or(DmaError::AddressOverflow)?;
                let len = cut - start;
                let bus = true;
                dma.push(DmaSegment { addr, len, bus });
                start = cut;
            }
        }
        Self::checked(None, dma, parms)
    }

    /// The list of copies of what another is of.
    ///
    /// # Errors
    /// What [`SegmentParms::check`] finds.
    pub(super) fn copied(
        of: PageList,
        dma: Vec<DmaSegment>,
        parms: &SegmentParms,
    ) -> Result<Self, DmaError> {
        Self::checked(Some(of), dma, parms)
    }

    /// The list, if the device takes it.
    fn checked(
        cpu: Option<PageList>,
        dma: Vec<DmaSegment>,
        parms: &SegmentParms,
    ) -> Result<Self, DmaError> {
        parms.check(&dma)?;
        Ok(Self { cpu, dma })
    }

    /// The segments for the CPU: those to sync and to unmap. `None` for memory of another device.
    #[must_use]
    pub fn cpu_segments(&self) -> Option<&[CpuSegment]> {
        self.cpu.as_ref().map(PageList::cpu_segments)
    }

    /// The segments for the device: those to program it with. At least one.
    #[must_use]
    pub fn dma_segments(&self) -> &[DmaSegment] {
        &self.dma
    }

    /// The pages for the CPU, in order. `None` for memory of another device.
    pub fn cpu_pages(&self) -> Option<impl Iterator<Item = CpuPage> + '_> {
        self.cpu.as_ref().map(PageList::cpu_pages)
    }

    /// The pages for the device, of `page_size` bytes each, in order.
    ///
    /// # Errors
    /// - [`DmaError::BadGranule`]: no power of two.
    /// - [`DmaError::NotAMultiple`]: a segment does not consist of such pages. Nothing is skipped.
    pub fn dma_pages(
        &self,
        page_size: u64,
    ) -> Result<impl Iterator<Item = DmaPage> + '_, DmaError> {
        pages::of_device(&self.dma, page_size)
    }

    /// The lowest and the highest address.
    pub(super) fn bounds(&self) -> (u64, u64) {
        // Checked when it was made: none is empty, or goes past the last address.
        let each = self.dma.iter().map(|s| (s.addr.get(), s.len - 1));
        let bounds =
            |(low, high): (u64, u64), (first, more)| (low.min(first), high.max(first + more));
        each.fold((u64::MAX, 0), bounds)
    }

    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dma.iter().map(|segment| segment.len).sum()
    }
}

/// Bytes of a file, adjoining.
#[derive(Clone, Copy, Debug)]
struct Run {
    file: u32,
    start: u64,
    end: u64,
}

#[inline]
fn cut(segments: &mut Vec<CpuSegment>, parms: &SegmentParms, run: Run) {
    let mut start = run.start;
    while start < run.end {
        let end = parms.cut(start, run.end);
        segments.push(segment(run.file, start, end));
        start = end;
    }
}

/// Calls `f` for each run of frames that the bytes are in, as long as they get.
fn each_run(bytes: FrameBytes<'_>, mut f: impl FnMut(Run)) -> Result<(), DmaError> {
    check_bytes(bytes)?;
    let mut run: Option<Run> = None;
    let (mut skip, mut left) = (bytes.offset, bytes.len);
    for span in bytes.spans {
        let whole = span.pages.bytes();
        if skip >= whole {
            skip -= whole;
            continue;
        }
        if left == 0 {
            break;
        }
        let start = span.first * PAGE_SIZE + skip;
        let take = left.min(whole - skip);
        let (file, end) = (span.file, start + take);
        match &mut run {
            Some(run) if run.file == file && run.end == start => run.end = end,
            _ => {
                if let Some(run) = run.replace(Run { file, start, end }) {
                    f(run);
                }
            }
        }
        skip = 0;
        left -= take;
    }
    if let Some(run) = run {
        f(run);
    }
    Ok(())
}

/// Whether there are such bytes.
fn check_bytes(bytes: FrameBytes<'_>) -> Result<(), DmaError> {
    let FrameBytes { spans, offset, len } = bytes;
    if len == 0 {
        return Err(DmaError::ZeroLength);
    }
    let mut pages = PageCount::ZERO;
    for span in spans {
        let exists = PageRange::at(span.first, span.pages).is_some();
        match pages.checked_add(span.pages) {
            Some(sum) if exists => pages = sum,
            _ => return Err(DmaError::AddressOverflow),
        }
    }
    in_mapping(offset, len, pages.bytes())
}

/// The segment of those bytes of a file.
#[inline]
fn segment(file: u32, start: u64, end: u64) -> CpuSegment {
    let first = start / PAGE_SIZE;
    let offset = start % PAGE_SIZE;
    let len = end - start;
    let pages = PageCount::from_bytes_ceil(offset + len).expect("frames of a file");
    CpuSegment {
        span: FrameSpan { file, first, pages },
        offset,
        len,
    }
}
