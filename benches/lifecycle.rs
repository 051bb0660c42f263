//! What does an object cost from its making to its end?
//!
//! Row a: made, made resident in VRAM, dropped. Expected: no more than the kernel's. The work is
//! the same (two allocations, a reservation, a node in the space, an entry in the order of
//! eviction); the kernel counts references with one more lock each, we read the clock for the
//! event. Beside 10,000 live objects clearly less: the kernel's tree of free space is deep and
//! scattered by then, ours is wide and near.
//!
//! Row b: the same into system memory without pages. Expected: the same for 4 KiB and 2 MiB,
//! since pages that nobody populated are counted and not listed.
//!
//! Dropping only enqueues an object, and the next one made takes it down, so each operation of
//! the rows with a target does both halves once. The batches take them apart.

use std::process::ExitCode;

use anyhow::ensure;
use harness::kernel::{self, Figure};
use harness::measure::{Stopwatch, interleave, measure};
use harness::rig::{Object, PAGE, Rig};
use harness::{Bench, Row, Target};
use placement::Placement;

fn main() -> ExitCode {
    harness::run("lifecycle", |bench| {
        for case in &CASES {
            create_and_drop(bench, case)?;
        }
        for batch in &BATCHES {
            batches(bench, batch)?;
        }
        Ok(())
    })
}

/// VRAM of 16 GiB, in pages.
const VRAM: u64 = 1 << 22;

#[derive(Clone, Copy, PartialEq)]
enum Into {
    Vram,
    System,
}

impl Into {
    fn placement(self, rig: &Rig) -> &Placement {
        match self {
            Self::Vram => &rig.vram,
            Self::System => &rig.system,
        }
    }
}

/// One row: an operation makes an object, makes it resident and drops it.
struct Case {
    name: &'static str,
    into: Into,
    bytes: u64,
    /// How many objects of one page are in VRAM all the time.
    live: usize,
    figure: Figure,
    target: f64,
}

const CASES: [Case; 4] = [
    Case {
        name: "a: create, validate into VRAM, drop, 4 KiB, empty",
        into: Into::Vram,
        bytes: PAGE,
        live: 0,
        figure: kernel::CREATE_VRAM_EMPTY,
        target: 1.0,
    },
    Case {
        name: "a: the same, 10k live",
        into: Into::Vram,
        bytes: PAGE,
        live: kernel::CREATE_LIVE,
        figure: kernel::CREATE_VRAM_10K_LIVE,
        target: 0.8,
    },
    Case {
        name: "b: create, validate into SYSTEM, drop, 4 KiB",
        into: Into::System,
        bytes: PAGE,
        live: 0,
        figure: kernel::CREATE_SYSTEM_4K,
        target: 1.0,
    },
    Case {
        name: "b: the same, 2 MiB",
        into: Into::System,
        bytes: 512 * PAGE,
        live: 0,
        figure: kernel::CREATE_SYSTEM_2M,
        target: 1.0,
    },
];

fn create_and_drop(bench: &mut Bench, case: &Case) -> anyhow::Result<()> {
    if !bench.args.wants(case.name) {
        return Ok(());
    }
    let rig = Rig::new(VRAM)?;
    let live = rig.fill(case.live);
    let placement = case.into.placement(&rig);
    let ops = bench.args.ops(kernel::CREATE_OPS);
    let ours = measure(bench.args.repeats(), |watch| {
        watch.time(ops, || {
            for _ in 0..ops {
                let object = rig.create(case.bytes);
                rig.validate(&object, placement);
            }
        });
    });
    only_these_are_left(&rig, &live)?;
    bench.report.row(
        Row::new(case.name, ours)
            .kernel(&case.figure)
            .target(Target::Kernel(case.target)),
    );
    Ok(())
}

/// Two rows: a thousand objects are made, and then a thousand are dropped and taken down.
struct Batch {
    name: &'static str,
    into: Into,
    live: usize,
    create: Figure,
    put: Figure,
}

const BATCHES: [Batch; 3] = [
    Batch {
        name: "a, empty, a batch of 1,000",
        into: Into::Vram,
        live: 0,
        create: kernel::BATCH_VRAM_EMPTY[0],
        put: kernel::BATCH_VRAM_EMPTY[1],
    },
    Batch {
        name: "a, 10k live, a batch of 1,000",
        into: Into::Vram,
        live: kernel::CREATE_LIVE,
        create: kernel::BATCH_VRAM_10K_LIVE[0],
        put: kernel::BATCH_VRAM_10K_LIVE[1],
    },
    Batch {
        name: "b, 4 KiB, a batch of 1,000",
        into: Into::System,
        live: 0,
        create: kernel::BATCH_SYSTEM_4K[0],
        put: kernel::BATCH_SYSTEM_4K[1],
    },
];

fn batches(bench: &mut Bench, batch: &Batch) -> anyhow::Result<()> {
    if !bench.args.wants(batch.name) {
        return Ok(());
    }
    let rig = Rig::new(VRAM)?;
    let live = rig.fill(batch.live);
    let ops = bench.args.ops(kernel::CREATE_OPS);
    let placement = batch.into.placement(&rig);
    let create = |objects: &mut Vec<Object>| {
        for _ in 0..ops {
            let object = rig.create(PAGE);
            rig.validate(&object, placement);
            objects.push(object);
        }
    };
    let put = |objects: Vec<Object>| {
        drop(objects);
        rig.device.reap();
    };
    let mut creates = |watch: &mut Stopwatch| {
        let mut objects = Vec::with_capacity(ops);
        watch.time(ops, || create(&mut objects));
        put(objects);
    };
    let mut puts = |watch: &mut Stopwatch| {
        let mut objects = Vec::with_capacity(ops);
        create(&mut objects);
        watch.time(ops, || put(objects));
    };
    let [made, dropped] = interleave(bench.args.repeats(), [&mut creates, &mut puts]);
    only_these_are_left(&rig, &live)?;
    let row =
        |what, spread, figure| Row::new(format!("{}: {what}", batch.name), spread).kernel(figure);
    bench.report.row(row("create", made, &batch.create));
    bench.report.row(row("drop and reap", dropped, &batch.put));
    Ok(())
}

fn only_these_are_left(rig: &Rig, live: &[Object]) -> anyhow::Result<()> {
    rig.device.reap();
    ensure!(
        rig.device.live_objects() == live.len() as u64,
        "{} objects are left, not {}",
        rig.device.live_objects(),
        live.len()
    );
    ensure!(
        rig.pages_used() == live.len() as u64,
        "{} pages are used, not {}",
        rig.pages_used(),
        live.len()
    );
    rig.check()
}
