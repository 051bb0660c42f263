//! Both policies against brute force on every small trace, and on random ones against naive
//! models. Seeds are printed by the assertion that fails.

use std::collections::BTreeSet;

use super::*;
use crate::replay::trace::{ObjectInfo, Parts, RequestEnd};

const PAGE: u64 = 4096;

/// A trace of these requests, in lines 10, 11, …; object `i` has `sizes[i]` pages.
fn trace(sizes: &[u64], requests: &[Vec<u32>]) -> Trace {
    let mut parts = Parts::default();
    for (id, pages) in sizes.iter().enumerate() {
        let size = ByteSize(pages * PAGE);
        parts.objects.push(ObjectInfo {
            id: id as u64,
            size,
        });
    }
    for (index, ids) in requests.iter().enumerate() {
        parts.touches.extend(ids);
        let end = parts.touches.len() as u32;
        parts.ends.push(RequestEnd {
            line: 10 + index as u32,
            end,
        });
    }
    Trace::new(parts).unwrap()
}

fn pages(count: u64) -> ByteSize {
    ByteSize(count * PAGE)
}

/// The fewest misses of any choice of victims, by trying all of them.
fn fewest_misses(groups: &[Vec<u32>], room: usize) -> u64 {
    let mut states: Vec<(BTreeSet<u32>, u64)> = vec![(BTreeSet::new(), 0)];
    for group in groups {
        let needed: BTreeSet<u32> = group.iter().copied().collect();
        let mut after: Vec<(BTreeSet<u32>, u64)> = Vec::new();
        for (resident, misses) in &states {
            let misses = misses + needed.difference(resident).count() as u64;
            let others: Vec<u32> = resident.difference(&needed).copied().collect();
            for keep in 0u32..1 << others.len() {
                let kept = others
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| keep >> bit & 1 == 1);
                let mut set = needed.clone();
                set.extend(kept.map(|(_, object)| *object));
                if set.len() > room {
                    continue;
                }
                match after.iter_mut().find(|(other, _)| *other == set) {
                    Some((_, best)) => *best = misses.min(*best),
                    None => after.push((set, misses)),
                }
            }
        }
        states = after;
    }
    states.iter().map(|(_, misses)| *misses).min().unwrap()
}

/// The least recently used policy as one would explain it.
fn naive_lru(trace: &Trace, room: ByteSize, order: Order) -> Counts {
    let mut counts = Counts::default();
    let mut oldest_first: Vec<u32> = Vec::new();
    let size = |object: &u32| trace.objects()[*object as usize].size.bytes();
    for group in groups(trace, order) {
        let touches = &trace.touches()[group.touches];
        for object in touches {
            counts.touches += 1;
            if !oldest_first.contains(object) {
                counts.misses += 1;
                counts.bytes_in += size(object);
                while oldest_first.iter().map(size).sum::<u64>() + size(object) > room.bytes() {
                    let victim = oldest_first
                        .iter()
                        .position(|other| !touches.contains(other));
                    counts.bytes_out += size(&oldest_first.remove(victim.unwrap()));
                    counts.evictions += 1;
                }
            }
            oldest_first.retain(|other| other != object);
            oldest_first.push(*object);
        }
    }
    counts
}

struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % bound
    }

    fn requests(&mut self, objects: u64, lines: u64, width: u64) -> Vec<Vec<u32>> {
        (0..lines)
            .map(|_| {
                (0..self.below(width + 1))
                    .map(|_| self.below(objects) as u32)
                    .collect()
            })
            .collect()
    }
}

fn as_groups(requests: &[Vec<u32>], order: Order) -> Vec<Vec<u32>> {
    match order {
        Order::Request => requests.to_vec(),
        Order::Touch => requests.iter().flatten().map(|id| vec![*id]).collect(),
    }
}

#[test]
fn optimal_equals_brute_force_on_every_small_trace() {
    const OBJECTS: u32 = 4;
    for length in 1..=7u32 {
        for code in 0..OBJECTS.pow(length) {
            let digit = |index| code / OBJECTS.pow(index) % OBJECTS;
            let touches: Vec<Vec<u32>> = (0..length).map(|index| vec![digit(index)]).collect();
            let trace = trace(&[1; OBJECTS as usize], &touches);
            for room in 1..=3 {
                let counts = optimal(&trace, pages(room), Order::Touch).unwrap();
                let fewest = fewest_misses(&touches, room as usize);
                assert_eq!(counts.misses, fewest, "{touches:?} in {room}");
            }
        }
    }
}

#[test]
fn optimal_equals_brute_force_on_random_requests() {
    for seed in 1..400 {
        let mut random = Random::seeded(seed);
        let requests = random.requests(7, 12, 3);
        let trace = trace(&[1; 7], &requests);
        for room in 3..=6 {
            for order in [Order::Touch, Order::Request] {
                let counts = optimal(&trace, pages(room), order).unwrap();
                let fewest = fewest_misses(&as_groups(&requests, order), room as usize);
                assert_eq!(counts.misses, fewest, "seed {seed}, room {room}, {order:?}");
            }
        }
    }
}

#[test]
fn lru_equals_the_naive_model_for_any_sizes() {
    for seed in 1..400 {
        let mut random = Random::seeded(seed);
        let sizes: Vec<u64> = (0..12).map(|_| 1 + random.below(4)).collect();
        let requests = random.requests(12, 60, 5);
        let trace = trace(&sizes, &requests);
        for order in [Order::Touch, Order::Request] {
            let counts = lru(&trace, pages(20), order).unwrap();
            assert_eq!(
                counts,
                naive_lru(&trace, pages(20), order),
                "seed {seed}, {order:?}"
            );
        }
    }
}

#[test]
fn optimal_never_misses_more_than_lru_and_all_counts_balance() {
    for seed in 1..200 {
        let mut random = Random::seeded(seed);
        let trace = trace(&[1; 40], &random.requests(40, 200, 6));
        for order in [Order::Touch, Order::Request] {
            let [least, exact] =
                [optimal, lru].map(|policy| policy(&trace, pages(11), order).unwrap());
            assert!(least.misses <= exact.misses, "seed {seed}, {order:?}");
            for counts in [least, exact] {
                assert_eq!(counts.touches, trace.touches().len() as u64);
                assert_eq!(
                    counts.evictions,
                    counts.misses - 11,
                    "seed {seed}, {order:?}"
                );
                assert_eq!(counts.bytes_in, counts.misses * PAGE);
                assert_eq!(counts.bytes_out, counts.evictions * PAGE);
            }
        }
    }
}

#[test]
fn with_room_for_all_each_object_misses_once_and_none_leaves() {
    let trace = trace(&[1, 2, 3], &[vec![0, 1], vec![1, 2, 0], vec![2]]);
    for order in [Order::Touch, Order::Request] {
        for policy in [lru, optimal] {
            let counts = policy(&trace, pages(6), order).unwrap();
            assert_eq!((counts.misses, counts.evictions), (3, 0));
            assert_eq!(counts.bytes_in, 6 * PAGE);
        }
    }
}

#[test]
fn a_request_that_cannot_fit_is_refused_with_its_line() {
    let trace = trace(&[1; 4], &[vec![0, 0, 1], vec![], vec![1, 2, 1, 3]]);
    for policy in [lru, optimal] {
        assert!(policy(&trace, pages(2), Order::Touch).is_ok());
        let refused = policy(&trace, pages(2), Order::Request).unwrap_err();
        assert_eq!((refused.line, refused.objects), (12, 3));
        let text = "line 12: 3 objects together of 12K cannot fit in room for 8K";
        assert_eq!(refused.to_string(), text);
    }
}

#[test]
fn an_object_larger_than_the_room_is_refused_with_its_line() {
    let trace = trace(&[1, 3], &[vec![0], vec![0, 1]]);
    for policy in [lru, optimal] {
        let refused = policy(&trace, pages(2), Order::Touch).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "line 11: an object of 12K cannot fit in room for 8K"
        );
    }
}
