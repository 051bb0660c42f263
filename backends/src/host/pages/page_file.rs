//! One memory file whose pages are frames.
//!
//! ```text
//!            grant: reserve (fallocate)            give: punch a hole
//!   a hole ─────────────────────────────▶ granted ────────────────────▶ a hole
//! ```
//!
//! An index in the file is virtual, so every run is contiguous: the space of indices is far larger
//! than any memory, and holes cost nothing. A run may come back in parts; its indices are handed on
//! only when all of it is back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use placement::{Extent, PAGE_SIZE, PageCount, PageRange, Range, Request, Space};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use ttm::error::{Error, Result};
use ttm::pages::{FrameRun, FrameSpan, Zone, order_of};
use ttm::sync::{Arc, Mutex};

/// Indices of a page file: 2 PiB, which no host has.
pub(super) const INDICES: PageCount = PageCount::new(1 << 39).expect("below the greatest count");

/// The file grows by so many pages at a time: 1 GiB. Growing reserves nothing.
const STEP: u64 = 1 << 18;

/// What pages are overwritten with.
static ZEROES: [u8; 1 << 18] = [0; 1 << 18];

/// A page file: its descriptor, and which of its pages are out.
pub(super) struct PageFile {
    file: Arc<File>,
    number: u32,
    node: u8,
    inner: Mutex<Inner>,
}

/// # Invariants
/// Each extent of `space` has a grant, is in the hands of one call that takes it or gives it back,
/// or could not be discarded. The file is at least `len` pages long, and every page that is out is inside and reserved.
struct Inner {
    space: Range,
    grants: BTreeMap<u64, Grant>,
    len: u64,
}

/// A run that is out, as a whole or in parts.
struct Grant {
    extent: Extent,
    /// Parts that came back, in order; those that adjoin are one.
    back: Vec<PageRange>,
    /// Pages that are not holes again.
    out: u64,
}

impl PageFile {
    /// The page file `number`, for frames on `node`.
    pub(super) fn new(file: File, number: u32, node: u8) -> Self {
        Self {
            file: Arc::new(file),
            number,
            node,
            inner: Mutex::new(Inner {
                space: Range::new(INDICES),
                grants: BTreeMap::new(),
                len: 0,
            }),
        }
    }

    /// The memory file.
    pub(super) const fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Bytes of memory or swap that the kernel holds for it.
    pub(super) fn resident(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Takes `pages` adjoining pages, all of them reserved. `prepare` may put memory behind some
    /// before, and says whether they are huge pages.
    pub(super) fn take(
        &self,
        pages: PageCount,
        prepare: impl FnOnce(&File, PageRange) -> bool,
    ) -> Result<FrameRun> {
        let extent = self.take_indices(pages)?;
        let huge = prepare(&self.file, extent.range());
        if let Err(error) = reserve(&self.file, extent.range()) {
            // What was prepared, or reserved by a kernel that does half.
            self.end(extent);
            return Err(out_of_memory(error, pages));
        }
        let grant = Grant {
            extent,
            back: Vec::new(),
            out: pages.get(),
        };
        self.inner.lock().grants.insert(extent.start(), grant);
        let span = FrameSpan {
            file: self.number,
            first: extent.start(),
            pages,
        };
        let run = FrameRun::fresh(span, Zone::Normal, self.node, extent.generation());
        Ok(if huge { run.of_huge_pages() } else { run })
    }

    /// Indices for a run, which are holes yet.
    fn take_indices(&self, pages: PageCount) -> Result<Extent> {
        let align = 1 << order_of(pages).min(9);
        let align = PageCount::new(align).expect("at most 2 MiB");
        let mut inner = self.inner.lock();
        let extents = inner.space.take(&Request::new(pages).aligned(align));
        let extent = extents.map_err(|_| Error::no_memory(pages))?[0];
        if let Err(error) = inner.grow(&self.file, extent.range().end()) {
            inner.space.give(extent);
            return Err(Error::Backend(error.into()));
        }
        Ok(extent)
    }

    /// Takes a run back, or a part of one. Answers false, and does nothing, if some of it is not
    /// out.
    pub(super) fn give(&self, span: FrameSpan) -> bool {
        let Some(range) = PageRange::at(span.first, span.pages) else {
            return false;
        };
        let came_back = |inner: &mut Inner| inner.grant_of(range).is_some_and(|g| g.mark(range));
        if range.is_empty() || !came_back(&mut self.inner.lock()) {
            return false;
        }
        // Whether it worked is seen when the last part is back.
        let whole = discard(&self.file, range);
        let mut inner = self.inner.lock();
        let grant = inner.grant_of(range).expect("it had pages out");
        grant.out -= range.len().get();
        if grant.out > 0 {
            return true;
        }
        let (extent, parts) = (grant.extent, range.len() < grant.extent.pages());
        inner.grants.remove(&extent.start());
        drop(inner);
        if parts || !whole {
            // A huge page may stay, zeroed, until its last part goes together with the others.
            self.end(extent);
        } else {
            self.inner.lock().space.give(extent);
        }
        true
    }

    /// Nobody has frames of the extent any more. Its indices are for others, unless the kernel
    /// lets nobody discard what is there; then nobody gets them again.
    fn end(&self, extent: Extent) {
        if discard(&self.file, extent.range()) {
            self.inner.lock().space.give(extent);
        }
    }

    /// Whether all of `span` is out, and part of one run.
    pub(super) fn has(&self, span: FrameSpan) -> bool {
        PageRange::at(span.first, span.pages).is_some_and(|range| {
            let mut inner = self.inner.lock();
            let grant = inner.grant_of(range);
            !range.is_empty() && grant.is_some_and(|g| !g.back.iter().any(|b| b.intersects(&range)))
        })
    }
}

impl Inner {
    /// Makes the file at least `end` pages long.
    fn grow(&mut self, file: &File, end: u64) -> io::Result<()> {
        if end > self.len {
            let pages = end.next_multiple_of(STEP);
            rustix::fs::ftruncate(file, pages * PAGE_SIZE)?;
            self.len = pages;
        }
        Ok(())
    }

    /// The grant that all of `range` belongs to.
    fn grant_of(&mut self, range: PageRange) -> Option<&mut Grant> {
        let (_, grant) = self.grants.range_mut(..=range.start()).next_back()?;
        grant.extent.range().contains_range(&range).then_some(grant)
    }
}

impl Grant {
    /// Notes that `range` came back; false if some of it had.
    fn mark(&mut self, range: PageRange) -> bool {
        let at = self.back.partition_point(|b| b.end() <= range.start());
        let next = self.back.get(at).copied();
        if next.is_some_and(|b| b.start() < range.end()) {
            return false;
        }
        let before = at.checked_sub(1).map(|n| self.back[n]);
        let before = before.filter(|b| b.end() == range.start());
        let next = next.filter(|b| b.start() == range.end());
        let joined = PageRange::new(
            before.map_or(range.start(), PageRange::start),
            next.map_or(range.end(), PageRange::end),
        );
        let joined = joined.expect("part of the extent");
        let gone = at - usize::from(before.is_some())..at + usize::from(next.is_some());
        self.back.splice(gone, [joined]);
        true
    }
}

/// The error of frames that could not be reserved.
pub(crate) fn out_of_memory(error: Errno, wanted: PageCount) -> Error {
    match error {
        Errno::NOSPC | Errno::NOMEM | Errno::FBIG | Errno::DQUOT => Error::no_memory(wanted),
        other => Error::Backend(io::Error::from(other).into()),
    }
}

/// An empty memory file that never shrinks and that no executed program inherits.
pub(crate) fn memfd(name: &str) -> io::Result<File> {
    Ok(sealed_memfd(name, MemfdFlags::empty())?)
}

/// The same, of the huge pages that the administrator has set aside; `None` where the kernel has
/// no such files.
pub(super) fn huge_memfd(name: &str) -> io::Result<Option<File>> {
    match sealed_memfd(name, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::INVAL | Errno::NODEV | Errno::NOSYS | Errno::NOENT | Errno::OPNOTSUPP) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn sealed_memfd(name: &str, more: MemfdFlags) -> Result<File, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | more;
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

/// Makes pages of a memory file read as zero; the memory behind them is the system's, or, where
/// the kernel does not make the hole, stays behind them. False if they may not be zero.
#[must_use]
pub(crate) fn discard(file: &File, pages: PageRange) -> bool {
    punch(file, pages).is_ok() || write_zeroes(file, pages).is_ok()
}

/// Overwrites pages of a file with zeroes.
pub(crate) fn write_zeroes(file: &File, pages: PageRange) -> io::Result<()> {
    let (mut at, end) = (pages.start() * PAGE_SIZE, pages.end() * PAGE_SIZE);
    while at < end {
        let part = (end - at).min(ZEROES.len() as u64);
        file.write_all_at(&ZEROES[..part as usize], at)?;
        at += part;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives runs back in parts of every cut into three, in every order.
    #[test]
    fn parts_come_back_in_any_order_and_once() {
        const ORDERS: [[usize; 3]; 6] = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let pages = |n| PageCount::new(n).unwrap();
        let file = PageFile::new(memfd("test").unwrap(), 0, 0);
        for (a, b, order) in (1..4u64).flat_map(|a| {
            (a + 1..5).flat_map(move |b| ORDERS.iter().map(move |order| (a, b, order)))
        }) {
            let whole = file.take(pages(5), |_, _| false).unwrap().span();
            let parts = [(0, a), (a, b - a), (b, 5 - b)].map(|(at, n)| whole.part(at, pages(n)));
            for (n, part) in order.iter().enumerate() {
                assert!(file.has(parts[*part]));
                assert_eq!(file.has(whole), n == 0);
                assert!(file.give(parts[*part]));
                assert!(!file.give(parts[*part]), "twice");
                assert!(!file.give(whole), "some of it is back");
            }
            assert_eq!(file.resident().unwrap(), 0);
            assert_eq!(file.inner.lock().space.free(), INDICES);
        }
    }
}
