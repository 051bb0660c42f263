//! The card, what manages it, and who serves accesses that wait.

use std::env;

use anyhow::{Context, Result};
use backends::host::{FaultThreads, FileBackup, HostSpace, MemfdPages, Threads};
use backends::sim::{Gpu, GpuConfig, RouteMode, SimClock, SimDriver};
use placement::{MemType, PAGE_SIZE, PageCount, PageRange, Range};
use ttm::device::Device;
use ttm::map::{Abilities, Windows};
use ttm::pages::PageSource;
use ttm::sync::Arc;
use ttm::trace::{Event, Record, Sink};

use crate::object::Object;
use crate::slots::Slots;

/// The least device memory: half of it in the aperture, room for all objects there.
const LEAST_VRAM: u64 = 64 << 20;

/// The most that objects swap out.
const SWAP: u64 = 1 << 30;

/// Threads that serve accesses which wait.
const SERVERS: usize = 2;

/// Ends the program, with what was found, where a thread that touches a window would end it with a signal.
struct Signals;

impl Sink for Signals {
    fn record(&self, record: &Record) {
        if let Event::Poisoned { .. } = record.event {
            eprintln!("window_torture: wrong: {}", record.event);
            std::process::exit(1);
        }
    }
}

/// A card with its manager.
pub(crate) struct Rig {
    // In the order in which they end.
    windows: Windows<SimDriver>,
    servers: Option<FaultThreads>,
    services: Option<Threads>,
    device: Device<SimDriver>,
    gpu: Gpu,
    routes: RouteMode,
}

impl Rig {
    /// A card with room for `bytes` bytes of objects, whose content `routes` moves.
    pub(crate) fn new(
        space: &Arc<HostSpace>,
        routes: RouteMode,
        is_watchable: bool,
        bytes: u64,
    ) -> Result<Self> {
        let pages =
            |bytes: u64| PageCount::new(bytes / PAGE_SIZE).context("a size beyond all memory");
        let vram = pages(LEAST_VRAM.max(bytes * 5 / 2))?;
        let mut config = GpuConfig::new(vram);
        config.aperture = pages(vram.bytes() / 2)?;
        config.watchable = is_watchable;
        let gpu = Gpu::new(config, SimClock::Wall)?;
        // What engines copy are the card's own frames; the CPU copies the host's.
        let frames: Arc<dyn PageSource> = match routes {
            RouteMode::Engine => gpu.pages(),
            _ => Arc::new(MemfdPages::new()?),
        };
        let backup = FileBackup::new(env::temp_dir(), SWAP)?;
        let mut builder = Device::builder(SimDriver::new().routes(routes), gpu.clock())
            .pages(frames)
            .backup(Arc::new(backup))
            .sink(Arc::new(Signals))
            .system_limit(pages(LEAST_VRAM.max(bytes * 4))?)
            .frames(MemType::TT, Box::new(Range::new(vram)))
            .memory(MemType::VRAM, Box::new(Range::new(vram)), gpu.region());
        for engine in gpu.engines() {
            builder = builder.engine(engine);
        }
        let device = builder.build()?;
        let windows = Windows::new(&device, Arc::clone(space) as _);
        let servers = FaultThreads::start(windows.handler(), Arc::clone(space) as _, SERVERS)
            .context("no threads to serve accesses that wait")?;
        let services = Threads::start(&gpu.clock(), device.services())?;
        Ok(Self {
            windows,
            servers: Some(servers),
            services: Some(services),
            device,
            gpu,
            routes,
        })
    }

    /// Objects of each size, more of the small ones.
    pub(crate) fn objects(&self, sizes: &[u64], generation: u8) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        for (n, size) in sizes.iter().enumerate() {
            for _ in 0..how_many(*size) {
                let tag = objects.len() as u32 + 1;
                let pages = size / PAGE_SIZE;
                let slots = Slots::new(tag, generation, pages);
                objects.push(Object::new(&self.device, &self.windows, slots, n, pages)?);
            }
        }
        Ok(objects)
    }

    pub(crate) fn device(&self) -> &Device<SimDriver> {
        &self.device
    }

    pub(crate) fn windows(&self) -> &Windows<SimDriver> {
        &self.windows
    }

    pub(crate) fn abilities(&self) -> Abilities {
        self.windows.abilities()
    }

    /// Who moves content.
    pub(crate) fn routes(&self) -> RouteMode {
        self.routes
    }

    /// All device memory.
    pub(crate) fn vram(&self) -> PageCount {
        self.gpu.config().vram
    }

    /// The device memory that the CPU reaches.
    pub(crate) fn aperture(&self) -> PageRange {
        self.gpu.region().aperture()
    }

    /// The device memory that it does not reach.
    pub(crate) fn outside(&self) -> PageRange {
        let (aperture, vram) = (self.aperture(), self.vram());
        PageRange::new(aperture.end(), vram.get()).expect("the aperture is part of the memory")
    }

    /// Closes the device, which all objects have left. Answers what is wrong.
    pub(crate) fn take_down(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        // Who serves has an object in hand a moment longer than whoever waits for it.
        (self.servers, self.services) = (None, None);
        let counts = self.windows.counts();
        if counts.poisoned > 0 {
            wrong.push(format!("{} accesses ended in a signal", counts.poisoned));
        }
        if (counts.windows, counts.mappings) != (0, 0) {
            wrong.push(format!("windows are left behind: {counts:?}"));
        }
        if let Err(holders) = self.device.close(None) {
            wrong.push(format!("the device cannot be closed: {holders:?}"));
        }
        let frames = self.device.system_budget().used().get();
        let slots = self.device.backup_usage().map_or(0, |(used, _)| used.get());
        let manager = self.device.manager(MemType::VRAM);
        let vram = manager.map_or(0, |manager| manager.usage().used.get());
        if (frames, slots, vram) != (0, 0, 0) {
            wrong.push(format!(
                "left behind: {frames} system pages, {slots} pages in the backup, {vram} of the card"
            ));
        }
        wrong
    }
}

/// How many objects of that size there are.
pub(crate) fn how_many(size: u64) -> u64 {
    match size {
        0x4_0001.. => 2,
        _ => 4,
    }
}
