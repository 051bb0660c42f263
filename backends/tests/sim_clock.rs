//! The laws of the virtual clock: turns, time, stalls, determinism.

use backends::sim::VirtualClock;
use ttm::clock::{Clock, Progress, Service, Time, WaitCell, WaitFor, Woken};
use ttm::fence::{FenceError, Status, Timeline};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

type Log = Arc<Mutex<Vec<(u64, String)>>>;

fn log() -> Log {
    Arc::new(Mutex::new(Vec::new()))
}

fn say(log: &Log, clock: &VirtualClock, what: impl Into<String>) {
    log.lock().push((clock.now().nanos(), what.into()));
}

/// Three clients that pass a token around, sleep, and are called by events.
fn busy_run(seed: u64) -> (Vec<(u64, String)>, u64) {
    let clock = VirtualClock::seeded(seed);
    let log = log();
    let cells: Vec<_> = (0..3).map(|_| WaitCell::new()).collect();
    for n in 0..20 {
        let (log, clock2) = (Arc::clone(&log), Arc::clone(&clock));
        let call = move |_| say(&log, &clock2, format!("event {n}"));
        clock.schedule(Time::from_nanos(n * 7 % 50), Box::new(call));
    }
    clock.scope(|s| {
        for n in 0..3 {
            let (log, cells, clock) = (&log, &cells, &clock);
            s.spawn(&format!("client {n}"), move || {
                for round in 0..10 {
                    say(log, clock, format!("client {n} round {round}"));
                    clock.unpark(&cells[(n + 1) % 3]);
                    clock.yield_now();
                    clock.advance(n as u64 * 3 + round);
                    let until = clock.now().after_nanos(5);
                    clock.park(&cells[n], Some(until), WaitFor::Other("the token"));
                }
            });
        }
    });
    let entries = log.lock().clone();
    (entries, clock.digest())
}

#[test]
fn the_same_program_runs_the_same_way() {
    let first = busy_run(0);
    assert!(first.0.len() == 50 && first.0.is_sorted_by_key(|entry| entry.0));
    for _ in 0..20 {
        assert_eq!(busy_run(0), first);
    }
    assert_eq!(busy_run(7), busy_run(7));
}

#[test]
fn seeds_explore_other_orders() {
    let digests: std::collections::BTreeSet<_> = (1..20).map(|seed| busy_run(seed).1).collect();
    assert!(digests.len() > 10, "{} orders of 19 seeds", digests.len());
}

#[test]
fn one_client_runs_at_a_time_in_the_order_of_spawning() {
    let clock = VirtualClock::new();
    let inside = AtomicU64::new(0);
    let order = Mutex::new(Vec::new());
    clock.scope(|s| {
        for n in 0..8 {
            let (inside, order, clock) = (&inside, &order, &clock);
            s.spawn("client", move || {
                for _ in 0..50 {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    order.lock().push(n);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    clock.yield_now();
                }
            });
        }
    });
    let order = order.into_inner();
    assert_eq!(
        order[..16],
        [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(clock.now(), Time::ZERO, "nobody waited");
}

#[test]
fn time_jumps_to_the_next_event_and_events_of_one_moment_keep_their_order() {
    let clock = VirtualClock::new();
    let log = log();
    for (at, name) in [(30, "c"), (10, "a"), (30, "d"), (20, "b"), (0, "now")] {
        let (log, clock2) = (Arc::clone(&log), Arc::clone(&clock));
        clock.schedule(
            Time::from_nanos(at),
            Box::new(move |now| {
                assert_eq!(now, clock2.now());
                say(&log, &clock2, name);
            }),
        );
    }
    clock.sleep(30);
    let entries: Vec<_> = log
        .lock()
        .iter()
        .map(|(at, n)| format!("{at}{n}"))
        .collect();
    assert_eq!(entries, ["0now", "10a", "20b", "30c", "30d"]);
}

#[test]
fn a_deadline_ends_a_park_unless_a_wake_up_comes_first() {
    let clock = VirtualClock::new();
    let cell = WaitCell::new();
    let park = |ns| clock.park(&cell, Some(Time::from_nanos(ns)), WaitFor::Work);
    assert_eq!(park(100), Woken::TimedOut);
    assert_eq!(clock.now().nanos(), 100);
    let (c, woken) = (Arc::clone(&clock), Arc::clone(&cell));
    clock.schedule(Time::from_nanos(150), Box::new(move |_| c.unpark(&woken)));
    assert_eq!(park(200), Woken::Notified);
    assert_eq!(clock.now().nanos(), 150);
    assert_eq!(park(120), Woken::TimedOut, "a past deadline");
    assert_eq!(clock.now().nanos(), 150, "time does not run backwards");
    clock.unpark(&cell);
    assert_eq!(
        park(999),
        Woken::Notified,
        "a wake-up before the sleep is kept"
    );
    assert_eq!(clock.now().nanos(), 150);
}

#[test]
fn when_nothing_can_happen_everybody_is_told_who_waits_for_what() {
    let clock = VirtualClock::new();
    let graphs = Mutex::new(Vec::new());
    clock.scope(|s| {
        let waits = [
            ("anna", WaitFor::Reservation { holder: 4 }),
            (
                "berta",
                WaitFor::Fence {
                    timeline: 2,
                    seqno: 9,
                },
            ),
        ];
        for (name, what) in waits {
            let (clock, graphs) = (&clock, &graphs);
            s.spawn(name, move || {
                clock.advance(10);
                let woken = clock.park(&WaitCell::new(), None, what);
                assert_eq!(woken, Woken::Stalled);
                graphs.lock().push(clock.wait_graph());
            });
        }
    });
    let graphs = graphs.into_inner();
    assert_eq!(graphs.len(), 2);
    assert_eq!(graphs[0], graphs[1]);
    for part in [
        "anna waits since 10ns",
        "age 4",
        "berta",
        "point 9 of timeline 2",
    ] {
        assert!(graphs[0].contains(part), "{part}: {}", graphs[0]);
    }
}

#[test]
fn a_thread_alone_stalls_too() {
    let clock = VirtualClock::new();
    let timeline = Timeline::new(5, clock.clone());
    let error = timeline.issue().wait(None).unwrap_err();
    assert!(matches!(error, ttm::error::Error::Stalled(_)));
    assert!(
        error.to_string().contains("point 1 of timeline 5"),
        "{error}"
    );
}

#[test]
fn a_fence_wakes_its_waiters_at_its_time() {
    let clock = VirtualClock::new();
    let timeline = Arc::new(Timeline::new(1, clock.clone()));
    let (good, bad) = (timeline.issue(), timeline.issue());
    let (t, at) = (Arc::clone(&timeline), Time::from_nanos(500));
    clock.schedule(at, Box::new(move |_| t.signal(1)));
    let (t, at) = (Arc::clone(&timeline), Time::from_nanos(900));
    clock.schedule(at, Box::new(move |_| t.fail(2, FenceError::Failed)));
    let seen = Mutex::new(Vec::new());
    clock.scope(|s| {
        for fence in [&bad, &good, &good] {
            let (clock, seen) = (&clock, &seen);
            s.spawn("waiter", move || {
                let status = fence.wait(None).unwrap();
                seen.lock().push((clock.now().nanos(), status));
            });
        }
    });
    let failed = Status::Failed(FenceError::Failed);
    let expected = [(500, Status::Done), (500, Status::Done), (900, failed)];
    assert_eq!(seen.into_inner(), expected);
}

#[test]
fn a_panicking_client_passes_its_turn_on_and_its_panic_comes_out() {
    let clock = VirtualClock::new();
    let finished = AtomicU64::new(0);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        clock.scope(|s| {
            let (clock, finished) = (&clock, &finished);
            s.spawn("bad", move || {
                clock.advance(10);
                panic!("on purpose");
            });
            s.spawn("good", move || {
                clock.advance(20);
                finished.fetch_add(1, Ordering::SeqCst);
            });
        });
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(finished.load(Ordering::SeqCst), 1);
    clock.sleep(5);
    assert_eq!(clock.now().nanos(), 25, "the clock goes on");
}

#[test]
fn a_panicking_event_comes_out_in_the_client_that_runs_next() {
    let clock = VirtualClock::new();
    clock.schedule(
        Time::from_nanos(5),
        Box::new(|_| panic!("event on purpose")),
    );
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clock.sleep(10)));
    assert_eq!(
        result.unwrap_err().downcast_ref(),
        Some(&"event on purpose")
    );
    clock.sleep(10);
    assert!(clock.now().nanos() >= 10);
}

#[test]
fn clients_spawn_clients_and_scopes_nest() {
    let clock = VirtualClock::new();
    let log = log();
    clock.scope(|s| {
        let (again, clock, log) = (s.clone(), &clock, &log);
        s.spawn("parent", move || {
            clock.advance(10);
            again.spawn("child", move || {
                clock.advance(5);
                say(log, clock, "child");
            });
            clock.scope(|inner| {
                inner.spawn("inner", || {
                    clock.advance(1);
                    say(log, clock, "inner");
                });
            });
            say(log, clock, "parent");
        });
    });
    let entries: Vec<_> = log
        .lock()
        .iter()
        .map(|(at, n)| format!("{at}{n}"))
        .collect();
    assert_eq!(entries, ["11inner", "11parent", "15child"]);
}

/// Does `left` steps, and unparks somebody with the last.
struct Work {
    left: AtomicU64,
    steps: AtomicU64,
    done: Arc<WaitCell>,
    clock: Arc<VirtualClock>,
    bell: Arc<WaitCell>,
}

impl Service for Work {
    fn name(&self) -> &'static str {
        "work"
    }
    fn step(&self) -> Progress {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Progress::Idle;
        }
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.left.store(left - 1, Ordering::SeqCst);
        if left == 1 {
            self.clock.unpark(&self.done);
        }
        Progress::Did
    }
    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}

#[test]
fn services_are_idle_before_time_advances() {
    let clock = VirtualClock::new();
    let work = Arc::new(Work {
        left: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        done: WaitCell::new(),
        clock: Arc::clone(&clock),
        bell: WaitCell::new(),
    });
    clock.add_service(work.clone());
    let w = Arc::clone(&work);
    clock.schedule(
        Time::from_nanos(50),
        Box::new(move |_| w.left.store(3, Ordering::SeqCst)),
    );
    clock.schedule(Time::from_nanos(51), Box::new(|_| {}));
    assert_eq!(clock.park(&work.done, None, WaitFor::Work), Woken::Notified);
    assert_eq!(clock.now().nanos(), 50);
    assert_eq!(work.steps.load(Ordering::SeqCst), 3);
    clock.clear_services();
    assert_eq!(Arc::strong_count(&work), 1);
}

#[test]
fn an_event_may_sleep_while_others_run() {
    let clock = VirtualClock::new();
    let log = log();
    let (c, l) = (Arc::clone(&clock), Arc::clone(&log));
    clock.schedule(
        Time::from_nanos(10),
        Box::new(move |_| {
            c.sleep(15);
            say(&l, &c, "event");
        }),
    );
    clock.scope(|s| {
        for (name, ns) in [("a", 20), ("b", 40)] {
            let (clock, log) = (&clock, &log);
            s.spawn(name, move || {
                clock.sleep(ns);
                say(log, clock, name);
            });
        }
    });
    let entries: Vec<_> = log
        .lock()
        .iter()
        .map(|(at, n)| format!("{at}{n}"))
        .collect();
    assert_eq!(entries, ["20a", "25event", "40b"]);
}
