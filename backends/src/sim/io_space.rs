//! An address space of a fake IOMMU: tables, what the device remembers of them, and faults.

use std::collections::BTreeMap;

use placement::{PAGE_SIZE, PageCount};
use ttm::dma::{Direction, DmaAddr, DmaError, IoRun, IovaSpan, Mask, Translation};
use ttm::pages::FrameSpan;
use ttm::sync::{Arc, Mutex};

use super::inject::{At, Inject};

/// What a device did where nothing lets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoFault {
    /// The first address of the page.
    pub address: u64,
    /// Whether it wrote; else it read.
    pub write: bool,
}

/// An address space that a device's accesses are translated by.
///
/// A device remembers what it has looked up, until it is told to forget: what is unmapped and not
/// invalidated is still reached. An access that nothing lets through moves nothing, is noted, and
/// tells the device nothing: its job ends well.
pub struct IoSpace {
    /// What address lines the device has. Of a higher address it uses the lower bits.
    lines: Mask,
    inject: Arc<Inject>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tables: BTreeMap<u64, Entry>,
    remembered: BTreeMap<u64, Entry>,
    faults: Vec<IoFault>,
    /// How often the device used what it remembered and the tables no longer said.
    stale: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    file: u32,
    frame: u64,
    direction: Direction,
}

impl Entry {
    fn lets(self, write: bool) -> bool {
        match write {
            true => self.direction.device_writes(),
            false => self.direction.device_reads(),
        }
    }
}

/// What is at adjoining addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Frames(FrameSpan),
    /// Nothing that lets the device.
    Void(PageCount),
}

impl IoSpace {
    /// One in which nothing is mapped, for a device with these address lines.
    #[must_use]
    pub fn new(lines: Mask, inject: Arc<Inject>) -> Arc<Self> {
        Arc::new(Self {
            lines,
            inject,
            inner: Mutex::new(Inner::default()),
        })
    }

    /// Pages that the tables show.
    #[must_use]
    pub fn shown(&self) -> PageCount {
        let pages = self.inner.lock().tables.len() as u64;
        PageCount::new(pages).expect("fewer than addresses")
    }

    /// What was not let through, in order.
    #[must_use]
    pub fn faults(&self) -> Vec<IoFault> {
        self.inner.lock().faults.clone()
    }

    /// How often the device used what it remembered and the tables no longer showed.
    #[must_use]
    pub fn stale_uses(&self) -> u64 {
        self.inner.lock().stale
    }

    /// What the device finds at `len` bytes from `address` on, whole pages.
    pub(super) fn find(&self, address: u64, len: u64, reads: bool, writes: bool) -> Vec<Piece> {
        let mut inner = self.inner.lock();
        let mut pieces = Vec::new();
        for n in 0..len.div_ceil(PAGE_SIZE) {
            let address = (address + n * PAGE_SIZE) & self.lines.last();
            match inner.look_up(address / PAGE_SIZE) {
                Some(entry) if (!reads || entry.lets(false)) && (!writes || entry.lets(true)) => {
                    push(&mut pieces, entry);
                }
                _ => {
                    inner.faults.push(IoFault {
                        address: address & !(PAGE_SIZE - 1),
                        write: writes,
                    });
                    match pieces.last_mut() {
                        Some(Piece::Void(pages)) => *pages = one_more(*pages),
                        _ => pieces.push(Piece::Void(PageCount::ONE)),
                    }
                }
            }
        }
        pieces
    }
}

impl Inner {
    fn look_up(&mut self, page: u64) -> Option<Entry> {
        let shown = self.tables.get(&page).copied();
        let remembered = self.remembered.get(&page).copied();
        if let Some(entry) = remembered {
            if shown != Some(entry) {
                self.stale += 1;
            }
            return Some(entry);
        }
        let entry = shown?;
        self.remembered.insert(page, entry);
        Some(entry)
    }
}

fn push(pieces: &mut Vec<Piece>, entry: Entry) {
    if let Some(Piece::Frames(span)) = pieces.last_mut()
        && span.file == entry.file
        && span.first + span.pages.get() == entry.frame
    {
        span.pages = one_more(span.pages);
        return;
    }
    pieces.push(Piece::Frames(FrameSpan {
        file: entry.file,
        first: entry.frame,
        pages: PageCount::ONE,
    }));
}

fn one_more(pages: PageCount) -> PageCount {
    pages
        .checked_add(PageCount::ONE)
        .expect("fewer than addresses")
}

fn pages_of(span: &IovaSpan) -> core::ops::RangeInclusive<u64> {
    span.first().get() / PAGE_SIZE..=span.last() / PAGE_SIZE
}

impl Translation for IoSpace {
    /// # Errors
    /// [`DmaError::IovaInUse`] if something is shown there; [`DmaError::TablesRefuse`] when made to
    /// fail (`iommu.map`).
    fn map(&self, at: DmaAddr, run: &IoRun, direction: Direction) -> Result<(), DmaError> {
        if self.inject.fails(At::IOMMU_MAP) {
            return Err(DmaError::TablesRefuse {
                why: "a mapping was made to fail (iommu.map)",
            });
        }
        let (first, pages) = (at.get() / PAGE_SIZE, run.len.div_ceil(PAGE_SIZE));
        let mut inner = self.inner.lock();
        if let Some((page, _)) = inner.tables.range(first..first + pages).next() {
            return Err(DmaError::IovaInUse {
                first: page * PAGE_SIZE,
                len: PAGE_SIZE,
            });
        }
        for n in 0..pages {
            let entry = Entry {
                file: run.span.file,
                frame: run.span.first + run.offset / PAGE_SIZE + n,
                direction,
            };
            inner.tables.insert(first + n, entry);
        }
        Ok(())
    }

    fn unmap(&self, gone: IovaSpan) {
        let mut inner = self.inner.lock();
        for page in pages_of(&gone) {
            inner.tables.remove(&page);
        }
    }

    fn invalidate(&self, gone: &[IovaSpan]) {
        if self.inject.fails(At::IOMMU_SKIP_INVALIDATE) {
            return;
        }
        let mut inner = self.inner.lock();
        for span in gone {
            for page in pages_of(span) {
                inner.remembered.remove(&page);
            }
        }
    }
}

impl core::fmt::Debug for IoSpace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let inner = self.inner.lock();
        write!(
            f,
            "IoSpace({} pages shown, {} faults)",
            inner.tables.len(),
            inner.faults.len()
        )
    }
}
