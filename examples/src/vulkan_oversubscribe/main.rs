//! `vulkan_oversubscribe`: a compute job over several times the memory that it may use on a Vulkan
//! device, with every word checked against the CPU.
//!
//! `cargo run --release --features vulkan --bin vulkan_oversubscribe`

mod args;
mod compute;
mod content;
mod optimum;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cli::report::observer::Observer;
use indicatif::{ProgressBar, ProgressStyle};
use ttm::sync::Arc;

use args::Args;
use report::Report;
use run::{Outcome, run};

fn main() -> ExitCode {
    let args = Args::parse();
    match oversubscribe(&args) {
        Ok((report, first)) if report.wrong() > 0 => {
            let first = first.map(|(object, wrong)| format!(", first in object {object}: {wrong}"));
            eprintln!(
                "vulkan_oversubscribe: wrong: {} words{}",
                report.wrong(),
                first.unwrap_or_default()
            );
            ExitCode::from(1)
        }
        Ok((report, _)) => match cli::table::to_stdout(report.verified().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refused(&error),
        },
        Err(error) => refused(&error),
    }
}

fn refused(error: &anyhow::Error) -> ExitCode {
    eprintln!("vulkan_oversubscribe: refused: {error:#}");
    ExitCode::from(2)
}

type First = Option<(u64, content::Wrong)>;

fn oversubscribe(args: &Args) -> Result<(Report, First)> {
    let job = args.job()?;
    let outputs = &args.outputs;
    let observer = match outputs.trace.is_some() || outputs.plot.is_some() {
        true => Some(Arc::new(Observer::create(outputs)?)),
        false => None,
    };
    let runs = if args.no_comparison { 1 } else { 2 };
    let bar = progress(runs * job.objects * (2 + u64::from(job.passes)));
    let limited = run(args, &job, job.limit, observer.as_ref(), &bar)?;
    let resident = match args.no_comparison {
        true => None,
        // Chunks are not filled to the last page.
        false => Some(run(
            args,
            &job,
            job.data() + job.data() / 4 + (64 << 20),
            None,
            &bar,
        )?),
    };
    bar.finish_and_clear();
    if let Some(observer) = &observer {
        observer.finish("Vulkan, oversubscribed", outputs)?;
    }
    let report = Report::new(&job, &limited, resident.as_ref());
    report.print(outputs)?;
    let first = |outcome: &Outcome| outcome.first_wrong;
    Ok((
        report,
        first(&limited).or(resident.as_ref().and_then(first)),
    ))
}

fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %, {msg}");
    bar.set_style(style.expect("a template that is right"));
    bar
}
