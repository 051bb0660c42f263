//! What a run leaves behind beside tables: figures, a Perfetto trace, a plot.

pub mod observer;
pub mod perfetto;
pub mod plot;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::json::Target;

/// What a run says besides its tables, and where.
#[derive(Clone, Debug, Default, Args)]
pub struct Outputs {
    /// Write the figures as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<Target>,

    /// Write a Chrome/Perfetto trace (open it at ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Draw residency over time
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

impl Outputs {
    /// Prints text for people: to standard output, or beside it where the JSON goes there.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn say(&self, text: &str) -> Result<()> {
        if self.json == Some(Target::Stdout) {
            eprint!("{text}");
            return Ok(());
        }
        crate::table::to_stdout(text.as_bytes())
    }
}
