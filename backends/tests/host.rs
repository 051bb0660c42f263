//! The laws of the host backends' time and threads.

use backends::host::{Threads, WallClock, wall_clock};
use ttm::clock::{Clock, Progress, Service, Time, WaitCell, WaitFor, Woken};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};

#[test]
fn the_wall_clock_runs_forward_and_keeps_deadlines() {
    let clock = WallClock::new();
    let cell = WaitCell::new();
    let until = clock.now().after_nanos(2_000_000);
    assert_eq!(
        clock.park(&cell, Some(until), WaitFor::Work),
        Woken::TimedOut
    );
    assert!(clock.now() >= until);
    clock.unpark(&cell);
    assert_eq!(
        clock.park(&cell, Some(Time::NEVER), WaitFor::Work),
        Woken::Notified
    );
}

/// Counts up to `to`.
struct Counting {
    done: AtomicU64,
    to: AtomicU64,
    bell: Arc<WaitCell>,
}

impl Service for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
    fn step(&self) -> Progress {
        if self.done.load(Ordering::SeqCst) >= self.to.load(Ordering::SeqCst) {
            return Progress::Idle;
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        Progress::Did
    }
    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}

#[test]
fn services_are_stepped_until_idle_again_at_the_bell_and_never_after_the_drop() {
    let clock = wall_clock();
    let counting = Arc::new(Counting {
        done: AtomicU64::new(0),
        to: AtomicU64::new(5),
        bell: WaitCell::new(),
    });
    let threads = Threads::start(&clock, [counting.clone() as Arc<dyn Service>]).unwrap();
    assert_eq!(threads.len(), 1);
    let reach = |n| {
        while counting.done.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
    };
    reach(5);
    counting.to.store(9, Ordering::SeqCst);
    clock.unpark(counting.bell());
    reach(9);
    // The thread looks again by itself, if nobody rings.
    counting.to.store(10, Ordering::SeqCst);
    reach(10);
    drop(threads);
    counting.to.store(20, Ordering::SeqCst);
    assert_eq!(counting.done.load(Ordering::SeqCst), 10);
    assert_eq!(Arc::strong_count(&counting), 1);
}
