//! Windows under many schedules: writers and readers while their object is moved, swapped, thrown
//! away, and its windows closed. No store is lost, no load sees an older value than before, and
//! nobody waits for ever.
#![cfg(shuttle)]

#[path = "corpus/machine.rs"]
#[allow(dead_code, reason = "the corpus uses the rest")]
mod machine;
mod shuttle_explore;
#[path = "shuttle_window/space.rs"]
mod space;

use shuttle::sync::Arc;
use shuttle::thread::{self, JoinHandle};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::{Advice, BoFacts, Driver, Eviction, MoveFacts, Route};
use ttm::fixture::{still, system, vram};
use ttm::map::{Access, FaultSource, MapInfo, Window, Windows};
use ttm::placement::{MemType, Placement, Range};

use machine::{Frames, Shelf, Vram, pages};
use shuttle_explore::explore;
use space::FakeSpace;

/// A driver whose content goes by the CPU.
struct ByCpu;

impl Driver for ByCpu {
    type Object = ();

    fn evict_to(&self, _: &BoFacts, (): &()) -> Eviction {
        Eviction::To(system())
    }

    fn route(&self, _: &BoFacts, (): &(), job: &MoveFacts) -> Route {
        match job.has_content {
            true => Route::Cpu,
            false => Route::Clear(None),
        }
    }
}

/// A device whose memory the CPU reaches to the half, and one object.
struct Stage {
    device: Device<ByCpu>,
    space: std::sync::Arc<FakeSpace>,
    windows: Windows<ByCpu>,
    bo: Bo<ByCpu>,
    servers: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Stage {
    fn new(size: u64, tracks: bool) -> Arc<Self> {
        let (frames, memory) = (Frames::new(4 * size), Vram::new(4 * size));
        let device = Device::builder(ByCpu, still())
            .pages(frames.clone())
            .backup(Shelf::new(4 * size))
            .memory(
                MemType::VRAM,
                Box::new(Range::new(pages(4 * size))),
                memory.clone(),
            )
            .build()
            .unwrap();
        let space = FakeSpace::new(vec![frames.memory(), memory.memory()], tracks);
        let windows = Windows::new(&device, space.clone());
        let bo = device.create(BoInfo::new(size * 4096), ()).unwrap();
        let stage = Arc::new(Self {
            device,
            space,
            windows,
            bo,
            servers: std::sync::Mutex::new(Vec::new()),
        });
        for _ in 0..2 {
            let (space, handler) = (stage.space.clone(), stage.windows.handler());
            let server = thread::spawn(move || {
                while let Some(fault) = space.next() {
                    handler.serve(&fault);
                }
            });
            stage.servers.lock().unwrap().push(server);
        }
        stage
    }

    fn map(&self) -> Window<ByCpu> {
        self.windows.map(&self.bo, MapInfo::whole()).unwrap()
    }

    fn go(&self, to: &Placement) {
        let moved = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.bo)?.validate(to));
        moved.map(drop).unwrap();
    }

    fn swap_out(&self) {
        let swapped = self.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&self.bo)?;
            reserved.validate(&system())?;
            reserved.swap_out()
        });
        swapped.map(drop).unwrap();
    }

    /// Writes 1 to `most` to the word at `address`, and finds each there again.
    fn write(self: &Arc<Self>, address: usize, most: u64) -> JoinHandle<()> {
        let stage = Arc::clone(self);
        thread::spawn(move || {
            for n in 1..=most {
                stage.space.store(address, n).expect("the content is there");
                let found = stage.space.load(address);
                assert_eq!(found, Some(n), "a store was lost");
            }
        })
    }

    /// Reads the word at `address`, which never falls.
    fn read(self: &Arc<Self>, address: usize, times: usize) -> JoinHandle<()> {
        let stage = Arc::clone(self);
        thread::spawn(move || {
            let mut last = 0;
            for _ in 0..times {
                let found = stage.space.load(address).expect("the content is there");
                assert!(found >= last, "{found} after {last}");
                last = found;
            }
        })
    }

    fn end(&self) {
        self.device.check().unwrap_or_else(|v| panic!("{v}"));
        self.space.stop();
        let servers = core::mem::take(&mut *self.servers.lock().unwrap());
        servers.into_iter().for_each(|s| s.join().unwrap());
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn a_store_survives_every_move() {
    explore(1_500, || {
        let stage = Stage::new(2, false);
        let window = stage.map();
        let at = window.addresses().base;
        let threads = [
            stage.write(at, 3),
            stage.read(at, 3),
            stage.write(at + 4096, 2),
        ];
        stage.go(&vram());
        stage.go(&system());
        stage.swap_out();
        join(threads);
        assert_eq!(stage.space.load(at), Some(3));
        assert_eq!(stage.space.load(at + 4096), Some(2));
        stage.end();
    });
}

#[test]
fn two_windows_of_an_object_show_the_same() {
    explore(1_500, || {
        let stage = Stage::new(2, false);
        let first = stage.map();
        let second = MapInfo::whole().pages(1..2).access(Access::Read);
        let second = stage.windows.map(&stage.bo, second).unwrap();
        let (here, there) = (first.addresses().base + 4096, second.addresses().base);
        let threads = [stage.write(here, 3), stage.read(there, 3)];
        stage.go(&vram());
        stage.go(&system());
        join(threads);
        assert_eq!(stage.space.load(there), Some(3));
        stage.end();
    });
}

#[test]
fn what_is_written_during_a_long_copy_is_copied_again() {
    explore(200, || {
        let stage = Stage::new(512, true);
        let window = stage.map();
        let at = window.addresses().base;
        stage.space.store(at, 0).unwrap();
        let threads = [
            stage.write(at, 3),
            stage.write(at + 511 * 4096, 3),
            stage.read(at, 3),
        ];
        stage.go(&vram());
        stage.go(&system());
        join(threads);
        assert_eq!(stage.space.load(at + 511 * 4096), Some(3));
        stage.end();
    });
}

#[test]
fn a_window_closes_while_its_object_moves_and_another_is_touched() {
    explore(1_500, || {
        let stage = Stage::new(1, false);
        let (stays, goes) = (stage.map(), stage.map());
        let at = stays.addresses().base;
        let goes_at = goes.addresses().base;
        stage.space.store(goes_at, 7).unwrap();
        let threads = [stage.write(at + 8, 2)];
        let mover = {
            let stage = Arc::clone(&stage);
            thread::spawn(move || stage.go(&vram()))
        };
        drop(goes);
        join(threads.into_iter().chain([mover]));
        assert_eq!(stage.space.load(at), Some(7));
        stage.end();
    });
}

/// Content that is thrown away is zero, or ends the access; never something else.
#[test]
fn what_was_thrown_away_is_never_half_there() {
    explore(1_500, || {
        let stage = Stage::new(1, false);
        let window = stage.map();
        let at = window.addresses().base;
        stage.space.store(at, 7).unwrap();
        let discarding = {
            let stage = Arc::clone(&stage);
            thread::spawn(move || {
                let advised = stage.device.exec(OpContext::new(), |t| {
                    let reserved = t.lock(&stage.bo)?;
                    reserved.validate(&vram())?;
                    reserved.advise(Advice::DontNeed);
                    Ok(())
                });
                advised.map(drop).unwrap();
                stage
                    .device
                    .evict_all(MemType::VRAM, OpContext::new())
                    .unwrap();
            })
        };
        let mut purged = false;
        for _ in 0..3 {
            let found = stage.space.load(at);
            assert!(found.is_none() || found == Some(7), "{found:?}");
            assert!(!(purged && found.is_some()), "it came back");
            purged |= found.is_none();
        }
        join([discarding]);
        assert_eq!(stage.space.load(at), None);
        stage.end();
    });
}

/// The address space refuses something in the middle of a move: the object is wholly somewhere, and
/// the window shows it.
#[test]
fn a_refused_call_loses_nothing() {
    explore(1_500, || {
        use shuttle::rand::Rng;
        let stage = Stage::new(2, false);
        let window = stage.map();
        let at = window.addresses().base;
        stage.space.store(at, 1).unwrap();
        let writer = stage.write(at + 4096, 3);
        stage
            .space
            .fail(shuttle::rand::thread_rng().gen_range(1..8));
        let moves = [vram(), system(), vram()];
        for to in &moves {
            let moved = stage
                .device
                .exec(OpContext::new(), |t| t.lock(&stage.bo)?.validate(to));
            if let Err(error) = moved.map(drop) {
                assert!(error.to_string().contains("told to"), "{error}");
            }
        }
        stage.space.fail(0);
        window.mend().unwrap();
        // The writer may have met the failure, which ends its access in a signal.
        let _ = writer.join();
        assert_eq!(stage.space.load(at), Some(1));
        stage.end();
    });
}
