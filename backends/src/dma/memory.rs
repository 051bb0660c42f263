//! Where memory lies.

/// Bytes of a page, as `/proc/zoneinfo` counts them on most systems. Where pages are larger, less
/// memory is found than there is, but never a wider mask demanded than needed.
const PAGE: u64 = 4096;

/// The last byte of memory, by the text of `/proc/zoneinfo`.
pub(super) fn last_byte(zoneinfo: &str) -> Option<u64> {
    let (mut spanned, mut last) = (0, None);
    for line in zoneinfo.lines() {
        let mut words = line.split_ascii_whitespace();
        let (name, value) = (words.next(), words.next());
        let number = value.and_then(|value| value.parse::<u64>().ok());
        match (name, number) {
            (Some("spanned"), Some(pages)) => spanned = pages,
            (Some("start_pfn:"), Some(first)) if spanned > 0 => {
                let end = first.checked_add(spanned)?.checked_mul(PAGE)?;
                last = last.max(Some(end - 1));
            }
            _ => {}
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_zone_with_memory_counts() {
        let text = "Node 0, zone DMA32\n  spanned  1044480\n  start_pfn:  4096\n\
                    Node 0, zone Normal\n  spanned 5505024\n  start_pfn: 1048576\n\
                    Node 0, zone Movable\n  spanned 0\n  start_pfn: 0\n";
        assert_eq!(last_byte(text), Some((1_048_576 + 5_505_024) * 4096 - 1));
        assert_eq!(last_byte(""), None);
        assert_eq!(last_byte("spanned 5\nstart_pfn: x\n"), None);
    }
}
