//! How fast do pages go to the swap file and come back?
//!
//! Row h: a swap-out, and a swap-in, of one object through a device, with all that belongs to it:
//! slots, short mappings, checksums, frames given back and taken. Beside it the file system's best
//! direct I/O in the same run: the quickest of requests of 1, 2, 4 and 8 MiB, one to
//! eight at once, between a file that has its blocks and memory that is mapped. Expected: at least
//! 0.9 of that bandwidth, since the processor's part of a run is done while the disk moves others.
//!
//! The disk works beside the processor, and helpers of both sides run on other CPUs, so the thread
//! is not kept on one, and being preempted for them is part of the work. With `--ops` only the smaller
//! objects are swapped, once, and the disk is used in one way only.
//!
//! The rows of the engines stand beside: the same work with io_uring, threads and the calling
//! thread. The kernel's figures are for 2 MiB that go no further than another piece of memory.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use backends::host::{FileBackup, IoEngine, MemfdPages, wall_clock};
use backends::sim::SimDriver;
use harness::kernel::{self, Figure};
use harness::measure::{self, Stopwatch};
use harness::{Bench, Row, Target, content};
use placement::{MemType, PageCount, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::fixture;

use disk::{Disk, Method};

#[path = "swap/disk.rs"]
mod disk;

fn main() -> ExitCode {
    harness::run("swap", |bench| {
        measure::unpin()?;
        let sizes = SIZES.iter().filter(|size| !(size.slow && is_quick(bench)));
        for size in sizes.collect::<Vec<_>>() {
            for way in [Way::Out, Way::In] {
                rows(bench, size, way)?;
            }
        }
        Ok(())
    })
}

/// How much is swapped, and what the kernel needs for it.
struct Size {
    name: &'static str,
    bytes: usize,
    /// Swaps a repeat.
    swaps: usize,
    /// Samples a row.
    repeats: usize,
    /// Left out when time is short.
    slow: bool,
    kernel: Option<[Figure; 2]>,
}

/// Whether less than the usual work is asked for, so that the figures mean nothing.
fn is_quick(bench: &Bench) -> bool {
    bench.args.ops_at_most(USUAL) < USUAL
}

/// More operations than any row has.
const USUAL: usize = 100;

const SIZES: [Size; 3] = [
    Size {
        name: "64 MiB",
        bytes: 64 << 20,
        swaps: 1,
        repeats: 9,
        slow: false,
        kernel: None,
    },
    Size {
        name: "256 MiB",
        bytes: 256 << 20,
        swaps: 1,
        repeats: 5,
        slow: true,
        kernel: None,
    },
    Size {
        name: "2 MiB",
        bytes: 2 << 20,
        swaps: 8,
        repeats: 15,
        slow: false,
        kernel: Some([kernel::SWAP_OUT_2M, kernel::SWAP_IN_2M]),
    },
];

/// Samples by which the quickest way to use the disk is found.
const TRIALS: usize = 3;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Out,
    In,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "swap-out",
            Self::In => "swap-in",
        }
    }
}

/// A device with one object in system memory and a backup.
struct Swapper {
    device: Device<SimDriver>,
    backup: Arc<FileBackup>,
    object: Bo<SimDriver>,
}

impl Swapper {
    /// Begins in system memory, with a pattern.
    fn new(bytes: usize, engine: IoEngine) -> anyhow::Result<Self> {
        let limit = 2 * bytes as u64;
        let backup = FileBackup::with_engine(std::env::temp_dir(), limit, engine)?;
        let backup = Arc::new(backup);
        let vram = PageCount::new(16).expect("few");
        let device = Device::builder(SimDriver::new(), wall_clock())
            .pages(Arc::new(MemfdPages::new()?))
            .memory(
                MemType::VRAM,
                Box::new(Range::new(vram)),
                fixture::Nothing::new(vram),
            )
            .backup(backup.clone())
            .build()?;
        let object = device.create(BoInfo::new(bytes as u64), ())?;
        device.exec(OpContext::new(), |t| {
            t.lock(&object)?.validate(&fixture::system())
        })?;
        content::write(&device, &object)?;
        Ok(Self {
            device,
            backup,
            object,
        })
    }

    fn swap(&self, way: Way) {
        let swapped = self.device.exec(OpContext::new(), |t| {
            let locked = t.lock(&self.object)?;
            match way {
                Way::Out => locked.swap_out(),
                Way::In => locked.populate(),
            }
        });
        swapped.expect("room for the only object, and a disk that works");
    }

    /// Times `swaps` swaps one way; those back are not timed. Begins and ends in memory.
    fn repeat(&self, watch: &mut Stopwatch, way: Way, swaps: usize) {
        for _ in 0..swaps {
            match way {
                Way::Out => {
                    watch.time(1, || self.swap(Way::Out));
                    self.swap(Way::In);
                }
                Way::In => {
                    self.swap(Way::Out);
                    watch.time(1, || self.swap(Way::In));
                }
            }
        }
    }
}

/// The engines and what their rows are called; the first is the product's choice.
const ENGINES: [(&str, IoEngine); 4] = [
    ("", IoEngine::Auto),
    (", io_uring", IoEngine::Uring),
    (", threads", IoEngine::Threads),
    (", calling thread", IoEngine::Caller),
];

/// Row h, and the rows of the engines, each in turn with the limit.
fn rows(bench: &mut Bench, size: &Size, way: Way) -> anyhow::Result<()> {
    let name = |engine: &str| format!("h: {}, {}{engine}", way.name(), size.name);
    let wanted = |(engine, _): &&(&str, _)| bench.args.wants(&name(engine));
    let engines: Vec<_> = ENGINES.iter().filter(wanted).collect();
    if engines.is_empty() {
        return Ok(());
    }
    let mut disk = Disk::new(&std::env::temp_dir(), size.bytes)?;
    let method = match is_quick(bench) {
        true => Method::all(disk.bytes())[0],
        false => quickest(&mut disk, way),
    };
    let swaps = bench.args.ops_at_most(size.swaps);
    let repeats = if is_quick(bench) { 1 } else { size.repeats };
    for (engine, wish) in engines {
        let name = name(engine);
        let swapper = Swapper::new(size.bytes, *wish)?;
        let (ours, limit) = measure::compare(
            bench.args.repeats_or(repeats),
            |watch| swapper.repeat(watch, way, swaps),
            |watch| (0..swaps).for_each(|_| disk_repeat(&mut disk, watch, way, method)),
        );
        let whole = content::is_whole(&swapper.device, &swapper.object)?;
        ensure!(whole, "{name}: the content changed");
        println!("{name}: {}", swapper.backup.stats());
        let row = Row::new(name, ours).limit(method.name(), limit);
        bench.report.row(match (&size.kernel, wish) {
            (None, IoEngine::Auto) => row.target(Target::Limit(1.0 / 0.9)),
            (None, _) => row,
            (Some([out, into]), _) => row.kernel(if way == Way::Out { out } else { into }),
        });
    }
    Ok(())
}

/// Times the disk one way, after it went the other way, as a swap does.
fn disk_repeat(disk: &mut Disk, watch: &mut Stopwatch, way: Way, method: Method) {
    let write = way == Way::Out;
    disk.go(!write, method).expect("a disk that works");
    let timed = watch.time(1, || disk.go(write, method));
    timed.expect("a disk that works");
}

/// The method with which the disk is quickest.
fn quickest(disk: &mut Disk, way: Way) -> Method {
    let medians = Method::all(disk.bytes()).into_iter().map(|method| {
        let spread = measure::measure(TRIALS, |watch| disk_repeat(disk, watch, way, method));
        (method, spread.median)
    });
    let (method, _) = medians
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .expect("there is always one");
    method
}
