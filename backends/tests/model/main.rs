//! Random operations against a small reference.
//!
//! A list of operations is drawn from a seed and carried out twice: by the manager on the fake
//! GPU, and by a reference that knows of each object its words, its pins and whether it was
//! thrown away. After every operation: the error, if there is one, is among those that the call
//! promises; the invariants hold; no lock is left; fences never go back; the events agree with
//! what the call says that it moved (I-08) and with the order of eviction before it (I-43). At
//! the end every word is compared, the client leaves, and nothing of it may be left (I-11, I-58).
//!
//! The same clients then run beside each other: on the virtual clock in seeded orders, and on
//! the wall clock as real threads. There each compares its own objects only.
//!
//! A failure prints its seed and the shortest list of operations that still fails. To replay one
//! seed, set `MODEL_SEED`.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod ops;

use std::panic::{AssertUnwindSafe, catch_unwind};

use backends::sim::{RouteMode, SimDriver};
use ttm::sync::Mutex;
use ttm::trace::{Event, Reason};

use client::{Client, Mode};
use ops::{Op, Random, draw};
use support::{Found, Setup, World};

const STEPS: usize = 80;

/// Pages of VRAM: room for two large objects.
const VRAM: u64 = 32;

/// A device that is too small for what is asked of it, in a shape that depends on the seed.
fn setup(seed: u64) -> (Setup, SimDriver) {
    let mut random = Random::new(seed ^ 0x5e7);
    // A stop on the way needs room in TT beside the one who wants to come.
    let hop = random.below(3) == 0;
    let setup = Setup {
        vram: VRAM,
        buddy: random.below(2) == 0,
        tt: (!hop && random.below(2) == 0).then_some(24),
        system_limit: Some(48),
        swap: Some(512),
        engines: 2,
        seed,
        sees_no_caches: random.below(4) == 0,
        ..Setup::default()
    };
    let routes = match random.below(4) {
        0 => RouteMode::Cpu,
        _ => RouteMode::Engine,
    };
    let driver = SimDriver::new()
        .routes(routes)
        .hop(hop)
        .engines(ttm::driver::EngineId(0), ttm::driver::EngineId(1));
    let driver = match random.below(2) {
        0 => driver,
        _ => driver.evict_vram_by_tt(),
    };
    let found = match random.below(4) {
        0 => Found::Frames,
        1 => Found::Direct,
        2 => Found::Translated,
        _ => Found::Scarce(96),
    };
    let setup = Setup { found, ..setup };
    (setup, driver)
}

/// One client alone; the step at which it went wrong, and how.
fn run_alone(seed: u64, ops: &[Op]) -> Result<(), String> {
    let run = || {
        let (setup, driver) = setup(seed);
        let world: World = setup.build(driver);
        let mut client = Client::new(&world, 1, Mode::Alone);
        for (n, op) in ops.iter().enumerate() {
            client
                .step(op)
                .map_err(|e| format!("step {n}, {op:?}: {e}"))?;
        }
        client.leave().map_err(|e| format!("at the end: {e}"))?;
        world.assert_empty();
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(text.unwrap_or_default())
    })
}

/// Leaves out operations for as long as it still fails.
fn shrink(seed: u64, mut ops: Vec<Op>) -> (Vec<Op>, String) {
    let mut why = run_alone(seed, &ops).expect_err("it failed before");
    let mut chunk = ops.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            match run_alone(seed, &fewer) {
                Err(e) => {
                    ops = fewer;
                    why = e;
                }
                Ok(()) => at += chunk,
            }
        }
        chunk /= 2;
    }
    (ops, why)
}

fn seeds(count: u64) -> std::ops::RangeInclusive<u64> {
    match std::env::var("MODEL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => seed..=seed,
        None => 1..=count,
    }
}

fn alone(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let ops = draw(seed, STEPS);
        if run_alone(seed, &ops).is_err() {
            let (ops, why) = shrink(seed, ops);
            let lines: String = ops.iter().map(|op| format!("  {op:?}\n")).collect();
            panic!("seed {seed}: {why}\n{} operations:\n{lines}", ops.len());
        }
    }
}

#[test]
fn a_client_alone_gets_what_the_reference_says_odd_seeds() {
    alone(seeds(6000).filter(|s| s % 2 == 1));
}

#[test]
fn a_client_alone_gets_what_the_reference_says_even_seeds() {
    alone(seeds(6000).filter(|s| s % 2 == 0));
}

/// Clients of one device; each ends with its own objects compared and dropped.
fn run_together(world: &World, seed: u64, client: u64) -> Result<(), String> {
    let ops = draw(seed ^ client << 32, STEPS);
    let mut client = Client::new(world, client, Mode::Together);
    for (n, op) in ops.iter().enumerate() {
        client
            .step(op)
            .map_err(|e| format!("step {n}, {op:?}: {e}"))?;
    }
    client.leave()
}

/// What is drawn is worth drawing: every kind of thing happens.
#[test]
fn the_operations_reach_every_kind_of_event() {
    let mut seen = [0_u64; 7];
    for seed in 1..=300 {
        let (setup, driver) = setup(seed);
        let world: World = setup.build(driver);
        let mut client = Client::new(&world, 1, Mode::Alone);
        for op in draw(seed, STEPS) {
            client.step(&op).unwrap();
        }
        for record in world.device.events() {
            let kind = match record.event {
                Event::Moved {
                    why: Reason::EvictedFor(_),
                    ..
                } => 0,
                Event::Moved {
                    why: Reason::Hop, ..
                } => 1,
                Event::Discarded {
                    why: Reason::EvictedFor(_),
                    ..
                } => 2,
                Event::SwappedOut { .. } => 3,
                Event::SwappedIn { .. } => 4,
                Event::PassedOver { .. } => 5,
                Event::Waited { .. } => 6,
                _ => continue,
            };
            seen[kind] += 1;
        }
    }
    println!("evicted, hops, purged, out, in, passed over, waited: {seen:?}");
    assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
}

#[test]
fn clients_in_turns_on_the_virtual_clock_do_not_disturb_each_other() {
    for seed in seeds(400) {
        let (setup, driver) = setup(seed);
        let world = setup.build(driver);
        let clock = world.clock.as_ref().expect("virtual");
        let complaints = Mutex::new(Vec::new());
        clock.scope(|s| {
            for n in 1..=3 {
                let (world, complaints) = (&world, &complaints);
                s.spawn(&format!("client {n}"), move || {
                    if let Err(why) = run_together(world, seed, n) {
                        complaints.lock().push(format!("client {n}: {why}"));
                    }
                });
            }
        });
        let complaints = complaints.into_inner();
        assert!(complaints.is_empty(), "seed {seed}: {complaints:#?}");
        world.assert_empty();
    }
}

#[test]
fn clients_in_threads_on_the_wall_clock_do_not_disturb_each_other() {
    for seed in seeds(60) {
        let (setup, driver) = setup(seed);
        let setup = Setup {
            wall: true,
            ..setup
        };
        let world = setup.build(driver);
        let results: Vec<_> = std::thread::scope(|s| {
            let clients = [1, 2].map(|n| {
                let world = &world;
                s.spawn(move || run_together(world, seed, n))
            });
            clients.map(|c| c.join().expect("no panic")).into()
        });
        for (n, result) in results.into_iter().enumerate() {
            result.unwrap_or_else(|why| panic!("seed {seed}, client {n}: {why}"));
        }
        world.assert_empty();
    }
}
