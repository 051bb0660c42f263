//! A user's work: raw commands on the handles that a bind gave, on the user's queue, with a point of
//! a timeline of his.
//!
//! The rule that the `unsafe` blocks here rely on: the device lives as long as the stage, which
//! outlives a [`Gpu`]; a [`Gpu`] is one thread's, and its drop waits for all that it submitted before it
//! destroys what that used. Handles that work is recorded on are those of the bind of the same
//! transaction, which are in place.
#![expect(unsafe_code, reason = "raw Vulkan, as a user writes it")]

use std::cell::{Cell, RefCell};

use ash::vk;
use backends::vulkan::{Bound, UserTimeline, VulkanDriver};
use placement::Placement;
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Usage};

use super::stage::Stage;

/// An object, and what the work does with it.
pub(crate) type Used<'a> = (&'a Bo<VulkanDriver>, Usage);

pub(crate) struct Gpu<'s> {
    stage: &'s Stage,
    timeline: UserTimeline,
    pool: vk::CommandPool,
    /// With the fences of what is in flight.
    submitted: RefCell<Vec<(Fence, vk::CommandBuffer)>>,
}

/// Work that was submitted.
pub(crate) struct Done {
    pub(crate) fence: Fence,
    pub(crate) bound: Vec<Bound>,
    pub(crate) rebound: u64,
}

impl Done {
    pub(crate) fn wait(&self) {
        self.fence.wait(None).expect("the work ends");
    }
}

/// A point that the CPU reaches when it is told to: work that waits for it stays in flight.
pub(crate) struct Gate<'s> {
    stage: &'s Stage,
    semaphore: vk::Semaphore,
    is_open: Cell<bool>,
}

impl<'s> Gate<'s> {
    pub(crate) fn new(stage: &'s Stage) -> Self {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device lives (rule at the head).
        let semaphore = unsafe { stage.vulkan.ash().create_semaphore(&info, None) };
        Self {
            stage,
            semaphore: semaphore.expect("a semaphore"),
            is_open: Cell::new(false),
        }
    }

    pub(crate) fn open(&self) {
        if self.is_open.replace(true) {
            return;
        }
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.semaphore)
            .value(1);
        // SAFETY: a timeline of the device that only this signals, once.
        unsafe { self.stage.vulkan.ash().signal_semaphore(&info) }.expect("a signal");
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        // Nothing waits for ever, whatever failed.
        self.open();
        let device = self.stage.vulkan.ash();
        let idle = {
            let queue = self.stage.vulkan.general_queue().hold();
            // SAFETY: the queue is the device's, and held.
            unsafe { device.queue_wait_idle(queue.handle()) }
        };
        idle.expect("idle");
        // SAFETY: what waited for it has ended.
        unsafe { device.destroy_semaphore(self.semaphore, None) }
    }
}

impl<'s> Gpu<'s> {
    pub(crate) fn new(stage: &'s Stage) -> Self {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(stage.vulkan.general_queue().family());
        // SAFETY: the device lives (rule at the head).
        let pool = unsafe { stage.vulkan.ash().create_command_pool(&info, None) };
        Self {
            stage,
            timeline: stage.vulkan.timeline().expect("a timeline"),
            pool: pool.expect("a pool"),
            submitted: RefCell::new(Vec::new()),
        }
    }

    /// Validates all into `to`, if that is given, binds them, and submits what `record` records.
    pub(crate) fn work(
        &self,
        used: &[Used<'_>],
        to: Option<&Placement>,
        record: impl FnOnce(&ash::Device, vk::CommandBuffer, &[Bound]),
    ) -> Result<Done> {
        self.gated(used, to, None, record)
    }

    /// The same behind a gate.
    pub(crate) fn gated(
        &self,
        used: &[Used<'_>],
        to: Option<&Placement>,
        gate: Option<&Gate<'_>>,
        record: impl FnOnce(&ash::Device, vk::CommandBuffer, &[Bound]),
    ) -> Result<Done> {
        let vulkan = &self.stage.vulkan;
        let locked = self.stage.device.exec(OpContext::new(), |t| {
            for (bo, _) in used {
                let reserved = t.lock(bo)?;
                if let Some(to) = to {
                    reserved.validate(to)?;
                }
                reserved.reserve_fences(1)?;
            }
            Ok(())
        })?;
        let bos: Vec<_> = used.iter().map(|(bo, _)| *bo).collect();
        let write = used.iter().any(|(_, usage)| *usage == Usage::Write);
        let binding = vulkan.bind(
            &locked,
            &bos,
            if write { Usage::Write } else { Usage::Read },
        )?;
        if binding.objects.contains(&Bound::Memory) {
            return Err(Error::Unsupported("memory has no handle"));
        }
        let commands = self.begin();
        record(vulkan.ash(), commands, &binding.objects);
        self.end(commands);
        let mut waits = binding.waits.clone();
        waits.extend(gate.map(|gate| (gate.semaphore, 1)));
        let fence = self.submit(commands, &waits)?;
        for (bo, usage) in used {
            locked.fence(bo, &fence, *usage)?;
        }
        Ok(Done {
            fence,
            bound: binding.objects,
            rebound: binding.rebound,
        })
    }

    fn begin(&self) -> vk::CommandBuffer {
        let device = self.stage.vulkan.ash();
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .command_buffer_count(1);
        // SAFETY: the pool lives, and is this thread's.
        let commands = unsafe { device.allocate_command_buffers(&info) }.expect("a buffer")[0];
        let begin = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the buffer is new.
        unsafe { device.begin_command_buffer(commands, &begin) }.expect("a recording");
        commands
    }

    fn end(&self, commands: vk::CommandBuffer) {
        let device = self.stage.vulkan.ash();
        barrier(device, commands);
        // SAFETY: the buffer is being recorded.
        unsafe { device.end_command_buffer(commands) }.expect("a recording");
    }

    fn submit(&self, commands: vk::CommandBuffer, waits: &[(vk::Semaphore, u64)]) -> Result<Fence> {
        let vulkan = &self.stage.vulkan;
        let semaphores: Vec<_> = waits.iter().map(|wait| wait.0).collect();
        let values: Vec<_> = waits.iter().map(|wait| wait.1).collect();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let queue = vulkan.general_queue().hold();
        let (fence, value) = self.timeline.next();
        let (signals, points) = ([self.timeline.semaphore()], [value]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&values)
            .signal_semaphore_values(&points);
        let buffers = [commands];
        let info = vk::SubmitInfo::default()
            .command_buffers(&buffers)
            .wait_semaphores(&semaphores)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .push_next(&mut timeline);
        // SAFETY: the queue is held; what the commands use stays until the fence, which is given to
        // the manager for all of it.
        let submitted =
            unsafe { (vulkan.ash()).queue_submit(queue.handle(), &[info], vk::Fence::null()) };
        if submitted.is_err() {
            self.timeline.cancel(&fence);
            return Err(Error::DeviceLost);
        }
        let mut all = self.submitted.borrow_mut();
        let done: Vec<_> = all.extract_if(.., |(f, _)| f.is_signalled()).collect();
        all.push((fence.clone(), commands));
        for (_, old) in done {
            // SAFETY: its work has ended, and the pool is this thread's.
            unsafe { vulkan.ash().free_command_buffers(self.pool, &[old]) }
        }
        Ok(fence)
    }

    /// Fills a buffer with a word.
    pub(crate) fn fill(
        &self,
        bo: &Bo<VulkanDriver>,
        to: Option<&Placement>,
        word: u32,
    ) -> Result<Done> {
        self.fill_behind(bo, to, None, word)
    }

    pub(crate) fn fill_behind(
        &self,
        bo: &Bo<VulkanDriver>,
        to: Option<&Placement>,
        gate: Option<&Gate<'_>>,
        word: u32,
    ) -> Result<Done> {
        self.gated(
            &[(bo, Usage::Write)],
            to,
            gate,
            |device, commands, bound| {
                let bytes = bo.bytes() / 4 * 4;
                // SAFETY: recording; the buffer is bound, of so many bytes at least, and made for this.
                unsafe { device.cmd_fill_buffer(commands, buffer(&bound[0]), 0, bytes, word) }
            },
        )
    }

    /// Copies the first bytes of one buffer to another.
    pub(crate) fn copy(
        &self,
        from: &Bo<VulkanDriver>,
        to: &Bo<VulkanDriver>,
        place: Option<&Placement>,
        bytes: u64,
    ) -> Result<Done> {
        let used = [(from, Usage::Read), (to, Usage::Write)];
        self.work(&used, place, |device, commands, bound| {
            let region = [vk::BufferCopy::default().size(bytes)];
            let (from, to) = (buffer(&bound[0]), buffer(&bound[1]));
            // SAFETY: recording; both are bound, of so many bytes at least, and made for this.
            unsafe { device.cmd_copy_buffer(commands, from, to, &region) }
        })
    }
}

impl Drop for Gpu<'_> {
    fn drop(&mut self) {
        let device = self.stage.vulkan.ash();
        for (fence, _) in self.submitted.get_mut() {
            let _ = fence.wait(None);
        }
        // SAFETY: all that it submitted has ended.
        unsafe { device.destroy_command_pool(self.pool, None) }
    }
}

/// Brings a timeline's semaphore to a value, as its work would: by work that does nothing.
pub(crate) fn reach(stage: &Stage, timeline: &UserTimeline, value: u64) {
    let (signals, values) = ([timeline.semaphore()], [value]);
    let mut points = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
    let info = [vk::SubmitInfo::default()
        .signal_semaphores(&signals)
        .push_next(&mut points)];
    let queue = stage.vulkan.general_queue().hold();
    // SAFETY: the queue is held, the semaphore lives, and its values only grow.
    let submitted = unsafe {
        stage
            .vulkan
            .ash()
            .queue_submit(queue.handle(), &info, vk::Fence::null())
    };
    submitted.unwrap();
}

/// Everything before is done, and seen by everybody, before anything after.
pub(crate) fn barrier(device: &ash::Device, commands: vk::CommandBuffer) {
    let all = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
    let memory = [vk::MemoryBarrier::default()
        .src_access_mask(all)
        .dst_access_mask(all | vk::AccessFlags::HOST_READ | vk::AccessFlags::HOST_WRITE)];
    let (before, after) = (
        vk::PipelineStageFlags::ALL_COMMANDS,
        vk::PipelineStageFlags::ALL_COMMANDS | vk::PipelineStageFlags::HOST,
    );
    let none = vk::DependencyFlags::empty();
    // SAFETY: the buffer is being recorded.
    unsafe { device.cmd_pipeline_barrier(commands, before, after, none, &memory, &[], &[]) }
}

pub(crate) fn buffer(bound: &Bound) -> vk::Buffer {
    match bound {
        Bound::Buffer { handle, .. } => *handle,
        other => panic!("{other:?} is no buffer"),
    }
}

pub(crate) fn image(bound: &Bound) -> vk::Image {
    match bound {
        Bound::Image { handle, .. } => *handle,
        other => panic!("{other:?} is no image"),
    }
}

pub(crate) fn generation(bound: &Bound) -> u64 {
    match bound {
        Bound::Buffer { generation, .. } | Bound::Image { generation, .. } => *generation,
        Bound::Memory => 0,
    }
}
