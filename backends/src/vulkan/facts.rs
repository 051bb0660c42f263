//! What a Vulkan device says of itself, as far as memory goes: plain values, so that layouts of
//! devices that are not here can be looked at too.

use ash::vk;

/// A device's memory and what it can do with it.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Its name, as it gives it.
    pub name: String,
    /// The driver, its version and what it says of it.
    pub driver: String,
    /// What kind of device it says that it is.
    pub device_type: vk::PhysicalDeviceType,
    /// The version of the API that it speaks.
    pub api_version: u32,
    /// Its heaps, as Vulkan numbers them.
    pub heaps: Vec<Heap>,
    /// Its memory types, as Vulkan numbers them.
    pub types: Vec<Type>,
    /// Its limits.
    pub limits: Limits,
    /// What it can do.
    pub can: Can,
}

/// A heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heap {
    /// Its size in bytes.
    pub bytes: u64,
    /// What the driver thinks this process may use of it, in bytes, if it says.
    pub budget: Option<u64>,
    /// Whether it is the device's own.
    pub device_local: bool,
}

/// A memory type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Type {
    /// The heap that it is of.
    pub heap: u32,
    /// Its properties.
    pub flags: vk::MemoryPropertyFlags,
}

/// Limits that matter to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most that can be allocated at once, in bytes.
    pub allocation_bytes: u64,
    /// How many allocations there can be.
    pub allocations: u32,
    /// Images and buffers lie in different granules of so many bytes.
    pub buffer_image_granularity: u64,
    /// What flushes and invalidations of memory that is not coherent are multiples of, in bytes.
    pub non_coherent_atom: u64,
    /// What addresses and sizes of imported memory are multiples of, in bytes; 0 where none is
    /// imported.
    pub import_align: u64,
}

/// What a device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Can {
    /// Buffers whose memory is bound later, and again (`sparseBinding`), on some queue.
    pub sparse_buffers: bool,
    /// Memory of the process becomes the device's (`VK_EXT_external_memory_host`): buffers over it
    /// can be had. Whether such memory can be bound to sparse buffers too is found by trying
    /// only.
    pub host_import: bool,
    /// Whether the device says that sparse buffers and host import go together. Not to be
    /// believed.
    pub sparse_host_import: bool,
    /// Memory goes out as a dma-buf (`VK_EXT_external_memory_dma_buf`).
    pub dma_buf: bool,
    /// Memory goes out as a file descriptor that only the driver understands.
    pub opaque_fd: bool,
    /// Timeline semaphores go out as file descriptors.
    pub semaphore_fd: bool,
    /// The budget of a heap can be asked for (`VK_EXT_memory_budget`).
    pub budget: bool,
    /// An allocation has a priority (`VK_EXT_memory_priority`).
    pub priority: bool,
    /// The driver moves allocations by itself, and the priority can change
    /// (`VK_EXT_pageable_device_local_memory`).
    pub pageable: bool,
    /// Memory is mapped where the caller says (`VK_EXT_map_memory_placed`).
    pub placed_map: bool,
    /// Buffers have addresses for shaders.
    pub buffer_address: bool,
    /// Semaphores that count.
    pub timeline: bool,
}

impl Facts {
    /// Whether all memory is as near to the device as to the CPU: no move between heaps makes
    /// anything faster.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.heaps.iter().all(|heap| heap.device_local)
            || matches!(
                self.device_type,
                vk::PhysicalDeviceType::INTEGRATED_GPU | vk::PhysicalDeviceType::CPU
            )
    }
}
