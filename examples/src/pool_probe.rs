//! `pool_probe`: fills a pool's page file, and asks the kernel what that costs.
//!
//! It takes frames from a pool over the host's page files, writes a word into each page through
//! short windows, holds them, verifies the words, and gives everything back to the system. Before,
//! meanwhile and after, it reads the kernel's own counters:
//!
//! - `Shmem` of `/proc/meminfo`: shared memory that the whole system has;
//! - `RssShmem` of `/proc/self/status`: how much of it this process has mapped;
//! - the blocks of the page files by `fstat`: what is in them, whatever the rest of the system does.
//!
//! `cargo run --release --bin pool_probe -- --fill 1G --hold 5 --json -`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use backends::host::{MemfdPages, wall_clock};
use clap::Parser;
use cli::json::Target;
use cli::size::ByteSize;
use cli::table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use placement::{PAGE_SIZE, PageCount};
use serde::Serialize;
use ttm::pages::{Dirty, FrameRun, Pool, PoolConfig, Want};

/// Bytes that may be mapped while the frames are held: what the pool keeps is less.
const MAPPED_AT_MOST: u64 = 16 << 20;

/// The pages of a run: 2 MiB.
const RUN: PageCount = PageCount::new(512).expect("a small count");

/// Fills a pool's page file, and asks the kernel what that costs.
///
/// Exit status: 0 done and right; 1 a wrong word, memory that is still there after it was given
/// back, or more than 16 MiB mapped; 2 refused.
#[derive(Debug, Parser)]
#[command(name = "pool_probe", version)]
struct Args {
    /// How much to hold
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    fill: ByteSize,

    /// How long to hold it, in seconds
    #[arg(long, value_name = "N", default_value_t = 5)]
    hold: u64,

    /// Write the figures as JSON to FILE, or to standard output for `-`
    #[arg(long, value_name = "FILE|-")]
    json: Option<Target>,
}

/// What the kernel says at one moment, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
struct Reading {
    shmem: u64,
    mapped: u64,
    page_files: u64,
}

/// The figures, as `--json` writes them; bytes, seconds.
#[derive(Debug, Serialize)]
struct Report {
    /// Shared memory of the system before.
    before: u64,
    /// The same while the frames are held.
    held: u64,
    /// Bytes of it that this process has mapped meanwhile.
    mapped: u64,
    /// Shared memory of the system after.
    after: u64,
    /// What is in the page files: before, held, after.
    page_files: [u64; 3],
    fill: u64,
    fill_seconds: f64,
    release_seconds: f64,
    /// Bytes of it that are huge pages.
    huge: u64,
    words_checked: u64,
    wrong_words: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match probe(&args) {
        Ok(report) => match verdict(&report) {
            Ok(()) => ExitCode::SUCCESS,
            Err(wrong) => {
                eprintln!("pool_probe: wrong: {wrong}");
                ExitCode::from(1)
            }
        },
        Err(error) => {
            eprintln!("pool_probe: refused: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Fills, holds, verifies, releases; prints and writes what was found.
fn probe(args: &Args) -> Result<Report> {
    let pages = args.fill.bytes() / PAGE_SIZE;
    ensure!(
        pages > 0,
        "--fill: expected at least 4K, found {}",
        args.fill
    );
    let source = Arc::new(MemfdPages::new()?);
    let capacity = ttm::pages::PageSource::offers(&*source).capacity;
    ensure!(
        pages <= capacity.get(),
        "--fill: {} is more than the {capacity} that this machine has",
        args.fill
    );
    let config = PoolConfig {
        limit: PageCount::MAX,
        ..PoolConfig::default()
    };
    let pool = Pool::new(Arc::clone(&source) as _, wall_clock(), config);
    let before = Reading::now(&source)?;

    let start = Instant::now();
    let runs = fill(&pool, pages)?;
    let fill_seconds = start.elapsed().as_secs_f64();
    hold(args.hold);
    let held = Reading::now(&source)?;
    let huge = runs.iter().filter(|run| run.is_huge());
    let huge = huge.map(|run| run.pages().bytes()).sum();
    let wrong_words = verify(&pool, &runs)?;

    let start = Instant::now();
    for run in runs {
        pool.give(run);
    }
    pool.shrink();
    let release_seconds = start.elapsed().as_secs_f64();
    let after = Reading::now(&source)?;
    let report = Report {
        before: before.shmem,
        held: held.shmem,
        mapped: held.mapped,
        after: after.shmem,
        page_files: [before, held, after].map(|reading| reading.page_files),
        fill: pages * PAGE_SIZE,
        fill_seconds,
        release_seconds,
        huge,
        words_checked: pages,
        wrong_words,
    };
    print(args, &report)?;
    Ok(report)
}

/// Takes `pages` pages and writes its number into each.
fn fill(pool: &Arc<Pool>, pages: u64) -> Result<Vec<FrameRun<Dirty>>> {
    let bar = ProgressBar::new(pages);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} % taken");
    bar.set_style(style.expect("a template that is right"));
    let mut runs = Vec::new();
    let mut taken = 0;
    while taken < pages {
        let count = PageCount::new(RUN.get().min(pages - taken)).expect("part of a size");
        let run = pool.take(&Want::new(count))?.dirtied();
        let window = pool.kmap(run.span())?;
        for page in 0..count.get() {
            let number = taken + page + 1;
            window.write((page * PAGE_SIZE) as usize, &number.to_le_bytes());
        }
        taken += count.get();
        runs.push(run);
        bar.set_position(taken);
    }
    bar.finish_and_clear();
    Ok(runs)
}

fn hold(seconds: u64) {
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{bar:40} held for {pos} of {len} s");
    bar.set_style(style.expect("a template that is right"));
    for second in 1..=seconds {
        std::thread::sleep(Duration::from_secs(1));
        bar.set_position(second);
    }
    bar.finish_and_clear();
}

/// Pages that do not hold their number.
fn verify(pool: &Arc<Pool>, runs: &[FrameRun<Dirty>]) -> Result<u64> {
    let (mut number, mut wrong) = (0u64, 0);
    for run in runs {
        let window = pool.kmap(run.span())?;
        for page in 0..run.pages().get() {
            number += 1;
            let mut word = [0; 8];
            window.read((page * PAGE_SIZE) as usize, &mut word);
            wrong += u64::from(u64::from_le_bytes(word) != number);
        }
    }
    Ok(wrong)
}

impl Reading {
    fn now(source: &MemfdPages) -> Result<Self> {
        Ok(Self {
            shmem: field("/proc/meminfo", "Shmem:")?,
            mapped: field("/proc/self/status", "RssShmem:")?,
            page_files: source.resident()?,
        })
    }
}

/// A figure in kB of a file of the kernel's, in bytes.
fn field(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let kib = figure.with_context(|| format!("{path} has no line {name:?}"))?;
    Ok(kib << 10)
}

fn print(args: &Args, report: &Report) -> Result<()> {
    let mut table = Table::new(["", "system's shared memory", "page files", "mapped here"]);
    let moments = [
        ("before", report.before, report.page_files[0], None),
        (
            "held",
            report.held,
            report.page_files[1],
            Some(report.mapped),
        ),
        ("after", report.after, report.page_files[2], None),
    ];
    for (moment, shmem, files, mapped) in moments {
        table.row([
            moment.to_owned().into(),
            ByteSize(shmem).into(),
            ByteSize(files).into(),
            mapped.map_or_else(|| String::new().into(), |bytes| ByteSize(bytes).into()),
        ]);
    }
    let text = format!(
        "{table}\n{} taken in {:.3} s ({} in huge pages), given back in {:.3} s; {} pages checked, \
         {} wrong\n",
        ByteSize(report.fill).human(),
        report.fill_seconds,
        ByteSize(report.huge).human(),
        report.release_seconds,
        report.words_checked,
        report.wrong_words
    );
    match &args.json {
        Some(Target::Stdout) => eprint!("{text}"),
        _ => cli::table::to_stdout(text.as_bytes())?,
    }
    match &args.json {
        Some(target) => target.write(report),
        None => Ok(()),
    }
}

/// What is wrong, by the counters that nobody else moves.
fn verdict(report: &Report) -> Result<(), String> {
    let [before, held, after] = report.page_files;
    if report.wrong_words > 0 {
        return Err(format!(
            "{} pages do not hold their number",
            report.wrong_words
        ));
    }
    if held - before < report.fill {
        return Err(format!(
            "{} are held, {} were asked for",
            held - before,
            report.fill
        ));
    }
    if report.mapped >= MAPPED_AT_MOST {
        return Err(format!("{} bytes of it are mapped", report.mapped));
    }
    if after > before {
        return Err(format!("{} bytes were not given back", after - before));
    }
    Ok(())
}
