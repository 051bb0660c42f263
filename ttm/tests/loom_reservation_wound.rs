//! Loom: two transactions that want the same two objects in opposite orders both finish, whatever
//! the memory orders of the ages and the wounds let each of them see (I-44, I-45).
#![cfg(loom)]

mod loom_model;

use loom::thread;
use ttm::bo::BoInfo;
use ttm::context::OpContext;
use ttm::fixture::device_of;

#[test]
fn opposite_orders_finish() {
    loom_model::explore(2, || {
        let device = device_of(1);
        let [a, b] = [(); 2].map(|()| device.create(BoInfo::new(4096), ()).unwrap());
        let other = {
            let (device, a, b) = (device.clone(), a.clone(), b.clone());
            thread::spawn(move || {
                let locked = device.exec(OpContext::new(), |t| {
                    t.lock(&b)?;
                    t.lock(&a).map(drop)
                });
                drop(locked.unwrap());
            })
        };
        let locked = device.exec(OpContext::new(), |t| {
            t.lock(&a)?;
            t.lock(&b).map(drop)
        });
        drop(locked.unwrap());
        other.join().unwrap();
        assert!(!a.is_locked() && !b.is_locked());
        assert!(device.back_offs() <= 1);
    });
}
