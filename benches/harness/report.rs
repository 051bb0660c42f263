//! The table that a bench prints and the file that it writes.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::kernel::Figure;
use crate::measure::Spread;
use crate::primitives::Primitives;

/// The most that a ratio may be, and to what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Ours over the kernel's figure.
    Kernel(f64),
    /// Ours over the limit measured in the same run.
    Limit(f64),
}

/// One row: how long ours takes, beside its limit and the kernel.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    ours: Spread,
    limit: Option<(String, f64)>,
    kernel: Option<Figure>,
    target: Option<Target>,
}

impl Row {
    /// A row with nothing beside it yet.
    pub fn new(name: impl Into<String>, ours: Spread) -> Self {
        Self {
            name: name.into(),
            ours,
            limit: None,
            kernel: None,
            target: None,
        }
    }

    /// Puts the limit beside it that was measured in the same run.
    #[must_use]
    pub fn limit(mut self, name: impl Into<String>, limit: Spread) -> Self {
        self.limit = Some((name.into(), limit.median));
        self
    }

    /// Puts the kernel's figure beside it.
    #[must_use]
    pub fn kernel(mut self, figure: &Figure) -> Self {
        self.kernel = Some(*figure);
        self
    }

    /// Says what the ratio is to be; without it the ratio is to the kernel, or else the limit.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    fn entry(&self, primitives: &Primitives) -> Entry {
        let to_kernel = self.kernel.map(|kernel| {
            let ratio = primitives.against_kernel(self.ours.median, &kernel);
            (
                ratio,
                if primitives.normalises() {
                    "kernel, normalised"
                } else {
                    "kernel"
                },
            )
        });
        let to_limit = self
            .limit
            .as_ref()
            .map(|(_, ns)| (self.ours.median / ns, "limit"));
        let (ratio_to, target) = match self.target {
            Some(Target::Kernel(most)) => (to_kernel, Some(most)),
            Some(Target::Limit(most)) => (to_limit, Some(most)),
            None => (to_kernel.or(to_limit), None),
        };
        let ratio = ratio_to.map(|(ratio, _)| ratio);
        Entry {
            row: self.name.clone(),
            ours_ns: self.ours.median,
            ours_min_ns: self.ours.min,
            ours_max_ns: self.ours.max,
            limit: self.limit.as_ref().map(|(name, _)| name.clone()),
            limit_ns: self.limit.as_ref().map(|(_, ns)| *ns),
            kernel_ns: self.kernel.map(|kernel| kernel.ns),
            ratio,
            ratio_to: ratio_to.map(|(_, to)| to),
            target,
            met: ratio.zip(target).map(|(ratio, target)| ratio <= target),
            samples: self.ours.samples,
            disturbed: self.ours.disturbed,
        }
    }
}

/// A row as the file has it.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    row: String,
    ours_ns: f64,
    ours_min_ns: f64,
    ours_max_ns: f64,
    limit: Option<String>,
    limit_ns: Option<f64>,
    kernel_ns: Option<f64>,
    ratio: Option<f64>,
    ratio_to: Option<&'static str>,
    target: Option<f64>,
    met: Option<bool>,
    samples: usize,
    disturbed: bool,
}

/// A figure that is no time: a scaling factor, a share of space used.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    check: String,
    value: f64,
    at_least: Option<f64>,
    at_most: Option<f64>,
    met: Option<bool>,
    samples: usize,
}

impl Check {
    /// A figure that only stands there, the result of so many samples.
    pub fn new(name: impl Into<String>, value: f64, samples: usize) -> Self {
        Self {
            check: name.into(),
            value,
            at_least: None,
            at_most: None,
            met: None,
            samples,
        }
    }

    /// Says that it should be this or more.
    #[must_use]
    pub fn at_least(self, bound: f64) -> Self {
        Self {
            at_least: Some(bound),
            met: Some(self.value >= bound),
            ..self
        }
    }

    /// Says that it should be this or less.
    #[must_use]
    pub fn at_most(self, bound: f64) -> Self {
        Self {
            at_most: Some(bound),
            met: Some(self.value <= bound),
            ..self
        }
    }
}

/// All that one bench found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    bench: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    primitives: Primitives,
    kernel_primitives: Primitives,
    machine_factor: f64,
    normalised: bool,
    rows: Vec<Entry>,
    checks: Vec<Check>,
}

impl Report {
    /// A report without rows.
    pub fn new(bench: impl Into<String>, primitives: Primitives) -> Self {
        Self {
            bench: bench.into(),
            notes: Vec::new(),
            primitives,
            kernel_primitives: Primitives::KERNEL,
            machine_factor: primitives.factor(),
            normalised: primitives.normalises(),
            rows: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Adds a line to the head: on what it was measured, or why it was not.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a row.
    pub fn row(&mut self, row: Row) {
        self.rows.push(row.entry(&self.primitives));
    }

    /// Adds a figure that is no time.
    pub fn check(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// What the primitives cost in this run.
    pub fn primitives(&self) -> &Primitives {
        &self.primitives
    }

    /// Writes `folder/<bench>.json`, making the folder where it is missing.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn write_json(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(format!("{}.json", self.bench));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))
    }

    fn table_of_rows(&self) -> Table {
        let header = [
            "row", "ours", "limit", "limit ns", "kernel", "ratio", "to", "target", "met", "samples",
        ];
        let mut table = table(&header, &["row", "limit", "to", "met"]);
        for row in &self.rows {
            table.add_row([
                row.row.clone(),
                time(row.ours_ns),
                row.limit.clone().unwrap_or_default(),
                row.limit_ns.map(time).unwrap_or_default(),
                row.kernel_ns.map(time).unwrap_or_default(),
                row.ratio
                    .map(|ratio| format!("{ratio:.2}"))
                    .unwrap_or_default(),
                row.ratio_to.unwrap_or_default().to_owned(),
                row.target
                    .map(|target| format!("<= {target:.2}"))
                    .unwrap_or_default(),
                verdict(row.met).to_owned(),
                format!(
                    "{}{}",
                    row.samples,
                    if row.disturbed { " (preempted)" } else { "" }
                ),
            ]);
        }
        table
    }

    fn table_of_checks(&self) -> Table {
        let mut table = table(
            &["figure", "value", "target", "met", "samples"],
            &["figure", "met"],
        );
        for check in &self.checks {
            let target = match (check.at_least, check.at_most) {
                (Some(bound), _) => format!(">= {bound:.3}"),
                (None, Some(bound)) => format!("<= {bound:.3}"),
                (None, None) => String::new(),
            };
            table.add_row([
                check.check.clone(),
                format!("{:.3}", check.value),
                target,
                verdict(check.met).to_owned(),
                check.samples.to_string(),
            ]);
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Primitives {
            clock_read_ns,
            lock_pair_ns,
            alloc_pair_256_ns,
        } = self.primitives;
        writeln!(f, "{} (times in ns)", self.bench)?;
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "{note}"))?;
        writeln!(
            f,
            "primitives here: clock read {clock_read_ns:.1}, lock pair {lock_pair_ns:.1}, \
             256-byte pair {alloc_pair_256_ns:.1}; the kernel's: {:.1}, {:.1}, {:.1}; {}",
            self.kernel_primitives.clock_read_ns,
            self.kernel_primitives.lock_pair_ns,
            self.kernel_primitives.alloc_pair_256_ns,
            if self.normalised {
                format!(
                    "ratios to the kernel are normalised by {:.2}",
                    self.machine_factor
                )
            } else {
                "ratios to the kernel are plain".to_owned()
            },
        )?;
        if !self.rows.is_empty() {
            writeln!(f, "{}", self.table_of_rows())?;
        }
        if !self.checks.is_empty() {
            writeln!(f, "{}", self.table_of_checks())?;
        }
        Ok(())
    }
}

/// An empty table whose columns hold numbers, but for those named in `words`.
fn table(header: &[&str], words: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.iter().copied());
    for (index, name) in header.iter().enumerate() {
        if let (false, Some(column)) = (words.contains(name), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A time in nanoseconds with about three digits that mean something.
fn time(ns: f64) -> String {
    match ns {
        ns if ns < 100.0 => format!("{ns:.1}"),
        ns => {
            let digits = format!("{ns:.0}");
            let groups: Vec<&str> = digits
                .as_bytes()
                .rchunks(3)
                .rev()
                .filter_map(|group| str::from_utf8(group).ok())
                .collect();
            groups.join(",")
        }
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "yes",
        Some(false) => "MISSED",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURE: Figure = Figure {
        workload: "any",
        ns: 200.0,
    };

    fn report(primitives: Primitives, row: Row) -> Entry {
        let mut report = Report::new("question", primitives);
        report.row(row);
        report.rows.remove(0)
    }

    #[test]
    fn the_ratio_is_to_what_the_target_names() {
        let row = Row::new("row", Spread::of(&[100.0]))
            .limit("bare", Spread::of(&[80.0]))
            .kernel(&FIGURE);
        let to_kernel = report(Primitives::KERNEL, row.clone().target(Target::Kernel(0.4)));
        assert_eq!((to_kernel.ratio, to_kernel.met), (Some(0.5), Some(false)));
        let to_limit = report(Primitives::KERNEL, row.clone().target(Target::Limit(1.3)));
        assert_eq!((to_limit.ratio, to_limit.met), (Some(1.25), Some(true)));
        let free = report(Primitives::KERNEL, row);
        assert_eq!(
            (free.ratio, free.ratio_to, free.met),
            (Some(0.5), Some("kernel"), None)
        );
    }

    #[test]
    fn only_the_ratio_to_the_kernel_is_normalised() {
        let Primitives {
            clock_read_ns,
            lock_pair_ns,
            alloc_pair_256_ns,
        } = Primitives::KERNEL;
        let slow = Primitives {
            clock_read_ns: 2.0 * clock_read_ns,
            lock_pair_ns: 2.0 * lock_pair_ns,
            alloc_pair_256_ns: 2.0 * alloc_pair_256_ns,
        };
        let row = Row::new("row", Spread::of(&[100.0]))
            .limit("bare", Spread::of(&[80.0]))
            .kernel(&FIGURE);
        let to_kernel = report(slow, row.clone().target(Target::Kernel(1.0)));
        assert!((to_kernel.ratio.unwrap_or_default() - 0.25).abs() < 1e-9);
        assert_eq!(to_kernel.ratio_to, Some("kernel, normalised"));
        assert_eq!(
            report(slow, row.target(Target::Limit(1.0))).ratio,
            Some(1.25)
        );
    }

    #[test]
    fn a_check_keeps_to_its_bound() {
        assert_eq!(Check::new("scales", 1.9, 61).at_least(1.8).met, Some(true));
        assert_eq!(Check::new("flat", 2.1, 61).at_most(2.0).met, Some(false));
        assert_eq!(Check::new("stands there", 2.1, 61).met, None);
    }

    #[test]
    fn the_file_has_every_promised_key() -> anyhow::Result<()> {
        let mut report = Report::new("question", Primitives::KERNEL);
        report.row(Row::new("row", Spread::of(&[1.0])));
        let file: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report)?)?;
        let row = &file["rows"][0];
        for key in [
            "row",
            "ours_ns",
            "limit",
            "limit_ns",
            "kernel_ns",
            "ratio",
            "target",
            "samples",
        ] {
            assert!(row.get(key).is_some(), "{key}");
        }
        assert_eq!(file["normalised"], false);
        Ok(())
    }

    #[test]
    fn times_are_written_to_be_read() {
        assert_eq!(time(5.24), "5.2");
        assert_eq!(time(145.2), "145");
        assert_eq!(time(9634.0), "9,634");
        assert_eq!(time(1_234_567.0), "1,234,567");
    }
}
