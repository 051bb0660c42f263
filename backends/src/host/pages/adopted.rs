//! Memory that a user brings: frames that are theirs, named like those of page files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use memmap2::MmapMut;
use placement::{PAGE_SIZE, PageCount, PageRange};
use rustix::fs::SealFlags;
use ttm::error::{Error, Result};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Zone};
use ttm::sync::atomic::AtomicU64;
use ttm::sync::{Arc, Mutex};

use super::page_file::{out_of_memory, reserve};
use crate::host::file_map::FileMap;

/// The number of the first. Page files have lower ones.
const FIRST: u32 = 1 << 16;

/// All that was brought and is not back with its user.
#[derive(Default)]
pub(super) struct Adopted {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By number, which is never given twice: nobody takes the memory of one for another's.
    brought: BTreeMap<u32, Brought>,
    next: u32,
}

#[derive(Clone)]
enum Memory {
    /// The pages of a file from a byte on.
    File(Arc<File>, u64),
    /// A mapping that its user gave away.
    Range(Arc<FileMap>),
}

struct Brought {
    memory: Memory,
    pages: PageCount,
    /// Pages that are not back.
    out: u64,
}

impl Adopted {
    pub(super) fn file(&self, file: File, offset: u64, bytes: u64) -> Result<FrameRun<Dirty>> {
        let pages = whole_pages(bytes)?;
        let range = PageRange::at(offset / PAGE_SIZE, pages);
        let range = range.filter(|_| offset.is_multiple_of(PAGE_SIZE));
        let range = range.ok_or(Error::Invalid("memory that is brought begins at a page"))?;
        check_file(&file, range)?;
        // From here on an access never meets a missing page.
        reserve(&file, range).map_err(|error| out_of_memory(error, pages))?;
        Ok(self.enter(Memory::File(Arc::new(file), offset), pages))
    }

    pub(super) fn range(&self, memory: MmapMut, live: &Arc<AtomicU64>) -> Result<FrameRun<Dirty>> {
        let pages = whole_pages(memory.len() as u64)?;
        let map = FileMap::owned(memory, live).map_err(|error| Error::Backend(error.into()))?;
        Ok(self.enter(Memory::Range(Arc::new(map)), pages))
    }

    fn enter(&self, memory: Memory, pages: PageCount) -> FrameRun<Dirty> {
        let mut inner = self.inner.lock();
        let number = FIRST + inner.next;
        inner.next += 1;
        let out = pages.get();
        let brought = Brought { memory, pages, out };
        inner.brought.insert(number, brought);
        let span = FrameSpan {
            file: number,
            first: 0,
            pages,
        };
        FrameRun::fresh(span, Zone::Normal, 0, u64::from(number)).dirtied()
    }

    /// Whether the frames are, or were, such.
    pub(super) const fn has_number(span: FrameSpan) -> bool {
        span.file >= FIRST
    }

    /// Takes a run back, or a part of one. With the last part the memory is let go. False if some of
    /// it is not out.
    pub(super) fn give(&self, span: FrameSpan) -> bool {
        let mut inner = self.inner.lock();
        let Some(brought) = inner.brought.get_mut(&span.file) else {
            return false;
        };
        let Some(out) = brought.out.checked_sub(span.pages.get()) else {
            return false;
        };
        brought.out = out;
        if out == 0 {
            let brought = inner.brought.remove(&span.file);
            drop(inner);
            drop(brought);
        }
        true
    }

    fn memory(&self, span: FrameSpan) -> Result<Memory> {
        let inner = self.inner.lock();
        let brought = inner.brought.get(&span.file);
        let brought = brought.filter(|b| {
            let end = span.first.checked_add(span.pages.get());
            end.is_some_and(|end| end <= b.pages.get())
        });
        let found = brought.map(|brought| brought.memory.clone());
        found.ok_or(Error::Invalid("only frames that were brought are mapped"))
    }

    pub(super) fn map(&self, span: FrameSpan, live: &Arc<AtomicU64>) -> Result<Mapped> {
        let len = usize::try_from(span.pages.bytes());
        let len = len.map_err(|_| Error::Invalid("the run is longer than the address space"))?;
        let at = span.first * PAGE_SIZE;
        match self.memory(span)? {
            Memory::File(file, offset) => FileMap::populated(&file, offset + at, len, live)
                .map(FileMap::into_mapped)
                .map_err(|error| Error::Backend(error.into())),
            Memory::Range(map) => Ok(map.part(at as usize, len)),
        }
    }

    pub(super) fn file_of(&self, span: FrameSpan) -> Result<FileRange> {
        match self.memory(span)? {
            Memory::File(file, offset) => Ok(FileRange::new(file, offset + span.first * PAGE_SIZE)),
            Memory::Range(_) => Err(Error::Unsupported(
                "a mapping that was brought is in no file; bring a memory file to have windows of it",
            )),
        }
    }
}

fn whole_pages(bytes: u64) -> Result<PageCount> {
    let pages = bytes.is_multiple_of(PAGE_SIZE).then_some(bytes / PAGE_SIZE);
    pages
        .and_then(PageCount::new)
        .filter(|pages| !pages.is_zero())
        .ok_or(Error::Invalid(
            "memory that is brought has whole pages, and at least one",
        ))
}

/// Whether the file can be written, is long enough, and stays so.
fn check_file(file: &File, range: PageRange) -> Result<()> {
    let host = |error: io::Error| Error::Backend(error.into());
    let seals = rustix::fs::fcntl_get_seals(file);
    let seals = seals.map_err(|_| {
        Error::Unsupported(
            "only a memory file can be brought: others may shrink, and an access behind the end ends \
             the program",
        )
    })?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(Error::Invalid(
            "the memory file may shrink under its users; seal it first (F_SEAL_SHRINK)",
        ));
    }
    if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(Error::Invalid(
            "the memory file is sealed against writing; bring one that is not",
        ));
    }
    let len = file.metadata().map_err(host)?.len();
    match range.end() * PAGE_SIZE <= len {
        true => Ok(()),
        false => Err(Error::Invalid("the memory file ends before that")),
    }
}
