//! How long does somebody wait who writes through a window while its object moves?
//!
//! Row w: the longest gap between two stores of a thread that does nothing else, for each of 200
//! moves, from one half of a card's memory to the other. The move copies nothing (the driver says
//! so), so what is left is what the manager adds to a copy: the window is put out of the way and
//! over the new place. Beside it the same with bare system calls: write-protect, `mremap` of a
//! populated mapping, wake. Expected: at most 1.2 of it in the median, 1.5 at the 99th percentile.
//!
//! Row v: one store to a window whose object has moved and that was not put over the new place: the
//! fault, its way through the manager, the mapping, the store. Beside it a thread that reads the
//! fault and does the same calls. Expected: at most 1.2 of it.
//!
//! Rows whose names end in "a whole move" are moves with content by the CPU, the copy included: from
//! 2 MiB on the copy is made while the writer goes on, and only what it wrote meanwhile is copied
//! again while it waits.
//!
//! Where userfaultfd is not allowed, nothing is measured, which is said.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use backends::host::{FaultThreads, HostSpace, Strategy};
use backends::sim::{Gpu, GpuConfig, RouteMode, SimClock, SimDriver};
use harness::measure::{Spread, Stopwatch, compare, pin, quantile};
use harness::{Bench, Check, Row, Target};
use placement::{MemType, PageCount, PageRange, Place, Placement, Range, human_bytes};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::BoKind;
use ttm::map::{Follow, MapInfo, Window, WindowConfig, Windows};

use bare::Bare;
use writer::Writer;

#[path = "windows/bare.rs"]
mod bare;
#[path = "windows/writer.rs"]
mod writer;

/// Moves a row.
const MOVES: usize = 200;

fn main() -> ExitCode {
    harness::run("windows", |bench| {
        if let Err(error) = HostSpace::with(Strategy::Privileged) {
            println!("not measured: {error}");
            return Ok(());
        }
        for bytes in [4 << 10, 64 << 10, 2 << 20, 64 << 20, 256 << 20] {
            switch(bench, bytes, 0)?;
        }
        for others in [1_000, 10_000] {
            switch(bench, 4 << 10, others)?;
        }
        for bytes in [4 << 10, 64 << 10, 2 << 20] {
            fault(bench, bytes, 0)?;
        }
        for others in [1_000, 10_000] {
            fault(bench, 4 << 10, others)?;
        }
        for bytes in [64 << 10, 2 << 20, 64 << 20, 256 << 20] {
            for share in [1, 64] {
                whole_move(bench, bytes, share)?;
            }
        }
        Ok(())
    })
}

/// A card, an object in it, and windows.
struct Rig {
    device: Device<SimDriver>,
    object: Bo<SimDriver>,
    places: [Placement; 2],
    next: usize,
    window: Option<Window<SimDriver>>,
    others: Vec<Window<SimDriver>>,
    threads: Option<FaultThreads>,
    // Last: the card ends after everything that is in it.
    _gpu: Gpu,
}

impl Rig {
    fn new(bytes: usize, others: usize, route: RouteMode, follow: Follow) -> anyhow::Result<Self> {
        let pages = PageCount::from_bytes_ceil(bytes as u64).context("a size")?;
        let (size, spare) = (pages.get(), others as u64);
        let vram = PageCount::new(2 * size + spare).context("a size")?;
        let config = GpuConfig::new(vram);
        let gpu = Gpu::new(config, SimClock::Wall)?;
        let device = Device::builder(SimDriver::new().routes(route), gpu.clock())
            .pages(gpu.pages())
            .memory(MemType::VRAM, Box::new(Range::new(vram)), gpu.region())
            .build()?;
        let space = Arc::new(HostSpace::with(Strategy::Privileged)?);
        let config = WindowConfig {
            follow,
            ..WindowConfig::default()
        };
        let windows = Windows::with_config(&device, space.clone(), config);
        // Beside the writer, not beside the mover.
        pin(1)?;
        let threads = FaultThreads::start(windows.handler(), space, 2);
        pin(0)?;
        let half = |n: u64| {
            let range = PageRange::new(n * size, (n + 1) * size).expect("in order");
            Placement::of(Place::new(MemType::VRAM).within(range))
        };
        let places = match route {
            RouteMode::Null => [half(0), half(1)],
            _ => [half(0), Placement::of(Place::new(MemType::SYSTEM))],
        };
        let info = |bytes: u64| BoInfo::new(bytes).kind(BoKind::Kernel);
        let object = device.create(info(bytes as u64), ())?;
        let mut rig = Self {
            window: Some(windows.map(&object, MapInfo::whole())?),
            device,
            object,
            places,
            next: 0,
            others: Vec::new(),
            threads: Some(threads?),
            _gpu: gpu,
        };
        rig.go();
        rig.window().populate()?;
        rig.go();
        rig.go();
        let beyond = PageRange::new(2 * size, vram.get()).context("a range")?;
        let beyond = Placement::of(Place::new(MemType::VRAM).within(beyond));
        for _ in 0..others {
            let other = rig
                .device
                .create_in(OpContext::new(), info(4096), (), &beyond)?;
            let window = windows.map(&other, MapInfo::whole())?;
            window.populate()?;
            rig.others.push(window);
        }
        Ok(rig)
    }

    fn window(&self) -> &Window<SimDriver> {
        self.window.as_ref().expect("open until the end")
    }

    fn base(&self) -> usize {
        self.window().addresses().base
    }

    fn go(&mut self) {
        let to = &self.places[self.next];
        self.next = 1 - self.next;
        let moved = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.object)?.validate(to));
        drop(moved.expect("room for the only object"));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.others.clear();
        self.window = None;
        self.threads = None;
    }
}

fn name(row: &str, bytes: usize, others: usize) -> String {
    let mut name = format!("{row}: {}", human_bytes(bytes as u64));
    if others > 0 {
        name += &format!(", {others} other windows");
    }
    name
}

/// Row w.
fn switch(bench: &mut Bench, bytes: usize, others: usize) -> anyhow::Result<()> {
    let name = name("w", bytes, others);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mut rig = Rig::new(bytes, others, RouteMode::Null, Follow::Auto)?;
    let mut bare = Bare::new(bytes)?;
    let writer = Writer::start();
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..bench.args.ops_at_most(MOVES) {
        writer.aim(rig.base(), bytes);
        ours.push(writer.longest_gap(|| rig.go()).as_nanos() as f64);
        bare.watch_writes()?;
        writer.aim(bare.base(), bytes);
        let side = bare.prepare(true)?;
        let gap = writer.longest_gap(|| {
            let switched = bare.protect().and_then(|()| bare.switch(side));
            switched.expect("the kernel does what it did before");
        });
        limit.push(gap.as_nanos() as f64);
    }
    writer.aim(0, 0);
    let row = Row::new(&name, Spread::of(&ours)).limit("protect, mremap, wake", Spread::of(&limit));
    bench.report.row(row.target(Target::Limit(1.2)));
    let tail = |samples: &[f64]| quantile(samples, 0.99);
    let p99 = Check::new(
        format!("{name}: p99 over the limit's"),
        tail(&ours) / tail(&limit),
        ours.len(),
    );
    bench.report.check(p99.at_most(1.5));
    for (whose, samples) in [
        ("the longest gap", &ours),
        ("the limit's longest gap", &limit),
    ] {
        let longest = samples.iter().copied().fold(0.0, f64::max) / 1e3;
        let check = Check::new(format!("{name}: {whose}, us"), longest, samples.len());
        bench.report.check(check);
    }
    Ok(())
}

/// Row v.
fn fault(bench: &mut Bench, bytes: usize, others: usize) -> anyhow::Result<()> {
    let name = name("v", bytes, others);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mut rig = Rig::new(bytes, others, RouteMode::Null, Follow::OnFault)?;
    let served = Served::start(bytes)?;
    let words = rig.base();
    let ops = bench.args.ops_at_most(8);
    let (ours, limit) = compare(
        bench.args.repeats(),
        |watch: &mut Stopwatch| {
            for _ in 0..ops {
                rig.go();
                watch.time(1, || touch(words));
            }
        },
        |watch: &mut Stopwatch| {
            for _ in 0..ops {
                served.revoke();
                watch.time(1, || touch(served.base));
            }
        },
    );
    let row = Row::new(name, ours).limit("read, mmap, mremap, wake", limit);
    bench.report.row(row.target(Target::Limit(1.2)));
    drop(served);
    Ok(())
}

/// A move with its copy, under a writer of one page in `share`.
fn whole_move(bench: &mut Bench, bytes: usize, share: usize) -> anyhow::Result<()> {
    let mut name = format!("{}, a whole move", name("w", bytes, 0));
    if share > 1 {
        name += &format!(", 1/{share} written");
    }
    let written = (bytes / share).max(4096);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mut rig = Rig::new(bytes, 0, RouteMode::Cpu, Follow::Auto)?;
    let writer = Writer::start();
    writer.aim(rig.base(), written);
    let (mut gaps, mut moves) = (Vec::new(), Vec::new());
    for _ in 0..bench.args.ops_at_most(MOVES.min((4 << 30) / bytes)) {
        let gap = writer.longest_gap(|| {
            let begun = Instant::now();
            rig.go();
            moves.push(begun.elapsed().as_nanos() as f64);
        });
        gaps.push(gap.as_nanos() as f64);
    }
    writer.aim(0, 0);
    let row = Row::new(name, Spread::of(&gaps)).limit("the whole move", Spread::of(&moves));
    bench.report.row(row);
    Ok(())
}

/// Stores one word.
fn touch(base: usize) {
    writer::store(base, 1);
}

/// A bare window whose accesses are served by a thread.
struct Served {
    base: usize,
    bare: Arc<parking_lot::Mutex<Bare>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Served {
    fn start(bytes: usize) -> anyhow::Result<Self> {
        let bare = Bare::new(bytes)?;
        let (base, source) = (bare.base(), bare.source()?);
        let bare = Arc::new(parking_lot::Mutex::new(bare));
        let theirs = Arc::clone(&bare);
        // What is shown after a fault of more than 64 KiB has its page tables filled by touching.
        let filled = bytes <= 64 << 10;
        let thread = thread::spawn(move || {
            let _ = pin(1);
            while Bare::next_fault(&source).is_ok() {
                let mut bare = theirs.lock();
                let side = bare.prepare(filled).expect("addresses for a mapping");
                bare.switch(side)
                    .expect("the kernel does what it did before");
                if bare.is_over() {
                    return;
                }
            }
        });
        Ok(Self {
            base,
            bare,
            thread: Some(thread),
        })
    }

    fn revoke(&self) {
        let bare = self.bare.lock();
        bare.revoke().expect("the kernel does what it did before");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.bare.lock().end();
        self.revoke();
        touch(self.base);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
