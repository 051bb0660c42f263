//! What is printed and written.

use anyhow::Result;
use cli::report::Outputs;
use cli::size::ByteSize;
use cli::table::{Table, thousands};
use serde::Serialize;

use super::args::{Job, Order};
use super::optimum::least_moves;
use super::run::Outcome;

/// Everything, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    device: String,
    driver: String,
    keeps_handles: bool,
    limit_bytes: u64,
    data_bytes: u64,
    times_limit: f64,
    object_bytes: u64,
    passes: u32,
    order: Order,
    words_checked: u64,
    wrong_words: u64,
    limited: Figures,
    /// With room for everything.
    resident: Option<Figures>,
    /// Throughput, of what it is with room for everything.
    of_resident: Option<f64>,
    least_in_bytes: u64,
    least_out_bytes: u64,
    /// Bytes moved, of the least possible for this order.
    moved_of_least: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    seconds: f64,
    bytes_per_second: f64,
    in_bytes: u64,
    out_bytes: u64,
    evictions: u64,
    rebound: u64,
    submissions: u64,
    copies: u64,
    copy_submissions: u64,
    most_allocated_bytes: u64,
    waited_seconds: f64,
    longest_wait_seconds: f64,
    stalls: u64,
}

impl Figures {
    fn of(outcome: &Outcome, job: &Job) -> Self {
        let touched = job.data() as f64 * f64::from(job.passes);
        Self {
            seconds: outcome.seconds,
            bytes_per_second: touched / outcome.seconds.max(1e-9),
            in_bytes: outcome.in_bytes,
            out_bytes: outcome.out_bytes,
            evictions: outcome.evictions,
            rebound: outcome.rebound,
            submissions: outcome.submissions,
            copies: outcome.copies,
            copy_submissions: outcome.copy_submissions,
            most_allocated_bytes: outcome.most_allocated,
            waited_seconds: outcome.waited.as_secs_f64(),
            longest_wait_seconds: outcome.longest.as_secs_f64(),
            stalls: outcome.stalls,
        }
    }
}

impl Report {
    pub(crate) fn new(job: &Job, limited: &Outcome, resident: Option<&Outcome>) -> Self {
        let room = usize::try_from(job.limit / job.object).unwrap_or(usize::MAX);
        let (came, left) = least_moves(&job.touches(), room);
        let (least_in_bytes, least_out_bytes) = (came * job.object, left * job.object);
        let runs = [Some(limited), resident];
        let all = || runs.into_iter().flatten();
        let figures = Figures::of(limited, job);
        let whole = resident.map(|outcome| Figures::of(outcome, job));
        let moved = (limited.in_bytes + limited.out_bytes) as f64;
        Self {
            device: limited.device.clone(),
            driver: limited.driver.clone(),
            keeps_handles: limited.keeps_handles,
            limit_bytes: job.limit,
            data_bytes: job.data(),
            times_limit: job.data() as f64 / job.limit as f64,
            object_bytes: job.object,
            passes: job.passes,
            order: job.order,
            words_checked: all().map(|outcome| outcome.words).sum(),
            wrong_words: all().map(|outcome| outcome.wrong).sum(),
            of_resident: whole
                .as_ref()
                .map(|whole| figures.bytes_per_second / whole.bytes_per_second),
            limited: figures,
            resident: whole,
            least_in_bytes,
            least_out_bytes,
            moved_of_least: moved / (least_in_bytes + least_out_bytes).max(1) as f64,
        }
    }

    pub(crate) fn wrong(&self) -> u64 {
        self.wrong_words
    }

    pub(crate) fn print(&self, outputs: &Outputs) -> Result<()> {
        let mut table = Table::new([
            "run",
            "throughput",
            "in",
            "out",
            "evictions",
            "rebound",
            "copies / submissions",
            "allocated",
            "waited s",
            "longest ms",
            "stalls",
        ]);
        let limit = format!("{} of {}", size(self.data_bytes), size(self.limit_bytes));
        let rows = [
            (limit.as_str(), Some(&self.limited)),
            ("all resident", self.resident.as_ref()),
        ];
        for (name, figures) in rows {
            let Some(f) = figures else {
                continue;
            };
            table.row([
                name.into(),
                format!("{:.2} GB/s", f.bytes_per_second / 1e9).into(),
                ByteSize(f.in_bytes).into(),
                ByteSize(f.out_bytes).into(),
                f.evictions.into(),
                f.rebound.into(),
                format!(
                    "{} / {}",
                    thousands(f.copies),
                    thousands(f.copy_submissions)
                )
                .into(),
                ByteSize(f.most_allocated_bytes).into(),
                f.waited_seconds.into(),
                (f.longest_wait_seconds * 1e3).into(),
                f.stalls.into(),
            ]);
        }
        let handles = match self.keeps_handles {
            true => "buffers keep their handles",
            false => "a new buffer at each place",
        };
        outputs.say(&format!(
            "{}, {}: {handles}\n{table}\n",
            self.device, self.driver
        ))?;
        let least = self.least_in_bytes + self.least_out_bytes;
        let moved = self.limited.in_bytes + self.limited.out_bytes;
        outputs.say(&format!(
            "{} moved, {:.2} of the least possible for this order ({}){}; a stall is a wait of 1 ms and more\n",
            size(moved),
            self.moved_of_least,
            size(least),
            self.of_resident
                .map(|of| format!("; {of:.2} of the throughput with everything resident"))
                .unwrap_or_default(),
        ))?;
        if let Some(json) = &outputs.json {
            json.write(self)?;
        }
        Ok(())
    }

    /// The last line of a run that is right; on standard output wherever the figures go.
    pub(crate) fn verified(&self) -> String {
        format!(
            "verified: {} of data, {:.1} times the limit of {}, {} words, {} wrong; {} passes, {} evictions, {:.1} s\n",
            size(self.data_bytes),
            self.times_limit,
            size(self.limit_bytes),
            thousands(self.words_checked),
            self.wrong_words,
            self.passes,
            thousands(self.limited.evictions),
            self.limited.seconds,
        )
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).human()
}
