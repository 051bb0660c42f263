//! Transactions from the user's side: what restarts, what is refused, what a driver may not do.

use std::sync::OnceLock;

use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::{BoFacts, Driver, Eviction, MoveFacts, Route};
use ttm::error::Error;
use ttm::fault::{Faults, Site};
use ttm::fence::{Timeline, Usage};
use ttm::fixture::{Counting, Nothing, device, device_of, still, system, vram};
use ttm::placement::{MemType, PageCount, Placement, Range};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

fn create(device: &Device<Counting>) -> Bo<Counting> {
    device.create(BoInfo::new(4096), ()).expect("a handle")
}

/// A driver that calls its device from inside an answer.
#[derive(Default)]
struct Meddler {
    device: OnceLock<Device<Meddler>>,
    answers: Mutex<Vec<String>>,
}

impl Meddler {
    fn meddle(&self) {
        let device = self.device.get().expect("set before the first object");
        let bo = device.create(BoInfo::new(4096), ()).expect("takes no lock");
        let nested = device.exec(OpContext::new(), |t| t.lock(&bo)?.validate(&vram()));
        let evicted = device.evict_all(MemType::VRAM, OpContext::new());
        self.answers.lock().push(format!(
            "{:?} {:?}",
            nested.map(drop).expect_err("inside an answer"),
            evicted.expect_err("inside an answer"),
        ));
    }
}

impl Driver for Meddler {
    type Object = ();

    fn evict_to(&self, _: &BoFacts, (): &()) -> Eviction {
        self.meddle();
        Eviction::To(system())
    }

    fn route(&self, _: &BoFacts, (): &(), _: &MoveFacts) -> Route {
        self.meddle();
        Route::Null
    }
}

#[test]
fn a_driver_that_calls_the_device_from_an_answer_is_refused() {
    let pages = PageCount::new(1).expect("a size");
    let device = Device::builder(Meddler::default(), still())
        .pages(Nothing::new(PageCount::MAX))
        .memory(
            MemType::VRAM,
            Box::new(Range::new(pages)),
            Nothing::new(pages),
        )
        .build()
        .expect("all parts are there");
    assert!(device.driver().device.set(device.clone()).is_ok());
    for _ in 0..2 {
        let bo = device.create(BoInfo::new(4096), ()).expect("a handle");
        let done = device.exec(OpContext::new(), |t| t.lock(&bo)?.validate(&vram()));
        drop(done.expect("the answer itself is fine"));
        std::mem::forget(bo);
    }
    let answers = device.driver().answers.lock().clone();
    assert_eq!(
        answers, ["Reentrant Reentrant"; 4],
        "three routes and an eviction"
    );
    device.check().expect("all invariants");
}

#[test]
fn a_transaction_inside_a_transaction_is_refused_and_harms_neither() {
    let device = device_of(4);
    let (a, b) = (create(&device), create(&device));
    let outer = device.exec(OpContext::new(), |t| {
        t.lock(&a)?.validate(&vram())?;
        let inner = device.exec(OpContext::new(), |t| t.lock(&b)?.validate(&vram()));
        assert!(matches!(inner, Err(Error::Reentrant)));
        Ok(())
    });
    drop(outer.expect("the outer one goes on"));
    let after = device.exec(OpContext::new(), |t| t.lock(&b)?.validate(&vram()));
    drop(after.expect("nothing is left behind"));
}

#[test]
fn locking_twice_is_told_and_a_foreign_object_is_refused() {
    let (device, other) = (device_of(4), device_of(4));
    let (a, foreign) = (create(&device), create(&other));
    let done = device.exec(OpContext::new(), |t| {
        let reserved = t.lock(&a)?;
        assert!(matches!(t.lock(&a), Err(Error::AlreadyLocked)));
        assert!(matches!(t.lock(&foreign), Err(Error::Invalid(_))));
        reserved.validate(&vram())
    });
    let locked = done.expect("the first lock holds");
    assert!(locked.get(&a).is_ok());
    assert!(matches!(locked.get(&foreign), Err(Error::Invalid(_))));
}

/// Fails the n-th lock.
struct NthLock(AtomicU64);

impl Faults for NthLock {
    fn hit(&self, site: Site) -> bool {
        site == Site::Lock && self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[test]
fn a_deadlock_at_any_lock_restarts_the_closure_and_nothing_else() {
    for nth in 1..=3 {
        for swallowed in [false, true] {
            let pages = PageCount::new(8).expect("a size");
            let device = Device::builder(Counting, still())
                .pages(Nothing::new(PageCount::MAX))
                .memory(
                    MemType::VRAM,
                    Box::new(Range::new(pages)),
                    Nothing::new(pages),
                )
                .faults(Arc::new(NthLock(AtomicU64::new(nth))))
                .build()
                .expect("all parts are there");
            let bos = [(); 3].map(|()| create(&device));
            let mut runs = 0;
            let done = device.exec(OpContext::new(), |t| {
                runs += 1;
                for bo in &bos {
                    match t.lock(bo) {
                        Ok(reserved) => reserved.validate(&vram())?,
                        Err(Error::Deadlock) if swallowed => {
                            // Whoever swallows it gets nothing more.
                            assert!(matches!(t.lock(bo), Err(Error::Deadlock)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(runs)
            });
            assert_eq!(*done.expect("a restart is no failure").value(), 2);
            assert_eq!(device.back_offs(), 1);
            device.check().expect("all invariants");
        }
    }
}

#[test]
fn fences_added_once_are_waited_for_by_class() {
    let (device, timeline) = device();
    let bo = create(&device);
    let locked = device
        .exec(OpContext::new(), |t| {
            let reserved = t.lock(&bo)?;
            reserved.validate(&vram())?;
            reserved.reserve_fences(1)
        })
        .expect("there is room");
    let fence = timeline.issue();
    locked.fence(&bo, &fence, Usage::Read).expect("it is held");
    drop(locked);
    let look = |usage| {
        let done = device.exec(OpContext::new().without_waiting(), |t| {
            Ok(t.lock(&bo)?.wait_idle(usage).map_err(|e| e.to_errno()))
        });
        *done.expect("the lock is free").value()
    };
    assert_eq!(
        look(Usage::Write),
        Ok(()),
        "the class of writes leaves reads out"
    );
    assert_eq!(look(Usage::Read), Err(16));
    timeline.signal(fence.seqno());
    assert_eq!(look(Usage::Bookkeep), Ok(()));
}

#[test]
fn a_pin_that_was_undone_by_hand_drops_quietly() {
    let device = device_of(4);
    let bo = create(&device);
    let locked = device
        .exec(OpContext::new(), |t| {
            let reserved = t.lock(&bo)?;
            reserved.validate(&vram())?;
            Ok(reserved.pin_guard())
        })
        .expect("there is room");
    locked
        .get(&bo)
        .and_then(|r| r.unpin())
        .expect("it is pinned");
    drop(locked);
    assert_eq!(device.eviction_order(MemType::VRAM, 0), [bo.id()]);
}

#[test]
fn a_timeline_that_goes_away_wakes_who_waits_for_it() {
    let timeline = Timeline::new(9, still());
    let fence = timeline.issue();
    drop(timeline);
    assert!(fence.is_signalled());
}

/// An object whose content is somebody else's is locked, fenced and released; nothing else is done to it.
#[test]
fn what_lies_in_memory_of_others_goes_nowhere() {
    let (device, timeline) = device();
    let info = BoInfo::new(8192).foreign();
    let bo = device.create(info, ()).unwrap();
    let refused = |what: &str, answer: Result<(), Error>| {
        let error = answer.expect_err(what);
        assert!(matches!(error, Error::Unsupported(_)), "{what}: {error}");
    };
    let locked = device.exec(OpContext::new(), |t| {
        let reserved = t.lock(&bo)?;
        for place in [vram(), system(), Placement::default()] {
            refused("validate", reserved.validate(&place));
        }
        refused("populate", reserved.populate());
        refused("swap", reserved.swap_out());
        refused("read", reserved.read(0, &mut [0]));
        refused("write", reserved.write(0, &[0]));
        refused("side", reserved.side().map(drop));
        refused("vmap", reserved.vmap(0..1).map(drop));
        reserved.wait_idle(Usage::Write)?;
        reserved.reserve_fences(1)
    });
    let fence = timeline.issue();
    let locked = locked.unwrap();
    locked.fence_all(&fence, Usage::Write);
    assert_eq!(locked.get(&bo).unwrap().mem_type(), None);
    drop(locked);
    timeline.signal(fence.seqno());
    drop(bo);
    device.check().unwrap();
    device.close(None).unwrap();
}
