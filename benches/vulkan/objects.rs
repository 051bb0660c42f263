//! Row b: making a buffer, putting it into device memory, binding and dropping it: made each time, and
//! out of a BO cache, as drivers do that make many of a kind.

use core::time::Duration;
use std::collections::VecDeque;

use anyhow::ensure;
use backends::vulkan::{BufferInfo, VulkanConfig, VulkanDriver};
use harness::{Bench, Row, Target};
use placement::{MemType, human_bytes};
use ttm::bo_cache::BoCache;
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
const MOVING_KEPT: &str = "new handle, out of a cache";
const STABLE_KEPT: &str = "stable, out of a cache";
const MEMORY: &str = "memory";
const MEMORY_KEPT: &str = "memory, out of a cache";

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
    /// Where new ones come from and old ones go to, if they are not made and dropped.
    cache: Option<BoCache<VulkanDriver, u64>>,
}

/// Whether objects are made and dropped, or come out of a cache and go back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    No,
    Yes,
}

impl<'a> Ring<'a> {
    fn new(stage: &'a Stage, kept: Kept) -> Self {
        let cache = || BoCache::new(&stage.device, BLOCK, Duration::from_secs(60));
        Self {
            stage,
            live: VecDeque::new(),
            cache: (kept == Kept::Yes).then(cache),
        }
    }

    fn get(&self, bytes: u64, make: impl FnOnce() -> Object) -> Object {
        match &self.cache {
            Some(cache) => {
                let got = cache.take_or(&bytes, || Ok(make()));
                got.expect("making panics if it is refused")
            }
            None => make(),
        }
    }

    fn turn_over(&mut self, bytes: u64, object: Object) {
        self.live.push_back(object);
        if self.live.len() > LIVE
            && let Some(oldest) = self.live.pop_front()
            && let Some(cache) = &self.cache
        {
            cache.put(bytes, oldest);
        }
    }

    /// Makes one that is bytes alone, and drops the oldest.
    fn memory_turn(&mut self, bytes: u64) {
        let stage = self.stage;
        let object = self.get(bytes, || stage.make(stage.vulkan.memory(bytes)));
        stage.validate(&object, &stage.vram);
        self.turn_over(bytes, object);
    }

    /// Makes one and drops the oldest. Answers what waits for it to be bound.
    fn buffer_turn(&mut self, bytes: u64, info: &BufferInfo, kind: BoKind) -> Waits {
        let stage = self.stage;
        let object = self.get(bytes, || {
            stage.make_as(stage.vulkan.buffer(info).expect("a buffer"), kind)
        });
        let locked = stage
            .device
            .exec(OpContext::new(), |t| t.lock(&object)?.validate(&stage.vram));
        let locked = locked.expect("a place");
        let bound = stage.vulkan.bind(&locked, &[&object], Usage::Write);
        let waits = bound.expect("a buffer that goes there").waits;
        drop(locked);
        self.turn_over(bytes, object);
        waits
    }
}

impl Drop for Ring<'_> {
    /// What a cache gave out had been put in: all but the first few.
    fn drop(&mut self) {
        if let Some(cache) = &self.cache {
            let usage = cache.usage();
            let made = usage.misses + usage.gone;
            assert!(
                made <= LIVE as u64 + 1,
                "a cache without anything in it: {usage:?}"
            );
        }
    }
}

type Waits = Vec<(ash::vk::Semaphore, u64)>;

/// How buffers of ours are made and dropped.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    stable: bool,
    kind: BoKind,
    kept: Kept,
    /// That the last is bound is timed too.
    to_the_end: bool,
}

impl Way {
    /// Not cleared, made and dropped, and not waited for.
    const fn plain(name: &'static str, stable: bool) -> Self {
        Self {
            name,
            stable,
            kind: BoKind::Kernel,
            kept: Kept::No,
            to_the_end: false,
        }
    }
}

/// Ours, a repeat of `ops` turns.
fn ours<'a>(
    way: Way,
    (stage, bare): (&'a Stage, &'a Bare),
    bytes: u64,
    ops: usize,
) -> anyhow::Result<Side<'a>> {
    let mut ring = Ring::new(stage, way.kept);
    let timeline = stage.vulkan.timeline()?;
    let info = BufferInfo::new(bytes).usage(USAGE).stable(way.stable);
    Ok(Side::new(way.name, move |watch| {
        let mut waits = Waits::new();
        watch.time(ops, || {
            for _ in 0..ops {
                waits = ring.buffer_turn(bytes, &info, way.kind);
            }
            if way.to_the_end {
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
    let mut ways = vec![
        Way::plain(MOVING, false),
        Way {
            kept: Kept::Yes,
            ..Way::plain(MOVING_KEPT, false)
        },
        Way {
            kind: BoKind::Device,
            ..Way::plain(CLEARED, false)
        },
    ];
    if stage.vulkan.keeps_handles() {
        ways.push(Way::plain(STABLE, true));
        ways.push(Way {
            kept: Kept::Yes,
            ..Way::plain(STABLE_KEPT, true)
        });
        ways.push(Way {
            to_the_end: true,
            ..Way::plain(STABLE_DONE, true)
        });
    }
    let mut sides = vec![Side::of(BARE, ops, || bare.buffer_turn(&memory))];
    for way in &ways {
        sides.push(ours(*way, (stage, &bare), bytes, ops)?);
    }
    sides.extend(peers::buffers(&bare, bytes, ops)?);
    let found = Found::of(bench.args.repeats(), sides);
    let own: Vec<_> = ways.iter().map(|way| way.name).collect();
    for ours in &own {
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
    let (mut made, mut kept) = (Ring::new(stage, Kept::No), Ring::new(stage, Kept::Yes));
    let mut sides = vec![
        Side::of(MEMORY, ops, || made.memory_turn(bytes)),
        Side::of(MEMORY_KEPT, ops, || kept.memory_turn(bytes)),
    ];
    sides.extend(peers::memories(&bare, bytes, ops)?);
    let found = Found::of(bench.args.repeats(), sides);
    let own = [MEMORY, MEMORY_KEPT];
    for ours in own {
        report(bench, &name, &found, ours, &own);
    }
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
