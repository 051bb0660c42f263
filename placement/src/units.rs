//! Pages: the unit of every size and address in this crate.
//!
//! A [`PageCount`] is how many, a [`PageRange`] is which ones. Both are bounded by
//! [`PageCount::MAX`], so that a length in bytes always fits in a `u64` and sums of two page
//! numbers never wrap. Bytes are turned into pages by [`PageCount::from_bytes_ceil`] alone.

use core::fmt;

/// Logarithm of the page size.
pub const PAGE_SHIFT: u32 = 12;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A number of pages.
///
/// # Invariants
/// At most [`PageCount::MAX`], so that [`bytes`](Self::bytes) fits in a `u64`.
///
/// ```
/// use placement::PageCount;
///
/// let pages = PageCount::from_bytes_ceil(5000).expect("5000 bytes are few");
/// assert_eq!((pages.get(), pages.bytes()), (2, 8192));
/// assert_eq!(PageCount::new(1 << 52), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageCount(u64);

impl PageCount {
    /// No page.
    pub const ZERO: Self = Self(0);

    /// One page.
    pub const ONE: Self = Self(1);

    /// The most pages whose bytes fit in a `u64`.
    pub const MAX: Self = Self(u64::MAX >> PAGE_SHIFT);

    /// Makes a count of `pages`; `None` above [`PageCount::MAX`].
    pub const fn new(pages: u64) -> Option<Self> {
        if pages <= Self::MAX.0 {
            Some(Self(pages))
        } else {
            None
        }
    }

    /// Counts the pages that `bytes` need; `None` where rounding up would pass the end of a `u64`.
    ///
    /// ```
    /// use placement::PageCount;
    ///
    /// assert_eq!(PageCount::from_bytes_ceil(0), Some(PageCount::ZERO));
    /// assert_eq!(PageCount::from_bytes_ceil(1), Some(PageCount::ONE));
    /// assert_eq!(PageCount::from_bytes_ceil(u64::MAX - 4095), Some(PageCount::MAX));
    /// assert_eq!(PageCount::from_bytes_ceil(u64::MAX - 4094), None);
    /// ```
    pub const fn from_bytes_ceil(bytes: u64) -> Option<Self> {
        Self::new(bytes.div_ceil(PAGE_SIZE))
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The length in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 << PAGE_SHIFT
    }

    /// Whether there is no page.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` above [`PageCount::MAX`].
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        // Both are below 2^52, the sum cannot wrap.
        Self::new(self.0 + other.0)
    }

    /// The difference, or `None` where `other` is greater.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        if other.0 <= self.0 {
            Some(Self(self.0 - other.0))
        } else {
            None
        }
    }

    /// The difference, or zero where `other` is greater.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Makes a count from a number that the caller knows to be at most [`PageCount::MAX`].
    pub(crate) const fn within_max(pages: u64) -> Self {
        debug_assert!(pages <= Self::MAX.0);
        Self(pages)
    }
}

/// Shows the length in bytes, such as `2 MiB`.
impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human_bytes(self.bytes()).fmt(f)
    }
}

/// Pages `start..end` of some memory.
///
/// # Invariants
/// `start <= end <= PageCount::MAX`.
///
/// ```
/// use placement::{PageCount, PageRange};
///
/// let aperture = PageRange::new(0, 16).expect("0 is not above 16");
/// let middle = PageRange::new(8, 32).expect("8 is not above 32");
/// assert_eq!(aperture.intersection(middle), PageRange::new(8, 16).unwrap());
/// assert_eq!(middle.len().get(), 24);
///
/// let four = PageCount::new(4).unwrap();
/// assert_eq!(aperture.sub_range(four, four), PageRange::new(4, 8));
/// assert_eq!(aperture.sub_range(PageCount::new(13).unwrap(), four), None);
/// assert_eq!(PageRange::new(2, 1), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PageRange {
    start: u64,
    end: u64,
}

impl PageRange {
    /// No page.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// All pages that can be named.
    pub const ALL: Self = Self {
        start: 0,
        end: PageCount::MAX.0,
    };

    /// Makes `start..end`; `None` where `start > end` or `end` is above [`PageCount::MAX`].
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end && end <= PageCount::MAX.0 {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// Makes the range of `pages` pages from `start` on, if it ends by [`PageCount::MAX`].
    pub const fn at(start: u64, pages: PageCount) -> Option<Self> {
        match start.checked_add(pages.0) {
            Some(end) => Self::new(start, end),
            None => None,
        }
    }

    /// The first page.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The page after the last.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many pages there are.
    pub const fn len(self) -> PageCount {
        PageCount(self.end - self.start)
    }

    /// Whether there is no page.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether `page` is one of them.
    pub const fn contains(self, page: u64) -> bool {
        self.start <= page && page < self.end
    }

    /// Whether each page of `other` is one of them; true of an empty `other`.
    pub const fn contains_range(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// Whether a page is in both.
    pub const fn intersects(&self, other: &Self) -> bool {
        !self.intersection(*other).is_empty()
    }

    /// The pages in both; [`PageRange::EMPTY`] where there are none.
    pub const fn intersection(self, other: Self) -> Self {
        let start = if self.start > other.start {
            self.start
        } else {
            other.start
        };
        let end = if self.end < other.end {
            self.end
        } else {
            other.end
        };
        if start < end {
            Self { start, end }
        } else {
            Self::EMPTY
        }
    }

    /// The `len` pages that begin `offset` pages into the range; `None` where they leave it.
    ///
    /// Every part of a buffer, window or mapping is cut here, so that the check stands once.
    pub const fn sub_range(self, offset: PageCount, len: PageCount) -> Option<Self> {
        // Counts are below 2^52, neither sum can wrap.
        if offset.0 + len.0 > self.end - self.start {
            return None;
        }
        let start = self.start + offset.0;
        Some(Self {
            start,
            end: start + len.0,
        })
    }

    /// Makes a range from ends that the caller knows to be in order and in bounds.
    pub(crate) const fn within_max(start: u64, end: u64) -> Self {
        debug_assert!(start <= end && end <= PageCount::MAX.0);
        Self { start, end }
    }
}

/// Shows the page numbers, such as `0x10..0x18`.
impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

/// Shows a number of bytes for people: the largest binary unit, one decimal where it is not whole.
///
/// ```
/// use placement::human_bytes;
///
/// assert_eq!(human_bytes(2 << 20).to_string(), "2 MiB");
/// assert_eq!(human_bytes(1536).to_string(), "1.5 KiB");
/// assert_eq!(human_bytes(7).to_string(), "7 B");
/// ```
pub fn human_bytes(bytes: u64) -> impl fmt::Display {
    HumanBytes(bytes)
}

struct HumanBytes(u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let unit = (self.0.max(1).ilog2() / 10) as usize;
        let shift = 10 * unit as u32;
        let whole = self.0 >> shift;
        let rest = self.0 - (whole << shift);
        // Rounds down, so that "2 MiB" is never less than 2 MiB.
        let tenths = (u128::from(rest) * 10) >> shift;
        match tenths {
            0 => write!(f, "{whole} {}", UNITS[unit]),
            _ => write!(f, "{whole}.{tenths} {}", UNITS[unit]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const EDGES: [u64; 9] = [
        0,
        1,
        2,
        4095,
        4096,
        (1 << 52) - 2,
        (1 << 52) - 1,
        1 << 52,
        u64::MAX,
    ];

    #[test]
    fn a_count_is_never_above_its_maximum() {
        for a in EDGES {
            assert_eq!(PageCount::new(a).is_some(), a < 1 << 52, "{a:#x}");
            let Some(a) = PageCount::new(a) else { continue };
            assert_eq!(a.bytes() >> PAGE_SHIFT, a.get());
            for b in EDGES.into_iter().filter_map(PageCount::new) {
                let sum = a.get() + b.get();
                assert_eq!(
                    a.checked_add(b).map(PageCount::get),
                    (sum < 1 << 52).then_some(sum)
                );
                assert_eq!(
                    a.checked_sub(b).map(PageCount::get),
                    a.get().checked_sub(b.get())
                );
                assert_eq!(a.saturating_sub(b).get(), a.get().saturating_sub(b.get()));
            }
        }
    }

    #[test]
    fn bytes_round_up_to_the_pages_that_hold_them() {
        for bytes in EDGES
            .into_iter()
            .flat_map(|b| [b.wrapping_sub(1), b, b.wrapping_add(1)])
        {
            match PageCount::from_bytes_ceil(bytes) {
                Some(pages) => {
                    assert!(pages.bytes() >= bytes && pages.bytes() - bytes < PAGE_SIZE);
                }
                None => assert!(bytes > PageCount::MAX.bytes()),
            }
        }
    }

    #[test]
    fn ranges_agree_with_a_bitmap() {
        let bits = |r: PageRange| {
            (0..8)
                .filter(|p| r.contains(*p))
                .fold(0u32, |m, p| m | 1 << p)
        };
        let all = || (0..=8).flat_map(|a| (a..=8).filter_map(move |b| PageRange::new(a, b)));
        for a in all() {
            assert_eq!(u64::from(bits(a).count_ones()), a.len().get());
            assert_eq!(a.is_empty(), bits(a) == 0);
            for b in all() {
                assert_eq!(bits(a.intersection(b)), bits(a) & bits(b));
                assert_eq!(a.intersects(&b), bits(a) & bits(b) != 0);
                assert_eq!(a.contains_range(&b), bits(b) & !bits(a) == 0, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_sub_range_never_leaves_its_range() {
        for (start, end) in [
            (0, 0),
            (3, 9),
            (0, PageCount::MAX.get()),
            (5, PageCount::MAX.get()),
        ] {
            let range = PageRange::new(start, end).unwrap();
            for offset in EDGES.into_iter().filter_map(PageCount::new) {
                for len in EDGES.into_iter().filter_map(PageCount::new) {
                    let fits = offset.get() + len.get() <= range.len().get();
                    let part = range.sub_range(offset, len);
                    assert_eq!(part.is_some(), fits);
                    if let Some(part) = part {
                        assert_eq!(Some(part), PageRange::at(start + offset.get(), len));
                    }
                }
            }
        }
        assert_eq!(PageRange::at(u64::MAX, PageCount::MAX), None);
    }

    #[test]
    fn human_bytes_round_down() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            ((2 << 20) - 1, "1.9 MiB"),
            (3 << 30, "3 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_bytes(bytes).to_string(), text);
        }
        assert_eq!(PageCount::within_max(512).to_string(), "2 MiB");
    }
}
