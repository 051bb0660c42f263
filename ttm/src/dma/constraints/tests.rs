//! The laws of intersecting: over random constraints, and against random storage.

use super::*;
use crate::dma::dice::Dice;
use crate::dma::{BusRange, DmaAddr, MappedList};

fn random(dice: &mut Dice) -> Constraints {
    let kinds = StorageKind::ALL;
    let modes = CacheMode::ALL;
    let mut storage = StorageKinds::ANY;
    if dice.one_in(2) {
        let picked: Vec<_> = (0..=dice.below(3)).map(|_| dice.of(&kinds)).collect();
        storage = StorageKinds::ordered(&picked);
    }
    let mut caching = CacheModes::ALL;
    if dice.one_in(3) {
        let picked: Vec<_> = (0..=dice.below(2)).map(|_| dice.of(&modes)).collect();
        caching = CacheModes::of(&picked);
    }
    Constraints {
        limit: dice.of(&[Mask::ALL, Mask::bits(32), Mask::up_to(0x2_ffff)]),
        max_segment: dice.of(&[0x1000, 0x2fff, 0x1_0000, u64::MAX]),
        boundary_mask: dice.of(&[u64::MAX, u64::MAX, 0xffff, 0x1fff]),
        min_align_mask: dice.of(&[0, 0, 0x1ff, 0x1fff]),
        alignment: dice.of(&[1, 1, 0x1000, 0x3000, 0x8000]),
        max_segments: dice.of(&[None, Some(1), Some(3), Some(8)]),
        contiguous: dice.one_in(4),
        needs_cpu_pages: dice.one_in(4),
        caching,
        coherent: dice.one_in(4),
        never_snoops: dice.one_in(4),
        no_bounce: dice.one_in(4),
        always_bounces: dice.one_in(6),
        storage,
        encryption: dice.of(&[
            Encryption::Any,
            Encryption::Any,
            Encryption::Encrypted,
            Encryption::Clear,
        ]),
    }
}

/// One in which something is left.
fn random_sound(dice: &mut Dice) -> Constraints {
    match random(dice).normal() {
        Ok(normal) => normal,
        Err(_) => random_sound(dice),
    }
}

fn random_storage(dice: &mut Dice) -> Storage {
    let mut ranges = Vec::new();
    let mut at = dice.below(4) * 0x1000;
    for _ in 0..=dice.below(3) {
        let len = (1 + dice.below(6)) * 0x1000;
        let addr = DmaAddr::new(at).unwrap();
        ranges.push(BusRange { addr, len });
        at += len + dice.below(3) * 0x1000;
        at += dice.of(&[0, 0, 0, 1 << 32]);
    }
    let storage = Storage::new(dice.of(&StorageKind::ALL), &ranges).unwrap();
    let storage = storage.cached(dice.of(&CacheMode::ALL));
    match dice.one_in(2) {
        true => storage.encrypted(),
        false => storage,
    }
}

#[test]
fn intersecting_is_commutative_associative_and_idempotent() {
    let (mut full, mut empty) = (0, 0);
    for seed in 0..20_000 {
        let mut dice = Dice::new(seed);
        let [a, b, c] = [(); 3].map(|()| random_sound(&mut dice));
        assert_eq!(a.intersect(&a), Ok(a), "seed {seed}");
        assert_eq!(a.intersect(&Constraints::ANY), Ok(a), "seed {seed}");
        let ab = a.intersect(&b);
        assert_eq!(ab.ok(), b.intersect(&a).ok(), "seed {seed}");
        let left = ab.and_then(|ab| ab.intersect(&c)).ok();
        let right = b.intersect(&c).and_then(|bc| a.intersect(&bc)).ok();
        assert_eq!(left, right, "seed {seed}: {a:?} {b:?} {c:?}");
        match left {
            Some(_) => full += 1,
            None => empty += 1,
        }
    }
    assert!(full > 500 && empty > 500, "{full} {empty}");
}

#[test]
fn another_never_widens() {
    for seed in 0..20_000 {
        let mut dice = Dice::new(seed);
        let (a, b) = (random_sound(&mut dice), random_sound(&mut dice));
        let Ok(both) = a.intersect(&b) else {
            continue;
        };
        assert_eq!(both.intersect(&a), Ok(both), "seed {seed}");
        assert!(both.limit <= a.limit && both.max_segment <= a.max_segment);
        assert!(both.alignment.is_multiple_of(a.alignment));
        assert!(both.storage.iter().all(|kind| a.storage.contains(kind)));
        assert!(both.caching.iter().all(|mode| a.caching.contains(mode)));
        both.parms().validate().unwrap();
    }
}

#[test]
fn storage_for_all_is_accepted_by_each() {
    let mut accepted = 0;
    for seed in 0..40_000 {
        let mut dice = Dice::new(seed);
        let members = [(); 2].map(|()| random_sound(&mut dice));
        let Ok(all) = members[0].intersect(&members[1]) else {
            continue;
        };
        for _ in 0..4 {
            let storage = random_storage(&mut dice);
            if all.accepts(&storage).is_ok() {
                accepted += 1;
                for member in members {
                    assert_eq!(member.accepts(&storage), Ok(()), "seed {seed}");
                }
            }
        }
    }
    assert!(accepted > 500, "{accepted}");
}

#[test]
fn a_list_for_all_passes_the_check_of_each() {
    let mut passed = 0;
    for seed in 0..20_000 {
        let mut dice = Dice::new(seed);
        let members = [(); 2].map(|()| random_sound(&mut dice));
        let Ok(all) = members[0].intersect(&members[1]) else {
            continue;
        };
        let range = |dice: &mut Dice| BusRange {
            addr: DmaAddr::new(dice.below(40) * 0x800).unwrap(),
            len: 1 + dice.below(0x2_0000),
        };
        let ranges = [range(&mut dice), range(&mut dice)];
        let count = 1 + dice.below(2) as usize;
        if let Ok(list) = MappedList::peer(&all.parms(), &ranges[..count]) {
            passed += 1;
            for member in members {
                member.parms().check(list.dma_segments()).unwrap();
            }
        }
    }
    assert!(passed > 500, "{passed}");
}

#[test]
fn what_excludes_each_other_is_named_with_both_sides() {
    let any = Constraints::ANY;
    let narrow = Constraints {
        max_segment: 0x1000,
        ..any
    };
    let aligned = Constraints {
        min_align_mask: 0xffff,
        ..any
    };
    let cached = Constraints {
        caching: CacheModes::of(&[CacheMode::Cached]),
        ..any
    };
    let uncached = Constraints {
        caching: CacheModes::of(&[CacheMode::Uncached]),
        ..any
    };
    let cases = [
        (narrow, aligned, Field::MinAlignMask),
        (cached, uncached, Field::Caching),
        (
            Constraints {
                coherent: true,
                ..cached
            },
            Constraints {
                never_snoops: true,
                ..any
            },
            Field::Coherent,
        ),
        (
            Constraints {
                needs_cpu_pages: true,
                ..any
            },
            Constraints {
                storage: StorageKinds::ordered(&[StorageKind::DeviceMemory]),
                ..any
            },
            Field::Storage,
        ),
        (
            Constraints {
                encryption: Encryption::Encrypted,
                ..any
            },
            Constraints {
                encryption: Encryption::Clear,
                storage: StorageKinds::ordered(&[StorageKind::Ram]),
                ..any
            },
            Field::Encryption,
        ),
        (
            Constraints {
                alignment: 1 << 63,
                ..any
            },
            Constraints {
                alignment: 3,
                ..any
            },
            Field::Alignment,
        ),
        (
            Constraints {
                alignment: 1 << 40,
                ..any
            },
            Constraints {
                limit: Mask::bits(32),
                ..any
            },
            Field::Alignment,
        ),
    ];
    for (ours, theirs, field) in cases {
        for (ours, theirs) in [(ours, theirs), (theirs, ours)] {
            let empty = ours.intersect(&theirs).unwrap_err();
            assert_eq!(empty.field, field, "{empty}");
            assert_ne!(empty.ours, empty.theirs, "{empty}");
            let side =
                |c: &Constraints, bound: Bound| c.normal().unwrap().bound(bound.field()) == bound;
            assert!(
                side(&ours, empty.ours) && side(&theirs, empty.theirs),
                "{empty}"
            );
        }
    }
    let empty = cached.intersect(&uncached).unwrap_err().to_string();
    assert_eq!(empty, "nothing has both cached memory and uncached memory");
    // What is impossible on its own is found before anything is intersected.
    let none = Constraints {
        max_segments: Some(0),
        ..any
    };
    let empty = any.intersect(&none).unwrap_err();
    assert_eq!(empty.to_string(), "nothing has 0 segments");
}

#[test]
fn mixed_encryption_leaves_what_is_shared_with_the_host() {
    let encrypted = Constraints {
        encryption: Encryption::Encrypted,
        ..Constraints::ANY
    };
    let clear = Constraints {
        encryption: Encryption::Clear,
        ..Constraints::ANY
    };
    let both = encrypted.intersect(&clear).unwrap();
    assert!(both.storage.iter().eq([StorageKind::SharedEncrypted]));
}

#[test]
fn the_order_of_storage_is_that_of_the_least_disappointed() {
    use StorageKind::{DeviceMemory, Ram, RamBelowMask, SharedEncrypted};
    let a = StorageKinds::ordered(&[DeviceMemory, SharedEncrypted, Ram]);
    let b = StorageKinds::ordered(&[SharedEncrypted, Ram, DeviceMemory]);
    let both = [SharedEncrypted, Ram, DeviceMemory, RamBelowMask];
    for met in [a.intersection(b), b.intersection(a)] {
        assert!(met.contains(RamBelowMask));
        assert_eq!(met.first(), Some(both[0]), "{met}");
    }
    assert!(StorageKinds::ANY.iter().eq(StorageKind::ALL));
}

#[test]
fn each_field_of_storage_can_be_a_misfit() {
    let range = |at, len| BusRange {
        addr: DmaAddr::new(at).unwrap(),
        len,
    };
    let ranges = [
        range(0x1000, 0x1000),
        range(0x2000, 0x1000),
        range(0x8000, 0x9000),
    ];
    let ram = Storage::new(StorageKind::Ram, &ranges).unwrap();
    let any = Constraints::ANY;
    any.accepts(&ram).unwrap();
    let cases = [
        (
            Constraints {
                limit: Mask::up_to(0xffff),
                ..any
            },
            Field::Limit,
        ),
        (
            Constraints {
                alignment: 0x8000,
                ..any
            },
            Field::Alignment,
        ),
        (
            Constraints {
                contiguous: true,
                ..any
            },
            Field::Contiguous,
        ),
        (
            Constraints {
                min_align_mask: 0x1fff,
                ..any
            },
            Field::MinAlignMask,
        ),
        (
            Constraints {
                max_segments: Some(1),
                ..any
            },
            Field::MaxSegments,
        ),
        (
            Constraints {
                caching: CacheModes::of(&[CacheMode::Uncached]),
                ..any
            },
            Field::Caching,
        ),
        (
            Constraints {
                encryption: Encryption::Encrypted,
                ..any
            },
            Field::Encryption,
        ),
        (
            Constraints {
                coherent: true,
                never_snoops: true,
                ..any
            },
            Field::Caching,
        ),
        (
            Constraints {
                storage: StorageKinds::ordered(&[StorageKind::DeviceMemory]),
                ..any
            },
            Field::Storage,
        ),
    ];
    for (want, field) in cases {
        let misfit = want.accepts(&ram).unwrap_err();
        assert_eq!(misfit.field, field, "{misfit}");
        assert_ne!(misfit.have, misfit.want);
    }
    let low = Constraints {
        storage: StorageKinds::ordered(&[StorageKind::RamBelowMask]),
        ..any
    };
    low.accepts(&ram).unwrap();
    let vram = Storage::new(StorageKind::DeviceMemory, &ranges).unwrap();
    let framed = Constraints {
        needs_cpu_pages: true,
        ..any
    };
    assert_eq!(framed.accepts(&vram).unwrap_err().field, Field::CpuPages);
    // Longer segments are fewer.
    let two = Constraints {
        max_segments: Some(2),
        ..any
    };
    two.accepts(&ram).unwrap();
    let short = Constraints {
        max_segment: 0x8000,
        ..two
    };
    let misfit = short.accepts(&ram).unwrap_err();
    assert_eq!(misfit.to_string(), "have 3 segments, want 2 segments");
}
