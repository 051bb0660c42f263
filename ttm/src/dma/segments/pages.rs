//! Pages of segments, one by one: frames for the CPU, addresses for a device.

use placement::PAGE_SIZE;

use crate::dma::{CpuSegment, DmaAddr, DmaError, DmaSegment};

/// What a list has of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CpuPage {
    /// The page file, as its source numbers them.
    pub file: u32,
    /// The page in the file.
    pub page: u64,
    /// The first byte, in the frame.
    pub offset: u64,
    /// How many bytes: fewer than a page at most at the list's ends.
    pub len: u64,
}

/// A page as a device finds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DmaPage {
    /// Its first byte.
    pub addr: DmaAddr,
    /// How many bytes: as many as were asked for.
    pub size: u64,
}

pub(super) fn of_cpu(segments: &[CpuSegment]) -> impl Iterator<Item = CpuPage> + '_ {
    segments.iter().flat_map(|segment| {
        let CpuSegment { span, offset, len } = *segment;
        (0..span.pages.get()).map(move |index| {
            let start = match index {
                0 => offset,
                _ => 0,
            };
            let end = (offset + len - index * PAGE_SIZE).min(PAGE_SIZE);
            CpuPage {
                file: span.file,
                page: span.first + index,
                offset: start,
                len: end - start,
            }
        })
    })
}

pub(super) fn of_device(
    segments: &[DmaSegment],
    size: u64,
) -> Result<impl Iterator<Item = DmaPage> + '_, DmaError> {
    if !size.is_power_of_two() {
        return Err(DmaError::BadGranule {
            granule: size,
            most: 1 << 63,
        });
    }
    let odd = |segment: &DmaSegment| (segment.addr.get() | segment.len) & (size - 1) != 0;
    if let Some(index) = segments.iter().position(odd) {
        return Err(DmaError::NotAMultiple {
            index,
            granule: size,
        });
    }
    Ok(segments.iter().flat_map(move |segment| {
        let first = segment.addr.get();
        (0..segment.len / size).map(move |index| DmaPage {
            addr: DmaAddr::new(first + index * size).expect("inside a segment"),
            size,
        })
    }))
}
