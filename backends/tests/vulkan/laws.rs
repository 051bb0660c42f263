//! What each seam promises, over everything that is behind it here: the Vulkan device's parts beside
//! those of the simulator and of the manager itself. Prints which promise was looked at where.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use backends::host::wall_clock;
use backends::sim::{Gpu as Sim, GpuConfig, SimClock};
use backends::vulkan::{BufferInfo, Copies, ImageInfo};
use placement::{
    Buddy, CacheMode, ChunkSizes, Chunks, Extents, MemType, PageCount, PageRange, Range, Request,
    Space,
};
use ttm::dma::{Direction, FrameBytes, Mapper, Path, Verdict};
use ttm::driver::{
    Advice, BoFacts, BoKind, CopyEngine, CopyJob, Driver, Eviction, MoveFacts, Route, Side,
};
use ttm::error::Error;
use ttm::fence::{Fence, FenceError, Status, Timeline};
use ttm::pages::{Mapped, PageSource, Pool, PoolConfig, Want};
use ttm::resource::Region;
use ttm::sync::Arc;
use ttm::trace::Reason;

use super::gpu::reach;
use super::stage::{MIB, Setup, Stage};
use super::words::{assert_words, words};

const SIZE: u64 = 4 * MIB;

fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

/// Who keeps which law.
#[derive(Default)]
struct Table(BTreeMap<&'static str, Vec<&'static str>>);

impl Table {
    fn kept(&mut self, law: &'static str, who: &'static str) {
        self.0.entry(law).or_default().push(who);
    }

    fn print(&self, seam: &str) {
        println!("{seam}");
        for (law, who) in &self.0 {
            println!("  {law:<64} {}", who.join(", "));
        }
    }
}

/// Memory and an engine that copies in it.
struct Kit {
    who: &'static str,
    mem_type: MemType,
    space: Box<dyn Space>,
    region: Arc<dyn Region>,
    engine: Arc<dyn CopyEngine>,
    source: Arc<dyn PageSource>,
    mapper: Option<Arc<dyn Mapper>>,
}

impl Kit {
    fn sim() -> Self {
        let gpu = Sim::new(GpuConfig::new(pages(SIZE / 4096)), SimClock::Wall).unwrap();
        let mapper = gpu.mapper(Verdict::for_tests(Path::Direct)).unwrap();
        Self {
            who: "sim",
            mem_type: MemType::VRAM,
            space: Box::new(Range::new(pages(SIZE / 4096))),
            region: gpu.region(),
            engine: gpu.engine(0),
            source: gpu.pages(),
            mapper: Some(mapper as Arc<dyn Mapper>),
        }
    }

    fn vulkan(stage: &Stage) -> Self {
        let source: Arc<dyn PageSource> = stage.source();
        let memories = stage.vulkan.memories();
        let vram = |(mem_type, ..): &(MemType, _, _)| *mem_type == MemType::VRAM;
        let (mem_type, space, region) = memories.into_iter().find(vram).unwrap();
        Self {
            who: "vulkan",
            mem_type,
            space,
            region,
            engine: stage.vulkan.engine(),
            mapper: stage.vulkan.mapper(&source),
            source,
        }
    }

    fn take(&mut self, n: u64) -> (Extents, PageRange) {
        let extents = self.space.take(&Request::new(pages(n))).unwrap();
        let range = extents.iter().next().unwrap().range();
        self.region.provide(range).unwrap();
        (extents, range)
    }

    fn give(&mut self, extents: Extents) {
        extents
            .into_iter()
            .for_each(|extent| self.space.give(extent));
    }

    fn map(&self, range: PageRange) -> Mapped {
        self.region.map(range, self.region.own_mode()).unwrap()
    }

    fn side(&self, ranges: &[PageRange]) -> Side {
        Side::Device {
            mem_type: self.mem_type,
            ranges: ranges.iter().copied().collect(),
        }
    }

    fn job(&self, n: u64, src: Side, dst: Side) -> CopyJob {
        CopyJob {
            object: 1 << 40,
            pages: pages(n),
            src,
            dst,
            after: Vec::new(),
            behind: Vec::new(),
        }
    }

    fn content(&self, range: PageRange) -> Vec<u8> {
        let mapped = self.map(range);
        let mut bytes = vec![0; mapped.len()];
        mapped.read(0, &mut bytes);
        bytes
    }
}

fn part(range: PageRange, from: u64, to: u64) -> PageRange {
    PageRange::new(range.start() + from, range.start() + to).unwrap()
}

/// A device whose memories nobody else has anything of.
fn stage() -> Option<Stage> {
    Setup::with_vram(SIZE)
        .config(|c| c.chunks(MIB, MIB).copies(Copies::Queue))
        .stage()
}

#[test]
fn spaces_keep_their_laws() {
    let Some(stage) = stage() else {
        return;
    };
    let mut table = Table::default();
    let sizes = ChunkSizes {
        least: pages(256),
        most: pages(256),
        granule: pages(16),
    };
    let all: [(&str, Box<dyn Space>); 4] = [
        ("range", Box::new(Range::new(pages(1024)))),
        ("buddy", Box::new(Buddy::new(pages(1024)))),
        ("chunks", Box::new(Chunks::new(pages(1024), sizes))),
        ("vulkan", Kit::vulkan(&stage).space),
    ];
    let region = Kit::vulkan(&stage).region;
    for (who, mut space) in all {
        let whole = space.free();
        let mut held: Vec<Extents> = Vec::new();
        while let Ok(extents) = space.take(&Request::new(pages(16)).aligned(pages(16))) {
            let ranges: Vec<_> = extents.iter().map(|e| e.range()).collect();
            if who == "vulkan" {
                ranges
                    .iter()
                    .for_each(|range| region.provide(*range).unwrap());
            }
            assert!(
                ranges.iter().all(|r| r.start() % 16 == 0),
                "{who}: {ranges:?}"
            );
            held.push(extents);
            assert_eq!(space.check(), Ok(()), "{who}");
        }
        let mut taken: Vec<_> = held.iter().flatten().map(|e| e.range()).collect();
        taken.sort_by_key(|range| range.start());
        assert!(
            taken.windows(2).all(|w| w[0].end() <= w[1].start()),
            "{who}"
        );
        table.kept("what is taken is nobody else's, and aligned", who);
        assert_eq!(taken.len(), 64, "{who}");
        assert!(
            space.free().is_zero() && space.largest_hole().is_zero(),
            "{who}"
        );
        table.kept("all of it can be taken", who);
        held.into_iter()
            .flatten()
            .for_each(|extent| space.give(extent));
        assert_eq!((space.check(), space.free()), (Ok(()), whole), "{who}");
        assert!(space.taken().is_empty());
        table.kept("what is given back is free", who);
    }
    stage.vulkan.trim();
    table.print("Space");
    stage.assert_empty();
}

#[test]
fn regions_keep_their_laws() {
    // Without buffers that stay more devices have their memory in files.
    let Some(stage) = Setup::with_vram(SIZE)
        .config(|c| c.chunks(MIB, MIB).stable(false))
        .stage()
    else {
        return;
    };
    let mut table = Table::default();
    for mut kit in [Kit::sim(), Kit::vulkan(&stage)] {
        let who = kit.who;
        let region = Arc::clone(&kit.region);
        assert!(region.size() >= pages(SIZE / 4096));
        let mode = region.own_mode();
        assert!(region.modes().has(mode), "{who}");
        table.kept("its own mode is one of its modes", who);
        let (extents, range) = kit.take(16);
        let (one, two) = (kit.map(range), kit.map(part(range, 4, 8)));
        one.write(4 * 4096 + 8, &[1, 2, 3]);
        let mut found = [0; 3];
        two.read(8, &mut found);
        assert_eq!(found, [1, 2, 3], "{who}");
        two.write(0, &[9]);
        one.read(4 * 4096, &mut found);
        assert_eq!(found[0], 9, "{who}");
        table.kept("two mappings see each other's bytes", who);
        let beyond = PageRange::new(1 << 40, (1 << 40) + 1).unwrap();
        let refused = region.map(beyond, mode).map(drop);
        let right = matches!(refused, Err(Error::Unsupported(_) | Error::Invalid(_)));
        assert!(right, "{who}: {refused:?}");
        table.kept("what is not there is not mapped", who);
        if let Ok(file) = region.file(part(range, 4, 8), mode) {
            one.write(4 * 4096, &words(7, 0, 4 * 4096));
            let mut bytes = vec![0; 4 * 4096];
            file.file.read_exact_at(&mut bytes, file.offset).unwrap();
            assert_words(&bytes, 7, 0);
            table.kept("its file has the bytes", who);
        }
        drop((one, two));
        kit.give(extents);
        stage.vulkan.trim();
        let (extents, range) = kit.take(16);
        let mapped = kit.map(range);
        mapped.write(0, &words(8, 0, 16 * 4096));
        assert_words(&kit.content(range), 8, 0);
        table.kept("what was given back and is taken again is there", who);
        drop(mapped);
        kit.give(extents);
    }
    table.print("Region");
    stage.assert_empty();
}

#[test]
fn engines_keep_their_laws() {
    let Some(stage) = stage() else {
        return;
    };
    let mut table = Table::default();
    for mut kit in [Kit::sim(), Kit::vulkan(&stage)] {
        let who = kit.who;
        let (first, a) = kit.take(16);
        let (second, b) = kit.take(16);
        let bytes = 16 * 4096;
        let wait = |fence: Fence| fence.wait(None).unwrap();
        let (from, to) = (kit.side(&[a]), kit.side(&[b]));
        for round in 0..20 {
            kit.map(a).write(0, &words(1, round, bytes));
            wait(
                kit.engine
                    .submit(kit.job(16, from.clone(), to.clone()))
                    .unwrap(),
            );
            assert_words(&kit.content(b), 1, round);
        }
        table.kept("the fence signals after the last write", who);

        kit.map(a).write(0, &words(2, 0, bytes));
        let cut = kit.side(&[part(a, 8, 16), part(a, 0, 3), part(a, 3, 8)]);
        let other = kit.side(&[part(b, 0, 1), part(b, 9, 16), part(b, 1, 9)]);
        wait(kit.engine.submit(kit.job(16, cut, other)).unwrap());
        let page = |range: PageRange, n: u64| kit.content(part(range, n, n + 1));
        let (source, target) = ([8, 9, 15, 0, 3, 7], [0, 9, 15, 1, 4, 8]);
        for (s, t) in source.into_iter().zip(target) {
            assert!(page(a, s) == page(b, t), "{who}: page {s} to {t}");
        }
        table.kept("sides may be cut differently", who);

        wait(
            kit.engine
                .submit(kit.job(16, Side::Zero, to.clone()))
                .unwrap(),
        );
        assert!(kit.content(b).iter().all(|byte| *byte == 0), "{who}");
        table.kept("zeroes are a source", who);

        let line = Timeline::new(4711, wall_clock());
        let gate = line.issue();
        let mut held = kit.job(16, from.clone(), to.clone());
        held.behind.push(gate.clone());
        let held = kit.engine.submit(held).unwrap();
        let mut next = kit.job(16, to.clone(), from.clone());
        next.behind.push(held.clone());
        let next = kit.engine.submit(next).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(!held.is_signalled() && !next.is_signalled(), "{who}");
        kit.map(a).write(0, &words(3, 0, bytes));
        line.signal(gate.seqno());
        assert_eq!((wait(next), wait(held)), (Status::Done, Status::Done));
        assert_words(&kit.content(b), 3, 0);
        assert_words(&kit.content(a), 3, 0);
        table.kept(
            "what is `behind` is waited for, in the order of submission",
            who,
        );

        let failing = line.issue();
        let mut job = kit.job(16, Side::Zero, to.clone());
        job.behind.push(failing.clone());
        let done = kit.engine.submit(job).unwrap();
        let mut chained = kit.job(16, Side::Zero, from.clone());
        chained.after.push(failing.clone());
        let failed = kit.engine.submit(chained).unwrap();
        line.fail(failing.seqno(), FenceError::Failed);
        let _ = done.wait(None);
        assert_eq!(done.status(), Status::Done, "{who}");
        assert!(kit.content(b).iter().all(|byte| *byte == 0), "{who}");
        table.kept("what failed `behind` it is not its business", who);
        let _ = failed.wait(None);
        assert!(matches!(failed.status(), Status::Failed(_)), "{who}");
        assert_words(&kit.content(a), 3, 0);
        table.kept("what failed `after` fails it, and it touches nothing", who);
        wait(
            kit.engine
                .submit(kit.job(16, from.clone(), to.clone()))
                .unwrap(),
        );
        assert_words(&kit.content(b), 3, 0);
        table.kept("it goes on after a failure", who);

        if who == "vulkan" {
            let short = kit.side(&[part(b, 0, 8)]);
            for job in [
                kit.job(16, from.clone(), short.clone()),
                kit.job(16, short, from.clone()),
                kit.job(16, from.clone(), Side::Zero),
                kit.job(
                    16,
                    from.clone(),
                    kit.side(&[part(b, 1 << 30, (1 << 30) + 16)]),
                ),
            ] {
                let refused = kit.engine.submit(job).map(drop);
                assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
            }
            table.kept("sides that are too short, or nowhere, are refused", who);
        }
        kit.give(first);
        kit.give(second);
    }
    table.print("CopyEngine");
    stage.assert_empty();
}

#[test]
fn mappers_keep_their_laws() {
    let Some(stage) = stage() else {
        return;
    };
    let mut table = Table::default();
    for mut kit in [Kit::sim(), Kit::vulkan(&stage)] {
        let who = kit.who;
        let Some(mapper) = kit.mapper.clone() else {
            println!("skipped: {who} maps nothing");
            continue;
        };
        let pool = Pool::new(Arc::clone(&kit.source), wall_clock(), PoolConfig::default());
        let runs: Vec<_> = (0..3)
            .map(|_| pool.take(&Want::new(pages(4))).unwrap())
            .collect();
        for (n, run) in (0..).zip(&runs) {
            pool.kmap(run.span())
                .unwrap()
                .write(0, &words(n, 0, 4 * 4096));
        }
        let spans = [runs[2].span(), runs[0].span(), runs[1].span()];
        let whole = FrameBytes {
            spans: &spans,
            offset: 0,
            len: 12 * 4096,
        };
        assert_eq!(mapper.live(), 0, "{who}");
        let mapping = mapper.map(whole, Direction::Both).unwrap();
        assert_eq!(
            (mapper.live(), mapping.list().bytes()),
            (1, 12 * 4096),
            "{who}"
        );
        table.kept("mappings are counted", who);
        let (extents, at) = kit.take(12);
        let mapped = Side::Mapped(Arc::clone(mapping.list()));
        let into = kit.job(12, mapped.clone(), kit.side(&[at]));
        kit.engine.submit(into).unwrap().wait(None).unwrap();
        for (n, owner) in [2, 0, 1].into_iter().enumerate() {
            let n = n as u64;
            assert_words(&kit.content(part(at, n * 4, n * 4 + 4)), owner, 0);
        }
        table.kept("the device finds the frames, in their order", who);
        kit.map(at).write(0, &words(9, 0, 12 * 4096));
        let out = kit.job(12, kit.side(&[at]), mapped.clone());
        kit.engine.submit(out).unwrap().wait(None).unwrap();
        let all = words(9, 0, 12 * 4096);
        for (n, run) in [&runs[2], &runs[0], &runs[1]].into_iter().enumerate() {
            let mut found = vec![0; 4 * 4096];
            pool.kmap(run.span()).unwrap().read(0, &mut found);
            assert!(found == all[n * 16384..(n + 1) * 16384], "{who}");
        }
        table.kept("the CPU finds what the device wrote", who);
        mapper.unmap(mapping);
        assert_eq!(mapper.live(), 0, "{who}");
        if who == "vulkan" {
            let refused = kit
                .engine
                .submit(kit.job(12, mapped, kit.side(&[at])))
                .map(drop);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
            table.kept("what was unmapped is not found", who);
        }
        let nothing = FrameBytes {
            spans: &spans,
            offset: 0,
            len: 0,
        };
        assert!(mapper.map(nothing, Direction::Both).is_err(), "{who}");
        let beyond = FrameBytes {
            spans: &spans,
            offset: 0,
            len: 1 << 30,
        };
        assert!(mapper.map(beyond, Direction::Both).is_err(), "{who}");
        assert_eq!(mapper.live(), 0, "{who}");
        table.kept("an error leaves nothing mapped", who);
        kit.give(extents);
        runs.into_iter().for_each(|run| pool.give(run.dirtied()));
    }
    table.print("Mapper");
    stage.assert_empty();
}

#[test]
fn timelines_keep_their_laws() {
    let Some(stage) = stage() else {
        return;
    };
    let mut table = Table::default();
    let own = Timeline::new(4712, wall_clock());
    let user = stage.vulkan.timeline().unwrap();
    let look = |table: &mut Table, who, next: &dyn Fn() -> Fence, to: &dyn Fn(&Fence)| {
        let fences: Vec<_> = (0..8).map(|_| next()).collect();
        assert!(fences.iter().all(|fence| fence.status() == Status::Pending));
        assert!(
            fences
                .windows(2)
                .all(|f| f[1].covers(&f[0]) && !f[0].covers(&f[1]))
        );
        let heard = Arc::new(AtomicU64::new(0));
        let hear = |fence: &Fence| {
            let heard = Arc::clone(&heard);
            fence.on_signal(move |_| {
                heard.fetch_add(1, Ordering::Relaxed);
            });
        };
        fences.iter().for_each(hear);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..16)
                .map(|n| {
                    let fence = &fences[n % 4];
                    scope.spawn(move || fence.wait(None).unwrap())
                })
                .collect();
            to(&fences[3]);
            let all = waiting.into_iter().map(|w| w.join().unwrap());
            assert!(all.into_iter().all(|status| status == Status::Done));
        });
        table.kept("everybody who waits is woken, earlier points first", who);
        assert!(fences[..4].iter().all(|f| f.status() == Status::Done));
        assert!(fences[4..].iter().all(|f| f.status() == Status::Pending));
        table.kept("what is later is pending", who);
        stage.until("all were told", || heard.load(Ordering::Relaxed) == 4);
        to(&fences[7]);
        stage.until("all were told", || heard.load(Ordering::Relaxed) == 8);
        hear(&fences[0]);
        assert_eq!(heard.load(Ordering::Relaxed), 9);
        table.kept("who listens is told once, also afterwards", who);
    };
    look(&mut table, "manager", &|| own.issue(), &|fence| {
        own.signal(fence.seqno())
    });
    let value = AtomicU64::new(0);
    let next = || {
        let (fence, at) = user.next();
        value.fetch_max(at, Ordering::Relaxed);
        fence
    };
    // Values are the points' numbers here.
    look(&mut table, "vulkan", &next, &|fence| {
        reach(&stage, &user, fence.seqno())
    });
    let later = user.fence_at(100).unwrap();
    for wrong in [0, 8, 100] {
        assert!(
            matches!(user.fence_at(wrong), Err(Error::Invalid(_))),
            "{wrong}"
        );
    }
    assert_eq!(user.next().1, 101);
    table.kept("values only grow", "vulkan");
    assert_eq!(stage.vulkan.point(&later), Some((user.semaphore(), 100)));
    reach(&stage, &user, 101);
    later.wait(None).unwrap();
    assert_eq!(stage.vulkan.point(&later), None);
    // Another one: the validation layer takes what a queue has signalled for pending for too long, and
    // then the CPU's signal for one that goes back.
    let other = stage.vulkan.timeline().unwrap();
    let (fence, _) = other.next();
    other.cancel(&fence);
    assert!(matches!(fence.wait(None).unwrap(), Status::Failed(_)));
    let (fence, at) = other.next();
    reach(&stage, &other, at);
    assert_eq!(fence.wait(None).unwrap(), Status::Done);
    table.kept("it goes on after a point that was not submitted", "vulkan");
    drop((user, other, later, fence));
    table.print("Timeline");
    stage.assert_empty();
}

/// Every answer of the driver can be carried out: no second hop, no copy by who does not reach it.
#[test]
fn the_drivers_routes_are_legal() {
    let mut table = Table::default();
    for import in [true, false] {
        for copies in [Copies::Queue, Copies::Cpu, Copies::Measured] {
            let Some(stage) = Setup::with_vram(SIZE)
                .config(|c| c.import(import).copies(copies))
                .stage()
            else {
                return;
            };
            let vulkan = &stage.vulkan;
            let driver = vulkan.driver();
            let image = ImageInfo::new(ash::vk::Format::R8G8B8A8_UNORM, 8, 8);
            let objects = [
                vulkan.memory(4096),
                vulkan.buffer(&BufferInfo::new(4096)).unwrap(),
                vulkan.image(&image).unwrap(),
            ];
            let types: Vec<_> = vulkan
                .layout()
                .memories
                .iter()
                .map(|m| m.mem_type)
                .collect();
            let frames = |t: MemType| vulkan.usage(t).is_none();
            for (n, described) in objects.iter().enumerate() {
                let opaque = n == 2;
                for (from, to) in types
                    .iter()
                    .flat_map(|a| types.iter().map(move |b| (*a, *b)))
                {
                    if frames(from) && frames(to) {
                        continue;
                    }
                    for has_content in [true, false] {
                        let bo = facts(from, opaque);
                        let job = moving(from, to, has_content);
                        let route = driver.route_of(&bo, &described.object, &job);
                        let at = format!("{from} to {to}, {has_content}, {opaque}, {route:?}");
                        match route {
                            Route::Null => assert!(!has_content, "{at}"),
                            Route::Cpu => assert!(!opaque && has_content, "{at}"),
                            Route::Clear(by) => {
                                assert!(!has_content && (by.is_some() || !opaque), "{at}");
                            }
                            Route::Engine(_) => assert!(has_content, "{at}"),
                            Route::Hop(stop) => {
                                let leg = moving(stop.mem_type, to, true);
                                let bo = facts(stop.mem_type, opaque);
                                let next = driver.route_of(&bo, &described.object, &leg);
                                // Images stay where nothing is imported.
                                let stuck = opaque && vulkan.mapper(&stage.source()).is_none();
                                assert!(stuck || !matches!(next, Route::Hop(_)), "{at}: {next:?}");
                            }
                        }
                    }
                    let evicted =
                        Driver::evict_to(&driver, &facts(from, opaque), &described.object);
                    if from == MemType::SYSTEM {
                        assert!(matches!(evicted, Eviction::Never), "{from}");
                    }
                }
            }
            drop(objects);
            stage.assert_empty();
        }
    }
    table.kept("routes can be carried out, in one hop at most", "vulkan");
    table.print("Driver");
}

fn facts(at: MemType, opaque: bool) -> BoFacts {
    BoFacts {
        id: 1 << 50,
        pages: pages(1),
        kind: BoKind::Device,
        mem_type: Some(at),
        range: PageRange::new(0, 1).unwrap(),
        priority: 0,
        pinned: false,
        mode: CacheMode::Cached,
        advice: Advice::WillNeed,
        opaque,
        cpu_access: false,
    }
}

fn moving(from: MemType, to: MemType, has_content: bool) -> MoveFacts {
    MoveFacts {
        from: Some(from),
        to,
        range: PageRange::new(0, 1).unwrap(),
        has_content,
        why: Reason::Validate,
    }
}
