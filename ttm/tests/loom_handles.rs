//! Loom: the last of several handles that drop at once takes the object down, once, after all that
//! was done through the others.
#![cfg(loom)]

mod loom_model;

use loom::thread;
use ttm::bo::BoInfo;
use ttm::fixture::device_of;

#[test]
fn the_last_handle_is_one() {
    loom_model::explore(3, || {
        let device = device_of(1);
        let bo = device.create(BoInfo::new(4096), ()).unwrap();
        let clones = [bo.clone(), bo.clone()];
        let threads = clones.map(|clone| {
            thread::spawn(move || {
                let more = clone.clone();
                drop(clone);
                drop(more);
            })
        });
        drop(bo);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(device.live_objects(), 1, "it was taken down by a drop");
        assert!(device.reap());
        assert_eq!(device.live_objects(), 0);
        assert!(!device.reap(), "it was released twice");
    });
}
