//! Row m: moves between SYSTEM and VRAM, by whoever copies.

use anyhow::ensure;
use backends::vulkan::{Copies, VulkanConfig};
use harness::copy::Method;
use harness::measure::{Spread, Stopwatch};
use harness::{Bench, Row, Target, content};
use placement::{MemType, human_bytes};

use crate::bare::{Bare, Memory};
use crate::sides::{Found, Side};
use crate::stage::{MIB, Object, Stage};

/// How much is moved, how often in a repeat, and how many repeats there are.
const SIZES: [(u64, usize, usize); 6] = [
    (4 << 10, 32, 31),
    (64 << 10, 32, 31),
    (MIB, 16, 31),
    (16 * MIB, 2, 15),
    (64 * MIB, 1, 9),
    (256 * MIB, 1, 5),
];

/// From here on the copy is nearly all of it.
const LARGE: u64 = 16 * MIB;

const QUEUE: &str = "by the queue";
const CPU: &str = "by the CPU";
const MEASURED: &str = "as measured";
const BARE: &str = "bare copy command";
const MEMCPY: &str = "memcpy";

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Out,
    In,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "VRAM to SYSTEM",
            Self::In => "SYSTEM to VRAM",
        }
    }
}

fn row_name(bytes: u64, way: Way) -> String {
    format!("m: {}, {}", way.name(), human_bytes(bytes))
}

pub(crate) fn moves(bench: &mut Bench) -> anyhow::Result<()> {
    let wanted = SIZES.into_iter().any(|(bytes, ..)| {
        [Way::In, Way::Out]
            .into_iter()
            .any(|way| bench.args.wants(&row_name(bytes, way)))
    });
    if !wanted {
        return Ok(());
    }
    let movers = [Copies::Queue, Copies::Cpu, Copies::Measured].map(|copies| {
        // An eighth is a chunk, so that the largest is in one that stays.
        let config = VulkanConfig::new("ttm bench")
            .limit(MemType::VRAM, 2048 * MIB)
            .copies(copies);
        Stage::again(config)
    });
    let [queue, cpu, measured] = movers;
    let stages = [(QUEUE, queue?), (CPU, cpu?), (MEASURED, measured?)];
    for (bytes, moves, repeats) in SIZES {
        for way in [Way::In, Way::Out] {
            one(bench, &stages, bytes, way, (moves, repeats))?;
        }
    }
    stages.iter().try_for_each(|(_, stage)| stage.check())
}

/// An object, in SYSTEM between repeats.
struct Mover<'a> {
    stage: &'a Stage,
    object: Object,
}

impl<'a> Mover<'a> {
    fn new(stage: &'a Stage, bytes: u64) -> anyhow::Result<Self> {
        let object = stage.make(stage.vulkan.memory(bytes));
        stage.go(&object, &stage.system);
        content::write(&stage.device, &object)?;
        Ok(Self { stage, object })
    }

    /// Times moves one way; the moves back are not timed.
    fn repeat(&self, watch: &mut Stopwatch, way: Way, moves: usize) {
        let stage = self.stage;
        for _ in 0..moves {
            time_if(way == Way::In, watch, || {
                stage.go(&self.object, &stage.vram);
            });
            stage.reap();
            time_if(way == Way::Out, watch, || {
                stage.go(&self.object, &stage.system);
            });
            stage.reap();
        }
    }

    fn ensure_whole(&self) -> anyhow::Result<()> {
        let whole = content::is_whole(&self.stage.device, &self.object)?;
        ensure!(whole, "an object of {} bytes changed", self.object.bytes());
        Ok(())
    }
}

fn time_if(timed: bool, watch: &mut Stopwatch, work: impl FnOnce()) {
    match timed {
        true => watch.time(1, work),
        false => work(),
    }
}

/// One size one way, by everybody, beside the limits on the first device.
fn one(
    bench: &mut Bench,
    stages: &[(&'static str, Stage)],
    bytes: u64,
    way: Way,
    (moves, repeats): (usize, usize),
) -> anyhow::Result<()> {
    let name = row_name(bytes, way);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let bare = Bare::new(&stages[0].1)?;
    let device = Memory::of_device(&bare, bytes)?;
    let host = match bare.vulkan.trials().import {
        true => Memory::of_host(&bare, bytes)?,
        false => Memory::of_device(&bare, bytes)?,
    };
    let (from, to) = match way {
        Way::In => (&host, &device),
        Way::Out => (&device, &host),
    };
    let movers = stages
        .iter()
        .map(|(side, stage)| Ok((*side, Mover::new(stage, bytes)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let moves = bench.args.ops_at_most(moves);
    let mut sides: Vec<_> = movers
        .iter()
        .map(|(side, mover)| Side::new(side, move |watch| mover.repeat(watch, way, moves)))
        .collect();
    sides.push(Side::of(BARE, moves, || bare.copy(from, to)));
    if let (Some(from), Some(to)) = (from.span(), to.span()) {
        sides.push(Side::of(MEMCPY, moves, move || {
            Method::Memcpy.copy(from, to)
        }));
    }
    let found = Found::of(bench.args.repeats_or(repeats), sides);
    movers
        .iter()
        .try_for_each(|(_, mover)| mover.ensure_whole())?;
    for side in [QUEUE, CPU, MEASURED] {
        let Some((ours, (limit_name, limit))) = found.get(side).zip(limit(&found, side)) else {
            continue;
        };
        let row = Row::new(format!("{name}, {side}"), ours).limit(limit_name, limit);
        bench.report.row(match bytes >= LARGE {
            true => row.target(Target::Limit(1.1)),
            false => row,
        });
    }
    Ok(())
}

/// What a way of ours is held against; nothing if it cannot be on this device.
fn limit(found: &Found, side: &str) -> Option<(&'static str, Spread)> {
    let (bare, memcpy) = (found.get(BARE)?, found.get(MEMCPY));
    let by_queue = (BARE, bare);
    match side {
        QUEUE => Some(by_queue),
        CPU => memcpy.map(|memcpy| (MEMCPY, memcpy)),
        _ => Some(match memcpy {
            Some(memcpy) if memcpy.median < bare.median => (MEMCPY, memcpy),
            _ => by_queue,
        }),
    }
}
