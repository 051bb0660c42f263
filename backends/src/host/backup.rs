//! Swap in a file.
//!
//! The file has no name: nothing is left behind however the process ends. Slots are pages of it,
//! in a table that is allocated ahead ([`Backup::prepare`]). A run of pages leaves like this:
//!
//! 1. [`take`](Backup::take) finds adjoining slots, those that have disk blocks already before
//!    others, the lowest before others, so that what leaves together lies together and in order.
//!    Slots without disk blocks get some now, so that a full disk is found before anything is
//!    written.
//! 2. [`transfer`](Backup::transfer) writes it, in requests of up to 2 MiB, several in flight,
//!    around the page cache where the file system can.
//! 3. [`discard`](Backup::discard) frees the slots. Their blocks are kept for what comes next,
//!    while the limit has room and up to 256 MiB: making holes costs more than writing. All others
//!    become holes.
//!
//! A slot can be read only after it was written by whoever has it now, so nobody ever sees what
//! somebody else left there (I-63), whatever the disk still holds.
//!
//! # Which engine
//!
//! [`IoEngine::Auto`] takes io_uring where the system allows it, and threads otherwise. Both keep
//! the disk at work while the caller maps and checksums the next run. Swapping an object out and
//! in through a device, on ext4 and two shared processors (medians, in ms; the bench `swap`):
//!
//! | object  | way | io_uring | threads | calling thread | plain direct I/O |
//! |---------|-----|----------|---------|----------------|------------------|
//! | 64 MiB  | out | 27–29    | 30      | 45             | 31               |
//! | 64 MiB  | in  | 38–45    | 40      | 50             | 49               |
//! | 256 MiB | out | 87       | 113     | 196            | 120              |
//! | 256 MiB | in  | 136–178  | 136     | 248            | 185              |
//!
//! Between io_uring and threads the noise of the disk decides; io_uring is preferred because it
//! needs no threads and wakes none. An object of a single run has nothing to overlap, and all
//! three take the same time.

mod error;
mod file;
mod io;
mod slots;
mod stats;

use core::fmt;
use std::io::{Error as IoError, Result as IoResult};
use std::path::{Path, PathBuf};

use placement::{PAGE_SIZE, PageCount};
use rustix::io::Errno;
use ttm::error::{Error, Result};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};
use ttm::tt::{Backup, Direction, SlotRun, SlotTag, Transfer, Transfers};

use file::SwapFile;
use io::{Io, Runs};
use slots::{CHUNK, Run, Slots};
use stats::add;

pub use error::BackupError;
pub use io::IoEngine;
pub use stats::BackupStats;

/// Disk blocks that hold nothing are kept for so many pages: 256 MiB.
const KEPT: u64 = 1 << 16;

/// A backup in an unlinked file of a directory that the user chose.
///
/// ```
/// use backends::host::FileBackup;
/// use placement::PageCount;
/// use ttm::tt::{Backup, SlotTag};
///
/// # fn main() -> ttm::error::Result<()> {
/// let swap = FileBackup::new(std::env::temp_dir(), 4096)?;
/// swap.prepare(2)?;
/// let tag = SlotTag { object: 1, first_page: 0, generation: 1 };
/// let slots = swap.take(PageCount::ONE, tag)?;
/// let full = swap.take(PageCount::ONE, tag).unwrap_err();
/// assert!(full.to_string().contains("(limit 4 KiB) is full"));
/// swap.discard(slots);
/// # Ok(())
/// # }
/// ```
pub struct FileBackup {
    file: Arc<SwapFile>,
    dir: PathBuf,
    /// In pages.
    limit: AtomicU64,
    io: Io,
    slots: Mutex<Slots>,
    /// Held by the one who trims, so that one kept piece at a time is nobody's; before `slots`.
    trimming: Mutex<()>,
}

impl FileBackup {
    /// A backup in `dir` for up to `limit_bytes` bytes, rounded down to pages.
    ///
    /// Goes around the page cache where the file system can, because what is swapped out is not
    /// wanted in memory.
    ///
    /// # Errors
    /// [`Error::Backup`] if `dir` is no directory in which a file can be made.
    pub fn new(dir: impl AsRef<Path>, limit_bytes: u64) -> Result<Self> {
        Self::with_engine(dir, limit_bytes, IoEngine::Auto)
    }

    /// The same with an engine of the caller's choice, for tests and benches.
    ///
    /// # Errors
    /// As [`FileBackup::new`].
    pub fn with_engine(dir: impl AsRef<Path>, limit_bytes: u64, engine: IoEngine) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let file = SwapFile::new(&dir).map_err(|source| {
            Error::Backup(Box::new(BackupError {
                what: "has no file; name a directory that can be written to",
                dir: dir.clone(),
                limit: limit_bytes,
                source,
            }))
        })?;
        Ok(Self {
            file: Arc::new(file),
            dir,
            limit: AtomicU64::new(limit_bytes / PAGE_SIZE),
            io: Io::new(engine),
            slots: Mutex::new(Slots::new()),
            trimming: Mutex::new(()),
        })
    }

    /// Changes the limit, rounded down to pages. What is stored above a lower one stays; nothing
    /// is stored until it fits again. Disk blocks that are kept above it are given back.
    pub fn set_limit_bytes(&self, limit_bytes: u64) {
        // Relaxed: it is compared under the lock of the slots, but no data hangs on it.
        self.limit.store(limit_bytes / PAGE_SIZE, Ordering::Relaxed);
        self.shrink(KEPT);
    }

    /// The directory that the file is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether requests go around the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    /// Gives all blocks back to the disk that hold nothing.
    pub fn trim(&self) {
        self.shrink(0);
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> BackupStats {
        let counters = &self.file.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BackupStats {
            engine: self.io.name(),
            direct: self.is_direct(),
            stored_bytes: read(&counters.stored_bytes),
            loaded_bytes: read(&counters.loaded_bytes),
            requests: read(&counters.requests),
            most_in_flight: read(&counters.most_in_flight),
            kept_bytes: self.slots.lock().kept() * PAGE_SIZE,
            fallbacks: read(&counters.fallbacks),
        }
    }

    /// Compares the table of slots with its counters, and both with the limit (I-59, I-63). For
    /// tests, while nothing is on its way and after the limit was last lowered nothing is above
    /// it.
    ///
    /// # Errors
    /// [`Error::Backup`]: what does not agree.
    pub fn check(&self) -> Result<()> {
        let slots = self.slots.lock();
        slots.check().map_err(|found| Error::Backup(found.into()))?;
        let (used, kept) = (slots.used(), slots.kept());
        if kept > KEPT || kept > 0 && used + kept > self.limit_pages() {
            let found = format!("I-63: {used} slots used, {kept} kept: more than the limits");
            return Err(Error::Backup(found.into()));
        }
        Ok(())
    }

    fn limit_pages(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    #[cold]
    fn error(&self, what: &'static str, source: impl Into<IoError>) -> Error {
        Error::Backup(Box::new(BackupError {
            what,
            dir: self.dir.clone(),
            limit: self.limit_pages().saturating_mul(PAGE_SIZE),
            source: source.into(),
        }))
    }

    /// Gives kept blocks back, from the end of the file, until `most` pages of them are left and
    /// the limit has room for them beside what is used.
    fn shrink(&self, most: u64) {
        let _trimming = self.trimming.lock();
        loop {
            let mut slots = self.slots.lock();
            let room = self.limit_pages().saturating_sub(slots.used());
            let excess = slots.kept().saturating_sub(most.min(room));
            if excess == 0 {
                return;
            }
            let Some(run) = slots.retire_kept(excess) else {
                return;
            };
            drop(slots);
            self.file.punch(run);
            self.slots.lock().punched(run);
        }
    }

    /// Takes slots within the limit. Says whether they have disk blocks, and whether too many
    /// others have some now.
    fn take_slots(&self, pages: u64) -> Result<(Run, bool, bool)> {
        let limit = self.limit_pages();
        let mut slots = self.slots.lock();
        if slots.used().saturating_add(pages) > limit {
            drop(slots);
            return Err(self.error("is full; raise its limit or release objects", Errno::NOSPC));
        }
        let Some((run, backed)) = slots.take(pages) else {
            let why = "the backup was not prepared for one more run; call `prepare` first";
            return Err(Error::Invalid(why));
        };
        let crowded = slots.used() + slots.kept() > limit;
        Ok((run, backed, crowded))
    }

    /// Makes sure that the disk has room, at the expense of what is kept.
    fn reserve(&self, run: Run) -> Result<()> {
        let mut reserved = self.file.reserve(run);
        if matches!(reserved, Err(Errno::NOSPC | Errno::DQUOT)) {
            self.trim();
            reserved = self.file.reserve(run);
        }
        let what = "found no room on the disk; free some or name another directory";
        reserved.map_err(|error| self.error(what, error))
    }

    /// Frees slots and makes a hole of them.
    fn release(&self, run: Run) {
        self.slots.lock().retire(run);
        self.file.punch(run);
        self.slots.lock().punched(run);
    }
}

impl Backup for FileBackup {
    fn prepare(&self, runs: usize) -> Result<()> {
        let prepared = self.slots.lock().prepare(runs);
        prepared.map_err(|_| Error::no_memory(PageCount::ZERO))?;
        self.io.prepare(&self.file);
        Ok(())
    }

    fn unprepare(&self, runs: usize) {
        self.slots.lock().unprepare(runs);
    }

    /// # Errors
    /// [`Error::Backup`] if the limit or the disk is full; [`Error::Invalid`] for no pages, for
    /// more than 512, and for a run that the backup was not prepared for.
    fn take(&self, pages: PageCount, tag: SlotTag) -> Result<SlotRun> {
        if !(1..=CHUNK).contains(&pages.get()) {
            return Err(Error::Invalid("a run of slots has 1 to 512 pages"));
        }
        let (run, backed, crowded) = self.take_slots(pages.get())?;
        if crowded {
            self.shrink(KEPT);
        }
        if !backed && let Err(error) = self.reserve(run) {
            self.release(run);
            return Err(error);
        }
        Ok(SlotRun::new(run.first, pages, tag))
    }

    fn transfer(&self, direction: Direction, work: &mut dyn Transfers) {
        let mut runs = Checked {
            backup: self,
            direction,
            work,
        };
        self.io.transfer(&self.file, direction, &mut runs);
    }

    /// # Panics
    /// If the slots are not ones that this backup gave out.
    fn discard(&self, slots: SlotRun) {
        let run = Run {
            first: slots.first(),
            pages: slots.pages().get(),
        };
        let limit = self.limit_pages();
        let mut table = self.slots.lock();
        let known = table.is_run(run);
        assert!(known, "{slots:?} are not taken here");
        if table.used() + table.kept() <= limit && table.kept() + run.pages <= KEPT {
            table.free(run);
            return;
        }
        drop(table);
        self.release(run);
    }

    fn limit(&self) -> PageCount {
        PageCount::new(self.limit_pages()).unwrap_or(PageCount::MAX)
    }

    fn used(&self) -> PageCount {
        PageCount::new(self.slots.lock().used()).expect("part of the table")
    }
}

/// Lets runs through whose slots may be moved, and notes what became of them.
struct Checked<'a> {
    backup: &'a FileBackup,
    direction: Direction,
    work: &'a mut dyn Transfers,
}

fn run_of(transfer: &Transfer) -> Run {
    Run {
        first: transfer.first,
        pages: transfer.memory.span().pages.get(),
    }
}

impl Checked<'_> {
    fn refusal(&self, transfer: &Transfer) -> Option<Error> {
        let run = run_of(transfer);
        let slots = self.backup.slots.lock();
        match self.direction {
            _ if !slots.is_taken(run) => Some(Error::Invalid("these slots are nobody's")),
            Direction::In if !slots.is_written(run) => {
                Some(Error::Invalid("slots that were not written hold nothing"))
            }
            _ => None,
        }
    }
}

impl Runs for Checked<'_> {
    fn next(&mut self) -> Option<Transfer> {
        loop {
            let transfer = self.work.next()?;
            match self.refusal(&transfer) {
                Some(refusal) => self.work.done(transfer, Err(refusal)),
                None => return Some(transfer),
            }
        }
    }

    fn done(&mut self, transfer: Transfer, result: IoResult<()>) {
        let (run, counters) = (run_of(&transfer), &self.backup.file.counters);
        let bytes = run.pages * PAGE_SIZE;
        let (counter, what) = match self.direction {
            Direction::Out => (
                &counters.stored_bytes,
                "cannot write; name another directory",
            ),
            Direction::In => (
                &counters.loaded_bytes,
                "cannot read back; the content is lost if it stays so",
            ),
        };
        if result.is_ok() {
            add(counter, bytes);
            if self.direction == Direction::Out {
                self.backup.slots.lock().wrote(run);
            }
        }
        let result = result.map_err(|error| self.backup.error(what, error));
        self.work.done(transfer, result);
    }
}

impl fmt::Debug for FileBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, limit) = (self.used(), self.limit());
        write!(f, "FileBackup({}: {used} of {limit})", self.dir.display())
    }
}
