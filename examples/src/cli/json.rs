//! Figures as JSON, to a file or to standard output.

use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::Serialize;

use super::atomic_file::AtomicFile;

/// Where JSON goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output, written `-`; tables then belong on standard error.
    Stdout,
    /// A file, which appears whole or not at all.
    File(PathBuf),
}

impl Target {
    /// Writes `value`, indented, with a line end.
    ///
    /// # Errors
    /// The file can't be written, and is then as it was; or `value` doesn't serialise.
    pub fn write(&self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value).context("the figures as JSON")?;
        text.push(b'\n');
        match self {
            Self::Stdout => super::table::to_stdout(&text),
            Self::File(path) => {
                let mut file = AtomicFile::create(path)?;
                file.write_all(&text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                file.commit()
            }
        }
    }
}

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use std::collections::BTreeMap;

    #[test]
    fn a_dash_is_standard_output() {
        assert_eq!("-".parse(), Ok(Target::Stdout));
        assert_eq!("a.json".parse(), Ok(Target::File("a.json".into())));
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = Folder::new("json");
        let target = Target::File(folder.file("out.json"));
        target.write(&BTreeMap::from([("misses", 3)])).unwrap();
        let text = std::fs::read_to_string(folder.file("out.json")).unwrap();
        assert_eq!(text, "{\n  \"misses\": 3\n}\n");
    }

    #[test]
    fn a_value_that_does_not_serialise_leaves_no_file() {
        let folder = Folder::new("json-bad");
        let target = Target::File(folder.file("out.json"));
        assert!(target.write(&BTreeMap::from([(vec![1], 1)])).is_err());
        assert!(folder.names().is_empty());
    }
}
