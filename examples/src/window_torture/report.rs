//! What was found, for people and as JSON.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::json::Target;
use cli::size::ByteSize;
use cli::table::{Cell, Table, thousands, to_stdout};
use serde::Serialize;

use crate::gap::{Figures, Move, SizeGaps};
use crate::row::Row;
use crate::run::Outcome;

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// How long objects were moved.
    pub(crate) seconds: f64,
    pub(crate) wrong_words: u64,
    /// What is wrong, in words; wrong words are some of it.
    pub(crate) wrong: Vec<String>,
    pub(crate) strategies: Vec<StrategyReport>,
    pub(crate) not_run: Vec<NotRun>,
}

/// A strategy that cannot run here.
#[derive(Debug, Serialize)]
pub(crate) struct NotRun {
    pub(crate) name: &'static str,
    pub(crate) reason: String,
}

/// What one strategy did.
#[derive(Debug, Serialize)]
pub(crate) struct StrategyReport {
    name: &'static str,
    moves: u64,
    moves_by_kind: BTreeMap<&'static str, u64>,
    /// Moves that were refused, by the reason.
    refused: BTreeMap<String, u64>,
    /// Words that were read or written, and checked, and system calls.
    accesses: u64,
    /// Of those, system calls.
    calls: u64,
    /// Accesses that waited for somebody to serve them.
    faults: u64,
    /// Times that something was put over addresses of a window.
    shown: u64,
    /// Words that were compared at the end.
    compared: u64,
    wrong_words: u64,
    /// Slow stores that were slow because the processor was somebody else's.
    preempted: u64,
    /// How long stores waited that waited at all.
    gap_ns: Vec<SizeGaps>,
}

impl Report {
    /// Adds what came of a strategy with objects of these sizes.
    pub(crate) fn add(&mut self, row: Row, sizes: &[u64], outcome: Outcome) {
        self.wrong_words += outcome.wrong_words;
        let wrong = outcome.wrong.into_iter();
        self.wrong
            .extend(wrong.map(|what| format!("{}: {what}", row.name())));
        self.strategies.push(StrategyReport {
            name: row.name(),
            moves: outcome.moves.values().sum(),
            moves_by_kind: outcome.moves,
            refused: outcome.refused,
            accesses: outcome.done.accesses,
            calls: outcome.done.calls,
            faults: outcome.faults,
            shown: outcome.shown,
            compared: outcome.compared,
            wrong_words: outcome.wrong_words,
            preempted: outcome.done.gaps.preempted,
            gap_ns: outcome.done.gaps.figures(sizes),
        });
    }

    /// Prints tables, and writes JSON where it is wanted; tables then go out of its way.
    ///
    /// # Errors
    /// One of both cannot be written.
    pub(crate) fn print(&self, json: Option<&Target>) -> Result<()> {
        let text = self.text();
        match json {
            Some(Target::Stdout) => eprint!("{text}"),
            _ => to_stdout(text.as_bytes())?,
        }
        json.map_or(Ok(()), |target| target.write(self))
    }

    fn text(&self) -> String {
        let mut table = Table::new(["strategy", "moves", "accesses", "calls", "faults", "wrong"]);
        for row in &self.strategies {
            table.row([
                row.name.into(),
                row.moves.into(),
                row.accesses.into(),
                row.calls.into(),
                row.faults.into(),
                row.wrong_words.into(),
            ]);
        }
        let mut text = format!("{table}\n");
        for row in self.strategies.iter().filter(|row| !row.gap_ns.is_empty()) {
            text += &format!(
                "\n{}: how long stores waited, in us (median / 99 % / longest)\n{}\n",
                row.name,
                row.gaps()
            );
        }
        for row in &self.not_run {
            text += &format!("\nnot run: {}: {}", row.name, row.reason);
        }
        let (moves, accesses) = self
            .strategies
            .iter()
            .fold((0, 0), |sum, row| (sum.0 + row.moves, sum.1 + row.accesses));
        text += &format!(
            "\n{} moves, {} accesses in {:.1} s; {} wrong words\n",
            thousands(moves),
            thousands(accesses),
            self.seconds,
            self.wrong_words
        );
        text
    }
}

impl StrategyReport {
    fn gaps(&self) -> Table {
        let sizes: Vec<_> = self
            .gap_ns
            .iter()
            .map(|row| ByteSize(row.size).to_string())
            .collect();
        let mut headers = vec!["after"];
        headers.extend(sizes.iter().map(String::as_str));
        let mut table = Table::of(&headers);
        for which in Move::ALL.into_iter().map(Move::name) {
            let of = |row: &SizeGaps| row.moves.iter().find(|m| m.after == which).map(|m| m.gaps);
            let cells: Vec<_> = self.gap_ns.iter().map(of).collect();
            if cells.iter().any(Option::is_some) {
                let cells = cells.into_iter().map(cell);
                table.row([Cell::from(which)].into_iter().chain(cells));
            }
        }
        let all = self.gap_ns.iter().map(|row| cell(Some(row.gaps)));
        table.row([Cell::from("all")].into_iter().chain(all));
        table
    }
}

fn cell(figures: Option<Figures>) -> Cell {
    let Some(figures) = figures else {
        return Cell::Number("-".into());
    };
    let us = |ns: u64| match ns {
        0..100_000 => format!("{:.1}", ns as f64 / 1e3),
        _ => thousands(ns / 1000),
    };
    Cell::Number(format!(
        "{} / {} / {}",
        us(figures.median),
        us(figures.p99),
        us(figures.longest)
    ))
}
