//! Eviction under many schedules: transactions that push each other out of a memory that is
//! hardly larger than what each of them needs. Nobody is forgotten asleep, and a working set that
//! fits when it is alone always fits in the end.
#![cfg(shuttle)]

mod shuttle_explore;

use core::time::Duration;

use shuttle::sync::Arc;
use shuttle::thread;
use ttm::Error;
use ttm::bo::{Bo, BoInfo};
use ttm::bo_cache::BoCache;
use ttm::context::{CancelToken, OpContext};
use ttm::device::Device;
use ttm::driver::Advice;
use ttm::fence::{Timeline, Usage};
use ttm::fixture::{Counting, device_of, growing_device, still, system, vram};
use ttm::placement::{ChunkSizes, MemType, PageCount};

use shuttle_explore::{check, explore};

/// A device with a small VRAM, and objects of it.
struct Stage {
    device: Device<Counting>,
    objects: Vec<Bo<Counting>>,
}

impl Stage {
    /// `room` pages of VRAM, an object of each of `sizes` pages.
    fn new(room: u64, sizes: &[u64]) -> Arc<Self> {
        let device = device_of(room);
        let object = |pages: &u64| device.create(BoInfo::new(pages * 4096), ()).unwrap();
        let objects = sizes.iter().map(object).collect();
        Arc::new(Self { device, objects })
    }

    /// The same in a memory that grows by single pages, and stops short of what it says.
    fn growing(room: u64, most: u64, sizes: &[u64]) -> Arc<Self> {
        let page = PageCount::ONE;
        let chunks = ChunkSizes {
            least: page,
            most: page,
            granule: page,
        };
        let (device, _) = growing_device(room, most, chunks);
        let object = |pages: &u64| device.create(BoInfo::new(pages * 4096), ()).unwrap();
        let objects = sizes.iter().map(object).collect();
        Arc::new(Self { device, objects })
    }

    /// Makes the objects of `set` resident together, in that order.
    fn validate(&self, set: &[usize]) -> Result<(), Error> {
        self.validate_with(set, OpContext::new())
    }

    fn validate_with(&self, set: &[usize], context: OpContext) -> Result<(), Error> {
        let locked = self.device.exec(context, |t| {
            for n in set {
                t.lock(&self.objects[*n])?.validate(&vram())?;
            }
            Ok(())
        })?;
        for n in set {
            let at = locked.get(&self.objects[*n])?.mem_type();
            assert_eq!(
                at,
                Some(MemType::VRAM),
                "object {n} was pushed out while it was held"
            );
        }
        Ok(())
    }

    /// One thread for each set, all of which must succeed.
    fn play(self: &Arc<Self>, sets: &'static [&'static [usize]], times: usize) {
        let threads: Vec<_> = sets
            .iter()
            .map(|set| {
                let stage = Arc::clone(self);
                thread::spawn(move || {
                    for _ in 0..times {
                        stage
                            .validate(set)
                            .unwrap_or_else(|e| panic!("{set:?}: {e}"));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        self.end();
    }

    fn end(&self) {
        check(&self.device);
        assert!(self.objects.iter().all(|bo| !bo.is_locked()));
        let usage = self.device.manager(MemType::VRAM).unwrap().usage();
        assert_eq!(
            usage.used.get() + usage.retired.get() + usage.free.get(),
            usage.size.get()
        );
        // Nobody is left aside as busy: who does not wait gets all of the idle memory.
        let all = self
            .device
            .create(BoInfo::new(usage.size.bytes()), ())
            .unwrap();
        let context = OpContext::new().without_waiting();
        let taken = self
            .device
            .exec(context, |t| t.lock(&all)?.validate(&vram()))
            .map(drop);
        taken.unwrap_or_else(|e| panic!("an idle memory does not empty: {e}"));
    }
}

#[test]
fn one_page_for_two_objects() {
    explore(3_000, || Stage::new(1, &[1, 1]).play(&[&[0], &[1]], 2));
}

/// What one transaction takes and finds nothing behind goes back to the space while another takes
/// there too; nobody is refused for good whose victims can leave.
#[test]
fn a_memory_that_does_not_grow_any_more_serves_by_eviction() {
    explore(3_000, || play_growing(1, &[&[0], &[1], &[2]]));
    explore(2_000, || play_growing(2, &[&[0, 1], &[2, 3]]));
}

/// One thread for each set, in a memory of four pages with only `most` behind it.
fn play_growing(most: u64, sets: &'static [&'static [usize]]) {
    let stage = Stage::growing(4, most, &[1; 4]);
    let threads: Vec<_> = sets
        .iter()
        .map(|set| {
            let stage = Arc::clone(&stage);
            thread::spawn(move || {
                let came = stage.validate(set);
                came.unwrap_or_else(|e| panic!("{set:?}: {e}"));
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    check(&stage.device);
    assert!(stage.objects.iter().all(|bo| !bo.is_locked()));
}

#[test]
fn one_page_for_three_objects() {
    explore(3_000, || {
        Stage::new(1, &[1; 3]).play(&[&[0], &[1], &[2]], 1)
    });
}

#[test]
fn working_sets_as_large_as_the_memory_take_turns() {
    explore(3_000, || {
        Stage::new(2, &[1; 4]).play(&[&[0, 1], &[2, 3]], 2)
    });
    explore(2_000, || {
        Stage::new(2, &[1; 6]).play(&[&[0, 1], &[2, 3], &[4, 5]], 1)
    });
}

#[test]
fn working_sets_that_overlap_in_opposite_orders() {
    explore(3_000, || {
        Stage::new(2, &[1; 3]).play(&[&[0, 1], &[1, 2], &[2, 0]], 1)
    });
    explore(2_000, || {
        Stage::new(3, &[1; 4]).play(&[&[0, 1, 2], &[3, 2, 1], &[1, 3, 0]], 1)
    });
}

#[test]
fn a_large_object_gets_the_pages_of_two_small_ones() {
    explore(3_000, || {
        Stage::new(2, &[1, 1, 2]).play(&[&[2], &[0], &[1]], 1)
    });
    explore(2_000, || {
        Stage::new(3, &[1, 1, 2, 3]).play(&[&[3], &[0, 2], &[1]], 1)
    });
}

#[test]
fn locked_but_idle_objects_are_waited_for() {
    // The one who holds a resident object without wanting room must be waited for.
    explore(3_000, || {
        let stage = Stage::new(1, &[1, 1]);
        stage.validate(&[0]).unwrap();
        let other = Arc::clone(&stage);
        let holder = thread::spawn(move || {
            let locked = other
                .device
                .exec(OpContext::new(), |t| t.lock(&other.objects[0]).map(drop));
            thread::yield_now();
            drop(locked.unwrap());
        });
        stage.validate(&[1]).unwrap();
        holder.join().unwrap();
        stage.end();
    });
}

#[test]
fn who_does_not_wait_is_refused_at_most() {
    explore(2_000, || {
        let stage = Stage::new(2, &[1; 4]);
        let other = Arc::clone(&stage);
        let hasty = thread::spawn(move || {
            match other.validate_with(&[2, 3], OpContext::new().without_waiting()) {
                Ok(()) | Err(Error::Busy | Error::NoSpace { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
        stage.validate(&[0, 1]).unwrap();
        hasty.join().unwrap();
        stage.validate(&[2, 3]).unwrap();
        stage.end();
    });
}

#[test]
fn pins_and_unpins_beside_an_eviction() {
    explore(3_000, || {
        let stage = Stage::new(2, &[1; 3]);
        stage.validate(&[0]).unwrap();
        let other = Arc::clone(&stage);
        let pinner = thread::spawn(move || {
            let bo = &other.objects[0];
            let mut pin = None;
            let locked = other.device.exec(OpContext::new(), |t| {
                let reserved = t.lock(bo)?;
                reserved.validate(&vram())?;
                pin = Some(reserved.pin_guard());
                Ok(())
            });
            drop(locked.unwrap());
            // Unpinning takes the reservation once more.
            drop(pin);
        });
        stage.validate(&[1]).unwrap();
        stage.validate(&[2]).unwrap();
        pinner.join().unwrap();
        stage.validate(&[1, 2]).unwrap();
        stage.end();
    });
}

#[test]
fn the_last_handle_drops_while_the_object_is_a_victim() {
    explore(3_000, || {
        let device = device_of(2);
        let [a, b, c] =
            [1, 1, 2].map(|pages| device.create(BoInfo::new(pages * 4096), ()).unwrap());
        for bo in [&a, &b] {
            device
                .exec(OpContext::new(), |t| t.lock(bo)?.validate(&vram()))
                .unwrap();
        }
        let evictor = {
            let device = device.clone();
            thread::spawn(move || {
                device
                    .exec(OpContext::new(), |t| t.lock(&c)?.validate(&vram()))
                    .map(drop)
                    .unwrap();
            })
        };
        let dropper = thread::spawn(move || drop(a));
        drop(b);
        device.reap();
        evictor.join().unwrap();
        dropper.join().unwrap();
        device.reap();
        check(&device);
        assert_eq!(device.live_objects(), 0, "an object was forgotten");
        let usage = device.manager(MemType::VRAM).unwrap().usage();
        assert_eq!(usage.free, usage.size);
        device.close(None).unwrap();
    });
}

#[test]
fn the_device_goes_while_the_last_handle_drops() {
    explore(3_000, || {
        let device = device_of(2);
        let bo = device.create(BoInfo::new(4096), ()).unwrap();
        device
            .exec(OpContext::new(), |t| t.lock(&bo)?.validate(&vram()))
            .unwrap();
        let vram = device.manager(MemType::VRAM).unwrap().clone();
        let other = device.clone();
        let droppers = [
            thread::spawn(move || drop(bo)),
            thread::spawn(move || drop(other)),
        ];
        drop(device);
        droppers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(
            vram.usage().free,
            vram.usage().size,
            "space went with the device"
        );
    });
}

#[test]
fn victims_with_pending_fences() {
    explore(2_000, || {
        let stage = Stage::new(2, &[1; 4]);
        let timeline = std::sync::Arc::new(Timeline::new(1, still()));
        let submit = |set: &'static [usize]| {
            let (stage, timeline) = (Arc::clone(&stage), timeline.clone());
            thread::spawn(move || {
                let locked = stage.device.exec(OpContext::new(), |t| {
                    for n in set {
                        let reserved = t.lock(&stage.objects[*n])?;
                        reserved.validate(&vram())?;
                        reserved.reserve_fences(1)?;
                    }
                    Ok(())
                });
                let locked = locked.unwrap_or_else(|e| panic!("{set:?}: {e}"));
                let fence = timeline.issue();
                locked.fence_all(&fence, Usage::Write);
                drop(locked);
                fence.seqno()
            })
        };
        let threads = [submit(&[0, 1]), submit(&[2, 3])];
        // The device reaches whatever was submitted.
        for seqno in 1..=2 {
            while timeline.issued() < seqno {
                thread::yield_now();
            }
            timeline.signal(seqno);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        stage.device.reap();
        stage.end();
    });
}

#[test]
fn clearing_a_memory_beside_validates() {
    explore(2_000, || {
        let stage = Stage::new(2, &[1; 3]);
        stage.validate(&[0, 1]).unwrap();
        let other = Arc::clone(&stage);
        let clearer = thread::spawn(move || {
            other
                .device
                .evict_all(MemType::VRAM, OpContext::new())
                .unwrap();
        });
        stage.validate(&[2, 0]).unwrap();
        clearer.join().unwrap();
        stage.end();
    });
}

#[test]
fn advice_priority_and_place_change_beside_an_eviction() {
    explore(2_000, || {
        let stage = Stage::new(2, &[1; 4]);
        stage.validate(&[0, 1]).unwrap();
        let other = Arc::clone(&stage);
        let changer = thread::spawn(move || {
            let [a, b, ..] = &other.objects[..] else {
                unreachable!()
            };
            let changed = other.device.exec(OpContext::new(), |t| {
                t.lock(a)?.set_priority(3)?;
                let b = t.lock(b)?;
                b.advise(Advice::DontNeed);
                b.validate(&system())
            });
            changed.map(drop).unwrap();
        });
        stage.validate(&[2, 3]).unwrap();
        changer.join().unwrap();
        stage.validate(&[3, 0]).unwrap();
        stage.end();
    });
}

#[test]
fn a_cancelled_eviction_leaves_nothing_behind() {
    explore(2_000, || {
        let stage = Stage::new(2, &[1; 4]);
        stage.validate(&[0, 1]).unwrap();
        let token = CancelToken::new();
        let cancelled = {
            let (stage, token) = (Arc::clone(&stage), token.clone());
            thread::spawn(move || {
                stage.validate_with(&[2, 3], OpContext::new().cancelled_by(&token))
            })
        };
        let other = Arc::clone(&stage);
        let rival = thread::spawn(move || other.validate(&[1, 0]).unwrap());
        token.cancel();
        match cancelled.join().unwrap() {
            Ok(()) | Err(Error::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
        rival.join().unwrap();
        stage.validate(&[3, 2]).unwrap();
        stage.end();
    });
}

/// Two clients take objects out of a cache and put them back, while a third needs the room: nobody has
/// what another has, and what comes out is where it was.
#[test]
fn a_cache_gives_each_object_to_one_while_another_needs_the_room() {
    explore(3_000, || {
        let stage = Stage::new(2, &[2]);
        let cache = BoCache::new(&stage.device, 1 << 20, Duration::from_secs(1));
        let cache = Arc::new(cache);
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let (stage, cache) = (Arc::clone(&stage), Arc::clone(&cache));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let make = || stage.device.create(BoInfo::new(4096), ());
                        let bo = cache.take_or(&1, make).unwrap();
                        assert_eq!(bo.handles(), 1, "somebody else has it");
                        let locked = stage
                            .device
                            .exec(OpContext::new(), |t| t.lock(&bo)?.validate(&vram()));
                        drop(locked.unwrap());
                        cache.put(1, bo);
                    }
                })
            })
            .collect();
        stage.validate(&[0]).unwrap();
        clients.into_iter().for_each(|c| c.join().unwrap());
        cache.check().unwrap();
        check(&stage.device);
        cache.clear();
        stage.end();
    });
}
