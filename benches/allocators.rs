//! What do finding and giving back space cost, and how full does a space get?
//!
//! Row i, a random mix of frees and allocations beside 1,000 or 10,000 live ones: a range space
//! should cost a few cache misses, a buddy space fewer, neither more than the kernel's, which has
//! no alignment per request to look after. Row i2, buffer-like sizes at 80 % of a small block:
//! at most what the quickest general allocators cost, though windows and alignment are looked
//! after, and the block no sooner full than under the better of two simple policies.
//!
//! Spaces are called through `dyn Space`, as a manager calls them, and without its lock.

use std::process::ExitCode;

use anyhow::ensure;
use harness::kernel::{self, Figure};
use harness::measure::{Spread, compare, interleave};
use harness::{Bench, Check, Row, Target};
use placement::{Buddy, PageCount, Range, Space};

use blocks::{Block, ManyRuns, Naive, Null, Offsets, OneRun, Policy};
use mixes::{Buffers, Demands, Sizes, Slots};

#[path = "allocators/blocks.rs"]
mod blocks;
#[path = "allocators/mixes.rs"]
mod mixes;

fn main() -> ExitCode {
    harness::run("allocators", |bench| {
        for mix in &MIXES {
            random_mix(bench, mix)?;
        }
        buffers(
            bench,
            "i2: range, buffer mix at 80 % of 256 MiB",
            Demands::None,
        )?;
        buffers(
            bench,
            "i2: range, the same, some aligned, some in a window",
            Demands::Some,
        )?;
        first_failure(bench);
        Ok(())
    })
}

/// Row i: so many live allocations, one of which is freed and allocated anew at each step.
struct Mix {
    name: &'static str,
    live: usize,
    /// How many pages there are.
    space: u32,
    sizes: Sizes,
    range: Figure,
    buddy: Figure,
    /// Whether the targets are for this mix, or it only stands beside them.
    counts: bool,
    /// How many allocations a space may refuse in [`CHECKED_REPEATS`]: as many as the kernel's
    /// worst policy does.
    refusals: usize,
}

/// A GiB in pages.
const GIB: u32 = 1 << 18;

const MIXES: [Mix; 5] = [
    Mix {
        name: "pow2, 1k live of 1 GiB",
        live: 1000,
        space: GIB,
        sizes: Sizes::Pow2,
        range: kernel::RANGE_POW2_1K,
        buddy: kernel::BUDDY_POW2_1K,
        counts: true,
        refusals: 0,
    },
    Mix {
        name: "pow2, 10k live of 8 GiB",
        live: 10_000,
        space: 8 * GIB,
        sizes: Sizes::Pow2,
        range: kernel::RANGE_POW2_10K,
        buddy: kernel::BUDDY_POW2_10K,
        counts: true,
        refusals: 0,
    },
    Mix {
        name: "uniform, 1k live of 2 GiB",
        live: 1000,
        space: 2 * GIB,
        sizes: Sizes::Uniform,
        range: kernel::RANGE_UNIFORM_1K,
        buddy: kernel::BUDDY_UNIFORM_1K,
        counts: false,
        refusals: 0,
    },
    Mix {
        name: "uniform, 10k live of 16 GiB",
        live: 10_000,
        space: 16 * GIB,
        sizes: Sizes::Uniform,
        range: kernel::RANGE_UNIFORM_10K,
        buddy: kernel::BUDDY_UNIFORM_10K,
        counts: false,
        refusals: 0,
    },
    Mix {
        name: "pow2, 10k live of 4.5 GiB (tight)",
        live: 10_000,
        space: 9 * GIB / 2,
        sizes: Sizes::Pow2,
        range: kernel::RANGE_TIGHT_10K,
        buddy: kernel::BUDDY_TIGHT_10K,
        counts: false,
        refusals: 51,
    },
];

/// The kernel's warm-up and its 61 repeats, over which refusals are counted.
const CHECKED_REPEATS: usize = kernel::ALLOCATOR_WARM_UPS + 61;

fn pages(count: u32) -> PageCount {
    PageCount::new(count.into()).expect("every u32 is a page count")
}

fn random_mix(bench: &mut Bench, mix: &Mix) -> anyhow::Result<()> {
    let mut range = Range::new(pages(mix.space));
    row_of_mix(
        bench,
        mix,
        &format!("i: range, {}", mix.name),
        &mix.range,
        || OneRun(&mut range),
    )?;
    keeps_its_laws(&range)?;
    let mut buddy = Buddy::new(pages(mix.space));
    row_of_mix(
        bench,
        mix,
        &format!("i: buddy, {}", mix.name),
        &mix.buddy,
        || ManyRuns(&mut buddy),
    )?;
    keeps_its_laws(&buddy)
}

fn keeps_its_laws(space: &dyn Space) -> anyhow::Result<()> {
    space.check().map_err(anyhow::Error::msg)
}

fn row_of_mix<B: Block>(
    bench: &mut Bench,
    mix: &Mix,
    name: &str,
    figure: &Figure,
    block: impl FnOnce() -> B,
) -> anyhow::Result<()> {
    if !bench.args.wants(name) {
        return Ok(());
    }
    let ops = bench.args.ops(kernel::ALLOCATOR_OPS);
    let mut slots = Slots::filled(block(), mix.live, mix.sizes);
    for _ in 0..CHECKED_REPEATS {
        slots.plan(kernel::ALLOCATOR_OPS);
        slots.run();
    }
    ensure!(
        slots.refused <= mix.refusals,
        "{name}: {} allocations were refused",
        slots.refused
    );
    let mut null = Slots::filled(Null::new(mix.space), mix.live, mix.sizes);

    let (ours, limit) = compare(
        bench.args.repeats(),
        |watch| slots.repeat(watch, ops),
        |watch| null.repeat(watch, ops),
    );

    let (held, free) = (slots.pages_held(), slots.pages_free());
    ensure!(
        held + free == mix.space,
        "{name}: {held} pages held and {free} free"
    );
    let row = Row::new(name, ours)
        .limit("null loop", limit)
        .kernel(figure);
    bench.report.row(if mix.counts {
        row.target(Target::Kernel(1.0))
    } else {
        row
    });
    Ok(())
}

/// The block of row i2: 256 MiB.
const BLOCK: u32 = GIB / 4;

/// How often row i2 is measured, each time from another seed.
const SEEDS: u64 = 7;

/// Operations in all of a seed's timed repeats, and half as many before them.
const BUFFER_OPS: usize = 400_000;

fn buffers(bench: &mut Bench, name: &str, demands: Demands) -> anyhow::Result<()> {
    if !bench.args.wants(name) {
        return Ok(());
    }
    let repeats = bench.args.repeats();
    let ops = bench.args.ops(BUFFER_OPS / repeats);
    let mut runs: [Vec<Spread>; 3] = Default::default();
    for seed in 0..SEEDS {
        let mut space = Range::new(pages(BLOCK));
        let mut ours = Buffers::filled(OneRun(&mut space), BLOCK, demands, seed);
        let mut null = Buffers::filled(Null::new(BLOCK), BLOCK, demands, seed);
        let mut offsets = Buffers::filled(Offsets::new(BLOCK), BLOCK, demands, seed);
        ours.run(BUFFER_OPS / 2);
        null.run(BUFFER_OPS / 2);
        offsets.run(BUFFER_OPS / 2);
        let spreads = interleave(
            repeats,
            [
                &mut |watch| watch.time(ops, || ours.run(ops)),
                &mut |watch| watch.time(ops, || null.run(ops)),
                &mut |watch| watch.time(ops, || offsets.run(ops)),
            ],
        );
        keeps_its_laws(&space)?;
        for (run, spread) in runs.iter_mut().zip(spreads) {
            run.push(spread);
        }
    }
    let [ours, null, offsets] = runs.map(|run| Spread::across(&run));
    let ours = Row::new(name, ours).limit("null loop", null);
    bench.report.row(ours.target(Target::Limit(3.6)));
    // It is asked for sizes only, so it has the same work in the first mix and less in the second.
    let peer = format!("{name}: offset-allocator instead");
    bench
        .report
        .row(Row::new(peer, offsets).limit("null loop", null));
    Ok(())
}

/// How many seeds the share of space used is averaged over.
const FAILURE_SEEDS: u64 = 100;

/// Operations after which the block is filled until something does not fit.
const FAILURE_OPS: usize = 100_000;

fn first_failure(bench: &mut Bench) {
    let name = "i2: share used at the first failure after churn";
    if !bench.args.wants(name) {
        return;
    }
    let ops = bench.args.ops_at_most(FAILURE_OPS);
    let ours = share_used(ops, |fill| fill.of(OneRun(&mut Range::new(pages(BLOCK)))));
    let best = share_used(ops, |fill| fill.of(Naive::new(BLOCK, Policy::BestFit)));
    let first = share_used(ops, |fill| fill.of(Naive::new(BLOCK, Policy::FirstFit)));
    let offsets = share_used(ops, |fill| fill.of(Offsets::new(BLOCK)));

    let seeds = FAILURE_SEEDS as usize;
    let check = |who: &str, share| Check::new(format!("{name}, {who}"), share, seeds);
    bench
        .report
        .check(check("range", ours).at_least(best.max(first)));
    bench.report.check(check("naive best fit", best));
    bench
        .report
        .check(check("naive address-ordered first fit", first));
    bench.report.check(check("offset-allocator", offsets));
}

/// One seed's churn and fill.
struct Fill {
    ops: usize,
    seed: u64,
}

impl Fill {
    fn of(&self, block: impl Block) -> f64 {
        let mut buffers = Buffers::filled(block, BLOCK, Demands::None, self.seed);
        buffers.run(self.ops);
        buffers.fill()
    }
}

/// The mean over all seeds.
fn share_used(ops: usize, fill: impl Fn(Fill) -> f64) -> f64 {
    (0..FAILURE_SEEDS)
        .map(|seed| fill(Fill { ops, seed }))
        .sum::<f64>()
        / FAILURE_SEEDS as f64
}
