//! Opening a device, or taking one on that is open.
//!
//! The rule that the `unsafe` blocks here rely on: `physical` is of the instance, which an
//! [`Instance`] keeps, and what is switched on is what the device says that it has.
#![expect(unsafe_code, reason = "calls of the Vulkan loader")]

use core::ffi::CStr;

use ash::vk;
use ttm::sync::Arc;

use super::config::VulkanConfig;
use super::device::{DeviceQueues, VulkanDevice};
use super::error::VulkanError;
use super::facts::{Can, Facts};
use super::instance::Instance;
use super::raw::{Extensions, Raw, Semaphore, SharedQueue, pointers};
use super::user_timeline::UserTimeline;

/// Extensions that are used where they are there.
const WANTED: [&CStr; 8] = [
    ash::ext::external_memory_host::NAME,
    ash::ext::external_memory_dma_buf::NAME,
    ash::khr::external_memory_fd::NAME,
    ash::khr::external_semaphore_fd::NAME,
    ash::ext::memory_budget::NAME,
    ash::ext::memory_priority::NAME,
    ash::ext::pageable_device_local_memory::NAME,
    ash::ext::map_memory_placed::NAME,
];

/// Which families there are queues of: the user's, the copies', and what binds.
struct Families {
    general: u32,
    transfer: u32,
    /// Whether copies have a queue apart from the user's in the same family.
    second: bool,
    sparse: Option<u32>,
}

impl VulkanDevice {
    /// Opens the best device of this machine as [`VulkanConfig::default`] has it.
    ///
    /// # Errors
    /// Those of [`VulkanDevice::open`].
    pub fn open_default() -> Result<Self, VulkanError> {
        Self::open(&VulkanConfig::default())
    }

    /// Opens a device of this machine, with everything that the manager can use switched on.
    ///
    /// # Errors
    /// [`VulkanError::NoLoader`], [`VulkanError::NoDevice`], [`VulkanError::Unsuitable`] if the device
    /// that was named lacks something, and those of opening it.
    pub fn open(config: &VulkanConfig) -> Result<Self, VulkanError> {
        let instance = Instance::open(&config.name)?;
        let mut devices = instance.devices();
        if let Some(part) = &config.device {
            devices.retain(|(_, facts)| facts.name.to_lowercase().contains(part));
        }
        devices.sort_by_key(|(_, facts)| rank(facts));
        let (physical, facts) = devices.into_iter().next().ok_or(VulkanError::NoDevice)?;
        if !facts.can.timeline {
            return Err(VulkanError::Unsuitable {
                device: facts.name,
                lacks: "timeline semaphores".into(),
            });
        }
        let families = families(instance.instance(), physical);
        let has = available(instance.instance(), physical)?;
        let extensions: Vec<&'static CStr> = WANTED
            .into_iter()
            .filter(|name| has.iter().any(|h| h.as_c_str() == *name))
            .collect();
        let device = make(&instance, physical, &facts, &families, &extensions)?;
        // SAFETY: the device was just opened with a queue of each of these.
        let queue = |family: u32, index: u32| unsafe { device.get_device_queue(family, index) };
        let general = SharedQueue::new(queue(families.general, 0), families.general);
        let transfer = match (families.transfer == families.general, families.second) {
            (true, false) => Arc::clone(&general),
            (true, true) => SharedQueue::new(queue(families.transfer, 1), families.transfer),
            (false, _) => SharedQueue::new(queue(families.transfer, 0), families.transfer),
        };
        let sparse = families.sparse.map(|family| match family {
            _ if family == families.general => Arc::clone(&general),
            _ if family == families.transfer => Arc::clone(&transfer),
            _ => SharedQueue::new(queue(family, 0), family),
        });
        let queues = DeviceQueues {
            transfer,
            sparse,
            general,
            sparse_binding: facts.can.sparse_buffers,
            buffer_address: facts.can.buffer_address,
            extensions,
        };
        let raw_instance = instance.instance().clone();
        // SAFETY: the device was made of these, nobody else has it, and the instance is destroyed
        // after it (its owner goes last); what is on is what was switched on above.
        let raw = unsafe {
            raw(
                raw_instance,
                physical,
                device,
                facts,
                &queues,
                Some(instance),
            )
        };
        Self::on(Arc::new(raw), &queues, config)
    }

    /// Takes a device on that is its user's, as [`VulkanConfig::default`] has it.
    ///
    /// # Errors
    /// Those of [`VulkanDevice::from_parts_with`].
    ///
    /// # Safety
    /// That of [`VulkanDevice::from_parts_with`].
    pub unsafe fn from_parts(
        entry: &ash::Entry,
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        device: ash::Device,
        queues: &DeviceQueues,
    ) -> Result<Self, VulkanError> {
        let config = VulkanConfig::default();
        // SAFETY: as the caller promises.
        unsafe { Self::from_parts_with(entry, instance, physical, device, queues, &config) }
    }

    /// Takes a device on that is its user's.
    ///
    /// # Errors
    /// [`VulkanError::Unsuitable`] if it lacks what the manager cannot do without, and those of trying
    /// what it can.
    ///
    /// # Safety
    /// - `device` was made of `physical`, and that of `instance`, by the loader behind `entry`; all
    ///   live until this device and everything made with it is gone, and `VK_API_VERSION` of both is
    ///   at least 1.2.
    /// - `queues` are the device's, of the families that they say, and are submitted to by others only
    ///   while they hold them; their extensions, and `timelineSemaphore`, are switched on, and so are
    ///   the features that they name. Memory priority and pageable memory count as on with their
    ///   extension.
    /// - The user waits for his work on objects of the manager before they are gone, and gives the
    ///   manager the fences of all of it.
    pub unsafe fn from_parts_with(
        entry: &ash::Entry,
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        device: ash::Device,
        queues: &DeviceQueues,
        config: &VulkanConfig,
    ) -> Result<Self, VulkanError> {
        // The loader stays as long as its user's entry does.
        let _ = entry;
        // SAFETY: the instance lives, and the physical device is its own (contract).
        let facts = unsafe { Facts::query(instance, physical) };
        // SAFETY: as the caller promises; nothing of it is destroyed here.
        let raw = unsafe { raw(instance.clone(), physical, device, facts, queues, None) };
        Self::on(Arc::new(raw), queues, config)
    }

    /// Takes a timeline semaphore of its user's on, so that the manager's fences are points of it.
    ///
    /// # Errors
    /// Those of asking for its value.
    ///
    /// # Safety
    /// It is a timeline semaphore of this device, and lives until the result and every fence of it is
    /// gone.
    pub unsafe fn adopt_timeline(&self, semaphore: vk::Semaphore) -> ttm::Result<UserTimeline> {
        // SAFETY: as the caller promises.
        let semaphore = unsafe { Semaphore::borrowed(self.raw(), semaphore) };
        let value = semaphore.value()?;
        Ok(self.user_timeline(semaphore, value))
    }
}

/// # Safety
/// That of [`Raw::new`].
unsafe fn raw(
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    device: ash::Device,
    facts: Facts,
    queues: &DeviceQueues,
    owner: Option<Instance>,
) -> Raw {
    let has = |name: &CStr| queues.extensions.contains(&name);
    let extensions = Extensions::load(&instance, &device, has);
    let can = Can {
        sparse_buffers: facts.can.sparse_buffers && queues.sparse_binding,
        buffer_address: facts.can.buffer_address && queues.buffer_address,
        host_import: facts.can.host_import && extensions.host_import.is_some(),
        dma_buf: facts.can.dma_buf && has(ash::ext::external_memory_dma_buf::NAME),
        ..facts.can
    };
    let facts = Facts { can, ..facts };
    let owner = owner.map(|instance| Box::new(instance) as Box<dyn Send + Sync>);
    // SAFETY: as the caller promises.
    unsafe { Raw::new(instance, physical, device, extensions, facts, owner) }
}

/// The better, the less.
fn rank(facts: &Facts) -> u8 {
    match facts.device_type {
        vk::PhysicalDeviceType::DISCRETE_GPU => 0,
        vk::PhysicalDeviceType::INTEGRATED_GPU => 1,
        vk::PhysicalDeviceType::VIRTUAL_GPU => 2,
        _ => 3,
    }
}

fn available(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Result<Vec<std::ffi::CString>, VulkanError> {
    // SAFETY: the physical device is of the instance, which lives (rule at the head).
    let all = unsafe { instance.enumerate_device_extension_properties(physical) }
        .map_err(VulkanError::call("vkEnumerateDeviceExtensionProperties"))?;
    let name = |e: &vk::ExtensionProperties| e.extension_name_as_c_str().map(Into::into).ok();
    Ok(all.iter().filter_map(name).collect())
}

fn families(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Families {
    use vk::QueueFlags as Q;
    // SAFETY: as above.
    let all = unsafe { instance.get_physical_device_queue_family_properties(physical) };
    let numbered = || (0..).zip(&all).filter(|(_, f)| f.queue_count > 0);
    let first = |want: &dyn Fn(Q) -> bool| {
        let found = numbered().find(|(_, f)| want(f.queue_flags));
        found.map(|(n, _)| n)
    };
    let general = first(&|f| f.contains(Q::GRAPHICS | Q::COMPUTE))
        .or_else(|| first(&|f| f.contains(Q::COMPUTE)))
        .unwrap_or(0);
    let transfer = first(&|f| f.contains(Q::TRANSFER) && !f.intersects(Q::GRAPHICS | Q::COMPUTE));
    let transfer = transfer.unwrap_or(general);
    let of = |n: u32| &all[n as usize];
    let binds = |n: u32| of(n).queue_flags.contains(Q::SPARSE_BINDING).then_some(n);
    Families {
        general,
        transfer,
        second: of(general).queue_count > 1,
        sparse: binds(general)
            .or(binds(transfer))
            .or_else(|| first(&|f| f.contains(Q::SPARSE_BINDING))),
    }
}

fn make(
    instance: &Instance,
    physical: vk::PhysicalDevice,
    facts: &Facts,
    families: &Families,
    extensions: &[&'static CStr],
) -> Result<ash::Device, VulkanError> {
    let mut numbers = vec![families.general, families.transfer];
    numbers.extend(families.sparse);
    numbers.sort_unstable();
    numbers.dedup();
    let priorities = [1.0, 1.0];
    let count = |n: u32| match n == families.general && families.second {
        true => 2,
        false => 1,
    };
    let queues: Vec<_> = numbers
        .iter()
        .map(|n| {
            vk::DeviceQueueCreateInfo::default()
                .queue_family_index(*n)
                .queue_priorities(&priorities[..count(*n)])
        })
        .collect();
    let names = pointers(extensions);
    let features = vk::PhysicalDeviceFeatures::default().sparse_binding(facts.can.sparse_buffers);
    let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
        .timeline_semaphore(true)
        .buffer_device_address(facts.can.buffer_address);
    let mut priority = vk::PhysicalDeviceMemoryPriorityFeaturesEXT::default().memory_priority(true);
    let mut pageable = vk::PhysicalDevicePageableDeviceLocalMemoryFeaturesEXT::default()
        .pageable_device_local_memory(true);
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&names)
        .enabled_features(&features)
        .push_next(&mut v12);
    if facts.can.priority && extensions.contains(&ash::ext::memory_priority::NAME) {
        info = info.push_next(&mut priority);
    }
    if facts.can.pageable && extensions.contains(&ash::ext::pageable_device_local_memory::NAME) {
        info = info.push_next(&mut pageable);
    }
    // SAFETY: the physical device is of the instance, which lives; what `info` names the device says
    // that it has, and it lives until the call is over.
    unsafe { instance.instance().create_device(physical, &info, None) }
        .map_err(VulkanError::call("vkCreateDevice"))
}
