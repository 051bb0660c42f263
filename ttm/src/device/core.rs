//! The device without its driver's types: what every object of it shares.

use placement::{MemType, PageCount};

use crate::cache::Ledger;
use crate::clock::{Clock, Time, WaitCell};
use crate::dma::Mapper;
use crate::driver::{AnyDriver, CopyEngine};
use crate::error::{Error, Result};
use crate::fault::{Faults, Site};
use crate::fence::{Fence, RetireQueue};
use crate::pages::{Budget, Pool, Zone};
use crate::reservation::Domain;
use crate::resource::{Manager, Victim};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, Queue, Weak};
use crate::trace::{Event, Sink, Trace};
use crate::tt::{Backup, Stash, Supply, Tt};

pub(crate) struct DeviceCore {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) driver: Box<dyn AnyDriver>,
    pub(crate) managers: [Option<Arc<Manager>>; MemType::COUNT],
    pub(crate) engines: Vec<Arc<dyn CopyEngine>>,
    pub(crate) pool: Arc<Pool>,
    /// By whom the device finds system pages; by itself, without one.
    pub(crate) mapper: Option<Arc<dyn Mapper>>,
    pub(crate) zone: Zone,
    pub(crate) node: u8,
    /// The modes of the apertures' pages.
    pub(crate) ledger: Ledger,
    pub(crate) backup: Option<Arc<dyn Backup>>,
    pub(crate) budget: Budget,
    /// What was put by for a suspend.
    pub(crate) stash: Mutex<Stash>,
    /// Somebody prepares a suspend.
    pub(crate) preparing: AtomicBool,
    /// The bell of whoever swaps out above the soft limit.
    pub(crate) relief: Arc<WaitCell>,
    /// What the backup said when it took no more.
    pub(crate) refusal: Mutex<Option<Box<str>>>,
    pub(crate) domain: Domain,
    pub(crate) trace: Trace,
    has_sink: bool,
    faults: Option<Arc<dyn Faults>>,
    ids: AtomicU64,
    live: AtomicU64,
    lost: AtomicBool,
    losses: AtomicU64,
    /// Objects that are exported.
    pub(crate) exports: AtomicU64,
    /// Objects that were in lost memory have not all been told.
    pub(super) untold: AtomicBool,
    closed: AtomicBool,
    /// Objects whose last handle was dropped.
    pub(crate) released: Queue<Arc<dyn Victim>>,
    /// Objects whose content is on its way, with something to give back when it has arrived.
    pub(crate) moving: Queue<Weak<dyn Victim>>,
    /// Pages of released objects that a device may still use.
    pub(crate) retired_pages: Mutex<RetireQueue<Box<Tt>>>,
    pub(crate) bell: Arc<WaitCell>,
}

/// The parts that a builder has put together.
pub(super) struct Parts {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) driver: Box<dyn AnyDriver>,
    pub(super) managers: [Option<Arc<Manager>>; MemType::COUNT],
    pub(super) engines: Vec<Arc<dyn CopyEngine>>,
    pub(super) pool: Arc<Pool>,
    pub(super) mapper: Option<Arc<dyn Mapper>>,
    pub(super) zone: Zone,
    pub(super) node: u8,
    pub(super) backup: Option<Arc<dyn Backup>>,
    pub(super) system_limit: PageCount,
    pub(super) soft_limit: PageCount,
    pub(super) sink: Option<Arc<dyn Sink>>,
    pub(super) faults: Option<Arc<dyn Faults>>,
}

impl DeviceCore {
    pub(super) fn new(parts: Parts) -> Self {
        let budget = Budget::new(parts.system_limit);
        budget.set_soft_limit(parts.soft_limit);
        Self {
            domain: Domain::new(Arc::clone(&parts.clock)),
            clock: parts.clock,
            driver: parts.driver,
            managers: parts.managers,
            engines: parts.engines,
            pool: parts.pool,
            mapper: parts.mapper,
            zone: parts.zone,
            node: parts.node,
            ledger: Ledger::new(),
            backup: parts.backup,
            budget,
            stash: Mutex::new(Stash::default()),
            preparing: AtomicBool::new(false),
            relief: WaitCell::new(),
            refusal: Mutex::new(None),
            has_sink: parts.sink.is_some(),
            trace: Trace::new(parts.sink),
            faults: parts.faults,
            ids: AtomicU64::new(0),
            live: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            losses: AtomicU64::new(0),
            exports: AtomicU64::new(0),
            untold: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            released: Queue::new(),
            moving: Queue::new(),
            retired_pages: Mutex::new(RetireQueue::default()),
            bell: WaitCell::new(),
        }
    }

    #[inline]
    pub(crate) fn manager(&self, mem_type: MemType) -> Option<&Arc<Manager>> {
        self.managers[mem_type.index()].as_ref()
    }

    pub(crate) fn system(&self) -> &Arc<Manager> {
        self.managers[MemType::SYSTEM.index()]
            .as_ref()
            .expect("every device has a system manager")
    }

    /// Fails the step that `site` names, if somebody wants it to.
    ///
    /// # Errors
    /// What `error` makes.
    #[inline]
    pub(crate) fn probe(&self, site: Site, error: impl FnOnce() -> Error) -> Result<()> {
        if self.fails(site) {
            Err(error())
        } else {
            Ok(())
        }
    }

    #[inline]
    pub(crate) fn fails(&self, site: Site) -> bool {
        self.faults.as_ref().is_some_and(|f| f.hit(site))
    }

    /// `n` adjoining stamps; answers the last.
    #[inline]
    pub(crate) fn stamps(&self, n: u64) -> u64 {
        self.clock.tick(n)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn next_bulk(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn one_less(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Objects that exist, those that are being released included.
    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn emit(&self, event: Event) {
        self.trace.emit(self.clock.now(), event);
    }

    #[inline]
    pub(crate) fn emit_at(&self, at: Time, event: Event) {
        self.trace.emit(at, event);
    }

    /// Emits what only a sink is interested in: the many, cheap events.
    #[inline]
    pub(crate) fn emit_to_sink(&self, event: impl FnOnce() -> Event) {
        if self.has_sink {
            self.emit(event());
        }
    }

    pub(crate) fn supply<'a>(&'a self, fault: &'a dyn Fn(Site) -> bool) -> Supply<'a> {
        Supply {
            pool: &self.pool,
            backup: self.backup.as_deref(),
            budget: &self.budget,
            zone: self.zone,
            node: self.node,
            stash: None,
            fault,
        }
    }

    /// How often the device was lost. Relaxed reads on the hot path: who was told of a loss, and
    /// asks later, sees it by what told them.
    #[inline]
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    pub(crate) fn set_restored(&self) {
        self.lost.store(false, Ordering::Release);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Notes that the device is gone. Answers whether this was the first word of it.
    pub(crate) fn set_lost(&self) -> bool {
        let first = !self.lost.swap(true, Ordering::AcqRel);
        if first {
            self.losses.fetch_add(1, Ordering::AcqRel);
            self.untold.store(true, Ordering::Release);
            self.clock.unpark(&self.bell);
            self.emit(Event::DeviceLost);
        }
        first
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Keeps pages until nobody can reach them any more.
    pub(crate) fn retire_pages(&self, mut tt: Box<Tt>, fences: Vec<Fence>) {
        if fences.iter().all(Fence::is_signalled) {
            tt.unpopulate(&self.supply(&|_| false));
        } else {
            self.retired_pages.lock().push(fences, tt);
            self.clock.unpark(&self.bell);
        }
    }
}
