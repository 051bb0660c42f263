//! The manager against the exact least recently used policy, on random traces in both orders.
//! Seeds are printed by the assertion that fails.

use super::*;
use crate::replay::exact;
use crate::replay::trace::{ObjectInfo, Parts, RequestEnd};

const PAGE: u64 = 4096;

/// Splitmix: good enough for traces, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Requests of up to six touches, with repetitions, of up to 24 objects of up to `pages` pages.
fn random(seed: u64, pages: u64) -> Trace {
    let mut random = Random(seed);
    let mut parts = Parts::default();
    let objects = 1 + random.below(24);
    for id in 0..objects {
        parts.objects.push(ObjectInfo {
            id,
            size: ByteSize(PAGE * (1 + random.below(pages))),
        });
    }
    for line in 1..=1 + random.below(200) {
        for _ in 0..=random.below(6) {
            parts.touches.push(random.below(objects) as u32);
        }
        parts.ends.push(RequestEnd {
            line: line as u32,
            end: parts.touches.len() as u32,
        });
    }
    Trace::new(parts).unwrap()
}

#[test]
fn the_manager_is_an_exact_lru_in_both_orders() {
    for seed in 0..600 {
        for pages in [1, 5] {
            let trace = random(seed, pages);
            // From what the largest request needs up to where everything fits.
            let room = ByteSize(PAGE * pages * (6 + seed % 20));
            for order in [Order::Touch, Order::Request] {
                let row = run(&trace, room, order, None).unwrap();
                let expected = exact::lru(&trace, room, order).unwrap();
                assert_eq!(
                    row.counts, expected,
                    "seed {seed}, {pages} pages, {order:?}"
                );
                let seconds = Link::default().seconds(&expected);
                assert!((row.virtual_seconds - seconds).abs() < 1e-6, "{row:?}");
            }
        }
    }
}

#[test]
fn the_optimum_misses_no_more_than_the_manager_where_all_objects_have_one_size() {
    for seed in 0..100 {
        let trace = random(seed, 1);
        let room = ByteSize(PAGE * (6 + seed % 12));
        for order in [Order::Touch, Order::Request] {
            let managed = run(&trace, room, order, None).unwrap();
            let best = exact::optimal(&trace, room, order).unwrap();
            assert!(
                best.misses <= managed.counts.misses,
                "seed {seed}, {order:?}"
            );
        }
    }
}

#[test]
fn a_copy_takes_the_engines_time() {
    let link = Link::default();
    for pages in [1, 512] {
        let bytes = pages * PAGE;
        assert_eq!(
            link.copy_ns(bytes),
            EngineConfig::default().duration_ns(bytes)
        );
    }
}
