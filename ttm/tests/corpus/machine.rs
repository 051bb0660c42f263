//! A whole device in one thread: memories with content, one copy engine that works when it is told
//! to, a backup, faults on command, and a clock on which waiting lets the engine work.

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::ptr::NonNull;

use ttm::cache::{CacheMode, Maintenance, Modes};
use ttm::clock::{Clock, Time, WaitCell, WaitFor, Woken};
use ttm::driver::{
    BoFacts, CopyEngine, CopyJob, Driver, EngineId, Eviction, MoveFacts, Route, Side,
};
use ttm::fault::{Faults, Site};
use ttm::fence::{Fence, FenceError, Status, Timeline};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want, Zone};
use ttm::placement::{
    Extents, MemType, PAGE_SIZE, PageCount, PageRange, Place, Placement, Range, Request, Space,
};
use ttm::resource::Region;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, OnceLock, Weak};
use ttm::tt::{Backup, Direction, SlotRun, SlotTag, Transfers};
use ttm::{Error, Result};

const PAGE: usize = PAGE_SIZE as usize;

/// That many pages.
pub(crate) fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("few")
}

/// Bytes that everybody may write, and a file that stands for them.
pub(crate) struct Memory {
    bytes: Box<[UnsafeCell<u8>]>,
    file: Arc<File>,
}

// SAFETY: the bytes are reached through `Mapped` alone, which copies without references.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(pages: u64) -> Arc<Self> {
        let bytes = pages as usize * PAGE;
        // What was never cleared shows.
        Arc::new(Self {
            bytes: (0..bytes).map(|_| UnsafeCell::new(0xee)).collect(),
            file: Arc::new(File::open("/dev/null").expect("every system has one")),
        })
    }

    /// Where a page lies.
    fn file(&self, first: u64) -> FileRange {
        FileRange::new(Arc::clone(&self.file), first * PAGE_SIZE)
    }

    /// The page that begins there, if it is of this memory.
    #[allow(dead_code, reason = "only tests with windows ask")]
    pub(crate) fn find(self: &Arc<Self>, place: &FileRange) -> Option<Mapped> {
        let ours = Arc::ptr_eq(&self.file, &place.file);
        ours.then(|| self.map(place.offset / PAGE_SIZE, PageCount::ONE))
    }

    fn map(self: &Arc<Self>, first: u64, pages: PageCount) -> Mapped {
        let from = first as usize * PAGE;
        let bytes = &self.bytes[from..from + pages.bytes() as usize];
        let at = NonNull::new(bytes.as_ptr().cast::<u8>().cast_mut()).expect("inside");
        // SAFETY: the slice has that many bytes, in cells that may be written, and lives as long
        // as its owner, which is handed over.
        unsafe { Mapped::new(at, bytes.len(), Arc::clone(self)) }
    }
}

/// Runs by their first page, with how many of their pages are out.
type Out = BTreeMap<u64, (Extents, u64)>;

/// System frames.
pub(crate) struct Frames {
    memory: Arc<Memory>,
    taken: Mutex<(Range, Out)>,
}

impl Frames {
    pub(crate) fn new(n: u64) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(n),
            taken: Mutex::new((Range::new(pages(n)), BTreeMap::new())),
        })
    }
}

#[allow(dead_code, reason = "only tests with windows ask")]
impl Frames {
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }
}

#[allow(dead_code, reason = "only tests with windows ask")]
impl Vram {
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }
}

impl PageSource for Frames {
    fn offers(&self) -> Offers {
        Offers::ordinary(self.taken.lock().0.size())
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let pages = want.pages;
        let mut taken = self.taken.lock();
        let no_memory = |_| Error::no_memory(pages);
        let extents = taken.0.take(&Request::new(pages)).map_err(no_memory)?;
        let (first, generation) = (extents[0].start(), extents[0].generation());
        taken.1.insert(first, (extents, pages.get()));
        self.memory
            .map(first, pages)
            .zero(0, pages.bytes() as usize);
        let span = FrameSpan {
            file: 0,
            first,
            pages,
        };
        Ok(FrameRun::fresh(span, Zone::Normal, 0, generation))
    }

    fn give(&self, run: FrameRun<Dirty>) {
        let mut taken = self.taken.lock();
        let mut runs = taken.1.range_mut(..=run.span().first);
        let (&first, (extents, left)) = runs.next_back().expect("frames that were taken");
        assert!(run.span().end() <= extents[0].range().end(), "{run:?}");
        *left -= run.pages().get();
        if *left > 0 {
            return;
        }
        for extent in taken.1.remove(&first).expect("just seen").0 {
            taken.0.give(extent);
        }
    }

    fn zero(&self, span: FrameSpan, _: CacheMode) -> Result<()> {
        let mapped = self.memory.map(span.first, span.pages);
        mapped.zero(0, mapped.len());
        Ok(())
    }

    fn map(&self, span: FrameSpan, _: CacheMode) -> Result<Mapped> {
        Ok(self.memory.map(span.first, span.pages))
    }

    fn file(&self, span: FrameSpan, _: CacheMode) -> Result<FileRange> {
        Ok(self.memory.file(span.first))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Err(Error::Unsupported("all is cached"))
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {}

    fn taken(&self) -> PageCount {
        let out = self.taken.lock().1.values().map(|(_, left)| left).sum();
        pages(out)
    }
}

/// Device memory, half of which the CPU reaches.
pub(crate) struct Vram {
    memory: Arc<Memory>,
    size: PageCount,
}

impl Vram {
    pub(crate) fn new(n: u64) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(n),
            size: pages(n),
        })
    }
}

impl Region for Vram {
    fn size(&self) -> PageCount {
        self.size
    }

    fn aperture(&self) -> PageRange {
        PageRange::new(0, self.size.get() / 2).expect("in order")
    }

    fn modes(&self) -> Modes {
        Modes::all()
    }

    fn own_mode(&self) -> CacheMode {
        CacheMode::WriteCombined
    }

    fn map(&self, range: PageRange, _: CacheMode) -> Result<Mapped> {
        if !self.aperture().contains_range(&range) {
            return Err(Error::Unsupported("outside the aperture"));
        }
        Ok(self.memory.map(range.start(), range.len()))
    }

    fn file(&self, range: PageRange, mode: CacheMode) -> Result<FileRange> {
        self.map(range, mode)?;
        Ok(self.memory.file(range.start()))
    }
}

/// A backup in memory.
pub(crate) struct Shelf {
    limit: u64,
    slots: Mutex<(u64, BTreeMap<u64, Vec<u8>>)>,
}

impl Shelf {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            slots: Mutex::new((0, BTreeMap::new())),
        })
    }
}

impl Backup for Shelf {
    fn prepare(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn unprepare(&self, _: usize) {}

    fn take(&self, count: PageCount, tag: SlotTag) -> Result<SlotRun> {
        if self.used().get() + count.get() > self.limit {
            return Err(Error::Backup("is full".into()));
        }
        let mut slots = self.slots.lock();
        let first = slots.0;
        slots.0 += count.get();
        for slot in first..slots.0 {
            slots.1.insert(slot, vec![0; PAGE]);
        }
        Ok(SlotRun::new(first, count, tag))
    }

    fn transfer(&self, direction: Direction, work: &mut dyn Transfers) {
        while let Some(transfer) = work.next() {
            let (first, memory) = (transfer.first, &transfer.memory);
            let mut slots = self.slots.lock();
            for n in 0..memory.len() / PAGE {
                let slot = slots.1.get_mut(&(first + n as u64)).expect("taken");
                match direction {
                    Direction::Out => memory.read(n * PAGE, slot),
                    Direction::In => memory.write(n * PAGE, slot),
                }
            }
            drop(slots);
            work.done(transfer, Ok(()));
        }
    }

    fn discard(&self, run: SlotRun) {
        let mut slots = self.slots.lock();
        for page in 0..run.pages().get() {
            slots
                .1
                .remove(&(run.first() + page))
                .expect("slots that were taken");
        }
    }

    fn limit(&self) -> PageCount {
        pages(self.limit)
    }

    fn used(&self) -> PageCount {
        pages(self.slots.lock().1.len() as u64)
    }
}

/// What an object's driver does with it, one bit field of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit(pub(crate) u8);

impl Habit {
    /// Whether its content may go without anybody asking its owner.
    pub(crate) fn is_discarded(self) -> bool {
        self.0 & 7 == 5
    }
}

/// A driver that does what each object says.
#[derive(Debug)]
pub(crate) struct Obedient;

impl Driver for Obedient {
    type Object = Habit;

    fn evict_to(&self, bo: &BoFacts, habit: &Habit) -> Eviction {
        let tt = Place::new(MemType::TT);
        let system = Place::new(MemType::SYSTEM);
        match habit.0 & 7 {
            0..=2 => Eviction::To(Placement::of(system)),
            3 | 4 if bo.mem_type == Some(MemType::TT) => Eviction::To(Placement::of(system)),
            3 => Eviction::To(Placement::of(tt)),
            4 => Eviction::To(Placement::of(tt).with(system)),
            5 => Eviction::Discard,
            6 => Eviction::Never,
            _ => Eviction::To(Placement::of(system.fallback()).with(tt.desired())),
        }
    }

    fn worth_evicting(&self, _: &BoFacts, habit: &Habit, _: PageRange) -> bool {
        habit.0 & 0xe0 != 0xe0
    }

    fn route(&self, bo: &BoFacts, habit: &Habit, job: &MoveFacts) -> Route {
        let how = habit.0 >> 3 & 3;
        if !job.has_content {
            return match how {
                0 => Route::Clear(None),
                _ => Route::Clear(Some(EngineId(0))),
            };
        }
        let device = |t: Option<MemType>| t == Some(MemType::VRAM);
        if how == 3 && device(job.from) && job.to == MemType::SYSTEM {
            return Route::Hop(Place::new(MemType::TT));
        }
        if how == 0 && bo.pages.get() < 3 {
            Route::Cpu
        } else {
            Route::Engine(EngineId(0))
        }
    }
}

/// A copy engine and a queue of other work, which proceed step by step.
pub(crate) struct Engine {
    vram: Arc<Vram>,
    frames: Arc<Frames>,
    jobs: Mutex<VecDeque<CopyJob>>,
    copies: OnceLock<Timeline>,
    user: OnceLock<Timeline>,
}

/// What became of a step of the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    Failed,
}

impl Engine {
    pub(crate) fn new(vram: Arc<Vram>, frames: Arc<Frames>) -> Arc<Self> {
        Arc::new(Self {
            vram,
            frames,
            jobs: Mutex::new(VecDeque::new()),
            copies: OnceLock::new(),
            user: OnceLock::new(),
        })
    }

    pub(crate) fn clock(self: &Arc<Self>) -> Arc<dyn Clock> {
        let clock: Arc<dyn Clock> = Arc::new(Stepping {
            engine: Arc::downgrade(self),
            ticks: AtomicU64::new(0),
        });
        drop(self.copies.set(Timeline::new(1, Arc::clone(&clock))));
        drop(self.user.set(Timeline::new(2, Arc::clone(&clock))));
        clock
    }

    fn copies(&self) -> &Timeline {
        self.copies.get().expect("made with the clock")
    }

    /// The timeline of work that is not copying.
    pub(crate) fn user(&self) -> &Timeline {
        self.user.get().expect("made with the clock")
    }

    /// Ends the oldest copy, or the oldest other work that it waits for. Answers whether there was
    /// any.
    pub(crate) fn step(&self, fate: Fate) -> bool {
        let job = {
            let mut jobs = self.jobs.lock();
            let ready = |job: &CopyJob| {
                let mut fences = job.after.iter().chain(&job.behind);
                fences.all(Fence::is_signalled)
            };
            if jobs.front().is_some_and(ready) {
                jobs.pop_front()
            } else {
                None
            }
        };
        let Some(job) = job else {
            return self.step_user(Fate::Done);
        };
        let seqno = self.copies().reached() + 1;
        let failed = |fence: &Fence| matches!(fence.status(), Status::Failed(_));
        if job.after.iter().any(failed) {
            self.copies().fail(seqno, FenceError::DependencyFailed);
        } else if fate == Fate::Failed {
            self.copies().fail(seqno, FenceError::Failed);
        } else {
            self.copy(&job);
            self.copies().signal(seqno);
        }
        true
    }

    /// Ends the oldest work that is not copying.
    pub(crate) fn step_user(&self, fate: Fate) -> bool {
        let seqno = self.user().reached() + 1;
        if seqno > self.user().issued() {
            return false;
        }
        match fate {
            Fate::Done => self.user().signal(seqno),
            Fate::Failed => self.user().fail(seqno, FenceError::Failed),
        }
        true
    }

    fn copy(&self, job: &CopyJob) {
        let dst = self.pieces(&job.dst);
        assert_eq!(
            dst.len() as u64,
            job.pages.get(),
            "a job's target has its pages"
        );
        let src = self.pieces(&job.src);
        for (n, to) in dst.iter().enumerate() {
            match src.get(n) {
                Some(from) => from.copy_to(0, to, 0, PAGE),
                None => to.zero(0, PAGE),
            }
        }
        assert!(
            src.is_empty() || src.len() == dst.len(),
            "a job's source has its pages"
        );
    }

    /// The pages of one end, mapped one by one.
    fn pieces(&self, side: &Side) -> Vec<Mapped> {
        let all = |memory: &Arc<Memory>, first: u64, n: PageCount| -> Vec<Mapped> {
            (first..first + n.get())
                .map(|page| memory.map(page, PageCount::ONE))
                .collect()
        };
        match side {
            // The corpus has no mapper.
            Side::Zero | Side::Mapped(_) => Vec::new(),
            Side::Frames(spans) => spans
                .iter()
                .flat_map(|s| all(&self.frames.memory, s.first, s.pages))
                .collect(),
            Side::Device { ranges, .. } => ranges
                .iter()
                .flat_map(|r| all(&self.vram.memory, r.start(), r.len()))
                .collect(),
        }
    }
}

impl CopyEngine for Engine {
    fn submit(&self, job: CopyJob) -> Result<Fence> {
        self.jobs.lock().push_back(job);
        Ok(self.copies().issue())
    }
}

/// Whoever waits lets the engine work; nobody else will.
struct Stepping {
    engine: Weak<Engine>,
    ticks: AtomicU64,
}

impl Clock for Stepping {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn tick(&self, n: u64) -> u64 {
        self.ticks.fetch_add(n, Ordering::Relaxed) + n
    }

    fn park(&self, cell: &Arc<WaitCell>, deadline: Option<Time>, _: WaitFor) -> Woken {
        if cell.take_token() {
            return Woken::Notified;
        }
        if deadline.is_some_and(|d| d != Time::NEVER) {
            return Woken::TimedOut;
        }
        let stepped = self
            .engine
            .upgrade()
            .is_some_and(|engine| engine.step(Fate::Done));
        match (cell.take_token(), stepped) {
            (false, false) => Woken::Stalled,
            _ => Woken::Notified,
        }
    }

    fn unpark(&self, cell: &Arc<WaitCell>) {
        cell.notify();
    }

    fn wait_graph(&self) -> String {
        "the only thread waits, and nothing is queued".into()
    }
}

/// Fails one site, once, some hits from now.
#[derive(Default)]
pub(crate) struct Trap(Mutex<Option<(Site, u8)>>);

impl Trap {
    pub(crate) fn set(&self, trap: Option<(Site, u8)>) {
        *self.0.lock() = trap;
    }
}

impl Faults for Trap {
    fn hit(&self, site: Site) -> bool {
        let mut trap = self.0.lock();
        match &mut *trap {
            Some((armed, left)) if *armed == site => {
                if *left > 0 {
                    *left -= 1;
                    return false;
                }
                *trap = None;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({} jobs)", self.jobs.lock().len())
    }
}
