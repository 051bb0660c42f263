//! A fault shim over the function table: a device that is opened here, whose calls count themselves,
//! and fail when a plan says so.
//!
//! The rule that the `unsafe` blocks here rely on: instance, device and queues of an [`Opened`] live
//! until it drops, after everything that was made with them ([`Shimmed`] drops them in that order);
//! the wrapped functions are called with the arguments that Vulkan asks for, and hand them on as they
//! are.
#![expect(
    unsafe_code,
    reason = "a device opened by hand, and its function table"
)]

pub(crate) mod plan;
mod table;

use core::ffi::CStr;

use ash::vk;
use backends::vulkan::{DeviceQueues, Instance, SharedQueue, VulkanDevice, VulkanError};
use ttm::sync::Arc;

use super::stage::{Setup, Stage, skip, turn};

/// A device with a shim over its functions.
pub(crate) struct Opened {
    pub(crate) device: ash::Device,
    pub(crate) shimmed: ash::Instance,
    pub(crate) physical: vk::PhysicalDevice,
    pub(crate) queues: DeviceQueues,
    pub(crate) instance: Instance,
}

impl Opened {
    pub(crate) fn new() -> Result<Self, VulkanError> {
        let instance = Instance::open("ttm shim")?;
        let (physical, facts) = instance.devices().swap_remove(0);
        let plain = instance.instance().clone();
        let wanted = [
            ash::ext::external_memory_host::NAME,
            ash::ext::external_memory_dma_buf::NAME,
            ash::khr::external_memory_fd::NAME,
            ash::khr::external_semaphore_fd::NAME,
            ash::ext::memory_budget::NAME,
        ];
        // SAFETY: the physical device is of the instance (rule at the head).
        let has = unsafe { plain.enumerate_device_extension_properties(physical) }
            .map_err(VulkanError::call("vkEnumerateDeviceExtensionProperties"))?;
        let played = plan::plan().semaphore_fds;
        let has = |name: &&CStr| {
            played && **name == *ash::khr::external_semaphore_fd::NAME
                || has
                    .iter()
                    .any(|e| e.extension_name_as_c_str().is_ok_and(|n| n == *name))
        };
        let extensions: Vec<&'static CStr> = wanted.into_iter().filter(has).collect();
        let real = extensions
            .iter()
            .filter(|name| !played || **name != ash::khr::external_semaphore_fd::NAME);
        let names: Vec<_> = real.map(|name| name.as_ptr()).collect();
        // SAFETY: as above.
        let families = unsafe { plain.get_physical_device_queue_family_properties(physical) };
        let family = families
            .iter()
            .position(|f| f.queue_flags.contains(vk::QueueFlags::COMPUTE))
            .unwrap_or(0);
        let binds = families[family]
            .queue_flags
            .contains(vk::QueueFlags::SPARSE_BINDING);
        let sparse = facts.can.sparse_buffers && binds;
        let family = u32::try_from(family).unwrap();
        let priorities = [1.0];
        let queue = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family)
            .queue_priorities(&priorities)];
        let features = vk::PhysicalDeviceFeatures::default().sparse_binding(sparse);
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
            .timeline_semaphore(true)
            .buffer_device_address(facts.can.buffer_address);
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queue)
            .enabled_extension_names(&names)
            .enabled_features(&features)
            .push_next(&mut v12);
        // SAFETY: the physical device is of the instance and has what is asked for.
        let device = unsafe { plain.create_device(physical, &info, None) }
            .map_err(VulkanError::call("vkCreateDevice"))?;
        // SAFETY: the device was made with this queue.
        let handle = unsafe { device.get_device_queue(family, 0) };
        let queue = SharedQueue::new(handle, family);
        let (device, shimmed) = table::wrap(&device, &plain);
        Ok(Self {
            device,
            shimmed,
            physical,
            queues: DeviceQueues {
                transfer: Arc::clone(&queue),
                sparse: sparse.then(|| Arc::clone(&queue)),
                general: queue,
                extensions,
                sparse_binding: sparse,
                buffer_address: facts.can.buffer_address,
            },
            instance,
        })
    }

    pub(crate) fn take_on(&self, setup: &Setup) -> Result<VulkanDevice, VulkanError> {
        // SAFETY: all of it lives until `self` drops, which `Shimmed` does last; features and
        // extensions are on as the queues say.
        unsafe {
            VulkanDevice::from_parts_with(
                self.instance.entry(),
                &self.shimmed,
                self.physical,
                self.device.clone(),
                &self.queues,
                &setup.config,
            )
        }
    }
}

impl Drop for Opened {
    // Others may have their turn by now: plans are theirs.
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more (rule at the head).
        let _ = unsafe { self.device.device_wait_idle() };
        // SAFETY: as above; what was made of it is gone.
        unsafe { self.device.destroy_device(None) }
    }
}

/// A stage on such a device.
pub(crate) struct Shimmed {
    // First: the device goes last.
    stage: Stage,
    pub(crate) opened: Opened,
}

impl Shimmed {
    /// A stage; nothing where there is no device, which was said. Faults are planned once it is there.
    pub(crate) fn new(setup: &Setup) -> Option<Self> {
        let turn = turn();
        plan::calm();
        Self::with(setup, turn)
    }

    /// The same, with what was planned before.
    pub(crate) fn with(setup: &Setup, turn: ttm::sync::MutexGuard<'static, ()>) -> Option<Self> {
        let opened = match Opened::new() {
            Ok(opened) => opened,
            Err(error) => {
                skip(&error);
                return None;
            }
        };
        let vulkan = opened.take_on(setup).expect("a device like any other");
        Some(Self {
            stage: setup.on(vulkan, turn),
            opened,
        })
    }

    /// Everything was given back, and the device destroyed.
    pub(crate) fn end(self) {
        plan::calm();
        let turn = self.stage.emptied();
        assert_eq!(plan::live(), (0, 0), "memory that nobody freed");
        drop(self.opened);
        drop(turn);
    }
}

/// Ends the process if what it watches over does not end.
pub(crate) struct Watchdog(
    #[expect(dead_code, reason = "its drop is the sign of life")] std::sync::mpsc::Sender<()>,
);

impl Watchdog {
    pub(crate) fn new(what: &str) -> Self {
        let (alive, ends) = std::sync::mpsc::channel();
        let what = what.to_owned();
        std::thread::spawn(move || {
            let patience = core::time::Duration::from_secs(120);
            if ends.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("this hangs: {what}");
                std::process::abort();
            }
        });
        Self(alive)
    }
}

/// Waits a while for something that comes by itself.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is() {
        assert!(begun.elapsed().as_secs() < 20, "in vain: {what}");
        std::thread::sleep(core::time::Duration::from_millis(2));
    }
}

impl core::ops::Deref for Shimmed {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}
