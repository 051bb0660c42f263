//! Why a backup in a file could not keep or return pages.

use core::fmt;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a [`FileBackup`](super::FileBackup) could not keep or return pages. The source is the
/// host's own error.
///
/// Its text goes on from "the backup": it names the directory, the limit and what to do.
#[derive(Debug)]
pub struct BackupError {
    pub(super) what: &'static str,
    pub(super) dir: PathBuf,
    pub(super) limit: u64,
    pub(super) source: io::Error,
}

impl BackupError {
    /// The directory of the backup's file.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes that the backup may hold.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit
    }

    /// The host's error.
    #[must_use]
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} (limit {}) {}: {}",
            self.dir.display(),
            placement::human_bytes(self.limit),
            self.what,
            self.source
        )
    }
}

impl StdError for BackupError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
