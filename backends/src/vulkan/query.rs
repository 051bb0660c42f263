//! Asks a physical device what it says of its memory.
//!
//! The rule that the `unsafe` blocks here rely on: the instance of an [`Asked`] is alive, was made
//! for Vulkan 1.1 or later, and the physical device is one of its own ([`Facts::query`]'s contract).
//! Commands and structures that came later are used where the device's version or an extension of
//! its allows them; the structures live until the call that they are handed to is over.
#![expect(unsafe_code, reason = "calls of the Vulkan driver")]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};

use ash::{ext, khr, vk};

use super::facts::{Can, Facts, Heap, Limits, Type};

/// What buffers of the manager's are used for.
const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::STORAGE_BUFFER.as_raw()
        | vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// What a device that does not say allows in one allocation: the least that Vulkan 1.1 asks of it.
const LEAST_ALLOCATION: u64 = 1 << 30;

impl Facts {
    /// Asks a device. What it says of budgets is of this moment, all else stays.
    ///
    /// # Safety
    /// `instance` is alive and was made for Vulkan 1.1 or later (`api_version` of its
    /// `vk::ApplicationInfo`), and `physical` is one of its devices.
    #[must_use]
    pub unsafe fn query(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Self {
        // SAFETY: the caller's promise is the same.
        let asked = unsafe { Asked::new(instance, physical) };
        let limits = asked.limits();
        let memory = asked.memory();
        Self {
            name: text(asked.properties.device_name_as_c_str()),
            driver: asked.driver(),
            device_type: asked.properties.device_type,
            api_version: asked.properties.api_version,
            heaps: asked.heaps(&memory),
            types: types(&memory),
            limits,
            can: asked.can(),
        }
    }
}

/// A device that is asked.
struct Asked<'a> {
    instance: &'a ash::Instance,
    physical: vk::PhysicalDevice,
    properties: vk::PhysicalDeviceProperties,
    extensions: BTreeSet<CString>,
}

impl<'a> Asked<'a> {
    /// Asks first what everything else depends on.
    ///
    /// # Safety
    /// That of [`Facts::query`], until the value is gone.
    unsafe fn new(instance: &'a ash::Instance, physical: vk::PhysicalDevice) -> Self {
        // SAFETY: the rule above.
        let properties = unsafe { instance.get_physical_device_properties(physical) };
        // SAFETY: the rule above.
        let extensions = unsafe { instance.enumerate_device_extension_properties(physical) };
        // A device that cannot list its extensions is taken to have none.
        let extensions = extensions.unwrap_or_default();
        let name = |extension: &vk::ExtensionProperties| {
            Some(extension.extension_name_as_c_str().ok()?.to_owned())
        };
        Self {
            instance,
            physical,
            properties,
            extensions: extensions.iter().filter_map(name).collect(),
        }
    }

    fn has(&self, extension: &CStr) -> bool {
        self.extensions.contains(extension)
    }

    /// Whether the device speaks that version of Vulkan.
    fn speaks(&self, version: u32) -> bool {
        self.properties.api_version >= version
    }

    fn driver(&self) -> String {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let known = self.speaks(vk::API_VERSION_1_2) || self.has(khr::driver_properties::NAME);
        if !self.speaks(vk::API_VERSION_1_1) || !known {
            return format!("driver {:#x}", self.properties.driver_version);
        }
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: the rule above; the device speaks 1.1 and knows the structure.
        unsafe { (self.instance).get_physical_device_properties2(self.physical, &mut all) };
        let name = text(driver.driver_name_as_c_str());
        let info = text(driver.driver_info_as_c_str());
        format!("{name} {info}").trim().to_owned()
    }

    fn limits(&self) -> Limits {
        let basic = &self.properties.limits;
        let (allocation_bytes, import_align) = self.later_limits();
        Limits {
            allocation_bytes,
            allocations: basic.max_memory_allocation_count,
            buffer_image_granularity: basic.buffer_image_granularity,
            non_coherent_atom: basic.non_coherent_atom_size,
            import_align,
        }
    }

    /// The limits that later versions and extensions tell: of one allocation, and what imported
    /// memory is a multiple of.
    fn later_limits(&self) -> (u64, u64) {
        if !self.speaks(vk::API_VERSION_1_1) {
            return (LEAST_ALLOCATION, 0);
        }
        let mut allocation = vk::PhysicalDeviceMaintenance3Properties::default();
        let mut import = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut allocation);
        if self.has(ext::external_memory_host::NAME) {
            all = all.push_next(&mut import);
        }
        // SAFETY: the rule above; the device speaks 1.1 and knows the structures.
        unsafe { (self.instance).get_physical_device_properties2(self.physical, &mut all) };
        (
            allocation.max_memory_allocation_size,
            import.min_imported_host_pointer_alignment,
        )
    }

    fn memory(&self) -> vk::PhysicalDeviceMemoryProperties {
        // SAFETY: the rule above.
        unsafe { (self.instance).get_physical_device_memory_properties(self.physical) }
    }

    fn heaps(&self, memory: &vk::PhysicalDeviceMemoryProperties) -> Vec<Heap> {
        let budgets = self.budgets();
        let heap = |(index, heap): (usize, &vk::MemoryHeap)| Heap {
            bytes: heap.size,
            budget: budgets.map(|budgets| budgets[index]),
            device_local: heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
        };
        let heaps = memory.memory_heaps_as_slice().iter().enumerate();
        heaps.map(heap).collect()
    }

    /// What the driver thinks this process may use of each heap, if it tells.
    fn budgets(&self) -> Option<[u64; vk::MAX_MEMORY_HEAPS]> {
        if !self.tells_budgets() {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: the rule above; the device speaks 1.1 and knows the structure.
        unsafe { (self.instance).get_physical_device_memory_properties2(self.physical, &mut all) };
        Some(budget.heap_budget)
    }

    fn tells_budgets(&self) -> bool {
        self.speaks(vk::API_VERSION_1_1) && self.has(ext::memory_budget::NAME)
    }

    fn can(&self) -> Can {
        let mut can = self.features();
        can.sparse_buffers = self.sparse_buffers();
        can.budget = self.tells_budgets();
        if self.speaks(vk::API_VERSION_1_1) {
            self.external_memory(&mut can);
            can.semaphore_fd = can.timeline && self.semaphore_goes_out();
        }
        can
    }

    /// Whether buffers can be bound later: the feature, and a queue that does it.
    fn sparse_buffers(&self) -> bool {
        // SAFETY: the rule above.
        let features = unsafe { (self.instance).get_physical_device_features(self.physical) };
        // SAFETY: the rule above.
        let queues =
            unsafe { (self.instance).get_physical_device_queue_family_properties(self.physical) };
        let binds = |queue: &vk::QueueFamilyProperties| {
            queue.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING)
        };
        features.sparse_binding == vk::TRUE && queues.iter().any(binds)
    }

    /// What the features say; the rest of the answer is not filled in.
    fn features(&self) -> Can {
        let mut can = Can::default();
        if !self.speaks(vk::API_VERSION_1_1) {
            return can;
        }
        let mut core = vk::PhysicalDeviceVulkan12Features::default();
        let mut priority = vk::PhysicalDeviceMemoryPriorityFeaturesEXT::default();
        let mut pageable = vk::PhysicalDevicePageableDeviceLocalMemoryFeaturesEXT::default();
        let mut placed = vk::PhysicalDeviceMapMemoryPlacedFeaturesEXT::default();
        let mut all = vk::PhysicalDeviceFeatures2::default();
        if self.speaks(vk::API_VERSION_1_2) {
            all = all.push_next(&mut core);
        }
        if self.has(ext::memory_priority::NAME) {
            all = all.push_next(&mut priority);
        }
        if self.has(ext::pageable_device_local_memory::NAME) {
            all = all.push_next(&mut pageable);
        }
        if self.has(ext::map_memory_placed::NAME) {
            all = all.push_next(&mut placed);
        }
        // SAFETY: the rule above; the device speaks 1.1 and knows the structures.
        unsafe { (self.instance).get_physical_device_features2(self.physical, &mut all) };
        can.timeline = core.timeline_semaphore == vk::TRUE;
        can.buffer_address = core.buffer_device_address == vk::TRUE;
        can.priority = priority.memory_priority == vk::TRUE;
        can.pageable = pageable.pageable_device_local_memory == vk::TRUE;
        can.placed_map = placed.memory_map_placed == vk::TRUE;
        can
    }

    /// What comes in and goes out of buffers. A kind of handle is asked about only where its
    /// extension is there: some drivers answer yes without.
    fn external_memory(&self, can: &mut Can) {
        use vk::ExternalMemoryFeatureFlags as Feature;
        use vk::ExternalMemoryHandleTypeFlags as Handle;
        let plain = vk::BufferCreateFlags::empty();
        if self.has(ext::external_memory_host::NAME) {
            let does = |flags| {
                let answer = self.external_buffer(Handle::HOST_ALLOCATION_EXT, flags);
                answer.contains(Feature::IMPORTABLE)
            };
            can.host_import = does(plain);
            can.sparse_host_import =
                can.sparse_buffers && does(vk::BufferCreateFlags::SPARSE_BINDING);
        }
        if self.has(khr::external_memory_fd::NAME) {
            let goes_out = |handle| {
                let answer = self.external_buffer(handle, plain);
                answer.contains(Feature::EXPORTABLE)
            };
            can.opaque_fd = goes_out(Handle::OPAQUE_FD);
            can.dma_buf =
                self.has(ext::external_memory_dma_buf::NAME) && goes_out(Handle::DMA_BUF_EXT);
        }
    }

    /// What can be done with such handles of such buffers' memory; the device speaks 1.1.
    fn external_buffer(
        &self,
        handle: vk::ExternalMemoryHandleTypeFlags,
        flags: vk::BufferCreateFlags,
    ) -> vk::ExternalMemoryFeatureFlags {
        let info = vk::PhysicalDeviceExternalBufferInfo::default()
            .flags(flags)
            .usage(USAGE)
            .handle_type(handle);
        let mut out = vk::ExternalBufferProperties::default();
        // SAFETY: the rule above; the callers have seen that the device speaks 1.1 and has the
        // extension of this kind of handle.
        unsafe {
            (self.instance).get_physical_device_external_buffer_properties(
                self.physical,
                &info,
                &mut out,
            );
        };
        (out.external_memory_properties).external_memory_features
    }

    /// Whether timeline semaphores, which the device has, go out as file descriptors.
    fn semaphore_goes_out(&self) -> bool {
        if !self.has(khr::external_semaphore_fd::NAME) {
            return false;
        }
        let mut counting =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::PhysicalDeviceExternalSemaphoreInfo::default()
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD)
            .push_next(&mut counting);
        let mut out = vk::ExternalSemaphoreProperties::default();
        // SAFETY: the rule above; the device has timeline semaphores, thus speaks 1.2, and has the
        // extension.
        unsafe {
            (self.instance).get_physical_device_external_semaphore_properties(
                self.physical,
                &info,
                &mut out,
            );
        };
        (out.external_semaphore_features).contains(vk::ExternalSemaphoreFeatureFlags::EXPORTABLE)
    }
}

fn types(memory: &vk::PhysicalDeviceMemoryProperties) -> Vec<Type> {
    let kind = |kind: &vk::MemoryType| Type {
        heap: kind.heap_index,
        flags: kind.property_flags,
    };
    memory.memory_types_as_slice().iter().map(kind).collect()
}

/// A name of the driver's; empty if it is no text.
fn text(name: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    name.map_or_else(
        |_| String::new(),
        |name| name.to_string_lossy().into_owned(),
    )
}
