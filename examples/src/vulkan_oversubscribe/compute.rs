//! The device's side of the job: a pipeline, and submissions that run it over objects.
//!
//! The rule that the `unsafe` blocks here rely on: everything here is made of the device of
//! `vulkan`, which lives as long, is used by one thread, and is destroyed in `drop` after all
//! submissions are done. The buffers of a submission belong to objects that have its fence.
#![expect(unsafe_code, reason = "calls of a Vulkan device")]

use anyhow::{Context, Result, ensure};
use ash::vk;
use backends::vulkan::{Binding, Bound, UserTimeline, VulkanDevice};
use ttm::fence::Fence;

/// The shader, compiled from `step.wgsl`.
static SHADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/step.spv"));

/// Submissions that are under way at once.
const SLOTS: usize = 3;

/// Invocations of a workgroup, as the shader has it.
const GROUP: u64 = 64;

/// Workgroups that one dispatch may have on every device.
const MOST_GROUPS: u64 = 65_535;

/// A pipeline and what its submissions are made of.
pub(crate) struct Compute {
    vulkan: VulkanDevice,
    timeline: UserTimeline,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    pool: vk::CommandPool,
    slots: Vec<Slot>,
    next: usize,
}

/// What one submission has for itself.
struct Slot {
    commands: vk::CommandBuffer,
    sets: vk::DescriptorPool,
    last: Option<Fence>,
}

impl Compute {
    /// Makes a pipeline for submissions of at most `batch` objects.
    pub(crate) fn new(vulkan: &VulkanDevice, batch: u32) -> Result<Self> {
        let mut compute = Self {
            vulkan: vulkan.clone(),
            timeline: vulkan.timeline()?,
            set_layout: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
            pool: vk::CommandPool::null(),
            slots: Vec::new(),
            next: 0,
        };
        compute.make(batch).context("the compute pipeline")?;
        Ok(compute)
    }

    fn make(&mut self, batch: u32) -> Result<(), vk::Result> {
        let device = self.vulkan.ash().clone();
        let binding = [vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)];
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&binding);
        // SAFETY: the device lives; the structure is valid.
        self.set_layout = unsafe { device.create_descriptor_set_layout(&info, None)? };
        let layouts = [self.set_layout];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
        // SAFETY: as above.
        self.layout = unsafe { device.create_pipeline_layout(&info, None)? };
        self.pipeline = self.pipeline(&device)?;
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(self.vulkan.general_queue().family());
        // SAFETY: as above.
        self.pool = unsafe { device.create_command_pool(&info, None)? };
        for _ in 0..SLOTS {
            let slot = self.slot(&device, batch)?;
            self.slots.push(slot);
        }
        Ok(())
    }

    fn pipeline(&self, device: &ash::Device) -> Result<vk::Pipeline, vk::Result> {
        let words: Vec<u32> = SHADER
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: the device lives; the code is SPIR-V that was validated when it was compiled.
        let module = unsafe { device.create_shader_module(&info, None)? };
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = [vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(self.layout)];
        // SAFETY: as above; the layout is what the shader binds.
        let made =
            unsafe { device.create_compute_pipelines(vk::PipelineCache::null(), &info, None) };
        // SAFETY: a pipeline does not need its module once it is made.
        unsafe { device.destroy_shader_module(module, None) };
        made.map(|pipelines| pipelines[0])
            .map_err(|(_, result)| result)
    }

    fn slot(&self, device: &ash::Device, batch: u32) -> Result<Slot, vk::Result> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .command_buffer_count(1);
        // SAFETY: the device and the pool live.
        let commands = unsafe { device.allocate_command_buffers(&info)? };
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(batch)];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(batch)
            .pool_sizes(&sizes);
        // SAFETY: as above.
        let sets = unsafe { device.create_descriptor_pool(&info, None)? };
        Ok(Slot {
            commands: commands[0],
            sets,
            last: None,
        })
    }

    /// Runs one pass over the objects of `binding`, each of so many words, and answers the fence of
    /// it. Waits for a submission that is under way if there are as many as there can be.
    pub(crate) fn submit(&mut self, binding: &Binding, words: u64) -> Result<Fence> {
        let n = self.next;
        self.next = (n + 1) % self.slots.len();
        if let Some(fence) = self.slots[n].last.take() {
            fence.wait(None)?;
        }
        let (fence, value) = self.timeline.next();
        let submitted = self
            .record(n, binding, words)
            .and_then(|()| self.queue(n, binding, value));
        if let Err(error) = submitted {
            self.timeline.cancel(&fence);
            return Err(error.into());
        }
        self.slots[n].last = Some(fence.clone());
        Ok(fence)
    }

    fn record(&self, slot: usize, binding: &Binding, words: u64) -> Result<(), vk::Result> {
        let device = self.vulkan.ash();
        let Slot { commands, sets, .. } = self.slots[slot];
        // SAFETY: nothing that is pending uses sets of this pool: its submission was waited for.
        unsafe { device.reset_descriptor_pool(sets, vk::DescriptorPoolResetFlags::empty())? };
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: as above; the pool's buffers can be reset.
        unsafe { device.begin_command_buffer(commands, &info)? };
        self.barrier(commands);
        // SAFETY: the buffer is being recorded.
        unsafe {
            device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.pipeline);
        }
        for bound in &binding.objects {
            if let Bound::Buffer { handle, .. } = bound {
                self.dispatch(commands, sets, *handle, words)?;
            }
        }
        self.barrier(commands);
        // SAFETY: the buffer is being recorded.
        unsafe { device.end_command_buffer(commands) }
    }

    fn dispatch(
        &self,
        commands: vk::CommandBuffer,
        sets: vk::DescriptorPool,
        buffer: vk::Buffer,
        words: u64,
    ) -> Result<(), vk::Result> {
        let device = self.vulkan.ash();
        let layouts = [self.set_layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(sets)
            .set_layouts(&layouts);
        // SAFETY: the pool has a set for each object of a batch, and was reset.
        let set = unsafe { device.allocate_descriptor_sets(&info)? };
        let buffers = [vk::DescriptorBufferInfo::default()
            .buffer(buffer)
            .range(words * 4)];
        let write = [vk::WriteDescriptorSet::default()
            .dst_set(set[0])
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .buffer_info(&buffers)];
        // SAFETY: the set is new, the buffer lives until the fence, and has so many bytes.
        unsafe { device.update_descriptor_sets(&write, &[]) };
        // SAFETY: the buffer is being recorded, and the set is of the pipeline's layout.
        unsafe {
            device.cmd_bind_descriptor_sets(
                commands,
                vk::PipelineBindPoint::COMPUTE,
                self.layout,
                0,
                &set,
                &[],
            );
        }
        let groups = words.div_ceil(GROUP).clamp(1, MOST_GROUPS) as u32;
        // SAFETY: pipeline and set are bound, and no device has a lower limit.
        unsafe { device.cmd_dispatch(commands, groups, 1, 1) };
        Ok(())
    }

    fn barrier(&self, commands: vk::CommandBuffer) {
        let all = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(all)
            .dst_access_mask(all)];
        // SAFETY: the buffer is being recorded.
        unsafe {
            self.vulkan.ash().cmd_pipeline_barrier(
                commands,
                vk::PipelineStageFlags::ALL_COMMANDS,
                vk::PipelineStageFlags::ALL_COMMANDS,
                vk::DependencyFlags::empty(),
                &barrier,
                &[],
                &[],
            );
        }
    }

    fn queue(&self, slot: usize, binding: &Binding, value: u64) -> Result<(), vk::Result> {
        let commands = [self.slots[slot].commands];
        let waits: Vec<_> = binding.waits.iter().map(|wait| wait.0).collect();
        let values: Vec<_> = binding.waits.iter().map(|wait| wait.1).collect();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let signals = [self.timeline.semaphore()];
        let signal_values = [value];
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&values)
            .signal_semaphore_values(&signal_values);
        let info = vk::SubmitInfo::default()
            .command_buffers(&commands)
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .push_next(&mut timeline);
        let queue = self.vulkan.general_queue().hold();
        // SAFETY: the queue is held; commands, semaphores and buffers live until the fence.
        unsafe {
            self.vulkan
                .ash()
                .queue_submit(queue.handle(), &[info], vk::Fence::null())
        }
    }

    /// Waits for everything that was submitted.
    pub(crate) fn finish(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(fence) = slot.last.take() {
                let status = fence.wait(None)?;
                ensure!(
                    status == ttm::fence::Status::Done,
                    "a submission ended in {status:?}"
                );
            }
        }
        Ok(())
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some(fence) = slot.last.take() {
                let _ = fence.wait(None);
            }
        }
        let device = self.vulkan.ash();
        for slot in &self.slots {
            // SAFETY: all submissions are done.
            unsafe { device.destroy_descriptor_pool(slot.sets, None) };
        }
        // SAFETY: as above; its command buffers go with it.
        unsafe { device.destroy_command_pool(self.pool, None) };
        // SAFETY: as above.
        unsafe { device.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above.
        unsafe { device.destroy_pipeline_layout(self.layout, None) };
        // SAFETY: as above.
        unsafe { device.destroy_descriptor_set_layout(self.set_layout, None) };
    }
}
