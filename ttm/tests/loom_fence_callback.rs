//! Loom: a callback that is added while its fence is signalled runs exactly once (I-39).
#![cfg(loom)]

mod loom_model;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use ttm::fence::Timeline;
use ttm::fixture::still;

#[test]
fn a_callback_runs_once_whoever_comes_first() {
    loom_model::explore(3, || {
        let timeline = Timeline::new(1, still());
        let fence = timeline.issue();
        let runs = Arc::new(AtomicUsize::new(0));
        let worker = thread::spawn(move || {
            timeline.signal(1);
            assert_eq!(timeline.callback_panics(), 0);
        });
        let counter = Arc::clone(&runs);
        fence.on_signal(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        worker.join().unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    });
}
