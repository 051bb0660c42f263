//! The file: no name, direct I/O where the file system has it, holes where nothing is kept.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::path::Path;

use placement::{PAGE_SIZE, PageCount, PageRange};
use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::tt::Direction;

use super::super::pages::{punch, reserve};
use super::super::positional::{read_at, write_at};
use super::io::Flight;
use super::slots::Run;
use super::stats::{Counters, add};

/// The file that holds the slots.
#[derive(Debug)]
pub(super) struct SwapFile {
    file: File,
    direct: AtomicBool,
    pub(super) counters: Counters,
}

impl SwapFile {
    /// A file without a name in `dir`, direct where the file system lets us.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let (file, direct) = match open_as(dir, OFlags::DIRECT) {
            Ok(file) => (file, true),
            Err(Errno::INVAL) => (open_as(dir, OFlags::empty())?, false),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            file,
            direct: AtomicBool::new(direct),
            counters: Counters::default(),
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether requests go around the page cache.
    pub(super) fn is_direct(&self) -> bool {
        // Relaxed: who sees it late asks once more in vain.
        self.direct.load(Ordering::Relaxed)
    }

    /// Goes through the page cache from now on.
    pub(super) fn go_indirect(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        self.direct.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Makes sure that the disk has room for slots. Without reservations the write itself says
    /// that the disk is full.
    pub(super) fn reserve(&self, run: Run) -> Result<(), Errno> {
        match reserve(&self.file, pages(run)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other,
        }
    }

    /// Gives the disk blocks of slots back. A file system without holes keeps them until the
    /// slots are taken again; nobody reads them before they are overwritten.
    pub(super) fn punch(&self, run: Run) {
        let _ = punch(&self.file, pages(run));
    }

    /// Makes one request for what is left of a run; answers how much of it was done.
    pub(super) fn request(&self, direction: Direction, flight: &Flight) -> io::Result<usize> {
        add(&self.counters.requests, 1);
        let (memory, at, len) = (&flight.transfer.memory, flight.at, flight.len());
        match direction {
            Direction::Out => write_at(&self.file, flight.offset(), memory, at, len),
            Direction::In => read_at(&self.file, flight.offset(), memory, at, len),
        }
    }

    /// What was moved is not wanted in memory a second time.
    pub(super) fn forget(&self, flight: &Flight) {
        if !self.is_direct() {
            let (offset, len) = (flight.transfer.first * PAGE_SIZE, flight.at as u64);
            let len = core::num::NonZeroU64::new(len);
            // Advice: the content is safe whatever becomes of it.
            let _ = rustix::fs::fadvise(&self.file, offset, len, Advice::DontNeed);
        }
    }
}

fn pages(run: Run) -> PageRange {
    let pages = PageCount::new(run.pages).expect("part of a chunk");
    PageRange::at(run.first, pages).expect("below the longest file")
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
