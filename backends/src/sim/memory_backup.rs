//! A backup in memory, for simulations in which the disk is not the question.
//!
//! Its content is allocated once, up to the limit it was made with; the host gives pages of it
//! when they are first written. Each run has a list of pages, so it fits wherever it fits at all.
//! It saves no memory, and what is swapped to it is gone with the process like everything else.

use placement::{PAGE_SIZE, PageCount, human_bytes};
use ttm::error::{Error, Result};
use ttm::pages::Mapped;
use ttm::sync::Mutex;
use ttm::tt::{Backup, Direction, SlotRun, SlotTag, Transfer, Transfers};

/// Slot numbers of a run; more pages than that are not taken at once.
const RUN: u64 = 512;

const PAGE: usize = PAGE_SIZE as usize;

/// The end of a list of pages.
const END: u32 = u32::MAX;

/// A backup in memory. Moves one run after the other, on the calling thread.
///
/// ```
/// use backends::sim::MemoryBackup;
/// use placement::PageCount;
/// use ttm::tt::{Backup, SlotTag};
///
/// # fn main() -> ttm::error::Result<()> {
/// let backup = MemoryBackup::new(PageCount::new(3).expect("few"))?;
/// backup.prepare(2)?;
/// let tag = SlotTag { object: 1, first_page: 0, generation: 1 };
/// let two = PageCount::new(2).expect("few");
/// let slots = backup.take(two, tag)?;
/// assert!(backup.take(two, tag).is_err(), "the limit is three pages");
/// backup.discard(slots);
/// # Ok(())
/// # }
/// ```
pub struct MemoryBackup {
    inner: Mutex<Inner>,
}

/// # Invariants
/// Each page is in the list of one run that is taken, or in that of the free ones, which are
/// zero. There is room for `prepared` runs in `runs` and in `idle`, the numbers of those that
/// nobody has. `used` counts the pages of runs that are taken.
struct Inner {
    content: Vec<u8>,
    /// The page after each in its list.
    next: Vec<u32>,
    free: u32,
    runs: Vec<Run>,
    idle: Vec<usize>,
    prepared: usize,
    used: u64,
    limit: u64,
}

#[derive(Clone, Copy)]
struct Run {
    /// The first page of its list.
    first: u32,
    /// None while nobody has it.
    pages: u64,
    /// Its content was stored since it was taken.
    written: bool,
}

impl MemoryBackup {
    /// A backup for up to `limit` pages.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 16 TiB or more.
    pub fn new(limit: PageCount) -> Result<Self> {
        let too_large = |_| Error::Invalid("a backup in memory is smaller than 16 TiB");
        let pages = u32::try_from(limit.get()).map_err(too_large)?;
        let next = (1..=pages).map(|n| if n == pages { END } else { n });
        Ok(Self {
            inner: Mutex::new(Inner {
                content: vec![0; pages as usize * PAGE],
                next: next.collect(),
                free: if pages == 0 { END } else { 0 },
                runs: Vec::new(),
                idle: Vec::new(),
                prepared: 0,
                used: 0,
                limit: limit.get(),
            }),
        })
    }

    /// Changes the limit; above the one it was made with it stays at that. What is stored above a
    /// lower one stays.
    pub fn set_limit(&self, limit: PageCount) {
        let mut inner = self.inner.lock();
        inner.limit = limit.get().min(inner.next.len() as u64);
    }
}

impl Inner {
    fn take(&mut self, pages: u64) -> Result<u64> {
        if self.used + pages > self.limit {
            let limit = human_bytes(self.limit * PAGE_SIZE);
            let text =
                format!("in memory (limit {limit}) is full; raise its limit or release objects");
            return Err(Error::Backup(text.into()));
        }
        let idle = self.idle.pop();
        let n = match idle {
            Some(n) => n,
            None if self.runs.len() < self.prepared => {
                self.runs.push(Run {
                    first: END,
                    pages: 0,
                    written: false,
                });
                self.runs.len() - 1
            }
            None => {
                let why = "the backup was not prepared for one more run; call `prepare` first";
                return Err(Error::Invalid(why));
            }
        };
        let first = self.free;
        let mut last = first;
        for _ in 1..pages {
            last = self.next[last as usize];
        }
        self.free = core::mem::replace(&mut self.next[last as usize], END);
        self.runs[n] = Run {
            first,
            pages,
            written: false,
        };
        self.used += pages;
        Ok(n as u64 * RUN)
    }

    fn discard(&mut self, n: usize) {
        let Run { first, pages, .. } = self.runs[n];
        let mut page = first;
        loop {
            let at = page as usize * PAGE;
            self.content[at..at + PAGE].fill(0);
            match self.next[page as usize] {
                END => break,
                next => page = next,
            }
        }
        self.next[page as usize] = self.free;
        self.free = first;
        self.runs[n].pages = 0;
        self.idle.push(n);
        self.used -= pages;
    }

    /// Moves a whole run.
    fn copy(&mut self, direction: Direction, transfer: &Transfer) -> Result<()> {
        let pages = transfer.memory.span().pages.get();
        let n = (transfer.first / RUN) as usize;
        let whole = transfer.first.is_multiple_of(RUN);
        let Some(run) = self.runs.get_mut(n).filter(|r| whole && r.pages == pages) else {
            return Err(Error::Invalid("these slots are nobody's, or part of a run"));
        };
        match direction {
            Direction::Out => run.written = true,
            Direction::In if run.written => {}
            Direction::In => {
                return Err(Error::Invalid("slots that were not written hold nothing"));
            }
        }
        let (mut page, memory): (u32, &Mapped) = (run.first, &transfer.memory);
        for at in (0..memory.len()).step_by(PAGE) {
            let slot = page as usize * PAGE;
            let content = &mut self.content[slot..slot + PAGE];
            match direction {
                Direction::Out => memory.read(at, content),
                Direction::In => memory.write(at, content),
            }
            page = self.next[page as usize];
        }
        Ok(())
    }
}

impl Backup for MemoryBackup {
    fn prepare(&self, runs: usize) -> Result<()> {
        let mut inner = self.inner.lock();
        let prepared = inner.prepared.saturating_add(runs);
        let no_memory = |_| Error::no_memory(PageCount::ZERO);
        let (more, idle) = (prepared - inner.runs.len().min(prepared), inner.idle.len());
        inner.runs.try_reserve(more).map_err(no_memory)?;
        inner
            .idle
            .try_reserve(prepared.saturating_sub(idle))
            .map_err(no_memory)?;
        inner.prepared = prepared;
        Ok(())
    }

    fn unprepare(&self, runs: usize) {
        let mut inner = self.inner.lock();
        inner.prepared = inner.prepared.saturating_sub(runs);
    }

    /// # Errors
    /// [`Error::Backup`] if the limit is reached; [`Error::Invalid`] for no pages, for more than
    /// 512, and for a run that the backup was not prepared for.
    fn take(&self, pages: PageCount, tag: SlotTag) -> Result<SlotRun> {
        if !(1..=RUN).contains(&pages.get()) {
            return Err(Error::Invalid("a run of slots has 1 to 512 pages"));
        }
        let first = self.inner.lock().take(pages.get())?;
        Ok(SlotRun::new(first, pages, tag))
    }

    fn transfer(&self, direction: Direction, work: &mut dyn Transfers) {
        while let Some(transfer) = work.next() {
            let result = self.inner.lock().copy(direction, &transfer);
            work.done(transfer, result);
        }
    }

    /// # Panics
    /// If the slots are not ones that this backup gave out.
    fn discard(&self, slots: SlotRun) {
        let mut inner = self.inner.lock();
        let n = (slots.first() / RUN) as usize;
        let pages = slots.pages().get();
        let known = inner.runs.get(n).is_some_and(|run| run.pages == pages)
            && slots.first().is_multiple_of(RUN);
        assert!(known, "{slots:?} are not taken here");
        inner.discard(n);
    }

    fn limit(&self) -> PageCount {
        PageCount::new(self.inner.lock().limit).expect("no more than at first")
    }

    fn used(&self) -> PageCount {
        PageCount::new(self.inner.lock().used).expect("no more than the limit")
    }
}

impl core::fmt::Debug for MemoryBackup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "MemoryBackup({} of {})", self.used(), self.limit())
    }
}
