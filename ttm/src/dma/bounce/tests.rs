//! Places against a naive list of slots, contents against both sides as arrays of bytes; case by
//! case, then drawn. Threads are in `tests/dma_space.rs`.

use super::*;
use crate::dma::dice::Dice;
use crate::dma::{Direction, Mask};

const BASE: u64 = 0x40_0000;
const PAGE: u64 = 4096;

fn pool(sets: u64, threads: usize) -> BouncePool<BounceBytes> {
    let memory = BounceBytes::new(vec![0xee; (sets * SET) as usize]);
    BouncePool::new(memory, DmaAddr::new(BASE).unwrap(), threads).unwrap()
}

fn to_device(original: u64) -> BounceRequest {
    BounceRequest::new(original, Direction::ToDevice)
}

/// What the device reads there.
fn seen(pool: &BouncePool<BounceBytes>, mapping: &Bounced<'_>) -> Vec<u8> {
    let mut bytes = vec![0; mapping.bytes().len()];
    pool.memory()
        .get(mapping.address().get() - BASE, &mut bytes);
    bytes
}

/// What the device writes there.
fn device_writes(
    pool: &BouncePool<BounceBytes>,
    mapping: &Bounced<'_>,
    offset: usize,
    bytes: &[u8],
) {
    let at = mapping.address().get() - BASE + offset as u64;
    pool.memory().put(at, bytes);
}

#[test]
fn areas_are_a_power_of_two_and_have_a_set_each() {
    for (sets, threads, areas) in [
        (1, 0, 1),
        (1, 8, 1),
        (3, 8, 2),
        (8, 3, 4),
        (9, usize::MAX, 8),
        (64, 5, 8),
    ] {
        let pool = pool(sets, threads);
        assert_eq!(pool.areas(), areas, "{sets} sets, {threads} threads");
        // Every set can be used, from whichever area one starts.
        let mut buffers = vec![vec![0; SET as usize]; sets as usize];
        let mappings: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| pool.map(buffer, &to_device(0)).unwrap())
            .collect();
        assert_eq!(pool.stats().used, sets * SET);
        for mapping in mappings {
            let _ = pool.unmap(mapping, Unmap::Sync);
        }
        assert_eq!(pool.stats().used, 0);
    }
}

#[test]
fn a_pool_is_refused_that_is_small_uneven_or_at_the_end() {
    let new = |len: u64, base| {
        let base = DmaAddr::new(base).unwrap();
        BouncePool::new(BounceBytes::new(vec![0; len as usize]), base, 1).unwrap_err()
    };
    let len = SET - 1;
    assert_eq!(
        new(len, 0),
        DmaError::BouncePoolTooSmall { len, least: SET }
    );
    let (address, align) = (PAGE, SET);
    assert_eq!(
        new(SET, address),
        DmaError::MisalignedAddress { address, align }
    );
    assert_eq!(new(SET, SET.wrapping_neg()), DmaError::AddressOverflow);
}

#[test]
fn low_bits_are_kept_and_pages_begin_at_pages() {
    let pool = pool(1, 1);
    let mut small = [0; 100];
    let mut large = [0; 5000];
    let first = pool.map(&mut small, &to_device(0x1234)).unwrap();
    assert_eq!(first.address().get(), BASE);
    let second = pool.map(&mut large, &to_device(0x1234)).unwrap();
    assert_eq!(second.address().get(), BASE + PAGE);
    let mut kept = [0; 100];
    let request = to_device(0x7_f9a4).min_align_mask(0xffff);
    let kept = pool.map(&mut kept, &request).unwrap();
    assert_eq!(kept.address().get(), BASE + 0xf9a4);
    assert_eq!(pool.stats().used, (1 + 3 + 1) * SLOT);
}

#[test]
fn neither_a_set_nor_a_boundary_is_crossed() {
    let pool = pool(2, 1);
    let mut buffers = vec![vec![0; 3 * SLOT as usize]; 100];
    let request = to_device(0).boundary(8 * SLOT - 1);
    let mut count = 0;
    for buffer in &mut buffers {
        // Two of three slots each to eight: they begin at pages, so at 0 and 4 of 8.
        match pool.map(buffer, &request) {
            Ok(mapping) => {
                let first = mapping.address().get() - BASE;
                assert_eq!(first / (8 * SLOT), (first + 3 * SLOT - 1) / (8 * SLOT));
                count += 1;
            }
            Err(full) => {
                assert!(full.is_retryable());
                let (need, total) = (3 * SLOT, 2 * SET);
                let used = count * 3 * SLOT;
                assert_eq!(full, DmaError::BouncePoolFull { need, total, used });
                break;
            }
        }
    }
    assert_eq!(count, 2 * 2 * 16);
    assert_eq!(pool.stats().high_water, count * 3 * SLOT);
}

#[test]
fn what_never_fits_is_refused_with_what_would() {
    let pool = pool(2, 2);
    let mut buffer = vec![0; SET as usize + 1];
    let mut refused = |len: u64, request: &BounceRequest| {
        let refused = pool.map(&mut buffer[..len as usize], request);
        refused.map(drop).unwrap_err()
    };
    let too_large = |len, max| DmaError::TooLargeForBounce { len, max };
    let len = SET + 1;
    assert_eq!(refused(len, &to_device(0)), too_large(len, SET));
    let request = to_device(0x1_0f00).min_align_mask(0xfff);
    assert_eq!(refused(SET, &request), too_large(SET, SET - 0xf00));
    let request = to_device(0x1_0f00).min_align_mask(0xfff).boundary(0x7ff);
    assert_eq!(refused(0x101, &request), too_large(0x101, 0x100));
    assert_eq!(refused(0, &to_device(0)), DmaError::ZeroLength);
    for request in [
        to_device(0).min_align_mask(2 * SET - 1),
        to_device(0).min_align_mask(2),
        to_device(0).min_align_mask(u64::MAX),
        to_device(0).boundary(SET),
    ] {
        let refused = refused(1, &request);
        assert!(matches!(refused, DmaError::BadAlignment { .. }));
    }
    let (end, mask) = (BASE + 2 * SET - 1, Mask::up_to(BASE + 2 * SET - 2));
    assert_eq!(
        refused(1, &to_device(0).limit(mask)),
        DmaError::AboveMask { end, mask }
    );
    assert_eq!(pool.stats().high_water, 0);
}

#[test]
fn mapping_copies_in_whatever_the_direction() {
    let pool = pool(1, 1);
    for direction in Direction::ALL {
        let mut buffer = *b"all of it";
        let mapping = pool.map(&mut buffer, &BounceRequest::new(0, direction));
        let mapping = mapping.unwrap();
        assert_eq!(seen(&pool, &mapping), b"all of it");
        device_writes(&pool, &mapping, 0, b"ALL");
        let expected = match direction.device_writes() {
            true => b"ALL of it",
            false => b"all of it",
        };
        assert_eq!(pool.unmap(mapping, Unmap::Sync), expected);
    }
}

/// I-52: what a mapping leaves of its slots says nothing of whoever had them before.
#[test]
fn slots_are_cleared_between_owners() {
    let pool = pool(1, 1);
    let mut secret = vec![0x5e; 3 * SLOT as usize];
    let first = pool.map(&mut secret, &to_device(0)).unwrap();
    let at = first.address();
    let _ = pool.unmap(first, Unmap::Sync);
    let mut own = vec![0x01; SLOT as usize + 100];
    let request = to_device(0x123).min_align_mask(0xfff);
    let second = pool.map(&mut own, &request).unwrap();
    assert_eq!(second.address().get(), at.get() + 0x123);
    let mut around = vec![0xff; 2 * SLOT as usize];
    pool.memory().get(at.get() - BASE, &mut around);
    let (head, rest) = around.split_at(0x123);
    assert!(head.iter().all(|byte| *byte == 0));
    let (mapped, tail) = rest.split_at(SLOT as usize + 100);
    assert!(mapped.iter().all(|byte| *byte == 1));
    assert!(tail.iter().all(|byte| *byte == 0));
    let _ = pool.unmap(second, Unmap::Sync);
}

#[test]
fn a_skipped_sync_suppresses_the_copy_of_the_unmap_alone() {
    let pool = pool(1, 1);
    let mut buffer = *b"before";
    let request = BounceRequest::new(0, Direction::Both);
    let mut mapping = pool.map(&mut buffer, &request).unwrap();
    device_writes(&pool, &mapping, 0, b"DEVICE");
    pool.sync_for_cpu(&mut mapping, 0..2).unwrap();
    assert_eq!(pool.unmap(mapping, Unmap::SkipSync), b"DEfore");
}

#[test]
fn a_sync_beyond_the_mapping_is_refused_and_not_clamped() {
    let pool = pool(1, 1);
    let mut buffer = [1; 100];
    let request = BounceRequest::new(0, Direction::Both);
    let mut mapping = pool.map(&mut buffer, &request).unwrap();
    device_writes(&pool, &mapping, 0, &[2; 100]);
    #[expect(clippy::reversed_empty_ranges, reason = "one of them is to be refused")]
    for (range, len) in [
        (90..101, 11),
        (101..101, 0),
        (50..40, 0),
        (0..usize::MAX, usize::MAX),
    ] {
        let refused = DmaError::RangeOutOfMapping {
            offset: range.start as u64,
            len: len as u64,
            mapped: 100,
        };
        assert_eq!(
            pool.sync_for_cpu(&mut mapping, range.clone()),
            Err(refused.clone())
        );
        assert_eq!(pool.sync_for_device(&mut mapping, range), Err(refused));
    }
    assert_eq!(mapping.bytes(), [1; 100]);
    pool.sync_for_cpu(&mut mapping, 100..100).unwrap();
    let _ = pool.unmap(mapping, Unmap::Sync);
}

#[test]
#[should_panic(expected = "another pool")]
fn a_mapping_ends_where_it_began() {
    let (one, other) = (pool(1, 1), pool(1, 1));
    let mut buffer = [0; 10];
    let mapping = one.map(&mut buffer, &to_device(0)).unwrap();
    let _ = other.unmap(mapping, Unmap::Sync);
}

/// The slots of a mapping, of the whole pool.
fn slots(first: u64, len: u64) -> Range<u64> {
    (first - BASE) / SLOT..(first - BASE + len).div_ceil(SLOT)
}

/// Whether the request can be met beside the used slots, by trying each.
fn has_room(used: &[bool], request: &BounceRequest, len: u64) -> bool {
    let kept = request.original & request.min_align_mask;
    let page = match len >= PAGE {
        true => PAGE - 1,
        false => 0,
    };
    (0..used.len() as u64).any(|slot| {
        let first = BASE + slot * SLOT + kept % SLOT;
        let last = first + len - 1;
        let needed = slots(first, len);
        first & request.min_align_mask == kept
            && (BASE + slot * SLOT) & page & !request.min_align_mask == 0
            && first & !request.boundary == last & !request.boundary
            && first / SET == last / SET
            && needed.clone().all(|slot| !used[slot as usize])
    })
}

#[test]
fn drawn_places_keep_the_laws() {
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let sets = 1 + dice.below(5);
        let pool = pool(sets, 1 + dice.below(4) as usize);
        let mut used = vec![false; (sets * SET_SLOTS) as usize];
        let mut live: Vec<(Bounced<'static>, Range<u64>)> = Vec::new();
        for _ in 0..600 {
            if dice.below(5) < 2 && !live.is_empty() {
                let which = dice.below(live.len() as u64) as usize;
                let (mapping, slots) = live.swap_remove(which);
                let _ = pool.unmap(mapping, Unmap::Sync);
                slots.for_each(|slot| used[slot as usize] = false);
                continue;
            }
            let most = dice.of(&[3000, 3000, 20_000, SET]);
            let len = 1 + dice.below(most);
            let request = to_device(dice.below(1 << 40))
                .min_align_mask(dice.of(&[0, 0, 0x1ff, 0xfff, 0xffff]))
                .boundary(dice.of(&[u64::MAX, u64::MAX, 0xffff, 0x3fff]));
            let buffer = vec![0; len as usize].leak();
            match pool.map(buffer, &request) {
                Ok(mapping) => {
                    let first = mapping.address().get();
                    let (last, mask) = (first + len - 1, request.min_align_mask);
                    assert_eq!(first & mask, request.original & mask, "seed {seed}");
                    assert_eq!(first & !request.boundary, last & !request.boundary);
                    assert_eq!(first / SET, last / SET);
                    if len >= PAGE {
                        assert_eq!(first & (PAGE - 1) & !mask & !(SLOT - 1), 0);
                    }
                    let slots = slots(first, len);
                    for slot in slots.clone() {
                        let before = core::mem::replace(&mut used[slot as usize], true);
                        assert!(!before, "seed {seed}: slot {slot} twice");
                    }
                    live.push((mapping, slots));
                }
                Err(DmaError::BouncePoolFull { .. }) => {
                    assert!(!has_room(&used, &request, len), "seed {seed}: {request:?}");
                }
                Err(DmaError::TooLargeForBounce { max, .. }) => assert!(len > max),
                Err(other) => panic!("seed {seed}: {other}"),
            }
            let count = used.iter().filter(|used| **used).count() as u64;
            assert_eq!(pool.stats().used, count * SLOT, "seed {seed}");
        }
    }
}

/// Both sides of a mapping.
struct Sides {
    direction: Direction,
    cpu: Vec<u8>,
    device: Vec<u8>,
}

impl Sides {
    fn sync_cpu(&mut self, bytes: Range<usize>) {
        if self.direction.device_writes() {
            self.cpu[bytes.clone()].copy_from_slice(&self.device[bytes]);
        }
    }

    fn sync_device(&mut self, bytes: Range<usize>) {
        if self.direction.device_reads() {
            self.device[bytes.clone()].copy_from_slice(&self.cpu[bytes]);
        }
    }
}

fn drawn_range(dice: &mut Dice, len: usize) -> Range<usize> {
    let start = dice.below(len as u64 + 1);
    let len = dice.below(len as u64 + 1 - start);
    start as usize..(start + len) as usize
}

fn drawn_bytes(dice: &mut Dice, len: usize) -> Vec<u8> {
    (0..len).map(|_| dice.below(256) as u8).collect()
}

#[test]
fn drawn_writes_and_syncs_leave_both_sides_as_the_model_has_them() {
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let pool = pool(2, 2);
        let mut live: Vec<(Bounced<'static>, Sides)> = Vec::new();
        for _ in 0..400 {
            if live.len() < 6 {
                let len = 1 + dice.below(6000) as usize;
                let cpu = drawn_bytes(&mut dice, len);
                let direction = dice.of(&Direction::ALL);
                let request = BounceRequest::new(dice.below(1 << 40), direction)
                    .min_align_mask(dice.of(&[0, 0xfff]));
                let mapping = pool.map(cpu.clone().leak(), &request).unwrap();
                let device = cpu.clone();
                let sides = Sides {
                    direction,
                    cpu,
                    device,
                };
                live.push((mapping, sides));
            }
            let which = dice.below(live.len() as u64) as usize;
            let (mapping, sides) = &mut live[which];
            let range = drawn_range(&mut dice, sides.cpu.len());
            match dice.below(9) {
                0..=1 => {
                    let bytes = drawn_bytes(&mut dice, range.len());
                    mapping.bytes_mut()[range.clone()].copy_from_slice(&bytes);
                    sides.cpu[range].copy_from_slice(&bytes);
                }
                2..=3 => {
                    let bytes = drawn_bytes(&mut dice, range.len());
                    device_writes(&pool, mapping, range.start, &bytes);
                    sides.device[range].copy_from_slice(&bytes);
                }
                4..=5 => {
                    pool.sync_for_cpu(mapping, range.clone()).unwrap();
                    sides.sync_cpu(range);
                }
                6..=7 => {
                    pool.sync_for_device(mapping, range.clone()).unwrap();
                    sides.sync_device(range);
                }
                _ => {
                    let (mapping, mut sides) = live.swap_remove(which);
                    let how = dice.of(&[Unmap::Sync, Unmap::SkipSync]);
                    if how == Unmap::Sync {
                        sides.sync_cpu(0..sides.cpu.len());
                    }
                    assert_eq!(pool.unmap(mapping, how), sides.cpu, "seed {seed}");
                }
            }
            for (mapping, sides) in &live {
                assert_eq!(mapping.bytes(), sides.cpu, "seed {seed}");
                assert_eq!(seen(&pool, mapping), sides.device, "seed {seed}");
            }
        }
    }
}
