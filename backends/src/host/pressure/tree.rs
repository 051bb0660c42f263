//! The kernel's files, or a copy of them, and the figures in their text.

use std::io;
use std::path::{Path, PathBuf};

use ttm::error::{Error, Result};
use ttm::pages::Level;

/// A directory that holds `proc` and `sys`.
#[derive(Clone, Debug)]
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Where the file is whose path from the root is `path`.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// What is in it.
    pub(super) fn read(&self, path: &str) -> Result<String> {
        let path = self.path(path);
        std::fs::read_to_string(&path).map_err(|error| named(&path, &error))
    }

    /// The number that is all there is in it. None if there is none, or if it is `max`.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }
}

/// An error that says of which file it is.
pub(super) fn named(path: &Path, error: &io::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    Error::Backend(io::Error::new(error.kind(), text).into())
}

/// The same for a file whose text is not what it should be.
pub(super) fn senseless(path: &str) -> Error {
    let text = format!("{path}: not the figures that were expected");
    Error::Backend(io::Error::new(io::ErrorKind::InvalidData, text).into())
}

/// The number after the word `key` at the beginning of a line.
pub(super) fn figure(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let word = words.next()?;
        let found = word.strip_suffix(':').unwrap_or(word) == key;
        found.then(|| words.next()?.parse().ok())?
    })
}

/// How short memory is when `used` of `limit` is: from so many hundredths on, some, or full.
pub(super) fn level_of(used: u64, limit: u64, some: u64, full: u64) -> Level {
    let reaches = |share: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(share);
    match () {
        () if reaches(full) => Level::Full,
        () if reaches(some) => Level::Some,
        () => Level::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_or_not_there() {
        let text = "MemTotal:  100 kB\nhigh 3\n\nempty\nwide 99999999999999999999\nminus -1\n";
        assert_eq!(figure(text, "MemTotal"), Some(100));
        assert_eq!(figure(text, "high"), Some(3));
        for key in ["Mem", "hig", "empty", "wide", "minus", "", "100"] {
            assert_eq!(figure(text, key), None, "{key}");
        }
    }

    #[test]
    fn levels_begin_at_their_shares() {
        let levels = [0, 89, 90, 96, 97, 100, u64::MAX].map(|n| level_of(n, 100, 90, 97));
        use Level::{Full, None, Some};
        assert_eq!(levels, [None, None, Some, Some, Full, Full, Full]);
        assert_eq!(level_of(u64::MAX / 2, u64::MAX, 90, 97), None);
    }
}
