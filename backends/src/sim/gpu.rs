//! The device.

use core::fmt;
use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

use placement::PageCount;
use ttm::clock::Clock;
use ttm::dma::{
    Choice, Decision, DmaDevice, Invalidation, IovaConfig, Mask, Path, SegmentParms, Translation,
    Verdict,
};
use ttm::driver::CopyEngine;
use ttm::error::{Error, Result};
use ttm::fence::{FenceError, Timeline};
use ttm::pages::{FrameSpan, PageSource};
use ttm::resource::Region;
use ttm::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use crate::host::wall_clock;

use super::bus::Bus;
use super::cache::CacheCounts;
use super::clock::VirtualClock;
use super::counting::CountingPages;
use super::engine::Engine;
use super::failing::FailingPages;
use super::inject::Inject;
use super::io_space::IoSpace;
use super::lane::Lane;
use super::link::Link;
use super::memory::SimMemory;
use super::pages::SimPages;
use super::queue::Queue;
use super::timer::Timer;
use super::vram::{Vram, Window};

/// How fast an engine or a queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// Bytes per second; 0 takes no time but the latency.
    pub bytes_per_second: u64,
    /// Nanoseconds that every job takes on top.
    pub latency_ns: u64,
}

impl EngineConfig {
    /// How long a job of `bytes` bytes takes, in nanoseconds, rounded up.
    ///
    /// ```
    /// use backends::sim::EngineConfig;
    ///
    /// let engine = EngineConfig { bytes_per_second: 1_000_000_000, latency_ns: 100 };
    /// assert_eq!(engine.duration_ns(4096), 4196);
    /// ```
    #[must_use]
    pub fn duration_ns(&self, bytes: u64) -> u64 {
        let per_second = u128::from(self.bytes_per_second);
        let ns = (u128::from(bytes) * 1_000_000_000)
            .checked_add(per_second.saturating_sub(1))
            .and_then(|n| n.checked_div(per_second))
            .unwrap_or(0);
        u64::try_from(ns).map_or(u64::MAX, |ns| ns.saturating_add(self.latency_ns))
    }
}

impl Default for EngineConfig {
    /// 16 GB/s and 2 us: a card behind sixteen lanes of PCIe 3.
    fn default() -> Self {
        Self {
            bytes_per_second: 16_000_000_000,
            latency_ns: 2_000,
        }
    }
}

/// What the device is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GpuConfig {
    /// Its own memory.
    pub vram: PageCount,
    /// How much of it, from page 0 on, the CPU reaches. Less than all of it is a small BAR.
    pub aperture: PageCount,
    /// System memory that goes with it: a hint for the limit of whoever makes the manager.
    pub system: PageCount,
    /// The system memory around it: its addresses, its nodes, and the CPU's caches.
    pub memory: SimMemory,
    /// Its copy engines, numbered in this order.
    pub engines: Vec<EngineConfig>,
    /// How fast each of its queues runs kernels.
    pub queue: EngineConfig,
    /// Whether its accesses to system memory go through an IOMMU's tables. Then it is handed
    /// addresses, by who manages it with a [`Gpu::mapper`].
    pub translated: bool,
    /// Whether memory has content. Without, any size costs nothing, and jobs only take time.
    pub contents: bool,
    /// Whether the host's kernel lets a process watch mappings of the memory, as it does for memory
    /// files and not for devices'.
    pub watchable: bool,
    /// Chooses which bits flip.
    pub seed: u64,
}

impl GpuConfig {
    /// A device with `vram` pages of memory that the CPU reaches, contents, and one engine.
    #[must_use]
    pub fn new(vram: PageCount) -> Self {
        Self {
            vram,
            aperture: vram,
            system: PageCount::new(vram.get().saturating_mul(2)).unwrap_or(PageCount::MAX),
            memory: SimMemory::default(),
            engines: vec![EngineConfig::default()],
            queue: EngineConfig {
                bytes_per_second: 200_000_000_000,
                latency_ns: 5_000,
            },
            translated: false,
            contents: true,
            watchable: true,
            seed: 1,
        }
    }
}

impl GpuConfig {
    /// The address lines that it has.
    const fn lines(&self) -> Mask {
        match self.memory.link {
            Link::Narrow(bits) => Mask::bits(bits),
            _ => Mask::ALL,
        }
    }
}

impl Default for GpuConfig {
    /// 64 MiB, all of it visible.
    fn default() -> Self {
        Self::new(PageCount::new(1 << 14).expect("below the greatest count"))
    }
}

/// Whose time the device lives in.
#[derive(Clone, Debug)]
pub enum SimClock {
    /// The virtual clock's: jobs are its events.
    Virtual(Arc<VirtualClock>),
    /// The host's: each engine and queue has a thread that sleeps and copies.
    Wall,
}

/// The fake device. Clones are the same device; it ends, with its threads, with the last of them
/// and of its engines and queues. Regions and page sources may outlive it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

/// What all handles keep alive. Dropping it ends the lanes and joins their threads.
pub(super) struct Inner {
    pub(super) core: Arc<Core>,
    time: SimClock,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    engines: Vec<Arc<Lane>>,
    queues: BTreeMap<usize, Arc<Lane>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a job needs of the device.
pub(super) struct Core {
    config: GpuConfig,
    clock: Arc<dyn Clock>,
    inject: Arc<Inject>,
    vram: Option<Vram>,
    /// System memory, if it has content.
    memory: Option<Arc<SimPages>>,
    /// What its accesses are translated by.
    io: Option<Arc<IoSpace>>,
    frames: Arc<dyn PageSource>,
    /// Where its memory and that of the cards beside it is.
    bus: Arc<Bus>,
    /// Where its own begins there.
    bar: u64,
    lost: AtomicBool,
    timelines: AtomicU64,
    random: AtomicU64,
    /// Every lane that there is, for losing the device.
    lanes: Mutex<Vec<Weak<Lane>>>,
}

impl Gpu {
    /// A device that works until its [`inject`](Gpu::inject) is told otherwise.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host gives no memory files or threads; [`Error::Invalid`] for a
    /// [`SimMemory`] that cannot be.
    pub fn new(config: GpuConfig, clock: SimClock) -> Result<Self> {
        Self::with_inject(config, clock, Inject::new())
    }

    /// A device whose failures are told by `inject`.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host gives no memory files or threads; [`Error::Invalid`] for a
    /// [`SimMemory`] that cannot be.
    pub fn with_inject(config: GpuConfig, clock: SimClock, inject: Arc<Inject>) -> Result<Self> {
        Self::build(config, clock, inject, None)
    }

    /// Another card in the same machine, in the same time, with failures of its own: what
    /// `config.memory` says is not looked at. Each reaches the memory of the other at its addresses on
    /// the bus ([`Region::bus`]).
    ///
    /// # Errors
    /// Those of [`Gpu::new`].
    pub fn beside(&self, config: GpuConfig) -> Result<Self> {
        let clock = self.inner.time.clone();
        Self::build(config, clock, Inject::new(), Some(&self.inner.core))
    }

    fn build(
        config: GpuConfig,
        clock: SimClock,
        inject: Arc<Inject>,
        beside: Option<&Core>,
    ) -> Result<Self> {
        let vram = (config.contents && !config.vram.is_zero())
            .then(|| Vram::new(config.vram).map_err(|error| Error::Backend(error.into())))
            .transpose()?;
        let memory = match beside {
            Some(other) => other.memory.clone(),
            None => config
                .contents
                .then(|| SimPages::new(config.memory).map(Arc::new))
                .transpose()?,
        };
        let frames: Arc<dyn PageSource> = match &memory {
            Some(memory) => Arc::clone(memory) as Arc<dyn PageSource>,
            None => Arc::new(CountingPages::new()),
        };
        let time: Arc<dyn Clock> = match &clock {
            SimClock::Virtual(clock) => Arc::clone(clock) as Arc<dyn Clock>,
            SimClock::Wall => wall_clock(),
        };
        let io = config
            .translated
            .then(|| IoSpace::new(config.lines(), Arc::clone(&inject)));
        let bus = beside.map_or_else(Bus::new, |other| Arc::clone(&other.bus));
        let core = Arc::new(Core {
            bar: bus.place(),
            bus,
            clock: time,
            io,
            inject,
            vram,
            memory,
            frames,
            lost: AtomicBool::new(false),
            timelines: AtomicU64::new(0),
            random: AtomicU64::new(config.seed),
            lanes: Mutex::new(Vec::new()),
            config,
        });
        core.bus.enter(&core);
        let inner = Arc::new(Inner {
            core,
            time: clock,
            lanes: Mutex::new(Lanes::default()),
        });
        for (n, speed) in inner.core.config.engines.iter().enumerate() {
            let lane = inner.lane(&format!("sim engine {n}"), *speed)?;
            inner.lanes.lock().engines.push(lane);
        }
        Ok(Self { inner })
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &GpuConfig {
        &self.inner.core.config
    }

    /// The clock that its fences live in.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.core.clock)
    }

    /// Where its failures are told.
    #[must_use]
    pub fn inject(&self) -> &Arc<Inject> {
        &self.inner.core.inject
    }

    /// Its memory as the CPU sees it.
    #[must_use]
    pub fn region(&self) -> Arc<dyn Region> {
        Arc::new(Window {
            core: Arc::clone(&self.inner.core),
        })
    }

    /// System memory that it can reach, as the CPU sees it: [`SimPages`], or, without contents,
    /// only counted. Fails as the device's [`inject`](Gpu::inject) says; the device's own view of
    /// frames does not.
    #[must_use]
    pub fn pages(&self) -> Arc<dyn PageSource> {
        let frames = Arc::clone(&self.inner.core.frames);
        Arc::new(FailingPages::new(frames, Arc::clone(self.inject())))
    }

    /// System pages as a device on that platform needs them: allocated for it, if the choice says so.
    /// Pages that the device reaches are up to the zone, which is
    /// [`DeviceBuilder::reaches`](ttm::device::DeviceBuilder::reaches)'s.
    ///
    /// # Errors
    /// [`Error::NotCoherent`] for a choice that refuses or copies; [`Error::Invalid`] without contents.
    pub fn pages_for(&self, choice: &Choice) -> Result<Arc<dyn PageSource>> {
        let memory = self
            .memory()
            .ok_or(Error::Invalid("memory has no contents"))?;
        let frames = match &choice.decision {
            Decision::Streaming | Decision::Synced { copies: false } => return Ok(self.pages()),
            Decision::Coherent | Decision::Decrypted => memory.for_devices(),
            _ => return Err(Error::NotCoherent(choice.to_string().into())),
        };
        Ok(Arc::new(FailingPages::new(
            frames,
            Arc::clone(self.inject()),
        )))
    }

    /// What system pages are mapped by for this device, on a path like the verdict's: at their own
    /// addresses, or in the tables of its [`Gpu::io_space`].
    ///
    /// # Errors
    /// [`Error::Dma`] for a verdict of another path than the device's; [`Error::Invalid`] without
    /// contents.
    pub fn mapper(&self, verdict: Verdict) -> Result<Arc<DmaDevice>> {
        self.mapper_in(verdict, self.io_space())
    }

    /// The same in an address space of its own: a context of the device, whose queues are
    /// [`Queue::through`] it.
    ///
    /// # Errors
    /// As [`Gpu::mapper`].
    pub fn mapper_in(&self, verdict: Verdict, io: Option<&Arc<IoSpace>>) -> Result<Arc<DmaDevice>> {
        let memory = self
            .memory()
            .ok_or(Error::Invalid("memory has no contents"))?;
        let parms = SegmentParms::WIDEST;
        let device = match io {
            None => {
                let memory = Arc::clone(memory);
                let address = move |span: FrameSpan| Some(memory.address(span));
                DmaDevice::direct(verdict, parms, address)
            }
            Some(io) => {
                let tables: Arc<dyn Translation> = Arc::clone(io) as _;
                let lazy = matches!(verdict.path, Path::Translated { strict: false });
                let space = IovaConfig {
                    reserved: vec![0xfee0_0000..=0xfeef_ffff],
                    invalidation: match lazy {
                        true => Invalidation::Lazy {
                            batch: 256,
                            timeout_ns: 10_000_000,
                        },
                        false => Invalidation::Strict,
                    },
                    ..IovaConfig::default()
                };
                DmaDevice::translated(verdict, parms, space, tables, self.clock())
            }
        };
        Ok(Arc::new(device?))
    }

    /// What its accesses to system memory are translated by; `None` if they are not.
    #[must_use]
    pub fn io_space(&self) -> Option<&Arc<IoSpace>> {
        self.inner.core.io.as_ref()
    }

    /// The same memory, which never fails on command; `None` without contents.
    #[must_use]
    pub fn memory(&self) -> Option<&Arc<SimPages>> {
        self.inner.core.memory.as_ref()
    }

    /// The physical address of the first byte of frames; `None` without contents.
    #[must_use]
    pub fn physical(&self, span: FrameSpan) -> Option<u64> {
        self.memory().map(|memory| memory.address(span))
    }

    /// What the CPU's caches have done; nothing without a [`CacheModel`](super::CacheModel).
    #[must_use]
    pub fn cache_counts(&self) -> CacheCounts {
        self.memory().map(|m| m.cache_counts()).unwrap_or_default()
    }

    /// Its copy engine number `n`.
    ///
    /// # Panics
    /// If it has fewer.
    #[must_use]
    pub fn engine(&self, n: usize) -> Arc<dyn CopyEngine> {
        let lane = {
            let lanes = self.inner.lanes.lock();
            let lane = lanes.engines.get(n);
            lane.map(Arc::clone).unwrap_or_else(|| {
                panic!("engine {n} of {}", lanes.engines.len());
            })
        };
        Arc::new(Engine {
            gpu: Arc::clone(&self.inner),
            lane,
        })
    }

    /// All its copy engines, in order.
    #[must_use]
    pub fn engines(&self) -> Vec<Arc<dyn CopyEngine>> {
        (0..self.config().engines.len())
            .map(|n| self.engine(n))
            .collect()
    }

    /// Its queue number `n`, made when it is first asked for. Queues run beside each other.
    ///
    /// # Panics
    /// If the host gives no thread for it.
    #[must_use]
    pub fn queue(&self, n: usize) -> Queue {
        let mut lanes = self.inner.lanes.lock();
        let lane = match lanes.queues.get(&n) {
            Some(lane) => Arc::clone(lane),
            None => {
                drop(lanes);
                let name = format!("sim queue {n}");
                let made = self.inner.lane(&name, self.config().queue);
                let made = made.expect("the host gives a thread for each queue");
                lanes = self.inner.lanes.lock();
                // Somebody else may have been faster; his is the one, ours ends unused.
                Arc::clone(lanes.queues.entry(n).or_insert(made))
            }
        };
        drop(lanes);
        Queue::new(Arc::clone(&self.inner), lane)
    }

    /// A timeline with a number of its own in this device, for whoever signals something else.
    #[must_use]
    pub fn timeline(&self) -> Arc<Timeline> {
        self.inner.core.timeline()
    }

    /// The device is gone: everything pending signals with
    /// [`FenceError::DeviceLost`], nothing is accepted or mapped any more. Frames stay readable.
    pub fn lose(&self) {
        self.inner.core.lose();
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.core.is_lost()
    }

    /// A lost device comes back, with zeroed memory and new timelines. One that is not lost stays
    /// as it is.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host cannot clear the memory; the device stays lost.
    pub fn restore(&self) -> Result<()> {
        let core = &self.inner.core;
        if !core.is_lost() {
            return Ok(());
        }
        if let Some(vram) = &core.vram {
            vram.wipe().map_err(|error| Error::Backend(error.into()))?;
        }
        for lane in core.lanes() {
            lane.reopen();
        }
        core.lost.store(false, Ordering::SeqCst);
        Ok(())
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config();
        write!(
            f,
            "Gpu({} of memory, {} visible, {} engines{})",
            config.vram,
            config.aperture,
            config.engines.len(),
            if self.is_lost() { ", lost" } else { "" }
        )
    }
}

impl Inner {
    fn lane(&self, name: &str, speed: EngineConfig) -> Result<Arc<Lane>> {
        let timer = match &self.time {
            SimClock::Virtual(clock) => Timer::Virtual(Arc::clone(clock)),
            SimClock::Wall => {
                let (timer, thread) = Timer::wall(name, Arc::clone(&self.core.clock))
                    .map_err(|error| Error::Backend(error.into()))?;
                self.lanes.lock().threads.push(thread);
                timer
            }
        };
        let lane = Lane::new(&self.core, speed, timer);
        self.core.lanes.lock().push(Arc::downgrade(&lane));
        Ok(lane)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for lane in self.core.lanes() {
            lane.shut(FenceError::Abandoned);
        }
        let Lanes {
            engines,
            queues,
            threads,
        } = core::mem::take(&mut *self.lanes.lock());
        // With the lanes go their timers, and with those the threads.
        drop((engines, queues));
        for thread in threads {
            // A callback on a lane's thread may have dropped the last handle.
            if thread.thread().id() != thread::current().id() {
                let panicked = thread.join().is_err();
                assert!(
                    !panicked || thread::panicking(),
                    "a job of the sim panicked; its own message is above"
                );
            }
        }
    }
}

impl Core {
    pub(super) fn config(&self) -> &GpuConfig {
        &self.config
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn inject(&self) -> &Inject {
        &self.inject
    }

    /// The memory, if it has content.
    pub(super) fn vram(&self) -> Option<&Vram> {
        self.vram.as_ref()
    }

    /// Where the memories of all cards are.
    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Where its memory begins on the bus.
    pub(super) fn bar(&self) -> u64 {
        self.bar
    }

    /// What its accesses are translated by, where nobody says otherwise.
    pub(super) fn io(&self) -> Option<&Arc<IoSpace>> {
        self.io.as_ref()
    }

    /// System memory, if it has content.
    pub(super) fn memory(&self) -> Option<&SimPages> {
        self.memory.as_deref()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    pub(super) fn lose(&self) {
        if self.lost.swap(true, Ordering::SeqCst) {
            return;
        }
        for lane in self.lanes() {
            lane.shut(FenceError::DeviceLost);
        }
    }

    pub(super) fn timeline(&self) -> Arc<Timeline> {
        let id = self.timelines.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Timeline::new(id, Arc::clone(&self.clock)))
    }

    /// The lanes that are alive.
    fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes = self.lanes.lock();
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.iter().filter_map(Weak::upgrade).collect()
    }

    /// The next number of a splitmix generator.
    pub(super) fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .random
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
