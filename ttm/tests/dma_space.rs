//! Threads that take and give at once, I/O addresses and slots of a bounce pool: nobody is given what
//! another has, or what a device may still reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ttm::clock::Time;
use ttm::dma::{
    BounceBytes, BounceMemory, BouncePool, BounceRequest, Direction, DmaAddr, Invalidation,
    IovaConfig, IovaRange, IovaRequest, IovaSpace, IovaSpan, Mask, Unmap,
};

const GRANULE: u64 = 4096;

struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % bound
    }
}

fn threads_share_nothing(invalidation: Invalidation) {
    const THREADS: u64 = 4;
    let config = IovaConfig {
        aperture: Mask::bits(24),
        invalidation,
        ..IovaConfig::default()
    };
    // Who has each granule: 0 for nobody.
    let owners: Arc<Vec<AtomicU64>> = Arc::new((0..4096).map(|_| AtomicU64::new(0)).collect());
    let mark = |owners: &[AtomicU64], span: IovaSpan, from: u64, to: u64| {
        for granule in span.first().get() / GRANULE..=span.last() / GRANULE {
            let before = owners[granule as usize].swap(to, Ordering::AcqRel);
            assert_eq!(before, from, "granule {granule}");
        }
    };
    const QUEUED: u64 = u64::MAX;
    let theirs = Arc::clone(&owners);
    let space = IovaSpace::new(config, move |gone| {
        for span in gone {
            mark(&theirs, *span, QUEUED, 0);
        }
    });
    let space = space.unwrap();
    thread::scope(|scope| {
        for thread in 1..=THREADS {
            let (space, owners) = (&space, &owners);
            scope.spawn(move || {
                let mut draws = XorShift(thread);
                let mut live = Vec::new();
                for now in 0..20_000 {
                    if draws.below(2) == 0 {
                        let granules = 1 + draws.below(if now % 16 == 0 { 64 } else { 8 });
                        if let Ok(range) = space.alloc(&IovaRequest::new(granules * GRANULE)) {
                            mark(owners, range.span(), 0, thread);
                            live.push(range);
                        }
                    } else if !live.is_empty() {
                        let which = draws.below(live.len() as u64) as usize;
                        let range: IovaRange = live.swap_remove(which);
                        mark(owners, range.span(), thread, QUEUED);
                        space.free(range, Time::from_nanos(now));
                    }
                }
                for range in live {
                    mark(owners, range.span(), thread, QUEUED);
                    space.free(range, Time::ZERO);
                }
            });
        }
    });
    space.flush();
    let stats = space.stats();
    assert_eq!((stats.live, stats.queued), (0, 0));
    // All of it is free again, what was kept for the threads included.
    let first = DmaAddr::new(GRANULE).unwrap();
    let all = space.alloc_at(first, 4095 * GRANULE, Mask::ALL).unwrap();
    assert_eq!(space.stats().cached, 0);
    mark(&owners, all.span(), 0, QUEUED);
    space.free(all, Time::ZERO);
}

#[test]
fn threads_are_never_given_the_same_addresses() {
    threads_share_nothing(Invalidation::Strict);
    threads_share_nothing(Invalidation::Lazy {
        batch: 32,
        timeout_ns: 1000,
    });
}

#[test]
fn threads_never_find_the_bytes_of_others_in_their_slots() {
    const SETS: usize = 3;
    let base = DmaAddr::new(0).unwrap();
    let memory = BounceBytes::new(vec![0; SETS << 18]);
    let pool = BouncePool::new(memory, base, 4).unwrap();
    thread::scope(|scope| {
        for thread in 1..=4 {
            let pool = &pool;
            scope.spawn(move || {
                let mut draws = XorShift(thread);
                for round in 0..3000 {
                    let own = (thread as u8) << 5 | (round % 32) as u8;
                    let len = 1 + draws.below(if round % 8 == 0 { 200_000 } else { 9000 });
                    let mut buffer = vec![own; len as usize];
                    let request = BounceRequest::new(draws.below(1 << 40), Direction::Both)
                        .min_align_mask(0xfff);
                    let Ok(mut mapping) = pool.map(&mut buffer, &request) else {
                        continue;
                    };
                    let mut seen = vec![0; len as usize];
                    pool.memory().get(mapping.address().get(), &mut seen);
                    assert!(seen.iter().all(|&byte| byte == own));
                    seen.fill(!own);
                    pool.memory().put(mapping.address().get(), &seen);
                    pool.sync_for_cpu(&mut mapping, 0..1).unwrap();
                    let end = pool.unmap(mapping, Unmap::Sync);
                    assert!(end.iter().all(|&byte| byte == !own));
                }
            });
        }
    });
    assert_eq!(pool.stats().used, 0);
}
