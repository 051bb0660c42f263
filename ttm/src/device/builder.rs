//! Putting a device together.

use core::fmt;

use placement::{MemType, PageCount, Space, Unbounded};

use crate::clock::Clock;
use crate::dma::{Choice, Code, Coherency, Decision, Mapper, Memory, Need, Verdict, choose};
use crate::driver::{CopyEngine, Driver, EngineId, Typed};
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::pages::{Offers, PageSource, Pool, PoolConfig, Zone};
use crate::resource::{Manager, MemoryKind, Region};
use crate::sync::Arc;
use crate::trace::Sink;
use crate::tt::Backup;

use super::Device;
use super::core::{DeviceCore, Parts};

/// The parts of a device. System memory (SYSTEM, and TT unless it gets a space of its own) is
/// always there; everything else is added.
pub struct DeviceBuilder<D: Driver> {
    driver: D,
    clock: Arc<dyn Clock>,
    managers: [Option<Arc<Manager>>; MemType::COUNT],
    engines: Vec<Arc<dyn CopyEngine>>,
    source: Option<Arc<dyn PageSource>>,
    pool: Option<Arc<Pool>>,
    pool_config: PoolConfig,
    zone: Zone,
    verdict: Option<Verdict>,
    required: Option<Coherency>,
    mapper: Option<Arc<dyn Mapper>>,
    node: u8,
    backup: Option<Arc<dyn Backup>>,
    system_limit: PageCount,
    soft_limit: PageCount,
    sink: Option<Arc<dyn Sink>>,
    faults: Option<Arc<dyn Faults>>,
    error: Option<Error>,
}

impl<D: Driver> DeviceBuilder<D> {
    pub(super) fn new(driver: D, clock: Arc<dyn Clock>) -> Self {
        Self {
            driver,
            clock,
            managers: [const { None }; MemType::COUNT],
            engines: Vec::new(),
            source: None,
            pool: None,
            pool_config: PoolConfig::default(),
            zone: Zone::default(),
            verdict: None,
            required: None,
            mapper: None,
            node: 0,
            backup: None,
            system_limit: PageCount::MAX,
            soft_limit: PageCount::MAX,
            sink: None,
            faults: None,
            error: None,
        }
    }

    /// Where system pages come from, by way of a pool of the device's own. This or
    /// [`DeviceBuilder::pool`] is required.
    #[must_use]
    pub fn pages(mut self, source: Arc<dyn PageSource>) -> Self {
        self.source = Some(source);
        self
    }

    /// A pool that the device shares with others.
    #[must_use]
    pub fn pool(mut self, pool: Arc<Pool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// How much the device's own pool may keep.
    #[must_use]
    pub fn pool_config(mut self, config: PoolConfig) -> Self {
        self.pool_config = config;
        self
    }

    /// Which addresses system pages need; any, without this.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// What is known of the device's way to memory. One that does not reach all of it gets its system
    /// pages from the zone DMA32, if that is within reach.
    #[must_use]
    pub fn reaches(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    /// By whom system pages are mapped for the device. Those of TT, and of the driver's other kinds
    /// of system pages, are from when an object comes there until it leaves; those of SYSTEM while
    /// the device is handed them. The device is then handed addresses, as
    /// [`Side::Mapped`](crate::driver::Side::Mapped). Without one it is handed frames.
    ///
    /// ```
    /// use ttm::context::OpContext;
    /// use ttm::dma::{DmaDevice, Mapper, Path, SegmentParms, Tri, Verdict};
    /// use ttm::driver::Side;
    /// use ttm::fixture;
    /// use ttm::pages::FrameSpan;
    /// use ttm::placement::{MemType, Place, Placement};
    /// use ttm::sync::Arc;
    ///
    /// # fn main() -> ttm::Result<()> {
    /// let verdict = Verdict { path: Path::Direct, snoop: Tri::Yes, ..Verdict::unknown("card") };
    /// let address = |span: FrameSpan| Some(span.first * 4096);
    /// let card = Arc::new(DmaDevice::direct(verdict, SegmentParms::DEFAULT, address)?);
    /// let device = fixture::builder().mapper(Arc::clone(&card) as Arc<dyn Mapper>).build()?;
    ///
    /// let placement = Placement::of(Place::new(MemType::TT));
    /// let bo = device.create_in(OpContext::new(), ttm::bo::BoInfo::new(8192), (), &placement)?;
    /// assert_eq!(card.live(), 1);
    /// let locked = device.exec(OpContext::new(), |t| t.lock(&bo)?.side())?;
    /// assert!(matches!(locked.value(), Side::Mapped(list) if list.bytes() == 8192));
    /// drop(locked);
    /// drop(bo);
    /// device.reap();
    /// assert_eq!(card.live(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn mapper(mut self, mapper: Arc<dyn Mapper>) -> Self {
        self.mapper = Some(mapper);
        self
    }

    /// What the driver cannot do without: [`DeviceBuilder::build`] is refused, with the explanation,
    /// unless [`DeviceBuilder::reaches`] has it.
    #[must_use]
    pub fn require(mut self, coherency: Coherency) -> Self {
        self.required = Some(coherency);
        self
    }

    /// The NUMA node that system pages come from, as the page source numbers them; 0 without this.
    #[must_use]
    pub fn node(mut self, node: u8) -> Self {
        self.node = node;
        self
    }

    /// Where system pages go when memory is short. Without one nothing is swapped.
    #[must_use]
    pub fn backup(mut self, backup: Arc<dyn Backup>) -> Self {
        self.backup = Some(backup);
        self
    }

    /// How many system pages may be populated at once; without this, as many as there are.
    #[must_use]
    pub fn system_limit(mut self, limit: PageCount) -> Self {
        self.system_limit = limit;
        self
    }

    /// Above how many populated pages others are swapped out in the background, by the service that
    /// [`Device::services`] has for it; without this, only at the system limit.
    #[must_use]
    pub fn soft_limit(mut self, limit: PageCount) -> Self {
        self.soft_limit = limit;
        self
    }

    /// A memory of the device: which pages are taken is kept in `space`, the memory itself is
    /// `region`.
    #[must_use]
    pub fn memory(self, mem_type: MemType, space: Box<dyn Space>, region: Arc<dyn Region>) -> Self {
        if space.size() > region.size() {
            return self.wrong("a memory's space is larger than its region");
        }
        self.manager(mem_type, space, MemoryKind::Device(region))
    }

    /// System pages under another name, with a limit of its own: TT, or a driver's private type.
    #[must_use]
    pub fn frames(self, mem_type: MemType, space: Box<dyn Space>) -> Self {
        self.manager(mem_type, space, MemoryKind::Frames)
    }

    fn manager(mut self, mem_type: MemType, space: Box<dyn Space>, kind: MemoryKind) -> Self {
        if mem_type == MemType::SYSTEM {
            return self.wrong("the system memory type is the manager's own");
        }
        let slot = &mut self.managers[mem_type.index()];
        if slot.is_some() {
            return self.wrong("a memory type is given twice");
        }
        *slot = Some(Manager::new(mem_type, kind, space));
        self
    }

    fn wrong(mut self, why: &'static str) -> Self {
        self.error.get_or_insert(Error::Invalid(why));
        self
    }

    /// A copy engine; the first is [`EngineId`] 0.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn CopyEngine>) -> Self {
        if self.engines.len() > usize::from(EngineId(u8::MAX).0) {
            return self.wrong("a device has at most 256 engines");
        }
        self.engines.push(engine);
        self
    }

    /// Who receives every event.
    #[must_use]
    pub fn sink(mut self, sink: Arc<dyn Sink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Who decides which steps fail; for tests.
    #[must_use]
    pub fn faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// The zone that system pages come from.
    ///
    /// # Errors
    /// [`Error::NotCoherent`] if the verdict is not what was required, or nothing is within reach.
    fn zone_within_reach(&self, offers: &Offers) -> Result<Zone> {
        let Some(verdict) = &self.verdict else {
            return match self.required {
                Some(_) => Err(Error::Invalid(
                    "what a device reaches has to be told for something to be required of it",
                )),
                None => Ok(self.zone),
            };
        };
        let mut zone = self.zone;
        let mut need = Need::managed();
        let mut choice = choose(verdict, &need);
        let refused = |choice: &Choice| Err(Error::NotCoherent(choice.explain(verdict).into()));
        if choice.code == Code::D16 {
            let end = offers.dma32_last;
            if !offers.zones.has(Zone::Dma32) || end > verdict.mask.last() {
                return refused(&choice);
            }
            zone = Zone::Dma32;
            need.memory = Memory::Foreign { end };
            choice = choose(verdict, &need);
        }
        match self.required {
            Some(Coherency::Streaming) if choice.decision != Decision::Streaming => {
                refused(&choice)
            }
            _ => Ok(zone),
        }
    }

    /// Makes the device.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a part is missing or given twice; [`Error::NotCoherent`] if the device
    /// does not reach memory as required, or not what there is of it.
    pub fn build(mut self) -> Result<Device<D>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let pool = match (self.pool.take(), self.source.take()) {
            (Some(pool), None) => pool,
            (None, Some(source)) => Pool::new(source, Arc::clone(&self.clock), self.pool_config),
            (None, None) => return Err(Error::Invalid("a device needs a page source")),
            (Some(_), Some(_)) => {
                return Err(Error::Invalid(
                    "a device has a pool or a page source, not both",
                ));
            }
        };
        let offers = pool.offers();
        self.zone = self.zone_within_reach(&offers)?;
        if !offers.zones.has(self.zone) || self.node >= offers.nodes {
            return Err(Error::Unsupported(
                "the page source offers no such zone or node; its offers say which it has",
            ));
        }
        for mem_type in [MemType::SYSTEM, MemType::TT] {
            self.managers[mem_type.index()].get_or_insert_with(|| {
                Manager::new(mem_type, MemoryKind::Frames, Box::new(Unbounded::new()))
            });
        }
        let driver = Arc::new(self.driver);
        let core = DeviceCore::new(Parts {
            clock: self.clock,
            driver: Box::new(Typed(Arc::clone(&driver))),
            managers: self.managers,
            engines: self.engines,
            pool,
            mapper: self.mapper,
            zone: self.zone,
            node: self.node,
            backup: self.backup,
            system_limit: self.system_limit,
            soft_limit: self.soft_limit,
            sink: self.sink,
            faults: self.faults,
        });
        Ok(Device {
            core: Arc::new(core),
            driver,
        })
    }
}

impl<D: Driver> fmt::Debug for DeviceBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuilder({} engines)", self.engines.len())
    }
}
