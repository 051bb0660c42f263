//! The laws of a pool, over a source that counts what it is asked.

use ttm::cache::{CacheMode, Maintenance, Modes};
use ttm::clock::Progress;
use ttm::error::{Error, Result};
use ttm::fixture::still;
use ttm::pages::{
    Dirty, FileRange, FrameKind, FrameRun, FrameSpan, KmapUsage, Mapped, Offers, PageSource, Pool,
    PoolConfig, PoolLimit, Want, Zone, Zones,
};
use ttm::placement::PageCount;
use ttm::sync::{Arc, Mutex};

use CacheMode::{Cached, Uncached, WriteCombined};

/// Single frames that are fetched, and given back, at once.
const BATCH: u64 = 32;

fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

fn want(n: u64) -> Want {
    Want::new(pages(n))
}

fn of_mode(n: u64, mode: CacheMode) -> Want {
    let kind = FrameKind {
        mode,
        ..FrameKind::default()
    };
    Want { kind, ..want(n) }
}

/// What a [`Counted`] was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    takes: u64,
    gives: u64,
    zeroed: u64,
    /// Spans and modes of each switch.
    switches: Vec<(usize, CacheMode, CacheMode)>,
    maintained: u64,
}

/// Frames without content, on two nodes, in all modes; `left` of them.
struct Counted {
    state: Mutex<(u64, u64, Asked)>,
    snooped: bool,
}

impl Counted {
    fn new(left: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new((0, left, Asked::default())),
            snooped: true,
        })
    }

    fn asked(&self) -> Asked {
        self.state.lock().2.clone()
    }
}

impl PageSource for Counted {
    fn offers(&self) -> Offers {
        Offers {
            zones: Zones::NORMAL | Zones::DMA32,
            nodes: 2,
            modes: Modes::all(),
            snooped: self.snooped,
            ..Offers::ordinary(PageCount::MAX)
        }
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let mut state = self.state.lock();
        if want.pages.get() > state.1 {
            return Err(Error::no_memory(want.pages));
        }
        let first = state.0;
        // Runs do not adjoin, so that a run is known by its first page.
        state.0 += want.pages.get() + 1;
        state.1 -= want.pages.get();
        state.2.takes += 1;
        let span = FrameSpan {
            file: 0,
            first,
            pages: want.pages,
        };
        Ok(FrameRun::fresh(span, want.kind.zone, want.kind.node, first))
    }

    fn give(&self, run: FrameRun<Dirty>) {
        assert_eq!(run.kind().mode, Cached, "{run:?} is the system's again");
        let mut state = self.state.lock();
        state.1 += run.pages().get();
        state.2.gives += 1;
    }

    fn zero(&self, span: FrameSpan, _: CacheMode) -> Result<()> {
        self.state.lock().2.zeroed += span.pages.get();
        Ok(())
    }

    /// Long runs have no windows, so that zeroing them is counted.
    fn map(&self, span: FrameSpan, _: CacheMode) -> Result<Mapped> {
        if span.pages >= pages(16) {
            return Err(Error::Unsupported("there is no content"));
        }
        // SAFETY: a mapping of no bytes at an address that is not null is always valid.
        Ok(unsafe { Mapped::new(core::ptr::NonNull::dangling(), 0, ()) })
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<FileRange> {
        Err(Error::Unsupported("in no file"))
    }

    fn switch(&self, spans: &[FrameSpan], from: CacheMode, to: CacheMode) -> Result<()> {
        let mut state = self.state.lock();
        state.2.switches.push((spans.len(), from, to));
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {
        self.state.lock().2.maintained += 1;
    }

    fn taken(&self) -> PageCount {
        let all = u64::from(u32::MAX);
        pages(all.saturating_sub(self.state.lock().1))
    }
}

/// A pool over as much as [`Counted::taken`] counts from.
fn pool(limit: u64) -> (Arc<Pool>, Arc<Counted>) {
    let source = Counted::new(u32::MAX.into());
    let config = PoolConfig {
        limit: pages(limit),
        reserve: PageCount::ZERO,
    };
    (Pool::new(source.clone(), still(), config), source)
}

fn first(run: &FrameRun) -> u64 {
    run.span().first
}

#[test]
fn what_was_given_last_is_taken_first_and_has_a_new_generation() {
    let (pool, source) = pool(1 << 20);
    let [a, b] = [(); 2].map(|()| pool.take(&want(512)).unwrap());
    let (last, generation) = (first(&b), b.generation());
    pool.give(a.dirtied());
    pool.give(b.dirtied());
    let again = pool.take(&want(512)).unwrap();
    assert_eq!(first(&again), last);
    assert!(again.generation() > generation, "I-18");
    assert_eq!(source.asked().takes, 2);
    assert_eq!(source.asked().zeroed, 512, "it was dirty");
    pool.give(again.dirtied());
    pool.check().unwrap();
}

#[test]
fn what_is_given_unwritten_is_not_zeroed_again() {
    let (pool, source) = pool(1 << 20);
    for n in [1, 3, 512] {
        let run = pool.take(&want(n)).unwrap();
        pool.give_unwritten(run);
        let run = pool.take(&want(n)).unwrap();
        pool.give_unwritten(run);
    }
    // Whoever overwrites everything does not pay either.
    for n in [1, 3, 512] {
        let run = pool.take_to_overwrite(&want(n)).unwrap();
        pool.give(run);
        let run = pool.take_to_overwrite(&want(n)).unwrap();
        pool.give(run);
    }
    assert_eq!(source.asked().zeroed, 0);
    pool.check().unwrap();
}

#[test]
fn orders_are_not_mixed_and_a_longer_run_is_cut() {
    let (pool, source) = pool(1 << 20);
    let four = pool.take(&want(4)).unwrap();
    pool.give(four.dirtied());
    let one = pool.take(&want(1)).unwrap();
    assert_eq!(pool.table().rows.iter().filter(|r| r.order == 2).count(), 1);
    pool.give(one.dirtied());
    // Three pages are of order 2 as well: four are cut, and the fourth stays pooled.
    let takes = source.asked().takes;
    let three = pool.take(&want(3)).unwrap();
    assert_eq!(three.pages(), pages(3));
    assert_eq!((source.asked().takes, pool.counts().cut), (takes, 1));
    pool.give(three.dirtied());
    pool.check().unwrap();
    pool.shrink();
    assert_eq!((pool.count(), source.taken()), (pages(0), pages(0)));
}

#[test]
fn no_limit_is_exceeded_whatever_is_given_and_each_can_be_lowered() {
    let (pool, source) = pool(64);
    let runs: Vec<_> = (0..10).map(|_| pool.take(&want(16)).unwrap()).collect();
    for run in runs {
        pool.give(run.dirtied());
        pool.check().unwrap();
    }
    assert_eq!(pool.count(), pages(64));
    assert_eq!(source.asked().gives, 6);
    pool.set_limit(PoolLimit::Kind(FrameKind::default()), pages(32));
    assert_eq!(pool.count(), pages(32));
    pool.set_limit(PoolLimit::Node(0), pages(16));
    assert_eq!(pool.count(), pages(16));
    pool.set_limit(PoolLimit::All, pages(0));
    assert_eq!(pool.count(), pages(0));
    pool.check().unwrap();
    // Another node has a limit of its own.
    pool.set_limit(PoolLimit::All, pages(64));
    let other = Want {
        kind: FrameKind {
            node: 1,
            ..FrameKind::default()
        },
        ..want(32)
    };
    let run = pool.take(&other).unwrap();
    pool.give(run.dirtied());
    assert_eq!(pool.count(), pages(32));
    pool.set_limit(PoolLimit::Node(1), pages(31));
    assert_eq!(pool.count(), pages(0));
    assert_eq!(source.taken(), pages(0));
}

#[test]
fn single_frames_are_fetched_together_and_all_go_back() {
    let (pool, source) = pool(1 << 20);
    let runs: Vec<_> = (0..100).map(|_| pool.take(&want(1)).unwrap()).collect();
    assert_eq!(source.asked().takes, 100u64.div_ceil(BATCH));
    assert_eq!(pool.owned(), pages(100));
    let mut firsts: Vec<_> = runs.iter().map(first).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 100, "each has one owner (I-28)");
    for run in runs {
        pool.give(run.dirtied());
    }
    pool.check().unwrap();
    assert_eq!(pool.owned(), pages(0));
    let pooled = pool.count();
    assert!(pool.scan(pages(1)).get() >= 1);
    assert!(pool.count() < pooled, "progress (I-31)");
    pool.shrink();
    assert_eq!(pool.scan(pages(1)), pages(0), "nothing to do (I-31)");
    assert_eq!(source.taken(), pages(0));
}

#[test]
fn a_full_pool_takes_no_magazine_into_its_depot() {
    let (pool, source) = pool(0);
    let runs: Vec<_> = (0..1000).map(|_| pool.take(&want(1)).unwrap()).collect();
    for run in runs {
        pool.give(run.dirtied());
        pool.check().unwrap();
    }
    // What one thread has at hand is the batch that a limit allows for.
    assert!(pool.count().get() <= 3 * BATCH + 1, "{pool:?}");
    pool.shrink();
    assert_eq!(source.taken(), pages(0));
}

#[test]
fn another_mode_is_switched_once_and_kept() {
    let (pool, source) = pool(1 << 20);
    let run = pool.take(&of_mode(8, WriteCombined)).unwrap();
    assert_eq!(run.kind().mode, WriteCombined);
    assert_eq!(source.asked().switches, [(1, Cached, WriteCombined)]);
    pool.give(run.dirtied());
    pool.check().unwrap();
    // A cached wish leaves it alone; one of its mode takes it, without another switch.
    let cached = pool.take(&want(8)).unwrap();
    let again = pool.take(&of_mode(8, WriteCombined)).unwrap();
    assert_eq!(source.asked().switches.len(), 1);
    assert_eq!(pool.kmaps(), KmapUsage::default());
    pool.give(again.dirtied());
    pool.give(cached.dirtied());
    pool.shrink();
    // It left the pool as it came.
    assert_eq!(
        source.asked().switches,
        [(1, Cached, WriteCombined), (1, WriteCombined, Cached)]
    );
    pool.check().unwrap();
}

#[test]
fn many_runs_are_switched_in_one_go() {
    let (pool, source) = pool(1 << 20);
    let mut runs: Vec<_> = (0..5)
        .map(|_| pool.take(&want(4)).unwrap().dirtied())
        .collect();
    let mut all: Vec<_> = runs.iter_mut().collect();
    pool.switch(&mut all, Uncached).unwrap();
    assert_eq!(source.asked().switches, [(5, Cached, Uncached)]);
    assert_eq!(source.asked().maintained, 5);
    let counts = pool.ledger();
    assert_eq!((counts.switches, counts.flushes), (5, 5));
    assert!(runs.iter().all(|run| run.kind().mode == Uncached));
    for run in runs {
        pool.give(run);
    }
    pool.check().unwrap();
}

#[test]
fn frames_that_somebody_looks_at_keep_their_mode() {
    let (pool, source) = pool(1 << 20);
    let mut run = pool.take(&want(4)).unwrap().dirtied();
    let [outer, inner] = [(); 2].map(|()| pool.kmap(run.span()).unwrap());
    let part = pool.kmap(run.span().part(1, pages(2))).unwrap();
    for window in [outer, inner, part] {
        let refused = pool.switch(&mut [&mut run], WriteCombined);
        assert!(matches!(refused, Err(Error::Busy)));
        assert_eq!((run.kind().mode, window.mode()), (Cached, Cached));
    }
    assert!(source.asked().switches.is_empty());
    assert_eq!((pool.kmaps().live, pool.kmaps().kept), (0, 3));
    pool.switch(&mut [&mut run], WriteCombined).unwrap();
    assert_eq!(
        pool.kmaps(),
        KmapUsage::default(),
        "every window went first"
    );
    assert_eq!(pool.kmap(run.span()).unwrap().mode(), WriteCombined);
    pool.give(run);
    pool.check().unwrap();
}

#[test]
fn what_is_not_offered_is_refused_before_anything_is_taken() {
    let (pool, source) = pool(1 << 20);
    let high = Want {
        kind: FrameKind {
            zone: Zone::High,
            ..FrameKind::default()
        },
        ..want(1)
    };
    let far = Want {
        kind: FrameKind {
            node: 2,
            ..FrameKind::default()
        },
        ..want(1)
    };
    for refused in [high, far] {
        assert!(matches!(pool.take(&refused), Err(Error::Unsupported(_))));
        assert!(matches!(
            pool.take_to_overwrite(&refused),
            Err(Error::Unsupported(_))
        ));
    }
    assert!(matches!(pool.take(&want(0)), Err(Error::Invalid(_))));
    assert_eq!(source.asked().takes, 0);
}

#[test]
fn what_is_pooled_goes_before_a_wish_is_refused() {
    let source = Counted::new(64);
    let pool = Pool::new(source.clone(), still(), PoolConfig::default());
    let runs: Vec<_> = (0..4).map(|_| pool.take(&want(16)).unwrap()).collect();
    assert!(matches!(pool.take(&want(1)), Err(Error::NoMemory { .. })));
    for run in runs {
        pool.give(run.dirtied());
    }
    let all = pool.take(&want(64)).unwrap();
    assert_eq!(pool.count(), pages(0));
    assert!(matches!(pool.take(&want(1)), Err(Error::NoMemory { .. })));
    assert_eq!(pool.counts().refused, 2);
    pool.give(all.dirtied());
}

#[test]
fn refilling_zeroes_behind_and_stops_under_pressure() {
    let source = Counted::new(u32::MAX.into());
    let config = PoolConfig {
        reserve: pages(1024),
        ..PoolConfig::default()
    };
    let pool = Pool::new(source.clone(), still(), config);
    let service = pool.service();
    let run = pool.take(&want(16)).unwrap();
    pool.give(run.dirtied());
    let singles: Vec<_> = (0..200).map(|_| pool.take(&want(1)).unwrap()).collect();
    singles.into_iter().for_each(|run| pool.give(run.dirtied()));
    pool.set_pressed(true);
    assert_eq!(service.step(), Progress::Idle);
    pool.set_pressed(false);
    while service.step() == Progress::Did {}
    let rows = pool.table().rows;
    let ready = rows.iter().filter(|row| row.zeroed && row.order == 9);
    assert_eq!(ready.map(|row| row.pages).sum::<u64>(), 1024, "the reserve");
    assert_eq!(pool.counts().zeroed_behind, source.asked().zeroed);
    assert!(pool.counts().zeroed_behind >= 16);
    let zeroed = source.asked().zeroed;
    let run = pool.take(&want(16)).unwrap();
    assert_eq!(source.asked().zeroed, zeroed, "it lay ready");
    pool.give(run.dirtied());
    pool.check().unwrap();
}

#[test]
fn a_split_run_may_come_back_in_parts() {
    let (pool, source) = pool(1 << 20);
    let mut run = pool.take(&want(10)).unwrap();
    let mut rest = run.split_off(pages(3));
    let last = rest.split_off(pages(6));
    assert_eq!([&run, &rest, &last].map(|r| r.pages().get()), [3, 6, 1]);
    for part in [rest, run, last] {
        pool.give(part.dirtied());
        pool.check().unwrap();
    }
    assert_eq!(pool.owned(), pages(0));
    pool.shrink();
    assert_eq!(source.taken(), pages(0));
}

/// Threads take, hold and give runs of all sizes; at the end each frame is in one place.
#[test]
fn threads_share_a_pool_and_nothing_is_lost() {
    let (pool, source) = pool(4096);
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let pool = &pool;
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut next = move || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random >> 33
                };
                let mut held = Vec::new();
                for _ in 0..3000 {
                    if next() % 2 == 0 && held.len() < 64 {
                        let n = [1, 1, 1, 2, 3, 17, 512][next() as usize % 7];
                        let mode = [Cached, Cached, WriteCombined][next() as usize % 3];
                        held.push(pool.take(&of_mode(n, mode)).unwrap());
                    } else if !held.is_empty() {
                        let at = next() as usize % held.len();
                        let run: FrameRun = held.swap_remove(at);
                        match next() % 3 {
                            0 => pool.give_unwritten(run),
                            _ => pool.give(run.dirtied()),
                        }
                    }
                    if next() % 64 == 0 {
                        pool.scan(pages(next() % 1024));
                    }
                }
                held.into_iter().for_each(|run| pool.give(run.dirtied()));
            });
        }
    });
    pool.check().unwrap();
    assert_eq!(pool.owned(), pages(0));
    pool.shrink();
    assert_eq!((pool.count(), source.taken()), (pages(0), pages(0)));
}
