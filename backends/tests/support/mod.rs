//! What several test binaries share: a device over the fake GPU, its event log, and the words by
//! which content is told apart.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod words;

use backends::host::FileBackup;
use backends::sim::{
    CacheModel, EngineConfig, FailingBackup, Gpu, GpuConfig, Inject, SimClock, SimDriver,
    SimMemory, VirtualClock,
};
use placement::{Buddy, MemType, PageCount, Place, Placement, Range, Space};
use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::dma::{DmaDevice, Mapper, Mask, Path, Verdict};
use ttm::driver::{Driver, Side};
use ttm::error::Result;
use ttm::fault::Faults;
use ttm::fence::{Fence, Usage};
use ttm::pages::{Pool, Zone};
use ttm::sync::{Arc, Mutex};
use ttm::trace::{Event, Record, Sink};

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// A private memory type.
pub(crate) const PRIVATE: MemType = MemType::private(0).expect("there are six");

pub(crate) fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("a small number of pages")
}

pub(crate) fn in_type(mem_type: MemType) -> Placement {
    Placement::of(Place::new(mem_type))
}

pub(crate) fn vram() -> Placement {
    in_type(MemType::VRAM)
}

pub(crate) fn tt() -> Placement {
    in_type(MemType::TT)
}

pub(crate) fn system() -> Placement {
    in_type(MemType::SYSTEM)
}

/// No test has so many events unless something goes round in circles.
const ENDLESS: usize = 500_000;

/// Numbers that are the same each time.
pub(crate) fn draw(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) % below
}

/// Every event, in order.
#[derive(Default)]
pub(crate) struct Log {
    records: Mutex<Vec<Record>>,
}

impl Log {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.records.lock().iter().map(|r| r.event).collect()
    }

    /// The events since the last call.
    pub(crate) fn take(&self) -> Vec<Event> {
        let records = core::mem::take(&mut *self.records.lock());
        records.into_iter().map(|r| r.event).collect()
    }
}

impl Sink for Log {
    fn record(&self, record: &Record) {
        let mut records = self.records.lock();
        records.push(*record);
        let len = records.len();
        assert!(len < ENDLESS, "it never ends: {:#?}", &records[len - 8..]);
    }
}

/// Ends a transaction that restarts for ever, as when every lock is made to fail.
fn bounded(rounds: &mut u32) -> Result<()> {
    *rounds += 1;
    match *rounds {
        ..=200 => Ok(()),
        _ => Err(ttm::error::Error::Busy),
    }
}

/// Bytes that the moves among `events` moved, hops included.
pub(crate) fn bytes_of_moves(events: &[Event]) -> u64 {
    let bytes = |e: &Event| match e {
        Event::Moved { bytes, why, .. } if *why != ttm::trace::Reason::RolledBack => *bytes,
        _ => 0,
    };
    events.iter().map(bytes).sum()
}

/// What a device is built of.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Pages of VRAM.
    pub(crate) vram: u64,
    /// Pages of it that the CPU sees; all, if none.
    pub(crate) aperture: Option<u64>,
    /// Buddy allocator instead of ranges.
    pub(crate) buddy: bool,
    /// Pages of TT; endless, if none.
    pub(crate) tt: Option<u64>,
    /// Pages of a private type backed by frames.
    pub(crate) private: Option<u64>,
    /// Pages that may be populated.
    pub(crate) system_limit: Option<u64>,
    /// Pages of the backup; no backup, if none.
    pub(crate) swap: Option<u64>,
    /// How many copy engines.
    pub(crate) engines: usize,
    /// Seed of the virtual clock; 0 runs clients in order.
    pub(crate) seed: u64,
    /// Real threads and real time.
    pub(crate) wall: bool,
    /// The addresses that system pages need.
    pub(crate) zone: Zone,
    /// The device does not see the CPU's caches, which are modelled.
    pub(crate) sees_no_caches: bool,
    /// A pool that is shared with others.
    pub(crate) pool: Option<Arc<Pool>>,
    /// By what the device finds system pages.
    pub(crate) found: Found,
}

/// By what a device finds system pages.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Found {
    /// By itself: it is handed frames.
    #[default]
    Frames,
    /// At their own addresses.
    Direct,
    /// By an IOMMU.
    Translated,
    /// By one whose addresses are so many pages.
    Scarce(u64),
}

impl Found {
    fn is_translated(self) -> bool {
        matches!(self, Self::Translated | Self::Scarce(_))
    }

    /// What is known of the device's way to memory.
    pub(crate) fn verdict(self) -> Option<Verdict> {
        let (path, mask) = match self {
            Self::Frames => return None,
            Self::Direct => (Path::Direct, Mask::ALL),
            Self::Translated => (Path::Translated { strict: true }, Mask::ALL),
            Self::Scarce(pages) => {
                let mask = Mask::up_to(pages * PAGE - 1);
                (Path::Translated { strict: true }, mask)
            }
        };
        Some(Verdict {
            mask,
            ..Verdict::for_tests(path)
        })
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            vram: 256,
            aperture: None,
            buddy: false,
            tt: None,
            private: None,
            system_limit: None,
            swap: Some(4096),
            engines: 1,
            seed: 0,
            wall: false,
            zone: Zone::Normal,
            sees_no_caches: false,
            pool: None,
            found: Found::Frames,
        }
    }
}

/// A device, its fake GPU, and what listens to them.
pub(crate) struct World<D: Driver = SimDriver> {
    pub(crate) device: Device<D>,
    pub(crate) gpu: Gpu,
    pub(crate) inject: Arc<Inject>,
    pub(crate) log: Arc<Log>,
    /// None on the wall clock.
    pub(crate) clock: Option<Arc<VirtualClock>>,
    /// What maps system pages for it.
    pub(crate) card: Option<Arc<DmaDevice>>,
}

impl Setup {
    pub(crate) fn not_snooping(mut self) -> Self {
        self.sees_no_caches = true;
        self
    }

    pub(crate) fn sharing(mut self, pool: &Arc<Pool>) -> Self {
        self.pool = Some(Arc::clone(pool));
        self
    }

    pub(crate) fn config(&self) -> GpuConfig {
        let speed = EngineConfig {
            bytes_per_second: if self.wall { 0 } else { 1_000_000_000 },
            latency_ns: if self.wall { 0 } else { 1_000 },
        };
        let memory = match self.sees_no_caches {
            true => SimMemory::default().cache(CacheModel::seeded(1)),
            false => SimMemory::default(),
        };
        GpuConfig {
            memory,
            translated: self.found.is_translated(),
            aperture: pages(self.aperture.unwrap_or(self.vram)),
            engines: vec![speed; self.engines],
            queue: speed,
            ..GpuConfig::new(pages(self.vram))
        }
    }

    fn space(&self) -> Box<dyn Space> {
        match self.buddy {
            true => Box::new(Buddy::new(pages(self.vram))),
            false => Box::new(Range::new(pages(self.vram))),
        }
    }

    pub(crate) fn build<D: Driver>(&self, driver: D) -> World<D> {
        let clock = (!self.wall).then(|| VirtualClock::seeded(self.seed));
        let time = clock.clone().map_or(SimClock::Wall, SimClock::Virtual);
        let inject = Inject::new();
        let gpu = Gpu::with_inject(self.config(), time, Arc::clone(&inject)).unwrap();
        self.on(gpu, clock, driver)
    }

    /// A device of the manager on a GPU that is there already.
    pub(crate) fn on<D: Driver>(
        &self,
        gpu: Gpu,
        clock: Option<Arc<VirtualClock>>,
        driver: D,
    ) -> World<D> {
        let faults = Arc::clone(gpu.inject()) as Arc<dyn Faults>;
        self.with_faults(gpu, clock, driver, faults)
    }

    /// The same, with somebody else to decide which steps of the manager fail.
    pub(crate) fn with_faults<D: Driver>(
        &self,
        gpu: Gpu,
        clock: Option<Arc<VirtualClock>>,
        driver: D,
        faults: Arc<dyn Faults>,
    ) -> World<D> {
        let inject = Arc::clone(gpu.inject());
        let log = Arc::new(Log::default());
        let builder = Device::builder(driver, gpu.clock());
        let builder = match &self.pool {
            Some(pool) => builder.pool(Arc::clone(pool)),
            None => builder.pages(gpu.pages()),
        };
        let mut builder = builder
            .zone(self.zone)
            .sink(Arc::clone(&log) as Arc<dyn Sink>)
            .faults(faults);
        if self.vram > 0 {
            builder = builder.memory(MemType::VRAM, self.space(), gpu.region());
        }
        if let Some(size) = self.tt {
            builder = builder.frames(MemType::TT, Box::new(Range::new(pages(size))));
        }
        if let Some(size) = self.private {
            builder = builder.frames(PRIVATE, Box::new(Range::new(pages(size))));
        }
        if let Some(limit) = self.system_limit {
            builder = builder.system_limit(pages(limit));
        }
        if let Some(limit) = self.swap {
            let file = FileBackup::new(std::env::temp_dir(), limit * PAGE).unwrap();
            let backup = FailingBackup::new(Arc::new(file), Arc::clone(&inject));
            builder = builder.backup(Arc::new(backup));
        }
        for engine in gpu.engines() {
            builder = builder.engine(engine);
        }
        let card = self.found.verdict().map(|verdict| gpu.mapper(verdict));
        let card = card.transpose().unwrap();
        if let Some(card) = &card {
            builder = builder.mapper(Arc::clone(card) as Arc<dyn Mapper>);
        }
        World {
            device: builder.build().unwrap(),
            gpu,
            inject,
            log,
            clock,
            card,
        }
    }
}

impl World {
    /// A device with the simulator's driver.
    pub(crate) fn new(setup: &Setup) -> Self {
        setup.build(SimDriver::new())
    }
}

impl<D: Driver<Object = ()>> World<D> {
    pub(crate) fn create(&self, bytes: u64) -> Bo<D> {
        self.device.create(BoInfo::new(bytes), ()).unwrap()
    }

    pub(crate) fn create_in(&self, bytes: u64, placement: &Placement) -> Bo<D> {
        let info = BoInfo::new(bytes);
        self.device
            .create_in(OpContext::new(), info, (), placement)
            .unwrap()
    }
}

impl<D: Driver> World<D> {
    /// Runs `f` on the locked object in a transaction of its own.
    pub(crate) fn with<R>(
        &self,
        bo: &Bo<D>,
        mut f: impl FnMut(&Reserved<'_, D>) -> Result<R>,
    ) -> Result<R> {
        let mut value = None;
        let mut rounds = 0;
        let locked = self.device.exec(OpContext::new(), |t| {
            bounded(&mut rounds)?;
            value = Some(f(&t.lock(bo)?)?);
            Ok(())
        })?;
        drop(locked);
        Ok(value.expect("the closure ran"))
    }

    /// Validates in a transaction of its own; answers the bytes moved.
    pub(crate) fn validate(&self, bo: &Bo<D>, placement: &Placement) -> Result<u64> {
        self.validate_with(OpContext::new(), bo, placement)
    }

    pub(crate) fn validate_with(
        &self,
        context: OpContext,
        bo: &Bo<D>,
        placement: &Placement,
    ) -> Result<u64> {
        let mut rounds = 0;
        let locked = self.device.exec(context, |t| {
            bounded(&mut rounds)?;
            t.lock(bo)?.validate(placement)
        })?;
        Ok(locked.context().bytes_moved())
    }

    /// Queues a kernel on the object where it is; answers its fence, and what it answers itself.
    pub(crate) fn kernel<R>(
        &self,
        bo: &Bo<D>,
        usage: Usage,
        kernel: impl FnOnce(&Side, Vec<Fence>) -> Result<(Fence, R)>,
    ) -> Result<(Fence, R)> {
        let locked = self.device.exec(OpContext::new(), |t| {
            let held = t.lock(bo)?;
            held.reserve_fences(1)?;
            Ok((held.side()?, held.fences(usage)))
        })?;
        let (side, after) = locked.value().clone();
        let (fence, value) = kernel(&side, after)?;
        locked.fence_all(&fence, usage);
        Ok((fence, value))
    }

    pub(crate) fn place_of(&self, bo: &Bo<D>) -> Option<MemType> {
        self.with(bo, |r| Ok(r.mem_type())).unwrap()
    }

    pub(crate) fn used(&self, mem_type: MemType) -> u64 {
        self.device.manager(mem_type).unwrap().usage().used.get()
    }

    /// Waits until nothing uses the object.
    pub(crate) fn settle(&self, bo: &Bo<D>) {
        self.with(bo, |r| r.wait_idle(ttm::fence::Usage::Bookkeep))
            .unwrap();
    }

    /// Asserts the invariants with everything in reach.
    pub(crate) fn check(&self) {
        let checked = self.device.check().unwrap_or_else(|v| panic!("{v}"));
        assert_eq!(checked.busy, 0, "nothing is in flight");
    }

    /// I-11: after everything was dropped and every fence has signalled nothing is left.
    pub(crate) fn assert_empty(&self) {
        self.device
            .close(None)
            .unwrap_or_else(|holders| panic!("I-11: {holders:?}"));
        for mem_type in MemType::all() {
            let Some(manager) = self.device.manager(mem_type) else {
                continue;
            };
            let usage = manager.usage();
            assert!(
                usage.used.is_zero() && usage.retired.is_zero() && usage.objects == 0,
                "I-11: {mem_type}: {usage:?}"
            );
            if !manager.uses_frames() {
                assert_eq!(usage.free, usage.size, "I-11: {mem_type}");
            }
        }
        assert!(self.device.system_budget().used().is_zero(), "I-11: frames");
        if let Some((used, _)) = self.device.backup_usage() {
            assert!(used.is_zero(), "I-11: {used} pages in the backup");
        }
        self.device.check().unwrap_or_else(|v| panic!("{v}"));
        self.assert_unmapped();
    }

    /// Nothing is mapped for the device, and it never went where nothing was.
    fn assert_unmapped(&self) {
        if let Some(card) = &self.card {
            assert_eq!(card.live(), 0, "I-50: {card:?}");
        }
        if let Some(io) = self.gpu.io_space() {
            assert_eq!(io.faults(), [], "the device went where nothing is mapped");
            assert!(io.shown().is_zero() && io.stale_uses() == 0, "I-50: {io:?}");
        }
    }
}

type Answer = dyn Fn(&ttm::driver::BoFacts) -> ttm::driver::Eviction + Send + Sync;

/// The simulator's driver, with another answer to where victims go.
pub(crate) struct Evicting {
    pub(crate) inner: SimDriver,
    pub(crate) to: Box<Answer>,
}

impl Evicting {
    pub(crate) fn new(
        to: impl Fn(&ttm::driver::BoFacts) -> ttm::driver::Eviction + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: SimDriver::new(),
            to: Box::new(to),
        }
    }
}

impl Driver for Evicting {
    type Object = ();

    fn evict_to(&self, bo: &ttm::driver::BoFacts, (): &()) -> ttm::driver::Eviction {
        (self.to)(bo)
    }

    fn route(
        &self,
        bo: &ttm::driver::BoFacts,
        object: &(),
        job: &ttm::driver::MoveFacts,
    ) -> ttm::driver::Route {
        self.inner.route(bo, object, job)
    }
}
