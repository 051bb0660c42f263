//! What every bench of this package shares.
//!
//! A bench is a program without Rust's default harness. It asks one question, measures the answer
//! beside its limit in the same run, and reports rows:
//!
//! ```no_run
//! use harness::{Row, Target, kernel, measure};
//!
//! fn main() -> std::process::ExitCode {
//!     harness::run("lifecycle", |bench| {
//!         let ops = bench.args.ops(1000);
//!         let create = |watch: &mut measure::Stopwatch| watch.time(ops, || { /* … */ });
//!         let ours = measure::measure(bench.args.repeats(), create);
//!         bench.report.row(
//!             Row::new("a: create, validate, drop", ours)
//!                 .kernel(&kernel::CREATE_VRAM_EMPTY)
//!                 .target(Target::Kernel(1.0)),
//!         );
//!         Ok(())
//!     })
//! }
//! ```
//!
//! - [`args`]: what may stand on the command line;
//! - [`measure`]: repeats, medians, preempted samples, two sides in turn, two threads;
//! - [`primitives`]: how fast this machine's clock, lock and allocator are, and so whether the
//!   kernel's figures may be compared as they are;
//! - [`kernel`]: those figures;
//! - [`copy`]: the limits of moving memory;
//! - [`content`]: what is moved, and whether it arrived;
//! - [`report`]: the table and the JSON file;
//! - [`rig`]: a device that is all bookkeeping;
//! - [`xorshift`]: the generators that the workloads are drawn from.

#![deny(unsafe_code)]

pub mod args;
pub mod content;
#[expect(
    unsafe_code,
    reason = "limits of copying are raw loads, stores and system calls"
)]
pub mod copy;
pub mod kernel;
pub mod measure;
pub mod primitives;
pub mod report;
pub mod rig;
pub mod xorshift;

use std::process::ExitCode;

pub use args::Args;
pub use report::{Check, Report, Row, Target};

/// One bench under way: what was asked of it, and what it has found so far.
#[derive(Debug)]
pub struct Bench {
    /// What the command line says.
    pub args: Args,
    /// The rows so far.
    pub report: Report,
}

/// Runs the bench `name`: reads the command line, pins the thread, measures the primitives, calls
/// `body`, prints the table and writes the file that `--json` asks for.
///
/// The status is 0 when everything was measured, whatever the targets say, 1 when `body` or the
/// writing fails, and 2 for a command line that is not understood.
pub fn run(name: &str, body: impl FnOnce(&mut Bench) -> anyhow::Result<()>) -> ExitCode {
    let args = Args::from_command_line();
    if let Err(error) = measure::pin(0) {
        eprintln!("{name}: not pinned to CPU 0: {error}");
    }
    let report = Report::new(name, primitives::Primitives::measure());
    let mut bench = Bench { args, report };
    let outcome = body(&mut bench).and_then(|()| {
        println!("{}", bench.report);
        match bench.args.json_folder() {
            Some(folder) => bench.report.write_json(&folder),
            None => Ok(()),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
