//! Sharing under many schedules: borrowers that map, use and give back while the object moves, is
//! exported, opened and let go. A borrower reaches the frames for as long as a job of his may run, no
//! frame is given away that somebody reaches, and in the end nothing is left.
#![cfg(shuttle)]

mod shuttle_explore;

use std::collections::BTreeMap;

use shuttle::thread::{self, JoinHandle};
use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::cache::{CacheMode, Maintenance};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::dma::{
    Direction, DmaError, DmaMapping, FrameBytes, MappedList, Mapper, PageList, Path, SegmentParms,
};
use ttm::error::{Error, Result};
use ttm::fence::{Timeline, Usage};
use ttm::fixture::{Counting, Nothing, still, system, vram};
use ttm::pages::{
    Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, PoolConfig, Want,
};
use ttm::placement::{MemType, PageCount, Place, Placement, Range};
use ttm::share::{AttachInfo, Attachment, ExportInfo, ShareCounts, Shared};
use ttm::sync::{Arc, Mutex};

use shuttle_explore::explore;

const SIZE: u64 = 2 * 4096;

/// Frames, and who reaches them.
struct Machine {
    frames: Arc<Nothing>,
    /// By frame, how many mappings.
    reached: Mutex<BTreeMap<u64, u32>>,
    live: Mutex<u64>,
}

fn frames_of(list: &MappedList) -> Vec<u64> {
    let pages = list.dma_segments().iter();
    pages
        .flat_map(|s| s.addr.get() / 4096..(s.addr.get() + s.len) / 4096)
        .collect()
}

impl Machine {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            frames: Nothing::new(PageCount::new(64).unwrap()),
            reached: Mutex::default(),
            live: Mutex::default(),
        })
    }

    fn reaches(&self, list: &MappedList) -> bool {
        let reached = self.reached.lock();
        frames_of(list)
            .iter()
            .all(|frame| reached.contains_key(frame))
    }
}

impl Mapper for Machine {
    fn map(
        &self,
        bytes: FrameBytes<'_>,
        direction: Direction,
    ) -> core::result::Result<DmaMapping, DmaError> {
        let list = PageList::build(&SegmentParms::WIDEST, bytes)?;
        let list = list.direct(&SegmentParms::WIDEST, |span| Some(span.first * 4096))?;
        for frame in frames_of(&list) {
            *self.reached.lock().entry(frame).or_default() += 1;
        }
        *self.live.lock() += 1;
        Ok(DmaMapping::new(list, direction, Path::Direct, ()))
    }

    fn unmap(&self, mapping: DmaMapping) {
        for frame in frames_of(mapping.list()) {
            let mut reached = self.reached.lock();
            let count = reached.get_mut(&frame).expect("mapped before");
            *count -= 1;
            if *count == 0 {
                reached.remove(&frame);
            }
        }
        *self.live.lock() -= 1;
    }

    fn live(&self) -> u64 {
        *self.live.lock()
    }
}

/// Frames as the device takes them.
struct Frames(Arc<Machine>);

impl PageSource for Frames {
    fn offers(&self) -> Offers {
        self.0.frames.offers()
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        self.0.frames.take(want)
    }

    fn give(&self, run: FrameRun<Dirty>) {
        let span = run.span();
        for frame in span.first..span.first + span.pages.get() {
            let reached = self.0.reached.lock().contains_key(&frame);
            assert!(
                !reached,
                "I-49: frame {frame} is given away, and somebody reaches it"
            );
        }
        self.0.frames.give(run);
    }

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn map(&self, span: FrameSpan, mode: CacheMode) -> Result<Mapped> {
        PageSource::map(&*self.0.frames, span, mode)
    }

    fn file(&self, span: FrameSpan, mode: CacheMode) -> Result<FileRange> {
        PageSource::file(&*self.0.frames, span, mode)
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {}

    fn taken(&self) -> PageCount {
        self.0.frames.taken()
    }
}

struct Stage {
    device: Device<Counting>,
    machine: Arc<Machine>,
}

impl Stage {
    fn new() -> Arc<Self> {
        let machine = Machine::new();
        let memory = PageCount::new(8).unwrap();
        // What comes back is given away at once.
        let config = PoolConfig {
            limit: PageCount::ZERO,
            ..PoolConfig::default()
        };
        let device = Device::builder(Counting, still())
            .pages(Arc::new(Frames(Arc::clone(&machine))))
            .pool_config(config)
            .memory(
                MemType::VRAM,
                Box::new(Range::new(memory)),
                Nothing::new(memory),
            )
            .build()
            .unwrap();
        Arc::new(Self { device, machine })
    }

    fn object(&self) -> (Bo<Counting>, Shared<Counting>) {
        let bo = self
            .device
            .create_in(OpContext::new(), BoInfo::new(SIZE), (), &tt())
            .unwrap();
        let shared = self.device.export(&bo, ExportInfo::new()).unwrap();
        (bo, shared)
    }

    fn attach(&self, shared: &Shared<Counting>, info: AttachInfo) -> Attachment<Counting> {
        let mapper = Arc::clone(&self.machine) as Arc<dyn Mapper>;
        shared.attach(OpContext::new(), mapper, info).unwrap()
    }

    fn go(&self, bo: &Bo<Counting>, to: &Placement) {
        let moved = self
            .device
            .exec(OpContext::new(), |t| t.lock(bo)?.validate(to));
        match moved.map(drop) {
            Ok(()) | Err(Error::Pinned) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn end(&self) {
        self.device.reap();
        self.device.check().unwrap_or_else(|v| panic!("{v}"));
        self.device.close(None).unwrap_or_else(|h| panic!("{h:?}"));
        assert_eq!(self.machine.live(), 0);
        assert_eq!(self.device.exports(), 0);
    }
}

fn tt() -> Placement {
    Placement::of(Place::new(MemType::TT))
}

/// Maps the object if it has to, runs a job on it, and answers when that has ended.
fn job(stage: &Stage, attached: &Attachment<Counting>, queue: &Timeline) {
    let mapped = |bo: &Reserved<'_, Counting>| {
        bo.reserve_fences(1)?;
        match attached.list() {
            Err(DmaError::NotLent | DmaError::Revoked { .. }) => attached.map(bo, Direction::Both),
            list => Ok(list?),
        }
    };
    let shared = attached.shared();
    let locked = shared.exec(OpContext::new(), mapped).unwrap();
    let list = Arc::clone(locked.value());
    let fence = queue.issue();
    locked.fence_all(&fence, Usage::Read);
    drop(locked);
    // The job runs here.
    assert!(stage.machine.reaches(&list), "a job lost its mapping");
    thread::yield_now();
    assert!(stage.machine.reaches(&list), "a job lost its mapping");
    queue.signal(fence.seqno());
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|t| t.join().unwrap());
}

fn borrow_while_it_moves(infos: fn() -> [AttachInfo; 2]) {
    let stage = Stage::new();
    let (bo, shared) = stage.object();
    let threads = infos().into_iter().zip(1..).map(|(info, n)| {
        let attached = stage.attach(&shared, info);
        let stage = Arc::clone(&stage);
        thread::spawn(move || {
            let queue = Timeline::new(n, still());
            for round in 0..3 {
                job(&stage, &attached, &queue);
                if round == 1 {
                    let shared = attached.shared();
                    let unmapped = shared.exec(OpContext::new(), |bo| attached.unmap(bo));
                    // It may have been taken away before.
                    let _ = unmapped.map(drop);
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    for to in [vram(), system(), tt(), vram()] {
        stage.go(&bo, &to);
        stage.device.reap();
    }
    drop((bo, shared));
    join(threads);
    stage.end();
}

#[test]
fn who_is_dynamic_reaches_the_object_for_as_long_as_he_works() {
    explore(1_000, || {
        borrow_while_it_moves(|| [(); 2].map(|()| AttachInfo::new("borrower").dynamic()));
    });
}

#[test]
fn who_is_static_does_so_beside_one_who_is_revocable() {
    explore(1_000, || {
        borrow_while_it_moves(|| {
            let stays = AttachInfo::new("stays");
            [stays, AttachInfo::new("goes").revocable()]
        });
    });
}

/// Openers and closers: whoever is last takes the object down, and everybody sees either the export
/// or that it is gone (F-23).
#[test]
fn an_export_is_there_or_gone_and_never_half() {
    explore(1_000, || {
        let stage = Stage::new();
        let (bo, shared) = stage.object();
        let threads: Vec<_> = (1..=2)
            .map(|n| {
                let (stage, name) = (Arc::clone(&stage), shared.name());
                thread::spawn(move || {
                    let queue = Timeline::new(n, still());
                    let Ok(shared) = name.open() else {
                        return;
                    };
                    let attached = stage.attach(&shared, AttachInfo::new("late"));
                    drop(shared);
                    job(&stage, &attached, &queue);
                })
            })
            .collect();
        let mover = {
            let (stage, bo) = (Arc::clone(&stage), bo.clone());
            thread::spawn(move || stage.go(&bo, &vram()))
        };
        drop(shared);
        let again = stage.device.export(&bo, ExportInfo::new()).unwrap();
        assert!(stage.device.exports() <= 2);
        join(threads.into_iter().chain([mover]));
        assert_eq!(again.counts(), ShareCounts::default());
        assert!(again.name().open().unwrap() == again);
        drop((again, bo));
        stage.end();
    });
}

/// Two who export an object at once have the same export.
#[test]
fn exporting_at_once_gives_one_export() {
    explore(1_000, || {
        let stage = Stage::new();
        let (bo, shared) = stage.object();
        drop(shared);
        let other = {
            let (stage, bo) = (Arc::clone(&stage), bo.clone());
            thread::spawn(move || stage.device.export(&bo, ExportInfo::new()).unwrap())
        };
        let one = stage.device.export(&bo, ExportInfo::new()).unwrap();
        let other = other.join().unwrap();
        assert!(one == other);
        assert_eq!(stage.device.exports(), 1);
        drop((one, other, bo));
        stage.end();
    });
}

/// Taking away beside mapping and dropping: each mapping ends once, and is told of at most once.
#[test]
fn taking_away_meets_giving_back() {
    explore(1_000, || {
        let stage = Stage::new();
        let (bo, shared) = stage.object();
        let told = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (1..=2)
            .map(|n| {
                let log = Arc::clone(&told);
                let notice = move |generation: u64| log.lock().push((n, generation));
                let info = AttachInfo::new("goes").revocable().notice(notice);
                let attached = stage.attach(&shared, info);
                let stage = Arc::clone(&stage);
                thread::spawn(move || {
                    let queue = Timeline::new(n, still());
                    job(&stage, &attached, &queue);
                    job(&stage, &attached, &queue);
                    let generation = attached.generation();
                    assert!(generation <= 3, "{generation}");
                })
            })
            .collect();
        for _ in 0..3 {
            shared.revoke(OpContext::new()).unwrap();
        }
        join(threads);
        let told = told.lock().clone();
        for n in 1..=2 {
            let mine = told.iter().filter(|(who, _)| *who == n).map(|(_, g)| *g);
            assert!(mine.eq(1..=told.iter().filter(|(who, _)| *who == n).count() as u64));
        }
        drop((bo, shared));
        stage.end();
    });
}
