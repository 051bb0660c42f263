//! `ttm_bo_test`: reservations, lists, pins, the end of an object.
//!
//! Wherever the kernel passes a ticket, here there is a transaction: every lock is taken by one.

use placement::MemType;
use ttm::bo::{Bo, BoInfo, SharedReservation};
use ttm::context::{CancelToken, OpContext};
use ttm::error::Error;
use ttm::fence::Usage;
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU32, Ordering};

use backends::sim::{SimDriver, VirtualClock};

use crate::mock;
use crate::support::{PAGE, World, system, vram};

const SIZE: u64 = 4 * PAGE;

fn clock(world: &World) -> &Arc<VirtualClock> {
    world.clock.as_ref().unwrap()
}

/// Takes the object's lock and keeps it for `ns` nanoseconds.
fn hold(world: &World, bo: &Bo<SimDriver>, ns: u64) {
    let locked = world
        .device
        .exec(OpContext::new(), |t| t.lock(bo).map(drop))
        .unwrap();
    clock(world).sleep(ns);
    drop(locked);
}

fn lock(world: &World, context: OpContext, bo: &Bo<SimDriver>) -> Result<(), Error> {
    world
        .device
        .exec(context, |t| t.lock(bo).map(drop))
        .map(drop)
}

/// A free object is locked at once by whoever asks: uninterruptible and willing to wait,
/// unwilling to wait, interruptible.
#[test]
fn bo_reserve_optimistic_no_ticket() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    let contexts = [
        OpContext::new(),
        OpContext::new().without_waiting(),
        OpContext::new().cancelled_by(&CancelToken::new()),
    ];
    for context in contexts {
        let locked = world
            .device
            .exec(context, |t| t.lock(&bo).map(drop))
            .unwrap();
        assert!(bo.is_locked());
        drop(locked);
        assert!(!bo.is_locked());
    }
}

/// A locked object and a caller that does not wait: `EBUSY`.
#[test]
fn bo_reserve_locked_no_sleep() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    clock(&world).scope(|s| {
        s.spawn("holder", || hold(&world, &bo, 1_000));
        s.spawn("hasty", || {
            clock(&world).sleep(10);
            let error = lock(&world, OpContext::new().without_waiting(), &bo).unwrap_err();
            assert!(matches!(error, Error::Busy));
            assert_eq!(error.to_errno(), 16);
        });
    });
    assert!(!bo.is_locked());
}

/// The kernel calls a try-lock with a ticket a bug and answers `EBUSY`, also for a free object.
/// Here every lock has a ticket, so trying with one is meant: a free object is taken, and one
/// that another holds is `EBUSY`, with what this transaction holds still held.
#[test]
fn bo_reserve_no_wait_ticket() {
    let world = mock();
    let free = world.create_in(SIZE, &system());
    let taken = world.create_in(SIZE, &system());
    clock(&world).scope(|s| {
        s.spawn("holder", || hold(&world, &taken, 1_000));
        s.spawn("hasty", || {
            clock(&world).sleep(10);
            let context = OpContext::new().without_waiting();
            let locked = world.device.exec(context, |t| {
                t.lock(&free)?;
                let second = t.lock(&taken).map(drop);
                assert!(matches!(second, Err(Error::Busy)), "{second:?}");
                Ok(())
            });
            assert!(free.is_locked());
            drop(locked);
        });
    });
}

/// The same object twice in one transaction: `EALREADY`, and no hang.
#[test]
fn bo_reserve_double_resv() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    let locked = world
        .device
        .exec(OpContext::new(), |t| {
            t.lock(&bo)?;
            let again = t.lock(&bo).map(drop).unwrap_err();
            assert!(matches!(again, Error::AlreadyLocked));
            assert_eq!(again.to_errno(), 114);
            Ok(())
        })
        .unwrap();
    assert!(bo.is_locked());
    drop(locked);
    assert!(!bo.is_locked());
}

/// Who waits interruptibly and is interrupted gets `ERESTARTSYS`. The signal is a cancel token.
#[test]
fn bo_reserve_interrupted() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    let token = CancelToken::new();
    clock(&world).scope(|s| {
        s.spawn("holder", || hold(&world, &bo, 1_000));
        s.spawn("sleeper", || {
            clock(&world).sleep(10);
            let error = lock(&world, OpContext::new().cancelled_by(&token), &bo).unwrap_err();
            assert!(matches!(error, Error::Interrupted));
            assert_eq!(error.to_errno(), 512);
            assert!(bo.is_locked(), "the holder has it still");
        });
        s.spawn("signal", || {
            clock(&world).sleep(100);
            token.cancel();
        });
    });
    lock(&world, OpContext::new(), &bo).unwrap();
    world.check();
}

/// In the kernel the younger of two, wanting what the older holds, gets `EDEADLK` at once
/// (wait-die). Here it sleeps, and gets it only once the older wants something of its own
/// (wound-wait): fewer restarts, the same promise. `exec` restarts it by itself, and the older
/// never runs twice. Who is older is drawn at their first conflict.
#[test]
fn bo_reserve_deadlock() {
    let world = mock();
    let (a, b) = (
        world.create_in(SIZE, &system()),
        world.create_in(SIZE, &system()),
    );
    let (older_ran, younger_ran) = (AtomicU32::new(0), AtomicU32::new(0));
    let deadlocks = AtomicU32::new(0);
    clock(&world).scope(|s| {
        s.spawn("older", || {
            let locked = world.device.exec(OpContext::new(), |t| {
                older_ran.fetch_add(1, Ordering::Relaxed);
                t.lock(&a)?;
                clock(&world).sleep(100);
                t.lock(&b)?;
                Ok(())
            });
            drop(locked.unwrap());
        });
        s.spawn("younger", || {
            let locked = world.device.exec(OpContext::new(), |t| {
                younger_ran.fetch_add(1, Ordering::Relaxed);
                t.lock(&b)?;
                clock(&world).sleep(50);
                let second = t.lock(&a).map(drop);
                if let Err(error) = &second {
                    assert_eq!(error.to_errno(), 35);
                    deadlocks.fetch_add(1, Ordering::Relaxed);
                }
                second
            });
            drop(locked.unwrap());
        });
    });
    let runs = (older_ran.into_inner(), younger_ran.into_inner());
    assert_eq!(runs, (1, 2));
    assert_eq!(deadlocks.into_inner(), 1);
    assert_eq!(world.device.back_offs(), 1);
    world.check();
}

/// Releasing makes an object the youngest of its priority.
#[test]
fn bo_unreserve_basic() {
    let world = mock();
    let make = || {
        let info = BoInfo::new(SIZE).priority(3);
        world
            .device
            .create_in(OpContext::new(), info, (), &vram())
            .unwrap()
    };
    let (a, b) = (make(), make());
    assert_eq!(
        world.device.eviction_order(MemType::VRAM, 3),
        [a.id(), b.id()]
    );
    lock(&world, OpContext::new(), &a).unwrap();
    assert_eq!(
        world.device.eviction_order(MemType::VRAM, 3),
        [b.id(), a.id()]
    );
    assert!(world.device.eviction_order(MemType::VRAM, 0).is_empty());
}

/// A pinned object goes to the list of the unevictable. That list has no order here, because
/// nothing is ever taken from it in order.
#[test]
fn bo_unreserve_pinned() {
    let world = mock();
    let (a, b) = (
        world.create_in(SIZE, &vram()),
        world.create_in(SIZE, &vram()),
    );
    for bo in [&a, &b] {
        world
            .with(bo, |r| {
                r.pin();
                Ok(())
            })
            .unwrap();
    }
    lock(&world, OpContext::new(), &a).unwrap();
    let mut apart = world.device.unevictable(MemType::VRAM);
    apart.sort_unstable();
    assert_eq!(apart, [a.id(), b.id()]);
    assert!(world.device.eviction_order(MemType::VRAM, 0).is_empty());
    world.check();
}

fn group_of_two(world: &World) -> (ttm::bo::BulkGroup, [Bo<SimDriver>; 2]) {
    let shared = SharedReservation::new();
    let bulk = world.device.bulk_group();
    let make = || {
        let info = BoInfo::new(SIZE).reservation(&shared);
        let bo = world.device.create_in(OpContext::new(), info, (), &vram());
        let bo = bo.unwrap();
        world.with(&bo, |r| r.set_bulk(Some(&bulk))).unwrap();
        bo
    };
    let bos = [make(), make()];
    (bulk, bos)
}

/// Two objects of a group: touching the first makes it the last of the group; and an object
/// outside of it is older than all of them although it was used after some.
#[test]
fn bo_unreserve_bulk() {
    let world = mock();
    let (_bulk, [a, b]) = group_of_two(&world);
    let other = world.create_in(SIZE, &vram());
    let order = || world.device.eviction_order(MemType::VRAM, 0);
    assert_eq!(order(), [a.id(), b.id(), other.id()]);
    lock(&world, OpContext::new(), &a).unwrap();
    assert_eq!(order(), [other.id(), b.id(), a.id()]);
    world.check();
}

/// An object with a place and pages is released without a trace.
#[test]
fn bo_fini_basic() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    world.with(&bo, |r| r.populate()).unwrap();
    drop(bo);
    world.device.reap();
    assert_eq!(world.device.live_objects(), 0);
    world.assert_empty();
}

/// An object whose shared reservation has a signalled fence of class bookkeep is released at
/// once. There is nothing to individualise: its fences were copied to what it left behind.
#[test]
fn bo_fini_shared_resv() {
    let world = mock();
    let shared = SharedReservation::new();
    let info = BoInfo::new(SIZE).reservation(&shared);
    let bo = world
        .device
        .create_in(OpContext::new(), info, (), &vram())
        .unwrap();
    world.settle(&bo);
    let timeline = world.gpu.timeline();
    let locked = world
        .device
        .exec(OpContext::new(), |t| t.lock(&bo)?.reserve_fences(1))
        .unwrap();
    let fence = timeline.issue();
    locked.fence_all(&fence, Usage::Bookkeep);
    drop(locked);
    timeline.signal(fence.seqno());
    drop(bo);
    world.device.reap();
    assert_eq!(world.device.live_objects(), 0);
    assert_eq!(world.used(MemType::VRAM), 0);
    world.assert_empty();
}

/// Pins are counted.
#[test]
fn bo_pin_basic() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    for pins in 1..=3 {
        let counted = world
            .with(&bo, |r| {
                r.pin();
                Ok(r.pins())
            })
            .unwrap();
        assert_eq!(counted, pins);
    }
    for _ in 0..3 {
        world.with(&bo, |r| r.unpin()).unwrap();
    }
    // One more than there were: the kernel warns, here it is refused.
    let error = world.with(&bo, |r| r.unpin()).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)));
}

/// Pinning takes an object out of its group's order, unpinning puts it back to the end.
#[test]
fn bo_pin_unpin_resource() {
    let world = mock();
    let (_bulk, [a, b]) = group_of_two(&world);
    let order = || world.device.eviction_order(MemType::VRAM, 0);
    world
        .with(&a, |r| {
            r.pin();
            Ok(())
        })
        .unwrap();
    assert_eq!(order(), [b.id()]);
    assert_eq!(world.device.unevictable(MemType::VRAM), [a.id()]);
    world.with(&a, |r| r.unpin()).unwrap();
    assert_eq!(order(), [b.id(), a.id()]);
    assert_eq!(world.with(&a, |r| Ok(r.pins())).unwrap(), 0);
    world.check();
}

/// Two pins, one unpin: it is still out of the order.
#[test]
fn bo_multiple_pin_one_unpin() {
    let world = mock();
    let (_bulk, [a, b]) = group_of_two(&world);
    let pins = world
        .with(&a, |r| {
            r.pin();
            r.pin();
            r.unpin()?;
            Ok(r.pins())
        })
        .unwrap();
    assert_eq!(pins, 1);
    assert_eq!(world.device.eviction_order(MemType::VRAM, 0), [b.id()]);
    assert_eq!(world.device.unevictable(MemType::VRAM), [a.id()]);
    world.check();
}
