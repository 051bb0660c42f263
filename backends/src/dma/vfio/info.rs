//! The bytes of `struct vfio_iommu_type1_info`: a head, and a chain of capabilities.
//!
//! ```text
//!   0  length   4  flags   8  page sizes   16  where the first capability is
//!   a capability: 0  id, 16 bits   2  version, 16 bits   4  where the next is, or 0   8  content
//! ```

use core::ops::RangeInclusive;

const HAS_PAGE_SIZES: u32 = 1;
const HAS_CAPABILITIES: u32 = 2;

const IOVA_RANGES: u16 = 1;
const MAPPINGS: u16 = 3;

/// What they say.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Info {
    pub(super) page_sizes: u64,
    pub(super) iova_ranges: Vec<RangeInclusive<u64>>,
    pub(super) mappings_left: Option<u32>,
}

/// Reads what is there; what goes past the end is left out.
pub(super) fn parse(bytes: &[u8]) -> Info {
    let mut info = Info::default();
    let flags = u32_at(bytes, 4).unwrap_or(0);
    if flags & HAS_PAGE_SIZES != 0 {
        info.page_sizes = u64_at(bytes, 8).unwrap_or(0);
    }
    if flags & HAS_CAPABILITIES == 0 {
        return info;
    }
    let mut at = u32_at(bytes, 16).unwrap_or(0) as usize;
    // A chain that is longer goes in a circle.
    for _ in 0..bytes.len() / 8 {
        let (Some(id), Some(next)) = (u16_at(bytes, at), u32_at(bytes, at + 4)) else {
            break;
        };
        match id {
            _ if at == 0 => break,
            IOVA_RANGES => info.iova_ranges = ranges(bytes, at + 8),
            MAPPINGS => info.mappings_left = u32_at(bytes, at + 8),
            _ => {}
        }
        at = next as usize;
    }
    info
}

/// A count, a gap, and pairs of a first and a last address.
fn ranges(bytes: &[u8], at: usize) -> Vec<RangeInclusive<u64>> {
    let count = u32_at(bytes, at).unwrap_or(0) as usize;
    let pairs = bytes.get(at + 8..).unwrap_or_default().chunks_exact(16);
    let ranges = pairs
        .take(count)
        .filter_map(|pair| Some(u64_at(pair, 0)?..=u64_at(pair, 8)?));
    ranges.filter(|range| !range.is_empty()).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What an emulated VT-d with all capabilities answers.
    pub(in super::super) fn vt_d() -> Vec<u8> {
        let mut bytes = head(0x4020_1000, 24);
        capability(&mut bytes, 2, 48, &[0; 16]);
        let mut ranges = Vec::from([2, 0, 0, 0, 0, 0, 0, 0]);
        for address in [0, 0xfedf_ffff, 0xfef0_0000, 0xffff_ffff_ffff_u64] {
            ranges.extend(address.to_ne_bytes());
        }
        capability(&mut bytes, 1, 96, &ranges);
        capability(&mut bytes, 3, 0, &65535_u32.to_ne_bytes());
        bytes
    }

    fn head(page_sizes: u64, first: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(4096_u32.to_ne_bytes());
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend(page_sizes.to_ne_bytes());
        bytes.extend(first.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn capability(bytes: &mut Vec<u8>, id: u16, next: u32, content: &[u8]) {
        bytes.extend(id.to_ne_bytes());
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(content);
    }

    #[test]
    fn page_sizes_ranges_and_mappings_are_found_along_the_chain() {
        let expected = Info {
            page_sizes: 0x4020_1000,
            iova_ranges: vec![0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff_ffff],
            mappings_left: Some(65535),
        };
        assert_eq!(parse(&vt_d()), expected);
    }

    #[test]
    fn an_old_kernel_tells_page_sizes_only() {
        let mut bytes = head(0x1000, 24);
        bytes[4] = 1;
        capability(&mut bytes, 3, 0, &7_u32.to_ne_bytes());
        let expected = Info {
            page_sizes: 0x1000,
            ..Info::default()
        };
        assert_eq!(parse(&bytes), expected);
        bytes[4] = 0;
        assert_eq!(parse(&bytes), Info::default());
    }

    #[test]
    fn nothing_is_read_past_the_end_or_in_circles() {
        let whole = vt_d();
        for end in 0..whole.len() {
            let _ = parse(&whole[..end]);
        }
        // At 48 is what comes second; now it comes second to itself.
        let mut circle = whole.clone();
        circle[52..56].copy_from_slice(&48_u32.to_ne_bytes());
        assert_eq!(parse(&circle).mappings_left, None);
        assert_eq!(parse(&circle).iova_ranges.len(), 2);
        for far in [u32::MAX, 0xffff] {
            let bytes = head(0x1000, far);
            assert_eq!(parse(&bytes).page_sizes, 0x1000);
        }
        // More ranges than there are bytes.
        let mut many = whole;
        many[56..60].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse(&many).iova_ranges.len() >= 2);
    }
}
