//! Bare calls: what nobody who uses the device does without.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Bare`] has a [`VulkanDevice`], so the device
//! and its instance live; timeline semaphores are on, as the backend has them; handles in a value here
//! were made of that device by the value, and are destroyed by its drop alone, after all that was
//! submitted with them was waited for; queues are submitted to while they are held. One thread uses
//! a value, so a command buffer is recorded by one.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::rc::Rc;

use anyhow::Context;
use ash::vk;
use backends::vulkan::{UserTimeline, VulkanDevice};
use harness::copy::Span;
use placement::PageCount;
use ttm::pages::Mapped;

use crate::memory::{Window, span};
use crate::stage::Stage;

/// What buffers of the bench are used for.
pub(crate) const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::STORAGE_BUFFER;

const COPIED: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw() | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// The device, a command buffer, and a semaphore that counts submissions.
pub(crate) struct Bare {
    pub(crate) vulkan: VulkanDevice,
    /// The type of VRAM.
    type_index: u32,
    mapped: bool,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    done: vk::Semaphore,
    last: Cell<u64>,
}

impl Bare {
    pub(crate) fn new(stage: &Stage) -> anyhow::Result<Rc<Self>> {
        let vulkan = stage.vulkan.clone();
        let device = vulkan.ash();
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(vulkan.general_queue().family());
        // SAFETY: the device lives (rule at the head), and has a queue of that family.
        let pool = unsafe { device.create_command_pool(&info, None) }?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .command_buffer_count(1);
        // SAFETY: the pool was just made.
        let commands = unsafe { device.allocate_command_buffers(&info) }?[0];
        let mut kind =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: timeline semaphores are on (rule at the head).
        let done = unsafe { device.create_semaphore(&info, None) }?;
        Ok(Rc::new(Self {
            type_index: stage.vram_kind().type_index,
            mapped: stage.sees_vram(),
            vulkan,
            pool,
            commands,
            done,
            last: Cell::new(0),
        }))
    }

    /// Waits until semaphores have come to their values.
    ///
    /// # Panics
    /// When the device is lost.
    pub(crate) fn wait(&self, points: &[(vk::Semaphore, u64)]) {
        let semaphores: Vec<_> = points.iter().map(|point| point.0).collect();
        let values: Vec<_> = points.iter().map(|point| point.1).collect();
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: callers name timeline semaphores of the device, ours or the backend's, which live as
        // long as it does.
        let waited = unsafe { self.vulkan.ash().wait_semaphores(&info, u64::MAX) };
        waited.expect("a device that goes on");
    }

    /// Submits nothing, after `waits`, up to `signal`.
    ///
    /// # Panics
    /// When the device is lost.
    pub(crate) fn submit_nothing(
        &self,
        waits: &[(vk::Semaphore, u64)],
        signal: (vk::Semaphore, u64),
    ) {
        self.submit(&[], waits, signal);
    }

    fn submit(
        &self,
        commands: &[vk::CommandBuffer],
        waits: &[(vk::Semaphore, u64)],
        signal: (vk::Semaphore, u64),
    ) {
        let semaphores: Vec<_> = waits.iter().map(|wait| wait.0).collect();
        let values: Vec<_> = waits.iter().map(|wait| wait.1).collect();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let (signals, signalled) = ([signal.0], [signal.1]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&values)
            .signal_semaphore_values(&signalled);
        let info = vk::SubmitInfo::default()
            .command_buffers(commands)
            .wait_semaphores(&semaphores)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .push_next(&mut timeline);
        let queue = self.vulkan.general_queue().hold();
        // SAFETY: the queue is held; commands, if any, are recorded and in no other submission, since
        // callers wait; semaphores are timelines of the device, signalled in the order of values.
        let submitted = unsafe {
            let fence = vk::Fence::null();
            self.vulkan
                .ash()
                .queue_submit(queue.handle(), &[info], fence)
        };
        submitted.expect("a device that goes on");
    }

    /// Waits until the manager has heard of everything that was submitted, and what nobody uses any
    /// more is gone.
    ///
    /// # Panics
    /// When the device is lost.
    pub(crate) fn settle(&self, stage: &Stage, timeline: &UserTimeline) {
        let (fence, value) = timeline.next();
        self.submit_nothing(&[], (timeline.semaphore(), value));
        // Those that were made before this timeline are looked at before it.
        fence.wait(None).expect("a device that goes on");
        stage.reap();
    }

    /// The next point of its own semaphore.
    pub(crate) fn next(&self) -> (vk::Semaphore, u64) {
        self.last.set(self.last.get() + 1);
        (self.done, self.last.get())
    }

    /// Copies all of `from` to `to`, and waits for that.
    ///
    /// # Panics
    /// When the device refuses, which it does not.
    pub(crate) fn copy(&self, from: &Memory, to: &Memory) {
        let device = self.vulkan.ash();
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is ours, may be reset, and its last submission was waited for.
        unsafe { device.begin_command_buffer(self.commands, &info) }.expect("room to record");
        let region = vk::BufferCopy::default().size(from.bytes.min(to.bytes));
        // SAFETY: recording has begun; both buffers live until the wait below, are made for copies, and
        // have so many bytes.
        unsafe { device.cmd_copy_buffer(self.commands, from.buffer, to.buffer, &[region]) };
        // SAFETY: recording has begun.
        unsafe { device.end_command_buffer(self.commands) }.expect("room to record");
        let point = self.next();
        self.submit(&[self.commands], &[], point);
        self.wait(&[point]);
    }

    /// Makes a buffer.
    fn buffer(&self, bytes: u64, usage: vk::BufferUsageFlags, how: How) -> vk::Buffer {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(how.external);
        let mut info = vk::BufferCreateInfo::default()
            .size(bytes)
            .usage(usage)
            .flags(how.flags);
        if !how.external.is_empty() {
            info = info.push_next(&mut external);
        }
        // SAFETY: the device lives (rule at the head), and the backend uses such buffers itself.
        let made = unsafe { self.vulkan.ash().create_buffer(&info, None) };
        made.expect("a buffer")
    }

    fn needs(&self, buffer: vk::Buffer) -> vk::MemoryRequirements {
        // SAFETY: callers have just made the buffer.
        unsafe { self.vulkan.ash().get_buffer_memory_requirements(buffer) }
    }

    fn bind(&self, buffer: vk::Buffer, memory: vk::DeviceMemory, offset: u64) {
        // SAFETY: callers have just made the buffer, and memory that has room for it.
        let bound = unsafe { self.vulkan.ash().bind_buffer_memory(buffer, memory, offset) };
        bound.expect("memory that suits");
    }

    fn destroy(&self, buffer: vk::Buffer) {
        // SAFETY: callers made the buffer, nothing that was submitted uses it, and they forget it.
        unsafe { self.vulkan.ash().destroy_buffer(buffer, None) }
    }

    /// Makes a buffer of all of `memory`, asks what it needs, binds and destroys it.
    pub(crate) fn buffer_turn(&self, memory: &Memory) {
        let buffer = self.buffer(memory.bytes, USAGE, How::external(memory.external));
        let _ = std::hint::black_box(self.needs(buffer));
        self.bind(buffer, memory.memory, 0);
        self.destroy(buffer);
    }

    /// Whether the general queue binds sparse memory.
    pub(crate) fn binds_sparse(&self) -> bool {
        let physical = self.vulkan.physical();
        // SAFETY: the physical device is of the instance, and both live (rule at the head).
        let families = unsafe {
            self.vulkan
                .instance()
                .get_physical_device_queue_family_properties(physical)
        };
        let family = families.get(self.vulkan.general_queue().family() as usize);
        family.is_some_and(|f| f.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let device = self.vulkan.ash();
        if self.last.get() > 0 {
            self.wait(&[(self.done, self.last.get())]);
        }
        // SAFETY: ours, and not in use (waited for).
        unsafe { device.destroy_semaphore(self.done, None) };
        // SAFETY: ours, and its command buffer is not in use (waited for).
        unsafe { device.destroy_command_pool(self.pool, None) };
    }
}

/// What is special about a buffer.
#[derive(Clone, Copy, Default)]
struct How {
    flags: vk::BufferCreateFlags,
    external: vk::ExternalMemoryHandleTypeFlags,
}

impl How {
    fn external(external: vk::ExternalMemoryHandleTypeFlags) -> Self {
        Self {
            external,
            ..Self::default()
        }
    }
}

/// An allocation, and a buffer over all of it.
pub(crate) struct Memory {
    bare: Rc<Bare>,
    bytes: u64,
    memory: vk::DeviceMemory,
    buffer: vk::Buffer,
    external: vk::ExternalMemoryHandleTypeFlags,
    /// Where the CPU sees it.
    at: Option<NonNull<c_void>>,
    /// Pages of the process, if it is those. Go after the allocation.
    pages: Option<Window>,
}

impl Memory {
    /// Device memory as the manager has it: mapped if it can be, and such as goes out if that does.
    pub(crate) fn of_device(bare: &Rc<Bare>, bytes: u64) -> anyhow::Result<Self> {
        let file = bare.vulkan.trials().file;
        let external = file.map(|(how, _)| how).unwrap_or_default();
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(external);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(bare.type_index);
        if !external.is_empty() {
            info = info.push_next(&mut export);
        }
        let mut made = Self::allocate(bare, &info, external, None)?;
        if bare.mapped {
            let flags = vk::MemoryMapFlags::empty();
            // SAFETY: the memory was just made, of a type that the CPU sees, and is not mapped.
            let at = unsafe { bare.vulkan.ash().map_memory(made.memory, 0, bytes, flags) }?;
            made.at = NonNull::new(at);
        }
        Ok(made)
    }

    /// Pages of the process, as the manager has them in SYSTEM, imported once.
    pub(crate) fn of_host(bare: &Rc<Bare>, bytes: u64) -> anyhow::Result<Self> {
        let pages = PageCount::from_bytes_ceil(bytes).context("a size")?;
        let window = Window::new(pages)?;
        let external = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let type_index = bare.importing_type(window.all())?;
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(external)
            .host_pointer(window.all().as_ptr().cast());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(type_index)
            .push_next(&mut import);
        Self::allocate(bare, &info, external, Some(window))
    }

    fn allocate(
        bare: &Rc<Bare>,
        info: &vk::MemoryAllocateInfo<'_>,
        external: vk::ExternalMemoryHandleTypeFlags,
        pages: Option<Window>,
    ) -> anyhow::Result<Self> {
        // SAFETY: the device lives (rule at the head); what the chain names is of extensions that the
        // backend found to work, and pages in it stay mapped for as long as the result lives.
        let memory = unsafe { bare.vulkan.ash().allocate_memory(info, None) }?;
        let bytes = info.allocation_size;
        let buffer = bare.buffer(bytes, USAGE | COPIED, How::external(external));
        bare.bind(buffer, memory, 0);
        Ok(Self {
            bare: Rc::clone(bare),
            bytes,
            memory,
            buffer,
            external,
            at: None,
            pages,
        })
    }

    /// What the CPU sees of it.
    pub(crate) fn span(&self) -> Option<Span<'_>> {
        if let Some(window) = &self.pages {
            return Some(span(window.all()));
        }
        let len = usize::try_from(self.bytes).ok()?;
        // SAFETY: mapped at `at` until the memory is freed, by our drop, which the borrow outlasts not;
        // the bench's one thread copies, and waits for the device's copies before.
        self.at
            .map(|at| unsafe { Span::new(at.as_ptr().cast(), len) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.bare.destroy(self.buffer);
        // SAFETY: ours; every copy of it was waited for; its mapping ends with it.
        unsafe { self.bare.vulkan.ash().free_memory(self.memory, None) };
    }
}

impl Bare {
    /// A type that pages of the process can be.
    fn importing_type(&self, pages: &Mapped) -> anyhow::Result<u32> {
        let functions =
            ash::ext::external_memory_host::Device::new(self.vulkan.instance(), self.vulkan.ash());
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: the device lives, the extension is on (callers look at the backend's trials), and the
        // pages are mapped.
        let answer = unsafe {
            (functions.fp().get_memory_host_pointer_properties_ext)(
                self.vulkan.ash().handle(),
                vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
                pages.as_ptr().cast(),
                &mut properties,
            )
        };
        answer.result()?;
        let coherent = vk::MemoryPropertyFlags::HOST_COHERENT;
        let types = (0..).zip(&self.vulkan.facts().types);
        types
            .filter(|(n, _)| properties.memory_type_bits & 1 << n != 0)
            .find(|(_, kind)| kind.flags.contains(coherent))
            .map(|(n, _)| n)
            .context("a memory type for pages of the process")
    }
}

/// A buffer that a queue binds to one half of its memory after the other.
pub(crate) struct Sparse {
    memory: Memory,
    buffer: vk::Buffer,
    bytes: u64,
    second: Cell<bool>,
}

impl Sparse {
    pub(crate) fn new(bare: &Rc<Bare>, bytes: u64) -> anyhow::Result<Self> {
        let how = How {
            flags: vk::BufferCreateFlags::SPARSE_BINDING,
            ..How::default()
        };
        Ok(Self {
            memory: Memory::of_device(bare, 2 * bytes)?,
            buffer: bare.buffer(bytes, USAGE, how),
            bytes,
            second: Cell::new(false),
        })
    }

    /// Binds it to the other half, and waits for that.
    ///
    /// # Panics
    /// When the device is lost.
    pub(crate) fn rebind(&self) {
        let bare = &self.memory.bare;
        let second = self.second.replace(!self.second.get());
        let binds = [vk::SparseMemoryBind::default()
            .size(self.bytes)
            .memory(self.memory.memory)
            .memory_offset(if second { self.bytes } else { 0 })];
        let buffers = [vk::SparseBufferMemoryBindInfo::default()
            .buffer(self.buffer)
            .binds(&binds)];
        let point = bare.next();
        let (signals, values) = ([point.0], [point.1]);
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let info = vk::BindSparseInfo::default()
            .buffer_binds(&buffers)
            .signal_semaphores(&signals)
            .push_next(&mut timeline);
        let queue = bare.vulkan.general_queue().hold();
        // SAFETY: the queue is held and binds sparse memory (callers ask `binds_sparse`); the buffer is
        // sparse, and half of the memory has its bytes; all live until the wait below.
        let bound = unsafe {
            let fence = vk::Fence::null();
            bare.vulkan
                .ash()
                .queue_bind_sparse(queue.handle(), &[info], fence)
        };
        bound.expect("a device that goes on");
        drop(queue);
        bare.wait(&[point]);
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        self.memory.bare.destroy(self.buffer);
    }
}
