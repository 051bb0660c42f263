//! Row r: buffers that moved are bound to where they are.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::ensure;
use backends::vulkan::{Binding, BufferInfo, Copies, VulkanConfig};
use harness::measure::Stopwatch;
use harness::{Bench, Row, Target};
use placement::{MemType, human_bytes};
use ttm::context::OpContext;
use ttm::fence::Usage;

use crate::bare::{Bare, Memory, Sparse, USAGE};
use crate::sides::{Found, Side};
use crate::stage::{MIB, Object, Stage};

/// Bytes of a buffer.
const BYTES: u64 = 64 << 10;

/// Calls that bind a repeat.
const CALLS: usize = 8;

const COUNTS: [usize; 3] = [1, 16, 256];

const RETURNED: &str = "to the call's return";
const BOUND: &str = "to the bind's end";
const BARE: &str = "bare bind of one, waited for";
const BARE_NEW: &str = "bare calls";

fn stable_row(count: usize) -> String {
    format!(
        "r: bind {count} stable buffers of {}, an object",
        human_bytes(BYTES)
    )
}

fn new_row(count: usize) -> String {
    format!(
        "r: bind {count} buffers of {} anew, an object",
        human_bytes(BYTES)
    )
}

pub(crate) fn rebinds(bench: &mut Bench) -> anyhow::Result<()> {
    let wanted = COUNTS
        .into_iter()
        .any(|n| bench.args.wants(&stable_row(n)) || bench.args.wants(&new_row(n)));
    if !wanted {
        return Ok(());
    }
    // By the CPU, so that nothing is pending when they are bound.
    let config = VulkanConfig::new("ttm bench")
        .limit(MemType::VRAM, 256 * MIB)
        .copies(Copies::Cpu);
    let stage = Stage::again(config)?;
    let bare = Bare::new(&stage)?;
    for count in COUNTS {
        if stage.vulkan.keeps_handles() && bare.binds_sparse() {
            stable(bench, &stage, &bare, count)?;
        }
        anew(bench, &stage, &bare, count)?;
    }
    stage.check()
}

/// Buffers of which each comes back to where another was.
struct Movers<'a> {
    stage: &'a Stage,
    objects: Vec<Object>,
    /// Has no part in the binds: whoever it goes before makes the others' places others.
    spacer: Object,
    spacer_first: Cell<bool>,
    /// Buffers that were bound anew, and calls that did it.
    rebound: Cell<(u64, u64)>,
}

impl<'a> Movers<'a> {
    fn new(stage: &'a Stage, count: usize, stable: bool) -> Self {
        let info = BufferInfo::new(BYTES).usage(USAGE).stable(stable);
        let make = || {
            let described = stage.vulkan.buffer(&info).expect("a buffer");
            let object = stage.make(described);
            stage.go(&object, &stage.vram);
            object
        };
        let spacer = make();
        Self {
            stage,
            spacer,
            objects: (0..count).map(|_| make()).collect(),
            spacer_first: Cell::new(true),
            rebound: Cell::new((0, 0)),
        }
    }

    /// All leave, and come back to other places.
    fn shift(&self) {
        let Self { stage, spacer, .. } = self;
        for object in self.objects.iter().chain([spacer]) {
            stage.go(object, &stage.system);
        }
        stage.reap();
        let first = self.spacer_first.replace(!self.spacer_first.get());
        let spacer = || [spacer].into_iter();
        let (before, after) = match first {
            true => (Some(spacer()), None),
            false => (None, Some(spacer())),
        };
        let order = before.into_iter().flatten();
        let order = order.chain(&self.objects);
        for object in order.chain(after.into_iter().flatten()) {
            stage.go(object, &stage.vram);
        }
    }

    /// Locks them, and has them bound; the time of binding alone, and after it of `end`.
    fn bind(&self, watch: &mut Stopwatch, end: impl FnOnce(&Binding)) {
        let locked = self.stage.device.exec(OpContext::new(), |t| {
            self.objects
                .iter()
                .try_for_each(|object| t.lock(object)?.validate(&self.stage.vram))
        });
        let locked = locked.expect("places that are taken");
        let objects: Vec<_> = self.objects.iter().collect();
        let bound = watch.time(objects.len(), || {
            let bound = self.stage.vulkan.bind(&locked, &objects, Usage::Write);
            let bound = bound.expect("buffers that go there");
            end(&bound);
            bound
        });
        let (rebound, calls) = self.rebound.get();
        self.rebound.set((rebound + bound.rebound, calls + 1));
    }
}

fn stable(bench: &mut Bench, stage: &Stage, bare: &Rc<Bare>, count: usize) -> anyhow::Result<()> {
    let name = stable_row(count);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let calls = bench.args.ops_at_most(CALLS);
    let movers = Movers::new(stage, count, true);
    let sparse = Sparse::new(bare, BYTES)?;
    let ours = |watch: &mut Stopwatch, to_the_end: bool| {
        for _ in 0..calls {
            movers.shift();
            let mut waits = Vec::new();
            movers.bind(watch, |bound| {
                waits.clone_from(&bound.waits);
                if to_the_end {
                    bare.wait(&bound.waits);
                }
            });
            bare.wait(&waits);
            stage.reap();
        }
    };
    let sides = vec![
        Side::new(RETURNED, |watch| ours(watch, false)),
        Side::new(BOUND, |watch| ours(watch, true)),
        Side::of(BARE, calls, || sparse.rebind()),
    ];
    let found = Found::of(bench.args.repeats_or(15), sides);
    let (rebound, calls) = movers.rebound.get();
    let all = calls * count as u64;
    ensure!(rebound == all, "{rebound} of {all} were bound anew");
    let limit = found.get(BARE).expect("measured above");
    for side in [RETURNED, BOUND] {
        let ours = found.get(side).expect("measured above");
        let row = Row::new(format!("{name}, {side}"), ours).limit(BARE, limit);
        bench.report.row(row.target(Target::Limit(1.2)));
    }
    Ok(())
}

fn anew(bench: &mut Bench, stage: &Stage, bare: &Rc<Bare>, count: usize) -> anyhow::Result<()> {
    let name = new_row(count);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let calls = bench.args.ops_at_most(CALLS);
    let movers = Movers::new(stage, count, false);
    let memory = Memory::of_device(bare, BYTES)?;
    let sides = vec![
        Side::new(BOUND, |watch| {
            for _ in 0..calls {
                movers.shift();
                movers.bind(watch, |_| {});
            }
        }),
        Side::of(BARE_NEW, calls * count, || bare.buffer_turn(&memory)),
    ];
    let found = Found::of(bench.args.repeats_or(15), sides);
    let ours = found.get(BOUND).expect("measured above");
    let limit = found.get(BARE_NEW).expect("measured above");
    bench
        .report
        .row(Row::new(name, ours).limit(BARE_NEW, limit));
    Ok(())
}
