//! Faults of the world around the manager, one test each or more; the number of the fault in the
//! project's list stands in the comment. The failing of single steps is in `fail_nth.rs`, that of
//! the swap file in `host.rs`.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use backends::sim::{RouteMode, SimDriver, VirtualClock};
use placement::{MemType, PageCount, PageRange, Place, Placement};
use ttm::bo::{Bo, BoInfo};
use ttm::clock::{Blocking, Clock, Time};
use ttm::context::{CancelToken, OpContext};
use ttm::device::Device;
use ttm::driver::{BoFacts, BoKind, Driver, Eviction, MoveFacts, Route, Side};
use ttm::error::{Class, Error};
use ttm::fence::{Fence, FenceError, Status, Timeline, Usage};
use ttm::resource::{Group, Limits};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use support::words::read_all;
use support::{Evicting, PAGE, PRIVATE, Setup, World, in_type, pages, system, tt, vram};

const SIZE: u64 = 8 * PAGE;

fn world() -> World {
    World::new(&Setup {
        vram: 16,
        ..Setup::default()
    })
}

fn virtual_clock<D: Driver>(world: &World<D>) -> &Arc<VirtualClock> {
    world.clock.as_ref().expect("virtual")
}

/// Two objects that fill VRAM, each with its image.
fn full<D: Driver<Object = ()>>(world: &World<D>) -> [Bo<D>; 2] {
    [(); 2].map(|()| {
        let bo = world.create_in(SIZE, &vram());
        world.write_image(&bo, 1, 1).unwrap();
        bo
    })
}

fn assert_images<D: Driver>(world: &World<D>, bos: &[Bo<D>]) {
    for bo in bos {
        world.assert_image(bo, 1, 1);
    }
    world.check();
}

fn add_fence<D: Driver>(world: &World<D>, bo: &Bo<D>, timeline: &Timeline, usage: Usage) -> Fence {
    let locked = world
        .device
        .exec(OpContext::new(), |t| t.lock(bo)?.reserve_fences(1))
        .unwrap();
    let fence = timeline.issue();
    locked.fence_all(&fence, usage);
    drop(locked);
    fence
}

/// F-02: a manager says that it is full although there is room: the fallback is taken; without
/// one the request is refused, and works later.
#[test]
fn f_02_a_space_that_claims_to_be_full_ends_in_the_fallback_or_a_refusal() {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).unwrap();
    world.inject.fail("ttm.take", 1, true);
    let error = world.validate(&bo, &vram()).unwrap_err();
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    world.inject.clear();
    // Both tries of VRAM; the third is TT's.
    world.inject.fail("ttm.take", 1, false);
    world
        .validate(&bo, &vram().with(Place::new(MemType::TT)))
        .unwrap();
    assert_eq!(world.place_of(&bo), Some(MemType::TT));
    world.validate(&bo, &vram()).unwrap();
    assert_images(&world, &[bo]);
}

/// F-02: real fragmentation. What has to be contiguous moves others out of the way.
#[test]
fn f_02_contiguous_space_is_made_by_eviction() {
    let world = world();
    let bos = [(); 8].map(|()| {
        let bo = world.create_in(2 * PAGE, &vram());
        world.write_image(&bo, 1, 1).unwrap();
        bo
    });
    for n in [0, 2, 4, 6] {
        world.validate(&bos[n], &system()).unwrap();
    }
    let large = world.create(4 * PAGE);
    let wish = Placement::of(Place::new(MemType::VRAM).contiguous());
    world.validate(&large, &wish).unwrap();
    let ranges = world.with(&large, |r| Ok(r.ranges())).unwrap();
    assert_eq!(ranges.len(), 1);
    assert_images(&world, &bos);
}

/// F-03: where victims go is full as well: they stay.
#[test]
fn f_03_a_victim_without_a_target_stays_where_it_is() {
    let world = Setup {
        vram: 16,
        private: Some(4),
        ..Setup::default()
    }
    .build(Evicting::new(|_| Eviction::To(in_type(PRIVATE))));
    let bos = full(&world);
    let bo = world.create(SIZE);
    let error = world.validate(&bo, &vram()).unwrap_err();
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    for bo in &bos {
        assert_eq!(world.place_of(bo), Some(MemType::VRAM));
    }
    assert_images(&world, &bos);
}

/// F-04: an engine's copy fails at its start, in its middle, or with everything written: the old
/// place stays the truth.
#[test]
fn f_04_a_failed_copy_leaves_the_old_place_as_the_truth() {
    for site in [
        "copy.submit",
        "copy.start",
        "copy.middle",
        "copy.late-error",
    ] {
        for (from, to) in [
            (system(), vram()),
            (vram(), tt()),
            (tt(), vram()),
            (vram(), system()),
        ] {
            let world = world();
            let bo = world.create_in(SIZE, &from);
            world.write_image(&bo, 1, 1).unwrap();
            world.inject.fail(site, 1, false);
            let result = world.validate(&bo, &to);
            assert_eq!(result.is_err(), site == "copy.submit", "{site}: {result:?}");
            world.settle(&bo);
            world.assert_image(&bo, 1, 1);
            assert_eq!(
                world.place_of(&bo),
                Some(from.places()[0].mem_type),
                "{site}"
            );
            world.check();
            world.validate(&bo, &to).unwrap();
            assert_images(&world, &[bo]);
        }
    }
}

/// F-05: a copy flips a bit and says nothing. No invariant of the manager can see it; the content
/// oracle does, and names the object.
#[test]
fn f_05_a_flipped_bit_is_found_by_the_content_oracle_alone() {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).unwrap();
    world.inject.fail("copy.flip-bit", 1, false);
    world.validate(&bo, &vram()).unwrap();
    world.settle(&bo);
    world.check();
    let complaint = world.expect_image(&bo, 1, 1).unwrap_err();
    assert!(
        complaint.contains(&format!("object {}", bo.id())),
        "{complaint}"
    );
}

/// F-06: a fence that never signals. Waiting ends at the deadline, or with the wait graph when
/// nothing else is left to happen; and a lost device ends it for good.
#[test]
fn f_06_a_fence_that_never_signals_ends_in_a_typed_error() {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).unwrap();
    world.inject.fail("fence.never", 1, false);
    world.validate(&bo, &vram()).unwrap();
    let until = virtual_clock(&world).now().after_nanos(1_000_000);
    let wait = |context| {
        let locked = world
            .device
            .exec(context, |t| t.lock(&bo)?.wait_idle(Usage::Kernel));
        locked.map(drop)
    };
    let error = wait(OpContext::new().until(until)).unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error}");
    let error = wait(OpContext::new()).unwrap_err();
    assert!(
        matches!(&error, Error::Stalled(graph) if !graph.is_empty()),
        "{error}"
    );
    assert!(!bo.is_locked());
    world.check();
    world.gpu.lose();
    world.device.set_lost();
    wait(OpContext::new()).unwrap();
    drop(bo);
    world.assert_empty();
}

/// F-06: a fence that signals late, or with an error.
#[test]
fn f_06_a_late_or_failed_fence_does_no_harm() {
    for site in ["fence.late", "fence.error"] {
        let world = world();
        let bo = world.create_in(SIZE, &system());
        world.write_image(&bo, 1, 1).unwrap();
        world.inject.fail(site, 1, false);
        world.validate(&bo, &vram()).unwrap();
        world.assert_image(&bo, 1, 1);
        world.validate(&bo, &vram()).unwrap();
        assert_images(&world, &[bo]);
    }
}

/// F-06: signals that come twice, out of order, or after an error change nothing (I-33, I-34).
#[test]
fn f_06_a_fence_signals_once() {
    let world = world();
    let timeline = world.gpu.timeline();
    let calls = Arc::new(AtomicU32::new(0));
    let fences = [timeline.issue(), timeline.issue(), timeline.issue()];
    for fence in &fences {
        let calls = Arc::clone(&calls);
        fence.on_signal(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
    }
    timeline.fail(2, FenceError::Failed);
    timeline.signal(1);
    timeline.signal(2);
    timeline.fail(1, FenceError::Failed);
    let status = || fences.clone().map(|f| f.status());
    let expected = [
        Status::Done,
        Status::Failed(FenceError::Failed),
        Status::Pending,
    ];
    assert_eq!(status(), expected);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    timeline.signal(3);
    timeline.signal(3);
    assert_eq!(calls.load(Ordering::Relaxed), 3, "each exactly once");
}

/// F-07: a sleeper that is woken for no reason sleeps on; a wake-up before the sleep is kept.
#[test]
fn f_07_spurious_wake_ups_are_no_success() {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    let timeline = world.gpu.timeline();
    let fence = add_fence(&world, &bo, &timeline, Usage::Write);
    let tokens: Vec<_> = (0..4).map(|_| CancelToken::new()).collect();
    let clock = virtual_clock(&world);
    clock.scope(|s| {
        s.spawn("waiter", || {
            world.with(&bo, |r| r.wait_idle(Usage::Write)).unwrap();
            assert!(fence.is_signalled());
        });
        s.spawn("noise", || {
            for token in &tokens {
                clock.sleep(100);
                token.cancel();
                timeline.signal(0);
            }
            timeline.signal(fence.seqno());
        });
    });
}

/// F-08: the n-th lock of a transaction answers that an older one goes first, for every n, and
/// more and more often: the transaction restarts and gets there.
#[test]
fn f_08_a_deadlock_at_every_lock_is_restarted() {
    let world = world();
    let bos: Vec<_> = (0..5).map(|_| world.create_in(PAGE, &system())).collect();
    for times in 1..=8 {
        for nth in 1..=5 {
            let mut rounds = 0;
            let left = AtomicU64::new(times);
            let locked = world.device.exec(OpContext::new(), |t| {
                rounds += 1;
                if left.load(Ordering::Relaxed) > 0 {
                    left.fetch_sub(1, Ordering::Relaxed);
                    world.inject.fail("ttm.lock", nth, false);
                }
                for bo in &bos {
                    t.lock(bo)?.validate(&system())?;
                }
                Ok(())
            });
            drop(locked.unwrap());
            assert_eq!(rounds, times + 1);
        }
    }
    assert!(bos.iter().all(|bo| !bo.is_locked()));
    world.check();
}

/// F-09: a storm of interruptions at random moments. Every call ends in success or `Interrupted`,
/// no lock is left, and what was interrupted works when it is tried again.
#[test]
fn f_09_a_storm_of_interruptions_leaves_no_lock_held() {
    for seed in 1..=60 {
        let world = World::new(&Setup {
            vram: 16,
            seed,
            ..Setup::default()
        });
        let clock = virtual_clock(&world);
        let bos: Vec<_> = (0..4)
            .map(|_| {
                let bo = world.create_in(SIZE, &system());
                world.write_image(&bo, 1, 1).unwrap();
                bo
            })
            .collect();
        let tokens: Vec<_> = (0..40).map(|_| CancelToken::new()).collect();
        let interrupted = AtomicU32::new(0);
        clock.scope(|s| {
            let (world, bos, tokens, interrupted) = (&world, &bos, &tokens, &interrupted);
            for client in 0..2 {
                s.spawn(&format!("client {client}"), move || {
                    for (n, token) in tokens.iter().enumerate() {
                        let bo = &bos[(n + client * 2) % 4];
                        let context = OpContext::new().cancelled_by(token);
                        let locked = world.device.exec(context, |t| {
                            let reserved = t.lock(bo)?;
                            reserved.validate(&vram())?;
                            reserved.wait_idle(Usage::Kernel)
                        });
                        match locked.map(drop) {
                            Ok(()) => {}
                            Err(Error::Interrupted) => {
                                interrupted.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => panic!("seed {seed}: {error:?}"),
                        }
                    }
                });
            }
            s.spawn("storm", move || {
                for (n, token) in tokens.iter().enumerate() {
                    clock.sleep((seed * 7919 + n as u64 * 104_729) % 30_000);
                    token.cancel();
                }
            });
        });
        assert!(bos.iter().all(|bo| !bo.is_locked()), "seed {seed}");
        assert!(
            interrupted.into_inner() > 0,
            "seed {seed}: nobody was interrupted"
        );
        world.validate(&bos[0], &vram()).unwrap();
        for bo in &bos {
            world.settle(bo);
        }
        assert_images(&world, &bos);
    }
}

/// F-10: the device is lost while moves are on their way: everything pending fails, new work is
/// refused, what is in system memory or in the backup stays readable, drops do not block.
#[test]
fn f_10_a_lost_device_keeps_what_is_in_system_memory() {
    let world = world();
    let safe = world.create_in(SIZE, &system());
    let swapped = world.create_in(SIZE, &system());
    let gone = world.create_in(SIZE, &vram());
    let leaving = world.create_in(SIZE, &system());
    for bo in [&safe, &swapped, &gone, &leaving] {
        world.write_image(bo, 1, 1).unwrap();
    }
    world.with(&swapped, |r| r.swap_out()).unwrap();
    world.validate(&leaving, &vram()).unwrap();
    world.gpu.lose();
    world.device.set_lost();
    world.device.set_lost();
    world.assert_image(&safe, 1, 1);
    world.assert_image(&swapped, 1, 1);
    // Its copy to VRAM never happened: its pages are still the truth.
    world.assert_image(&leaving, 1, 1);
    let error = world.with(&gone, |r| read_all(r, SIZE)).unwrap_err();
    assert!(
        matches!(error, Error::ContentLost | Error::DeviceLost),
        "{error}"
    );
    let error = world.validate(&safe, &vram()).unwrap_err();
    assert_eq!(error.class(), Class::Broken, "{error}");
    let losses = world.log.events();
    let losses = losses
        .iter()
        .filter(|e| matches!(e, ttm::trace::Event::DeviceLost));
    assert_eq!(losses.count(), 1, "I-67: told exactly once");
    drop([safe, swapped, gone, leaving]);
    world.assert_empty();
}

/// What a job wrote behind the copy went with the device: the old pages are not passed off for it.
#[test]
fn f_10_what_was_written_since_the_copy_is_lost_and_said_to_be() {
    for writes in [false, true] {
        let world = world();
        let bo = world.create_in(SIZE, &system());
        world.write_image(&bo, 1, 1).unwrap();
        let usage = if writes { Usage::Write } else { Usage::Read };
        world.validate(&bo, &vram()).unwrap();
        let queue = world.gpu.queue(0);
        let job = |side: &Side, after| match writes {
            true => Ok((queue.fill(side, 7, after)?, ())),
            false => Ok((queue.checksum(side, after)?.0, ())),
        };
        let (fence, ()) = world.kernel(&bo, usage, job).unwrap();
        // Both are done, and the manager has not looked.
        let clock = world.clock.as_ref().expect("virtual");
        clock.sleep(1_000_000_000);
        assert!(fence.is_signalled());
        world.gpu.lose();
        world.device.set_lost();
        match world.with(&bo, |r| read_all(r, SIZE)) {
            Ok(_) if !writes => world.assert_image(&bo, 1, 1),
            Err(Error::ContentLost) if writes => {}
            other => panic!("writes {writes}: {:?}", other.map(|bytes| bytes.len())),
        }
        drop(bo);
        world.assert_empty();
    }
}

/// F-11: the device comes back with empty memory. A new device of the manager works on it; what
/// was only in the old memory stays lost, and what was in system memory is still there.
#[test]
fn f_11_a_device_that_comes_back_is_fresh_and_old_contents_stay_lost() {
    let world = world();
    let gone = world.create_in(SIZE, &vram());
    world.write_image(&gone, 1, 1).unwrap();
    let safe = world.create_in(SIZE, &system());
    world.write_image(&safe, 1, 1).unwrap();
    world.gpu.lose();
    world.device.set_lost();
    world.gpu.restore().unwrap();
    let error = world.with(&gone, |r| read_all(r, SIZE)).unwrap_err();
    assert_eq!(error.class(), Class::Broken, "{error}");
    world.assert_image(&safe, 1, 1);
    let setup = Setup {
        vram: 16,
        ..Setup::default()
    };
    let fresh = setup.on(world.gpu.clone(), world.clock.clone(), SimDriver::new());
    let bos = full(&fresh);
    // Handles of the old device mean nothing to the new one.
    let refused = fresh
        .device
        .exec(OpContext::new(), |t| t.lock(&safe).map(drop));
    assert!(matches!(refused.map(drop), Err(Error::Invalid(_))));
    // Both take from the machine's one page source, so only contents are compared here.
    for bo in &bos {
        fresh.assert_image(bo, 1, 1);
    }
}

/// F-24: a client that panics between two steps, with a transaction open, gives back its locks,
/// its pins and its objects, and nothing of others.
#[test]
fn f_24_a_client_that_panics_leaves_nothing_behind() {
    let world = world();
    let other = world.create_in(SIZE, &vram());
    world.write_image(&other, 1, 1).unwrap();
    for step in 0..4 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let own = world.create_in(SIZE, &system());
            let reach = |n| assert!(n != step, "the client panics at step {step}");
            reach(0);
            let locked = world.device.exec(OpContext::new(), |t| {
                let own = t.lock(&own)?;
                t.lock(&other)?;
                reach(1);
                own.validate(&vram())?;
                reach(2);
                own.reserve_fences(1)
            });
            let _pin = locked.as_ref().unwrap().get(&own).unwrap().pin_guard();
            reach(3);
        }));
        assert!(panicked.is_err());
        assert!(!other.is_locked(), "step {step}");
        world.device.reap();
        assert_eq!(world.device.live_objects(), 1, "step {step}");
        world.check();
    }
    assert_images(&world, &[other]);
}

/// F-25: callbacks of fences that panic. The others run all the same, and the device works on.
#[test]
fn f_25_a_panic_in_a_fence_callback_harms_nobody() {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).unwrap();
    let timeline = world.gpu.timeline();
    let ran = Arc::new(AtomicU32::new(0));
    let fence = add_fence(&world, &bo, &timeline, Usage::Write);
    for n in 0..3 {
        let ran = Arc::clone(&ran);
        fence.on_signal(move |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            assert!(n != 1, "a callback panics");
        });
    }
    timeline.signal(fence.seqno());
    assert_eq!(
        (ran.load(Ordering::Relaxed), timeline.callback_panics()),
        (3, 1)
    );
    world.validate(&bo, &vram()).unwrap();
    assert_images(&world, &[bo]);
}

/// Panics at one of its answers, once.
struct Panicking {
    inner: SimDriver,
    at: AtomicU32,
}

impl Panicking {
    fn reach(&self, n: u32) {
        let due = self
            .at
            .compare_exchange(n, 0, Ordering::Relaxed, Ordering::Relaxed);
        assert!(due.is_err(), "the driver panics at answer {n}");
    }
}

impl Driver for Panicking {
    type Object = ();

    fn evict_to(&self, bo: &BoFacts, object: &()) -> Eviction {
        self.reach(1);
        self.inner.evict_to(bo, object)
    }

    fn worth_evicting(&self, bo: &BoFacts, object: &(), window: PageRange) -> bool {
        self.reach(2);
        self.inner.worth_evicting(bo, object, window)
    }

    fn route(&self, bo: &BoFacts, object: &(), job: &MoveFacts) -> Route {
        self.reach(3);
        self.inner.route(bo, object, job)
    }

    fn moved(&self, bo: &BoFacts, object: &(), job: &MoveFacts) {
        self.reach(4);
        self.inner.moved(bo, object, job);
    }
}

/// Copies by an engine, or by the CPU from the moment on at which that is said.
struct ByTurns {
    engine: SimDriver,
    cpu: SimDriver,
    is_cpu: AtomicU32,
}

impl Driver for ByTurns {
    type Object = ();

    fn evict_to(&self, bo: &BoFacts, object: &()) -> Eviction {
        self.engine.evict_to(bo, object)
    }

    fn route(&self, bo: &BoFacts, object: &(), job: &MoveFacts) -> Route {
        match self.is_cpu.load(Ordering::Relaxed) {
            0 => self.engine.route(bo, object, job),
            _ => self.cpu.route(bo, object, job),
        }
    }
}

/// F-04: the next move was decided while a copy was on its way that failed then. It used to go on from
/// the place that was never reached: an engine was asked to copy frames to frames, and what the CPU had
/// copied was rolled back later, together with the move that had been reported as done.
#[test]
fn f_04_a_move_after_a_failed_one_goes_on_from_where_the_content_is() {
    let ways = [
        (system(), vram(), system()),
        (system(), vram(), tt()),
        (tt(), vram(), system()),
        (vram(), system(), vram()),
        (vram(), tt(), vram()),
    ];
    for site in ["copy.start", "copy.middle", "copy.late-error"] {
        for (is_cpu, hop) in [(0, false), (1, false), (0, true)] {
            for (from, by, to) in &ways {
                let driver = ByTurns {
                    engine: SimDriver::new().hop(hop),
                    cpu: SimDriver::new().routes(RouteMode::Cpu),
                    is_cpu: AtomicU32::new(0),
                };
                let setup = Setup {
                    vram: 16,
                    ..Setup::default()
                };
                let world = setup.build(driver);
                let bo = world.create_in(SIZE, from);
                world.write_image(&bo, 1, 1).unwrap();
                world.inject.fail(site, 1, false);
                let first = world.validate(&bo, by);
                assert!(first.is_ok() || hop, "{site}: {first:?}");
                world
                    .device
                    .driver()
                    .is_cpu
                    .store(is_cpu, Ordering::Relaxed);
                world.validate(&bo, to).unwrap();
                world.settle(&bo);
                let place = Some(to.places()[0].mem_type);
                assert_eq!(world.place_of(&bo), place, "{site} {is_cpu} {hop}");
                world.assert_image(&bo, 1, 1);
                world.write_image(&bo, 1, 2).unwrap();
                world.settle(&bo);
                world.assert_image(&bo, 1, 2);
                assert_eq!(world.place_of(&bo), place, "{site} {is_cpu} {hop}");
                world.check();
                drop(bo);
                world.assert_empty();
            }
        }
    }
}

/// F-25: each answer of a driver panics, on both routes. The panic goes on to the caller; locks
/// are free, invariants hold, contents are intact, and the same call succeeds afterwards.
#[test]
fn f_25_a_panic_in_each_answer_of_the_driver_unwinds_and_the_device_works_on() {
    for routes in [RouteMode::Engine, RouteMode::Cpu] {
        for answer in 1..=4 {
            let driver = Panicking {
                inner: SimDriver::new().routes(routes).hop(true),
                at: AtomicU32::new(0),
            };
            let world = Setup {
                vram: 16,
                ..Setup::default()
            }
            .build(driver);
            let bos = full(&world);
            let bo = world.create_in(SIZE, &system());
            world.write_image(&bo, 1, 1).unwrap();
            world.device.driver().at.store(answer, Ordering::Relaxed);
            let result = catch_unwind(AssertUnwindSafe(|| world.validate(&bo, &vram())));
            assert!(result.is_err(), "{routes:?} {answer}");
            for bo in bos.iter().chain([&bo]) {
                assert!(!bo.is_locked(), "{routes:?} {answer}");
                world.settle(bo);
                world.assert_image(bo, 1, 1);
            }
            world.check();
            world.validate(&bo, &vram()).unwrap();
            assert_images(&world, &bos);
            world.assert_image(&bo, 1, 1);
            drop((bos, bo));
            world.assert_empty();
        }
    }
}

/// F-31: a limit is set below what is used. What is there stays; nothing new is granted unless
/// the group's own objects make room; and nothing is counted below zero.
#[test]
fn f_31_a_limit_below_the_usage_refuses_what_is_new() {
    let world = world();
    let group = Group::new("client", None);
    let make = || {
        world
            .device
            .create(BoInfo::new(4 * PAGE).group(&group), ())
            .unwrap()
    };
    let bos = [make(), make(), make()];
    for bo in &bos[..2] {
        world.validate(bo, &vram()).unwrap();
    }
    for max in [4, 0] {
        let limits = Limits {
            max: pages(max),
            ..Limits::default()
        };
        group.set_limits(MemType::VRAM, limits);
        assert_eq!(group.used(MemType::VRAM), pages(8));
        assert_eq!(world.place_of(&bos[0]), Some(MemType::VRAM));
    }
    let error = world.validate(&bos[2], &vram()).unwrap_err();
    assert!(matches!(error, Error::OverLimit { .. }), "{error}");
    world.check();
    drop(bos);
    world.assert_empty();
    assert!(group.used(MemType::VRAM).is_zero());
}

/// F-31: a group at its limit makes room by its own objects, whoever copies them.
#[test]
fn f_31_a_group_at_its_limit_makes_room_by_its_own_objects() {
    for routes in [RouteMode::Cpu, RouteMode::Engine] {
        let world = Setup::default().build(SimDriver::new().routes(routes));
        let group = Group::new("client", None);
        let limits = Limits {
            max: pages(8),
            ..Limits::default()
        };
        group.set_limits(MemType::VRAM, limits);
        let make = || {
            world
                .device
                .create(BoInfo::new(SIZE).group(&group), ())
                .unwrap()
        };
        let (old, new) = (make(), make());
        let foreign = world.create_in(SIZE, &vram());
        world.validate(&old, &vram()).unwrap();
        let result = world.validate(&new, &vram());
        assert!(result.is_ok(), "{routes:?}: {result:?}");
        assert_eq!(world.place_of(&old), Some(MemType::SYSTEM));
        assert_eq!(world.place_of(&foreign), Some(MemType::VRAM));
    }
}

/// F-32: system memory runs short in the middle of everything: pages of others are swapped out
/// under whatever locks the caller holds, its own objects included, and nobody waits for himself.
#[test]
fn f_32_pressure_at_any_point_takes_no_lock_that_the_caller_holds() {
    let setup = Setup {
        vram: 16,
        system_limit: Some(24),
        ..Setup::default()
    };
    let world = World::new(&setup);
    let bos: Vec<_> = (0..6)
        .map(|_| {
            let bo = world.create_in(SIZE, &system());
            world.write_image(&bo, 1, 1).unwrap();
            bo
        })
        .collect();
    for first in 0..6 {
        let locked = world.device.exec(OpContext::new(), |t| {
            for n in 0..3 {
                let reserved = t.lock(&bos[(first + n) % 6])?;
                let first_choice = if n == 0 { vram() } else { tt() };
                reserved.validate(&first_choice.with(Place::new(MemType::SYSTEM)))?;
            }
            Ok(())
        });
        drop(locked.unwrap());
        for bo in &bos {
            world.settle(bo);
        }
        world.check();
    }
    assert_images(&world, &bos);
}

/// F-33: sizes at the ends of what numbers can say. Refused or right, never wrapped (I-71).
#[test]
fn f_33_extreme_sizes_are_refused_or_right() {
    let world = world();
    let create = |bytes| world.device.create(BoInfo::new(bytes), ());
    assert!(matches!(create(0).unwrap_err(), Error::Invalid(_)));
    for (bytes, expected) in [(1, 1), (PAGE - 1, 1), (PAGE, 1), (PAGE + 1, 2)] {
        assert_eq!(create(bytes).unwrap().pages(), pages(expected));
    }
    for bytes in [
        (4 << 30) - 1,
        4 << 30,
        (4 << 30) + 1,
        1 << 40,
        1 << 62,
        1 << 63,
        u64::MAX,
    ] {
        let Ok(bo) = create(bytes) else {
            assert!(
                bytes > 1 << 63,
                "{bytes} bytes are below the greatest count"
            );
            continue;
        };
        let error = world.validate(&bo, &vram()).unwrap_err();
        assert!(matches!(error, Error::TooBig { .. }), "{bytes}: {error}");
        let system = world.validate(&bo, &system());
        if system.is_ok() {
            let error = world
                .with(&bo, |r| r.read(bytes - 1, &mut [0; 2]))
                .unwrap_err();
            assert!(matches!(error, Error::Invalid(_)));
        }
        world.check();
    }
    world.device.reap();
    assert_eq!(world.used(MemType::SYSTEM), 0);
    for align in [0, 3, (1 << 51) - 1] {
        let info = BoInfo::new(PAGE).align(pages(align));
        assert!(
            matches!(world.device.create(info, ()), Err(Error::Invalid(_))),
            "{align}"
        );
    }
    let info = BoInfo::new(PAGE).align(PageCount::new(1 << 40).unwrap());
    let bo = world.device.create(info, ()).unwrap();
    // Page 0 is aligned to everything, so whether it fits is the space's to say.
    if let Err(error) = world.validate(&bo, &vram()) {
        assert_eq!(error.class(), Class::Refuse, "{error}");
    }
    world.check();
}

/// F-33: ranges of bytes that are not inside the object, or that wrap.
#[test]
fn f_33_ranges_outside_the_object_are_refused() {
    let world = world();
    let bo = world.create_in(PAGE + 8, &system());
    let bad = [
        (PAGE + 8, 1),
        (PAGE + 7, 2),
        (u64::MAX, 1),
        (u64::MAX - 1, 8),
        (1 << 63, 8),
    ];
    for (offset, len) in bad {
        let read = world.with(&bo, |r| r.read(offset, &mut vec![0; len]));
        assert!(matches!(read, Err(Error::Invalid(_))), "{offset}+{len}");
        let write = world.with(&bo, |r| r.write(offset, &vec![0; len]));
        assert!(matches!(write, Err(Error::Invalid(_))), "{offset}+{len}");
    }
    world.with(&bo, |r| r.read(PAGE + 8, &mut [])).unwrap();
    world.with(&bo, |r| r.write(PAGE, &[1; 8])).unwrap();
    world.check();
}

/// F-34: handles of another device, and numbers of objects that are gone.
#[test]
fn f_34_foreign_and_stale_handles_are_refused() {
    let (one, two) = (world(), world());
    let (own, foreign) = (
        one.create_in(SIZE, &system()),
        two.create_in(SIZE, &system()),
    );
    let locked = one.device.exec(OpContext::new(), |t| {
        let error = t.lock(&foreign).map(drop).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        t.lock(&own).map(drop)
    });
    let locked = locked.unwrap();
    assert!(matches!(
        locked.get(&foreign).map(drop),
        Err(Error::Invalid(_))
    ));
    drop(locked);
    assert!(!foreign.is_locked());
    // A number is never given twice, so what is written about the old one is not about the new.
    let old = own.id();
    drop(own);
    one.device.reap();
    let new = one.create_in(SIZE, &system());
    assert_ne!(new.id(), old);
    assert!(!one.device.explain(old).is_empty());
    // A second handle is the same object.
    let twin = new.clone();
    assert_eq!((twin == new, new.handles()), (true, 2));
    drop(new);
    assert_eq!(one.place_of(&twin), Some(MemType::SYSTEM));
}

/// F-35: deadlines at both ends of time. Time zero has passed: nothing waits, and what need not
/// wait succeeds; the end of time never passes.
#[test]
fn f_35_deadlines_of_zero_and_of_never() {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    let timeline = world.gpu.timeline();
    let wait = |until| {
        let context = OpContext::new().until(until);
        let locked = world
            .device
            .exec(context, |t| t.lock(&bo)?.wait_idle(Usage::Write));
        locked.map(|l| l.context().waited_ns())
    };
    wait(Time::ZERO).unwrap();
    let fence = add_fence(&world, &bo, &timeline, Usage::Write);
    let clock = virtual_clock(&world);
    clock.sleep(1_000);
    assert!(matches!(wait(Time::ZERO), Err(Error::TimedOut)));
    assert!(matches!(wait(clock.now()), Err(Error::TimedOut)));
    assert_eq!(fence.status(), Status::Pending, "no early success");
    clock.scope(|s| {
        s.spawn("patient", || assert_eq!(wait(Time::NEVER).unwrap(), 500));
        s.spawn("signal", || {
            clock.sleep(500);
            timeline.signal(fence.seqno());
        });
    });
}

/// F-35: a clock that stands still, and one that runs backwards: durations are never negative,
/// and everything that is not about time works.
#[test]
fn f_35_a_clock_that_stands_still_or_runs_backwards_harms_nobody() {
    for backwards in [false, true] {
        let ticks = AtomicU64::new(1 << 40);
        let step = u64::from(backwards) * 1_000;
        let now = move || Time::from_nanos(ticks.fetch_sub(step, Ordering::Relaxed));
        let clock: Arc<dyn Clock> = Arc::new(Blocking::new(now));
        let counters = backends::sim::CountingPages::new();
        let region = ttm::fixture::Nothing::new(pages(16));
        let device = Device::builder(ttm::fixture::Counting, clock)
            .pages(Arc::new(counters))
            .memory(
                MemType::VRAM,
                Box::new(placement::Range::new(pages(16))),
                region,
            )
            .build()
            .unwrap();
        let bos = [(); 4].map(|()| device.create(BoInfo::new(SIZE), ()).unwrap());
        for bo in &bos {
            let context = OpContext::new().until(Time::from_nanos(1 << 50));
            let locked = device
                .exec(context, |t| t.lock(bo)?.validate(&vram()))
                .unwrap();
            assert_eq!(locked.context().waited_ns(), 0);
        }
        device.check().unwrap();
        drop(bos);
        device.close(Some(Time::ZERO)).unwrap();
    }
}

/// F-36: many schedules of clients that lock each other's objects in random orders, evict each
/// other, and are frozen and thawed one by one at random points.
#[test]
fn f_36_no_schedule_of_clients_deadlocks_or_breaks_an_invariant() {
    for seed in 1..=300 {
        let world = World::new(&Setup {
            vram: 16,
            seed,
            ..Setup::default()
        });
        let clock = virtual_clock(&world);
        let bos: Vec<_> = (0..6)
            .map(|_| {
                let bo = world.create_in(4 * PAGE, &system());
                world.write_image(&bo, 1, 1).unwrap();
                bo
            })
            .collect();
        clock.scope(|s| {
            for client in 0..4_u64 {
                let (world, bos) = (&world, &bos);
                s.spawn(&format!("client {client}"), move || {
                    let mut random = seed * 31 + client;
                    let mut draw = move || {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        random >> 33
                    };
                    for _ in 0..8 {
                        let picks = [draw() % 6, draw() % 6, draw() % 6];
                        let freeze = draw() % 4 * 50;
                        let locked = world.device.exec(OpContext::new(), |t| {
                            for (n, pick) in picks.iter().enumerate() {
                                if picks[..n].contains(pick) {
                                    continue;
                                }
                                t.lock(&bos[*pick as usize])?.validate(&vram())?;
                                clock.sleep(freeze);
                            }
                            Ok(())
                        });
                        drop(locked.unwrap_or_else(|e| panic!("seed {seed}: {e:?}")));
                        world
                            .device
                            .check()
                            .unwrap_or_else(|v| panic!("seed {seed}: {v}"));
                    }
                });
            }
        });
        for bo in &bos {
            world.settle(bo);
        }
        assert_images(&world, &bos);
        drop(bos);
        world.assert_empty();
    }
}

/// F-38: closing with work in flight says who holds it, at the deadline; the device works on, and
/// closes once they are gone.
#[test]
fn f_38_closing_with_work_in_flight_names_the_holders() {
    let world = world();
    let clock = virtual_clock(&world);
    let bo = world.create_in(SIZE, &vram());
    world.settle(&bo);
    let timeline = world.gpu.timeline();
    let fence = add_fence(&world, &bo, &timeline, Usage::Bookkeep);
    let deadline = || Some(clock.now().after_nanos(1_000));
    let holders = world.device.close(deadline()).unwrap_err();
    assert_eq!(holders.objects, 1);
    drop(bo);
    let before = clock.now();
    let holders = world.device.close(deadline()).unwrap_err();
    assert_eq!(holders.fence, Some((fence.timeline(), fence.seqno())));
    assert_eq!(clock.now().since(before).as_nanos(), 1_000);
    // It works on.
    let other = world.create_in(SIZE, &system());
    world.write_image(&other, 1, 1).unwrap();
    assert_images(&world, &[other]);
    clock.scope(|s| {
        s.spawn("closer", || world.device.close(None).unwrap());
        s.spawn("signal", || {
            clock.sleep(500);
            timeline.signal(fence.seqno());
        });
    });
    world.assert_empty();
}

/// Imported objects are nobody's to swap out, whatever the pressure; see F-32.
#[test]
fn f_32_pressure_spares_what_belongs_to_somebody_else() {
    let world = World::new(&Setup {
        system_limit: Some(16),
        ..Setup::default()
    });
    let info = BoInfo::new(SIZE).kind(BoKind::Imported);
    let imported = world
        .device
        .create_in(OpContext::new(), info, (), &system())
        .unwrap();
    world.write_image(&imported, 1, 1).unwrap();
    let own = world.create_in(SIZE, &system());
    world.write_image(&own, 1, 1).unwrap();
    let third = world.create_in(SIZE, &system());
    world.with(&third, |r| r.populate()).unwrap();
    assert!(world.with(&imported, |r| Ok(r.is_populated())).unwrap());
    assert_eq!(world.with(&own, |r| Ok(r.swapped())).unwrap(), pages(8));
    world.check();
}

/// I-12 over a suspend: when it has returned, the memory of the device may go. Nothing is read
/// from it any more, not even by the copies that it has begun itself.
#[test]
fn suspend_returns_only_when_device_memory_may_be_lost() {
    let world = world();
    let bos = full(&world);
    world.device.suspend(OpContext::new()).unwrap();
    let all = ttm::driver::Side::Device {
        mem_type: MemType::VRAM,
        ranges: [PageRange::new(0, 16).unwrap()].into(),
    };
    let fence = world.gpu.queue(7).fill(&all, 0xdead_beef, []).unwrap();
    fence.wait(None).unwrap();
    world.device.resume(OpContext::new()).unwrap();
    assert_images(&world, &bos);
}
