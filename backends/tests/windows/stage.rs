//! A card, an object in it, windows by one strategy, and threads that serve them.
//!
//! The rule that the `unsafe` blocks here rely on: words are read and written only at addresses of
//! windows that are open, as atomics.

use core::sync::atomic::{AtomicU64, Ordering};

use backends::host::{FaultThreads, FileBackup, HostSpace, Strategy};
use backends::sim::{FailingSpace, Gpu, GpuConfig, Inject, RouteMode, SimClock, SimDriver};
use placement::{CacheMode, MemType, PageRange, Place, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::map::{AddressSpace, FaultHandler, MapInfo, Window, WindowConfig, Windows};
use ttm::sync::Arc;

use crate::host::pages;
use crate::laws;

pub(crate) const PAGE: u64 = 4096;

/// A strategy, and whether the card's memory can be watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) strategy: Strategy,
    pub(crate) watchable: bool,
}

/// Those in which accesses wait, as far as they can be had here; the others are named.
pub(crate) fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for strategy in Strategy::ALL {
        match HostSpace::with(strategy) {
            Err(error) => println!("skipped: {strategy}: {error}"),
            Ok(space) if !laws::STORES.holds(&space.abilities()) => {}
            Ok(_) => ways.extend([true, false].map(|watchable| Way {
                strategy,
                watchable,
            })),
        }
    }
    ways
}

pub(crate) struct Stage {
    pub(crate) device: Device<SimDriver>,
    pub(crate) gpu: Gpu,
    pub(crate) inject: Arc<Inject>,
    pub(crate) windows: Windows<SimDriver>,
    pub(crate) bo: Bo<SimDriver>,
    // Last, and after the windows of a test.
    _threads: FaultThreads,
}

impl Stage {
    /// An object of `size` pages on a card with four times as much, half of it visible.
    pub(crate) fn new(way: Way, size: u64, route: RouteMode) -> Self {
        Self::with_config(way, size, route, WindowConfig::default())
    }

    pub(crate) fn with_config(way: Way, size: u64, route: RouteMode, config: WindowConfig) -> Self {
        Self::served_by(way, size, route, config, |handler| handler)
    }

    /// The same, with something in front of who serves accesses.
    pub(crate) fn served_by(
        way: Way,
        size: u64,
        route: RouteMode,
        config: WindowConfig,
        front: impl FnOnce(Arc<dyn FaultHandler>) -> Arc<dyn FaultHandler>,
    ) -> Self {
        let mut gpu_config = GpuConfig::new(pages(4 * size));
        gpu_config.aperture = pages(2 * size);
        gpu_config.watchable = way.watchable;
        let inject = Inject::new();
        let gpu = Gpu::with_inject(gpu_config, SimClock::Wall, Arc::clone(&inject)).unwrap();
        let swap = FileBackup::new(std::env::temp_dir(), 64 << 20).unwrap();
        let device = Device::builder(SimDriver::new().routes(route), gpu.clock())
            .pages(gpu.pages())
            .backup(Arc::new(swap))
            .memory(
                MemType::VRAM,
                Box::new(Range::new(pages(4 * size))),
                gpu.region(),
            )
            .engine(gpu.engine(0))
            .faults(Arc::clone(&inject) as _)
            .build()
            .unwrap();
        let space = Arc::new(HostSpace::with(way.strategy).unwrap());
        let failing = FailingSpace::new(Arc::clone(&space) as _, Arc::clone(&inject));
        let windows = Windows::with_config(&device, Arc::new(failing), config);
        let threads = FaultThreads::start(front(windows.handler()), space, 3).unwrap();
        Self {
            bo: device.create(BoInfo::new(size * PAGE), ()).unwrap(),
            device,
            gpu,
            inject,
            windows,
            _threads: threads,
        }
    }

    pub(crate) fn map(&self) -> Window<SimDriver> {
        self.windows.map(&self.bo, MapInfo::whole()).unwrap()
    }

    pub(crate) fn go(&self, to: &Placement) -> ttm::Result<()> {
        let moved = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.bo)?.validate(to));
        moved.map(drop)
    }

    pub(crate) fn swap_out(&self) -> ttm::Result<()> {
        let swapped = self.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&self.bo)?;
            reserved.validate(&place(MemType::SYSTEM))?;
            reserved.swap_out()
        });
        swapped.map(drop)
    }

    pub(crate) fn mem_type(&self) -> Option<MemType> {
        let locked = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.bo).map(drop));
        locked.unwrap().get(&self.bo).unwrap().mem_type()
    }

    /// Where the object can be, one after the other: both sides of the aperture's end, system
    /// memory in two cache modes, the backup.
    pub(crate) fn tour(&self) -> [Tour; 6] {
        let size = self.bo.pages().get();
        let part = |from: u64, to: u64| {
            let range = PageRange::new(from, to).unwrap();
            Tour::To(Placement::of(Place::new(MemType::VRAM).within(range)))
        };
        let combined = Place::new(MemType::TT).cached(CacheMode::WriteCombined);
        [
            part(0, 2 * size),
            Tour::To(place(MemType::TT)),
            part(2 * size, 4 * size),
            Tour::To(Placement::of(combined)),
            Tour::To(place(MemType::SYSTEM)),
            Tour::Out,
        ]
    }

    pub(crate) fn step(&self, tour: &Tour) -> ttm::Result<()> {
        match tour {
            Tour::To(placement) => self.go(placement),
            Tour::Out => self.swap_out(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Tour {
    To(Placement),
    Out,
}

pub(crate) fn place(mem_type: MemType) -> Placement {
    Placement::of(Place::new(mem_type))
}

fn cell(address: usize) -> &'static AtomicU64 {
    let cell = core::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the address is an open window's (rule above), at a multiple of 8.
    unsafe { AtomicU64::from_ptr(cell) }
}

pub(crate) fn load(address: usize) -> u64 {
    cell(address).load(Ordering::Relaxed)
}

pub(crate) fn store(address: usize, value: u64) {
    cell(address).store(value, Ordering::Relaxed);
}
