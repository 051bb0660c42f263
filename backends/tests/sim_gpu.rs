//! The laws of the fake device: time, order, content, windows, loss; and that every failure that
//! can be injected does what its description says.

use backends::host::FileBackup;
use backends::sim::{
    EngineConfig, FailingBackup, Gpu, GpuConfig, SimClock, VirtualClock, checksum_words, preset,
    preset_names,
};
use placement::{CacheMode, MemType, PageCount, PageRange};
use ttm::clock::{Clock, Time};
use ttm::driver::{CopyJob, Side};
use ttm::error::{Error, Result};
use ttm::fence::{Fence, FenceError, Status};
use ttm::pages::{FrameRun, Kmap, Pool, PoolConfig, Want};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::tt::{Backup, Direction, SlotTag, Transfer, Transfers};

const FAILED: Status = Status::Failed(FenceError::Failed);
const LOST: Status = Status::Failed(FenceError::DeviceLost);
const DEPENDENCY: Status = Status::Failed(FenceError::DependencyFailed);

fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

fn vram(ranges: &[PageRange]) -> Side {
    Side::Device {
        mem_type: MemType::VRAM,
        ranges: ranges.into(),
    }
}

fn frames(runs: &[&FrameRun]) -> Side {
    Side::Frames(runs.iter().map(|run| run.span()).collect())
}

fn job(src: &Side, dst: &Side, n: u64, after: &[Fence]) -> CopyJob {
    CopyJob {
        object: 1,
        pages: pages(n),
        src: src.clone(),
        dst: dst.clone(),
        after: after.into(),
        behind: Vec::new(),
    }
}

/// 1000 pages, of which the CPU sees 100; an engine that needs 1 us and 1 ns a byte.
fn config() -> GpuConfig {
    let speed = EngineConfig {
        bytes_per_second: 1_000_000_000,
        latency_ns: 1_000,
    };
    GpuConfig {
        aperture: pages(100),
        engines: vec![speed; 2],
        queue: EngineConfig {
            bytes_per_second: 0,
            latency_ns: 10,
        },
        ..GpuConfig::new(pages(1000))
    }
}

fn device() -> (Gpu, Arc<VirtualClock>) {
    let clock = VirtualClock::new();
    let gpu = Gpu::new(config(), SimClock::Virtual(Arc::clone(&clock))).unwrap();
    (gpu, clock)
}

fn wait(fence: &Fence) -> Status {
    fence.wait(None).unwrap()
}

fn sum(gpu: &Gpu, side: &Side) -> u64 {
    let (fence, sum) = gpu.queue(9).checksum(side, []).unwrap();
    assert_eq!(wait(&fence), Status::Done);
    sum.get().unwrap()
}

fn pattern(seed: u64) -> impl Fn(u64) -> u64 + Send + Copy + 'static {
    move |n| (seed << 40 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill(gpu: &Gpu, side: &Side, seed: u64) {
    let fence = gpu.queue(9).fill_with(side, pattern(seed), []).unwrap();
    assert_eq!(wait(&fence), Status::Done);
}

fn expected(seed: u64, n: u64) -> u64 {
    checksum_words((0..n * 512).map(pattern(seed)))
}

fn read(gpu: &Gpu, run: &FrameRun) -> Vec<u8> {
    let mapped = gpu.pages().map(run.span(), CacheMode::Cached).unwrap();
    let mut bytes = vec![0; mapped.len()];
    mapped.read(0, &mut bytes);
    bytes
}

#[test]
fn a_job_takes_its_latency_and_its_bytes_over_the_bandwidth() {
    let (gpu, clock) = device();
    let (a, b) = (vram(&[range(0, 2)]), vram(&[range(500, 502)]));
    let engine = gpu.engine(0);
    let first = engine.submit(job(&a, &b, 2, &[])).unwrap();
    let second = engine.submit(job(&a, &b, 1, &[])).unwrap();
    let beside = gpu.engine(1).submit(job(&Side::Zero, &a, 1, &[])).unwrap();
    assert_eq!(wait(&beside), Status::Done);
    assert_eq!(clock.now().nanos(), 1_000 + 4_096);
    assert_eq!(wait(&first), Status::Done);
    assert_eq!(clock.now().nanos(), 1_000 + 8_192);
    assert_eq!(wait(&second), Status::Done);
    assert_eq!(clock.now().nanos(), 2_000 + 3 * 4_096);
    assert!(second.covers(&first) && !second.covers(&beside));
}

#[test]
fn durations_round_up_and_never_wrap() {
    let speed = |bytes_per_second, latency_ns| EngineConfig {
        bytes_per_second,
        latency_ns,
    };
    assert_eq!(speed(3, 0).duration_ns(1), 333_333_334);
    assert_eq!(speed(0, 7).duration_ns(u64::MAX), 7);
    assert_eq!(speed(1, 7).duration_ns(u64::MAX), u64::MAX);
    assert_eq!(speed(u64::MAX, 0).duration_ns(u64::MAX), 1_000_000_000);
    assert_eq!(speed(u64::MAX, u64::MAX).duration_ns(1), u64::MAX);
}

#[test]
fn a_job_waits_for_what_it_comes_after() {
    let (gpu, clock) = device();
    let timeline = gpu.timeline();
    let gate = timeline.issue();
    let a = vram(&[range(0, 1)]);
    let filled = gpu.queue(0).fill(&a, 5, [gate]).unwrap();
    let b = vram(&[range(700, 701)]);
    let copied = gpu.engine(0).submit(job(&a, &b, 1, &[filled])).unwrap();
    let (summed, found) = gpu.queue(1).checksum(&b, [copied.clone()]).unwrap();
    let at = Time::from_nanos(77_000);
    clock.schedule(at, Box::new(move |_| timeline.signal(1)));
    assert_eq!(wait(&summed), Status::Done);
    assert_eq!(clock.now().nanos(), 77_000 + 10 + 1_000 + 4_096 + 10);
    assert_eq!(found.get(), Some(checksum_words([5; 512])));
}

#[test]
fn a_failed_dependency_fails_the_chain_and_nothing_is_touched() {
    let (gpu, clock) = device();
    let (a, b) = (vram(&[range(0, 1)]), vram(&[range(1, 2)]));
    fill(&gpu, &a, 1);
    fill(&gpu, &b, 2);
    let timeline = gpu.timeline();
    let bad = timeline.issue();
    let engine = gpu.engine(0);
    let mut fence = bad;
    for _ in 0..2_000 {
        fence = engine.submit(job(&a, &b, 1, &[fence])).unwrap();
    }
    let filled = gpu.queue(0).fill(&a, 9, [fence.clone()]).unwrap();
    let now = clock.now();
    timeline.fail(1, FenceError::Failed);
    assert_eq!((wait(&fence), wait(&filled)), (DEPENDENCY, DEPENDENCY));
    assert_eq!(clock.now(), now, "a job that is not begun takes no time");
    assert_eq!(
        (sum(&gpu, &a), sum(&gpu, &b)),
        (expected(1, 1), expected(2, 1))
    );
}

#[test]
fn a_copy_goes_ahead_behind_work_that_failed() {
    let (gpu, _clock) = device();
    let (a, b) = (vram(&[range(0, 1)]), vram(&[range(1, 2)]));
    fill(&gpu, &a, 1);
    fill(&gpu, &b, 2);
    let timeline = gpu.timeline();
    let bad = timeline.issue();
    let behind = CopyJob {
        behind: vec![bad],
        ..job(&a, &b, 1, &[])
    };
    let fence = gpu.engine(0).submit(behind).unwrap();
    assert!(!fence.is_signalled(), "it waits all the same");
    timeline.fail(1, FenceError::Failed);
    assert_eq!(wait(&fence), Status::Done);
    assert_eq!(sum(&gpu, &b), expected(1, 1));
}

#[test]
fn bytes_go_between_frames_and_memory_however_they_are_cut() {
    let (gpu, _clock) = device();
    let source = gpu.pages();
    let runs = [1, 4, 2].map(|n| source.take(&Want::new(pages(n))).unwrap());
    let system = frames(&[&runs[0], &runs[1], &runs[2]]);
    let scattered = vram(&[range(900, 903), range(10, 12), range(400, 402)]);
    fill(&gpu, &system, 3);
    let engine = gpu.engine(0);
    let up = engine.submit(job(&system, &scattered, 7, &[])).unwrap();
    assert_eq!(wait(&up), Status::Done);
    assert_eq!(sum(&gpu, &scattered), expected(3, 7));
    let clear = engine.submit(job(&Side::Zero, &system, 7, &[])).unwrap();
    let down = engine
        .submit(job(&scattered, &system, 6, &[clear]))
        .unwrap();
    assert_eq!(wait(&down), Status::Done);
    let words = (0..7 * 512).map(|n| if n < 6 * 512 { pattern(3)(n) } else { 0 });
    assert_eq!(sum(&gpu, &system), checksum_words(words));
    runs.into_iter().for_each(|run| source.give(run.dirtied()));
}

#[test]
fn a_kernel_reaches_what_the_cpu_does_not() {
    let (gpu, _clock) = device();
    let far = vram(&[range(999, 1000), range(100, 102)]);
    fill(&gpu, &far, 4);
    let added = gpu.queue(0).add(&far, u64::MAX, []).unwrap();
    assert_eq!(wait(&added), Status::Done);
    let words = (0..3 * 512).map(|n| pattern(4)(n).wrapping_sub(1));
    assert_eq!(sum(&gpu, &far), checksum_words(words));
}

#[test]
fn the_cpu_and_the_device_see_the_same_bytes_inside_the_window_and_nothing_is_outside() {
    let (gpu, _clock) = device();
    let region = gpu.region();
    assert_eq!(
        (region.size(), region.aperture()),
        (pages(1000), range(0, 100))
    );
    let mapped = region
        .map(range(98, 100), CacheMode::WriteCombined)
        .unwrap();
    fill(&gpu, &vram(&[range(98, 100)]), 6);
    let mut word = [0; 8];
    mapped.read(4096, &mut word);
    assert_eq!(u64::from_le_bytes(word), pattern(6)(512));
    mapped.zero(0, mapped.len());
    assert_eq!(
        sum(&gpu, &vram(&[range(98, 100)])),
        checksum_words([0; 1024])
    );
    for outside in [range(100, 101), range(99, 101), range(5000, 5001)] {
        let error = region.map(outside, CacheMode::WriteCombined).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
        assert!(error.to_string().contains("engine"), "{error}");
    }
    assert!(matches!(
        region.map(range(5, 5), CacheMode::WriteCombined),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn senseless_jobs_are_refused() {
    let (gpu, _clock) = device();
    let (a, zero) = (vram(&[range(0, 2)]), Side::Zero);
    let refused = |job| matches!(gpu.engine(0).submit(job), Err(Error::Invalid(_)));
    assert!(refused(job(&a, &zero, 1, &[])));
    assert!(refused(job(&a, &vram(&[range(2, 3)]), 2, &[])));
    assert!(refused(job(&a, &vram(&[range(999, 1001)]), 2, &[])));
    let queue = gpu.queue(0);
    assert!(matches!(queue.fill(&zero, 1, []), Err(Error::Invalid(_))));
    assert!(matches!(queue.checksum(&zero, []), Err(Error::Invalid(_))));
    assert!(matches!(
        queue.add(&vram(&[range(0, 1001)]), 1, []),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn without_contents_jobs_take_their_time_and_nothing_else() {
    let clock = VirtualClock::new();
    let huge = GpuConfig {
        contents: false,
        ..GpuConfig::new(pages(1 << 40))
    };
    let gpu = Gpu::new(huge, SimClock::Virtual(Arc::clone(&clock))).unwrap();
    let all = vram(&[range(0, 1 << 40)]);
    let copied = gpu
        .engine(0)
        .submit(job(&Side::Zero, &all, 1 << 40, &[]))
        .unwrap();
    let (fence, found) = gpu.queue(0).checksum(&all, [copied]).unwrap();
    assert_eq!(wait(&fence), Status::Done);
    assert_eq!(found.get(), None);
    assert!(clock.now().nanos() > 1 << 38);
    assert!(matches!(
        gpu.region().map(range(0, 1), CacheMode::WriteCombined),
        Err(Error::Unsupported(_))
    ));
    let run = gpu.pages().take(&Want::new(pages(1 << 40))).unwrap();
    assert!(matches!(
        gpu.pages().map(run.span(), CacheMode::Cached),
        Err(Error::Unsupported(_))
    ));
    assert_eq!(gpu.pages().taken(), pages(1 << 40));
    gpu.pages().give(run.dirtied());
}

/// What a copy of two pages from pattern 1 over pattern 2 ends with under one failure.
struct Outcome {
    status: Status,
    target: Vec<u8>,
    source: Vec<u8>,
    at: u64,
}

fn copy_under(site: &str) -> (Result<Outcome>, Gpu) {
    let (gpu, clock) = device();
    let source = gpu.pages();
    let (from, to) = (
        source.take(&Want::new(pages(2))).unwrap(),
        source.take(&Want::new(pages(2))).unwrap(),
    );
    fill(&gpu, &frames(&[&from]), 1);
    fill(&gpu, &frames(&[&to]), 2);
    gpu.inject().set_late_ns(1_000_000);
    let begun = clock.now();
    gpu.inject().fail(site, 1, false);
    let submitted = gpu
        .engine(0)
        .submit(job(&frames(&[&from]), &frames(&[&to]), 2, &[]));
    let outcome = submitted.map(|fence| Outcome {
        status: wait(&fence),
        at: (clock.now().nanos()) - begun.nanos(),
        target: read(&gpu, &to),
        source: read(&gpu, &from),
    });
    assert_eq!(gpu.inject().hits(site), 1, "{site}");
    assert_eq!(
        gpu.inject().last_failed(),
        Some(gpu.inject().sites().iter().find(|s| s.0 == site).unwrap().0)
    );
    (outcome, gpu)
}

fn bytes_of(seed: u64) -> Vec<u8> {
    (0..1024)
        .flat_map(|n| pattern(seed)(n).to_le_bytes())
        .collect()
}

const TIME: u64 = 1_000 + 8_192;

#[test]
fn a_refused_job_leaves_no_trace() {
    let (outcome, gpu) = copy_under("copy.submit");
    assert!(matches!(outcome, Err(Error::Backend(_))));
    let fence = gpu
        .engine(0)
        .submit(job(&Side::Zero, &vram(&[range(0, 1)]), 1, &[]))
        .unwrap();
    assert_eq!((fence.seqno(), wait(&fence)), (1, Status::Done));
}

#[test]
fn a_copy_that_fails_at_its_start_touches_nothing() {
    let outcome = copy_under("copy.start").0.unwrap();
    assert_eq!(outcome.status, FAILED);
    assert_eq!((outcome.target, outcome.source), (bytes_of(2), bytes_of(1)));
}

#[test]
fn a_copy_that_breaks_off_has_written_half_and_kept_its_source() {
    let outcome = copy_under("copy.middle").0.unwrap();
    let half = [&bytes_of(1)[..4096], &bytes_of(2)[4096..]].concat();
    assert_eq!((outcome.status, outcome.target), (FAILED, half));
    assert_eq!(outcome.source, bytes_of(1));
}

#[test]
fn a_copy_can_fail_after_its_last_byte() {
    for site in ["copy.late-error", "fence.error"] {
        let outcome = copy_under(site).0.unwrap();
        assert_eq!((outcome.status, outcome.at), (FAILED, TIME), "{site}");
        assert_eq!((outcome.target, outcome.source), (bytes_of(1), bytes_of(1)));
    }
}

#[test]
fn a_flip_is_silent_and_exactly_one_bit_of_the_copy() {
    let outcome = copy_under("copy.flip-bit").0.unwrap();
    assert_eq!((outcome.status, outcome.at), (Status::Done, TIME));
    let pairs = outcome.target.iter().zip(bytes_of(1));
    let flipped: u32 = pairs.map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((flipped, outcome.source), (1, bytes_of(1)));
}

#[test]
fn a_clear_does_not_use_a_flip_up() {
    let (gpu, _clock) = device();
    gpu.inject().fail("copy.flip-bit", 1, false);
    let clear = gpu
        .engine(0)
        .submit(job(&Side::Zero, &vram(&[range(0, 1)]), 1, &[]))
        .unwrap();
    assert_eq!(wait(&clear), Status::Done);
    assert_eq!(
        (
            gpu.inject().count("copy.flip-bit"),
            gpu.inject().hits("copy.flip-bit")
        ),
        (0, 0)
    );
}

#[test]
fn a_late_fence_comes_late_and_holds_up_those_behind_it() {
    let (outcome, gpu) = copy_under("fence.late");
    let outcome = outcome.unwrap();
    assert_eq!(
        (outcome.status, outcome.at),
        (Status::Done, TIME + 1_000_000)
    );
    assert_eq!(outcome.target, bytes_of(1));
    drop(gpu);
}

#[test]
fn a_fence_that_never_comes_is_a_stall_and_hangs_its_engine_until_the_device_is_lost() {
    let (gpu, clock) = device();
    gpu.inject().fail("fence.never", 1, false);
    let target = vram(&[range(0, 1)]);
    let never = gpu
        .engine(0)
        .submit(job(&Side::Zero, &target, 1, &[]))
        .unwrap();
    let behind = gpu
        .engine(0)
        .submit(job(&Side::Zero, &target, 1, &[]))
        .unwrap();
    let error = behind.wait(None).unwrap_err();
    assert!(matches!(error, Error::Stalled(_)), "{error}");
    let until = clock.now().after_nanos(1_000_000);
    assert_eq!(never.wait(Some(until)).unwrap(), Status::Pending);
    let beside = gpu
        .engine(1)
        .submit(job(&Side::Zero, &target, 1, &[]))
        .unwrap();
    assert_eq!(wait(&beside), Status::Done, "other engines go on");
    gpu.lose();
    assert_eq!((never.status(), behind.status()), (LOST, LOST));
}

#[test]
fn a_lost_device_signals_everything_refuses_everything_and_keeps_frames() {
    let (gpu, clock) = device();
    let target = vram(&[range(0, 8)]);
    let source = gpu.pages();
    let run = source.take(&Want::new(pages(1))).unwrap();
    fill(&gpu, &frames(&[&run]), 8);
    let done = gpu.queue(0).fill(&target, 1, []).unwrap();
    assert_eq!(wait(&done), Status::Done);
    let engine = gpu.engine(0);
    let queue = gpu.queue(0);
    let mut pending: Vec<_> = (0..5)
        .map(|_| engine.submit(job(&Side::Zero, &target, 8, &[])).unwrap())
        .collect();
    pending.push(queue.fill(&target, 2, [pending[4].clone()]).unwrap());
    let called = Arc::new(AtomicU64::new(0));
    for fence in &pending {
        let called = Arc::clone(&called);
        fence.on_signal(move |status| {
            assert_eq!(status, LOST);
            called.fetch_add(1, Ordering::SeqCst);
        });
    }
    gpu.lose();
    gpu.lose();
    assert!(pending.iter().all(|f| f.status() == LOST), "{pending:?}");
    assert_eq!(
        (called.load(Ordering::SeqCst), done.status()),
        (6, Status::Done)
    );
    let lost = |result: Result<Fence>| matches!(result, Err(Error::DeviceLost));
    assert!(lost(engine.submit(job(&Side::Zero, &target, 1, &[]))));
    assert!(lost(queue.fill(&target, 3, [])) && lost(gpu.queue(77).fill(&target, 3, [])));
    assert!(matches!(
        gpu.region().map(range(0, 1), CacheMode::WriteCombined),
        Err(Error::DeviceLost)
    ));
    assert_eq!(read(&gpu, &run), bytes_of(8)[..4096]);

    // What was under way when it was lost must not reach the device that comes back.
    gpu.restore().unwrap();
    gpu.restore().unwrap();
    clock.sleep(1_000_000);
    assert!(!gpu.is_lost());
    assert_eq!(sum(&gpu, &target), checksum_words([0; 8 * 512]));
    let again = engine.submit(job(&Side::Zero, &target, 1, &[])).unwrap();
    assert_eq!((wait(&again), again.seqno()), (Status::Done, 1));
    assert!(!again.same_timeline(&pending[0]), "a new timeline");
    assert!(pending.iter().all(|f| f.status() == LOST));
    source.give(run.dirtied());
}

#[test]
fn the_device_can_be_lost_at_any_job() {
    for nth in 1..=4 {
        let (gpu, _clock) = device();
        gpu.inject().fail("device.lost", nth, false);
        let target = vram(&[range(0, 1)]);
        let engine = gpu.engine(0);
        let fences: Vec<_> = (0..4)
            .map_while(|_| engine.submit(job(&Side::Zero, &target, 1, &[])).ok())
            .collect();
        for (n, fence) in (1..).zip(&fences) {
            assert_eq!(
                wait(fence),
                if n < nth { Status::Done } else { LOST },
                "{nth}: {n}"
            );
        }
        assert!(gpu.is_lost());
    }
}

#[test]
fn kernels_frames_mappings_and_backups_fail_on_command() {
    let (gpu, _clock) = device();
    let inject = gpu.inject();
    let target = vram(&[range(0, 1)]);
    inject.fail("kernel.submit", 1, false);
    assert!(matches!(
        gpu.queue(0).fill(&target, 1, []),
        Err(Error::Backend(_))
    ));
    assert_eq!(gpu.queue(0).fill(&target, 1, []).unwrap().seqno(), 1);
    let source = gpu.pages();
    inject.fail("pages.take", 1, false);
    assert!(
        matches!(source.take(&Want::new(pages(3))), Err(Error::NoMemory { wanted, .. }) if wanted == pages(3))
    );
    let run = source.take(&Want::new(pages(3))).unwrap();
    inject.fail("pages.map", 1, false);
    assert!(matches!(
        source.map(run.span(), CacheMode::Cached),
        Err(Error::Backend(_))
    ));
    inject.fail("region.map", 1, false);
    assert!(matches!(
        gpu.region().map(range(0, 1), CacheMode::WriteCombined),
        Err(Error::Backend(_))
    ));
    gpu.region()
        .map(range(0, 1), CacheMode::WriteCombined)
        .unwrap();

    source.give(run.dirtied());
}

/// One run on its way, and what became of it.
struct Single {
    work: Option<Transfer>,
    result: Option<Result<()>>,
}

impl Transfers for Single {
    fn next(&mut self) -> Option<Transfer> {
        self.work.take()
    }

    fn done(&mut self, _: Transfer, result: Result<()>) {
        self.result = Some(result);
    }
}

fn transfer(swap: &dyn Backup, direction: Direction, first: u64, memory: Kmap) -> Result<()> {
    let mut single = Single {
        work: Some(Transfer {
            id: 0,
            first,
            memory,
        }),
        result: None,
    };
    swap.transfer(direction, &mut single);
    single.result.expect("every transfer is done")
}

#[test]
fn a_backup_fails_on_command() {
    let (gpu, _clock) = device();
    let inject = gpu.inject();
    let pool = Pool::new(gpu.pages(), gpu.clock(), PoolConfig::default());
    let file = FileBackup::new(std::env::temp_dir(), 1 << 20).unwrap();
    let swap = FailingBackup::new(Arc::new(file), Arc::clone(inject));
    let tag = SlotTag {
        object: 1,
        first_page: 0,
        generation: 1,
    };
    inject.fail("backup.prepare", 1, false);
    assert!(matches!(swap.prepare(1), Err(Error::NoMemory { .. })));
    swap.prepare(1).unwrap();
    inject.fail("backup.full", 1, false);
    assert!(matches!(swap.take(pages(3), tag), Err(Error::Backup(_))));
    assert_eq!((swap.used(), swap.limit()), (pages(0), pages(256)));

    let slots = swap.take(pages(3), tag).unwrap();
    let run = pool.take(&Want::new(pages(3))).unwrap();
    let moved = |direction| {
        let memory = pool.kmap(run.span()).unwrap();
        transfer(&swap, direction, slots.first(), memory)
    };
    let ones = || {
        let mapped = pool.kmap(run.span()).unwrap();
        let mut bytes = vec![0; mapped.len()];
        mapped.read(0, &mut bytes);
        bytes.iter().map(|b| b.count_ones()).sum::<u32>()
    };
    inject.fail("backup.store", 1, false);
    assert!(matches!(moved(Direction::Out), Err(Error::Backup(_))));
    moved(Direction::Out).unwrap();
    inject.fail("backup.load", 1, false);
    assert!(matches!(moved(Direction::In), Err(Error::Backup(_))));
    inject.fail("backup.flip", 1, false);
    moved(Direction::In).unwrap();
    assert_eq!(ones(), 1);
    moved(Direction::In).unwrap();
    assert_eq!(ones(), 0);
    swap.discard(slots);
    swap.unprepare(1);
    pool.give(run.dirtied());
}

#[test]
fn a_device_that_ends_abandons_what_was_pending() {
    let (gpu, clock) = device();
    let engine = gpu.engine(0);
    let fence = engine
        .submit(job(&Side::Zero, &vram(&[range(0, 1)]), 1, &[]))
        .unwrap();
    drop(gpu);
    assert_eq!(fence.status(), Status::Pending, "its engine keeps it alive");
    drop(engine);
    assert_eq!(fence.status(), Status::Failed(FenceError::Abandoned));
    clock.sleep(1_000_000);
}

#[test]
fn the_same_run_has_the_same_history() {
    let run = || {
        let (gpu, clock) = device();
        clock.scope(|s| {
            for n in 0..4 {
                let (gpu, clock) = (&gpu, &clock);
                s.spawn("client", move || {
                    let side = vram(&[range(n * 10, n * 10 + 3)]);
                    for round in 0..10 {
                        let filled = gpu.queue(n as usize % 2).fill(&side, round, []).unwrap();
                        let copied = gpu.engine(n as usize % 2);
                        let to = vram(&[range(500 + n * 10, 503 + n * 10)]);
                        let copied = copied.submit(job(&side, &to, 3, &[filled])).unwrap();
                        clock.advance(n * 100);
                        assert_eq!(copied.wait(None).unwrap(), Status::Done);
                    }
                });
            }
        });
        (
            clock.now(),
            clock.turns(),
            clock.digest(),
            sum(&gpu, &vram(&[range(0, 1000)])),
        )
    };
    let first = run();
    for _ in 0..5 {
        assert_eq!(run(), first);
    }
}

#[test]
fn on_the_wall_clock_the_same_things_happen_in_real_time() {
    let gpu = Gpu::new(config(), SimClock::Wall).unwrap();
    let clock = gpu.clock();
    let source = gpu.pages();
    let run = source.take(&Want::new(pages(2))).unwrap();
    let (system, target) = (frames(&[&run]), vram(&[range(500, 502)]));
    let began = clock.now();
    let filled = gpu.queue(0).fill_with(&system, pattern(1), []).unwrap();
    let copied = gpu
        .engine(0)
        .submit(job(&system, &target, 2, &[filled]))
        .unwrap();
    let (summed, found) = gpu.queue(1).checksum(&target, [copied]).unwrap();
    assert_eq!(wait(&summed), Status::Done);
    assert_eq!(found.get(), Some(expected(1, 2)));
    assert!(clock.now().since(began).as_nanos() >= u128::from(TIME));

    gpu.inject().fail("fence.never", 1, false);
    let never = gpu
        .engine(0)
        .submit(job(&Side::Zero, &target, 1, &[]))
        .unwrap();
    let until = clock.now().after_nanos(3_000_000);
    assert_eq!(never.wait(Some(until)).unwrap(), Status::Pending);
    gpu.lose();
    assert_eq!(wait(&never), LOST);
    gpu.restore().unwrap();
    let again = gpu
        .engine(0)
        .submit(job(&Side::Zero, &target, 1, &[]))
        .unwrap();
    assert_eq!(wait(&again), Status::Done);
    source.give(run.dirtied());
}

#[test]
fn a_callback_may_drop_the_last_handle_of_a_device() {
    let gpu = Gpu::new(config(), SimClock::Wall).unwrap();
    let clock = gpu.clock();
    let fence = gpu
        .engine(0)
        .submit(job(&Side::Zero, &vram(&[range(0, 1)]), 1, &[]))
        .unwrap();
    let (done, cell) = (Arc::clone(&clock), ttm::clock::WaitCell::new());
    let woken = Arc::clone(&cell);
    fence.on_signal(move |_| {
        drop(gpu);
        done.unpark(&woken);
    });
    let until = clock.now().after_nanos(10_000_000_000);
    let ended = clock.park(&cell, Some(until), ttm::clock::WaitFor::Work);
    assert_eq!(ended, ttm::clock::Woken::Notified);
}

#[test]
fn presets_are_whole_cards() {
    assert_eq!(preset_names(), ["navi21", "renoir", "nvk", "turnip", "m1"]);
    for name in preset_names() {
        let card = preset(name).unwrap();
        assert!(
            card.aperture <= card.vram && !card.aperture.is_zero(),
            "{name}"
        );
        assert!(!card.engines.is_empty() && !card.system.is_zero() && card.contents);
        let clock = SimClock::Virtual(VirtualClock::new());
        let gpu = Gpu::new(card.clone(), clock).unwrap();
        let last = vram(&[range(card.vram.get() - 1, card.vram.get())]);
        fill(&gpu, &last, 1);
        assert_eq!(sum(&gpu, &last), expected(1, 1), "{name}: the last page");
    }
    assert_eq!(preset("navi21").unwrap().vram.bytes(), 16128 << 20);
    assert!(preset("NAVI21").is_none());
}
