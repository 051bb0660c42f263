//! What a backup in a file has done, for tables that people read.

use core::fmt;

use ttm::sync::atomic::{AtomicU64, Ordering};

/// What a [`FileBackup`](super::FileBackup) has done since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackupStats {
    /// Who moves the bytes: "io_uring", "threads" or "calling thread".
    pub engine: &'static str,
    /// Whether requests go around the page cache.
    pub direct: bool,
    /// Bytes that were written, whole runs.
    pub stored_bytes: u64,
    /// Bytes that were read, whole runs.
    pub loaded_bytes: u64,
    /// Requests to the system.
    pub requests: u64,
    /// Runs that were on their way at once, at most.
    pub most_in_flight: u64,
    /// Bytes of disk blocks that hold nothing and are kept for what comes next.
    pub kept_bytes: u64,
    /// Engines that the system refused, and transfers that the calling thread did because the
    /// engine was busy with another thread's.
    pub fallbacks: u64,
}

impl fmt::Display for BackupStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.direct {
            "direct"
        } else {
            "through the page cache"
        };
        write!(
            f,
            "{}, {way}: {} stored, {} loaded in {} requests, {} at once; {} kept, {} fallbacks",
            self.engine,
            placement::human_bytes(self.stored_bytes),
            placement::human_bytes(self.loaded_bytes),
            self.requests,
            self.most_in_flight,
            placement::human_bytes(self.kept_bytes),
            self.fallbacks,
        )
    }
}

/// The counters behind [`BackupStats`]. Relaxed: they order nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) stored_bytes: AtomicU64,
    pub(super) loaded_bytes: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) most_in_flight: AtomicU64,
    pub(super) fallbacks: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
