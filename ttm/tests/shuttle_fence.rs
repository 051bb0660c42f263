//! Fences and the retire queue under many schedules: a callback runs once, an error is there
//! before its fence, no waiter is forgotten, and nothing leaves before its fences (I-33, I-34,
//! I-35, I-39).
#![cfg(shuttle)]

mod shuttle_explore;

use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use ttm::Error;
use ttm::bo::BoInfo;
use ttm::context::{CancelToken, OpContext};
use ttm::fence::{Fence, FenceError, RetireQueue, Status, Timeline, Usage};
use ttm::fixture::{device, still, vram};

use shuttle_explore::{check, explore, explore_all};

fn timeline() -> Timeline {
    Timeline::new(1, still())
}

#[test]
fn a_waiter_wakes_however_it_meets_the_signal() {
    fn scenario() {
        let timeline = timeline();
        let fence = timeline.issue();
        let waiter = {
            let fence = fence.clone();
            thread::spawn(move || fence.wait(None).unwrap())
        };
        timeline.signal(1);
        assert_eq!(waiter.join().unwrap(), Status::Done);
    }
    explore_all(20_000, scenario);
}

#[test]
fn waiters_of_all_points_wake_in_every_order_of_signals() {
    explore(3_000, || {
        let timeline = Arc::new(timeline());
        let fences: Vec<Fence> = (0..3).map(|_| timeline.issue()).collect();
        let waiters: Vec<_> = fences
            .iter()
            .cloned()
            .map(|fence| thread::spawn(move || fence.wait(None).unwrap()))
            .collect();
        let other = Arc::clone(&timeline);
        let signaller = thread::spawn(move || {
            other.signal(2);
            other.signal(1);
        });
        timeline.signal(1);
        timeline.signal(3);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Status::Done);
        }
        signaller.join().unwrap();
        assert_eq!(timeline.reached(), 3);
    });
}

#[test]
fn a_callback_runs_exactly_once_also_when_added_late() {
    fn scenario() {
        let timeline = Arc::new(timeline());
        let fences = [timeline.issue(), timeline.issue()];
        let runs: Arc<[AtomicU64; 2]> = Arc::default();
        let adder = {
            let (fences, runs) = (fences.clone(), Arc::clone(&runs));
            thread::spawn(move || {
                for (n, fence) in fences.iter().enumerate() {
                    let (runs, seen) = (Arc::clone(&runs), fence.clone());
                    fence.on_signal(move |status| {
                        assert_ne!(status, Status::Pending);
                        assert!(seen.is_signalled(), "called back before the signal");
                        runs[n].fetch_add(1, Ordering::SeqCst);
                    });
                }
            })
        };
        let other = Arc::clone(&timeline);
        let signaller = thread::spawn(move || other.signal(2));
        timeline.signal(1);
        adder.join().unwrap();
        signaller.join().unwrap();
        let runs = runs.each_ref().map(|n| n.load(Ordering::SeqCst));
        assert_eq!((runs, timeline.callback_panics()), ([1, 1], 0));
    }
    explore_all(20_000, scenario);
    explore(3_000, scenario);
}

#[test]
fn an_error_is_there_before_its_fence_is_signalled() {
    fn scenario() {
        let timeline = timeline();
        let (first, second) = (timeline.issue(), timeline.issue());
        let reader = thread::spawn(move || {
            let mut ended = false;
            for _ in 0..3 {
                if second.is_signalled() {
                    ended = true;
                    assert!(
                        first.is_signalled(),
                        "a point was reached before the one before it"
                    );
                    assert_eq!(second.status(), Status::Failed(FenceError::Failed));
                    assert_eq!(first.status(), Status::Done);
                }
                assert!(
                    !ended || second.is_signalled(),
                    "a fence went back to pending"
                );
                thread::yield_now();
            }
        });
        timeline.fail(2, FenceError::Failed);
        timeline.close(FenceError::DeviceLost);
        reader.join().unwrap();
    }
    explore_all(20_000, scenario);
    explore(3_000, scenario);
}

#[test]
fn a_timeline_that_ends_leaves_no_waiter_behind() {
    explore(3_000, || {
        let timeline = timeline();
        let fences = [timeline.issue(), timeline.issue()];
        let waiters = fences.map(|fence| thread::spawn(move || fence.wait(None).unwrap()));
        let signaller = thread::spawn(move || {
            timeline.signal(1);
            drop(timeline);
        });
        let [first, second] = waiters.map(|t| t.join().unwrap());
        assert_eq!(
            (first, second),
            (Status::Done, Status::Failed(FenceError::Abandoned))
        );
        signaller.join().unwrap();
    });
}

#[test]
fn a_future_is_polled_again_after_the_signal() {
    fn scenario() {
        let timeline = timeline();
        let fence = timeline.issue();
        let signaller = thread::spawn(move || timeline.signal(1));
        assert_eq!(shuttle::future::block_on(fence), Status::Done);
        signaller.join().unwrap();
    }
    explore_all(20_000, scenario);
}

#[test]
fn nothing_leaves_the_retire_queue_before_its_fences_and_everything_once() {
    explore(3_000, || {
        let timelines = [
            Arc::new(Timeline::new(1, still())),
            Arc::new(Timeline::new(2, still())),
        ];
        let queue: Arc<Mutex<RetireQueue<(usize, Vec<Fence>)>>> = Arc::default();
        let out: Arc<[AtomicU64; 4]> = Arc::default();
        // Even numbers wait for one timeline, odd ones for both.
        let pusher = {
            let (timelines, queue) = (timelines.clone(), Arc::clone(&queue));
            thread::spawn(move || {
                for n in 0..4 {
                    let fences: Vec<_> = timelines[..1 + n % 2].iter().map(|t| t.issue()).collect();
                    queue.lock().unwrap().push(fences.clone(), (n, fences));
                }
            })
        };
        let reaper = |times: usize| {
            let (queue, out) = (Arc::clone(&queue), Arc::clone(&out));
            move || {
                for _ in 0..times {
                    queue.lock().unwrap().reap(
                        |_, _| true,
                        |(n, fences)| {
                            assert!(fences.iter().all(Fence::is_signalled), "{n} left too early");
                            out[n].fetch_add(1, Ordering::SeqCst);
                        },
                    );
                }
            }
        };
        let signallers = timelines.clone().map(|timeline| {
            thread::spawn(move || {
                for seqno in 1..=4 {
                    timeline.signal(seqno);
                }
            })
        });
        let reapers = [thread::spawn(reaper(3)), thread::spawn(reaper(3))];
        pusher.join().unwrap();
        signallers
            .into_iter()
            .chain(reapers)
            .for_each(|t| t.join().unwrap());
        reaper(1)();
        assert_eq!(out.each_ref().map(|n| n.load(Ordering::SeqCst)), [1; 4]);
        assert!(queue.lock().unwrap().is_empty());
    });
}

#[test]
fn a_cancelled_wait_for_a_fence_ends_before_the_fence() {
    fn scenario() {
        let (device, timeline) = device();
        let bo = device.create(BoInfo::new(4096), ()).unwrap();
        let locked = device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&bo)?;
            reserved.validate(&vram())?;
            reserved.reserve_fences(1)
        });
        locked.unwrap().fence_all(&timeline.issue(), Usage::Write);
        let token = CancelToken::new();
        let waiter = {
            let (device, bo, token) = (device.clone(), bo.clone(), token.clone());
            thread::spawn(move || {
                let context = OpContext::new().cancelled_by(&token);
                device
                    .exec(context, |t| t.lock(&bo)?.wait_idle(Usage::Read))
                    .map(drop)
            })
        };
        token.cancel();
        // The fence is signalled only after the waiter has left.
        let left = waiter.join().unwrap().unwrap_err();
        assert!(matches!(left, Error::Interrupted), "{left}");
        timeline.signal(1);
        check(&device);
    }
    explore_all(4_000, scenario);
    explore(2_000, scenario);
}
