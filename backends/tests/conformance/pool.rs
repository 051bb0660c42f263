//! `ttm_pool_test`, against the pool that devices use.
//!
//! The kernel has two kinds of pools: normal ones, shared by all devices, and one of coherent DMA
//! memory for each device. Here there is one kind; what is DMA memory is decided where frames are
//! mapped for a device. So the coherent instances of a case run over a device that sees no caches,
//! whose frames have to be maintained; and the kernel's per-device list is the device's pool.

use backends::host::{MemfdPages, wall_clock};
use backends::sim::SimDriver;
use placement::{CacheMode, PageCount};
use ttm::pages::{Dirty, FrameKind, FrameRun, Pool, PoolConfig, Want, Zone, order_of};
use ttm::sync::Arc;

use crate::setup;
use crate::support::pages;

/// The largest order of the kernel's: 4 MiB.
const MAX_ORDER: u8 = 10;

/// The kernel's parameters: order, or one page more than the largest, each on both devices.
fn instances() -> Vec<(u64, Arc<Pool>)> {
    let sizes = [1, 4, (1 << MAX_ORDER) + 1];
    let normal = sizes.map(|n| (n, pool_of(false)));
    let coherent = [1, (1 << MAX_ORDER) + 1].map(|n| (n, pool_of(true)));
    normal.into_iter().chain(coherent).collect()
}

/// The pool of a device that snoops, or does not.
fn pool_of(sees_no_caches: bool) -> Arc<Pool> {
    let world = match sees_no_caches {
        true => setup().not_snooping().build(SimDriver::new()),
        false => setup().build(SimDriver::new()),
    };
    Arc::clone(world.device.pool())
}

fn want(n: u64, mode: CacheMode) -> Want {
    Want {
        pages: pages(n),
        kind: FrameKind {
            mode,
            ..FrameKind::default()
        },
    }
}

/// `n` frames, as an object of that size takes them: runs of at most 2 MiB, the largest first.
fn allocate(pool: &Pool, n: u64, mode: CacheMode) -> Vec<FrameRun<Dirty>> {
    let mut runs = Vec::new();
    let mut left = n;
    while left > 0 {
        let run = pool.take(&want(left.min(512), mode)).unwrap().dirtied();
        left -= run.pages().get();
        runs.push(run);
    }
    runs
}

/// Pooled frames of a mode and order.
fn pooled(pool: &Pool, mode: CacheMode, order: u8) -> u64 {
    let rows = pool.table().rows;
    let same = rows
        .iter()
        .filter(|r| r.kind.mode == mode && r.order == order);
    same.map(|row| row.pages).sum()
}

/// Fills the pool with one run, given back by somebody else.
fn prefill(pool: &Pool, n: u64, mode: CacheMode) {
    let run = pool.take(&want(n, mode)).unwrap();
    pool.give(run.dirtied());
}

/// An uncached vector of each size: as many pages as asked for; the first run is the largest that
/// there is, the tail of an over-size request is of order 0. With 2 MiB as the longest run the tail
/// behind 4 MiB and a page is the third.
#[test]
fn pool_alloc_basic() {
    for (n, pool) in instances() {
        let runs = allocate(&pool, n, CacheMode::Uncached);
        let sum: u64 = runs.iter().map(|run| run.pages().get()).sum();
        assert_eq!(sum, n);
        let first = runs[0].order();
        assert_eq!(first, order_of(pages(n)).min(9));
        if n > 512 {
            assert_eq!(runs.last().unwrap().order(), 0);
        }
        assert!(runs.iter().all(|r| r.kind().mode == CacheMode::Uncached));
        runs.into_iter().for_each(|run| pool.give(run));
        pool.check().unwrap();
        pool.shrink();
    }
}

/// First and last page have an address. Frames of the sim have simulated ones, which are never
/// zero; a mapping for a device is a later part.
#[test]
fn pool_alloc_basic_dma_addr() {
    for n in [1, 4, (1 << MAX_ORDER) + 1, 1, (1 << MAX_ORDER) + 1] {
        let world = setup().not_snooping().build(SimDriver::new());
        let pool = world.device.pool();
        let runs = allocate(pool, n, CacheMode::Cached);
        for run in [runs.first().unwrap(), runs.last().unwrap()] {
            let address = world.gpu.physical(run.span());
            assert!(address.is_some_and(|a| a > 0), "{run:?}");
        }
        runs.into_iter().for_each(|run| pool.give(run));
        pool.check().unwrap();
    }
}

/// A pool filled with one matching run is empty after it was asked for such a run.
#[test]
fn pool_alloc_order_caching_match() {
    let pool = pool_of(false);
    prefill(&pool, 4, CacheMode::Uncached);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 2), 4);
    let runs = allocate(&pool, 4, CacheMode::Uncached);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 2), 0);
    runs.into_iter().for_each(|run| pool.give(run));
}

/// Cached frames are left alone by a wish for uncached ones; after that both lists have some.
#[test]
fn pool_alloc_caching_mismatch() {
    let pool = pool_of(false);
    prefill(&pool, 4, CacheMode::Cached);
    let runs = allocate(&pool, 4, CacheMode::Uncached);
    assert_eq!(pooled(&pool, CacheMode::Cached, 2), 4);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 2), 0);
    runs.into_iter().for_each(|run| pool.give(run));
    assert_eq!(pooled(&pool, CacheMode::Cached, 2), 4);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 2), 4);
    pool.check().unwrap();
}

/// A run of order 2 is left alone by a wish for one page, which lies with order 0 afterwards.
#[test]
fn pool_alloc_order_mismatch() {
    let pool = pool_of(false);
    prefill(&pool, 4, CacheMode::Uncached);
    let runs = allocate(&pool, 1, CacheMode::Uncached);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 2), 4);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 0), 0);
    runs.into_iter().for_each(|run| pool.give(run));
    assert_eq!(pooled(&pool, CacheMode::Uncached, 2), 4);
    assert_eq!(pooled(&pool, CacheMode::Uncached, 0), 1);
}

/// The device's list is empty while its frames are used, and not afterwards.
#[test]
fn pool_free_dma_alloc() {
    let pool = pool_of(true);
    let runs = allocate(&pool, 4, CacheMode::Cached);
    assert_eq!(pool.count(), PageCount::ZERO);
    runs.into_iter().for_each(|run| pool.give(run));
    assert_eq!(pooled(&pool, CacheMode::Cached, 2), 4);
}

/// What one device gives back changes nothing in another's pool, unless they share one.
#[test]
fn pool_free_no_dma_alloc() {
    let (one, other) = (pool_of(false), pool_of(false));
    let runs = allocate(&one, 4, CacheMode::Cached);
    let before = other.table();
    runs.into_iter().for_each(|run| one.give(run));
    assert_eq!(other.table(), before);

    let source = Arc::new(MemfdPages::new().unwrap());
    let shared = Pool::new(source, wall_clock(), PoolConfig::default());
    let worlds = [(); 2].map(|()| setup().sharing(&shared).build(SimDriver::new()));
    let bo = worlds[0].create_in(4 * 4096, &crate::support::system());
    worlds[0].with(&bo, |r| r.populate()).unwrap();
    assert_eq!(worlds[1].device.pool().owned(), pages(4));
    worlds.iter().for_each(|world| world.check());
    drop(bo);
    worlds[0].device.reap();
    assert_eq!(worlds[1].device.pool().count(), pages(4));
}

/// A pool that ends has given everything back.
#[test]
fn pool_fini_basic() {
    let source = Arc::new(MemfdPages::new().unwrap());
    let pool = Pool::new(source.clone(), wall_clock(), PoolConfig::default());
    prefill(&pool, 4, CacheMode::Cached);
    prefill(&pool, 1, CacheMode::Cached);
    assert!(source.resident().unwrap() > 0);
    drop(pool);
    assert_eq!(source.resident().unwrap(), 0);
}

/// The four kinds of device: with frames that are maintained or not, below 4 GiB or anywhere. Each
/// list of the pool knows its kind and order: what is given is found there and nowhere else.
#[test]
fn device_init_pools() {
    for sees_no_caches in [false, true] {
        for zone in [Zone::Dma32, Zone::Normal] {
            let mut setup = setup();
            setup.zone = zone;
            if sees_no_caches {
                setup = setup.not_snooping();
            }
            let world = setup.build(SimDriver::new());
            let pool = world.device.pool();
            assert_eq!(pool.offers().snooped, !sees_no_caches);
            let modes = [
                CacheMode::Cached,
                CacheMode::WriteCombined,
                CacheMode::Uncached,
            ];
            for mode in modes {
                for order in 0..=MAX_ORDER {
                    let kind = FrameKind {
                        zone,
                        node: 0,
                        mode,
                    };
                    let want = Want {
                        pages: pages(1 << order),
                        kind,
                    };
                    let run = pool.take(&want).unwrap();
                    assert_eq!((run.kind(), run.order()), (kind, order));
                    pool.give(run.dirtied());
                    let rows = pool.table().rows;
                    let row = rows.iter().find(|r| r.kind == kind && r.order == order);
                    assert!(
                        row.is_some_and(|r| r.pages >= 1 << order),
                        "{kind}, {order}"
                    );
                }
            }
            pool.check().unwrap();
            // The device's objects come from there.
            let bo = world.create_in(4096, &crate::support::system());
            world.with(&bo, |r| r.populate()).unwrap();
            let below = world.with(&bo, |r| r.side()).unwrap();
            let ttm::driver::Side::Frames(spans) = below else {
                panic!("{below:?}")
            };
            let address = world.gpu.physical(spans[0]).unwrap();
            assert_eq!(address < 1 << 32, zone == Zone::Dma32);
            world.check();
        }
    }
}
