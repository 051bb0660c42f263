//! Swap in a file.
//!
//! The file has no name: nothing is left behind however the process ends. Slots are pages of it,
//! taken from a space of slot numbers that is far larger than any disk, so that a run always fits
//! while the limit has room; what is neither taken nor kept for reuse is a hole. A run can be loaded only with the
//! [`SlotRun`] that [`store`](Backup::store) made after its last page was written, so nobody
//! ever reads a page that he did not write (I-63), whatever the disk still holds.

use core::fmt;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use placement::{Extent, PAGE_SIZE, PageCount, Range, Request, Space};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use ttm::error::{Error, Result};
use ttm::pages::Mapped;
use ttm::sync::Mutex;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::tt::{Backup, SlotRun, SlotTag};

use super::pages::{punch, reserve};
use super::positional::{read_at, write_at};

/// Slot numbers: 8 TiB, below the longest file of every usual file system.
const SLOTS: PageCount = PageCount::new(1 << 31).expect("below the greatest count");

/// Disk blocks that hold nothing are kept for so many pages: 256 MiB.
const KEPT: u64 = 1 << 16;

/// The longest request to the disk. Shorter ones are only the ends of runs.
const REQUEST: usize = 8 << 20;

/// A backup in an unlinked file of a directory that the user chose.
///
/// ```
/// use backends::host::{FileBackup, MemfdPages};
/// use placement::PageCount;
/// use ttm::pages::PageSource;
/// use ttm::tt::{Backup, SlotTag};
///
/// # fn main() -> ttm::error::Result<()> {
/// let pages = MemfdPages::new()?;
/// let swap = FileBackup::new(std::env::temp_dir(), 4096)?;
/// let run = pages.take(PageCount::ONE)?;
/// let mapped = pages.map(run.span())?;
/// mapped.write(0, b"kept");
///
/// let tag = SlotTag { object: 1, first_page: 0, generation: 1 };
/// let slots = swap.store(tag, &mapped)?;
/// assert!(swap.store(tag, &mapped).is_err(), "the limit is one page");
/// mapped.zero(0, 4096);
/// swap.load(&slots, tag, &mapped)?;
/// let mut bytes = [0; 4];
/// mapped.read(0, &mut bytes);
/// assert_eq!(&bytes, b"kept");
///
/// swap.discard(slots);
/// # drop(mapped);
/// pages.give(run);
/// # Ok(())
/// # }
/// ```
pub struct FileBackup {
    file: File,
    dir: PathBuf,
    limit: AtomicU64,
    inner: Mutex<Inner>,
}

/// Runs of slots that hold nothing, but have disk blocks, by their pages.
type Kept = BTreeMap<u64, Vec<Extent>>;

/// # Invariants
/// Each extent of `space` is in `kept`, or counted in `used`, or in the hands of one call that is
/// giving it back. An extent is in `stored` from the moment at which all its pages have been
/// written until it is discarded. `kept_pages` counts the pages in `kept`.
struct Inner {
    space: Range,
    stored: BTreeMap<u64, Stored>,
    used: u64,
    kept: Kept,
    kept_pages: u64,
}

impl Inner {
    /// Empties what is kept, if it is unwanted.
    fn take_kept(&mut self, unwanted: bool) -> Kept {
        if !unwanted {
            return Kept::new();
        }
        self.kept_pages = 0;
        core::mem::take(&mut self.kept)
    }
}

struct Stored {
    extent: Extent,
    tag: SlotTag,
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
        let dir = dir.as_ref().to_path_buf();
        let limit = limit_bytes / PAGE_SIZE;
        let file = open(&dir).map_err(|source| {
            Error::Backup(Box::new(BackupError {
                what: "cannot make a file; name a directory that can be written to",
                dir: dir.clone(),
                limit: limit * PAGE_SIZE,
                source,
            }))
        })?;
        Ok(Self {
            file,
            dir,
            limit: AtomicU64::new(limit),
            inner: Mutex::new(Inner {
                space: Range::new(SLOTS),
                stored: BTreeMap::new(),
                used: 0,
                kept: Kept::new(),
                kept_pages: 0,
            }),
        })
    }

    /// Changes the limit, rounded down to pages. What is stored above a lower one stays; nothing
    /// is stored until it fits again.
    pub fn set_limit_bytes(&self, limit_bytes: u64) {
        // Relaxed: it is compared under the lock, but no data hangs on it.
        self.limit.store(limit_bytes / PAGE_SIZE, Ordering::Relaxed);
        self.trim();
    }

    /// The directory that the file is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether requests go around the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        rustix::fs::fcntl_getfl(&self.file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
    }

    fn error(&self, what: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Backup(Box::new(BackupError {
            what,
            dir: self.dir.clone(),
            limit: self.limit.load(Ordering::Relaxed).saturating_mul(PAGE_SIZE),
            source: source.into(),
        }))
    }

    /// Takes slots that nobody has, within the limit. Says whether they have disk blocks already.
    fn take(&self, pages: PageCount) -> Result<(Extent, bool)> {
        let full = || self.error("is full; raise its limit or release objects", Errno::NOSPC);
        let limit = self.limit.load(Ordering::Relaxed);
        let (extent, unwanted) = {
            let mut inner = self.inner.lock();
            if inner.used + pages.get() > limit {
                return Err(full());
            }
            if let Some(extent) = inner.kept.get_mut(&pages.get()).and_then(Vec::pop) {
                inner.kept_pages -= pages.get();
                inner.used += pages.get();
                return Ok((extent, true));
            }
            let extent = inner.space.take(&Request::new(pages)).map_err(|_| full())?[0];
            inner.used += pages.get();
            let crowded = inner.used + inner.kept_pages > limit;
            (extent, inner.take_kept(crowded))
        };
        self.release_all(unwanted);
        Ok((extent, false))
    }

    /// Gives slots back. Their blocks are kept for the next run of that size while the limit has
    /// room for both: making a hole costs more than writing the run.
    fn give(&self, extent: Extent) {
        let pages = extent.pages().get();
        let limit = self.limit.load(Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.used -= pages;
        let kept = inner.kept_pages + pages;
        if kept <= KEPT && inner.used + kept <= limit {
            inner.kept_pages = kept;
            inner.kept.entry(pages).or_default().push(extent);
        } else {
            drop(inner);
            self.release(extent);
        }
    }

    /// Gives all blocks back to the disk that hold nothing.
    pub fn trim(&self) {
        let unwanted = self.inner.lock().take_kept(true);
        self.release_all(unwanted);
    }

    fn release_all(&self, kept: Kept) {
        for extent in kept.into_values().flatten() {
            self.release(extent);
        }
    }

    fn release(&self, extent: Extent) {
        // A file system without holes keeps the blocks until the slots are taken again; nobody
        // reads them before they are overwritten.
        let _ = punch(&self.file, extent.range());
        self.inner.lock().space.give(extent);
    }

    /// Makes sure that the disk has room for slots that have no blocks.
    fn reserve(&self, extent: Extent) -> Result<()> {
        let mut reserved = reserve(&self.file, extent.range());
        if matches!(reserved, Err(Errno::NOSPC | Errno::DQUOT)) {
            self.trim();
            reserved = reserve(&self.file, extent.range());
        }
        match reserved {
            // Without reservations the write itself says that the disk is full.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => {
                let what = "found no room on the disk; free some or name another directory";
                Err(self.error(what, error))
            }
        }
    }

    /// Writes all of it, or answers an error.
    fn write(&self, extent: Extent, from: &Mapped) -> Result<()> {
        let offset = extent.start() * PAGE_SIZE;
        self.whole(from.len(), |at, len| {
            write_at(&self.file, offset + at as u64, from, at, len)
        })
        .map_err(|error| self.error("cannot write; name another directory", error))
    }

    /// Calls `part(at, len)` until all `len` bytes are done. Turns direct I/O off where the file
    /// system refuses it, and goes on.
    fn whole(
        &self,
        len: usize,
        part: impl Fn(usize, usize) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut at = 0;
        while at < len {
            match part(at, (len - at).min(REQUEST)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(done) => at += done,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.is_direct() => {
                    self.go_indirect()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn go_indirect(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        Ok(())
    }
}

impl Backup for FileBackup {
    fn store(&self, tag: SlotTag, from: &Mapped) -> Result<SlotRun> {
        let pages = PageCount::from_bytes_ceil(from.len() as u64)
            .filter(|p| !p.is_zero() && p.bytes() == from.len() as u64)
            .ok_or(Error::Invalid("whole pages are stored, at least one"))?;
        let (extent, has_blocks) = self.take(pages)?;
        let reserved = if has_blocks {
            Ok(())
        } else {
            self.reserve(extent)
        };
        if let Err(error) = reserved.and_then(|()| self.write(extent, from)) {
            self.inner.lock().used -= pages.get();
            self.release(extent);
            return Err(error);
        }
        let stored = Stored { extent, tag };
        self.inner.lock().stored.insert(extent.start(), stored);
        Ok(SlotRun::new(extent.start(), pages, tag))
    }

    /// # Errors
    /// Also [`Error::Invalid`] if `into` has another size than the run, or if the slots hold
    /// something else than `tag` says.
    fn load(&self, slots: &SlotRun, tag: SlotTag, into: &Mapped) -> Result<()> {
        if into.len() as u64 != slots.pages().bytes() {
            return Err(Error::Invalid("a run is loaded whole, into as many pages"));
        }
        let is_known = {
            let inner = self.inner.lock();
            let stored = inner.stored.get(&slots.first());
            stored.is_some_and(|s| s.extent.pages() == slots.pages() && s.tag == tag)
        };
        if !is_known {
            return Err(Error::Invalid("the slots do not hold what the tag says"));
        }
        let offset = slots.first() * PAGE_SIZE;
        self.whole(into.len(), |at, len| {
            read_at(&self.file, offset + at as u64, into, at, len)
        })
        .map_err(|error| self.error("cannot read back; the content is lost", error))
    }

    /// # Panics
    /// If the slots are not ones that this backup gave out.
    fn discard(&self, slots: SlotRun) {
        let stored = self.inner.lock().stored.remove(&slots.first());
        let stored = stored
            .filter(|s| s.extent.pages() == slots.pages())
            .unwrap_or_else(|| panic!("{slots:?} are not stored here"));
        self.give(stored.extent);
    }

    fn limit(&self) -> PageCount {
        PageCount::new(self.limit.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }

    fn used(&self) -> PageCount {
        PageCount::new(self.inner.lock().used).expect("part of the space")
    }
}

impl fmt::Debug for FileBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, limit) = (self.used(), self.limit());
        write!(f, "FileBackup({}: {used} of {limit})", self.dir.display())
    }
}

/// Why a [`FileBackup`] could not keep or return pages. The source is the host's own error.
#[derive(Debug)]
pub struct BackupError {
    what: &'static str,
    dir: PathBuf,
    limit: u64,
    source: io::Error,
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
            "the swap file in {} (limit {}) {}: {}",
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

/// A file without a name in `dir`, direct where the file system lets us.
fn open(dir: &Path) -> io::Result<File> {
    match open_as(dir, OFlags::DIRECT) {
        Err(Errno::INVAL) => Ok(open_as(dir, OFlags::empty())?),
        other => Ok(other?),
    }
}

fn open_as(dir: &Path, extra: OFlags) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | extra;
    match rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => return Ok(File::from(fd)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    // The file system knows no unnamed files: make a named one and unlink it at once.
    let dir = rustix::fs::openat(CWD, dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for n in 0..1000 {
        let name = format!(".ttm-swap-{}-{n}", std::process::id());
        match rustix::fs::openat(&dir, &name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(fd) => {
                rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?;
                return Ok(File::from(fd));
            }
            // With O_DIRECT refused, the name may be there all the same.
            Err(Errno::INVAL) => {
                let _ = rustix::fs::unlinkat(&dir, &name, AtFlags::empty());
                return Err(Errno::INVAL);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}
