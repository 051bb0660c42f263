//! What does the manager cost in a long run of real work?
//!
//! Row t: a trace of 288,500 touches of 182,790 objects of 2 MiB, in a VRAM with room for 18,279
//! of them. Each touch locks its object, validates it into VRAM and releases it; an object is
//! made at its first touch. Nothing has content. Expected: no more than the sum of what the
//! kernel's TTM needs for as many evictions (row d), first touches (row b) and hits (row e), since
//! each of these rows is to be met by itself; and the same misses as an exact
//! least-recently-used order, because a touch is exact here.
//!
//! The trace is synthetic, unless `--trace` names one of an LLM service (JSON lines with
//! `hash_ids`): requests come in conversations that begin with the same block, each takes up the
//! blocks of its conversation so far and adds its own, and the later a conversation was active,
//! the likelier it goes on.

use std::process::ExitCode;

use anyhow::ensure;
use harness::measure::{Stopwatch, measure};
use harness::rig::{Object, Rig};
use harness::{Bench, Check, Row, Target, kernel};

use trace::Trace;

#[path = "replay/trace.rs"]
mod trace;

/// Objects that VRAM has room for.
const ROOM: usize = 18_279;

/// The size of an object, in pages: 2 MiB.
const BLOCK: u64 = 512;

/// How often the trace is replayed.
const REPLAYS: usize = 7;

fn main() -> ExitCode {
    harness::run("replay", |bench| {
        let name = "t: replay of a trace, per replay";
        if bench.args.wants(name) {
            replays(bench, name)?;
        }
        Ok(())
    })
}

fn replays(bench: &mut Bench, name: &str) -> anyhow::Result<()> {
    let mut trace = match bench.args.trace_file() {
        Some(path) => Trace::read(&path)?,
        None => Trace::synthetic(),
    };
    trace.shorten(bench.args.ops_at_most(trace.touches.len()));
    let expected = trace.misses_of_exact_lru(ROOM);
    let evictions = expected.saturating_sub(ROOM as u64);
    let mut outcome = Ok(());
    let ours = measure(bench.args.repeats_or(REPLAYS), |watch| {
        let seen = replay(watch, &trace, expected, evictions);
        outcome = std::mem::replace(&mut outcome, Ok(())).and(seen);
    });
    outcome?;
    let touches = trace.touches.len() as u64;
    let objects = trace.objects as u64;
    let figure = kernel::Figure {
        workload: "the kernel's evictions, first touches and hits",
        ns: kernel::replay_ns(evictions, objects, touches - expected),
    };
    bench.report.row(
        Row::new(name, ours)
            .kernel(&figure)
            .target(Target::Kernel(1.0)),
    );
    let stands =
        |what: &str, value: u64| Check::new(format!("t: {what}"), value as f64, ours.samples);
    bench.report.check(stands("touches", touches));
    bench.report.check(stands("objects", objects));
    bench.report.check(stands("misses", expected));
    bench.report.check(stands("evictions", evictions));
    Ok(())
}

/// Replays the whole trace on a fresh device. Making that and taking it down is not timed.
fn replay(watch: &mut Stopwatch, trace: &Trace, misses: u64, evictions: u64) -> anyhow::Result<()> {
    let rig = Rig::new(ROOM as u64 * BLOCK)?;
    let mut objects: Vec<Option<Object>> = vec![None; trace.objects];
    watch.time(1, || {
        for &index in &trace.touches {
            let object = objects[index as usize].get_or_insert_with(|| rig.create(BLOCK * 4096));
            rig.validate(object, &rig.vram);
        }
    });
    let seen = rig.counters();
    ensure!(
        seen.arrivals == misses,
        "{} misses, where an exact order has {misses}",
        seen.arrivals
    );
    ensure!(
        seen.evictions == evictions,
        "{} evictions, not {evictions}",
        seen.evictions
    );
    Ok(())
}
