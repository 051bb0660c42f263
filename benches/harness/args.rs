//! The command line of every bench.

use std::env;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::measure;

/// Measures one question, its limit beside it.
#[derive(Clone, Debug, Default, Parser)]
#[command(about, long_about = None)]
pub struct Args {
    /// Measure only the rows whose name contains this.
    pub filter: Option<String>,

    /// Also write the rows to DIR, one file a bench.
    #[arg(long, value_name = "DIR")]
    pub json: Option<PathBuf>,

    /// Do N operations a repeat instead of the row's own number; rows whose one operation takes
    /// milliseconds never do more than their own number.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub ops: Option<usize>,

    /// Take R samples of each row.
    #[arg(long, value_name = "R", value_parser = positive)]
    pub repeats: Option<usize>,

    /// Replay this trace instead of a synthetic one: JSON lines with `hash_ids`, one object per id.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Says that cargo started us; cargo adds it by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// Reads the command line; ends the process with status 2 when it is not understood.
    pub fn from_command_line() -> Self {
        Self::parse()
    }

    /// How many operations a repeat does in a row whose own number is `standard`.
    pub fn ops(&self, standard: usize) -> usize {
        self.ops.unwrap_or(standard)
    }

    /// The same for a row of long operations, which `--ops` may only shorten.
    pub fn ops_at_most(&self, standard: usize) -> usize {
        self.ops(standard).min(standard)
    }

    /// How many samples a row takes: [`measure::REPEATS`] unless the command line says.
    pub fn repeats(&self) -> usize {
        self.repeats_or(measure::REPEATS)
    }

    /// The same for a row whose own number of repeats is `standard`.
    pub fn repeats_or(&self, standard: usize) -> usize {
        self.repeats.unwrap_or(standard)
    }

    /// Whether the row of this name is asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.filter
            .as_deref()
            .is_none_or(|wanted| row.contains(wanted))
    }

    /// Where the file goes, if one is asked for.
    ///
    /// Cargo starts a bench in its package's folder; a relative path is meant from where the user
    /// stands, which the shell's `PWD` still tells.
    pub fn json_folder(&self) -> Option<PathBuf> {
        Some(self.meant(self.json.as_deref()?))
    }

    /// Where the trace is, if one is named; a relative path is meant as in [`Self::json_folder`].
    pub fn trace_file(&self) -> Option<PathBuf> {
        Some(self.meant(self.trace.as_deref()?))
    }

    fn meant(&self, path: &Path) -> PathBuf {
        let stands = if self.bench { env::var_os("PWD") } else { None };
        from_user(path, stands.as_deref().map(Path::new))
    }
}

fn from_user(path: &Path, stands: Option<&Path>) -> PathBuf {
    match stands {
        Some(stands) if stands.is_absolute() => stands.join(path),
        _ => path.to_path_buf(),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["bench"], words].concat())
    }

    #[test]
    fn what_cargo_adds_is_accepted() -> Result<(), clap::Error> {
        let args = parse(&["--json", "out", "--ops", "7", "--bench"])?;
        assert_eq!(args.ops(1000), 7);
        assert_eq!(args.ops_at_most(4), 4);
        assert_eq!(args.repeats(), measure::REPEATS);
        Ok(())
    }

    #[test]
    fn bad_arguments_end_with_status_2() {
        for words in [&["--ops", "0"][..], &["--ops", "many"], &["--unheard-of"]] {
            let refused = parse(words).expect_err("refused");
            assert_eq!(refused.exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn a_filter_chooses_rows_by_their_name() -> Result<(), clap::Error> {
        let args = parse(&["buddy"])?;
        assert!(args.wants("i: buddy, 1k live"));
        assert!(!args.wants("i: range, 1k live"));
        assert!(parse(&[])?.wants("anything"));
        Ok(())
    }

    #[test]
    fn a_relative_folder_is_meant_from_where_the_user_stands() {
        assert_eq!(
            from_user(Path::new("out"), Some(Path::new("/home"))),
            Path::new("/home/out")
        );
        assert_eq!(
            from_user(Path::new("/out"), Some(Path::new("/home"))),
            Path::new("/out")
        );
        assert_eq!(from_user(Path::new("out"), None), Path::new("out"));
    }
}
