//! Tables for people: headers, rows, numbers to the right with separators.

use std::fmt;
use std::io::{self, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, presets};

use crate::size::ByteSize;

/// A table under construction.
#[derive(Debug)]
pub struct Table {
    inner: comfy_table::Table,
    columns: usize,
}

impl Table {
    /// An empty table with these headers.
    pub fn new<const N: usize>(headers: [&str; N]) -> Self {
        Self::of(&headers)
    }

    /// The same with as many headers as there are.
    pub fn of(headers: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::UTF8_HORIZONTAL_ONLY);
        inner.set_header(headers);
        Self {
            inner,
            columns: headers.len(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// The number of cells isn't the number of headers.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> &mut Self {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns, "cells in a row, and headers");
        for (index, cell) in cells.iter().enumerate() {
            let column = self.inner.column_mut(index);
            if let (Cell::Number(_), Some(column)) = (cell, column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.inner.add_row(cells.iter().map(Cell::text));
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.trim_fmt())
    }
}

/// One cell of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Set to the left.
    Text(String),
    /// Set to the right, as formatted.
    Number(String),
}

impl Cell {
    /// A ratio of 0 to 1 as per cent with one decimal; a dash when there is nothing to divide.
    pub fn percent(part: u64, whole: u64) -> Self {
        Self::Number(match whole {
            0 => "-".into(),
            whole => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
        })
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    /// A count, with separators between thousands.
    fn from(count: u64) -> Self {
        Self::Number(thousands(count))
    }
}

impl From<f64> for Cell {
    /// A measure, with three decimals.
    fn from(measure: f64) -> Self {
        Self::Number(format!("{measure:.3}"))
    }
}

impl From<ByteSize> for Cell {
    /// A size, rounded.
    fn from(size: ByteSize) -> Self {
        Self::Number(size.human())
    }
}

/// A number with a comma between thousands: `208,177`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes to standard output, where a reader that left early is no error.
///
/// # Errors
/// Standard output can't be written for another reason.
pub fn to_stdout(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_commas() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (208_177, "208,177"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn numbers_stand_to_the_right_and_text_to_the_left() {
        let mut table = Table::new(["policy", "misses"]);
        table.row(["lru".into(), 208_177u64.into()]);
        table.row(["optimal".into(), 7u64.into()]);
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(lines.contains(&"lru       208,177"), "{text}");
        assert!(lines.contains(&"optimal         7"), "{text}");
    }

    #[test]
    fn a_share_of_nothing_is_a_dash() {
        assert_eq!(Cell::percent(0, 0), Cell::Number("-".into()));
        assert_eq!(Cell::percent(1, 8), Cell::Number("12.5 %".into()));
    }
}
