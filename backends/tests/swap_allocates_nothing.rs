//! Swapping out is what is done when memory is short, so it must not ask for any.
//!
//! An allocator that counts what the calling thread allocates stands in for the system's. An
//! object is swapped out through a device over page files and a backup in a file, with each
//! engine. What remains is a small number for each run of up to 512 pages, the same for runs of any
//! length, and is not the backup's: the owner of each short mapping of frames.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use backends::host::{FileBackup, IoEngine, MemfdPages, wall_clock};
use backends::sim::SimDriver;
use placement::{MemType, PageCount, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::error::Result;
use ttm::fixture;
use ttm::pages::{Pool, PoolConfig, Want};
use ttm::sync::Arc;
use ttm::tt::{Backup, Direction, SlotTag, Transfer, Transfers};

const RUN: u64 = 2 << 20;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

// SAFETY: all calls go to the system's allocator as they come; counting touches a constant-made
// thread-local without a destructor, which neither allocates nor unwinds.
#[expect(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the promise of our caller is that of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the promise of our caller is that of this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the promise of our caller is that of this call.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the promise of our caller is that of this call.
        unsafe { System.dealloc(at, layout) }
    }
}

fn count() {
    let _ = ALLOCATED.try_with(|n| n.set(n.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATED.get();
    work();
    ALLOCATED.get() - before
}

fn backup(engine: IoEngine) -> Arc<FileBackup> {
    Arc::new(FileBackup::with_engine(std::env::temp_dir(), 1 << 30, engine).unwrap())
}

const ENGINES: [IoEngine; 3] = [IoEngine::Uring, IoEngine::Threads, IoEngine::Caller];

/// Runs that wait, in a list that was allocated before.
struct Ready(Vec<Transfer>, usize);

impl Transfers for Ready {
    fn next(&mut self) -> Option<Transfer> {
        self.0.pop()
    }

    fn done(&mut self, _: Transfer, result: Result<()>) {
        result.unwrap();
        self.1 += 1;
    }
}

#[test]
fn the_backup_itself_allocates_nothing() {
    let source = Arc::new(MemfdPages::new().unwrap());
    let pool = Pool::new(source, wall_clock(), PoolConfig::default());
    let pages = PageCount::new(512).unwrap();
    for engine in ENGINES {
        let backup = backup(engine);
        backup.prepare(16).unwrap();
        let runs: Vec<_> = (0..16)
            .map(|_| pool.take(&Want::new(pages)).unwrap())
            .collect();
        let tag = SlotTag {
            object: 1,
            first_page: 0,
            generation: 1,
        };
        let mut held = Vec::with_capacity(16);
        let transfer = |id, first| Transfer {
            id,
            first,
            memory: pool.kmap(runs[id].span()).unwrap(),
        };
        // The first round is a thread's first wait for another, for which it is given a place
        // to sleep at.
        for round in 0..3 {
            let taken = allocations(|| {
                held.extend((0..16).map(|_| backup.take(pages, tag).unwrap()));
            });
            let mut moved = 0;
            for direction in [Direction::Out, Direction::In] {
                let ready = held.iter().enumerate();
                let ready = ready
                    .map(|(id, slots)| transfer(id, slots.first()))
                    .collect();
                let mut work = Ready(ready, 0);
                moved += allocations(|| backup.transfer(direction, &mut work));
                assert_eq!(work.1, 16);
            }
            let discarded = allocations(|| held.drain(..).for_each(|slots| backup.discard(slots)));
            let trimmed = allocations(|| backup.trim());
            if round > 0 {
                assert_eq!(
                    (taken, moved, discarded, trimmed),
                    (0, 0, 0, 0),
                    "{engine:?}"
                );
            }
        }
        runs.into_iter().for_each(|run| pool.give(run.dirtied()));
    }
}

struct Rig {
    device: Device<SimDriver>,
    object: Bo<SimDriver>,
}

impl Rig {
    fn new(bytes: u64, engine: IoEngine) -> Self {
        let vram = PageCount::new(16).unwrap();
        let device = Device::builder(SimDriver::new(), wall_clock())
            .pages(Arc::new(MemfdPages::new().unwrap()))
            .memory(
                MemType::VRAM,
                Box::new(Range::new(vram)),
                fixture::Nothing::new(vram),
            )
            .backup(backup(engine))
            .build()
            .unwrap();
        let object = device.create(BoInfo::new(bytes), ()).unwrap();
        device
            .exec(OpContext::new(), |t| {
                let locked = t.lock(&object)?;
                locked.validate(&fixture::system())?;
                locked.populate()
            })
            .unwrap();
        Self { device, object }
    }

    /// Swaps out and in, and answers the allocations of the swap-out.
    fn swap(&self) -> u64 {
        let mut counted = 0;
        self.device
            .exec(OpContext::new(), |t| {
                let locked = t.lock(&self.object)?;
                counted = allocations(|| locked.swap_out().unwrap());
                locked.populate()
            })
            .unwrap();
        counted
    }
}

#[test]
fn a_swap_out_allocates_for_each_mapping_and_nothing_for_pages() {
    for engine in ENGINES {
        let counted = [1, 8, 32].map(|runs| {
            let rig = Rig::new(runs * RUN, engine);
            // The first meets lists that have not grown yet.
            let first = rig.swap();
            let second = rig.swap().min(rig.swap());
            println!("{engine:?}, {runs} runs: {first} allocations at first, {second} later");
            (runs, first, second)
        });
        for (runs, first, second) in counted {
            let most = PER_RUN * runs + FIXED;
            assert!(
                first.max(second) <= most,
                "{engine:?}: more than {most} for {runs} runs"
            );
        }
    }
    // A run of one page costs no less: nothing is allocated for pages.
    let small = Rig::new(4096, IoEngine::Caller);
    small.swap();
    let (one_page, one_run) = (small.swap(), {
        let rig = Rig::new(RUN, IoEngine::Caller);
        rig.swap();
        rig.swap()
    });
    assert!(
        one_run <= one_page,
        "{one_run} for 512 pages, {one_page} for one"
    );
}

/// Allocations for a run: the owner of its mapping.
const PER_RUN: u64 = 1;

/// Allocations for a swap-out, however long.
const FIXED: u64 = 4;
