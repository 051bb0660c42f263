//! What does a page cost: to take, to populate, to give back to the system?
//!
//! Row p: a frame taken from a warm pool and given back to it. Expected: about two uncontended lock
//! pairs, since a thread takes and gives at a magazine of its own. Zeroing is no part of it: a frame
//! that was not written to goes back as it came, one that is going to be overwritten is taken as it
//! is. The row with zeroing stands beside, and so do 1, 2, 4 and 8 threads.
//!
//! Row c: an object of 2 MiB populated and emptied, zeroing included. Expected: the price of setting
//! 2 MiB to zero in the cache, and little else, because the pool keeps the window through which it
//! zeroed the run the last time.
//!
//! Fresh pages: the first populate of 2 MiB, beside `fallocate` and populating a mapping. Expected:
//! less, where the kernel gives huge pages.
//!
//! Reclaim: 1 GiB in the pool until the system has it back, beside punching one hole. Expected: the
//! same, since that is all there is to do.
//!
//! Cache switch: 64 MiB of frames from cached to write-combined and back. What a process can measure
//! of it is the manager's part, on the simulator's frames: windows closed, the ledger written, the
//! source asked once. It is held against what the hardware's part alone would cost, each line
//! written back and dropped (`clflush`). Expected: nothing beside it. The row on the simulator's
//! cache model stands beside; there each line is compared and copied.

use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use anyhow::ensure;
use backends::host::{MemfdPages, wall_clock};
use backends::sim::{CacheModel, SimMemory, SimPages};
use harness::kernel;
use harness::measure::{Stopwatch, compare, measure, scaling};
use harness::{Bench, Check, Row, Target};
use parking_lot::Mutex;
use placement::{MemType, PageCount, Placement};
use ttm::bo::{Bo, BoInfo};
use ttm::cache::CacheMode;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::fixture::{self, Counting};
use ttm::pages::{Dirty, FrameRun, PageSource, Pool, PoolConfig, Want};

use bare::{Holes, Memory};

#[path = "pages/bare.rs"]
mod bare;

fn main() -> ExitCode {
    harness::run("pages", |bench| {
        one_frame(bench)?;
        on_threads(bench)?;
        populate_warm(bench)?;
        populate_fresh(bench)?;
        reclaim(bench)?;
        switch(bench)
    })
}

const MIB: u64 = 1 << 20;

fn pages(bytes: u64) -> PageCount {
    PageCount::from_bytes_ceil(bytes).expect("a size")
}

/// A pool over the host's page files that keeps whatever it is given.
fn pool() -> anyhow::Result<(Arc<Pool>, Arc<MemfdPages>)> {
    let source = Arc::new(MemfdPages::new()?);
    let config = PoolConfig {
        limit: PageCount::MAX,
        ..PoolConfig::default()
    };
    Ok((Pool::new(source.clone(), wall_clock(), config), source))
}

/// Row p.
fn one_frame(bench: &mut Bench) -> anyhow::Result<()> {
    let (pool, _) = pool()?;
    let want = Want::new(PageCount::ONE);
    let lock = Mutex::new(0_u64);
    let ops = bench.args.ops(10_000);
    let pair = |watch: &mut Stopwatch| {
        watch.time(ops, || {
            for _ in 0..ops {
                *std::hint::black_box(&lock).lock() += 1;
            }
        });
    };
    let zeroed = || pool.give_unwritten(pool.take(&want).expect("a frame"));
    let overwritten = || pool.give(pool.take_to_overwrite(&want).expect("a frame"));
    let written = || pool.give(pool.take(&want).expect("a frame").dirtied());
    let ways: [(&str, &dyn Fn(), bool); 3] = [
        (
            "p: take and give one frame, zero and left so",
            &zeroed,
            true,
        ),
        (
            "p: take and give one frame, to be overwritten",
            &overwritten,
            true,
        ),
        (
            "p: take and give one frame, zeroed each time",
            &written,
            false,
        ),
    ];
    for (name, way, counts) in ways {
        if !bench.args.wants(name) {
            continue;
        }
        way();
        let (ours, limit) = compare(
            bench.args.repeats(),
            |watch| watch.time(ops, || (0..ops).for_each(|_| way())),
            pair,
        );
        let row = Row::new(name, ours).limit("an uncontended lock pair", limit);
        bench.report.row(match counts {
            true => row.target(Target::Limit(4.0)),
            false => row,
        });
    }
    ensure!(pool.owned().is_zero(), "a frame was lost");
    Ok(())
}

/// Frames taken and given by several threads at once, eight at a time each.
fn on_threads(bench: &mut Bench) -> anyhow::Result<()> {
    const HELD: usize = 8;
    let ops = bench.args.ops(20_000);
    let (pool, _) = pool()?;
    let work = |pool: &Pool| {
        let want = Want::new(PageCount::ONE);
        let mut held: Vec<FrameRun<Dirty>> = Vec::with_capacity(HELD);
        for _ in 0..ops / HELD {
            for _ in 0..HELD {
                held.push(pool.take_to_overwrite(&want).expect("a frame"));
            }
            held.drain(..).for_each(|run| pool.give(run));
        }
    };
    for threads in [1, 2, 4, 8] {
        let name = format!("p: take and give, {threads} threads, time a frame and thread");
        if !bench.args.wants(&name) {
            continue;
        }
        let ours = measure(bench.args.repeats_or(15), |watch| {
            let barrier = Barrier::new(threads + 1);
            let elapsed = std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        barrier.wait();
                        work(&pool);
                        barrier.wait();
                    });
                }
                barrier.wait();
                let start = Instant::now();
                barrier.wait();
                start.elapsed()
            });
            watch.add(ops * threads, elapsed);
        });
        bench.report.row(Row::new(name, ours));
    }
    let name = "p: take and give, two threads over one, each on a CPU of its own";
    if bench.args.wants(name) {
        let seen = scaling(bench.args.repeats(), |_| {
            let (pool, work) = (&pool, &work);
            move |watch: &mut Stopwatch| watch.time(ops, || work(pool))
        });
        match seen {
            Ok(seen) => {
                let check = Check::new(name, seen.factor, seen.two.samples);
                bench.report.check(check.at_least(1.8));
            }
            Err(error) => println!("{name}: skipped, there is no second CPU: {error}"),
        }
    }
    ensure!(pool.owned().is_zero(), "a frame was lost");
    Ok(())
}

/// A device with the host's pages, and one object in system memory.
struct Object {
    device: Device<Counting>,
    bo: Bo<Counting>,
    system: Placement,
}

impl Object {
    fn new(bytes: u64) -> anyhow::Result<Self> {
        let source = Arc::new(MemfdPages::new()?);
        let device = Device::builder(Counting, wall_clock())
            .pages(source)
            .build()?;
        let object = Self {
            bo: device.create(BoInfo::new(bytes), ())?,
            device,
            system: fixture::system(),
        };
        object.empty();
        Ok(object)
    }

    fn populate(&self) {
        let locked = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.bo)?.populate());
        drop(locked.expect("memory"));
    }

    /// Throws the pages away; the object is in system memory again, without any.
    fn empty(&self) {
        let nowhere = Placement::new();
        let locked = self.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&self.bo)?;
            reserved.validate(&nowhere)?;
            reserved.validate(&self.system)
        });
        drop(locked.expect("a place"));
    }
}

/// Row c.
fn populate_warm(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes = [
        ("4 KiB", 4096, &kernel::POPULATE_4K, 500, false),
        ("64 KiB", 64 << 10, &kernel::POPULATE_64K, 500, false),
        ("2 MiB", 2 * MIB, &kernel::POPULATE_2M, 20, true),
    ];
    for (size, bytes, figure, ops, counts) in sizes {
        let name = format!("c: populate and unpopulate {size}, warm, zeroed");
        if !bench.args.wants(&name) {
            continue;
        }
        let object = Object::new(bytes)?;
        let memory = Memory::new(bytes)?;
        let ops = bench.args.ops_at_most(ops);
        let (ours, limit) = compare(
            bench.args.repeats(),
            |watch| {
                watch.time(ops, || {
                    for _ in 0..ops {
                        object.populate();
                        object.empty();
                    }
                });
            },
            |watch| watch.time(ops, || (0..ops).for_each(|_| memory.zero())),
        );
        let usage = object.device.manager(MemType::SYSTEM).map(|m| m.usage());
        ensure!(usage.is_some_and(|u| u.objects == 1), "the object is there");
        let row = Row::new(name, ours)
            .limit("zeroing as much, mapped and warm", limit)
            .kernel(figure);
        bench.report.row(match counts {
            true => row.target(Target::Kernel(1.0)),
            false => row,
        });
    }
    Ok(())
}

/// The first populate of 2 MiB.
fn populate_fresh(bench: &mut Bench) -> anyhow::Result<()> {
    let name = "fresh: the first populate of 2 MiB, and a window over it";
    if !bench.args.wants(name) {
        return Ok(());
    }
    let (pool, source) = pool()?;
    let want = Want::new(pages(2 * MIB));
    let ops = bench.args.ops_at_most(16);
    let holes = Holes::new(2 * MIB * ops as u64)?;
    let mut runs = Vec::new();
    let (ours, limit) = compare(
        bench.args.repeats_or(31),
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    let run = pool.take(&want).expect("memory");
                    drop(pool.kmap(run.span()).expect("address space"));
                    runs.push(run);
                }
            });
            runs.drain(..).for_each(|run| pool.give(run.dirtied()));
            pool.shrink();
        },
        |watch| {
            watch.time(ops, || {
                for n in 0..ops as u64 {
                    let bytes = n * 2 * MIB..(n + 1) * 2 * MIB;
                    holes.fill(bytes).expect("memory");
                }
            });
            holes.punch().expect("a hole");
        },
    );
    ensure!(source.taken().is_zero(), "a frame was lost");
    let row = Row::new(name, ours).limit("fallocate, mmap, populate, munmap", limit);
    bench.report.row(row.target(Target::Limit(1.0)));
    Ok(())
}

/// 1 GiB of pooled frames until the system has them back.
fn reclaim(bench: &mut Bench) -> anyhow::Result<()> {
    let size = match bench.args.ops_at_most(1024) {
        small @ ..64 => small as u64 * MIB,
        mib => mib as u64 * MIB,
    };
    let size = size.max(2 * MIB);
    let name = format!(
        "reclaim: {} MiB of 2 MiB runs, until the system has them",
        size / MIB
    );
    if !bench.args.wants("reclaim") {
        return Ok(());
    }
    let (pool, source) = pool()?;
    let want = Want::new(pages(2 * MIB));
    let holes = Holes::new(size)?;
    let mut left = 0;
    let (ours, limit) = compare(
        bench.args.repeats_or(5),
        |watch| {
            let runs = (0..size / (2 * MIB)).map(|_| pool.take(&want).expect("memory"));
            let runs: Vec<_> = runs.collect();
            runs.into_iter().for_each(|run| pool.give(run.dirtied()));
            watch.time(1, || pool.shrink());
            left = left.max(source.resident().expect("the kernel counts"));
        },
        |watch| {
            holes.fill_all().expect("memory");
            watch.time(1, || holes.punch().expect("a hole"));
        },
    );
    ensure!(left == 0, "{left} bytes were not given back");
    let row = Row::new(name, ours).limit("punching one hole of 4 KiB pages", limit);
    bench.report.row(row.target(Target::Limit(1.0)));
    Ok(())
}

/// 64 MiB of frames from one mode to another.
fn switch(bench: &mut Bench) -> anyhow::Result<()> {
    const SIZE: u64 = 64 * MIB;
    let plain = SimMemory::new(pages(4 * SIZE));
    let rows = [
        ("cache switch: 64 MiB, the manager's part", plain, true),
        (
            "cache switch: 64 MiB on the simulator's cache model",
            plain.cache(CacheModel::still()),
            false,
        ),
    ];
    for (name, memory, counts) in rows {
        if !bench.args.wants(name) {
            continue;
        }
        let config = PoolConfig {
            limit: PageCount::MAX,
            ..PoolConfig::default()
        };
        let pool = Pool::new(Arc::new(SimPages::new(memory)?), wall_clock(), config);
        let take = || pool.take(&Want::new(pages(2 * MIB))).map(FrameRun::dirtied);
        let runs: ttm::Result<Vec<_>> = (0..SIZE / (2 * MIB)).map(|_| take()).collect();
        let mut runs = runs?;
        let touched = Memory::new(SIZE)?;
        let (ours, limit) = compare(
            bench.args.repeats_or(15),
            |watch| {
                for mode in [CacheMode::WriteCombined, CacheMode::Cached] {
                    let mut all: Vec<_> = runs.iter_mut().collect();
                    watch.time(1, || {
                        pool.switch(&mut all, mode).expect("the sim has all modes")
                    });
                }
            },
            |watch| {
                touched.zero();
                watch.time(1, || touched.flush());
            },
        );
        let expected = pool.ledger().switches;
        ensure!(
            expected >= runs.len() as u64,
            "{expected} runs were switched"
        );
        runs.into_iter().for_each(|run| pool.give(run));
        let row = Row::new(name, ours).limit("clflush of as many dirty lines", limit);
        bench.report.row(match counts {
            true => row.target(Target::Limit(0.01)),
            false => row,
        });
    }
    Ok(())
}
