//! A Vulkan device as its users have it.

use core::fmt;

use ash::vk;
use placement::{Chunks, MemType, Space};
use ttm::bo::{Bo, Locked, Reserved};
use ttm::clock::{Clock, Service};
use ttm::device::{Device, DeviceBuilder};
use ttm::dma::Mapper;
use ttm::driver::{CopyEngine, Driver};
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Usage};
use ttm::pages::PageSource;
use ttm::resource::Region;
use ttm::sync::atomic::AtomicUsize;
use ttm::sync::{Arc, Mutex};

use crate::host::wall_clock;

use super::bind::{Binder, Binding};
use super::budget::Budgets;
use super::config::VulkanConfig;
use super::core::{Core, KeptEngine};
use super::costs::Costs;
use super::driver::VulkanDriver;
use super::engine::{Engine, EngineCounts};
use super::error::VulkanError;
use super::facts::Facts;
use super::import::HostImport;
use super::known::Known;
use super::layout::{Chunked, Layout, MadeOf};
use super::line::Line;
use super::objects::{BufferInfo, Described, ImageInfo, VulkanObject};
use super::raw::{Raw, Semaphore, SharedQueue};
use super::region::{ChunkKind, ChunkRegion, ChunkSpace, ChunkUsage, pages_of};
use super::step::{Part, Sides};
use super::tender::Tender;
use super::trash::Trash;
use super::trials::{Bench, Trials};
use super::watch::{Standing, Watch};

/// A device of Vulkan's, ready to be a manager's. Clones are the same device.
///
/// What of it a [`Device`] of the manager's needs keeps it alive, and so does every object. Its user
/// waits for his own work on it before the last of them goes.
#[derive(Clone)]
pub struct VulkanDevice {
    pub(super) core: Arc<Core>,
}

/// A memory of chunks as a manager takes it: its name, its space, and what is behind that.
pub type MemoryParts = (MemType, Box<dyn Space>, Arc<dyn Region>);

/// The queues of a device, as its opener has them.
#[derive(Clone, Debug)]
pub struct DeviceQueues {
    /// What the manager copies by.
    pub transfer: Arc<SharedQueue>,
    /// What it binds sparse memory by, if there is such a queue.
    pub sparse: Option<Arc<SharedQueue>>,
    /// What its user's work goes to.
    pub general: Arc<SharedQueue>,
    /// Extensions that are on.
    pub extensions: Vec<&'static core::ffi::CStr>,
    /// Whether `sparseBinding` is on.
    pub sparse_binding: bool,
    /// Whether `bufferDeviceAddress` is on.
    pub buffer_address: bool,
}

impl VulkanDevice {
    /// Builds on what was opened.
    pub(super) fn on(
        raw: Arc<Raw>,
        queues: &DeviceQueues,
        config: &VulkanConfig,
    ) -> core::result::Result<Self, VulkanError> {
        let mut layout = Layout::of(&raw.facts).map_err(|lacks| raw.lacks(lacks))?;
        let sparse = queues.sparse.as_ref();
        let visible = visible_memory(&layout);
        let trials = match visible {
            Some(visible) => Bench {
                raw: &raw,
                transfer: &queues.transfer,
                sparse,
                visible,
            }
            .run(),
            // Nothing can be looked at: only what every driver has to keep is believed.
            None => Trials {
                sparse: raw.facts.can.sparse_buffers,
                ..Trials::default()
            },
        };
        if !(trials.import && config.import) && has_imports(&layout) {
            let mut facts = raw.facts.clone();
            facts.can.host_import = false;
            layout = Layout::of(&facts).map_err(|lacks| raw.lacks(lacks))?;
        }
        let costs = match (config.copies, visible) {
            (super::costs::Copies::Measured, Some(visible)) => Costs::measure(
                &raw,
                &queues.transfer,
                visible,
                trials.import && config.import,
            )?,
            (copies, _) => Costs::fixed(copies),
        };
        let mut families = vec![queues.general.family(), queues.transfer.family()];
        families.extend(sparse.map(|queue| queue.family()));
        families.sort_unstable();
        families.dedup();
        let stable = config.stable && trials.sparse && sparse.is_some();
        let budgets = Budgets::new(&raw);
        let export = trials
            .file
            .filter(|_| config.windows && (!stable || trials.sparse_file));
        let regions = regions(&raw, &layout, config, &budgets, &families, export);
        let sides = Sides::new(regions);
        let clock = wall_clock();
        let mut all = vec![Arc::clone(&queues.transfer), Arc::clone(&queues.general)];
        all.extend(sparse.cloned());
        let watch = Arc::new(Watch::start(&raw, all)?);
        let engine = Engine::new(&raw, &watch, &queues.transfer, &sides, &clock)?;
        let line = Line::new(&raw, &watch, Semaphore::create(&raw, false)?, &clock);
        if raw.is_lost() {
            let found = VulkanError::call("trying what the device can");
            return Err(found(vk::Result::ERROR_DEVICE_LOST));
        }
        let binder = Binder::new(sparse.unwrap_or(&queues.transfer), line);
        Ok(Self {
            core: Arc::new(Core {
                watch,
                engine,
                binder,
                lines: Mutex::new(Vec::new()),
                leaving: AtomicUsize::new(0),
                trash: Trash::default(),
                known: Known::default(),
                sides,
                budgets,
                raw,
                layout,
                trials,
                costs,
                transfer: Arc::clone(&queues.transfer),
                sparse: queues.sparse.clone(),
                general: Arc::clone(&queues.general),
                families,
                clock,
                idle: config.idle,
                stable,
                imports: config.import && trials.import,
            }),
        })
    }

    /// Begins a device of the manager's with this one's memories, its queue and its driver. Pages of
    /// `source` are imported where the device takes them.
    #[must_use]
    pub fn builder(&self, source: Arc<dyn PageSource>) -> DeviceBuilder<VulkanDriver> {
        self.builder_for(VulkanDriver::new(&self.core), source)
    }

    /// The driver that [`VulkanDevice::builder`] takes, for one of one's own to ask.
    #[must_use]
    pub fn driver(&self) -> VulkanDriver {
        VulkanDriver::new(&self.core)
    }

    /// The same with a driver of one's own, whose objects have a [`VulkanObject`] each.
    ///
    /// A Vulkan device has one manager: the second has no memory left.
    #[must_use]
    pub fn builder_for<D: Driver>(
        &self,
        driver: D,
        source: Arc<dyn PageSource>,
    ) -> DeviceBuilder<D> {
        let mut builder = Device::builder(driver, self.clock())
            .pages(Arc::clone(&source))
            .engine(self.engine());
        for (mem_type, space, region) in self.memories() {
            builder = builder.memory(mem_type, space, region);
        }
        match self.mapper(&source) {
            Some(mapper) => builder.mapper(mapper),
            None => builder,
        }
    }

    /// The copy engine, for who puts a device of the manager's together himself.
    #[must_use]
    pub fn engine(&self) -> Arc<dyn CopyEngine> {
        Arc::new(KeptEngine(Arc::clone(&self.core)))
    }

    /// The memories of chunks: a space and what is behind it. Whoever takes from a space has the region
    /// provide before the pages are used.
    #[must_use]
    pub fn memories(&self) -> Vec<MemoryParts> {
        let regions = self.core.sides.regions();
        let memory = |(mem_type, region): (MemType, &Arc<ChunkRegion>)| {
            let space: Box<dyn Space> = Box::new(ChunkSpace(Arc::clone(region)));
            (mem_type, space, Arc::clone(region) as Arc<dyn Region>)
        };
        regions.map(memory).collect()
    }

    /// What has the device find pages of `source`; nothing if it imports none. There is one, that of
    /// the first call.
    #[must_use]
    pub fn mapper(&self, source: &Arc<dyn PageSource>) -> Option<Arc<dyn Mapper>> {
        let core = &self.core;
        if core.imports && core.sides.import().is_none() {
            let import = HostImport::new(&core.raw, source, core.families.clone());
            core.sides.set_import(import);
        }
        let import = core.sides.import()?;
        Some(Arc::clone(import) as Arc<dyn Mapper>)
    }

    /// Describes an object that is bytes and nothing more, for the manager to make.
    #[must_use]
    pub fn memory(&self, bytes: u64) -> Described {
        VulkanObject::memory(&self.core, bytes)
    }

    /// Describes a buffer object.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no bytes, a bad alignment, no usage or a queue family that is not there,
    /// [`Error::Unsupported`] if it is to be stable, or to have an address, and the device cannot,
    /// and those of `vkCreateBuffer`.
    pub fn buffer(&self, info: &BufferInfo) -> Result<Described> {
        VulkanObject::buffer(&self.core, info)
    }

    /// Describes an image object.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for sparse flags, [`Error::Backend`] for formats that do not move or
    /// that the device has no such images of, and those of `vkCreateImage`.
    pub fn image(&self, info: &ImageInfo) -> Result<Described> {
        VulkanObject::image(&self.core, info)
    }

    /// Makes objects that a transaction holds, and has validated, ready for work of class `usage`: binds
    /// their memory, and says what they are and what the work waits for. Add the work's fence to
    /// them once it is submitted, in the same transaction.
    ///
    /// Waits, by the CPU, for fences that are not of this device, and for moves that such a fence holds
    /// up. Takes its turn at the queues that copy and bind: hold none meanwhile.
    ///
    /// # Errors
    /// - [`Error::Unsupported`]: a buffer or an image cannot be where the object is, and why.
    /// - [`Error::DeviceLost`], [`Error::Backend`]; nothing is bound that was not before.
    pub fn bind<D, R>(
        &self,
        locked: &Locked<'_, D, R>,
        objects: &[&Bo<D>],
        usage: Usage,
    ) -> Result<Binding>
    where
        D: Driver,
        D::Object: AsRef<VulkanObject>,
    {
        self.core.bind(locked, objects, usage)
    }

    /// Where an object's bytes are in device memory, in its order: allocation, first byte, how many.
    /// For raw use; valid as [`Reserved::side`] is.
    ///
    /// # Errors
    /// Those of [`Reserved::side`]; [`Error::Unsupported`] for pages that the device does not find.
    pub fn pieces<D: Driver>(
        &self,
        reserved: &Reserved<'_, D>,
    ) -> Result<Vec<(vk::DeviceMemory, u64, u64)>> {
        let side = reserved.side()?;
        let parts = self
            .core
            .sides
            .parts(&side, reserved.facts().pages.bytes())?;
        let piece = |part: &Part| (part.held.memory().handle(), part.offset, part.bytes);
        Ok(parts.iter().map(piece).collect())
    }

    /// The semaphore and its value that work on this device waits for instead of a fence; nothing if
    /// it has signalled, is not of this device, or is of a move that such a fence holds up. Takes its
    /// turn at the queue that copies: do not hold it meanwhile.
    #[must_use]
    pub fn point(&self, fence: &Fence) -> Option<(vk::Semaphore, u64)> {
        match self.core.watch.standing(fence) {
            Standing::Point(semaphore, value, _) => Some((semaphore, value)),
            Standing::Reached | Standing::Foreign => None,
        }
    }

    /// Background work: budgets, chunks that are empty for long, buffers that nobody uses.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<dyn Service>> {
        vec![Arc::new(Tender::new(&self.core))]
    }

    /// Has the manager's device learn of it when this one is lost: once. The manager's is not kept
    /// alive.
    pub fn tell_of_loss<D: Driver>(&self, device: &Device<D>) {
        let loss = device.loss();
        self.core.watch.on_loss(Box::new(move || loss.tell()));
    }

    /// Whether a call said that the device is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.core.raw.is_lost()
    }

    /// What the device says of itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.core.raw.facts
    }

    /// Its memories.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.core.layout
    }

    /// What it was found to do.
    #[must_use]
    pub fn trials(&self) -> &Trials {
        &self.core.trials
    }

    /// What copies cost.
    #[must_use]
    pub fn costs(&self) -> &Costs {
        &self.core.costs
    }

    /// Whether buffers can keep their handle when they move.
    #[must_use]
    pub fn keeps_handles(&self) -> bool {
        self.core.can_be_stable()
    }

    /// What a memory of chunks holds.
    #[must_use]
    pub fn usage(&self, mem_type: MemType) -> Option<ChunkUsage> {
        self.core
            .sides
            .region(mem_type)
            .map(|region| region.usage())
    }

    /// What the driver lets this process have of a memory's heap, smoothed, in bytes; nothing where it
    /// does not say.
    #[must_use]
    pub fn budget(&self, mem_type: MemType) -> Option<u64> {
        let region = self.core.sides.region(mem_type)?;
        self.core.budgets.of(region.kind().of.heap)
    }

    /// Changes the most that is allocated of a memory, in bytes; at most its heap. What is more stays
    /// until somebody else wants room.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not a memory of chunks.
    pub fn set_limit(&self, mem_type: MemType, bytes: u64) -> Result<()> {
        let region = self.core.sides.region(mem_type);
        let region = region.ok_or(Error::Invalid("not a memory of chunks"))?;
        region.set_limit(pages_of(bytes));
        Ok(())
    }

    /// Frees empty chunks now.
    pub fn trim(&self) {
        for (_, region) in self.core.sides.regions() {
            region.trim();
        }
    }

    /// What the transfer queue did.
    #[must_use]
    pub fn counts(&self) -> EngineCounts {
        self.core.engine.counts()
    }

    /// Pages of the process that the device finds now: how many mappings.
    #[must_use]
    pub fn imports(&self) -> u64 {
        self.core.sides.import().map_or(0, |import| import.live())
    }

    /// Allocations of device memory that there are now: chunks, imports, and what is on its way.
    #[must_use]
    pub fn allocations(&self) -> u32 {
        self.core.raw.allocations()
    }

    /// The queue for its user's work. Others submit to it too, perhaps: hold it.
    #[must_use]
    pub fn general_queue(&self) -> &Arc<SharedQueue> {
        &self.core.general
    }

    /// The functions of the device, for raw use.
    #[must_use]
    pub fn ash(&self) -> &ash::Device {
        self.core.raw.device()
    }

    /// The functions of its instance.
    #[must_use]
    pub fn instance(&self) -> &ash::Instance {
        self.core.raw.instance()
    }

    /// The device before it was opened.
    #[must_use]
    pub fn physical(&self) -> vk::PhysicalDevice {
        self.core.raw.physical()
    }

    /// The clock that its fences are on.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.core.clock)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn raw(&self) -> &Arc<Raw> {
        &self.core.raw
    }
}

impl fmt::Debug for VulkanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanDevice({})", self.core.raw.facts.name)
    }
}

/// The best memory that the CPU reaches.
fn visible_memory(layout: &Layout) -> Option<Chunked> {
    let chunked = layout.memories.iter().filter_map(|memory| memory.chunked());
    chunked.into_iter().find(|c| c.visible && c.coherent)
}

fn has_imports(layout: &Layout) -> bool {
    let imported = MadeOf::Frames { imported: true };
    layout
        .memories
        .iter()
        .any(|memory| memory.made_of == imported)
}

fn regions(
    raw: &Arc<Raw>,
    layout: &Layout,
    config: &VulkanConfig,
    budgets: &Arc<Budgets>,
    families: &[u32],
    export: Option<(vk::ExternalMemoryHandleTypeFlags, u64)>,
) -> [Option<Arc<ChunkRegion>>; MemType::COUNT] {
    let mut regions = [const { None }; MemType::COUNT];
    for memory in &layout.memories {
        let Some(of) = memory.chunked() else {
            continue;
        };
        let bytes = config
            .limits
            .get(&memory.mem_type)
            .map_or(of.bytes, |limit| (*limit).min(of.bytes));
        let kind = ChunkKind {
            of,
            priority: if memory.mem_type == MemType::VRAM {
                0.8
            } else {
                0.4
            },
            export: export.filter(|_| of.visible && of.coherent),
        };
        let sizes = config.sizes(bytes, raw.facts.limits.allocation_bytes);
        let space = Chunks::new(pages_of(bytes), sizes);
        let region = ChunkRegion::new(raw, kind, space, budgets, families.to_vec());
        regions[memory.mem_type.index()] = Some(region);
    }
    regions
}

#[cfg(test)]
mod tests;
