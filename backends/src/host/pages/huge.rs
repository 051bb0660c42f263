//! Huge pages for fresh runs: whether to try, trying, and what came of it.
//!
//! What happens for a run whose length is a multiple of 2 MiB:
//!
//! 1. While backing off, the run is skipped.
//! 2. Each piece of 2 MiB gets its first page and the kernel is asked to make a huge page of it.
//! 3. An answer that took long ends the attempt, and a few runs are skipped; a refusal begins, or
//!    doubles, the backing off: nobody waits for contiguity for long.
//!
//! Whatever was not got is filled up with small pages by the page file, which reserves the run in
//! any case.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use placement::{PAGE_SIZE, PageCount, PageRange};
use ttm::sync::Mutex;
use ttm::sync::atomic::{AtomicU64, Ordering};

use crate::host::addresses::{Addresses, HUGE};

use super::PIECE;
use super::page_file::reserve;

/// How many threads can try at the same time; others are skipped.
const SLOTS: usize = 4;

/// What an attempt may take.
const PATIENCE: Duration = Duration::from_millis(5);

/// How many runs are skipped after an attempt that took long: so often it may happen, at most.
const SLOW_SKIPS: u32 = 8;

/// How many runs are skipped after a refusal, and at most.
const SKIPS: (u32, u32) = (64, 4096);

/// How a source comes by huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Not at all.
    Never,
    /// The kernel is asked to make them of ordinary memory (`MADV_COLLAPSE`, since Linux 6.1).
    #[default]
    Collapse,
    /// From those that the administrator has set aside (`vm.nr_hugepages`); when they are used up,
    /// as [`HugePages::Collapse`].
    Hugetlb,
}

/// What became of wishes for huge pages, in pieces of 2 MiB. Each one wanted is got, refused or
/// skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HugeCounts {
    /// Pieces of runs whose length is a multiple of 2 MiB.
    pub wanted: u64,
    /// Are huge pages.
    pub got: u64,
    /// Are small pages because the kernel had no huge one.
    pub refused: u64,
    /// Are small pages because nobody asked: earlier attempts had failed or taken long, or too
    /// many threads tried at the same time, or the policy is [`HugePages::Never`].
    pub skipped: u64,
}

/// Counters behind [`HugeCounts`]. Relaxed: read by people and tests, they order nothing.
#[derive(Default)]
pub(super) struct Tally {
    got: AtomicU64,
    refused: AtomicU64,
    skipped: AtomicU64,
}

impl Tally {
    /// Notes `pieces` that are huge pages, some refusals among `pieces - got` others.
    pub(super) fn add(&self, pieces: u64, got: u64, refused: u64) {
        self.got.fetch_add(got, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
        let skipped = pieces - got - refused;
        self.skipped.fetch_add(skipped, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> HugeCounts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (got, refused, skipped) = (get(&self.got), get(&self.refused), get(&self.skipped));
        HugeCounts {
            wanted: got + refused + skipped,
            got,
            refused,
            skipped,
        }
    }
}

/// Makes huge pages of ordinary memory.
pub(super) struct Collapser {
    window: Addresses,
    state: Mutex<State>,
}

struct State {
    /// Parts of the window that nobody uses.
    free: Vec<usize>,
    back_off: BackOff,
}

impl Collapser {
    /// # Errors
    /// If the process may have no more addresses.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            window: Addresses::reserve(SLOTS * HUGE)?,
            state: Mutex::new(State {
                free: (0..SLOTS).collect(),
                back_off: BackOff::default(),
            }),
        })
    }

    /// Tries to put huge pages behind `range`, whose bounds are multiples of 2 MiB and which has no
    /// memory yet. Answers whether all of it has huge pages now.
    pub(super) fn fill(&self, file: &File, range: PageRange, tally: &Tally) -> bool {
        let pieces = range.len().get() / PIECE;
        let slot = {
            let mut state = self.state.lock();
            if state.back_off.may_try() {
                state.free.pop()
            } else {
                None
            }
        };
        let Some(slot) = slot else {
            tally.add(pieces, 0, 0);
            return false;
        };
        let mut got = 0;
        let mut end = Attempt::Quick;
        while got < pieces && end == Attempt::Quick {
            end = self.attempt(slot, file, range.start() + got * PIECE);
            got += u64::from(end != Attempt::Refused);
        }
        tally.add(pieces, got, u64::from(end == Attempt::Refused));
        let mut state = self.state.lock();
        state.free.push(slot);
        match end {
            Attempt::Quick => state.back_off.succeeded(),
            Attempt::Slow => state.back_off.slow(),
            Attempt::Refused => state.back_off.failed(),
        }
        got == pieces
    }

    fn attempt(&self, slot: usize, file: &File, first: u64) -> Attempt {
        let begun = Instant::now();
        let seed = PageRange::at(first, PageCount::ONE).expect("part of a run");
        let result = reserve(file, seed)
            .and_then(|()| self.window.collapse(slot * HUGE, file, first * PAGE_SIZE));
        match result {
            Err(_) => Attempt::Refused,
            Ok(()) if begun.elapsed() > PATIENCE => Attempt::Slow,
            Ok(()) => Attempt::Quick,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attempt {
    Quick,
    /// With a huge page, but too late to go on.
    Slow,
    Refused,
}

/// Counts the runs to skip after failures.
struct BackOff {
    left: u32,
    next: u32,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            left: 0,
            next: SKIPS.0,
        }
    }
}

impl BackOff {
    /// Whether this run may try; if not, it is one of those that are skipped.
    fn may_try(&mut self) -> bool {
        let may = self.left == 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    fn failed(&mut self) {
        self.left = self.next;
        self.next = (self.next * 2).min(SKIPS.1);
    }

    fn slow(&mut self) {
        self.left = self.left.max(SLOW_SKIPS);
    }

    fn succeeded(&mut self) {
        self.next = SKIPS.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::page_file::memfd;
    use super::*;

    #[test]
    fn backing_off_doubles_up_to_a_limit_and_ends_with_a_success() {
        let mut back_off = BackOff::default();
        let skipped = |back_off: &mut BackOff| (0..).take_while(|_| !back_off.may_try()).count();
        assert_eq!(skipped(&mut back_off), 0);
        for expected in [64, 128, 256, 512, 1024, 2048, 4096, 4096] {
            back_off.failed();
            assert_eq!(skipped(&mut back_off), expected);
        }
        back_off.succeeded();
        assert!(back_off.may_try());
        back_off.failed();
        assert_eq!(skipped(&mut back_off), 64);
    }

    #[test]
    fn when_all_addresses_are_in_use_a_run_is_skipped() {
        let collapser = Collapser::new().unwrap();
        collapser.state.lock().free.clear();
        let file = memfd("test").unwrap();
        let tally = Tally::default();
        assert!(!collapser.fill(&file, PageRange::new(0, 2 * PIECE).unwrap(), &tally));
        let counts = tally.counts();
        assert_eq!((counts.wanted, counts.skipped), (2, 2));
    }
}
