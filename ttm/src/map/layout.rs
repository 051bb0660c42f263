//! What lies at a window's addresses, page by page.

use core::ops::Range;

use crate::bo::{Shown, ShownPart};

/// Mappings that every window may have: what it shows, and what waits on either side.
pub(super) const LEAST_MAPPINGS: usize = 3;

/// What of a window is mapped. Everything else waits.
///
/// # Invariants
/// `shown`, `stale` and `dead` are disjoint and inside the window, `shown` and `stale` in order.
#[derive(Default)]
pub(super) struct Layout {
    /// What accesses see.
    pub(super) shown: Vec<ShownPart>,
    /// Mappings that were zapped.
    pub(super) stale: Vec<ShownPart>,
    /// Pages whose accesses end in a signal.
    pub(super) dead: Vec<Range<u64>>,
}

impl Layout {
    pub(super) fn is_shown(&self, page: u64) -> bool {
        let holds = |part: &ShownPart| part.first <= page && page < part.end();
        self.shown.iter().any(holds)
    }

    pub(super) fn is_dead(&self, page: u64) -> bool {
        self.dead.iter().any(|range| range.contains(&page))
    }

    pub(super) fn is_watchable(&self) -> bool {
        self.shown.iter().all(|part| part.file.watchable)
    }

    /// The pages around `page`, inside `run`, that are neither shown nor dead.
    pub(super) fn gap_around(&self, page: u64, run: Range<u64>) -> Range<u64> {
        let taken = self.shown.iter().map(|part| part.first..part.end());
        let mut gap = run;
        for range in taken.chain(self.dead.iter().cloned()) {
            if range.end <= page {
                gap.start = gap.start.max(range.end);
            } else {
                gap.end = gap.end.min(range.start);
            }
        }
        gap
    }

    /// Notes that `part` is mapped.
    pub(super) fn enter(&mut self, part: ShownPart) {
        let range = part.first..part.end();
        self.cut_stale(&range);
        cut(&mut self.shown, &range);
        let at = self.shown.partition_point(|other| other.first < part.first);
        self.shown.insert(at, part);
        let mut joined = Shown::default();
        self.shown.drain(..).for_each(|part| joined.push(part));
        self.shown.extend(joined.parts);
    }

    pub(super) fn cut_stale(&mut self, range: &Range<u64>) {
        cut(&mut self.stale, range);
    }

    /// Nothing is mapped.
    pub(super) fn forget_all(&mut self) {
        self.shown.clear();
        self.stale.clear();
        self.dead.clear();
    }

    /// Mappings of a window over `pages` once `parts` are mapped too.
    pub(super) fn mappings_with(&self, parts: &[ShownPart], pages: &Range<u64>) -> usize {
        let mut ranges: Vec<(u64, u64)> = parts.iter().map(|p| (p.first, p.end())).collect();
        for part in self.shown.iter().chain(&self.stale) {
            let mut rest = vec![part.clone()];
            for new in parts {
                cut(&mut rest, &(new.first..new.end()));
            }
            ranges.extend(rest.iter().map(|p| (p.first, p.end())));
        }
        ranges.extend(self.dead.iter().map(|range| (range.start, range.end)));
        ranges.sort_unstable();
        let mut count = 0;
        let mut at = pages.start;
        for (start, end) in ranges {
            count += 1 + usize::from(start > at);
            at = end;
        }
        count += usize::from(at < pages.end);
        count.max(LEAST_MAPPINGS)
    }
}

/// Takes `range` out of `parts`.
fn cut(parts: &mut Vec<ShownPart>, range: &Range<u64>) {
    if !parts.iter().any(|p| p.within(range).is_some()) {
        return;
    }
    let before = core::mem::take(parts);
    for part in before {
        parts.extend(part.within(&(0..range.start)));
        parts.extend(part.within(&(range.end..u64::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use placement::PAGE_SIZE;

    use super::*;
    use crate::pages::FileRange;

    fn part(file: &FileRange, first: u64, pages: u64, at: u64) -> ShownPart {
        ShownPart {
            first,
            pages,
            file: file.later(at * PAGE_SIZE),
        }
    }

    #[test]
    fn neighbours_in_the_window_and_in_the_file_are_one_mapping() {
        let file = FileRange::for_tests();
        let mut layout = Layout::default();
        layout.enter(part(&file, 8, 4, 108));
        layout.enter(part(&file, 0, 4, 100));
        assert_eq!(layout.shown.len(), 2);
        layout.enter(part(&file, 4, 4, 104));
        assert_eq!(layout.shown, [part(&file, 0, 12, 100)]);
        // Something else in the middle cuts it.
        layout.enter(part(&file, 5, 2, 7));
        let firsts: Vec<_> = layout.shown.iter().map(|p| (p.first, p.pages)).collect();
        assert_eq!(firsts, [(0, 5), (5, 2), (7, 5)]);
        assert!(layout.is_shown(6) && !layout.is_shown(12));
    }

    #[test]
    fn a_gap_ends_at_what_is_shown_or_dead() {
        let file = FileRange::for_tests();
        let mut layout = Layout::default();
        layout.enter(part(&file, 2, 2, 0));
        layout.dead.push(9..10);
        assert_eq!(layout.gap_around(6, 0..16), 4..9);
        assert_eq!(layout.gap_around(0, 0..16), 0..2);
        assert_eq!(layout.gap_around(12, 0..16), 10..16);
    }

    /// Against a table with an entry for each page.
    #[test]
    fn mappings_are_counted_as_the_kernel_would() {
        let file = FileRange::for_tests();
        for (shown, stale, new) in [
            (vec![], vec![], vec![]),
            (vec![(0, 16)], vec![], vec![]),
            (vec![(4, 4)], vec![(10, 2)], vec![(8, 1)]),
            (vec![(0, 2), (6, 2)], vec![(2, 4)], vec![(1, 6)]),
            (vec![], vec![(0, 16)], vec![(3, 1), (9, 1), (12, 4)]),
        ] {
            let mut layout = Layout::default();
            let of = |n: &(u64, u64), kind: u64| part(&file, n.0, n.1, kind * 1000 + n.0 * 3);
            layout.shown = shown.iter().map(|n| of(n, 1)).collect();
            layout.stale = stale.iter().map(|n| of(n, 2)).collect();
            let parts: Vec<_> = new.iter().map(|n| of(n, 3)).collect();
            let mut table = [0; 16];
            for (kind, ranges) in [(1, &stale), (2, &shown), (3, &new)] {
                for (n, (first, pages)) in ranges.iter().enumerate() {
                    let number = kind * 100 + n as u64;
                    table[*first as usize..(first + pages) as usize].fill(number);
                }
            }
            let expected = 1 + table.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let counted = layout.mappings_with(&parts, &(0..16));
            assert_eq!(
                counted,
                expected.max(LEAST_MAPPINGS),
                "{shown:?} {stale:?} {new:?}"
            );
        }
    }
}
