//! Row b: making a buffer, putting it into device memory, binding and dropping it.

use std::collections::VecDeque;

use anyhow::ensure;
use backends::vulkan::{BufferInfo, Described, VulkanConfig};
use harness::{Bench, Row, Target};
use placement::{MemType, human_bytes};
use ttm::context::OpContext;
use ttm::driver::BoKind;
use ttm::fence::Usage;

use crate::bare::{Bare, Memory, USAGE};
use crate::peers;
use crate::sides::{Found, Side};
use crate::stage::{MIB, Object, Stage};

/// Bytes of a chunk, and of a block of the others.
pub(crate) const BLOCK: u64 = 256 * MIB;

/// How many live beside the one that is made and the one that is dropped.
pub(crate) const LIVE: usize = 64;

/// How many are made and dropped in a repeat.
const TURNS: usize = 128;

const SIZES: [u64; 3] = [4 << 10, 64 << 10, MIB];

const BARE: &str = "bare calls";
const MOVING: &str = "new handle";
const STABLE: &str = "stable";
const STABLE_DONE: &str = "stable, bound";
const CLEARED: &str = "new handle, cleared";
const MEMORY: &str = "memory";

pub(crate) fn objects(bench: &mut Bench) -> anyhow::Result<()> {
    if !SIZES
        .iter()
        .any(|bytes| bench.args.wants(&buffer_row(*bytes)) || bench.args.wants(&memory_row(*bytes)))
    {
        return Ok(());
    }
    let config = VulkanConfig::new("ttm bench")
        .limit(MemType::VRAM, 8 * BLOCK)
        .chunks(BLOCK, BLOCK);
    let stage = Stage::again(config)?;
    for bytes in SIZES {
        buffers(bench, &stage, bytes)?;
    }
    for bytes in SIZES {
        memories(bench, &stage, bytes)?;
    }
    stage.reap();
    stage.check()
}

fn buffer_row(bytes: u64) -> String {
    format!(
        "b: make, place, bind, drop a buffer, {}",
        human_bytes(bytes)
    )
}

fn memory_row(bytes: u64) -> String {
    format!("b: the memory alone, {}", human_bytes(bytes))
}

/// Objects of ours, each as old as the number of those behind it.
struct Ring<'a> {
    stage: &'a Stage,
    live: VecDeque<Object>,
}

impl<'a> Ring<'a> {
    fn new(stage: &'a Stage) -> Self {
        Self {
            stage,
            live: VecDeque::new(),
        }
    }

    fn turn_over(&mut self, object: Object) {
        self.live.push_back(object);
        if self.live.len() > LIVE {
            self.live.pop_front();
        }
    }

    /// Makes one that is bytes alone, and drops the oldest.
    fn memory_turn(&mut self, bytes: u64) {
        let object = self.stage.make(self.stage.vulkan.memory(bytes));
        self.stage.validate(&object, &self.stage.vram);
        self.turn_over(object);
    }

    /// Makes one and drops the oldest. Answers what waits for it to be bound.
    fn buffer_turn(&mut self, info: &BufferInfo, kind: BoKind) -> Waits {
        let stage = self.stage;
        let described: Described = stage.vulkan.buffer(info).expect("a buffer");
        let object = stage.make_as(described, kind);
        let locked = stage
            .device
            .exec(OpContext::new(), |t| t.lock(&object)?.validate(&stage.vram));
        let locked = locked.expect("a place");
        let bound = stage.vulkan.bind(&locked, &[&object], Usage::Write);
        let waits = bound.expect("a buffer that goes there").waits;
        drop(locked);
        self.turn_over(object);
        waits
    }
}

type Waits = Vec<(ash::vk::Semaphore, u64)>;

/// Ours, a repeat of `ops` turns; `to_the_end` says whether that the last is bound is timed too.
fn ours<'a>(
    name: &'static str,
    (stage, bare): (&'a Stage, &'a Bare),
    info: BufferInfo,
    kind: BoKind,
    ops: usize,
    to_the_end: bool,
) -> anyhow::Result<Side<'a>> {
    let mut ring = Ring::new(stage);
    let timeline = stage.vulkan.timeline()?;
    Ok(Side::new(name, move |watch| {
        let mut waits = Waits::new();
        watch.time(ops, || {
            for _ in 0..ops {
                waits = ring.buffer_turn(&info, kind);
            }
            if to_the_end {
                bare.wait(&waits);
                stage.reap();
            }
        });
        bare.wait(&waits);
        bare.settle(stage, &timeline);
    }))
}

fn buffers(bench: &mut Bench, stage: &Stage, bytes: u64) -> anyhow::Result<()> {
    let name = buffer_row(bytes);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let bare = Bare::new(stage)?;
    let memory = Memory::of_device(&bare, bytes)?;
    let ops = bench.args.ops(TURNS);
    let info = |stable| BufferInfo::new(bytes).usage(USAGE).stable(stable);
    let pair = (stage, &*bare);
    let mut sides = vec![
        ours(MOVING, pair, info(false), BoKind::Kernel, ops, false)?,
        Side::of(BARE, ops, || bare.buffer_turn(&memory)),
        ours(CLEARED, pair, info(false), BoKind::Device, ops, false)?,
    ];
    if stage.vulkan.keeps_handles() {
        let stable =
            |name, to_the_end| ours(name, pair, info(true), BoKind::Kernel, ops, to_the_end);
        sides.push(stable(STABLE, false)?);
        sides.push(stable(STABLE_DONE, true)?);
    }
    sides.extend(peers::buffers(&bare, bytes, ops)?);
    let found = Found::of(bench.args.repeats(), sides);
    let own = [MOVING, CLEARED, STABLE, STABLE_DONE];
    for ours in own {
        report(bench, &name, &found, ours, &own);
    }
    Ok(())
}

fn memories(bench: &mut Bench, stage: &Stage, bytes: u64) -> anyhow::Result<()> {
    let name = memory_row(bytes);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let bare = Bare::new(stage)?;
    let ops = bench.args.ops(TURNS);
    let mut ring = Ring::new(stage);
    let mut sides = vec![Side::of(MEMORY, ops, || ring.memory_turn(bytes))];
    sides.extend(peers::memories(&bare, bytes, ops)?);
    let found = Found::of(bench.args.repeats(), sides);
    report(bench, &name, &found, MEMORY, &[MEMORY]);
    let evictions = stage
        .device
        .manager(MemType::VRAM)
        .map(|m| m.counters().evictions);
    ensure!(evictions == Some(0), "somebody had no room: {evictions:?}");
    Ok(())
}

/// A row of `ours` beside each of the others, or alone if there are none.
fn report(bench: &mut Bench, name: &str, found: &Found, ours: &str, own: &[&str]) {
    let Some(spread) = found.get(ours) else {
        return;
    };
    let row = || Row::new(format!("{name}: {ours}"), spread);
    let mut alone = true;
    let others = found.others(own);
    // Nobody else clears.
    for (other, limit) in others.filter(|(other, _)| ours != CLEARED || *other == BARE) {
        alone = false;
        let row = row().limit(other, limit);
        let counts = other.starts_with("VMA");
        bench.report.row(match counts {
            true => row.target(Target::Limit(1.0)),
            false => row,
        });
    }
    if alone {
        bench.report.row(row());
    }
}
