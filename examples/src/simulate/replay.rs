//! `simulate replay`: a recorded trace of touches, and how often it misses.
//!
//! [`trace_file`] reads the file whole into a [`trace::Trace`] before anything runs; [`exact`] computes
//! what an exact least-recently-used policy and the offline optimum would do.

pub(crate) mod exact;
mod mooncake;
mod residency;
pub(crate) mod trace;
pub(crate) mod trace_file;

use std::time::Instant;

use anyhow::anyhow;
use serde::Serialize;

use crate::args::{Policy, ReplayArgs};
use crate::exit::Failure;
use crate::report::table::{Cell, Table, thousands, to_stdout};
use exact::Counts;

/// What one policy made of the trace.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Who chose what leaves the card.
    pub(crate) policy: Policy,
    /// Touches, misses, evictions and bytes.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Time on the device's clock; none for what is computed.
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
/// can't be written.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let room = args.vram()?;
    let trace = trace_file::load(&args.file, args.format, args.block)?;
    let summary = format!(
        "{} requests, {} touches of {} objects, {} in all; room for {}\n",
        thousands(trace.requests().len() as u64),
        thousands(trace.touches().len() as u64),
        thousands(trace.objects().len() as u64),
        trace.total_size().human(),
        room.human(),
    );
    let mut policies = Vec::new();
    for policy in args
        .policy
        .iter()
        .filter(|policy| **policy == Policy::Optimal)
    {
        let start = Instant::now();
        let counts = exact::optimal(&trace, room, args.order)
            .map_err(|error| anyhow!("{}: {error}", args.file.display()))?;
        policies.push(Row {
            policy: *policy,
            counts,
            virtual_seconds: 0.0,
            wall_seconds: start.elapsed().as_secs_f64(),
        });
    }
    let figures = Figures { policies };
    if args.outputs.json != Some(crate::report::json::Target::Stdout) {
        to_stdout(summary.as_bytes())?;
        table(&figures).print()?;
    }
    if let Some(target) = &args.outputs.json {
        target.write(&figures)?;
    }
    Ok(())
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
            counts.bytes_in.into(),
            counts.bytes_out.into(),
            row.virtual_seconds.into(),
            row.wall_seconds.into(),
        ]);
    }
    table
}
