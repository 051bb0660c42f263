//! A pool under many schedules: a frame has one owner (I-28), lists and counters agree (I-29), a
//! limit holds (I-32), shrinking and refilling never touch what is owned (I-31), and pages that
//! somebody looks at have one mode (I-23).
#![cfg(shuttle)]

mod shuttle_explore;

use std::collections::BTreeSet;
use std::ptr::NonNull;

use shuttle::thread;
use ttm::Result;
use ttm::cache::{CacheMode, Maintenance, Modes};
use ttm::clock::Progress;
use ttm::error::Error;
use ttm::fixture::still;
use ttm::pages::{
    Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Pool, PoolConfig, PoolLimit,
    Want, Zone,
};
use ttm::placement::PageCount;
use ttm::sync::{Arc, Mutex};

use shuttle_explore::explore;

fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("few")
}

/// Frames without content, in all modes, as many as `left` says.
struct Few {
    /// The next index, what is left, what is out.
    state: Mutex<(u64, u64, u64)>,
}

impl PageSource for Few {
    fn offers(&self) -> Offers {
        Offers {
            modes: Modes::all(),
            ..Offers::ordinary(PageCount::MAX)
        }
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let mut state = self.state.lock();
        let n = want.pages.get();
        if state.1 < n {
            return Err(Error::no_memory(want.pages));
        }
        let first = state.0;
        *state = (first + n, state.1 - n, state.2 + n);
        let span = FrameSpan {
            file: 0,
            first,
            pages: want.pages,
        };
        Ok(FrameRun::fresh(span, Zone::Normal, 0, first))
    }

    fn give(&self, run: FrameRun<Dirty>) {
        assert_eq!(run.kind().mode, CacheMode::Cached);
        let mut state = self.state.lock();
        state.1 += run.pages().get();
        state.2 -= run.pages().get();
    }

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        thread::yield_now();
        Ok(())
    }

    fn map(&self, _: FrameSpan, _: CacheMode) -> Result<Mapped> {
        // SAFETY: a mapping of no bytes at an address that is not null is always valid.
        Ok(unsafe { Mapped::new(NonNull::dangling(), 0, ()) })
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<FileRange> {
        Err(Error::Unsupported("in no file"))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        thread::yield_now();
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {}

    fn taken(&self) -> PageCount {
        pages(self.state.lock().2)
    }
}

/// A pool, and who owns what of it.
#[derive(Clone)]
struct Shared {
    pool: Arc<Pool>,
    owned: Arc<Mutex<BTreeSet<u64>>>,
}

impl Shared {
    fn new(left: u64, limit: u64) -> Self {
        let source = Few {
            state: Mutex::new((0, left, 0)),
        };
        let config = PoolConfig {
            limit: pages(limit),
            reserve: PageCount::ZERO,
        };
        Self {
            pool: Pool::new(Arc::new(source), still(), config),
            owned: Arc::default(),
        }
    }

    fn take(&self, n: u64) -> Option<FrameRun> {
        let run = self.pool.take(&Want::new(pages(n))).ok()?;
        let mut owned = self.owned.lock();
        for page in run.span().first..run.span().end() {
            assert!(owned.insert(page), "page {page} has two owners");
        }
        Some(run)
    }

    fn give(&self, run: FrameRun, written: bool) {
        let mut owned = self.owned.lock();
        for page in run.span().first..run.span().end() {
            assert!(owned.remove(&page), "page {page} has no owner");
        }
        drop(owned);
        match written {
            true => self.pool.give(run.dirtied()),
            false => self.pool.give_unwritten(run),
        }
    }

    fn end(self) {
        self.pool.check().unwrap();
        assert_eq!(self.pool.owned(), pages(0));
        self.pool.shrink();
        assert_eq!(self.pool.source().taken(), pages(0));
    }
}

/// Takes and gives, some runs written to.
fn churn(shared: &Shared, sizes: &[u64]) {
    let mut held = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        held.extend(shared.take(*size));
        if n % 2 == 1 {
            for run in held.drain(..) {
                shared.give(run, n % 3 == 0);
            }
        }
    }
    held.into_iter().for_each(|run| shared.give(run, true));
}

#[test]
fn takers_givers_and_a_shrinker_share_a_pool() {
    explore(1_000, || {
        let shared = Shared::new(1 << 20, 64);
        let takers: Vec<_> = [[1, 4, 1, 3], [1, 1, 4, 4]]
            .into_iter()
            .map(|sizes| {
                let shared = shared.clone();
                thread::spawn(move || churn(&shared, &sizes))
            })
            .collect();
        let shrinker = {
            let pool = Arc::clone(&shared.pool);
            thread::spawn(move || {
                pool.scan(pages(4));
                pool.shrink();
            })
        };
        for taker in takers {
            taker.join().unwrap();
        }
        shrinker.join().unwrap();
        shared.end();
    });
}

#[test]
fn refilling_races_with_takers() {
    explore(1_000, || {
        let shared = Shared::new(1 << 20, 64);
        let warm: Vec<_> = [4, 4, 2].map(|n| shared.take(n).unwrap()).into();
        warm.into_iter().for_each(|run| shared.give(run, true));
        let taker = {
            let shared = shared.clone();
            thread::spawn(move || churn(&shared, &[4, 2, 4, 1]))
        };
        let service = shared.pool.service();
        let refill = thread::spawn(move || while service.step() == Progress::Did {});
        taker.join().unwrap();
        refill.join().unwrap();
        shared.end();
    });
}

/// Eight pages for two who want four each, with what the other has pooled: nobody is refused what
/// lies in the pool.
#[test]
fn pooled_frames_are_had_by_whoever_is_short() {
    explore(1_000, || {
        let shared = Shared::new(8, 64);
        let run = shared.take(8).unwrap();
        shared.give(run, true);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    // The other may hold the pooled run in its hand at this moment.
                    let run = (0..3).find_map(|_| shared.take(4));
                    run.into_iter().for_each(|run| shared.give(run, true));
                })
            })
            .collect();
        for taker in takers {
            taker.join().unwrap();
        }
        assert!(shared.take(8).is_some_and(|run| {
            shared.give(run, false);
            true
        }));
        shared.end();
    });
}

#[test]
fn a_limit_that_is_lowered_meanwhile_holds_at_the_end() {
    explore(1_000, || {
        let shared = Shared::new(1 << 20, 64);
        let giver = {
            let shared = shared.clone();
            thread::spawn(move || churn(&shared, &[8, 8, 8, 4]))
        };
        shared.pool.set_limit(PoolLimit::All, pages(8));
        giver.join().unwrap();
        assert!(shared.pool.count() <= pages(8), "{:?}", shared.pool);
        shared.end();
    });
}

/// One looks at frames while their owner changes the mode: either the look comes first and the
/// change is refused, or it sees the new mode.
#[test]
fn a_look_and_a_switch_exclude_each_other() {
    explore(2_000, || {
        let shared = Shared::new(1 << 20, 64);
        let mut run = shared.take(4).unwrap().dirtied();
        let span = run.span();
        let looker = {
            let pool = Arc::clone(&shared.pool);
            thread::spawn(move || {
                for _ in 0..2 {
                    let window = pool.kmap(span.part(1, pages(2))).unwrap();
                    let mode = window.mode();
                    thread::yield_now();
                    let again = pool.kmap(span).unwrap();
                    assert_eq!(again.mode(), mode, "one mode while somebody looks");
                }
            })
        };
        let mut refused = 0;
        while shared
            .pool
            .switch(&mut [&mut run], CacheMode::WriteCombined)
            .is_err()
        {
            refused += 1;
            assert!(refused < 1_000);
            thread::yield_now();
        }
        shared.pool.check().unwrap();
        looker.join().unwrap();
        assert_eq!(run.kind().mode, CacheMode::WriteCombined);
        let mut owned = shared.owned.lock();
        (span.first..span.end()).for_each(|page| assert!(owned.remove(&page)));
        drop(owned);
        shared.pool.give(run);
        shared.end();
    });
}
