//! Loom: a wait and a signal that meet in any way end in a wake-up.
#![cfg(loom)]

mod loom_model;

use loom::thread;
use ttm::fence::{FenceError, Status, Timeline};
use ttm::fixture::still;

#[test]
fn no_waiter_misses_its_signal() {
    loom_model::explore(3, || {
        let timeline = Timeline::new(1, still());
        let (first, second) = (timeline.issue(), timeline.issue());
        let worker = thread::spawn(move || {
            timeline.signal(1);
            // The second is left to the end of the timeline.
            drop(timeline);
        });
        let other = thread::spawn(move || second.wait(None).unwrap());
        assert_eq!(first.wait(None).unwrap(), Status::Done);
        assert_eq!(other.join().unwrap(), Status::Failed(FenceError::Abandoned));
        worker.join().unwrap();
    });
}
