//! `dma_reach`: by which way each PCI device of a machine reaches memory, and what follows from it.
//!
//! For every device it prints the path, whether accesses snoop, when something would be copied, and
//! what a graphics driver does with its buffers there: allocated for the device, in whole pages,
//! mapped for users without sync points. Each answer has its evidence; what could not be read is
//! listed with the reason. It drives no device; with `--functional` it also tries what cannot be read.
//!
//! `cargo run --release --bin dma_reach -- --explain`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use backends::dma::{Probe, ProbeRoot};
use clap::Parser;
use cli::json::Target;
use cli::table::Table;
use serde::Serialize;
use ttm::dma::{Choice, Mask, Need, TABLE, Verdict, choose};

/// By which way each PCI device reaches memory, and what follows from it.
///
/// Exit status: 0 done; 2 refused: no such folder or device.
#[derive(Debug, Parser)]
#[command(name = "dma_reach", version)]
struct Args {
    /// Look at a captured tree, laid out as a file system root: DIR/sys, DIR/proc, DIR/dev
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Only this device, by its address
    #[arg(long, value_name = "ADDRESS")]
    device: Option<String>,

    /// The device has so many address lines, whatever the system says
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=64))]
    mask: Option<u32>,

    /// For buffers with sync points, instead of such that are mapped for users
    #[arg(long)]
    bracketed: bool,

    /// Try what cannot be read: makes a dma-buf of one page by /dev/udmabuf to see whether mappings are
    /// copied, and drops it; takes the group of a device that vfio-pci has for as long as it is asked
    #[arg(long)]
    functional: bool,

    /// Say for each device which facts the answer rests on, and what would change it
    #[arg(long)]
    explain: bool,

    /// Print the decision table instead: the first row that applies decides
    #[arg(long)]
    table: bool,

    /// Write the devices as JSON to FILE, or to standard output for `-`
    #[arg(long, value_name = "FILE|-")]
    json: Option<Target>,
}

/// A device, as `--json` writes it.
#[derive(Debug, Serialize)]
struct Row {
    device: String,
    path: String,
    snoop: String,
    bounce: String,
    streaming_is_coherent: Option<bool>,
    code: String,
    choice: &'static str,
    reason: String,
    notes: Vec<String>,
    evidence: Vec<Evidence>,
    missing: Vec<String>,
    conflicts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Evidence {
    topic: String,
    says: String,
    source: String,
    trust: String,
    privileged: bool,
}

impl Row {
    fn new(verdict: &Verdict, choice: &Choice) -> Self {
        let evidence = verdict.facts.iter().map(|fact| Evidence {
            topic: fact.topic.to_string(),
            says: fact.says.clone(),
            source: fact.source.clone(),
            trust: fact.trust.to_string(),
            privileged: fact.privileged,
        });
        Self {
            device: verdict.device.clone(),
            path: verdict.path.to_string(),
            snoop: verdict.snoops().to_string(),
            bounce: verdict.bounce().to_string(),
            streaming_is_coherent: verdict.streaming_is_coherent(),
            code: choice.code.to_string(),
            choice: choice.decision.name(),
            reason: choice.reason.clone(),
            notes: choice.notes.clone(),
            evidence: evidence.collect(),
            missing: verdict.missing.iter().map(ToString::to_string).collect(),
            conflicts: verdict.conflicts.clone(),
        }
    }
}

fn main() -> ExitCode {
    match reach(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dma_reach: refused: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn reach(args: &Args) -> Result<()> {
    if args.table {
        return print_table();
    }
    let root = match &args.root {
        Some(root) => {
            ProbeRoot::captured(root).with_context(|| format!("--root {}", root.display()))?
        }
        None => ProbeRoot::system(),
    };
    let probe = Probe::new(root).allow_functional(args.functional);
    let mut devices = probe.devices();
    if let Some(wanted) = &args.device {
        devices.retain(|device| device == wanted);
        ensure!(
            !devices.is_empty(),
            "there is no PCI device {wanted}; without --device all are listed"
        );
    }
    let need = match args.bracketed {
        true => Need::managed(),
        false => Need::default(),
    };
    let mut found = Vec::new();
    for device in &devices {
        let mut verdict = probe.device(device);
        if let Some(bits) = args.mask {
            verdict.mask = Mask::bits(bits);
        }
        let choice = choose(&verdict, &need);
        found.push((verdict, choice));
    }
    let rows: Vec<_> = found.iter().map(|(v, c)| Row::new(v, c)).collect();
    let say = |text: &str| match args.json {
        Some(Target::Stdout) => {
            eprint!("{text}");
            Ok(())
        }
        _ => cli::table::to_stdout(text.as_bytes()),
    };
    say(&summary(&rows))?;
    if args.explain {
        for (verdict, choice) in &found {
            say(&format!("\n{}", choice.explain(verdict)))?;
        }
    }
    match &args.json {
        Some(target) => target.write(&rows),
        None => Ok(()),
    }
}

fn summary(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no PCI devices here\n".into();
    }
    let mut table = Table::new(["device", "path", "snoops", "copied", "row", "choice"]);
    for row in rows {
        table.row([
            row.device.clone().into(),
            row.path.clone().into(),
            row.snoop.clone().into(),
            row.bounce.clone().into(),
            row.code.clone().into(),
            row.choice.to_owned().into(),
        ]);
    }
    let mut text = format!("{table}\n");
    let mut reasons: Vec<_> = rows.iter().map(|r| (&r.code, &r.reason)).collect();
    reasons.sort();
    reasons.dedup_by_key(|(code, _)| *code);
    for (code, reason) in reasons {
        text += &format!("{code}: {reason}\n");
    }
    text
}

fn print_table() -> Result<()> {
    let mut table = Table::new(["row", "when", "what would change it"]);
    for row in TABLE {
        table.row([
            row.code.to_string().into(),
            row.when.to_owned().into(),
            row.code.would_change().to_owned().into(),
        ]);
    }
    cli::table::to_stdout(format!("{table}\n").as_bytes())
}
