//! `ttm_resource_test`: space held by an object, and the managers.

use placement::{MemType, Place, Placement};
use ttm::error::Error;

use crate::support::{PAGE, PRIVATE, Setup, World, in_type, pages, system, vram};
use crate::{mock, setup};

const SIZE: u64 = 4 * PAGE;

/// SYSTEM, VRAM, a private type, and SYSTEM from the top down: the resource has its place's type
/// and the object's size, usage counts it, and it is alone on its list.
///
/// An object in SYSTEM is on the list of the unevictable until it has pages, because until then
/// there is nothing to swap out. There is no bus address to default: a mapping is made by call.
#[test]
fn resource_init_basic() {
    let world = Setup {
        private: Some(64),
        ..setup()
    }
    .build(backends::sim::SimDriver::new());
    let places = [
        Place::new(MemType::SYSTEM),
        Place::new(MemType::VRAM),
        Place::new(PRIVATE),
        Place::new(MemType::SYSTEM).top_down(),
    ];
    for place in places {
        let mem_type = place.mem_type;
        let bo = world.create_in(SIZE, &Placement::of(place));
        let (found, ranges) = world.with(&bo, |r| Ok((r.mem_type(), r.ranges()))).unwrap();
        assert_eq!(found, Some(mem_type));
        let size: u64 = ranges.iter().map(|r| r.len().get()).sum();
        assert_eq!(size, 4);
        assert_eq!(world.used(mem_type), 4);
        let usage = world.device.manager(mem_type).unwrap().usage();
        assert_eq!(usage.objects, 1);
        let order = world.device.eviction_order(mem_type, 0);
        let apart = world.device.unevictable(mem_type);
        match mem_type {
            MemType::SYSTEM => assert_eq!((order, apart), (vec![], vec![bo.id()])),
            _ => assert_eq!((order, apart), (vec![bo.id()], vec![])),
        }
        drop(bo);
        world.device.close(None).unwrap();
    }
    // From the top down is seen where pages have addresses.
    let bo = world.create_in(SIZE, &Placement::of(Place::new(MemType::VRAM).top_down()));
    let ranges = world.with(&bo, |r| Ok(r.ranges())).unwrap();
    assert_eq!(ranges[0].end(), 256);
}

/// A pinned object is on the list of the unevictable only; unpinned and dropped, on none.
#[test]
fn resource_init_pinned() {
    let world = mock();
    let bo = world.create_in(SIZE, &vram());
    world
        .with(&bo, |r| {
            r.pin();
            Ok(())
        })
        .unwrap();
    assert_eq!(world.device.unevictable(MemType::VRAM), [bo.id()]);
    assert!(world.device.eviction_order(MemType::VRAM, 0).is_empty());
    world.with(&bo, |r| r.unpin()).unwrap();
    assert!(world.device.unevictable(MemType::VRAM).is_empty());
    drop(bo);
    world.assert_empty();
}

/// A resource that is given back leaves its list, and usage is what it was.
#[test]
fn resource_fini_basic() {
    let world = mock();
    let bo = world.create_in(SIZE, &vram());
    assert_eq!(world.used(MemType::VRAM), 4);
    world.validate(&bo, &Placement::new()).unwrap();
    assert_eq!(world.used(MemType::VRAM), 0);
    assert!(world.device.eviction_order(MemType::VRAM, 0).is_empty());
    assert_eq!(world.place_of(&bo), None);
}

/// A fresh manager has its size, no usage, nothing behind fences, and empty lists.
#[test]
fn resource_manager_init_basic() {
    let world = mock();
    for mem_type in [MemType::SYSTEM, MemType::TT, MemType::VRAM] {
        let manager = world.device.manager(mem_type).unwrap();
        let usage = manager.usage();
        assert_eq!(manager.mem_type(), mem_type);
        assert_eq!((usage.used, usage.retired), (pages(0), pages(0)));
        assert_eq!(usage.objects, 0);
        for priority in 0..4 {
            assert!(world.device.eviction_order(mem_type, priority).is_empty());
        }
    }
    let vram = world.device.manager(MemType::VRAM).unwrap();
    assert_eq!(vram.usage().size, pages(256));
    assert!(world.device.manager(PRIVATE).is_none());
}

/// Usage equals the one resource there is.
#[test]
fn resource_manager_usage_basic() {
    let world = mock();
    let bo = world.create_in(SIZE, &in_type(MemType::TT));
    assert_eq!(world.used(MemType::TT), 4);
    drop(bo);
    world.assert_empty();
}

/// The flag flips, and a validate passes the manager over. What is there stays, and the kernel's
/// warning about it is not needed: it can still be evicted.
#[test]
fn resource_manager_set_used_basic() {
    let world = mock();
    let bo = world.create_in(SIZE, &vram());
    let manager = world.device.manager(MemType::VRAM).unwrap();
    manager.set_used(false);
    assert!(!manager.is_used());
    let other = world.create(SIZE);
    let refused = world.validate(&other, &vram()).unwrap_err();
    assert!(matches!(refused, Error::NoSpace(_)), "{refused}");
    world
        .validate(&other, &vram().with(Place::new(MemType::SYSTEM)))
        .unwrap();
    assert_eq!(world.place_of(&other), Some(MemType::SYSTEM));
    assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
    manager.set_used(true);
    world.validate(&other, &vram()).unwrap();
    world.check();
}

/// The system manager grants any size; size, type and owner are right.
#[test]
fn sys_man_alloc_basic() {
    let world: World = mock();
    let bo = world.create_in(1 << 40, &system());
    let facts = world.with(&bo, |r| Ok(r.facts())).unwrap();
    assert_eq!(facts.id, bo.id());
    assert_eq!(facts.pages.bytes(), 1 << 40);
    assert_eq!(facts.mem_type, Some(MemType::SYSTEM));
    assert_eq!(world.used(MemType::SYSTEM), (1 << 40) / PAGE);
}

/// After it is given back the lists are empty and usage is nothing.
#[test]
fn sys_man_free_basic() {
    let world = mock();
    let bo = world.create_in(SIZE, &system());
    world.with(&bo, |r| r.populate()).unwrap();
    assert_eq!(world.device.eviction_order(MemType::SYSTEM, 0), [bo.id()]);
    drop(bo);
    world.device.reap();
    assert_eq!(world.used(MemType::SYSTEM), 0);
    assert!(world.device.eviction_order(MemType::SYSTEM, 0).is_empty());
    world.assert_empty();
}
