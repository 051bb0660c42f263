//! Planted defects: does anybody notice?
//!
//! Each scenario runs twice. As the manager is, every check in it passes; with one defect planted,
//! the check that is named with it has to find it. A defect is planted in the whole process, so
//! one test runs them in turn; run it alone: `--features plant --test plant -- --test-threads 1`.
#![cfg(feature = "plant")]

mod support;
#[path = "plant/windows.rs"]
mod windows;

use std::panic::{AssertUnwindSafe, catch_unwind};

use backends::sim::{Gpu, RouteMode, SimClock, SimDriver, VirtualClock};
use placement::{CacheMode, MemType, Place, Placement};
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::driver::{Driver, Side};
use ttm::error::Error;
use ttm::fence::Usage;
use ttm::plant::{Defect, set};
use ttm::sync::{Arc, Mutex};

use support::words::{compare, image, read_all, word};
use support::{PAGE, Setup, World, system, vram};

const SIZE: u64 = 8 * PAGE;

/// The complaint of a check, if one has any.
type Found = core::result::Result<(), String>;

fn check<D: Driver>(world: &World<D>) -> Found {
    world.device.check().map(drop).map_err(|v| v.to_string())
}

fn world() -> World {
    World::new(&Setup::default())
}

fn told(error: Error) -> String {
    error.to_string()
}

/// An object goes to VRAM and is read at once.
fn moved_and_read() -> Found {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).map_err(told)?;
    world.validate(&bo, &vram()).map_err(told)?;
    world.expect_image(&bo, 1, 1)?;
    check(&world)
}

/// A dropped object's kernel is still to run when the next object takes its space.
fn dropped_with_work_in_flight() -> Found {
    let mut config = Setup::default().config();
    config.queue.latency_ns = 1_000_000;
    let clock = VirtualClock::new();
    let gpu = Gpu::new(config, SimClock::Virtual(Arc::clone(&clock))).map_err(told)?;
    let world = Setup::default().on(gpu, Some(clock), SimDriver::new());
    let queue = world.gpu.queue(0);
    let old = world.create_in(256 * PAGE, &vram());
    let tag = old.id();
    let fill = |side: &Side, after| {
        let fence = queue.fill_with(side, move |n| word(tag, 2, n, 1), after)?;
        Ok((fence, ()))
    };
    drop(world.kernel(&old, Usage::Write, fill).map_err(told)?);
    drop(old);
    let new = world.create_in(256 * PAGE, &vram());
    world.write_image(&new, 1, 1).map_err(told)?;
    world.clock.as_ref().expect("virtual").sleep(10_000_000);
    world.expect_image(&new, 1, 1)?;
    check(&world)
}

/// One object evicts another.
fn evicted() -> Found {
    let world = world();
    let old = world.create_in(256 * PAGE, &vram());
    let new = world.create_in(SIZE, &vram());
    check(&world)?;
    drop((old, new));
    Ok(())
}

/// An object comes and goes.
fn came_and_went() -> Found {
    let world = world();
    drop(world.create_in(SIZE, &vram()));
    world.device.close(None).map_err(|h| format!("{h:?}"))?;
    check(&world)
}

/// One object's frames become another's.
fn frames_changed_hands() -> Found {
    let world = world();
    for _ in 0..4 {
        let old = world.create_in(SIZE, &system());
        world.write_image(&old, 1, 1).map_err(told)?;
        drop(old);
        world.device.reap();
        let new = world.create_in(SIZE, &system());
        world.with(&new, |r| r.populate()).map_err(told)?;
        let found = world.with(&new, |r| read_all(r, SIZE)).map_err(told)?;
        compare(new.id(), &vec![0; found.len()], &found).map_err(|e| e.replace("I-12", "I-14"))?;
    }
    check(&world)
}

/// The CPU carries an object to VRAM and back.
fn carried_by_the_cpu() -> Found {
    let world = Setup::default().build(SimDriver::new().routes(RouteMode::Cpu));
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).map_err(told)?;
    world.validate(&bo, &vram()).map_err(told)?;
    world.expect_image(&bo, 1, 1)?;
    world.validate(&bo, &system()).map_err(told)?;
    world.expect_image(&bo, 1, 1)?;
    check(&world)
}

/// Two transactions want the same two objects in opposite orders.
fn opposite_orders() -> Found {
    let world = world();
    let objects = [
        world.create_in(SIZE, &system()),
        world.create_in(SIZE, &system()),
    ];
    let clock = world.clock.as_ref().expect("virtual");
    let complaints = Mutex::new(Vec::new());
    let both = |first: &Bo<SimDriver>, second: &Bo<SimDriver>| {
        let locked = world.device.exec(OpContext::new(), |t| {
            t.lock(first)?;
            clock.sleep(100);
            t.lock(second)?;
            Ok(())
        });
        if let Err(error) = locked.map(drop) {
            complaints.lock().push(error.to_string());
        }
    };
    clock.scope(|s| {
        s.spawn("forwards", || both(&objects[0], &objects[1]));
        s.spawn("backwards", || both(&objects[1], &objects[0]));
    });
    match complaints.into_inner().pop() {
        Some(complaint) => Err(complaint),
        None => check(&world),
    }
}

/// The CPU writes, a device that does not see its caches carries it to VRAM and back.
fn carried_by_a_device_without_snooping() -> Found {
    let world = World::new(&Setup::default().not_snooping());
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).map_err(told)?;
    world.validate(&bo, &vram()).map_err(told)?;
    world.validate(&bo, &system()).map_err(told)?;
    world.expect_image(&bo, 1, 1)?;
    check(&world)
}

/// Frames in another mode come back to the pool.
fn switched_and_pooled() -> Found {
    let world = world();
    let combined = Place::new(MemType::TT).cached(CacheMode::WriteCombined);
    let bo = world.create_in(SIZE, &Placement::of(combined));
    drop(bo);
    world.device.reap();
    check(&world)
}

/// A bit is flipped in the backup.
fn flipped_in_the_backup() -> Found {
    let world = world();
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).map_err(told)?;
    world.with(&bo, |r| r.swap_out()).map_err(told)?;
    world.inject.fail("backup.flip", 1, false);
    match world.with(&bo, |r| r.populate()) {
        Ok(()) => world.expect_image(&bo, 1, 1)?,
        Err(Error::Corrupt(_)) => {}
        Err(error) => return Err(told(error)),
    }
    check(&world)
}

/// A kernel is still to run on what the device finds in SYSTEM.
fn handed_out_and_reaped() -> Found {
    let setup = Setup {
        found: support::Found::Translated,
        ..Setup::default()
    };
    let world = World::new(&setup);
    let bo = world.create_in(SIZE, &system());
    world.write_image(&bo, 1, 1).map_err(told)?;
    world.settle(&bo);
    let tag = bo.id();
    let fill = |side: &Side, after| {
        let queue = world.gpu.queue(0);
        let fence = queue.fill_with(side, move |n| word(tag, 1, n, 2), after)?;
        Ok((fence, ()))
    };
    drop(world.kernel(&bo, Usage::Write, fill).map_err(told)?);
    world.device.reap();
    world.expect_image(&bo, 1, 2)?;
    check(&world)
}

/// An object that the device finds comes and goes.
fn found_and_dropped() -> Found {
    let setup = Setup {
        found: support::Found::Translated,
        ..Setup::default()
    };
    let world = World::new(&setup);
    drop(world.create_in(SIZE, &support::tt()));
    world.device.reap();
    world.assert_empty();
    Ok(())
}

/// A defect, a scenario in which it does harm, and a word of the complaint that finds it.
type Case = (Defect, fn() -> Found, &'static str);

/// A panic is a check that has found something too.
fn run(scenario: fn() -> Found) -> Found {
    catch_unwind(AssertUnwindSafe(scenario)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(text.unwrap_or_default())
    })
}

#[test]
fn every_planted_defect_is_found_and_nothing_is_found_without_one() {
    let cases: [Case; 14] = [
        (Defect::DroppedFence, moved_and_read, "I-12"),
        (
            Defect::EarlyReuse,
            dropped_with_work_in_flight,
            "foreign word",
        ),
        (Defect::StaleResource, evicted, "I-05"),
        (Defect::LostUncharge, came_and_went, "I-03"),
        (Defect::SkippedZeroing, frames_changed_hands, "I-14"),
        (Defect::OffByOneExtent, carried_by_the_cpu, "I-12"),
        (
            Defect::NoBackOff,
            opposite_orders,
            "nothing can wake this thread",
        ),
        (
            Defect::SkippedFlush,
            carried_by_a_device_without_snooping,
            "I-12",
        ),
        (Defect::UntoldMode, switched_and_pooled, "I-23"),
        (Defect::UnverifiedLoad, flipped_in_the_backup, "I-12"),
        (Defect::NoRevoke, windows::left_from_under_a_window, "I-20"),
        (
            Defect::NoDirtyRecopy,
            windows::written_while_it_was_copied,
            "I-15",
        ),
        (Defect::EarlyUnmap, handed_out_and_reaped, "I-12"),
        (Defect::NoUnmap, found_and_dropped, "I-50"),
    ];
    for (defect, scenario, finder) in cases {
        if !windows::can_harm(defect) {
            println!("skipped: {defect:?}: nothing here lets it do harm");
            continue;
        }
        set(Defect::None);
        assert_eq!(run(scenario), Ok(()), "found without {defect:?}");
        set(defect);
        let found = run(scenario);
        set(Defect::None);
        let text = found.expect_err(&format!("nobody found {defect:?}"));
        assert!(
            text.contains(finder),
            "{defect:?} was found otherwise: {text}"
        );
        println!("{defect:?}: {}", text.lines().next().unwrap_or_default());
    }
}

/// The oracle itself: what it says of data that is stale, foreign, or never written.
#[test]
fn the_oracle_names_what_it_finds() {
    let good = image(7, 1, 5, 64);
    let says = |found: &[u8]| compare(7, &good, found).unwrap_err();
    assert_eq!(compare(7, &good, &good), Ok(()));
    assert!(says(&image(7, 1, 4, 64)).contains("stale"));
    assert!(says(&image(8, 1, 5, 64)).contains("foreign"));
    assert!(says(&[0; 64]).contains("zero"));
}
