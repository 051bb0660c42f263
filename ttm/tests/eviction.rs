//! Who leaves when memory is short: order, protection, crowds of locked objects, and many
//! transactions at once. On a device made of counters, so that only the decisions are tested.

use ttm::bo::{Bo, BoInfo, SharedReservation};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::fixture::{Counting, device_of, system, vram};
use ttm::placement::{MemType, PageCount};
use ttm::resource::{Group, Limits};
use ttm::sync::Arc;

const PAGE: u64 = 4096;

fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("a size")
}

fn objects(device: &Device<Counting>, n: usize) -> Vec<Bo<Counting>> {
    let create = |_| {
        device
            .create(BoInfo::new(PAGE), ())
            .expect("room for a handle")
    };
    (0..n).map(create).collect()
}

fn touch(device: &Device<Counting>, bo: &Bo<Counting>) {
    device
        .exec(OpContext::new(), |t| t.lock(bo)?.validate(&vram()))
        .expect("something can always leave");
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn victims_leave_in_the_exact_order_of_last_use() {
    for seed in 1..40 {
        let device = device_of(7);
        let bos = objects(&device, 12);
        let mut random = Random(seed);
        let mut model: Vec<u64> = Vec::new();
        for step in 0..400 {
            let bo = &bos[random.below(bos.len())];
            touch(&device, bo);
            model.retain(|id| *id != bo.id());
            if model.len() == 7 {
                model.remove(0);
            }
            model.push(bo.id());
            assert_eq!(
                device.eviction_order(MemType::VRAM, 0),
                model,
                "seed {seed} step {step}"
            );
        }
        device.check().expect("all invariants");
    }
}

#[test]
fn several_objects_of_a_transaction_age_in_the_order_in_which_it_locked_them() {
    let device = device_of(4);
    let bos = objects(&device, 4);
    bos.iter().for_each(|bo| touch(&device, bo));
    let locked = device.exec(OpContext::new(), |t| {
        for n in [2, 0, 3] {
            t.lock(&bos[n])?.validate(&vram())?;
        }
        Ok(())
    });
    drop(locked.expect("all are resident"));
    let ids: Vec<u64> = [1, 2, 0, 3].map(|n| bos[n].id()).to_vec();
    assert_eq!(device.eviction_order(MemType::VRAM, 0), ids);
}

#[test]
fn a_pinned_object_stays_and_leaves_again_after_its_last_unpin() {
    let device = device_of(2);
    let bos = objects(&device, 3);
    let pin = {
        let locked = device
            .exec(OpContext::new(), |t| {
                let reserved = t.lock(&bos[0])?;
                reserved.validate(&vram())?;
                Ok(reserved.pin_guard())
            })
            .expect("the memory is empty");
        assert_eq!(device.unevictable(MemType::VRAM), [bos[0].id()]);
        locked
    };
    drop(pin);
    touch(&device, &bos[1]);
    touch(&device, &bos[2]);
    assert_eq!(device.eviction_order(MemType::VRAM, 0).len(), 2);
    device.check().expect("all invariants");
}

#[test]
fn a_locked_crowd_at_the_head_is_looked_at_once() {
    let device = device_of(100);
    let bos = objects(&device, 120);
    bos[..100].iter().for_each(|bo| touch(&device, bo));
    std::thread::scope(|scope| {
        let (held, is_held) = std::sync::mpsc::channel();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let (device, bos) = (&device, &bos);
        scope.spawn(move || {
            let locked = device.exec(OpContext::new(), |t| {
                for bo in &bos[..50] {
                    t.lock(bo)?;
                }
                Ok(())
            });
            held.send(()).expect("the test waits");
            let _ = is_done.recv();
            drop(locked);
        });
        is_held.recv().expect("the crowd is locked");
        bos[100..].iter().for_each(|bo| touch(device, bo));
        let counters = device.manager(MemType::VRAM).expect("there").counters();
        assert_eq!(counters.busy_victims, 50, "each of the crowd once");
        assert_eq!(counters.evictions, 20);
        done.send(()).expect("the crowd waits");
    });
    let order = device.eviction_order(MemType::VRAM, 0);
    assert_eq!(order.len(), 100, "the crowd is back in order");
    device.check().expect("all invariants");
}

#[test]
fn no_transaction_fails_while_something_can_leave() {
    let device = device_of(16);
    let bos = objects(&device, 60);
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let (device, bos) = (&device, &bos);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..3_000 {
                    let wanted = [0; 4].map(|_| random.below(bos.len()));
                    let done = device.exec(OpContext::new(), |t| {
                        for n in wanted {
                            match t.lock(&bos[n]) {
                                Ok(reserved) => reserved.validate(&vram())?,
                                Err(ttm::Error::AlreadyLocked) => {}
                                Err(error) => return Err(error),
                            }
                        }
                        Ok(())
                    });
                    drop(done.expect("four times four objects fit at once"));
                }
            });
        }
    });
    device.check().expect("all invariants");
    drop(bos);
    device.close(None).expect("nothing is left");
}

#[test]
fn what_cannot_fit_is_refused_with_what_was_tried() {
    let device = device_of(8);
    let bos = objects(&device, 8);
    let pins = device.exec(OpContext::new(), |t| {
        for bo in &bos {
            let reserved = t.lock(bo)?;
            reserved.validate(&vram())?;
            reserved.pin();
        }
        Ok(())
    });
    drop(pins.expect("they fit"));
    let more = device.create(BoInfo::new(PAGE), ()).expect("a handle");
    let refused = device.exec(OpContext::new(), |t| t.lock(&more)?.validate(&vram()));
    let text = refused.expect_err("all is pinned").to_string();
    assert!(text.contains("vram: 0 pages free"), "{text}");
    let huge = device.create(BoInfo::new(9 * PAGE), ()).expect("a handle");
    let refused = device.exec(OpContext::new(), |t| t.lock(&huge)?.validate(&vram()));
    assert_eq!(refused.expect_err("larger than all").to_errno(), 7);
}

#[test]
fn a_protected_group_keeps_its_share_and_gives_what_is_above_it() {
    let device = device_of(10);
    let game = Group::new("game", None);
    let other = Group::new("other", None);
    let limits = Limits {
        min: pages(4),
        ..Limits::default()
    };
    game.set_limits(MemType::VRAM, limits);
    let create = |group: &Arc<Group>| {
        let info = BoInfo::new(PAGE).group(group);
        device.create(info, ()).expect("a handle")
    };
    let games: Vec<_> = (0..6).map(|_| create(&game)).collect();
    games.iter().for_each(|bo| touch(&device, bo));
    let others: Vec<_> = (0..20).map(|_| create(&other)).collect();
    others.iter().for_each(|bo| touch(&device, bo));
    assert_eq!(game.used(MemType::VRAM), pages(4), "older, but protected");
    assert_eq!(other.used(MemType::VRAM), pages(6));
    device.check().expect("all invariants");
}

#[test]
fn a_group_at_its_limit_evicts_only_its_own() {
    let device = device_of(10);
    let small = Group::new("small", None);
    let limits = Limits {
        max: pages(2),
        ..Limits::default()
    };
    small.set_limits(MemType::VRAM, limits);
    let others = objects(&device, 5);
    others.iter().for_each(|bo| touch(&device, bo));
    let create = |_| {
        let info = BoInfo::new(PAGE).group(&small);
        device.create(info, ()).expect("a handle")
    };
    let mine: Vec<_> = (0..4).map(create).collect();
    mine.iter().for_each(|bo| touch(&device, bo));
    let left = device.eviction_order(MemType::VRAM, 0);
    let mut expected: Vec<u64> = others.iter().map(Bo::id).collect();
    expected.extend([mine[2].id(), mine[3].id()]);
    assert_eq!(left, expected);
    small.set_limits(
        MemType::VRAM,
        Limits {
            max: pages(0),
            ..Limits::default()
        },
    );
    let refused = device.exec(OpContext::new(), |t| t.lock(&mine[0])?.validate(&vram()));
    assert_eq!(refused.expect_err("a limit of zero").to_errno(), 11);
    device.check().expect("all invariants");
}

#[test]
fn a_bulk_group_ages_as_one_and_keeps_its_own_order() {
    let device = device_of(8);
    let shared = SharedReservation::new();
    let bulk = device.bulk_group();
    let create = |_| {
        let info = BoInfo::new(PAGE).reservation(&shared);
        device.create(info, ()).expect("a handle")
    };
    let members: Vec<_> = (0..3).map(create).collect();
    let singles = objects(&device, 3);
    for bo in &members {
        let locked = device.exec(OpContext::new(), |t| {
            let reserved = t.lock(bo)?;
            reserved.validate(&vram())?;
            reserved.set_bulk(Some(&bulk))
        });
        drop(locked.expect("there is room"));
    }
    singles.iter().for_each(|bo| touch(&device, bo));
    touch(&device, &members[0]);
    let ids = |bos: &[&Bo<Counting>]| bos.iter().map(|bo| bo.id()).collect::<Vec<_>>();
    let expected = ids(&[
        &singles[0],
        &singles[1],
        &singles[2],
        &members[1],
        &members[2],
        &members[0],
    ]);
    assert_eq!(device.eviction_order(MemType::VRAM, 0), expected);
    device.check().expect("all invariants");
    let own = device.exec(OpContext::new(), |t| {
        t.lock(&singles[0])?.set_bulk(Some(&bulk))
    });
    assert_eq!(own.expect_err("a reservation of its own").to_errno(), 22);
}

#[test]
fn lower_priorities_leave_first_whatever_their_age() {
    let device = device_of(3);
    let low = device.create(BoInfo::new(PAGE), ()).expect("a handle");
    let info = BoInfo::new(PAGE).priority(3);
    let high = [0; 2].map(|_| device.create(info.clone(), ()).expect("a handle"));
    touch(&device, &high[0]);
    touch(&device, &high[1]);
    touch(&device, &low);
    touch(&device, &objects(&device, 1)[0]);
    assert_eq!(device.eviction_order(MemType::VRAM, 3).len(), 2);
    assert!(!device.eviction_order(MemType::VRAM, 0).contains(&low.id()));
}

#[test]
fn a_shared_reservation_gives_its_other_objects_only_if_told_so() {
    let device = device_of(2);
    let shared = SharedReservation::new();
    let create = |_| {
        let info = BoInfo::new(PAGE).reservation(&shared);
        device.create(info, ()).expect("a handle")
    };
    let bos: Vec<_> = (0..3).map(create).collect();
    touch(&device, &bos[0]);
    touch(&device, &bos[1]);
    let refused = device.exec(OpContext::new(), |t| t.lock(&bos[2])?.validate(&vram()));
    assert_eq!(refused.expect_err("the others are held").to_errno(), 28);
    let context = OpContext::new().evicting_shared();
    let done = device.exec(context, |t| t.lock(&bos[2])?.validate(&vram()));
    drop(done.expect("the oldest of the others leaves"));
    let expected = [bos[1].id(), bos[2].id()];
    assert_eq!(device.eviction_order(MemType::VRAM, 0), expected);
    device.check().expect("all invariants");
}

#[test]
fn a_switched_off_memory_is_passed_over_and_loses_nobody() {
    let device = device_of(1);
    let bos = objects(&device, 2);
    touch(&device, &bos[0]);
    device
        .manager(MemType::VRAM)
        .expect("there")
        .set_used(false);
    let either = vram().with(system().places()[0]);
    let done = device.exec(OpContext::new(), |t| {
        let reserved = t.lock(&bos[1])?;
        reserved.validate(&either)?;
        Ok(reserved.mem_type())
    });
    assert_eq!(
        *done.expect("system is never full").value(),
        Some(MemType::SYSTEM)
    );
    assert_eq!(device.eviction_order(MemType::VRAM, 0), [bos[0].id()]);
}
