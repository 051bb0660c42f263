//! Frames in a memfd.
//!
//! ```text
//!            take: reserve (fallocate)            give: punch a hole
//!   a hole ────────────────────────────▶ taken ────────────────────▶ a hole
//!                                         │  ▲
//!            give, while the cache has room│  │take: overwrite with zeroes
//!                                         ▼  │
//!                                        cached
//! ```
//!
//! An index in the file is virtual, so every run is contiguous: the space of indices is far larger
//! than any memory, and holes cost nothing. A frame reads as zero to its new owner because its
//! page is fresh, or was overwritten just before (I-14).

use core::fmt;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use placement::{Extent, PAGE_SIZE, PageCount, PageRange, Range, Request, Space};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use ttm::error::{Error, Result};
use ttm::pages::{FrameRun, FrameSpan, Mapped, PageSource};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

use super::file_map::FileMap;

/// Indices of the page file: 2 PiB, which no host has.
const INDICES: PageCount = PageCount::new(1 << 39).expect("below the greatest count");

/// The file grows by so many pages at a time: 1 GiB. Growing reserves nothing.
const STEP: u64 = 1 << 18;

/// Pages that are kept for reuse unless somebody asks for another number: 64 MiB.
const CACHED: PageCount = PageCount::new(1 << 14).expect("below the greatest count");

/// What cached frames are overwritten with.
static ZEROES: [u8; 1 << 18] = [0; 1 << 18];

/// A page source over a page file of the host.
///
/// Memory is reserved before it is handed out, so running out is [`Error::NoMemory`] and an access
/// never meets a missing page. More than the host has in memory and swap is refused; a host that
/// is filled by others at the same time may still kill somebody, so give the manager a limit.
/// Frames are mapped nowhere until [`map`](PageSource::map), and then only those that were
/// asked for; a forked child inherits no mapping.
///
/// ```
/// use backends::host::MemfdPages;
/// use placement::PageCount;
/// use ttm::pages::PageSource;
///
/// # fn main() -> ttm::error::Result<()> {
/// let pages = MemfdPages::new()?;
/// let run = pages.take(PageCount::new(3).expect("few"))?;
/// let mapped = pages.map(run.span())?;
/// mapped.write(4096, b"frames");
/// assert_eq!(pages.live_mappings(), 1);
/// drop(mapped);
///
/// // The next owner sees zeroes, although it gets the same frames.
/// let first = run.span().first;
/// pages.give(run);
/// let run = pages.take(PageCount::new(3).expect("few"))?;
/// assert_eq!(run.span().first, first);
/// let mut bytes = [1; 6];
/// pages.map(run.span())?.read(4096, &mut bytes);
/// assert_eq!(bytes, [0; 6]);
/// pages.give(run);
/// # Ok(())
/// # }
/// ```
pub struct MemfdPages {
    file: File,
    number: u32,
    cache_limit: u64,
    /// Pages of memory and swap that the host has.
    capacity: u64,
    live: Arc<AtomicU64>,
    inner: Mutex<Inner>,
}

/// # Invariants
/// Each extent of `space` is in `granted` or in `cache`, in one of them, or in the hands of one
/// call that is giving it back. The file is at least `file_pages` long and every page of a granted
/// or cached extent is inside it and reserved. `cached` counts the pages in `cache`, `taken` those
/// in `granted`.
struct Inner {
    space: Range,
    granted: BTreeMap<u64, Extent>,
    cache: BTreeMap<u64, Vec<Extent>>,
    cached: u64,
    taken: u64,
    file_pages: u64,
}

impl MemfdPages {
    /// A page file with number 0 that keeps up to 64 MiB of freed frames for reuse.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host gives no memfd.
    pub fn new() -> Result<Self> {
        Self::with_cache(0, CACHED)
    }

    /// A page file with a number, which keeps up to `cache` pages for reuse.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host gives no memfd.
    pub fn with_cache(number: u32, cache: PageCount) -> Result<Self> {
        let file = memfd("ttm frames").map_err(|e| Error::Backend(e.into()))?;
        Ok(Self {
            file,
            number,
            cache_limit: cache.get(),
            capacity: host_pages(),
            live: Arc::new(AtomicU64::new(0)),
            inner: Mutex::new(Inner {
                space: Range::new(INDICES),
                granted: BTreeMap::new(),
                cache: BTreeMap::new(),
                cached: 0,
                taken: 0,
                file_pages: 0,
            }),
        })
    }

    /// The page file. Its frames belong to whoever took them.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How many mappings of frames are alive.
    #[must_use]
    pub fn live_mappings(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Frames that are kept for reuse, apart from those that are taken.
    #[must_use]
    pub fn cached(&self) -> PageCount {
        PageCount::new(self.inner.lock().cached).expect("part of the space")
    }

    /// Gives all cached frames back to the host.
    pub fn trim(&self) {
        let cache = {
            let mut inner = self.inner.lock();
            inner.cached = 0;
            core::mem::take(&mut inner.cache)
        };
        for extent in cache.into_values().flatten() {
            self.release(extent);
        }
    }

    /// A cached run of that size, its content still that of its last owner.
    fn take_cached(&self, pages: PageCount) -> Option<Extent> {
        let mut inner = self.inner.lock();
        let extent = inner.cache.get_mut(&pages.get())?.pop()?;
        inner.cached -= pages.get();
        Some(extent)
    }

    /// A run that was a hole, reserved.
    fn take_fresh(&self, pages: PageCount) -> Result<Extent> {
        let extent = {
            let mut inner = self.inner.lock();
            // The host would rather kill somebody than refuse what it can never have.
            if pages.get() > self.capacity.saturating_sub(inner.taken) {
                return Err(Error::NoMemory { wanted: pages });
            }
            let extents = inner
                .space
                .take(&Request::new(pages))
                .map_err(|_| Error::NoMemory { wanted: pages })?;
            let extent = extents[0];
            if let Err(error) = inner.grow(&self.file, extent.range().end()) {
                inner.space.give(extent);
                return Err(Error::Backend(error.into()));
            }
            extent
        };
        let mut reserved = reserve(&self.file, extent.range());
        if reserved.is_err() {
            self.trim();
            reserved = reserve(&self.file, extent.range());
        }
        match reserved {
            Ok(()) => Ok(extent),
            Err(error) => {
                self.inner.lock().space.give(extent);
                Err(out_of_memory(error, pages))
            }
        }
    }

    /// Overwrites a cached run with zeroes.
    fn zero(&self, extent: Extent) -> io::Result<()> {
        #[cfg(feature = "plant")]
        if ttm::plant::is(ttm::plant::Defect::SkippedZeroing) {
            return Ok(());
        }
        let mut at = extent.start() * PAGE_SIZE;
        let mut left = extent.pages().bytes();
        while left > 0 {
            let part = left.min(ZEROES.len() as u64);
            self.file.write_all_at(&ZEROES[..part as usize], at)?;
            at += part;
            left -= part;
        }
        Ok(())
    }

    /// Gives a run back to the host: its content first, then its indices.
    fn release(&self, extent: Extent) {
        // A hole in an unsealed memfd fails only for arguments that this type never makes.
        punch(&self.file, extent.range()).expect("a page file can have holes");
        self.inner.lock().space.give(extent);
    }
}

impl Inner {
    /// Makes the file at least `end` pages long.
    fn grow(&mut self, file: &File, end: u64) -> io::Result<()> {
        if end > self.file_pages {
            let pages = end.next_multiple_of(STEP);
            rustix::fs::ftruncate(file, pages * PAGE_SIZE)?;
            self.file_pages = pages;
        }
        Ok(())
    }

    /// Whether all frames of `span` belong to one owner.
    fn is_granted(&self, span: FrameSpan) -> bool {
        let Some(wanted) = PageRange::at(span.first, span.pages) else {
            return false;
        };
        let before = self.granted.range(..=span.first).next_back();
        before.is_some_and(|(_, extent)| extent.range().contains_range(&wanted))
    }
}

impl PageSource for MemfdPages {
    fn take(&self, pages: PageCount) -> Result<FrameRun> {
        if pages.is_zero() {
            return Err(Error::Invalid("a run of frames has at least one page"));
        }
        let extent = match self.take_cached(pages) {
            Some(extent) => match self.zero(extent) {
                Ok(()) => extent,
                Err(error) => {
                    self.release(extent);
                    return Err(Error::Backend(error.into()));
                }
            },
            None => self.take_fresh(pages)?,
        };
        let mut inner = self.inner.lock();
        inner.granted.insert(extent.start(), extent);
        inner.taken += pages.get();
        drop(inner);
        Ok(FrameRun::new(FrameSpan {
            file: self.number,
            first: extent.start(),
            pages,
        }))
    }

    /// # Panics
    /// If the run is not one that this source gave out, whole.
    fn give(&self, run: FrameRun) {
        let span = run.span();
        let dirty = {
            let mut inner = self.inner.lock();
            let extent = inner.granted.remove(&span.first);
            let extent = extent
                .filter(|e| e.pages() == span.pages && span.file == self.number)
                .unwrap_or_else(|| panic!("{span:?} was not taken here"));
            inner.taken -= span.pages.get();
            if inner.cached + span.pages.get() <= self.cache_limit {
                inner.cached += span.pages.get();
                let same = inner.cache.entry(span.pages.get()).or_default();
                same.push(extent);
                None
            } else {
                Some(extent)
            }
        };
        if let Some(extent) = dirty {
            self.release(extent);
        }
    }

    /// # Errors
    /// [`Error::Invalid`] for frames that nobody has taken, or that two have;
    /// [`Error::Backend`] if the host refuses the mapping.
    fn map(&self, span: FrameSpan) -> Result<Mapped> {
        if span.file != self.number || span.pages.is_zero() || !self.inner.lock().is_granted(span) {
            return Err(Error::Invalid(
                "only frames of one run that is taken are mapped",
            ));
        }
        let len = usize::try_from(span.pages.bytes())
            .map_err(|_| Error::Invalid("the run is longer than the address space"))?;
        FileMap::populated(&self.file, span.first * PAGE_SIZE, len, &self.live)
            .map(FileMap::into_mapped)
            .map_err(|error| Error::Backend(error.into()))
    }

    fn taken(&self) -> PageCount {
        PageCount::new(self.inner.lock().taken).expect("part of the space")
    }
}

impl fmt::Debug for MemfdPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MemfdPages({} taken, {} cached)",
            self.taken(),
            self.cached()
        )
    }
}

/// Memory and swap of the host, in pages.
fn host_pages() -> u64 {
    let info = rustix::system::sysinfo();
    let units = info.totalram.saturating_add(info.totalswap);
    units.saturating_mul(u64::from(info.mem_unit)) / PAGE_SIZE
}

fn out_of_memory(error: Errno, wanted: PageCount) -> Error {
    match error {
        Errno::NOSPC | Errno::NOMEM | Errno::FBIG | Errno::DQUOT => Error::NoMemory { wanted },
        other => Error::Backend(io::Error::from(other).into()),
    }
}

/// An empty memory file that never shrinks and that no executed program inherits.
pub(crate) fn memfd(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(name, flags)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
    Ok(File::from(fd))
}

/// Makes sure that the pages of a file have memory (or disk) behind them; all or none.
pub(crate) fn reserve(file: &File, pages: PageRange) -> Result<(), Errno> {
    allocate(file, FallocateFlags::empty(), pages)
}

/// Gives the memory (or disk) behind pages of a file back; they read as zero from now on.
pub(crate) fn punch(file: &File, pages: PageRange) -> Result<(), Errno> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    allocate(file, hole, pages)
}

fn allocate(file: &File, how: FallocateFlags, pages: PageRange) -> Result<(), Errno> {
    let (offset, len) = (pages.start() * PAGE_SIZE, pages.len().bytes());
    loop {
        match rustix::fs::fallocate(file, how, offset, len) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
