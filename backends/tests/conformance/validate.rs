//! `ttm_bo_validate_test`: getting an object into a place, at others' cost if need be.
//!
//! One difference runs through all of it: where nothing has room, the kernel turns `ENOSPC` into
//! `ENOMEM` at the end of a validate. Here it stays `ENOSPC`, because the caller does something
//! else about a full memory than about a machine without memory.

use backends::sim::SimDriver;
use placement::{MemType, Place, Placement};
use ttm::bo::{Bo, BoInfo, SharedReservation};
use ttm::context::OpContext;
use ttm::driver::{BoFacts, BoKind, Driver, Eviction};
use ttm::error::Error;
use ttm::fence::{Fence, Timeline, Usage};

use crate::support::{
    Evicting, PAGE, PRIVATE, Setup, World, bytes_of_moves, in_type, pages, system, tt, vram,
};
use crate::{KINDS, mock, setup};

const SIZE: u64 = 4 * PAGE;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn of_kind(world: &World, bytes: u64, kind: BoKind) -> Bo<SimDriver> {
    let info = BoInfo::new(bytes).kind(kind);
    world.device.create(info, ()).unwrap()
}

fn pin<D: Driver>(world: &World<D>, bo: &Bo<D>) {
    world
        .with(bo, |r| {
            r.pin();
            Ok(())
        })
        .unwrap();
}

/// Adds a point of `timeline` to the object, as work of that class would.
fn make_busy<D: Driver>(world: &World<D>, bo: &Bo<D>, timeline: &Timeline, usage: Usage) -> Fence {
    let locked = world
        .device
        .exec(OpContext::new(), |t| t.lock(bo)?.reserve_fences(1))
        .unwrap();
    let fence = timeline.issue();
    locked.fence_all(&fence, usage);
    drop(locked);
    fence
}

fn is_no_space(error: &Error) -> bool {
    matches!(error, Error::NoSpace(_)) && error.to_errno() == 28
}

/// Of every kind, made and validated into SYSTEM: one handle, all facts right, no pages yet, its
/// size counted as moved. There are no mmap offsets: an object is reached by its handle.
#[test]
fn bo_init_reserved_sys_man() {
    for kind in KINDS {
        let world = mock();
        let bo = of_kind(&world, SIZE, kind);
        let moved = world.validate(&bo, &system()).unwrap();
        assert_eq!(moved, SIZE);
        assert_eq!(bo.handles(), 1, "one reference");
        assert_eq!((bo.kind(), bo.bytes(), bo.pages()), (kind, SIZE, pages(4)));
        let facts = world.with(&bo, |r| Ok(r.facts())).unwrap();
        assert_eq!(
            (facts.pages, facts.kind, facts.pinned),
            (pages(4), kind, false)
        );
        assert_eq!(facts.mem_type, Some(MemType::SYSTEM));
        let (populated, idle) = world
            .with(&bo, |r| Ok((r.is_populated(), r.is_idle(Usage::Bookkeep))))
            .unwrap();
        assert!(!populated && idle);
        world.check();
    }
}

/// The same in VRAM.
#[test]
fn bo_init_reserved_mock_man() {
    for kind in KINDS {
        let world = mock();
        let bo = of_kind(&world, SIZE, kind);
        assert_eq!(world.validate(&bo, &vram()).unwrap(), SIZE);
        assert_eq!(bo.handles(), 1);
        let facts = world.with(&bo, |r| Ok(r.facts())).unwrap();
        assert_eq!((facts.mem_type, facts.kind), (Some(MemType::VRAM), kind));
        assert_eq!(facts.range.len(), pages(4));
        assert_eq!(world.used(MemType::VRAM), 4);
        world.settle(&bo);
        world.check();
    }
}

/// An object that uses the caller's reservation is validated under the lock that is held already.
#[test]
fn bo_init_reserved_resv() {
    let world = mock();
    let shared = SharedReservation::new();
    let make = || {
        let info = BoInfo::new(SIZE).reservation(&shared);
        world.device.create(info, ()).unwrap()
    };
    let (first, second) = (make(), make());
    let locked = world
        .device
        .exec(OpContext::new(), |t| {
            t.lock(&first)?;
            assert!(second.is_locked(), "it is the same reservation");
            t.lock(&second)?.validate(&system())
        })
        .unwrap();
    assert_eq!(locked.context().bytes_moved(), SIZE);
    assert_eq!(
        locked.get(&second).unwrap().mem_type(),
        Some(MemType::SYSTEM)
    );
    drop(locked);
    assert!(!first.is_locked());
}

/// SYSTEM to VRAM, from the top down: its size is counted, the new place is as wished. The
/// kernel keeps the page vector, populated; here the pages are given back, for the content is
/// in VRAM.
#[test]
fn bo_validate_basic() {
    for kind in KINDS {
        let world = setup().build(SimDriver::new());
        let bo = of_kind(&world, SIZE, kind);
        world.validate(&bo, &system()).unwrap();
        world.write_image(&bo, 1, 1).unwrap();
        let wish = Placement::of(Place::new(MemType::VRAM).top_down());
        assert_eq!(world.validate(&bo, &wish).unwrap(), SIZE);
        assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
        let ranges = world.with(&bo, |r| Ok(r.ranges())).unwrap();
        assert_eq!(ranges.iter().map(|r| r.end()).max(), Some(256));
        world.assert_image(&bo, 1, 1);
        world.settle(&bo);
        world.device.reap();
        assert!(world.device.system_budget().used().is_zero());
        world.check();
    }
}

/// A memory type that the device does not have is passed over: nothing has room.
#[test]
fn bo_validate_invalid_placement() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    let error = world.validate(&bo, &in_type(PRIVATE)).unwrap_err();
    assert!(is_no_space(&error), "{error}");
    assert_eq!(world.place_of(&bo), Some(MemType::SYSTEM));
    world.check();
}

/// Where it is already: nothing moves.
#[test]
fn bo_validate_same_placement() {
    for mem_type in [MemType::SYSTEM, MemType::VRAM] {
        let world = mock();
        let bo = world.create_in(SIZE, &in_type(mem_type));
        world.log.take();
        assert_eq!(world.validate(&bo, &in_type(mem_type)).unwrap(), 0);
        assert_eq!(bytes_of_moves(&world.log.take()), 0);
        assert_eq!(world.place_of(&bo), Some(mem_type));
    }
}

/// A manager that always says that it is full.
#[test]
fn bo_validate_failed_alloc() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    world.inject.fail("ttm.take", 1, true);
    let error = world.validate(&bo, &vram()).unwrap_err();
    assert!(is_no_space(&error), "{error}");
    world.inject.clear();
    assert_eq!(world.place_of(&bo), Some(MemType::SYSTEM));
    world.validate(&bo, &vram()).unwrap();
}

/// A pinned object does not go elsewhere: `EINVAL`.
#[test]
fn bo_validate_pinned() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    pin(&world, &bo);
    let error = world.validate(&bo, &vram()).unwrap_err();
    assert!(matches!(error, Error::Pinned));
    assert_eq!(error.to_errno(), 22);
    // Where it is, it may be.
    assert_eq!(world.validate(&bo, &system()).unwrap(), 0);
}

/// Desired where there is never room, and a fallback: it lands in the fallback, alone.
#[test]
fn bo_validate_busy_placement() {
    let world = Setup {
        private: Some(1),
        ..setup()
    }
    .build(SimDriver::new());
    let bo = world.create_in(SIZE, &system());
    let wish = Placement::of(Place::new(PRIVATE).desired());
    let wish = wish.with(Place::new(MemType::VRAM).fallback());
    world.validate(&bo, &wish).unwrap();
    assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
    assert_eq!(world.device.eviction_order(MemType::VRAM, 0), [bo.id()]);
}

/// VRAM to SYSTEM through TT: both hops are counted.
#[test]
fn bo_validate_multihop() {
    for kind in KINDS {
        let world = mock();
        let bo = of_kind(&world, SIZE, kind);
        world.validate(&bo, &vram()).unwrap();
        world.write_image(&bo, 1, 1).unwrap();
        assert_eq!(world.validate(&bo, &system()).unwrap(), 2 * SIZE);
        assert_eq!(world.place_of(&bo), Some(MemType::SYSTEM));
        world.assert_image(&bo, 1, 1);
        assert_eq!(
            (world.used(MemType::TT), world.used(MemType::SYSTEM)),
            (0, 4)
        );
        world.check();
    }
}

/// No places, idle, without and with pages: the place is gone, usage is nothing, nothing moved;
/// the pages are gone, and the next ones read as zero.
#[test]
fn bo_validate_no_placement_signaled() {
    for populated in [false, true] {
        let world = mock();
        let bo = world.create_in(SIZE, &system());
        if populated {
            world.write_image(&bo, 1, 1).unwrap();
        }
        assert_eq!(world.validate(&bo, &Placement::new()).unwrap(), 0);
        assert_eq!(world.place_of(&bo), None);
        assert_eq!(world.used(MemType::SYSTEM), 0);
        assert!(!world.with(&bo, |r| Ok(r.is_populated())).unwrap());
        assert!(world.device.system_budget().used().is_zero());
        let mut bytes = vec![1; SIZE as usize];
        world.with(&bo, |r| r.populate()).unwrap();
        world.with(&bo, |r| r.read(0, &mut bytes)).unwrap();
        assert!(bytes.iter().all(|b| *b == 0), "cleared");
        world.check();
    }
}

/// No places, busy: it does not wait. Instead of a ghost object the space and the pages wait in
/// a queue for the fence, which another thread signals.
#[test]
fn bo_validate_no_placement_not_signaled() {
    for kind in KINDS {
        let world = setup().build(SimDriver::new());
        let bo = of_kind(&world, SIZE, kind);
        world.validate(&bo, &vram()).unwrap();
        world.settle(&bo);
        let timeline = world.gpu.timeline();
        let fence = make_busy(&world, &bo, &timeline, Usage::Bookkeep);
        let context = OpContext::new().without_waiting();
        world
            .validate_with(context, &bo, &Placement::new())
            .unwrap();
        assert_eq!(world.place_of(&bo), None);
        let usage = world.device.manager(MemType::VRAM).unwrap().usage();
        assert_eq!((usage.used, usage.retired), (pages(0), pages(4)));
        world.check();
        std::thread::scope(|s| {
            s.spawn(|| timeline.signal(fence.seqno()));
        });
        drop(bo);
        world.assert_empty();
    }
}

/// Fills VRAM with an object that goes away behind a fence of `timeline`.
fn fill_behind(world: &World, timeline: &Timeline) -> Fence {
    let filler = world.create_in(MIB, &vram());
    world.settle(&filler);
    let fence = make_busy(world, &filler, timeline, Usage::Bookkeep);
    drop(filler);
    world.device.reap();
    let usage = world.device.manager(MemType::VRAM).unwrap().usage();
    assert_eq!(usage.retired, pages(256));
    fence
}

/// Space behind a signalled fence is free.
#[test]
fn bo_validate_move_fence_signaled() {
    let world = mock();
    let timeline = world.gpu.timeline();
    let fence = fill_behind(&world, &timeline);
    timeline.signal(fence.seqno());
    let bo = world.create(SIZE);
    let context = OpContext::new().without_waiting();
    world.validate_with(context, &bo, &vram()).unwrap();
    assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
}

/// Space behind a fence that has not signalled: who may wait gets the desired place, ordered
/// after the fence; who may not gets the fallback.
#[test]
fn bo_validate_move_fence_not_signaled() {
    let wish = Placement::of(Place::new(MemType::VRAM).desired());
    let wish = wish.with(Place::new(MemType::TT).fallback());
    for waits in [true, false] {
        let world = mock();
        let timeline = world.gpu.timeline();
        let fence = fill_behind(&world, &timeline);
        let bo = world.create(SIZE);
        let (context, expected) = match waits {
            true => (OpContext::new(), MemType::VRAM),
            false => (OpContext::new().without_waiting(), MemType::TT),
        };
        world.validate_with(context, &bo, &wish).unwrap();
        assert_eq!(world.place_of(&bo), Some(expected));
        if waits {
            let idle = world.with(&bo, |r| Ok(r.is_idle(Usage::Kernel))).unwrap();
            assert!(!idle, "its content waits for the old owner's fence");
        }
        timeline.signal(fence.seqno());
        world.settle(&bo);
        drop(bo);
        world.assert_empty();
    }
}

/// VRAM is full of 8 KiB, 512 KiB and the rest. For 4 KiB only the oldest leaves, through TT to
/// SYSTEM, with its pages populated and its content intact; the second stays.
#[test]
fn bo_validate_happy_evict() {
    let world = mock();
    let small = world.create_in(8 * KIB, &vram());
    let medium = world.create_in(512 * KIB, &vram());
    let large = world.create_in(MIB - 520 * KIB, &vram());
    for bo in [&small, &medium, &large] {
        world.write_image(bo, 1, 1).unwrap();
    }
    let bo = world.create(4 * KIB);
    let moved = world.validate(&bo, &vram()).unwrap();
    assert_eq!(moved, 2 * 8 * KIB + 4 * KIB);
    assert_eq!(world.place_of(&small), Some(MemType::SYSTEM));
    assert!(world.with(&small, |r| Ok(r.is_populated())).unwrap());
    assert_eq!(world.place_of(&medium), Some(MemType::VRAM));
    assert_eq!(world.place_of(&large), Some(MemType::VRAM));
    assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
    for old in [&small, &medium, &large] {
        world.assert_image(old, 1, 1);
    }
    world.check();
}

/// Only a pinned object is there: nothing can leave.
#[test]
fn bo_validate_all_pinned_evict() {
    let world = mock();
    let pinned = world.create_in(MIB, &vram());
    pin(&world, &pinned);
    let bo = world.create(SIZE);
    let error = world.validate(&bo, &vram()).unwrap_err();
    assert!(is_no_space(&error), "{error}");
    let Error::NoSpace(detail) = &error else {
        unreachable!()
    };
    assert_eq!(
        (detail.tried[0].evictable, detail.tried[0].unevictable),
        (0, 1)
    );
    assert_eq!(world.place_of(&bo), None);
    assert_eq!(world.place_of(&pinned), Some(MemType::VRAM));
    world.check();
}

/// A pinned and an evictable object: only the latter leaves.
#[test]
fn bo_validate_allowed_only_evict() {
    let world = mock();
    let pinned = world.create_in(512 * KIB, &vram());
    pin(&world, &pinned);
    let evictable = world.create_in(512 * KIB, &vram());
    let bo = world.create(4 * KIB);
    let moved = world.validate(&bo, &vram()).unwrap();
    assert_eq!(moved, 2 * 512 * KIB + 4 * KIB);
    assert_eq!(world.place_of(&pinned), Some(MemType::VRAM));
    assert_eq!(world.place_of(&evictable), Some(MemType::SYSTEM));
    world.check();
}

/// The object in the way has no handles any more: its space is taken, behind its fence, and
/// nothing of it is copied.
#[test]
fn bo_validate_deleted_evict() {
    let world = mock();
    let zombie = world.create_in(MIB, &vram());
    world.settle(&zombie);
    let timeline = world.gpu.timeline();
    let fence = make_busy(&world, &zombie, &timeline, Usage::Bookkeep);
    drop(zombie);
    let bo = world.create(MIB);
    assert_eq!(world.validate(&bo, &vram()).unwrap(), MIB);
    assert_eq!(world.used(MemType::VRAM), 256);
    assert_eq!(world.used(MemType::SYSTEM), 0);
    timeline.signal(fence.seqno());
    world.settle(&bo);
    world.device.reap();
    assert_eq!(world.device.live_objects(), 1);
    world.check();
}

fn evict_to(mem_type: MemType) -> Eviction {
    Eviction::To(in_type(mem_type))
}

/// The victim's only target has never room: the request is refused, the victim stays, and the
/// requester holds nothing.
#[test]
fn bo_validate_busy_domain_evict() {
    let world = Setup {
        private: Some(1),
        ..setup()
    }
    .build(Evicting::new(|_: &BoFacts| evict_to(PRIVATE)));
    let victim = world.create_in(MIB, &vram());
    world.write_image(&victim, 1, 1).unwrap();
    let bo = world.create(SIZE);
    let error = world.validate(&bo, &vram()).unwrap_err();
    assert!(is_no_space(&error), "{error}");
    assert_eq!(world.place_of(&victim), Some(MemType::VRAM));
    assert_eq!(world.place_of(&bo), None);
    assert_eq!(world.used(PRIVATE), 0);
    world.assert_image(&victim, 1, 1);
    world.check();
}

/// The victim's placement is empty: it is thrown away, and reads as zero if it is used again.
#[test]
fn bo_validate_evict_gutting() {
    let world = setup().build(Evicting::new(|_: &BoFacts| Eviction::To(Placement::new())));
    let victim = world.create_in(MIB, &vram());
    world.write_image(&victim, 1, 1).unwrap();
    let bo = world.create(SIZE);
    assert_eq!(world.validate(&bo, &vram()).unwrap(), SIZE);
    assert_eq!(world.place_of(&victim), None);
    assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
    let mut bytes = vec![1; 4096];
    world.with(&victim, |r| r.populate()).unwrap();
    world.with(&victim, |r| r.read(0, &mut bytes)).unwrap();
    assert!(bytes.iter().all(|b| *b == 0));
    world.check();
}

/// (The kernel's spelling.) VRAM is full, TT where its victim goes is full, and so is where
/// TT's victim goes: the chain ends in SYSTEM, and everybody's content is intact.
#[test]
fn bo_validate_recrusive_evict() {
    let world = Setup {
        tt: Some(256),
        private: Some(256),
        ..setup()
    }
    .build(Evicting::new(|bo: &BoFacts| match bo.mem_type {
        Some(MemType::VRAM) => evict_to(MemType::TT),
        Some(MemType::TT) => evict_to(PRIVATE),
        _ => evict_to(MemType::SYSTEM),
    }));
    let in_vram = world.create_in(MIB, &vram());
    let in_tt = world.create_in(MIB, &tt());
    let in_private = world.create_in(MIB, &in_type(PRIVATE));
    for bo in [&in_vram, &in_tt, &in_private] {
        world.write_image(bo, 1, 1).unwrap();
    }
    let bo = world.create(SIZE);
    let moved = world.validate(&bo, &vram()).unwrap();
    assert_eq!(moved, 3 * MIB + SIZE);
    let places = [&bo, &in_vram, &in_tt, &in_private].map(|bo| world.place_of(bo));
    let expected = [MemType::VRAM, MemType::TT, PRIVATE, MemType::SYSTEM];
    assert_eq!(places, expected.map(Some));
    for bo in [&in_vram, &in_tt, &in_private] {
        world.assert_image(bo, 1, 1);
    }
    world.check();
}

/// (Removed from the kernel before 7.0.) A large object in TT exceeds the limit on system pages:
/// the small one in TT ends in SYSTEM, and in the backup.
#[test]
fn bo_validate_swapout() {
    let world = Setup {
        system_limit: Some(256),
        ..setup()
    }
    .build(SimDriver::new());
    let small = world.create_in(SIZE, &tt());
    world.write_image(&small, 1, 1).unwrap();
    let large = world.create(MIB);
    world.validate(&large, &tt()).unwrap();
    assert_eq!(world.place_of(&large), Some(MemType::TT));
    assert_eq!(world.place_of(&small), Some(MemType::SYSTEM));
    assert_eq!(world.with(&small, |r| Ok(r.swapped())).unwrap(), pages(4));
    assert_eq!(world.device.system_budget().used(), pages(256));
    world.check();
    world.assert_image(&small, 1, 1);
}
