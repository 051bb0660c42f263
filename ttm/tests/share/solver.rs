//! Those who come late, against the solver.

use super::*;

fn any_constraints(dice: &mut Dice) -> Constraints {
    let caching = [
        CacheModes::ALL,
        CacheModes::ALL,
        CacheModes::of(&[CacheMode::Cached]),
        CacheModes::of(&[CacheMode::Uncached, CacheMode::WriteCombined]),
    ];
    Constraints {
        limit: dice.of(&[Mask::ALL, Mask::ALL, Mask::bits(15), Mask::bits(13)]),
        max_segment: dice.of(&[Constraints::ANY.max_segment, 4096, 8192]),
        max_segments: dice.of(&[None, None, Some(5), Some(3)]),
        alignment: dice.of(&[1, 4096, 1 << 16]),
        contiguous: dice.below(3) == 0,
        no_bounce: dice.below(4) == 0,
        always_bounces: dice.below(8) == 0,
        caching: dice.of(&caching),
        ..Constraints::ANY
    }
}

/// Somebody attached, and what the reference knows of him.
struct Attached {
    id: AttachmentId,
    attached: Attachment<Counting>,
    stays: bool,
    mapped: bool,
}

/// What the reference says of the object's storage: one run, where the list has it.
fn storage_of(list: &ttm::dma::MappedList) -> Storage {
    let segments = list.dma_segments().iter();
    let ranges: Vec<BusRange> = segments
        .map(|s| BusRange {
            addr: s.addr,
            len: s.len,
        })
        .collect();
    Storage::new(StorageKind::Ram, &ranges).unwrap()
}

/// The answer to a wish to attach, as the solver and as the export have it.
fn same(expected: &AttachOutcome, found: &Result<Attachment<Counting>>) -> bool {
    let found = match found {
        Ok(_) => return matches!(expected, AttachOutcome::Fits(_)),
        Err(Error::Dma { source, .. }) => source.downcast_ref::<DmaError>(),
        Err(_) => None,
    };
    match (expected, found) {
        (
            AttachOutcome::MigrateFirst(plan),
            Some(DmaError::NeedsMigration { field, unmap, .. }),
        ) => plan.because.field == *field && plan.unmap.len() == unmap.len(),
        (
            AttachOutcome::Incompatible {
                field,
                have,
                want,
                held_by,
            },
            Some(DmaError::AttachIncompatible {
                field: f,
                have: h,
                want: w,
                held_by: by,
            }),
        ) => (field, have, want, held_by.len()) == (f, &**h, &**w, by.len()),
        _ => false,
    }
}

/// Strict ones come late, map, are moved, and go. Who may attach is whom a solver lets that is told
/// the same; and whoever has it mapped can use what he has.
#[test]
fn who_may_attach_is_whom_the_solver_lets() {
    let mut answers = [0_u32; 3];
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let scene = Scene::exporting(ExportInfo::new().by(Arc::new(Says(None))));
        let mut solver = Solver::new(Constraints::ANY).unwrap();
        let mut all: Vec<Attached> = Vec::new();
        for step in 0..40 {
            let which = dice.below(all.len().max(1) as u64) as usize;
            match dice.below(8) {
                0..3 => {
                    let constraints = any_constraints(&mut dice);
                    let stays = dice.below(8) == 0;
                    let info = AttachInfo::new(format!("{step}")).constraints(constraints);
                    let found = scene.attach(match stays {
                        true => info,
                        false => info.dynamic(),
                    });
                    if !solver.is_used() {
                        solver.vacate();
                    }
                    // Without a way to device memory, only what has frames.
                    let framed = |kind| kind != StorageKind::DeviceMemory;
                    let expected = solver.attach(&AttachRequest {
                        name: "",
                        constraints: Constraints {
                            storage: constraints.storage.filter(framed),
                            ..constraints
                        },
                        dynamic: !stays,
                    });
                    assert!(same(&expected, &found), "{expected:?}, {found:?}");
                    answers[match &expected {
                        AttachOutcome::Fits(_) => 0,
                        AttachOutcome::MigrateFirst(_) => 1,
                        AttachOutcome::Incompatible { .. } => 2,
                    }] += 1;
                    if let (AttachOutcome::Fits(id), Ok(attached)) = (expected, found) {
                        let mapped = false;
                        all.push(Attached {
                            id,
                            attached,
                            stays,
                            mapped,
                        });
                    }
                }
                3 | 4 if which < all.len() && !all[which].mapped => {
                    let one = &mut all[which];
                    if let Ok(list) = scene.map(&one.attached) {
                        if !solver.is_used() {
                            solver.settle(storage_of(&list)).expect("all can use it");
                        }
                        solver.map(one.id);
                        one.mapped = true;
                    }
                }
                5 if which < all.len() && all[which].mapped => {
                    scene.unmap(&all[which].attached).unwrap();
                    solver.unmap(all[which].id);
                    all[which].mapped = false;
                }
                6 if which < all.len() => {
                    let one = all.swap_remove(which);
                    drop(one.attached);
                    if one.mapped {
                        solver.unmap(one.id);
                    }
                    solver.detach(one.id);
                    scene.device.reap();
                }
                7 => {
                    let kept = all.iter().any(|one| one.mapped && one.stays);
                    assert_eq!(scene.go(&vram()).is_err(), kept);
                    if !kept {
                        for one in all.iter_mut().filter(|one| one.mapped) {
                            solver.unmap(one.id);
                            one.mapped = false;
                            let told = DmaError::Revoked {
                                generation: one.attached.generation(),
                            };
                            assert_eq!(one.attached.list().unwrap_err(), told);
                        }
                    }
                }
                _ => {}
            }
            scene.check();
        }
        drop(all);
        scene.end();
    }
    assert!(answers.iter().all(|n| *n > 50), "{answers:?}");
}
