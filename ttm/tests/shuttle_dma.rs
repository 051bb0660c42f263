//! Mapping for a device under many schedules: no frame is given away while a device finds it, what is
//! handed out is found until its job is done, and addresses for one object are enough for all that
//! take turns.
#![cfg(shuttle)]

mod shuttle_explore;

use std::collections::BTreeMap;

use shuttle::sync::Arc as Shared;
use shuttle::thread;
use ttm::Result;
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::dma::{
    Direction, DmaDevice, DmaError, DmaMapping, FrameBytes, Mapper, Mask, Path, SegmentParms, Tri,
    Verdict,
};
use ttm::driver::Side;
use ttm::fence::{Timeline, Usage};
use ttm::fixture::{Counting, builder, still, system};
use ttm::pages::FrameSpan;
use ttm::placement::{MemType, Place, Placement};
use ttm::sync::{Arc, Mutex};

use shuttle_explore::{check, explore};

/// Maps at the frames' own addresses, as many objects as there is room for, and never a frame twice.
struct Watch {
    card: DmaDevice,
    room: usize,
    /// The frames that the device finds, by address.
    found: Mutex<BTreeMap<u64, FrameSpan>>,
}

impl Watch {
    fn new(room: usize) -> Arc<Self> {
        let verdict = Verdict {
            path: Path::Direct,
            snoop: Tri::Yes,
            mask: Mask::ALL,
            ..Verdict::unknown("card")
        };
        let address = |span: FrameSpan| Some(span.first * 4096);
        let card = DmaDevice::direct(verdict, SegmentParms::WIDEST, address).unwrap();
        Arc::new(Self {
            card,
            room,
            found: Mutex::default(),
        })
    }

    /// Whether the device finds all of a list.
    fn finds(&self, side: &Side) -> bool {
        let Side::Mapped(list) = side else {
            return false;
        };
        let found = self.found.lock();
        let all = list.dma_segments();
        all.iter().all(|s| found.contains_key(&s.addr.get()))
    }
}

impl Mapper for Watch {
    fn map(&self, bytes: FrameBytes<'_>, direction: Direction) -> Result<DmaMapping, DmaError> {
        thread::yield_now();
        let mut found = self.found.lock();
        if found.len() >= self.room {
            return Err(DmaError::IovaExhausted {
                len: bytes.len,
                limit: Mask::ALL,
            });
        }
        let mapping = self.card.map(bytes, direction)?;
        for segment in mapping.list().dma_segments() {
            let twice = found.insert(segment.addr.get(), bytes.spans[0]);
            assert!(
                twice.is_none(),
                "{segment:?} was given away while it was found"
            );
        }
        Ok(mapping)
    }

    fn unmap(&self, mapping: DmaMapping) {
        thread::yield_now();
        let mut found = self.found.lock();
        for segment in mapping.list().dma_segments() {
            found.remove(&segment.addr.get());
        }
        self.card.unmap(mapping);
    }

    fn live(&self) -> u64 {
        self.card.live()
    }
}

struct Stage {
    device: Device<Counting>,
    watch: Arc<Watch>,
    timeline: Timeline,
    objects: Vec<Bo<Counting>>,
}

fn tt() -> Placement {
    Placement::of(Place::new(MemType::TT))
}

impl Stage {
    fn new(objects: usize, room: usize) -> Shared<Self> {
        let watch = Watch::new(room);
        let mapper = Arc::clone(&watch) as Arc<dyn Mapper>;
        let device = builder().mapper(mapper).build().unwrap();
        let object = |_| device.create(BoInfo::new(4096), ()).unwrap();
        let objects = (0..objects).map(object).collect();
        Shared::new(Self {
            device,
            watch,
            timeline: Timeline::new(1, still()),
            objects,
        })
    }

    /// A job on an object, which looks whether it is found at its end.
    fn job(&self, n: usize, placement: &Placement) {
        let bo = &self.objects[n];
        let locked = self
            .device
            .exec(OpContext::new(), |t| {
                let held = t.lock(bo)?;
                held.validate(placement)?;
                held.reserve_fences(1)?;
                held.side()
            })
            .unwrap_or_else(|e| panic!("object {n}: {e}"));
        let fence = self.timeline.issue();
        locked.fence(bo, &fence, Usage::Write).unwrap();
        let side = locked.value().clone();
        drop(locked);
        thread::yield_now();
        assert!(self.watch.finds(&side), "object {n} while a job uses it");
        self.timeline.signal(fence.seqno());
    }

    fn end(&self) {
        check(&self.device);
        self.device.reap();
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn addresses_for_one_are_enough_for_those_that_take_turns() {
    explore(2_000, || {
        let stage = Stage::new(2, 1);
        let threads = (0..2).map(|n| {
            let stage = Shared::clone(&stage);
            thread::spawn(move || {
                for _ in 0..2 {
                    stage
                        .device
                        .exec(OpContext::new(), |t| {
                            t.lock(&stage.objects[n])?.validate(&tt())
                        })
                        .map(drop)
                        .unwrap_or_else(|e| panic!("object {n}: {e}"));
                }
            })
        });
        join(threads.collect());
        stage.end();
        assert_eq!(stage.watch.live(), 1);
    });
}

#[test]
fn what_a_job_uses_is_found_whoever_reaps_and_moves_it() {
    explore(2_000, || {
        let stage = Stage::new(2, 8);
        let jobs = |place: fn() -> Placement| {
            let stage = Shared::clone(&stage);
            thread::spawn(move || {
                // Signalled in order, so one after the other.
                stage.job(0, &place());
            })
        };
        let mover = {
            let stage = Shared::clone(&stage);
            thread::spawn(move || {
                for place in [system(), tt(), system()] {
                    let moved = stage.device.exec(OpContext::new(), |t| {
                        t.lock(&stage.objects[0])?.validate(&place)
                    });
                    moved.map(drop).unwrap();
                }
            })
        };
        let reaper = {
            let stage = Shared::clone(&stage);
            thread::spawn(move || {
                for _ in 0..3 {
                    stage.device.reap();
                    thread::yield_now();
                }
            })
        };
        join(vec![jobs(system), mover, reaper]);
        stage.job(0, &system());
        stage.end();
        assert_eq!(stage.watch.live(), 0, "nothing uses what is in SYSTEM");
    });
}

/// The frames of one go to another, who has them mapped.
#[test]
fn frames_are_given_away_when_nobody_finds_them_any_more() {
    explore(2_000, || {
        let stage = Stage::new(2, 8);
        let first = {
            let stage = Shared::clone(&stage);
            thread::spawn(move || {
                let bo = stage.device.create(BoInfo::new(4096), ()).unwrap();
                let locked = stage.device.exec(OpContext::new(), |t| {
                    let held = t.lock(&bo)?;
                    held.validate(&tt())?;
                    held.reserve_fences(1)
                });
                let locked = locked.unwrap();
                let fence = stage.timeline.issue();
                locked.fence(&bo, &fence, Usage::Write).unwrap();
                drop(locked);
                drop(bo);
                thread::yield_now();
                stage.timeline.signal(fence.seqno());
            })
        };
        let other = {
            let stage = Shared::clone(&stage);
            thread::spawn(move || {
                for n in 0..2 {
                    stage.device.reap();
                    let moved = stage.device.exec(OpContext::new(), |t| {
                        t.lock(&stage.objects[n])?.validate(&tt())
                    });
                    moved.map(drop).unwrap();
                }
            })
        };
        join(vec![first, other]);
        stage.device.reap();
        stage.end();
        assert_eq!(stage.watch.live(), 2);
    });
}
