//! Calls into a Vulkan device: everything unsafe about them that has to do with memory.
//!
//! The rule that the `unsafe` blocks here and below rely on: a [`Raw`] has a live device, made of the
//! instance beside it, with the extensions and features that it was told of (the contract of
//! [`Raw::new`]); every handle in a value of these modules was made by that device, is destroyed by
//! that value's drop and nowhere else, and the value has the [`Raw`], so that the device outlives
//! it. What a queue still uses is kept by whoever submitted it until its semaphore says that it is
//! done, or the device is lost.
#![expect(unsafe_code, reason = "calls by the function table of a Vulkan device")]

mod buffer;
mod commands;
mod image;
mod memory;
mod queue;
mod semaphore;
mod sparse;

pub(super) use buffer::{Buffer, BufferWant, FamilyNumbers, Requirements};
pub(super) use commands::{CommandPool, Commands};
pub(super) use image::{Image, ImageWant};
pub(super) use memory::{Memory, MemoryWant};
pub(super) use queue::Submission;
pub use queue::{HeldQueue, SharedQueue};
pub(super) use semaphore::Semaphore;
pub(super) use sparse::{BufferBind, SparseSubmission};

use std::ffi::c_char;

use ash::vk;
use ttm::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::error::VulkanError;
use super::facts::Facts;

/// A device, its functions, and what it can do.
pub(super) struct Raw {
    device: ash::Device,
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    /// Which extensions are on.
    extensions: Extensions,
    pub(super) facts: Facts,
    /// Allocations that live.
    allocations: AtomicU32,
    /// Allocations that were ever made.
    numbers: AtomicU64,
    lost: AtomicBool,
    /// What is destroyed with it, if it is ours.
    owner: Option<Box<dyn Send + Sync>>,
    destroys: bool,
}

/// Functions of extensions, of those that are on.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) host_import: Option<ash::ext::external_memory_host::Device>,
    pub(super) memory_fd: Option<ash::khr::external_memory_fd::Device>,
    pub(super) semaphore_fd: Option<ash::khr::external_semaphore_fd::Device>,
    pub(super) pageable: Option<ash::ext::pageable_device_local_memory::Device>,
    pub(super) dma_buf: bool,
    pub(super) budget: bool,
    pub(super) priority: bool,
}

impl Extensions {
    /// The functions of those extensions of which `has` says that they are on.
    pub(super) fn load(
        instance: &ash::Instance,
        device: &ash::Device,
        has: impl Fn(&std::ffi::CStr) -> bool,
    ) -> Self {
        use ash::{ext, khr};
        let on = |name| has(name).then_some(());
        Self {
            host_import: on(ext::external_memory_host::NAME)
                .map(|()| ext::external_memory_host::Device::new(instance, device)),
            memory_fd: on(khr::external_memory_fd::NAME)
                .map(|()| khr::external_memory_fd::Device::new(instance, device)),
            semaphore_fd: on(khr::external_semaphore_fd::NAME)
                .map(|()| khr::external_semaphore_fd::Device::new(instance, device)),
            pageable: on(ext::pageable_device_local_memory::NAME)
                .map(|()| ext::pageable_device_local_memory::Device::new(instance, device)),
            dma_buf: has(ext::external_memory_dma_buf::NAME),
            budget: has(ext::memory_budget::NAME),
            priority: has(ext::memory_priority::NAME),
        }
    }
}

impl Raw {
    /// Takes a device on.
    ///
    /// # Safety
    /// `device` was made of `physical` and `instance`, both live until this drops; the extensions
    /// and the features that `facts.can` names are on. With `destroys`, nobody else uses or destroys
    /// the device; `owner`, which has what it was made of, is dropped after it.
    pub(super) unsafe fn new(
        instance: ash::Instance,
        physical: vk::PhysicalDevice,
        device: ash::Device,
        extensions: Extensions,
        facts: Facts,
        owned: Option<Box<dyn Send + Sync>>,
    ) -> Self {
        Self {
            device,
            instance,
            physical,
            extensions,
            facts,
            allocations: AtomicU32::new(0),
            numbers: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            destroys: owned.is_some(),
            owner: owned,
        }
    }

    /// The functions of the device.
    pub(super) fn device(&self) -> &ash::Device {
        &self.device
    }

    /// The instance that the device is of.
    pub(super) fn instance(&self) -> &ash::Instance {
        &self.instance
    }

    /// The device before it was opened.
    pub(super) fn physical(&self) -> vk::PhysicalDevice {
        self.physical
    }

    pub(super) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The functions by which memory goes out and comes in as a descriptor.
    fn memory_fd(&self) -> Result<&ash::khr::external_memory_fd::Device, VulkanError> {
        let functions = self.extensions.memory_fd.as_ref();
        functions.ok_or_else(|| self.lacks("VK_KHR_external_memory_fd"))
    }

    /// The functions by which semaphores do.
    fn semaphore_fd(&self) -> Result<&ash::khr::external_semaphore_fd::Device, VulkanError> {
        let functions = self.extensions.semaphore_fd.as_ref();
        functions.ok_or_else(|| self.lacks("VK_KHR_external_semaphore_fd"))
    }

    /// Whether semaphores can go out.
    pub(super) fn exports_semaphores(&self) -> bool {
        self.extensions.semaphore_fd.is_some() && self.facts.can.semaphore_fd
    }

    /// How many queue families the device has.
    pub(super) fn queue_families(&self) -> u32 {
        // SAFETY: the physical device is of the instance, which lives (rule at the head).
        let all =
            unsafe { (self.instance).get_physical_device_queue_family_properties(self.physical) };
        u32::try_from(all.len()).unwrap_or(u32::MAX)
    }

    /// Allocations that live.
    pub(super) fn allocations(&self) -> u32 {
        // Relaxed: a count, which orders nothing.
        self.allocations.load(Ordering::Relaxed)
    }

    /// Whether a call said that the device is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether the device has such images.
    ///
    /// # Errors
    /// Those of `vkGetPhysicalDeviceImageFormatProperties2`; [`VulkanError::Unsuitable`] beyond what it
    /// says.
    pub(super) fn allows_image(&self, want: &ImageWant) -> Result<(), VulkanError> {
        let mut external =
            vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(want.external);
        let mut goes_out = vk::ExternalImageFormatProperties::default();
        let mut info = vk::PhysicalDeviceImageFormatInfo2::default()
            .format(want.format)
            .ty(want.kind)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(want.usage)
            .flags(want.flags);
        let mut properties = vk::ImageFormatProperties2::default();
        if !want.external.is_empty() {
            info = info.push_next(&mut external);
            properties = properties.push_next(&mut goes_out);
        }
        // SAFETY: the physical device is of the instance, which lives (rule at the head); both speak
        // Vulkan 1.2.
        let answer = unsafe {
            self.instance.get_physical_device_image_format_properties2(
                self.physical,
                &info,
                &mut properties,
            )
        };
        let most = properties.image_format_properties;
        self.said("vkGetPhysicalDeviceImageFormatProperties2", answer)?;
        let features = goes_out.external_memory_properties.external_memory_features;
        if features.contains(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY) {
            return Err(
                self.lacks("images in parts of memory that goes out; open it without windows")
            );
        }
        let (a, b) = (want.extent, most.max_extent);
        let fits = a.width <= b.width && a.height <= b.height && a.depth <= b.depth;
        let some = a.width > 0 && a.height > 0 && a.depth > 0 && want.levels > 0 && want.layers > 0;
        let levels = want.levels <= most.max_mip_levels && want.layers <= most.max_array_layers;
        match fits && some && levels {
            true => Ok(()),
            false => Err(self.lacks(format!("images of {want:?}; it has at most {most:?}"))),
        }
    }

    /// That the device cannot be used so, for want of `what`.
    pub(super) fn lacks(&self, what: impl Into<String>) -> VulkanError {
        VulkanError::Unsuitable {
            device: self.facts.name.clone(),
            lacks: what.into(),
        }
    }

    /// What a call said, with its name.
    fn said<T>(&self, what: &'static str, answer: Result<T, vk::Result>) -> Result<T, VulkanError> {
        answer.map_err(|result| {
            if result == vk::Result::ERROR_DEVICE_LOST {
                self.lost.store(true, Ordering::Release);
            }
            VulkanError::Call { what, result }
        })
    }

    /// What the driver lets this process have of each heap, and what it uses, in bytes; nothing
    /// without the extension.
    pub(super) fn heap_budgets(&self) -> Option<Vec<(u64, u64)>> {
        if !self.extensions.budget {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the physical device is of the instance, which lives (rule at the head), and the
        // extension of the chained structure is on (checked).
        unsafe {
            self.instance
                .get_physical_device_memory_properties2(self.physical, &mut properties);
        }
        let heaps = properties.memory_properties.memory_heap_count as usize;
        let budgets = budget.heap_budget.iter().zip(budget.heap_usage);
        Some(budgets.take(heaps).map(|(b, u)| (*b, u)).collect())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.destroys {
            // SAFETY: the device is ours alone (contract of `new`), and everything made of it had
            // this value, so it is gone.
            unsafe { self.device.destroy_device(None) }
        }
        drop(self.owner.take());
    }
}

/// Names of extensions as Vulkan takes them.
pub(super) fn pointers(names: &[&'static std::ffi::CStr]) -> Vec<*const c_char> {
    names.iter().map(|name| name.as_ptr()).collect()
}
