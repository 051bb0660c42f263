//! Short system memory: what leaves, in which order, in which parts, and that all of it comes back.
//!
//! The first test has the idea of xe's shrink test: twice as much as fits, some of it dispensable,
//! read back in another order, with restores that are interrupted on purpose. The others are the
//! laws of the reclaim path (I-31, I-59…I-62, decision by decision) and of a suspend in two halves.

mod support;

use backends::sim::{Inject, SimDriver, checksum_words};
use placement::{MemType, PageCount};
use ttm::bo::{Bo, BoInfo};
use ttm::clock::Progress;
use ttm::context::OpContext;
use ttm::driver::Advice;
use ttm::error::Error;
use ttm::fence::{Status, Usage};
use ttm::resource::Group;
use ttm::sync::Arc;
use ttm::trace::Event;

use support::words::{compare, image, read_all};
use support::{PAGE, Setup, World, draw, pages, system, vram};

type Object = Bo<SimDriver>;

/// Pages of a run.
const RUN: u64 = 512;

fn world(limit: u64, swap: u64) -> World {
    let setup = Setup {
        system_limit: Some(limit),
        swap: Some(swap),
        ..Setup::default()
    };
    World::new(&setup)
}

fn swapped(world: &World, bo: &Object) -> u64 {
    world.with(bo, |r| Ok(r.swapped().get())).unwrap()
}

fn written(world: &World, bytes: u64) -> Object {
    let bo = world.create_in(bytes, &system());
    world.write_image(&bo, 1, 1).unwrap();
    bo
}

fn of_group(world: &World, n: u64, group: &Arc<Group>) -> Object {
    let info = BoInfo::new(n * PAGE).group(group);
    let context = OpContext::new();
    let bo = world
        .device
        .create_in(context, info, (), &system())
        .unwrap();
    world.write_image(&bo, 1, 1).unwrap();
    bo
}

fn advise(world: &World, bo: &Object, advice: Advice) -> bool {
    world.with(bo, |r| Ok(r.advise(advice))).unwrap()
}

#[test]
fn twice_the_limit_comes_back_word_by_word_although_restores_are_interrupted() {
    const LIMIT: u64 = 5 * RUN;
    let mut interrupted = 0;
    for seed in 1..=12u64 {
        let world = world(LIMIT, 1 << 14);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (mut objects, mut total) = (Vec::new(), 0);
        while total < 2 * LIMIT {
            let n = 1 + draw(&mut random, 4 * RUN);
            let bo = written(&world, n * PAGE - draw(&mut random, 100));
            let dispensable = draw(&mut random, 4) == 0;
            if dispensable {
                assert!(advise(&world, &bo, Advice::DontNeed));
            }
            total += n;
            objects.push((bo, dispensable));
        }
        world.check();
        let mut purged = 0;
        for _ in 0..objects.len() {
            let (bo, dispensable) = &objects[draw(&mut random, objects.len() as u64) as usize];
            if draw(&mut random, 2) == 0 {
                let nth = 1 + draw(&mut random, 3);
                // A purged one is nowhere, and has nothing to give.
                let _ = world.with(bo, |r| r.swap_out());
                world.inject.fail("backup.load", nth, false);
                let before = swapped(&world, bo);
                match world.with(bo, |r| r.populate()) {
                    Err(Error::Backup(_)) => {
                        let left = swapped(&world, bo);
                        assert!(left > 0, "I-61: a page that did not come keeps its slot");
                        interrupted += u64::from(left < before);
                    }
                    Ok(()) => {}
                    Err(error) => panic!("{error}"),
                }
                world.check();
                world.inject.clear();
            }
            match world.with(bo, |r| read_all(r, bo.bytes())) {
                Ok(found) => compare(bo.id(), &image(bo.id(), 1, 1, bo.bytes()), &found).unwrap(),
                Err(Error::Purged) if *dispensable => purged += 1,
                Err(error) => panic!("{error}"),
            }
        }
        world.check();
        println!(
            "seed {seed}: {} objects, {purged} reads of purged ones",
            objects.len()
        );
        drop(objects);
        world.assert_empty();
    }
    assert!(
        interrupted >= 5,
        "{interrupted} restores were interrupted half-way"
    );
}

#[test]
fn what_nobody_needs_goes_first_however_young_and_without_a_write() {
    let world = world(24, 1024);
    let needed = written(&world, 8 * PAGE);
    let unneeded = written(&world, 8 * PAGE);
    assert!(advise(&world, &unneeded, Advice::DontNeed));
    world.log.take();
    let bo = written(&world, 16 * PAGE);
    let events = world.log.take();
    assert!(
        !events.iter().any(|e| matches!(e, Event::SwappedOut { .. })),
        "{events:?}"
    );
    assert!(!advise(&world, &unneeded, Advice::WillNeed), "it is told");
    assert_eq!(swapped(&world, &needed), 0);
    world.assert_image(&needed, 1, 1);
    world.assert_image(&bo, 1, 1);
    world.check();
}

#[test]
fn an_object_that_is_needed_again_in_time_keeps_its_content() {
    let world = world(24, 1024);
    let bo = written(&world, 8 * PAGE);
    assert!(advise(&world, &bo, Advice::DontNeed));
    assert_eq!(world.device.unneeded(MemType::SYSTEM), [bo.id()]);
    assert!(advise(&world, &bo, Advice::WillNeed));
    assert!(world.device.unneeded(MemType::SYSTEM).is_empty());
    let other = written(&world, 20 * PAGE);
    world.assert_image(&bo, 1, 1);
    world.assert_image(&other, 1, 1);
}

/// One that a device reads goes after a younger one that is idle; if it is the only one, it is
/// waited for, unless the caller does not wait.
#[test]
fn idle_objects_go_before_busy_ones() {
    let world = world(24, 1024);
    let busy = written(&world, 8 * PAGE);
    let idle = written(&world, 8 * PAGE);
    let work = |bo: &Object| {
        let locked = world.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(bo)?;
            reserved.reserve_fences(1)
        });
        let locked = locked.unwrap();
        let side = locked.get(bo).unwrap().side().unwrap();
        let (fence, _) = world.gpu.queue(0).checksum(&side, []).unwrap();
        locked.fence(bo, &fence, Usage::Read).unwrap();
    };
    work(&busy);
    let bo = written(&world, 12 * PAGE);
    assert_eq!((swapped(&world, &busy), swapped(&world, &idle)), (0, 8));
    drop((bo, idle));
    world.device.reap();
    work(&busy);
    let bo = world.create_in(20 * PAGE, &system());
    let refused = world.device.exec(OpContext::new().without_waiting(), |t| {
        t.lock(&bo)?.populate()
    });
    assert!(matches!(refused, Err(Error::NoMemory { .. } | Error::Busy)));
    world.with(&bo, |r| r.populate()).unwrap();
    assert_eq!(swapped(&world, &busy), 8);
    world.assert_image(&busy, 1, 1);
    world.check();
}

/// The greedy client pays, although its objects are the youngest.
#[test]
fn who_has_more_than_his_share_pays_first() {
    let world = world(64, 1024);
    let [modest, greedy] = ["modest", "greedy"].map(|name| Group::new(name, None));
    let small = of_group(&world, 16, &modest);
    let large: Vec<_> = (0..6).map(|_| of_group(&world, 8, &greedy)).collect();
    let bo = of_group(&world, 8, &modest);
    assert_eq!(
        swapped(&world, &small),
        0,
        "the oldest, and within its share"
    );
    let gone: u64 = large.iter().map(|bo| swapped(&world, bo)).sum();
    assert_eq!(gone, 8);
    // With a weight that entitles it to what it has, the other pays.
    greedy.set_weight(1000);
    let next = of_group(&world, 8, &modest);
    let of_greedy: u64 = large.iter().map(|bo| swapped(&world, bo)).sum();
    assert_eq!(of_greedy, gone);
    assert!(swapped(&world, &small) + swapped(&world, &bo) >= 8);
    for bo in large.iter().chain([&small, &bo, &next]) {
        world.assert_image(bo, 1, 1);
    }
    world.check();
}

#[test]
fn a_large_object_gives_only_the_runs_that_are_wanted() {
    let world = world(6 * RUN, 1 << 14);
    let large = written(&world, 5 * RUN * PAGE);
    let bo = written(&world, 2 * RUN * PAGE);
    let gone = swapped(&world, &large);
    assert_eq!(gone, RUN, "one run makes the room");
    world.check();
    world.assert_image(&bo, 1, 1);
    world.assert_image(&large, 1, 1);
}

/// Reading a part of what is swapped brings that part and no other; what was never touched reads as
/// zero and gets no frames.
#[test]
fn a_part_that_is_read_comes_alone() {
    let world = world(1 << 14, 1 << 14);
    let bo = written(&world, 4 * RUN * PAGE);
    world.with(&bo, |r| r.swap_out()).unwrap();
    assert_eq!(swapped(&world, &bo), 4 * RUN);
    let mut found = vec![0; 3 * PAGE as usize];
    let offset = (2 * RUN - 1) * PAGE;
    world.with(&bo, |r| r.read(offset, &mut found)).unwrap();
    let whole = image(bo.id(), 1, 1, bo.bytes());
    let from = offset as usize;
    assert_eq!(found, whole[from..from + found.len()]);
    assert_eq!(swapped(&world, &bo), 2 * RUN, "the runs on both sides");
    world.check();
    world.assert_image(&bo, 1, 1);

    let fresh = world.create_in(4 * RUN * PAGE, &system());
    let charged = world.device.system_budget().used();
    world
        .with(&fresh, |r| r.write(RUN * PAGE + 8, b"one run"))
        .unwrap();
    assert_eq!(
        world.device.system_budget().used().get() - charged.get(),
        RUN
    );
    let mut found = vec![1; 4 * RUN as usize * PAGE as usize];
    world.with(&fresh, |r| r.read(0, &mut found)).unwrap();
    let at = (RUN * PAGE) as usize + 8;
    assert_eq!(&found[at..at + 7], b"one run");
    assert!(found[..at].iter().chain(&found[at + 7..]).all(|b| *b == 0));
    assert_eq!(
        world.device.system_budget().used().get() - charged.get(),
        RUN,
        "reading nothing costs nothing"
    );
    world.check();
}

/// I-16: what lies behind the last byte is zero to a device, although the frames were another's,
/// and stays so through swap and moves.
#[test]
fn behind_the_last_byte_is_nothing() {
    let world = world(1 << 14, 1 << 14);
    let tail = 8 * 77;
    let sum_of_all = |bo: &Object| {
        let side = world.with(bo, |r| r.side()).unwrap();
        let (fence, sum) = world.gpu.queue(0).checksum(&side, []).unwrap();
        assert_eq!(fence.wait(None).unwrap(), Status::Done);
        sum.get().unwrap()
    };
    for n in [1, 3, 16, RUN] {
        let before = written(&world, n * PAGE);
        drop(before);
        world.device.reap();
        let bytes = n * PAGE - tail;
        let bo = written(&world, bytes);
        let mut whole = image(bo.id(), 1, 1, bytes);
        whole.resize((n * PAGE) as usize, 0);
        let words = whole.chunks_exact(8);
        let words = words.map(|w| u64::from_le_bytes(w.try_into().unwrap()));
        let expected = checksum_words(words);
        assert_eq!(sum_of_all(&bo), expected, "{n} pages, fresh");
        world.with(&bo, |r| r.swap_out()).unwrap();
        assert_eq!(sum_of_all(&bo), expected, "{n} pages, from the backup");
        if n <= 16 {
            world.validate(&bo, &vram()).unwrap();
            world.settle(&bo);
            assert_eq!(sum_of_all(&bo), expected, "{n} pages, in VRAM");
        }
    }
}

#[test]
fn a_write_that_fails_leaves_frames_and_slots_as_they_were() {
    for site in ["backup.store", "backup.full", "ttm.backup-store"] {
        for nth in 1..=3 {
            let world = world(1 << 14, 1 << 14);
            let bo = written(&world, 3 * RUN * PAGE);
            world.inject.fail(site, nth, true);
            let result = world.with(&bo, |r| r.swap_out());
            let gone = swapped(&world, &bo);
            assert!(gone < 3 * RUN, "I-62: {site}");
            assert_eq!(result.is_err(), gone == 0, "{site}: {result:?}");
            let used = world.device.backup_usage().unwrap().0;
            assert_eq!(used.get(), gone, "{site}: no slot is left behind");
            world.check();
            world.inject.clear();
            world.assert_image(&bo, 1, 1);
            world.with(&bo, |r| r.swap_out()).unwrap();
            world.assert_image(&bo, 1, 1);
        }
    }
}

/// F-14: a bit flipped in any run on its way back is an error that names object and page.
#[test]
fn a_page_that_comes_back_wrong_is_an_error_and_never_data() {
    for nth in 1..=4 {
        let world = world(1 << 14, 1 << 14);
        let bo = written(&world, 4 * RUN * PAGE);
        world.with(&bo, |r| r.swap_out()).unwrap();
        world.inject.fail("backup.flip", nth, false);
        match world.with(&bo, |r| r.populate()) {
            Err(Error::Corrupt(corrupt)) => {
                assert_eq!(corrupt.object, bo.id());
                assert!(corrupt.page < 4 * RUN, "runs may come in any order");
            }
            result => panic!("I-60: {result:?}"),
        }
        world.check();
        // The slots are as they were: what was a passing fault is over.
        world.assert_image(&bo, 1, 1);
    }
}

#[test]
fn what_is_missing_is_told_with_its_limits() {
    let world = world(16, 0);
    let kept = written(&world, 12 * PAGE);
    let bo = world.create_in(8 * PAGE, &system());
    let error = world.with(&bo, |r| r.populate()).unwrap_err();
    let text = error.to_string();
    let Error::NoMemory { wanted, why } = error else {
        panic!("{error}")
    };
    let why = why.unwrap();
    assert_eq!(
        (wanted, why.limit, why.used),
        (pages(8), pages(16), pages(12))
    );
    assert!(
        text.contains("64 KiB") && text.contains("limit 0 B"),
        "{text}"
    );
    world.assert_image(&kept, 1, 1);
    // No backup at all is another reason.
    let setup = Setup {
        system_limit: Some(16),
        swap: None,
        ..Setup::default()
    };
    let world = World::new(&setup);
    let kept = written(&world, 12 * PAGE);
    let bo = world.create_in(8 * PAGE, &system());
    let text = world.with(&bo, |r| r.populate()).unwrap_err().to_string();
    assert!(text.contains("no backup"), "{text}");
    // Without one, what nobody needs can go all the same.
    assert!(advise(&world, &kept, Advice::DontNeed));
    world.with(&bo, |r| r.populate()).unwrap();
    world.check();
}

#[test]
fn above_the_soft_limit_others_are_swapped_out_behind_and_nobody_waits() {
    let world = world(64, 1024);
    world.device.system_budget().set_soft_limit(pages(32));
    let objects: Vec<_> = (0..6).map(|_| written(&world, 8 * PAGE)).collect();
    assert_eq!(world.device.system_budget().used(), pages(48));
    let services = world.device.services();
    let relief = services.iter().find(|s| s.name() == "relief").unwrap();
    while relief.step() == Progress::Did {}
    assert_eq!(world.device.system_budget().used(), pages(32));
    let gone: Vec<u64> = objects.iter().map(|bo| swapped(&world, bo)).collect();
    assert_eq!(gone, [8, 8, 0, 0, 0, 0], "least recently used first");
    for bo in &objects {
        world.assert_image(bo, 1, 1);
    }
    world.check();
}

#[test]
fn a_device_gives_back_what_it_is_asked_for() {
    let world = world(1 << 14, 1 << 14);
    let objects: Vec<_> = (0..4).map(|_| written(&world, RUN * PAGE)).collect();
    let reclaim = world.device.reclaim();
    assert_eq!(reclaim.count(), pages(4 * RUN));
    assert_eq!(reclaim.reclaim(pages(RUN + 1), false), pages(2 * RUN));
    assert_eq!(reclaim.count(), pages(2 * RUN));
    // From inside a transaction nothing is done, and nothing hangs.
    let inside = world.device.exec(OpContext::new(), |t| {
        t.lock(&objects[3])?;
        Ok(reclaim.reclaim(PageCount::MAX, true))
    });
    assert_eq!(*inside.unwrap().value(), pages(0));
    for bo in &objects {
        world.assert_image(bo, 1, 1);
    }
    drop(objects);
    world.assert_empty();
    drop(world);
    assert_eq!(reclaim.count(), pages(0), "the device is gone");
}

fn in_vram(world: &World, n: u64) -> Object {
    let bo = world.create_in(n * PAGE, &vram());
    world.write_image(&bo, 1, 1).unwrap();
    world.validate(&bo, &vram()).unwrap();
    world.settle(&bo);
    bo
}

#[test]
fn who_finds_everything_full_asks_each_object_a_few_times_and_not_for_each_other() {
    const EACH: u64 = 64;
    let setup = Setup {
        vram: EACH,
        system_limit: Some(EACH),
        ..Setup::default()
    };
    let world = World::new(&setup);
    let mut objects: Vec<_> = (0..EACH).map(|_| in_vram(&world, 1)).collect();
    objects.extend((0..EACH).map(|_| written(&world, PAGE)));
    let late = world.create(PAGE);
    world.inject.fail("backup.full", 1, true);
    let error = world.validate(&late, &vram()).unwrap_err();
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    let asked = world.inject.count("backup.full");
    assert!((EACH..8 * EACH).contains(&asked), "{asked}");
    world.inject.clear();
    world.validate(&late, &vram()).unwrap();
    for bo in &objects {
        world.assert_image(bo, 1, 1);
    }
    world.check();
}

#[test]
fn a_suspend_that_cannot_fit_is_refused_before_anything_moves() {
    let setup = Setup {
        vram: 128,
        system_limit: Some(32),
        swap: Some(16),
        ..Setup::default()
    };
    let world = World::new(&setup);
    let kept = [8, 16].map(|n| written(&world, n * PAGE));
    let bos: Vec<_> = (0..3).map(|_| in_vram(&world, 16)).collect();
    world.log.take();
    let error = world
        .device
        .prepare_suspend(OpContext::new())
        .map(drop)
        .unwrap_err();
    let Error::Shortfall(shortfall) = &error else {
        panic!("{error}")
    };
    assert_eq!(shortfall.needed, pages(48));
    assert_eq!(shortfall.limit, pages(32));
    assert!(shortfall.available < shortfall.needed, "{shortfall:?}");
    assert!(error.to_string().contains("192 KiB"), "{error}");
    assert!(world.log.take().is_empty(), "nothing has happened");
    assert!(
        bos.iter()
            .all(|bo| world.place_of(bo) == Some(MemType::VRAM))
    );
    // With the content of one dispensable it fits.
    assert!(advise(&world, &bos[0], Advice::DontNeed));
    assert!(advise(&world, &bos[1], Advice::DontNeed));
    let mut prepared = world.device.prepare_suspend(OpContext::new()).unwrap();
    assert_eq!(prepared.pages(), pages(16));
    prepared.commit(OpContext::new()).unwrap();
    drop(prepared);
    world.check();
    // Back in device memory it leaves the others room to return.
    world.validate(&bos[2], &vram()).unwrap();
    world.assert_image(&bos[2], 1, 1);
    world.settle(&bos[2]);
    kept.iter().for_each(|bo| world.assert_image(bo, 1, 1));
}

/// Between the two halves nobody else gets what was put by, and the second half asks nobody.
#[test]
fn what_was_put_by_is_there_when_the_device_stops() {
    let setup = Setup {
        vram: 64,
        system_limit: Some(64),
        swap: Some(256),
        ..Setup::default()
    };
    let world = World::new(&setup);
    let bos: Vec<_> = (0..3).map(|_| in_vram(&world, 16)).collect();
    let pinned = &bos[0];
    let pin = world.with(pinned, |r| {
        r.pin();
        Ok(())
    });
    pin.unwrap();
    let mut prepared = world.device.prepare_suspend(OpContext::new()).unwrap();
    assert_eq!(prepared.pages(), pages(48));
    assert!(matches!(
        world.device.prepare_suspend(OpContext::new()).map(drop),
        Err(Error::Busy)
    ));
    // Somebody fills the rest; he does not get what was put by.
    let other = written(&world, 16 * PAGE);
    let greedy = world.create_in(32 * PAGE, &system());
    assert!(matches!(
        world.with(&greedy, |r| r.populate()),
        Err(Error::NoMemory { .. })
    ));
    world.check();
    // No pages from the source, no writes: the second half needs neither.
    for site in ["pages.take", "backup.store", "backup.full"] {
        world.inject.fail(site, 1, true);
    }
    let no_io: u64 = world.inject.hits("backup.store");
    let report = prepared.commit(OpContext::new()).unwrap();
    assert_eq!((report.evicted, report.saved), (2, 1));
    assert_eq!(world.inject.hits("pages.take"), 0);
    assert_eq!(world.inject.hits("backup.store"), no_io);
    world.inject.clear();
    drop(prepared);
    world.check();
    assert_eq!(world.device.resume(OpContext::new()).unwrap(), 1);
    for bo in &bos {
        world.assert_image(bo, 1, 1);
    }
    world.assert_image(&other, 1, 1);
    world.check();
}

#[test]
fn a_prepared_suspend_that_is_dropped_has_changed_nothing() {
    let world = world(64, 256);
    let bo = in_vram(&world, 32);
    let used = world.device.system_budget().used();
    let prepared = world.device.prepare_suspend(OpContext::new()).unwrap();
    assert_eq!(world.device.system_budget().used().get(), used.get() + 32);
    world.check();
    drop(prepared);
    assert_eq!(world.device.system_budget().used(), used);
    assert_eq!(world.place_of(&bo), Some(MemType::VRAM));
    world.check();
    drop(bo);
    world.assert_empty();
}

/// F-32: pressure while others allocate. Four clients on real threads, a fifth reclaims all the
/// time; every content is right at the end.
#[test]
fn reclaiming_beside_clients_loses_nothing() {
    let setup = Setup {
        vram: 64,
        system_limit: Some(96),
        swap: Some(4096),
        wall: true,
        ..Setup::default()
    };
    let world = World::new(&setup);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=4u64)
            .map(|client| {
                let world = &world;
                scope.spawn(move || {
                    let mut random = client * 77;
                    let bos: Vec<_> = (0..6)
                        .map(|_| world.create_in(8 * PAGE, &system()))
                        .collect();
                    let mut sequence = vec![0; bos.len()];
                    for step in 1..=150u64 {
                        let at = draw(&mut random, 6) as usize;
                        let bo = &bos[at];
                        if draw(&mut random, 2) == 0 {
                            world.write_image(bo, client, step).unwrap();
                            sequence[at] = step;
                        } else if sequence[at] > 0 {
                            world.assert_image(bo, client, sequence[at]);
                        }
                        if draw(&mut random, 4) == 0 {
                            // Crowded by others, it may find no room; its content stays.
                            let _ = world.validate(bo, &vram());
                        }
                    }
                    for (bo, sequence) in bos.iter().zip(sequence) {
                        if sequence > 0 {
                            world.assert_image(bo, client, sequence);
                        }
                    }
                })
            })
            .collect();
        let reclaim = world.device.reclaim();
        let pool = Arc::clone(world.device.pool());
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                reclaim.reclaim(pages(16), false);
                pool.scan(pages(8));
                std::thread::yield_now();
            }
        });
        for client in clients {
            client.join().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    world.check();
    world.assert_empty();
}

/// The injection sites that this file counts on exist.
#[test]
fn the_sites_of_short_memory_are_listed() {
    let sites: Vec<_> = Inject::new().sites().into_iter().map(|s| s.0).collect();
    for site in [
        "pages.zero",
        "pages.switch",
        "backup.prepare",
        "backup.full",
        "ttm.cache-switch",
    ] {
        assert!(sites.contains(&site), "{site}");
    }
}
