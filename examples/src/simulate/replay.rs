//! `simulate replay`: a recorded trace of touches, and how often it misses.
//!
//! 1. [`trace_file`] reads the file whole into a [`trace::Trace`].
//! 2. What cannot fit is refused, before anything runs.
//! 3. Each policy replays it: [`managed`] is the manager, [`exact`] computes the offline optimum.
//! 4. The figures are printed and written.

pub(crate) mod exact;
mod managed;
mod mooncake;
mod residency;
pub(crate) mod trace;
pub(crate) mod trace_file;

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use serde::Serialize;
use ttm::sync::Arc;

use crate::args::{Policy, ReplayArgs};
use crate::exit::Failure;
use cli::report::observer::Observer;
use cli::size::ByteSize;
use cli::table::{Cell, Table, thousands};
use exact::Counts;
use managed::Link;
use trace::Trace;

/// What one policy made of the trace.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Who chose what leaves the card.
    pub(crate) policy: Policy,
    /// Touches, misses, evictions and bytes.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Time that the copies take on the link.
    pub(crate) virtual_seconds: f64,
    /// Time on the machine's clock, reading the file excluded.
    pub(crate) wall_seconds: f64,
}

/// The figures as `--json` writes them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// One row for each policy, in the order asked for.
    pub(crate) policies: Vec<Row>,
}

/// Replays a trace.
///
/// # Errors
/// Refused: the file can't be read or is malformed, an object or a request doesn't fit, an output
/// can't be written. Wrong: the manager broke an invariant.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let room = args.vram()?;
    let outputs = &args.outputs;
    let trace = trace_file::load(&args.file, args.format, args.block)?;
    exact::check_fits(&trace, room, args.order)
        .map_err(|error| anyhow!("{}: {error}", args.file.display()))?;
    let observer = observer(args)?;
    let rows = args.policy.iter().map(|policy| match policy {
        Policy::Lru => managed::run(&trace, room, args.order, observer.clone()),
        Policy::Optimal => Ok(optimal(&trace, room, args)?),
    });
    let figures = Figures {
        policies: rows.collect::<Result<_, Failure>>()?,
    };
    outputs.say(&summary(&trace, room))?;
    outputs.say(&format!("{}\n", table(&figures)))?;
    if let Some(observer) = observer {
        let title = format!("{}, room for {}", args.file.display(), room.human());
        observer.finish(&title, outputs)?;
    }
    if let Some(target) = &outputs.json {
        target.write(&figures)?;
    }
    Ok(())
}

/// Who writes the events down, if somebody wants them.
fn observer(args: &ReplayArgs) -> Result<Option<Arc<Observer>>> {
    let outputs = &args.outputs;
    if outputs.trace.is_none() && outputs.plot.is_none() {
        return Ok(None);
    }
    let managed = args.policy.iter().filter(|p| **p == Policy::Lru).count();
    ensure!(
        managed == 1,
        "--trace and --plot show the policy lru, which --policy names {managed} times"
    );
    let link = Link::default();
    let observer = Observer::create(outputs)?.with_duration(move |bytes| link.copy_ns(bytes));
    Ok(Some(Arc::new(observer)))
}

fn optimal(trace: &Trace, room: ByteSize, args: &ReplayArgs) -> Result<Row> {
    let start = Instant::now();
    let counts = exact::optimal(trace, room, args.order)?;
    Ok(Row {
        policy: Policy::Optimal,
        counts,
        virtual_seconds: Link::default().seconds(&counts),
        wall_seconds: start.elapsed().as_secs_f64(),
    })
}

fn summary(trace: &Trace, room: ByteSize) -> String {
    format!(
        "{} requests, {} touches of {} objects, {} in all; room for {}\n",
        thousands(trace.requests().len() as u64),
        thousands(trace.touches().len() as u64),
        thousands(trace.objects().len() as u64),
        trace.total_size().human(),
        room.human(),
    )
}

fn table(figures: &Figures) -> Table {
    let mut table = Table::new([
        "policy",
        "touches",
        "misses",
        "miss rate",
        "evictions",
        "in",
        "out",
        "virtual s",
        "wall s",
    ]);
    for row in &figures.policies {
        let counts = row.counts;
        table.row([
            row.policy.to_string().into(),
            counts.touches.into(),
            counts.misses.into(),
            Cell::percent(counts.misses, counts.touches),
            counts.evictions.into(),
            ByteSize(counts.bytes_in).into(),
            ByteSize(counts.bytes_out).into(),
            row.virtual_seconds.into(),
            row.wall_seconds.into(),
        ]);
    }
    table
}
