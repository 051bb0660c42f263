//! Two cards in a machine, each with a manager of its own, and objects of the first that both use.
//!
//! The second card reads and writes by its own lists, while the objects go between system memory, TT,
//! device memory and the backup. Every word says whose it is and who wrote it when; what a card reads
//! is what was written last, whatever has moved in between, and no card ever goes where nothing is
//! mapped for it.

mod support;

use backends::sim::{Checksum, Gpu, IoSpace, Queue, RouteMode, SimDriver, checksum_words};
use placement::{CacheMode, MemType};
use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::context::OpContext;
use ttm::dma::{
    Constraints, Direction, DmaAddr, DmaDevice, DmaError, MappedList, Mapper, Mask, Path, PeerPath,
    Verdict,
};
use ttm::driver::Side;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Status, Usage};
use ttm::pages::FrameSpan;
use ttm::share::{AttachInfo, Attachment, ExportInfo, Exporter, Import, ShareCounts, Shared};
use ttm::sync::Arc;
use ttm::trace::Event;

use support::words::word;
use support::{Found, PAGE, Setup, World, in_type, system, tt, vram};

const SIZE: u64 = 6 * PAGE;
const WORDS: u64 = SIZE / 8;

/// Who writes.
const CPU: u64 = 1;
const OWN: u64 = 2;
const OTHER: u64 = 3;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// The two cards. The first has the objects.
struct Pair {
    own: World,
    other: World,
}

impl Pair {
    fn new(setup: &Setup, theirs: Found, driver: SimDriver) -> Self {
        let own = setup.build(driver);
        let setup = Setup {
            found: theirs,
            ..setup.clone()
        };
        let setup = setup.sharing(own.device.pool());
        let gpu = own.gpu.beside(setup.config()).unwrap();
        let other = setup.on(gpu, own.clock.clone(), SimDriver::new());
        Self { own, other }
    }

    fn create(&self) -> (Bo<SimDriver>, Shared<SimDriver>) {
        let bo = self.own.create_in(SIZE, &system());
        let shared = self.own.device.export(&bo, ExportInfo::new()).unwrap();
        (bo, shared)
    }

    fn card(&self) -> Arc<dyn Mapper> {
        Arc::clone(self.other.card.as_ref().expect("it has one")) as _
    }

    fn end(self) {
        let Self { own, other } = self;
        own.device
            .close(None)
            .unwrap_or_else(|h| panic!("I-11: {h:?}"));
        own.assert_empty();
        other.assert_empty();
    }
}

fn dma(error: Error) -> DmaError {
    match error {
        Error::Dma { source, .. } => *source.downcast().expect("a DmaError"),
        error => panic!("{error}"),
    }
}

/// What is known of an object: who wrote it last, and when.
struct Last {
    tag: u64,
    writer: u64,
    sequence: u64,
}

impl Last {
    fn sum(&self) -> u64 {
        checksum_words((0..WORDS).map(|n| word(self.tag, self.writer, n, self.sequence)))
    }

    fn next(&mut self, writer: u64) -> impl Fn(u64) -> u64 + Send + use<> {
        (self.writer, self.sequence) = (writer, self.sequence + 1);
        let (tag, sequence) = (self.tag, self.sequence);
        move |n| word(tag, writer, n, sequence)
    }
}

/// A read that is under way, and what it has to find.
struct Read {
    fence: Fence,
    found: Checksum,
    expected: u64,
    what: String,
}

/// One object, used by both.
struct Play<'a> {
    pair: &'a Pair,
    bo: Bo<SimDriver>,
    shared: Shared<SimDriver>,
    attached: Vec<Attachment<SimDriver>>,
    last: Last,
    reads: Vec<Read>,
    log: Vec<String>,
}

impl<'a> Play<'a> {
    fn new(pair: &'a Pair, infos: Vec<AttachInfo>) -> Self {
        let (bo, shared) = pair.create();
        let attach = |info| shared.attach(OpContext::new(), pair.card(), info).unwrap();
        let attached = infos.into_iter().map(attach).collect();
        let last = Last {
            tag: bo.id(),
            writer: CPU,
            sequence: 0,
        };
        let mut play = Self {
            pair,
            bo,
            shared,
            attached,
            last,
            reads: Vec::new(),
            log: Vec::new(),
        };
        play.cpu_writes();
        play
    }

    fn cpu_writes(&mut self) {
        let pattern = self.last.next(CPU);
        let bytes: Vec<u8> = (0..WORDS).flat_map(|n| pattern(n).to_le_bytes()).collect();
        self.pair
            .own
            .with(&self.bo, |r| r.write(0, &bytes))
            .unwrap();
    }

    fn cpu_reads(&self) {
        let Last {
            writer, sequence, ..
        } = self.last;
        self.pair.own.assert_image(&self.bo, writer, sequence);
    }

    /// A job of a card: where the object is for it, and which fences it waits for.
    fn job(
        &self,
        waits_for: Usage,
        adds: Usage,
        side: impl Fn(&Reserved<'_, SimDriver>) -> Result<Side>,
        submit: impl FnOnce(&Side, Vec<Fence>) -> Result<Fence>,
    ) -> Result<Fence> {
        let locked = self.shared.exec(OpContext::new(), |bo| {
            bo.reserve_fences(1)?;
            let side = side(bo)?;
            Ok((side, bo.fences(waits_for)))
        })?;
        let (side, after) = locked.value();
        let fence = submit(side, after.clone())?;
        locked.fence_all(&fence, adds);
        Ok(fence)
    }

    /// Where attachment `n` finds the object, mapped if it is not.
    fn list(&self, bo: &Reserved<'_, SimDriver>, n: usize) -> Result<Side> {
        let attached = &self.attached[n];
        let list = match attached.list() {
            Ok(list) => list,
            Err(DmaError::NotLent | DmaError::Revoked { .. }) => {
                attached.map(bo, Direction::Both)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Side::Mapped(list))
    }

    fn other_writes(&mut self, n: usize) {
        let pattern = self.last.next(OTHER);
        let queue = self.pair.other.gpu.queue(n);
        let side = |bo: &Reserved<'_, SimDriver>| self.list(bo, n);
        let submit = |side: &Side, after| queue.fill_with(side, pattern, after);
        drop(self.job(Usage::Read, Usage::Write, side, submit).unwrap());
    }

    fn own_writes(&mut self) {
        let pattern = self.last.next(OWN);
        let queue = self.pair.own.gpu.queue(0);
        let submit = |side: &Side, after| queue.fill_with(side, pattern, after);
        let fence = self.job(Usage::Read, Usage::Write, |bo| bo.side(), submit);
        drop(fence.unwrap());
    }

    fn reads_by(&mut self, n: Option<usize>) {
        let queue = match n {
            Some(n) => self.pair.other.gpu.queue(n),
            None => self.pair.own.gpu.queue(0),
        };
        let mut found = None;
        let side = |bo: &Reserved<'_, SimDriver>| match n {
            Some(n) => self.list(bo, n),
            None => bo.side(),
        };
        let submit = |side: &Side, after| {
            let (fence, sum) = queue.checksum(side, after)?;
            found = Some(sum);
            Ok(fence)
        };
        let fence = self.job(Usage::Write, Usage::Read, side, submit).unwrap();
        self.reads.push(Read {
            fence,
            found: found.unwrap(),
            expected: self.last.sum(),
            what: format!("{n:?} after {:?}", self.log),
        });
    }

    fn finish_reads(&mut self) {
        for read in self.reads.drain(..) {
            assert_eq!(read.fence.wait(None).unwrap(), Status::Done);
            assert_eq!(
                read.found.get(),
                Some(read.expected),
                "read by {}",
                read.what
            );
        }
    }

    /// Moves it, unless somebody keeps it.
    fn go(&self, to: MemType) {
        match self.pair.own.validate(&self.bo, &in_type(to)) {
            Ok(_) => {}
            Err(Error::Pinned) => assert!(self.is_kept(), "{:?}", self.log),
            Err(error) => panic!("{error}"),
        }
    }

    fn is_kept(&self) -> bool {
        self.shared.counts().mapped > 0 || self.shared.counts().pinned > 0
    }

    fn swap_out(&self) {
        let swapped = self.pair.own.with(&self.bo, |bo| match bo.mem_type() {
            Some(MemType::SYSTEM) => bo.swap_out(),
            _ => Ok(()),
        });
        match swapped {
            Ok(()) => {}
            Err(Error::Pinned) => assert!(self.is_kept()),
            Err(error) => panic!("{error}"),
        }
    }

    fn unmap(&self, n: usize) {
        let unmapped = self
            .shared
            .exec(OpContext::new(), |bo| self.attached[n].unmap(bo));
        if let Err(error) = unmapped.map(drop) {
            assert_eq!(dma(error), DmaError::NotLent);
        }
    }

    fn step(&mut self, dice: &mut Random) {
        let n = dice.below(self.attached.len() as u64) as usize;
        let types = [MemType::SYSTEM, MemType::TT, MemType::VRAM];
        let step = dice.below(14);
        self.log.push(format!("{step}/{n}"));
        match step {
            0..4 => self.go(types[dice.below(3) as usize]),
            4 => {
                self.go(MemType::SYSTEM);
                self.swap_out();
            }
            5 | 6 => self.other_writes(n),
            7 | 8 => self.reads_by(Some(n)),
            9 => self.own_writes(),
            10 => self.reads_by(None),
            11 => self.cpu_writes(),
            12 => self.unmap(n),
            _ => {
                self.cpu_reads();
                self.pair.own.device.reap();
            }
        }
        let checked = self.pair.own.device.check();
        checked.unwrap_or_else(|v| panic!("{v} after {:?}", self.log));
    }

    fn end(mut self) {
        self.finish_reads();
        self.cpu_reads();
        let Self {
            attached,
            shared,
            bo,
            pair,
            ..
        } = self;
        drop(attached);
        assert_eq!(shared.counts(), ShareCounts::default());
        drop((shared, bo));
        pair.own.device.reap();
    }
}

fn near() -> PeerPath {
    PeerPath::BusAddress { hops: 4 }
}

/// Who is attached, in one of the plays.
fn infos(kind: u64) -> Vec<AttachInfo> {
    let info = |name: &str| AttachInfo::new(name);
    match kind % 5 {
        0 => vec![info("a").dynamic(), info("b").dynamic()],
        1 => vec![info("a").dynamic().through(near())],
        2 => vec![info("a"), info("b").dynamic()],
        3 => vec![info("a").revocable(), info("b").dynamic()],
        _ => vec![
            info("a").dynamic().through(near()),
            info("b").dynamic().migrating(),
        ],
    }
}

fn play(seed: u64) -> (Vec<String>, u64) {
    let mut dice = Random(seed * 7919 + 1);
    let found = [Found::Translated, Found::Direct];
    let (ours, theirs) = (found[(seed % 2) as usize], found[(seed / 2 % 2) as usize]);
    let routes = [RouteMode::Engine, RouteMode::Cpu][(seed / 4 % 2) as usize];
    let setup = Setup {
        vram: 32,
        seed,
        found: ours,
        ..Setup::default()
    };
    let pair = Pair::new(&setup, theirs, SimDriver::new().routes(routes));
    let mut play = Play::new(&pair, infos(seed));
    for step in 0..60 {
        play.step(&mut dice);
        if step % 16 == 15 {
            play.finish_reads();
        }
    }
    let log = play.log.clone();
    play.end();
    let now = pair.own.device.clock().now().nanos();
    pair.end();
    (log, now)
}

#[test]
fn two_cards_read_and_write_one_object_wherever_it_goes() {
    for seed in 1..=60 {
        play(seed);
    }
}

#[test]
fn a_play_is_the_same_each_time() {
    for seed in [3, 14] {
        assert_eq!(play(seed), play(seed));
    }
}

/// Under pressure: others push the object around while the second card works on it.
#[test]
fn others_push_a_shared_object_around() {
    for seed in 1..=12 {
        let setup = Setup {
            vram: 16,
            system_limit: Some(28),
            seed,
            found: Found::Translated,
            ..Setup::default()
        };
        let pair = Pair::new(&setup, Found::Translated, SimDriver::new());
        let mut play = Play::new(&pair, infos(seed % 2));
        let crowd: Vec<_> = (0..4)
            .map(|_| pair.own.create_in(SIZE, &system()))
            .collect();
        let mut dice = Random(seed);
        for _ in 0..40 {
            let one = &crowd[dice.below(4) as usize];
            let to = [vram(), tt(), system()][dice.below(3) as usize].clone();
            pair.own.validate(one, &to).unwrap();
            pair.own.with(one, |r| r.write(0, &[7; 64])).unwrap();
            match dice.below(3) {
                0 => play.other_writes(0),
                1 => play.reads_by(Some(0)),
                _ => play.cpu_reads(),
            }
            let checked = pair.own.device.check();
            checked.unwrap_or_else(|v| panic!("{v}"));
        }
        play.end();
        drop(crowd);
        pair.end();
    }
}

/// The two-address-space law: one card, two contexts, one set of pages.
#[test]
fn contexts_of_a_card_come_and_go_without_touching_the_pages() {
    let setup = Setup {
        found: Found::Translated,
        ..Setup::default()
    };
    let pair = Pair::new(&setup, Found::Translated, SimDriver::new());
    let (bo, shared) = pair.create();
    pair.own.validate(&bo, &tt()).unwrap();
    pair.own.write_image(&bo, CPU, 1).unwrap();
    let gpu = &pair.other.gpu;
    let contexts: Vec<(Arc<IoSpace>, Arc<DmaDevice>, Queue)> = (0..3)
        .map(|_| {
            let io = IoSpace::new(Mask::ALL, Arc::clone(gpu.inject()));
            let verdict = Verdict::for_tests(Path::Translated { strict: true });
            let mapper = gpu.mapper_in(verdict, Some(&io)).unwrap();
            let queue = gpu.queue(0).through(&io);
            (io, mapper, queue)
        })
        .collect();
    let frames = pair.own.with(&bo, |r| Ok(r.ranges())).unwrap();
    pair.own.log.take();
    let used = pair.own.device.system_budget().used();
    for round in 0..4 {
        let mut live = Vec::new();
        for (n, (io, mapper, queue)) in contexts.iter().enumerate() {
            let info = AttachInfo::new(format!("context {n}")).dynamic();
            let attached = shared
                .attach(OpContext::new(), Arc::clone(mapper) as _, info)
                .unwrap();
            let mapped = |bo: &Reserved<'_, SimDriver>| {
                bo.reserve_fences(1)?;
                attached.map(bo, Direction::Both)
            };
            let locked = shared.exec(OpContext::new(), mapped).unwrap();
            let side = Side::Mapped(Arc::clone(locked.value()));
            let (fence, sum) = queue.checksum(&side, []).unwrap();
            locked.fence_all(&fence, Usage::Read);
            drop(locked);
            assert_eq!(fence.wait(None).unwrap(), Status::Done);
            let last = Last {
                tag: bo.id(),
                writer: CPU,
                sequence: 1,
            };
            assert_eq!(sum.get(), Some(last.sum()), "context {n} in round {round}");
            assert_eq!(io.shown().get(), SIZE / PAGE);
            live.push((attached, side));
        }
        // What one of them had means nothing to the next once it is gone.
        let (gone, side) = live.remove(round % 3);
        drop(gone);
        pair.own.device.reap();
        let (io, _, queue) = &contexts[round % 3];
        assert!(io.shown().is_zero());
        let before = io.faults().len();
        let (fence, _) = queue.checksum(&side, []).unwrap();
        assert_eq!(fence.wait(None).unwrap(), Status::Done);
        assert!(io.faults().len() > before, "it still reached the pages");
        drop(live);
        pair.own.device.reap();
        pair.own.check();
    }
    for (io, mapper, _) in &contexts {
        assert_eq!(
            (io.shown().get(), mapper.live(), io.stale_uses()),
            (0, 0, 0)
        );
    }
    let mut told = pair.own.log.take();
    told.retain(|event| !matches!(event, Event::Mapped { lent: true, .. }));
    assert_eq!(told, [], "nothing was moved, swapped or switched");
    assert_eq!(pair.own.with(&bo, |r| Ok(r.ranges())).unwrap(), frames);
    assert_eq!(pair.own.device.system_budget().used(), used);
    drop((shared, bo));
    pair.end();
}

/// Says where frames are.
struct Machine(Gpu);

impl Exporter for Machine {
    fn address(&self, frames: FrameSpan) -> Option<DmaAddr> {
        DmaAddr::new(self.0.physical(frames)?)
    }
}

/// A card with 28 address lines comes late. What it gets lies low, with its content, also when it
/// comes back from the backup, and whether the exporter knows addresses or not.
#[test]
fn a_narrow_card_has_the_object_where_it_reaches_it() {
    for (knows, early) in [(true, true), (true, false), (false, false)] {
        let setup = Setup {
            found: Found::Translated,
            ..Setup::default()
        };
        let memory =
            backends::sim::SimMemory::new(support::pages(1 << 20)).dma32(support::pages(4096));
        let config = backends::sim::GpuConfig {
            memory,
            ..setup.config()
        };
        let clock = backends::sim::VirtualClock::new();
        let time = backends::sim::SimClock::Virtual(Arc::clone(&clock));
        let gpu = Gpu::new(config, time).unwrap();
        let own = setup.on(gpu.clone(), Some(clock), SimDriver::new());
        let narrow = Mask::bits(32);
        let verdict = Verdict {
            mask: narrow,
            ..Verdict::for_tests(Path::Direct)
        };
        let camera = gpu.beside(Setup::default().config()).unwrap();
        let mapper = camera.mapper(verdict).unwrap();
        let bo = own.create_in(SIZE, &tt());
        own.write_image(&bo, CPU, 1).unwrap();
        let info = match knows {
            true => ExportInfo::new().by(Arc::new(Machine(gpu.clone()))),
            false => ExportInfo::new(),
        };
        let shared = own.device.export(&bo, info).unwrap();
        let wide = AttachInfo::new("wide").dynamic();
        let card = Arc::clone(own.card.as_ref().unwrap()) as Arc<dyn Mapper>;
        let wide = shared.attach(OpContext::new(), card, wide).unwrap();
        let map = |attached: &Attachment<SimDriver>| -> Arc<MappedList> {
            let mapped = |bo: &Reserved<'_, SimDriver>| attached.map(bo, Direction::Both);
            let locked = shared.exec(OpContext::new(), mapped).unwrap();
            Arc::clone(locked.value())
        };
        if early {
            map(&wide);
        }
        let reach = Constraints {
            limit: narrow,
            ..Constraints::ANY
        };
        let strict = || AttachInfo::new("camera").constraints(reach).dynamic();
        if early {
            let refused = shared.attach(OpContext::new(), Arc::clone(&mapper) as _, strict());
            let refused = dma(refused.unwrap_err());
            assert!(
                matches!(&refused, DmaError::NeedsMigration { unmap, .. } if unmap[..] == ["wide"]),
                "{refused}"
            );
            assert_eq!(refused.to_errno(), 16, "EBUSY");
        }
        let strict = strict().migrating();
        let attached = shared
            .attach(OpContext::new(), Arc::clone(&mapper) as _, strict)
            .unwrap();
        assert_eq!(wide.list().is_err_and(|e| e != DmaError::NotLent), early);
        for round in 0..2 {
            let list = map(&attached);
            let last = list.dma_segments().iter().map(|s| s.last().unwrap()).max();
            assert!(last <= Some(narrow.last()), "{last:x?}");
            let (fence, sum) = camera.queue(0).checksum(&Side::Mapped(list), []).unwrap();
            assert_eq!(fence.wait(None).unwrap(), Status::Done);
            let last = Last {
                tag: bo.id(),
                writer: CPU,
                sequence: 1,
            };
            assert_eq!(sum.get(), Some(last.sum()), "{knows} {early} {round}");
            own.check();
            // Out to the backup and back.
            own.validate(&bo, &system()).unwrap();
            own.with(&bo, |r| r.swap_out()).unwrap();
            assert!(attached.list().is_err());
        }
        drop((attached, wide, shared));
        own.assert_image(&bo, CPU, 1);
        drop(bo);
        own.assert_empty();
        assert_eq!(mapper.live(), 0);
    }
}

/// A card that does not see the CPU's caches: what the CPU wrote between the brackets is what the
/// card reads, and the other way round.
#[test]
fn brackets_make_caches_and_cards_agree() {
    let setup = Setup {
        vram: 16,
        ..Setup::default()
    }
    .not_snooping();
    let pair = Pair::new(&setup, Found::Frames, SimDriver::new());
    let (bo, shared) = pair.create();
    pair.own.with(&bo, |r| r.populate()).unwrap();
    let side = pair.own.with(&bo, |r| r.side()).unwrap();
    let Side::Frames(spans) = &side else {
        panic!("frames");
    };
    let source = pair.own.device.pool().source();
    let maps: Vec<_> = spans
        .iter()
        .map(|span| source.map(*span, CacheMode::Cached).unwrap())
        .collect();
    let queue = pair.other.gpu.queue(0);
    for value in 1..20_u64 {
        let access = shared
            .begin_cpu(OpContext::new(), Direction::ToDevice)
            .unwrap();
        for map in &maps {
            for at in (0..map.len()).step_by(8) {
                map.write(at, &value.to_le_bytes());
            }
        }
        match value % 2 {
            0 => drop(access),
            _ => access.end(OpContext::new()).unwrap(),
        }
        let (fence, sum) = queue.checksum(&side, []).unwrap();
        assert_eq!(fence.wait(None).unwrap(), Status::Done);
        let expected = checksum_words((0..WORDS).map(|_| value));
        assert_eq!(
            sum.get(),
            Some(expected),
            "the card reads what was there before"
        );

        let locked = shared
            .exec(OpContext::new(), |bo| bo.reserve_fences(1))
            .unwrap();
        let fence = queue.fill(&side, !value, []).unwrap();
        locked.fence_all(&fence, Usage::Write);
        drop(locked);
        let outer = shared
            .begin_cpu(OpContext::new(), Direction::FromDevice)
            .unwrap();
        let inner = shared.begin_cpu(OpContext::new(), Direction::Both).unwrap();
        for map in &maps {
            for at in (0..map.len()).step_by(8) {
                let mut found = [0; 8];
                map.read(at, &mut found);
                assert_eq!(
                    u64::from_le_bytes(found),
                    !value,
                    "the CPU reads what it had"
                );
            }
        }
        outer.end(OpContext::new()).unwrap();
        inner.end(OpContext::new()).unwrap();
    }
    drop(maps);
    drop((shared, bo));
    pair.end();
}

/// A card that goes away takes nothing with it that is not its own.
#[test]
fn a_lost_borrower_leaves_the_object() {
    let setup = Setup {
        found: Found::Translated,
        ..Setup::default()
    };
    let pair = Pair::new(&setup, Found::Translated, SimDriver::new());
    let mut play = Play::new(&pair, infos(0));
    play.reads_by(Some(0));
    play.reads_by(Some(1));
    let reads = core::mem::take(&mut play.reads);
    pair.other.gpu.lose();
    for read in &reads {
        assert!(matches!(read.fence.wait(None).unwrap(), Status::Failed(_)));
    }
    play.go(MemType::VRAM);
    pair.own.settle(&play.bo);
    pair.own.device.reap();
    assert_eq!(pair.other.card.as_ref().unwrap().live(), 0);
    play.cpu_reads();
    play.end();
    pair.end();
}

/// The exporter's device goes away: what is in its memory is lost to both, what is in system memory
/// is not.
#[test]
fn a_lost_exporter_says_so() {
    let setup = Setup {
        found: Found::Translated,
        ..Setup::default()
    };
    let pair = Pair::new(&setup, Found::Translated, SimDriver::new());
    let mut near_one = Play::new(&pair, infos(1));
    near_one.go(MemType::VRAM);
    near_one.reads_by(Some(0));
    near_one.finish_reads();
    pair.own.device.reap();
    let mut far_one = Play::new(&pair, infos(0));
    far_one.reads_by(Some(0));
    far_one.finish_reads();
    pair.own.gpu.lose();
    pair.own.device.set_lost();
    pair.own.device.reap();
    let told = near_one.attached[0].list().unwrap_err();
    assert_eq!(told, DmaError::Revoked { generation: 1 });
    let mapped = |bo: &Reserved<'_, SimDriver>| near_one.attached[0].map(bo, Direction::Both);
    let refused = near_one.shared.exec(OpContext::new(), mapped).map(drop);
    assert!(matches!(refused, Err(Error::ContentLost)), "{refused:?}");
    far_one.reads_by(Some(0));
    far_one.end();
    pair.own.check();
    drop(near_one);
    pair.own.gpu.restore().unwrap();
    pair.own.device.set_restored();
    pair.end();
}

#[test]
fn each_device_finds_its_own_and_only_that() {
    let pair = Pair::new(&Setup::default(), Found::Direct, SimDriver::new());
    let (bo, shared) = pair.create();
    assert!(matches!(pair.own.device.import(&shared), Import::SelfImport(own) if own == bo));
    let Import::Foreign(imported) = pair.other.device.import(&shared) else {
        panic!("another's");
    };
    assert_eq!(shared.counts().imports, 1);
    let refused = pair.other.device.export(&bo, ExportInfo::new());
    assert!(matches!(refused.unwrap_err(), Error::Invalid(_)));
    let theirs = pair.other.device.create(BoInfo::new(PAGE), ()).unwrap();
    let exported = pair
        .other
        .device
        .export(&theirs, ExportInfo::new())
        .unwrap();
    assert!(matches!(
        pair.own.device.import(&exported),
        Import::Foreign(_)
    ));
    drop((imported, exported, theirs, shared, bo));
    pair.other.device.reap();
    pair.end();
}

/// The copy to where an object was lent fails: whoever was lent the new pages has lost them, and the
/// old place is the truth.
#[test]
fn a_failed_copy_takes_the_new_pages_away() {
    let setup = Setup {
        found: Found::Translated,
        ..Setup::default()
    };
    for site in ["copy.middle", "copy.late-error"] {
        let pair = Pair::new(&setup, Found::Translated, SimDriver::new());
        let mut play = Play::new(&pair, infos(0));
        play.go(MemType::VRAM);
        pair.own.settle(&play.bo);
        pair.own.device.reap();
        pair.own.inject.fail(site, 1, false);
        play.go(MemType::TT);
        // Its content is still on its way; a dynamic one need not wait to map it.
        let mapped = play.shared.exec(OpContext::new(), |bo| {
            play.attached[0].map(bo, Direction::Both)?;
            play.attached[0].fences(bo)
        });
        let mapped = mapped.unwrap();
        assert_eq!(mapped.value().len(), 1);
        drop(mapped);
        assert!(play.attached[0].list().is_ok());
        pair.own.check();
        pair.own.settle(&play.bo);
        pair.own.device.reap();
        pair.own.inject.clear();
        assert_eq!(pair.own.place_of(&play.bo), Some(MemType::VRAM));
        let told = play.attached[0].list().unwrap_err();
        assert_eq!(told, DmaError::Revoked { generation: 1 });
        assert_eq!(pair.other.card.as_ref().unwrap().live(), 0);
        pair.own.check();
        play.reads_by(Some(0));
        play.end();
        pair.end();
    }
}

/// A card that sleeps takes its memory away from everybody, also from who keeps the object there; he
/// finds it in the same place when it wakes.
#[test]
fn a_sleeping_exporter_tells_those_who_have_its_memory() {
    let setup = Setup {
        found: Found::Translated,
        ..Setup::default()
    };
    let pair = Pair::new(&setup, Found::Translated, SimDriver::new());
    let stays = AttachInfo::new("stays").through(near());
    let mut play = Play::new(&pair, vec![stays]);
    play.go(MemType::VRAM);
    play.reads_by(Some(0));
    play.finish_reads();
    let ranges = pair.own.with(&play.bo, |r| Ok(r.ranges())).unwrap();
    let suspended = pair.own.device.suspend(OpContext::new()).unwrap();
    assert_eq!((suspended.evicted, suspended.saved), (0, 1));
    let told = play.attached[0].list().unwrap_err();
    assert_eq!(told, DmaError::Revoked { generation: 1 });
    pair.own.check();
    assert_eq!(pair.own.device.resume(OpContext::new()).unwrap(), 1);
    play.reads_by(Some(0));
    play.finish_reads();
    assert_eq!(pair.own.with(&play.bo, |r| Ok(r.ranges())).unwrap(), ranges);
    pair.own.check();
    play.end();
    pair.end();
}
