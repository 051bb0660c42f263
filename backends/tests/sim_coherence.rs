//! The manager on a device that does not snoop the CPU's caches: every byte is right on both sides,
//! whatever moves where, because the manager maintains the caches; and as soon as one kind of
//! maintenance is silently left out, wrong bytes really show. `sim_cache` has the laws of the model
//! itself.

mod support;

use backends::sim::{CacheModel, Gpu, GpuConfig, SimClock, SimDriver, SimMemory, VirtualClock};
use placement::{CacheMode, MemType, Place, Placement};
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::driver::Side;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Status, Usage};

use support::{PAGE, Setup, World, pages, system, tt, vram};

const WORDS: u64 = PAGE / 8;

type Object = Bo<SimDriver>;

fn world_of(model: CacheModel, setup: &Setup) -> World {
    let clock = (!setup.wall).then(|| VirtualClock::seeded(setup.seed));
    let config = GpuConfig {
        memory: SimMemory::new(pages(2048)).cache(model),
        ..setup.config()
    };
    let time = clock.clone().map_or(SimClock::Wall, SimClock::Virtual);
    let gpu = Gpu::new(config, time).unwrap();
    setup.on(gpu, clock, SimDriver::new())
}

fn world() -> World {
    world_of(CacheModel::still(), &Setup::default())
}

fn in_mode(mode: CacheMode) -> Placement {
    Placement::of(Place::new(MemType::TT).cached(mode))
}

/// Runs a kernel on the object where it is, and waits for it.
fn run<R>(
    world: &World,
    bo: &Object,
    usage: Usage,
    kernel: impl FnOnce(&Side, Vec<Fence>) -> Result<(Fence, R)>,
) -> R {
    let (fence, value) = world.kernel(bo, usage, kernel).unwrap();
    assert_eq!(fence.wait(None).unwrap(), Status::Done);
    value
}

fn device_fills(world: &World, bo: &Object, base: u64) {
    run(world, bo, Usage::Write, |side, after| {
        let fence = world
            .gpu
            .queue(0)
            .fill_with(side, move |n| base ^ n, after)?;
        Ok((fence, ()))
    });
}

/// Whether the device finds `words` in the object.
fn device_sees(world: &World, bo: &Object, words: &[u64]) -> bool {
    let sum = run(world, bo, Usage::Read, |side, after| {
        world.gpu.queue(1).checksum(side, after)
    });
    sum.get().unwrap() == backends::sim::checksum_words(words.iter().copied())
}

fn filled(base: u64, pages: u64) -> Vec<u64> {
    (0..pages * WORDS).map(|n| base ^ n).collect()
}

fn cpu_writes(world: &World, bo: &Object, first: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    world.with(bo, |r| r.write(first * 8, &bytes)).unwrap();
}

fn cpu_reads(world: &World, bo: &Object) -> Vec<u64> {
    let mut bytes = vec![0; bo.bytes() as usize];
    world.with(bo, |r| r.read(0, &mut bytes)).unwrap();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks(8).map(word).collect()
}

/// The manager lost nothing, and no device looked past a dirty line.
fn assert_coherent(world: &World) {
    let counts = world.gpu.cache_counts();
    assert_eq!((counts.lost, counts.unseen), (0, 0), "{counts:?}");
    world.check();
}

#[test]
fn what_the_cpu_writes_the_device_reads_and_the_other_way_round() {
    let world = world();
    let bo = world.create_in(3 * PAGE, &tt());
    for round in 1..5 {
        cpu_writes(&world, &bo, 0, &filled(round << 32, 3));
        assert!(device_sees(&world, &bo, &filled(round << 32, 3)));
        device_fills(&world, &bo, round << 40);
        assert_eq!(cpu_reads(&world, &bo), filled(round << 40, 3));
    }
    let counts = world.gpu.cache_counts();
    assert!(counts.cleaned > 0 && counts.invalidated > 0, "{counts:?}");
    assert!(world.device.pool().ledger().flushes > 0);
    assert_coherent(&world);
}

#[test]
fn a_missing_clean_shows_the_device_old_bytes() {
    let world = world();
    let bo = world.create_in(2 * PAGE, &tt());
    cpu_writes(&world, &bo, 0, &filled(1 << 32, 2));
    world.inject.fail("cache.skip-clean", 1, true);
    cpu_writes(&world, &bo, 0, &filled(2 << 32, 2));
    assert!(
        device_sees(&world, &bo, &filled(1 << 32, 2)),
        "the old bytes"
    );
    assert!(world.gpu.cache_counts().unseen > 0);
    world.inject.clear();
    cpu_writes(&world, &bo, 0, &filled(3 << 32, 2));
    assert!(device_sees(&world, &bo, &filled(3 << 32, 2)));
}

#[test]
fn a_missing_invalidation_shows_the_cpu_old_bytes() {
    let world = world();
    let bo = world.create_in(2 * PAGE, &tt());
    cpu_writes(&world, &bo, 0, &filled(1 << 32, 2));
    device_fills(&world, &bo, 2 << 32);
    world.inject.fail("cache.skip-invalidate", 1, true);
    assert_eq!(cpu_reads(&world, &bo), filled(1 << 32, 2), "the old bytes");
    world.inject.clear();
    assert_eq!(cpu_reads(&world, &bo), filled(2 << 32, 2));
}

#[test]
fn a_second_mode_is_refused_while_somebody_looks() {
    let world = world();
    let bo = world.create_in(2 * PAGE, &tt());
    cpu_writes(&world, &bo, 0, &filled(1 << 32, 2));
    let span = world.with(&bo, |r| match r.side()? {
        Side::Frames(spans) => Ok(spans[0]),
        other => panic!("{other:?}"),
    });
    let pool = world.device.pool();
    let window = pool.kmap(span.unwrap()).unwrap();
    for mode in [CacheMode::WriteCombined, CacheMode::Uncached] {
        let refused = world.validate(&bo, &in_mode(mode));
        assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    }
    assert_eq!(pool.ledger().refused, 2);
    drop(window);
    assert!(device_sees(&world, &bo, &filled(1 << 32, 2)));
    world.validate(&bo, &in_mode(CacheMode::Uncached)).unwrap();
    assert!(device_sees(&world, &bo, &filled(1 << 32, 2)));
    assert_coherent(&world);
}

#[test]
fn content_goes_through_every_change_of_mode() {
    use CacheMode::{Cached, Uncached, WriteCombined};
    for snooped in [false, true] {
        let mut model = CacheModel::still();
        model.snoops = snooped;
        let world = world_of(model, &Setup::default());
        let bo = world.create_in(3 * PAGE, &in_mode(WriteCombined));
        let modes = [
            WriteCombined,
            Cached,
            Uncached,
            WriteCombined,
            Uncached,
            Cached,
            WriteCombined,
        ];
        let mut base = 0;
        for mode in modes {
            let before = world.device.pool().ledger();
            world.validate(&bo, &in_mode(mode)).unwrap();
            let after = world.device.pool().ledger();
            if base > 0 {
                assert!(after.switches > before.switches, "{mode}: {after:?}");
                assert!(
                    device_sees(&world, &bo, &filled(base, 3)),
                    "{mode}, {snooped}"
                );
            }
            base += 1 << 32;
            device_fills(&world, &bo, base);
            assert_eq!(cpu_reads(&world, &bo), filled(base, 3), "{mode}, {snooped}");
            base += 1 << 32;
            cpu_writes(&world, &bo, 0, &filled(base, 3));
            assert!(
                device_sees(&world, &bo, &filled(base, 3)),
                "{mode}, {snooped}"
            );
        }
        assert_coherent(&world);
        drop(bo);
        world.assert_empty();
    }
}

#[test]
fn a_change_of_mode_from_cached_is_flushed_and_counted() {
    let world = world();
    let bo = world.create_in(3 * PAGE, &tt());
    cpu_writes(&world, &bo, 0, &filled(1 << 32, 3));
    let before = world.device.pool().ledger();
    world
        .validate(&bo, &in_mode(CacheMode::WriteCombined))
        .unwrap();
    let after = world.device.pool().ledger();
    assert_eq!(after.switched_bytes - before.switched_bytes, 3 * PAGE);
    assert_eq!(after.flushed_bytes - before.flushed_bytes, 3 * PAGE);
    assert!(device_sees(&world, &bo, &filled(1 << 32, 3)));
}

/// I-30 on one page, which goes by way of the magazines, and on a run, which does not; in every
/// mode. Without the cleaning the device sees what the last owner had.
#[test]
fn frames_that_cannot_have_their_mode_are_not_kept_and_no_content_is_lost() {
    let world = World::new(&Setup::default().not_snooping());
    for site in ["pages.switch", "ttm.cache-switch"] {
        let bo = world.create(1100 * PAGE);
        let place = Place::new(MemType::SYSTEM).cached(CacheMode::WriteCombined);
        let place = Placement::of(place);
        let refused = |nth| {
            world.device.pool().shrink();
            world.inject.fail(site, nth, false);
            let error = world
                .with(&bo, |r| r.validate(&place).and_then(|_| r.populate()))
                .unwrap_err();
            assert!(matches!(error, Error::Backend(_)), "{site}: {error}");
            world.check();
            world.inject.clear();
        };
        // Untouched pages, switched together; then content that comes back run by run.
        refused(1);
        world.validate(&bo, &place).unwrap();
        world.write_image(&bo, 1, 1).unwrap();
        for nth in 1..=3 {
            world.with(&bo, |r| r.swap_out()).unwrap();
            refused(nth);
        }
        world.assert_image(&bo, 1, 1);
        world.check();
    }
}

#[test]
fn zeroes_of_recycled_frames_are_visible_to_the_device() {
    let modes = [
        CacheMode::Cached,
        CacheMode::WriteCombined,
        CacheMode::Uncached,
    ];
    for (size, mode) in [1, 3].into_iter().flat_map(|n| modes.map(|m| (n, m))) {
        for skipped in [false, true] {
            let world = world();
            let zeroes = vec![0; (size * WORDS) as usize];
            // So many that no zeroed frame is left beside them.
            let old: Vec<_> = (0..64)
                .map(|_| world.create_in(size * PAGE, &in_mode(mode)))
                .collect();
            old.iter().for_each(|bo| device_fills(&world, bo, 7 << 32));
            drop(old);
            world.device.reap();
            if skipped {
                world.inject.fail("cache.skip-clean", 1, true);
            }
            let before = world.device.pool().counts().zeroed_at_once;
            let new = world.create_in(size * PAGE, &in_mode(mode));
            let counts = world.device.pool().counts();
            assert_eq!(
                counts.zeroed_at_once - before,
                size,
                "the frames are recycled"
            );
            let shown = device_sees(&world, &new, &zeroes);
            // Uncached zeroes need no cleaning.
            let right = !skipped || mode == CacheMode::Uncached;
            assert_eq!(shown, right, "{size} pages, {mode}, skipped: {skipped}");
            if !skipped {
                assert_coherent(&world);
            }
        }
    }
}

/// Objects of one client, which go everywhere while others want the same space.
fn client(world: &World, number: u64) {
    let objects: Vec<_> = (0..2).map(|_| world.create(9 * PAGE)).collect();
    let places = [
        vram(),
        in_mode(CacheMode::WriteCombined),
        system(),
        in_mode(CacheMode::Uncached),
        vram(),
        in_mode(CacheMode::Cached),
    ];
    for (round, place) in (1..).zip(places.iter().cycle().take(18)) {
        for (n, bo) in (0..).zip(&objects) {
            let base = number << 56 | n << 48 | round << 32;
            cpu_writes(world, bo, 0, &filled(base, 9));
            world.validate(bo, place).unwrap();
            assert!(device_sees(world, bo, &filled(base, 9)), "{number}");
            device_fills(world, bo, !base);
        }
        for (n, bo) in (0..).zip(&objects) {
            let base = number << 56 | n << 48 | round << 32;
            assert!(cpu_reads(world, bo) == filled(!base, 9), "{number}");
        }
    }
}

#[test]
fn clients_beside_each_other_find_their_bytes() {
    let setup = Setup {
        vram: 24,
        system_limit: Some(80),
        ..Setup::default()
    };
    for seed in 1..10 {
        let world = world_of(
            CacheModel::seeded(seed),
            &Setup {
                seed,
                ..setup.clone()
            },
        );
        let clock = world.clock.as_ref().unwrap();
        clock.scope(|s| {
            for number in 1..5 {
                let world = &world;
                s.spawn("client", move || client(world, number));
            }
        });
        assert_coherent(&world);
        world.assert_empty();
    }
    let world = world_of(
        CacheModel::seeded(1),
        &Setup {
            wall: true,
            ..setup
        },
    );
    std::thread::scope(|s| {
        for number in 1..5 {
            let world = &world;
            s.spawn(move || client(world, number));
        }
    });
    assert_coherent(&world);
}

/// A device whose memory is too small, a CPU that sees a part of it, and everything that moves.
mod programs {
    use super::*;

    const OBJECTS: usize = 6;

    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An object and the words that it should have.
    struct Shadowed {
        bo: Object,
        words: Vec<u64>,
    }

    pub(super) struct Program {
        pub(super) world: World,
        state: u64,
        objects: Vec<Shadowed>,
    }

    impl Program {
        pub(super) fn new(seed: u64) -> Self {
            let setup = Setup {
                vram: 24,
                aperture: Some(if seed.is_multiple_of(2) { 24 } else { 0 }),
                system_limit: Some(48),
                swap: Some(256),
                seed,
                ..Setup::default()
            };
            let mut model = CacheModel::seeded(seed);
            model.snoops = seed.is_multiple_of(5);
            let mut program = Self {
                world: world_of(model, &setup),
                state: seed,
                objects: Vec::new(),
            };
            for _ in 0..OBJECTS {
                let object = program.fresh();
                program.objects.push(object);
            }
            program
        }

        fn below(&mut self, end: u64) -> u64 {
            random(&mut self.state) % end
        }

        fn fresh(&mut self) -> Shadowed {
            let pages = 1 + self.below(10);
            Shadowed {
                bo: self.world.create(pages * PAGE),
                words: vec![0; (pages * WORDS) as usize],
            }
        }

        fn placement(&mut self) -> Placement {
            match self.below(6) {
                0 | 1 => vram(),
                2 => system(),
                3 => in_mode(CacheMode::Cached),
                4 => in_mode(CacheMode::WriteCombined),
                _ => in_mode(CacheMode::Uncached),
            }
        }

        /// One operation on one object, and a look at another.
        pub(super) fn step(&mut self) {
            let n = self.below(OBJECTS as u64) as usize;
            match self.below(10) {
                0 => {
                    self.objects[n] = self.fresh();
                    if self.below(2) == 0 {
                        self.world.device.reap();
                    }
                }
                1 | 2 => {
                    let placement = self.placement();
                    let bo = &self.objects[n].bo;
                    self.world.validate(bo, &placement).unwrap();
                }
                3 => {
                    let base = random(&mut self.state);
                    let object = &mut self.objects[n];
                    device_fills(&self.world, &object.bo, base);
                    let words = (0..).zip(&mut object.words);
                    words.for_each(|(n, word)| *word = base ^ n);
                }
                4 | 5 => self.write_somewhere(n),
                6 => {
                    let device = &self.world.device;
                    device.evict_all(MemType::VRAM, OpContext::new()).unwrap();
                }
                7 => {
                    let swapped = self.world.with(&self.objects[n].bo, |r| r.swap_out());
                    let fine = matches!(swapped, Ok(()) | Err(Error::Invalid(_)));
                    assert!(fine, "{swapped:?}");
                }
                8 => self.world.gpu.memory().unwrap().tick(),
                _ => {
                    self.world.device.pool().shrink();
                }
            }
            let other = self.below(OBJECTS as u64) as usize;
            self.compare(other);
        }

        fn write_somewhere(&mut self, n: usize) {
            let len = self.objects[n].words.len() as u64;
            let first = self.below(len);
            let count = 1 + self.below((len - first).min(700));
            let words: Vec<u64> = (0..count).map(|_| random(&mut self.state)).collect();
            self.bring_into_reach(n);
            let object = &mut self.objects[n];
            cpu_writes(&self.world, &object.bo, first, &words);
            object.words[first as usize..][..words.len()].copy_from_slice(&words);
        }

        /// What the CPU does not see goes to system memory.
        fn bring_into_reach(&self, n: usize) {
            let bo = &self.objects[n].bo;
            let hidden = self.world.gpu.config().aperture.is_zero();
            if hidden && self.world.place_of(bo) == Some(MemType::VRAM) {
                self.world.validate(bo, &tt()).unwrap();
            }
        }

        fn compare(&mut self, n: usize) {
            if self.below(2) == 0 {
                let object = &self.objects[n];
                assert!(
                    device_sees(&self.world, &object.bo, &object.words),
                    "the device finds other words in object {n}"
                );
            } else {
                self.bring_into_reach(n);
                let object = &self.objects[n];
                assert!(
                    cpu_reads(&self.world, &object.bo) == object.words,
                    "the CPU finds other words in object {n}"
                );
            }
        }

        pub(super) fn end(mut self) {
            for n in 0..OBJECTS {
                self.compare(n);
            }
            assert_coherent(&self.world);
            self.objects.clear();
            self.world.assert_empty();
        }
    }
}

/// F-26.
#[test]
fn random_programs_find_every_byte_on_both_sides() {
    let (mut switches, mut moved_alone) = (0, 0);
    for seed in 0..60 {
        println!("seed {seed}");
        let mut program = programs::Program::new(seed);
        for _ in 0..60 {
            program.step();
        }
        switches += program.world.device.pool().ledger().switches;
        let counts = program.world.gpu.cache_counts();
        moved_alone += counts.written_back;
        program.end();
    }
    assert!(
        switches > 100 && moved_alone > 100,
        "{switches} {moved_alone}"
    );
}

/// The same programs find it out if one kind of maintenance is left out.
#[test]
fn random_programs_notice_when_maintenance_is_left_out() {
    for site in ["cache.skip-clean", "cache.skip-invalidate"] {
        let noticed = (1..5).any(|seed| {
            let ran = std::panic::catch_unwind(|| {
                let mut program = programs::Program::new(seed);
                program.world.inject.fail(site, 1, true);
                (0..60).for_each(|_| program.step());
            });
            ran.is_err()
        });
        assert!(noticed, "{site} is left out and every byte is right");
    }
}
