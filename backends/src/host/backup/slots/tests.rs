use super::*;

fn random(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn a_run_always_finds_a_place_however_the_free_slots_lie() {
    // Runs of half a chunk and a little more, with every other one given back, leave no room for
    // the next size in any chunk.
    for runs in [1, 2, 7, 64] {
        let mut slots = Slots::new();
        slots.prepare(runs).unwrap();
        let mut held = Vec::new();
        for round in 0..20 {
            let pages = 1 + (round * 97) % CHUNK;
            while held.len() < runs {
                held.push(slots.take(pages).expect("prepared").0);
            }
            let mut n = 0;
            held.retain(|run| {
                n += 1;
                if n % 2 == 0 {
                    slots.free(*run);
                }
                n % 2 == 1
            });
            slots.check().unwrap();
        }
    }
}

#[test]
fn slots_without_blocks_are_taken_only_when_none_with_blocks_fit() {
    let mut slots = Slots::new();
    slots.prepare(4).unwrap();
    let (a, on_disk) = slots.take(512).unwrap();
    assert!(!on_disk);
    let (b, _) = slots.take(100).unwrap();
    slots.retire(a);
    slots.punched(a);
    slots.free(b);
    assert_eq!(slots.take(100).unwrap(), (b, true));
    assert_eq!(
        slots.take(100).unwrap().0.first,
        0,
        "the lowest, without blocks"
    );
    slots.check().unwrap();
}

#[test]
fn random_runs_never_share_a_slot() {
    for seed in 1..40 {
        let mut state = seed;
        let mut slots = Slots::new();
        let mut held: Vec<(Run, bool)> = Vec::new();
        let mut owner = vec![false; 64 * BITS];
        slots.prepare(60).unwrap();
        for _ in 0..600 {
            let pages = match random(&mut state) % 3 {
                0 => 1,
                1 => 1 + random(&mut state) % 40,
                _ => 1 + random(&mut state) % CHUNK,
            };
            let pick = random(&mut state) as usize;
            match random(&mut state) % 8 {
                0..=3 if held.len() < 60 => {
                    let (run, _) = slots.take(pages).unwrap();
                    assert_eq!(run.pages, pages, "seed {seed}");
                    for slot in run.first..run.first + pages {
                        assert!(!core::mem::replace(&mut owner[slot as usize], true));
                    }
                    assert!(slots.is_run(run) && !slots.is_written(run), "seed {seed}");
                    held.push((run, false));
                }
                4 if !held.is_empty() => {
                    let n = pick % held.len();
                    slots.wrote(held[n].0);
                    held[n].1 = true;
                }
                5..=6 if !held.is_empty() => {
                    let (run, written) = held.swap_remove(pick % held.len());
                    assert_eq!(slots.is_written(run), written, "seed {seed}");
                    let shifted = Run {
                        first: run.first + 1,
                        ..run
                    };
                    let is_held = held.iter().any(|(other, _)| *other == shifted);
                    assert_eq!(slots.is_run(shifted), is_held, "seed {seed}");
                    match pick % 2 {
                        0 => slots.free(run),
                        _ => {
                            slots.retire(run);
                            slots.punched(run);
                        }
                    }
                    owner[run.first as usize..(run.first + run.pages) as usize].fill(false);
                }
                7 => {
                    if let Some(run) = slots.retire_kept(pages) {
                        assert!(run.pages <= pages, "seed {seed}");
                        slots.check().unwrap();
                        slots.punched(run);
                    }
                }
                _ => {}
            }
            slots.check().unwrap();
            let used = held.iter().map(|(run, _)| run.pages).sum::<u64>();
            assert_eq!(slots.used(), used, "seed {seed}");
        }
    }
}
