//! Attaching early, late, and while somebody holds the storage; then random rows of it.

use super::*;
use crate::dma::dice::Dice;
use crate::dma::{BusRange, CacheModes, DmaAddr, Mask, StorageKind};
use placement::CacheMode;

const ANY: Constraints = Constraints::ANY;

fn solver() -> Solver {
    Solver::new(ANY).unwrap()
}

fn attach(
    solver: &mut Solver,
    name: &str,
    constraints: Constraints,
    dynamic: bool,
) -> AttachOutcome {
    solver.attach(&AttachRequest {
        name,
        constraints,
        dynamic,
    })
}

#[track_caller]
fn fits(outcome: AttachOutcome) -> AttachmentId {
    match outcome {
        AttachOutcome::Fits(id) => id,
        other => panic!("{other:?}"),
    }
}

fn at(addr: u64, len: u64) -> Storage {
    let addr = DmaAddr::new(addr).unwrap();
    Storage::new(StorageKind::Ram, &[BusRange { addr, len }]).unwrap()
}

fn low(bits: u32) -> Constraints {
    Constraints {
        limit: Mask::bits(bits),
        ..ANY
    }
}

#[test]
fn before_there_is_storage_attaching_only_narrows() {
    let mut solver = solver();
    fits(attach(&mut solver, "card", low(40), false));
    assert_eq!(solver.wanted().unwrap().limit, Mask::bits(40));
    let camera = fits(attach(&mut solver, "camera", low(32), false));
    assert_eq!(solver.wanted().unwrap().limit, Mask::bits(32));
    assert!(solver.wanted().unwrap().no_bounce);
    let misfit = solver.settle(at(1 << 32, 4096)).unwrap_err();
    assert_eq!(misfit.field, Field::Limit);
    assert!(solver.storage().is_none());
    solver.detach(camera);
    assert_eq!(solver.wanted().unwrap().limit, Mask::bits(40));
    assert!(!solver.wanted().unwrap().no_bounce);
}

#[test]
fn a_contradiction_is_refused_and_changes_nothing() {
    let mut solver = solver();
    let only = |mode| Constraints {
        caching: CacheModes::of(&[mode]),
        ..ANY
    };
    fits(attach(&mut solver, "card", only(CacheMode::Cached), true));
    let outcome = attach(&mut solver, "old", only(CacheMode::Uncached), true);
    assert_eq!(
        outcome,
        AttachOutcome::Incompatible {
            field: Field::Caching,
            have: Bound::Caching(CacheModes::of(&[CacheMode::Cached])),
            want: Bound::Caching(CacheModes::of(&[CacheMode::Uncached])),
            held_by: Vec::new(),
        }
    );
    assert_eq!(solver.attached.len(), 1);
}

#[test]
fn a_buffer_of_two_is_never_copied_on_its_way() {
    let bounced = Constraints {
        always_bounces: true,
        ..ANY
    };
    for settled in [false, true] {
        let mut solver = solver();
        let first = fits(attach(&mut solver, "guest", bounced, true));
        if settled {
            solver.settle(at(0, 4096)).unwrap();
            solver.map(first);
        }
        let outcome = attach(&mut solver, "card", ANY, true);
        let field = match outcome {
            AttachOutcome::Incompatible { field, .. } => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field, Field::NoBounce);
    }
}

#[test]
fn late_and_fitting_is_attached() {
    let mut solver = solver();
    let card = fits(attach(&mut solver, "card", ANY, false));
    solver.settle(at(0x1000, 0x1000)).unwrap();
    solver.map(card);
    fits(attach(&mut solver, "camera", low(32), false));
    // Each has a list of its own: what is impossible in one list may do in two.
    let narrow = Constraints {
        max_segment: 0x1000,
        ..ANY
    };
    let aligned = Constraints {
        min_align_mask: 0xffff,
        ..ANY
    };
    fits(attach(&mut solver, "narrow", narrow, false));
    fits(attach(&mut solver, "aligned", aligned, false));
    assert_eq!(solver.wanted().unwrap_err().field, Field::MinAlignMask);
    assert!(solver.explain().is_err());
}

#[test]
fn late_and_stricter_moves_the_buffer_if_nobody_holds_it() {
    let mut solver = solver();
    let card = fits(attach(&mut solver, "card", ANY, true));
    let idle = fits(attach(&mut solver, "idle", ANY, false));
    solver.settle(at(1 << 33, 4096)).unwrap();
    solver.map(card);
    let plan = |outcome| match outcome {
        AttachOutcome::MigrateFirst(plan) => plan,
        other => panic!("{other:?}"),
    };
    let held = |outcome| match outcome {
        AttachOutcome::Incompatible { field, held_by, .. } => (field, held_by),
        other => panic!("{other:?}"),
    };
    let first = plan(attach(&mut solver, "camera", low(32), false));
    assert_eq!(first.unmap, [card]);
    assert_eq!(
        first.because.have,
        Bound::Limit(Mask::up_to((1 << 33) + 4095))
    );
    // A pin holds it, mapped or not; a map that is not dynamic does.
    solver.pin(card);
    let refused = held(attach(&mut solver, "camera", low(32), false));
    assert_eq!(refused, (Field::Limit, vec![card]));
    solver.unpin(card);
    solver.map(idle);
    let refused = held(attach(&mut solver, "camera", low(32), false));
    assert_eq!(refused, (Field::Limit, vec![idle]));
    solver.unmap(idle);
    solver.unmap(card);
    let again = plan(attach(&mut solver, "camera", low(32), false));
    assert!(again.unmap.is_empty());
    solver.settle(at(1 << 20, 4096)).unwrap();
    fits(attach(&mut solver, "camera", low(32), false));
}

#[test]
fn detaching_moves_nothing() {
    let mut solver = solver();
    let camera = fits(attach(&mut solver, "camera", low(32), false));
    solver.settle(at(0, 4096)).unwrap();
    solver.detach(camera);
    assert_eq!(solver.storage(), Some(&at(0, 4096)));
    assert_eq!(solver.wanted(), Ok(ANY));
    solver.vacate();
    assert_eq!(solver.storage(), None);
}

#[test]
#[should_panic(expected = "use it")]
fn mapped_storage_does_not_move() {
    let mut solver = solver();
    let card = fits(attach(&mut solver, "card", ANY, true));
    solver.settle(at(0, 4096)).unwrap();
    solver.map(card);
    let _ = solver.settle(at(4096, 4096));
}

#[test]
#[should_panic(expected = "without storage")]
fn nothing_is_mapped_before_there_is_storage() {
    let mut solver = solver();
    let card = fits(attach(&mut solver, "card", ANY, true));
    solver.map(card);
}

#[test]
fn each_bound_is_explained_by_who_set_it() {
    let mut solver = solver();
    let align = |alignment| Constraints { alignment, ..ANY };
    fits(attach(&mut solver, "three", align(0x3000), true));
    fits(attach(&mut solver, "two", align(0x2000), true));
    fits(attach(&mut solver, "camera", low(32), true));
    let coherent = Constraints {
        coherent: true,
        ..ANY
    };
    let old = Constraints {
        never_snoops: true,
        ..ANY
    };
    fits(attach(&mut solver, "display", coherent, true));
    fits(attach(&mut solver, "old", old, true));
    let why = solver.explain().unwrap();
    let by = |field| why.of(field).map(|reason| reason.by.join(" "));
    assert_eq!(by(Field::Limit).unwrap(), "camera");
    assert_eq!(by(Field::Alignment).unwrap(), "three two");
    assert_eq!(by(Field::Caching).unwrap(), "display old");
    assert_eq!(by(Field::NoBounce).unwrap(), "sharing");
    assert_eq!(by(Field::Contiguous), None);
    assert_eq!(why.reasons().len(), 6);
}

#[test]
fn the_storage_always_does_for_everybody_attached() {
    let (mut late, mut moved, mut refused) = (0, 0, 0);
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let mut solver = solver();
        let mut ids = Vec::new();
        for step in 0..12 {
            let constraints = Constraints {
                limit: dice.of(&[Mask::ALL, Mask::bits(32), Mask::bits(24)]),
                alignment: dice.of(&[1, 0x2000, 0x3000]),
                caching: dice.of(&[CacheModes::ALL, CacheModes::of(&[CacheMode::Cached])]),
                never_snoops: dice.one_in(8),
                coherent: dice.one_in(8),
                ..ANY
            };
            match attach(&mut solver, "one", constraints, dice.one_in(2)) {
                AttachOutcome::Fits(id) => {
                    late += u32::from(solver.storage().is_some());
                    ids.push(id);
                }
                AttachOutcome::MigrateFirst(plan) => {
                    moved += 1;
                    // Other places fit, and then so does the new one.
                    for id in ids.iter().filter(|id| plan.unmap.contains(id)) {
                        while solver.attached[id].mapped > 0 {
                            solver.unmap(*id);
                        }
                    }
                    let mode = plan.to.caching.iter().next().unwrap();
                    let storage = at(plan.to.alignment, 4096).cached(mode);
                    solver.settle(storage).unwrap();
                    ids.push(fits(attach(&mut solver, "one", constraints, false)));
                }
                AttachOutcome::Incompatible { .. } => refused += 1,
            }
            if step == 3 && solver.storage().is_none() {
                let wanted = solver.wanted().unwrap();
                let mode = wanted.caching.iter().next().unwrap();
                let top = wanted.limit.last() - 0xfff;
                let addr = (top - top % wanted.alignment).min(1 << 40);
                let addr = addr - addr % wanted.alignment.max(4096);
                solver.settle(at(addr, 4096).cached(mode)).unwrap();
            }
            if let (Some(storage), false) = (solver.storage(), ids.is_empty()) {
                assert_eq!(solver.serves(storage, None), Ok(()), "seed {seed}");
                let id = dice.of(&ids);
                match dice.below(3) {
                    0 => solver.map(id),
                    1 if solver.attached[&id].mapped > 0 => solver.unmap(id),
                    2 if solver.attached[&id].mapped == 0 => {
                        ids.retain(|other| *other != id);
                        solver.detach(id);
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(
        late > 100 && moved > 100 && refused > 100,
        "{late} {moved} {refused}"
    );
}
