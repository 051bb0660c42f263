//! Other allocators on the same device, with blocks as large as the manager's chunks.
//!
//! The rule that the `unsafe` blocks here rely on: every value has a [`Bare`], which keeps the device
//! and its instance, and is declared after what was made of these; what an allocator gave is given
//! back to it once, and nothing that was submitted ever uses it.

use std::collections::VecDeque;
use std::rc::Rc;

use ash::vk;
use gpu_allocator::MemoryLocation;
use gpu_allocator::vulkan as other;
use vk_mem::Alloc;

use crate::bare::{Bare, USAGE};
use crate::objects::{BLOCK, LIVE};
use crate::sides::Side;

/// Others that make a buffer of so many bytes and drop another.
pub(crate) fn buffers(
    bare: &Rc<Bare>,
    bytes: u64,
    ops: usize,
) -> anyhow::Result<Vec<Side<'static>>> {
    sides(bare, bytes, ops, Vma::buffer_turn, Other::buffer_turn)
}

/// Others that take so many bytes of memory and give others back.
pub(crate) fn memories(
    bare: &Rc<Bare>,
    bytes: u64,
    ops: usize,
) -> anyhow::Result<Vec<Side<'static>>> {
    sides(bare, bytes, ops, Vma::memory_turn, Other::memory_turn)
}

/// The others, each with its turn.
fn sides(
    bare: &Rc<Bare>,
    bytes: u64,
    ops: usize,
    of_vma: fn(&mut Vma),
    of_other: fn(&mut Other),
) -> anyhow::Result<Vec<Side<'static>>> {
    let mut vma = Vma::new(bare, bytes, vk_mem::AllocationCreateFlags::empty())?;
    let mut quick = Vma::new(
        bare,
        bytes,
        vk_mem::AllocationCreateFlags::STRATEGY_MIN_TIME,
    )?;
    let mut other = Other::new(bare, bytes)?;
    Ok(vec![
        Side::of("VMA", ops, move || of_vma(&mut vma)),
        Side::of("VMA, least time", ops, move || of_vma(&mut quick)),
        Side::of("gpu-allocator", ops, move || of_other(&mut other)),
    ])
}

fn buffer_info(bytes: u64) -> vk::BufferCreateInfo<'static> {
    vk::BufferCreateInfo::default().size(bytes).usage(USAGE)
}

/// What a buffer of so many bytes needs.
fn needs(bare: &Bare, bytes: u64) -> anyhow::Result<vk::MemoryRequirements> {
    let device = bare.vulkan.ash();
    // SAFETY: the device lives (rule at the head).
    let buffer = unsafe { device.create_buffer(&buffer_info(bytes), None) }?;
    // SAFETY: just made.
    let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
    // SAFETY: just made, and forgotten here.
    unsafe { device.destroy_buffer(buffer, None) };
    Ok(needs)
}

/// AMD's Vulkan Memory Allocator.
struct Vma {
    live: VecDeque<(vk::Buffer, vk_mem::Allocation)>,
    allocator: vk_mem::Allocator,
    wish: vk_mem::AllocationCreateInfo,
    bytes: u64,
    needs: vk::MemoryRequirements,
    _bare: Rc<Bare>,
}

impl Vma {
    fn new(
        bare: &Rc<Bare>,
        bytes: u64,
        flags: vk_mem::AllocationCreateFlags,
    ) -> anyhow::Result<Self> {
        let vulkan = &bare.vulkan;
        let mut info =
            vk_mem::AllocatorCreateInfo::new(vulkan.instance(), vulkan.ash(), vulkan.physical());
        info.preferred_large_heap_block_size = BLOCK;
        info.vulkan_api_version = vk::API_VERSION_1_2;
        // SAFETY: instance and device live longer than the allocator (rule at the head).
        let allocator = unsafe { vk_mem::Allocator::new(info) }?;
        Ok(Self {
            live: VecDeque::new(),
            allocator,
            wish: vk_mem::AllocationCreateInfo {
                flags,
                // Of the types that there are, the one that the manager takes for VRAM.
                required_flags: vk::MemoryPropertyFlags::DEVICE_LOCAL,
                ..Default::default()
            },
            bytes,
            needs: needs(bare, bytes)?,
            _bare: Rc::clone(bare),
        })
    }

    fn buffer_turn(&mut self) {
        // SAFETY: the allocator lives, and the structures are valid.
        let made = unsafe {
            self.allocator
                .create_buffer(&buffer_info(self.bytes), &self.wish)
        };
        self.live.push_back(made.expect("room"));
        if self.live.len() > LIVE {
            self.drop_oldest();
        }
    }

    fn memory_turn(&mut self) {
        // SAFETY: as above.
        let made = unsafe { self.allocator.allocate_memory(&self.needs, &self.wish) };
        self.live
            .push_back((vk::Buffer::null(), made.expect("room")));
        if self.live.len() > LIVE {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let (buffer, mut allocation) = self.live.pop_front().expect("some live");
        if buffer == vk::Buffer::null() {
            // SAFETY: this allocator's, and given back once (rule at the head).
            unsafe { self.allocator.free_memory(&mut allocation) }
        } else {
            // SAFETY: as above.
            unsafe { self.allocator.destroy_buffer(buffer, &mut allocation) }
        }
    }
}

impl Drop for Vma {
    fn drop(&mut self) {
        while !self.live.is_empty() {
            self.drop_oldest();
        }
    }
}

/// The `gpu-allocator` crate.
struct Other {
    live: VecDeque<(vk::Buffer, other::Allocation)>,
    allocator: other::Allocator,
    bytes: u64,
    needs: vk::MemoryRequirements,
    bare: Rc<Bare>,
}

impl Other {
    fn new(bare: &Rc<Bare>, bytes: u64) -> anyhow::Result<Self> {
        let vulkan = &bare.vulkan;
        let allocator = other::Allocator::new(&other::AllocatorCreateDesc {
            instance: vulkan.instance().clone(),
            device: vulkan.ash().clone(),
            physical_device: vulkan.physical(),
            debug_settings: Default::default(),
            buffer_device_address: false,
            allocation_sizes: gpu_allocator::AllocationSizes::new(BLOCK, BLOCK),
        })?;
        Ok(Self {
            live: VecDeque::new(),
            allocator,
            bytes,
            needs: needs(bare, bytes)?,
            bare: Rc::clone(bare),
        })
    }

    fn allocate(&mut self, requirements: vk::MemoryRequirements) -> other::Allocation {
        let made = self.allocator.allocate(&other::AllocationCreateDesc {
            name: "",
            requirements,
            location: MemoryLocation::GpuOnly,
            linear: true,
            allocation_scheme: other::AllocationScheme::GpuAllocatorManaged,
        });
        made.expect("room")
    }

    fn buffer_turn(&mut self) {
        let bare = Rc::clone(&self.bare);
        let device = bare.vulkan.ash();
        // SAFETY: the device lives (rule at the head).
        let buffer = unsafe { device.create_buffer(&buffer_info(self.bytes), None) };
        let buffer = buffer.expect("a buffer");
        // SAFETY: just made.
        let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
        let allocation = self.allocate(needs);
        // SAFETY: the memory lives as long as the allocation, of which this is only a name.
        let memory = unsafe { allocation.memory() };
        // SAFETY: the buffer was just made, and the allocation is as it needs.
        let bound = unsafe { device.bind_buffer_memory(buffer, memory, allocation.offset()) };
        bound.expect("memory that suits");
        self.live.push_back((buffer, allocation));
        if self.live.len() > LIVE {
            self.drop_oldest();
        }
    }

    fn memory_turn(&mut self) {
        let allocation = self.allocate(self.needs);
        self.live.push_back((vk::Buffer::null(), allocation));
        if self.live.len() > LIVE {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let (buffer, allocation) = self.live.pop_front().expect("some live");
        self.allocator.free(allocation).expect("its own");
        // SAFETY: null, or made here and forgotten (rule at the head).
        unsafe { self.bare.vulkan.ash().destroy_buffer(buffer, None) };
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        while !self.live.is_empty() {
            self.drop_oldest();
        }
    }
}
