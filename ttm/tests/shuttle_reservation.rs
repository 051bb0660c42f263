//! Reservations under many schedules: who locks in whatever order gets everything in the end,
//! one at a time, and only the younger give way (I-44 to I-48).
#![cfg(shuttle)]

mod shuttle_explore;

use shuttle::sync::Arc;
use shuttle::thread;
use ttm::bo::{Bo, BoInfo, SharedReservation};
use ttm::context::{CancelToken, OpContext};
use ttm::device::Device;
use ttm::fixture::{Counting, device_of};
use ttm::{Error, Result};

use shuttle_explore::{Alone, check, explore, explore_all};

/// A device, objects of it, and what guards each of them.
struct Stage {
    device: Device<Counting>,
    objects: Vec<(Bo<Counting>, Alone)>,
}

impl Stage {
    fn new(objects: usize) -> Arc<Self> {
        let device = device_of(4);
        let object = |_| {
            (
                device.create(BoInfo::new(4096), ()).unwrap(),
                Alone::default(),
            )
        };
        let objects = (0..objects).map(object).collect();
        Arc::new(Self { device, objects })
    }

    /// Locks the objects in the order given, and passes through each while it holds all.
    fn lock(&self, order: &[usize], context: OpContext) -> Result<()> {
        let locked = self.device.exec(context, |t| {
            for n in order {
                t.lock(&self.objects[*n].0)?;
            }
            Ok(())
        })?;
        order.iter().for_each(|n| self.objects[*n].1.pass());
        drop(locked);
        Ok(())
    }

    /// One thread for each order, and what has to hold when they have ended.
    fn play(self: &Arc<Self>, orders: &'static [&'static [usize]], times: usize) {
        let threads: Vec<_> = orders
            .iter()
            .map(|order| {
                let stage = Arc::clone(self);
                thread::spawn(move || {
                    for _ in 0..times {
                        stage.lock(order, OpContext::new()).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        check(&self.device);
        assert!(self.objects.iter().all(|(bo, _)| !bo.is_locked()));
    }
}

#[test]
fn one_object_is_held_by_one_at_a_time() {
    explore_all(4_000, || Stage::new(1).play(&[&[0], &[0]], 1));
    explore(2_000, || Stage::new(1).play(&[&[0], &[0], &[0]], 2));
}

#[test]
fn two_in_opposite_orders_both_finish() {
    explore_all(4_000, || Stage::new(2).play(&[&[0, 1], &[1, 0]], 1));
    explore(4_000, || Stage::new(2).play(&[&[0, 1], &[1, 0]], 2));
}

#[test]
fn a_cycle_of_three_resolves() {
    explore(4_000, || {
        Stage::new(3).play(&[&[0, 1], &[1, 2], &[2, 0]], 1)
    });
}

#[test]
fn a_cycle_of_four_resolves() {
    explore(2_000, || {
        Stage::new(4).play(&[&[0, 1], &[1, 2], &[2, 3], &[3, 0]], 1)
    });
}

#[test]
fn lists_in_opposite_orders_always_finish() {
    explore(4_000, || {
        Stage::new(4).play(&[&[0, 1, 2, 3], &[3, 2, 1, 0], &[2, 0, 3, 1]], 2);
    });
}

#[test]
fn a_lost_lock_is_waited_for_first_and_asked_for_again() {
    // The closure meets the lock that it lost at every possible position.
    explore(3_000, || {
        Stage::new(3).play(&[&[0, 1, 2], &[2, 1], &[1, 0]], 2)
    });
}

#[test]
fn objects_that_share_a_reservation_are_one() {
    explore(3_000, || {
        let device = device_of(4);
        let shared = SharedReservation::new();
        let with = |shared: Option<&SharedReservation>| {
            let info = BoInfo::new(4096);
            let info = match shared {
                Some(shared) => info.reservation(shared),
                None => info,
            };
            device.create(info, ()).unwrap()
        };
        let objects = Arc::new([with(Some(&shared)), with(Some(&shared)), with(None)]);
        let alone = Arc::new(Alone::default());
        let orders: [&[usize]; 3] = [&[0, 2, 1], &[2, 1], &[1, 0]];
        let threads: Vec<_> = orders
            .into_iter()
            .map(|order| {
                let (device, objects, alone) = (device.clone(), objects.clone(), alone.clone());
                thread::spawn(move || {
                    let locked = device
                        .exec(OpContext::new(), |t| {
                            for n in order {
                                t.lock(&objects[*n])?;
                            }
                            Ok(())
                        })
                        .unwrap();
                    alone.pass();
                    drop(locked);
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        check(&device);
    });
}

#[test]
fn the_same_object_twice_is_told_so_and_hangs_nobody() {
    explore(1_000, || {
        let stage = Stage::new(2);
        let other = Arc::clone(&stage);
        let twice = thread::spawn(move || other.lock(&[0, 1, 0], OpContext::new()));
        stage.lock(&[1, 0], OpContext::new()).unwrap();
        let refused = twice.join().unwrap().unwrap_err();
        assert!(matches!(refused, Error::AlreadyLocked), "{refused}");
        check(&stage.device);
    });
}

#[test]
fn a_cancelled_waiter_leaves_though_the_lock_stays_held() {
    fn scenario() {
        let stage = Stage::new(1);
        let held = stage
            .device
            .exec(OpContext::new(), |t| t.lock(&stage.objects[0].0).map(drop));
        let held = held.unwrap();
        let token = CancelToken::new();
        let waiter = {
            let (stage, token) = (Arc::clone(&stage), token.clone());
            thread::spawn(move || stage.lock(&[0], OpContext::new().cancelled_by(&token)))
        };
        let canceller = thread::spawn(move || token.cancel());
        // Whoever misses the token sleeps for ever: the lock is released only afterwards.
        let left = waiter.join().unwrap().unwrap_err();
        assert!(matches!(left, Error::Interrupted), "{left}");
        drop(held);
        canceller.join().unwrap();
        check(&stage.device);
    }
    explore_all(4_000, scenario);
    explore(2_000, scenario);
}

#[test]
fn a_cancelled_waiter_takes_nothing_from_the_next() {
    explore(3_000, || {
        let stage = Stage::new(2);
        let token = CancelToken::new();
        let spawn = |order: &'static [usize], token: Option<CancelToken>| {
            let stage = Arc::clone(&stage);
            thread::spawn(move || {
                let context = match &token {
                    Some(token) => OpContext::new().cancelled_by(token),
                    None => OpContext::new(),
                };
                stage.lock(order, context)
            })
        };
        let cancelled = spawn(&[0, 1], Some(token.clone()));
        let others = [spawn(&[1, 0], None), spawn(&[0], None)];
        token.cancel();
        match cancelled.join().unwrap() {
            Ok(()) | Err(Error::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
        others.into_iter().for_each(|t| t.join().unwrap().unwrap());
        check(&stage.device);
        assert!(stage.objects.iter().all(|(bo, _)| !bo.is_locked()));
    });
}

#[test]
fn who_does_not_wait_is_refused_and_holds_nothing() {
    explore(2_000, || {
        let stage = Stage::new(2);
        let other = Arc::clone(&stage);
        let hasty =
            thread::spawn(
                move || match other.lock(&[1, 0], OpContext::new().without_waiting()) {
                    Ok(()) | Err(Error::Busy) => {}
                    Err(error) => panic!("{error}"),
                },
            );
        stage.lock(&[0, 1], OpContext::new()).unwrap();
        hasty.join().unwrap();
        stage.lock(&[0, 1], OpContext::new()).unwrap();
        check(&stage.device);
    });
}
