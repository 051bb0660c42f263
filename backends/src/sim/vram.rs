//! The device's memory.

use std::fs::File;
use std::io;

use placement::{CacheMode, PAGE_SIZE, PageCount, PageRange};
use ttm::cache::Modes;
use ttm::dma::DmaAddr;
use ttm::error::{Error, Result};
use ttm::pages::{FileRange, Mapped};
use ttm::resource::Region;
use ttm::sync::atomic::AtomicU64;
use ttm::sync::{Arc, Mutex};

use crate::host::{FileMap, memfd, punch, reserve};

use super::gpu::Core;
use super::inject::At;

/// Memory comes from the host in pieces of so many pages: 2 MiB.
const CHUNK: u64 = 512;

/// Device memory with content: a memory file, mapped as a whole, backed where it was touched.
pub(super) struct Vram {
    file: Arc<File>,
    map: Arc<FileMap>,
    pages: PageCount,
    /// Which chunks have memory behind them.
    backed: Mutex<Vec<bool>>,
}

impl Vram {
    pub(super) fn new(pages: PageCount) -> io::Result<Self> {
        let file = memfd("sim vram")?;
        rustix::fs::ftruncate(&file, pages.bytes())?;
        let len = usize::try_from(pages.bytes()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let chunks = usize::try_from(pages.get().div_ceil(CHUNK)).expect("fewer than bytes");
        let map = FileMap::lazy(&file, len, &Arc::new(AtomicU64::new(0)))?;
        Ok(Self {
            file: Arc::new(file),
            map: Arc::new(map),
            pages,
            backed: Mutex::new(vec![false; chunks]),
        })
    }

    /// The device's view of some pages, with memory behind all of them.
    ///
    /// # Panics
    /// If they are not inside.
    pub(super) fn view(&self, pages: PageRange) -> io::Result<Mapped> {
        assert!(pages.end() <= self.pages.get(), "{pages} of {}", self.pages);
        self.back(pages)?;
        let index = |n| usize::try_from(n).expect("part of the mapping");
        Ok(self
            .map
            .part(index(pages.start() * PAGE_SIZE), index(pages.len().bytes())))
    }

    /// Where some pages lie in the file, with memory behind all of them.
    pub(super) fn file(&self, pages: PageRange) -> io::Result<FileRange> {
        self.back(pages)?;
        Ok(FileRange::new(
            Arc::clone(&self.file),
            pages.start() * PAGE_SIZE,
        ))
    }

    fn back(&self, pages: PageRange) -> io::Result<()> {
        let mut backed = self.backed.lock();
        for n in pages.start() / CHUNK..pages.end().div_ceil(CHUNK) {
            let chunk = &mut backed[usize::try_from(n).expect("part of the table")];
            if !*chunk {
                let end = ((n + 1) * CHUNK).min(self.pages.get());
                reserve(
                    &self.file,
                    PageRange::new(n * CHUNK, end).expect("in order"),
                )?;
                *chunk = true;
            }
        }
        Ok(())
    }

    /// Everything is zero again, and the memory is the host's.
    pub(super) fn wipe(&self) -> io::Result<()> {
        let mut backed = self.backed.lock();
        punch(&self.file, PageRange::at(0, self.pages).expect("the file"))?;
        backed.fill(false);
        Ok(())
    }
}

/// The device memory as the CPU sees it: only through the window.
pub(super) struct Window {
    pub(super) core: Arc<Core>,
}

impl Region for Window {
    fn size(&self) -> PageCount {
        self.core.config().vram
    }

    fn aperture(&self) -> PageRange {
        let config = self.core.config();
        PageRange::at(0, config.aperture.min(config.vram)).expect("not more than the memory")
    }

    fn modes(&self) -> Modes {
        Modes::all()
    }

    fn own_mode(&self) -> CacheMode {
        CacheMode::WriteCombined
    }

    fn map(&self, pages: PageRange, _: CacheMode) -> Result<Mapped> {
        Ok(self.reach(pages)?.view(pages)?)
    }

    /// A card that is told not to let its mappings be watched ([`GpuConfig::watchable`]) is like a
    /// device's file.
    ///
    /// [`GpuConfig::watchable`]: super::GpuConfig::watchable
    fn file(&self, pages: PageRange, _: CacheMode) -> Result<FileRange> {
        let file = self.reach(pages)?.file(pages)?;
        Ok(FileRange {
            watchable: self.core.config().watchable,
            ..file
        })
    }

    fn bus(&self, pages: PageRange) -> Option<DmaAddr> {
        DmaAddr::new(self.core.bar() + pages.start() * PAGE_SIZE)
    }
}

impl Window {
    /// The memory, if the CPU reaches these pages of it.
    fn reach(&self, pages: PageRange) -> Result<&Vram> {
        if self.core.is_lost() {
            return Err(Error::DeviceLost);
        }
        if !self.aperture().contains_range(&pages) {
            return Err(Error::Unsupported(
                "the CPU cannot reach these pages of device memory; copy with an engine, or ask for a place inside the aperture",
            ));
        }
        if pages.is_empty() {
            return Err(Error::Invalid("a mapping has at least one page"));
        }
        let Some(vram) = self.core.vram() else {
            return Err(Error::Unsupported(
                "this device was made without contents; make it with GpuConfig::contents",
            ));
        };
        if self.core.inject().fails(At::REGION_MAP) {
            return Err(Error::Backend(
                "a mapping was made to fail (region.map)".into(),
            ));
        }
        Ok(vram)
    }
}
