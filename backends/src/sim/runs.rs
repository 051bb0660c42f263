//! Sets of pages, as runs.

use std::collections::BTreeMap;

use placement::{PageCount, PageRange};

/// A set of pages.
///
/// # Invariants
/// The runs, by their first page with the page after their last, are not empty, do not overlap and
/// do not touch.
#[derive(Clone, Default, Debug)]
pub(super) struct Runs {
    runs: BTreeMap<u64, u64>,
    pages: u64,
}

impl Runs {
    /// The set of the pages of `range`.
    pub(super) fn of(range: PageRange) -> Self {
        let mut runs = Self::default();
        if !range.is_empty() {
            runs.insert(range);
        }
        runs
    }

    /// How many pages there are.
    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether all pages of `range` are in the set.
    pub(super) fn contains(&self, range: PageRange) -> bool {
        let around = self.runs.range(..=range.start()).next_back();
        around.is_some_and(|(_, end)| range.end() <= *end)
    }

    /// The runs, from the lowest.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.runs
            .iter()
            .map(|(start, end)| PageRange::new(*start, *end).expect("runs are in order"))
    }

    /// Adds pages.
    ///
    /// # Panics
    /// If one of them is in the set.
    pub(super) fn insert(&mut self, range: PageRange) {
        let (mut start, mut end) = (range.start(), range.end());
        self.pages += range.len().get();
        if let Some((&before, &before_end)) = self.runs.range(..end).next_back() {
            assert!(before_end <= start, "{range} is in the set already");
            if before_end == start {
                start = before;
            }
        }
        if let Some(after_end) = self.runs.remove(&end) {
            end = after_end;
        }
        self.runs.insert(start, end);
    }

    /// Takes pages out.
    ///
    /// # Panics
    /// If one of them is not in the set.
    pub(super) fn remove(&mut self, range: PageRange) {
        assert!(self.contains(range), "{range} is not in the set");
        let around = self.runs.range(..=range.start()).next_back();
        let (start, end) = around
            .map(|(s, e)| (*s, *e))
            .expect("it contains the range");
        self.pages -= range.len().get();
        self.runs.remove(&start);
        if start < range.start() {
            self.runs.insert(start, range.start());
        }
        if range.end() < end {
            self.runs.insert(range.end(), end);
        }
    }

    /// Takes out the lowest `pages` pages that adjoin and begin at a multiple of `align`.
    pub(super) fn take(&mut self, pages: PageCount, align: u64) -> Option<PageRange> {
        let fits = |(start, end): (&u64, &u64)| {
            let first = start.next_multiple_of(align);
            (first + pages.get() <= *end).then_some(first)
        };
        let first = self.runs.iter().find_map(fits)?;
        let range = PageRange::at(first, pages)?;
        self.remove(range);
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Random;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start, end).unwrap()
    }

    /// Against a table of pages.
    #[test]
    fn runs_are_a_set_of_pages_that_are_never_longer_than_they_must_be() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut runs = Runs::of(range(3, 40));
            let mut table: Vec<bool> = (0..48).map(|n| (3..40).contains(&n)).collect();
            for _ in 0..200 {
                let start = random.below(48);
                let len = 1 + random.below(48 - start).min(6);
                let part = &mut table[start as usize..(start + len).min(48) as usize];
                let wanted = range(start, start + part.len() as u64);
                if part.iter().all(|n| *n) {
                    assert!(runs.contains(wanted));
                    runs.remove(wanted);
                    part.fill(false);
                } else {
                    assert!(!runs.contains(wanted));
                    if part.iter().all(|n| !n) {
                        runs.insert(wanted);
                        part.fill(true);
                    }
                }
                let found = runs.iter().collect::<Vec<_>>();
                assert!(found.windows(2).all(|w| w[0].end() < w[1].start()));
                for (n, is) in (0..).zip(&table) {
                    assert_eq!(found.iter().any(|r| r.contains(n)), *is, "seed {seed}");
                }
                assert_eq!(runs.pages(), table.iter().filter(|n| **n).count() as u64);
            }
        }
    }

    #[test]
    fn the_lowest_aligned_run_is_taken_or_none() {
        let pages = |n| PageCount::new(n).unwrap();
        let mut runs = Runs::of(range(3, 20));
        assert_eq!(runs.take(pages(4), 4), Some(range(4, 8)));
        assert_eq!(runs.take(pages(1), 1), Some(range(3, 4)));
        assert_eq!(runs.take(pages(8), 8), Some(range(8, 16)));
        assert_eq!(runs.take(pages(5), 1), None);
        assert_eq!(runs.take(pages(4), 1), Some(range(16, 20)));
        assert_eq!((runs.pages(), runs.take(pages(1), 1)), (0, None));
    }
}
