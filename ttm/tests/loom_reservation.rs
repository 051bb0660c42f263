//! Loom: the lock word of a reservation keeps threads apart, hands over without losing anybody,
//! and orders what they write under it.
#![cfg(loom)]

mod loom_model;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use ttm::bo::BoInfo;
use ttm::context::OpContext;
use ttm::fixture::device_of;

#[test]
fn what_was_written_under_a_reservation_is_seen_under_the_next() {
    loom_model::explore(2, || {
        let device = device_of(1);
        let bo = device.create(BoInfo::new(4096), ()).unwrap();
        let guarded = Arc::new(UnsafeCell::new(0));
        let run = {
            let (device, bo, guarded) = (device.clone(), bo.clone(), Arc::clone(&guarded));
            move || {
                let locked = device
                    .exec(OpContext::new(), |t| t.lock(&bo).map(drop))
                    .unwrap();
                // SAFETY: the reservation is held; loom checks that this is enough.
                guarded.with_mut(|value| unsafe { *value += 1 });
                drop(locked);
            }
        };
        let threads = [thread::spawn(run.clone()), thread::spawn(run.clone())];
        run();
        threads.into_iter().for_each(|t| t.join().unwrap());
        // SAFETY: all threads have ended.
        assert_eq!(guarded.with(|value| unsafe { *value }), 3);
        assert!(!bo.is_locked());
    });
}
