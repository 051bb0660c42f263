//! Device memory that grows: what is not there when it is wanted becomes an eviction, and an error
//! only when nobody is left to leave.

use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::error::{Error, Result};
use ttm::fixture::{Counting, Growing, growing_device, system, vram};
use ttm::placement::{ChunkSizes, MemType, PageCount, Place, Placement};
use ttm::sync::Arc;

fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

fn device(limit: u64, most: u64) -> (Device<Counting>, Arc<Growing>) {
    let sizes = ChunkSizes {
        least: pages(4),
        most: pages(8),
        granule: pages(2),
    };
    growing_device(limit, most, sizes)
}

fn make(device: &Device<Counting>, pages: u64) -> Bo<Counting> {
    device.create(BoInfo::new(pages * 4096), ()).unwrap()
}

fn go(device: &Device<Counting>, bo: &Bo<Counting>, to: &Placement) -> Result<()> {
    let went = device.exec(OpContext::new(), |t| t.lock(bo)?.validate(to));
    device.check().unwrap();
    went.map(drop)
}

fn place(device: &Device<Counting>, bo: &Bo<Counting>) -> Option<MemType> {
    let place = device.exec(OpContext::new(), |t| Ok(t.lock(bo)?.mem_type()));
    *place.unwrap().value()
}

#[test]
fn what_is_not_there_is_made_by_those_who_leave() {
    let (device, memory) = device(64, 16);
    let bos: Vec<_> = (0..12).map(|_| make(&device, 3)).collect();
    for round in 0..3 {
        for bo in &bos {
            go(&device, bo, &vram()).unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(place(&device, bo), Some(MemType::VRAM));
            assert!(memory.there() <= 16);
        }
    }
    assert!(memory.refusals() > 0);
    let counters = device.manager(MemType::VRAM).unwrap().counters();
    assert!(counters.evictions > 20, "{counters:?}");
    // An object as large as all there is pushes everybody out, and has a chunk of its own.
    let large = make(&device, 16);
    go(&device, &large, &vram()).unwrap();
    assert_eq!(memory.there(), 16);
    assert!(
        bos.iter()
            .all(|bo| place(&device, bo) == Some(MemType::SYSTEM))
    );
    // One larger than what there is, but not than the limit: refused once nobody is left.
    let larger = make(&device, 20);
    let refused = go(&device, &larger, &vram());
    assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    // With a second place it is there.
    go(
        &device,
        &larger,
        &vram().with(Place::new(MemType::SYSTEM).fallback()),
    )
    .unwrap();
    // And once there is more, it fits.
    memory.set_most(64);
    go(&device, &larger, &vram()).unwrap();
    drop((bos, large, larger));
    device.close(None).unwrap();
}

#[test]
fn nothing_is_asked_of_a_memory_that_has_nothing() {
    let (device, memory) = device(64, 0);
    let bo = make(&device, 3);
    for _ in 0..3 {
        let refused = go(&device, &bo, &vram());
        assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    }
    assert!(memory.refusals() <= 3);
    assert!(go(&device, &make(&device, 65), &vram()).is_err());
    go(&device, &bo, &system()).unwrap();
}

#[test]
fn pinned_objects_stay_when_there_is_nothing_more() {
    let (device, memory) = device(64, 8);
    let pinned = make(&device, 8);
    let locked = device.exec(OpContext::new(), |t| {
        let reserved = t.lock(&pinned)?;
        reserved.validate(&vram())?;
        reserved.pin();
        Ok(())
    });
    drop(locked.unwrap());
    let other = make(&device, 1);
    let refused = go(&device, &other, &vram());
    assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    assert_eq!(place(&device, &pinned), Some(MemType::VRAM));
    memory.set_most(10);
    go(&device, &other, &vram()).unwrap();
}

/// Two chunks may have adjoining numbers, and are not one run for that.
#[test]
fn what_lies_in_two_chunks_is_not_contiguous() {
    let (device, memory) = device(8, 64);
    let small: Vec<_> = (0..2).map(|_| make(&device, 3)).collect();
    for bo in &small {
        go(&device, bo, &vram()).unwrap();
    }
    // A page is left in each of the two chunks, and there are no more.
    let scattered = make(&device, 2);
    go(&device, &scattered, &vram()).unwrap();
    let ranges = || {
        let locked = device.exec(OpContext::new(), |t| Ok(t.lock(&scattered)?.ranges()));
        locked.unwrap().value().clone()
    };
    let chunks: Vec<_> = ranges()
        .iter()
        .map(|range| memory.chunk_of(range.start()).unwrap())
        .collect();
    assert!(chunks.len() == 2 && chunks[0] != chunks[1], "{chunks:?}");
    let contiguous = Placement::of(Place::new(MemType::VRAM).contiguous());
    go(&device, &scattered, &contiguous).unwrap();
    assert_eq!(ranges().len(), 1, "it came into one run");
}
