//! Loom: whoever sees a point reached sees its error, and what its work wrote (I-33).
#![cfg(loom)]

mod loom_model;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use ttm::fence::{FenceError, Status, Timeline};
use ttm::fixture::still;

#[test]
fn a_reached_point_shows_its_error_and_its_work() {
    loom_model::explore(3, || {
        let timeline = Timeline::new(1, still());
        let (first, second) = (timeline.issue(), timeline.issue());
        let work = Arc::new(UnsafeCell::new(0));
        let worker = {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                // SAFETY: the reader looks only after the signal; loom checks that.
                work.with_mut(|work| unsafe { *work = 7 });
                timeline.signal(1);
                timeline.fail(2, FenceError::Failed);
            })
        };
        if first.is_signalled() {
            // SAFETY: written before the signal, and not again.
            assert_eq!(work.with(|work| unsafe { *work }), 7);
            assert_eq!(first.status(), Status::Done);
        }
        if second.is_signalled() {
            assert!(first.is_signalled());
            assert_eq!(second.status(), Status::Failed(FenceError::Failed));
        }
        worker.join().unwrap();
        assert_eq!(second.status(), Status::Failed(FenceError::Failed));
    });
}
