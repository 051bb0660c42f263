//! A BO cache on the fake card while memory is short: what comes out holds what its last user left, and
//! nobody else's words are lost for it.

mod support;

use core::time::Duration;

use backends::sim::SimDriver;
use ttm::bo::{Bo, BoInfo};
use ttm::bo_cache::BoCache;
use ttm::context::OpContext;
use ttm::trace::Event;

use support::words::{compare, image, read_all};
use support::{PAGE, Setup, World, draw, system, vram};

/// An object, how often it was written, and of what size it is.
struct Written {
    bo: Bo<SimDriver>,
    times: u64,
    pages: u64,
}

impl Written {
    fn check(&self, world: &World) {
        let found = world
            .with(&self.bo, |r| read_all(r, self.bo.bytes()))
            .unwrap();
        let bytes = self.bo.bytes();
        compare(
            self.bo.id(),
            &image(self.bo.id(), 1, self.times, bytes),
            &found,
        )
        .unwrap();
    }
}

#[test]
fn what_comes_out_is_as_it_was_put_in_while_others_need_the_room() {
    let (mut hits, mut gone) = (0, 0);
    for seed in 1..=16u64 {
        let world = World::new(&Setup {
            vram: 64,
            system_limit: Some(96),
            swap: Some(1024),
            ..Setup::default()
        });
        let cache = BoCache::new(&world.device, 48 * PAGE, Duration::from_secs(1));
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // How often each object that lies in the cache was written.
        let mut left = std::collections::BTreeMap::new();
        let mut kept: Vec<Written> = Vec::new();
        for _ in 0..400 {
            let pages = 1 << draw(&mut random, 4);
            let make = || world.device.create(BoInfo::new(pages * PAGE), ());
            let bo = cache.take_or(&pages, make).unwrap();
            let times = left.remove(&bo.id()).unwrap_or(0);
            let mut object = Written { bo, times, pages };
            if times > 0 {
                object.check(&world);
            }
            let place = if draw(&mut random, 3) == 0 {
                system()
            } else {
                vram()
            };
            world.with(&object.bo, |r| r.validate(&place)).unwrap();
            object.times += 1;
            world.write_image(&object.bo, 1, object.times).unwrap();
            kept.push(object);
            if kept.len() as u64 > 6 + draw(&mut random, 12) {
                let at = draw(&mut random, kept.len() as u64) as usize;
                let Written { bo, times, pages } = kept.swap_remove(at);
                let id = bo.id();
                if cache.put(pages, bo) {
                    left.insert(id, times);
                }
            }
            cache.check().unwrap();
        }
        kept.iter().for_each(|object| object.check(&world));
        let purged = |e: &Event| matches!(e, Event::Discarded { .. });
        let events = world.log.take();
        let usage = cache.usage();
        assert_eq!(usage.refused, 0);
        assert!(usage.gone == 0 || events.iter().any(purged));
        hits += usage.hits;
        gone += usage.gone;
        world.check();
        cache.clear();
        drop(kept);
        world.assert_empty();
    }
    println!("{hits} came out, {gone} had left");
    assert!(hits > 500 && gone > 100, "{hits} came out, {gone} had left");
}

#[test]
fn a_put_or_take_beside_a_failing_device_loses_nothing() {
    let world = World::new(&Setup::default());
    let cache = BoCache::new(&world.device, 64 * PAGE, Duration::from_secs(1));
    let bo = world.create_in(4 * PAGE, &vram());
    world.write_image(&bo, 1, 1).unwrap();
    assert!(cache.put(4, bo));
    let in_frames = world.create_in(2 * PAGE, &system());
    world.write_image(&in_frames, 1, 1).unwrap();
    assert!(cache.put(2, in_frames));
    world.device.set_lost();
    let in_frames = cache.take(&2).expect("system memory is not lost");
    world.assert_image(&in_frames, 1, 1);
    assert!(cache.take(&4).is_none(), "what it held is gone");
    assert_eq!(cache.usage().gone, 1);
    let nowhere = world.device.create(BoInfo::new(4 * PAGE), ()).unwrap();
    let refused = world
        .device
        .exec(OpContext::new(), |t| t.lock(&nowhere)?.validate(&vram()));
    drop(refused.expect_err("the device is lost"));
    assert!(!cache.put(4, nowhere));
    let kept = world.create_in(4 * PAGE, &system());
    assert!(cache.put(4, kept), "system memory is not lost");
    assert!(cache.take(&4).is_some());
}
