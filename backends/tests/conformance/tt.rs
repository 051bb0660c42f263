//! `ttm_tt_test`: the system pages of an object.
//!
//! The kernel's page vector is an object of its own, with a caller who makes and ends it. Here it
//! is inside the buffer object and is seen by what it does: whether the object is populated, how
//! many pages are in the backup, and how many are charged to the device's limit.

use placement::{MemType, Placement};
use ttm::bo::{Bo, BoInfo};
use ttm::driver::{BoKind, Side};
use ttm::error::{Error, Result};

use crate::mock;
use crate::support::{PAGE, World, pages, system, vram};

fn charged(world: &World) -> u64 {
    world.device.system_budget().used().get()
}

fn swapped(world: &World, bo: &Bo<backends::sim::SimDriver>) -> u64 {
    world.with(bo, |r| Ok(r.swapped().get())).unwrap()
}

fn is_populated(world: &World, bo: &Bo<backends::sim::SimDriver>) -> bool {
    world.with(bo, |r| Ok(r.is_populated())).unwrap()
}

fn populate(world: &World, bo: &Bo<backends::sim::SimDriver>) -> Result<()> {
    world.with(bo, |r| r.populate())
}

/// As many pages as asked for, none of them populated, nothing in the backup. Extra pages for a
/// driver's metadata (the second instance) are pages of the object: a driver that wants some
/// makes it larger.
#[test]
fn tt_init_basic() {
    let world = mock();
    for extra in [0, 1] {
        let bo = world.create_in(8 * PAGE + extra * PAGE, &system());
        assert_eq!(bo.pages(), pages(8 + extra));
        assert!(!is_populated(&world, &bo));
        assert_eq!((charged(&world), swapped(&world, &bo)), (0, 0));
    }
}

/// 8 KiB and one byte are three pages.
#[test]
fn tt_init_misaligned() {
    let world = mock();
    let bo = world.create_in(2 * PAGE + 1, &system());
    assert_eq!(bo.pages(), pages(3));
    assert_eq!(bo.bytes(), 2 * PAGE + 1);
    populate(&world, &bo).unwrap();
    assert_eq!(charged(&world), 3);
}

/// The pages are gone with the content.
#[test]
fn tt_fini_basic() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    populate(&world, &bo).unwrap();
    assert_eq!(charged(&world), 4);
    world.validate(&bo, &Placement::new()).unwrap();
    assert_eq!(charged(&world), 0);
    assert!(!is_populated(&world, &bo));
}

/// Addresses for the device are a later part; what is kept of the case is that an object of
/// somebody else's pages gives everything back, and that it is never swapped out.
#[test]
fn tt_fini_sg() {
    let world = mock();
    let info = BoInfo::new(4 * PAGE).kind(BoKind::Imported);
    let bo = world.device.create(info, ()).unwrap();
    world.validate(&bo, &system()).unwrap();
    populate(&world, &bo).unwrap();
    assert_eq!(world.with(&bo, |r| r.swap_out()).ok(), Some(()));
    assert_eq!(swapped(&world, &bo), 0);
    drop(bo);
    world.assert_empty();
}

/// What is in the backup is released with the object.
#[test]
fn tt_fini_shmem() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    populate(&world, &bo).unwrap();
    world.with(&bo, |r| r.swap_out()).unwrap();
    assert_eq!(world.device.backup_usage().unwrap().0, pages(4));
    drop(bo);
    world.device.reap();
    assert_eq!(world.device.backup_usage().unwrap().0, pages(0));
    world.assert_empty();
}

/// An object has its table of pages without being asked for one.
#[test]
fn tt_create_basic() {
    let world = mock();
    let bo = world.create(4 * PAGE);
    populate(&world, &bo).unwrap();
    assert!(is_populated(&world, &bo));
    assert_eq!(world.place_of(&bo), Some(MemType::SYSTEM));
}

/// An object of an unknown kind cannot be written down. What can be, and makes no sense, is
/// refused with the kernel's error: no bytes, an odd alignment, a priority beyond the last.
#[test]
fn tt_create_invalid_bo_type() {
    let world = mock();
    let infos = [
        BoInfo::new(0),
        BoInfo::new(PAGE).align(pages(3)),
        BoInfo::new(PAGE).align(pages(0)),
        BoInfo::new(PAGE).priority(4),
    ];
    for info in infos {
        let error = world.device.create(info.clone(), ()).unwrap_err();
        assert_eq!(error.to_errno(), 22, "{info:?}");
    }
    assert_eq!(world.device.live_objects(), 0);
}

/// Populating again keeps the pages and their content.
#[test]
fn tt_create_ttm_exists() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    world.write_image(&bo, 1, 1).unwrap();
    world.validate(&bo, &system()).unwrap();
    populate(&world, &bo).unwrap();
    assert_eq!(charged(&world), 4);
    world.assert_image(&bo, 1, 1);
}

/// A source that gives nothing is `ENOMEM`; nothing was charged, and the next try works.
#[test]
fn tt_create_failed() {
    let world = mock();
    for site in ["pages.take", "ttm.frames", "ttm.records"] {
        let bo = world.create_in(4 * PAGE, &system());
        world.inject.fail(site, 1, true);
        let error = populate(&world, &bo).unwrap_err();
        assert!(matches!(error, Error::NoMemory { .. }), "{site}: {error}");
        assert_eq!(error.to_errno(), 12);
        assert!(!is_populated(&world, &bo), "{site}");
        assert_eq!(charged(&world), 0, "{site}");
        world.inject.clear();
        populate(&world, &bo).unwrap();
        world.check();
        drop(bo);
        world.device.reap();
    }
}

/// The end of the object is the end of its table.
#[test]
fn tt_destroy_basic() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    populate(&world, &bo).unwrap();
    drop(bo);
    world.assert_empty();
}

/// There is no null table. An object in device memory has none, and populating it is `EINVAL`.
#[test]
fn tt_populate_null_ttm() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &vram());
    let error = populate(&world, &bo).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert_eq!(error.to_errno(), 22);
}

/// Populating what is populated keeps the very same frames.
#[test]
fn tt_populate_populated_ttm() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    populate(&world, &bo).unwrap();
    let frames = |side: Side| match side {
        Side::Frames(spans) => spans,
        other => panic!("{other:?}"),
    };
    let before = frames(world.with(&bo, |r| r.side()).unwrap());
    populate(&world, &bo).unwrap();
    let after = frames(world.with(&bo, |r| r.side()).unwrap());
    assert_eq!(before, after);
    assert_eq!(charged(&world), 4);
}

/// Populated, then not.
#[test]
fn tt_unpopulate_basic() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    populate(&world, &bo).unwrap();
    assert!(is_populated(&world, &bo));
    world.with(&bo, |r| r.swap_out()).unwrap();
    assert!(!is_populated(&world, &bo));
    assert_eq!(charged(&world), 0);
    world.check();
}

/// Unpopulating what has no pages does nothing: neither throwing the content away nor swapping.
#[test]
fn tt_unpopulate_empty_ttm() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    world.with(&bo, |r| r.swap_out()).unwrap();
    assert_eq!(swapped(&world, &bo), 0);
    world.validate(&bo, &Placement::new()).unwrap();
    world.validate(&bo, &Placement::new()).unwrap();
    assert_eq!(charged(&world), 0);
    world.check();
}

/// Swapping out puts every page into the backup, swapping in takes it out again; the content
/// is the same. The kernel lets the caller bring new pages; here populating does both.
#[test]
fn tt_swapin_basic() {
    let world = mock();
    let bo = world.create_in(4 * PAGE, &system());
    world.write_image(&bo, 1, 1).unwrap();
    world.with(&bo, |r| r.swap_out()).unwrap();
    assert_eq!((swapped(&world, &bo), charged(&world)), (4, 0));
    assert_eq!(world.device.backup_usage().unwrap().0, pages(4));
    populate(&world, &bo).unwrap();
    assert_eq!((swapped(&world, &bo), charged(&world)), (0, 4));
    assert_eq!(world.device.backup_usage().unwrap().0, pages(0));
    world.assert_image(&bo, 1, 1);
    world.check();
}
