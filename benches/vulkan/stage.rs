//! A Vulkan device and a manager on it, without anybody in the background.

use std::sync::Arc;

use anyhow::Context;
use backends::host::MemfdPages;
use backends::vulkan::{Chunked, Described, VulkanConfig, VulkanDevice, VulkanDriver, VulkanError};
use harness::measure;
use placement::{MemType, PageCount, Place, Placement, human_bytes};
use ttm::bo::Bo;
use ttm::clock::Service;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::BoKind;
use ttm::fence::Usage;
use ttm::pages::PoolConfig;

pub(crate) const MIB: u64 = 1 << 20;

/// An object of the device.
pub(crate) type Object = Bo<VulkanDriver>;

/// The device, its manager, and the places that objects go to.
pub(crate) struct Stage {
    pub(crate) device: Device<VulkanDriver>,
    pub(crate) vulkan: VulkanDevice,
    pub(crate) vram: Placement,
    pub(crate) system: Placement,
    services: Vec<Arc<dyn Service>>,
}

impl Stage {
    /// Opens a device; inside, why there is none. Its threads, and the driver's, run on any CPU, though
    /// this one is kept on the first.
    pub(crate) fn open(config: VulkanConfig) -> anyhow::Result<Result<Self, VulkanError>> {
        measure::unpin()?;
        let opened = VulkanDevice::open(&config);
        let stage = match opened {
            Ok(vulkan) => Ok(Self::on(vulkan)?),
            Err(error) => Err(error),
        };
        measure::pin(0)?;
        Ok(stage)
    }

    /// Opens a device that was there before.
    pub(crate) fn again(config: VulkanConfig) -> anyhow::Result<Self> {
        Self::open(config)?.context("the device that was there is gone")
    }

    fn on(vulkan: VulkanDevice) -> anyhow::Result<Self> {
        let device = vulkan
            .builder(Arc::new(MemfdPages::new()?))
            .pool_config(PoolConfig {
                limit: PageCount::MAX,
                ..PoolConfig::default()
            })
            .build()?;
        // Frames stay mapped between their owners, as the memory of the limits does.
        device.pool().set_kept_windows(u64::MAX);
        vulkan.tell_of_loss(&device);
        Ok(Self {
            services: vulkan.services(),
            device,
            vulkan,
            vram: in_type(MemType::VRAM),
            system: in_type(MemType::SYSTEM),
        })
    }

    /// What of the device matters to the figures, in a line.
    pub(crate) fn abilities(&self) -> String {
        let trials = self.vulkan.trials();
        let yes = |is: bool| if is { "yes" } else { "no" };
        format!(
            "handles stay: {}; pages are imported: {}; stable buffers over imported pages: {}; \
             memory goes out: {}",
            yes(self.vulkan.keeps_handles()),
            yes(trials.import),
            yes(trials.sparse_import),
            yes(trials.file.is_some()),
        )
    }

    /// What copies were measured to cost when the device was opened, in a line.
    pub(crate) fn costs(&self) -> String {
        let costs = self.vulkan.costs().measured().iter().map(|cost| {
            format!(
                "{} {} by the queue, {} in and {} out by the CPU",
                human_bytes(cost.bytes),
                cost.queue_ns,
                cost.cpu_in_ns,
                cost.cpu_out_ns,
            )
        });
        format!(
            "copies when it was opened: {}",
            costs.collect::<Vec<_>>().join("; ")
        )
    }

    /// What VRAM is.
    pub(crate) fn vram_kind(&self) -> Chunked {
        let memories = &self.vulkan.layout().memories;
        let vram = memories.iter().find(|m| m.mem_type == MemType::VRAM);
        vram.and_then(|memory| memory.chunked())
            .expect("every device has VRAM")
    }

    /// Whether the CPU reaches VRAM.
    pub(crate) fn sees_vram(&self) -> bool {
        let kind = self.vram_kind();
        kind.visible && kind.coherent
    }

    /// Makes an object whose fresh memory nobody clears, nowhere yet.
    ///
    /// # Panics
    /// When it is refused, which no workload expects.
    pub(crate) fn make(&self, described: Described) -> Object {
        self.make_as(described, BoKind::Kernel)
    }

    /// Makes an object, nowhere yet.
    ///
    /// # Panics
    /// When it is refused, which no workload expects.
    pub(crate) fn make_as(&self, described: Described, kind: BoKind) -> Object {
        let Described { info, object } = described;
        let made = self.device.create(info.kind(kind), object);
        made.expect("an object")
    }

    /// Moves an object, and answers at once.
    ///
    /// # Panics
    /// When it is refused, which no workload expects.
    pub(crate) fn validate(&self, object: &Object, placement: &Placement) {
        let locked = self
            .device
            .exec(OpContext::new(), |t| t.lock(object)?.validate(placement));
        drop(locked.expect("a place"));
    }

    /// Moves an object, and waits until it is there.
    ///
    /// # Panics
    /// When it is refused, which no workload expects.
    pub(crate) fn go(&self, object: &Object, placement: &Placement) {
        let locked = self.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(object)?;
            reserved.validate(placement)?;
            Ok(reserved.fences(Usage::Bookkeep))
        });
        let locked = locked.expect("a place");
        let fences = locked.value().clone();
        drop(locked);
        for fence in fences {
            fence.wait(None).expect("a device that goes on");
        }
    }

    /// Does what services would do: what nobody uses any more goes.
    pub(crate) fn reap(&self) {
        self.device.reap();
        self.services.iter().for_each(|service| {
            service.step();
        });
    }

    /// Holds the manager to its invariants.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.device.check() {
            Ok(_) => Ok(()),
            Err(violation) => anyhow::bail!("{violation:?}"),
        }
    }
}

fn in_type(mem_type: MemType) -> Placement {
    Placement::of(Place::new(mem_type))
}
