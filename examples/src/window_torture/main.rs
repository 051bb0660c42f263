//! `window_torture`: accesses through windows while their objects are moved (H4).
//!
//! Real threads write and read words that say who wrote them, through several windows of each
//! object, and have the kernel copy to and from them, while another thread moves the objects: to
//! and from device memory, to the backup, between cache modes. No word may be lost, stale or
//! foreign (I-15, I-22), and nothing may be left in the end (I-11, O5). How long stores wait is
//! measured.
//!
//! - [`args`]: what was asked for.
//! - [`row`]: the strategies by which accesses are made to wait.
//! - [`run`]: one strategy for some time, on a [`rig`]; its threads ([`writer`], [`reader`],
//!   [`caller`], [`mover`]) meet on a [`stage`].
//! - [`object`], [`slots`], [`word`]: what they use.
//! - [`gap`], [`report`]: what was found.
//!
//! `cargo run --release --bin window_torture -- --seconds 20`

mod args;
mod caller;
mod gap;
mod kernel;
mod mover;
mod object;
mod random;
mod reader;
mod report;
mod rig;
mod row;
mod run;
mod scratch;
mod slots;
mod stage;
mod word;
mod writer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use backends::sim::RouteMode;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use args::Args;
use report::{NotRun, Report};
use row::Row;
use run::{Outcome, Run};

/// Each strategy runs with engines that copy, and with a CPU that does.
const ROUTES: [RouteMode; 2] = [RouteMode::Engine, RouteMode::Cpu];

fn main() -> ExitCode {
    let args = Args::parse();
    match torture(&args) {
        Ok(report) if report.wrong.is_empty() => ExitCode::SUCCESS,
        Ok(report) => {
            for what in &report.wrong {
                eprintln!("window_torture: wrong: {what}");
            }
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("window_torture: refused: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs all strategies that can run; prints and writes what was found.
fn torture(args: &Args) -> Result<Report> {
    args.plant()?;
    // A runtime that starts a thread of its own does so with the first one: before any census.
    std::thread::scope(|scope| drop(scope.spawn(|| {})));
    let mut report = Report::default();
    let rows = able(args.rows(), &mut report);
    ensure!(
        !rows.is_empty(),
        "no strategy can run here: {}",
        reasons(&report)
    );
    let time = args.seconds / rows.len() as u32;
    let sizes = args.sizes(time)?;
    let start = Instant::now();
    let bar = progress(args.seconds);
    let tick = || bar.set_position(start.elapsed().as_millis() as u64);
    for (n, row) in (0..).zip(&rows) {
        bar.set_message(row.name());
        let mut outcome = Outcome::default();
        for (half, routes) in (0..).zip(ROUTES) {
            let run = Run {
                row: *row,
                routes,
                sizes: &sizes,
                time: time / ROUTES.len() as u32,
                generation: (2 * n + half) % 16,
                seed: args.seed ^ u64::from(2 * n + half) << 32,
            };
            outcome.add(run.run(tick)?);
        }
        report.add(*row, &sizes, outcome);
    }
    bar.finish_and_clear();
    report.seconds = args.seconds.as_secs_f64();
    report.print(args.json.as_ref())?;
    Ok(report)
}

/// Those that can run here; the others are noted.
fn able(rows: Vec<Row>, report: &mut Report) -> Vec<Row> {
    let mut can = Vec::new();
    for row in rows {
        match row.space() {
            Ok(_) => can.push(row),
            Err(reason) => report.not_run.push(NotRun {
                name: row.name(),
                reason,
            }),
        }
    }
    can
}

fn reasons(report: &Report) -> String {
    let reasons = report.not_run.iter();
    let reasons: Vec<_> = reasons
        .map(|row| format!("{}: {}", row.name, row.reason))
        .collect();
    reasons.join("; ")
}

fn progress(time: Duration) -> ProgressBar {
    let bar = ProgressBar::new(time.as_millis() as u64);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} % of the time, {msg}");
    bar.set_style(style.expect("a template that is right"));
    bar
}
