//! Queues, which take one call at a time.

use ash::vk;
use ttm::sync::{Arc, Mutex, MutexGuard};

use super::{Commands, Raw, Semaphore, VulkanError};

/// A queue of a device, and the lock that everybody takes who submits to it: Vulkan lets one thread
/// use a queue at a time. A user who has work for the same queue takes it too.
#[derive(Debug)]
pub struct SharedQueue {
    handle: vk::Queue,
    family: u32,
    turn: Mutex<()>,
}

/// A queue, for as long as nobody else may use it.
#[derive(Debug)]
pub struct HeldQueue<'a> {
    handle: vk::Queue,
    _turn: MutexGuard<'a, ()>,
}

impl HeldQueue<'_> {
    /// The handle, to submit to while this value lives.
    #[must_use]
    pub fn handle(&self) -> vk::Queue {
        self.handle
    }
}

impl SharedQueue {
    /// A queue of the family `family`. There is one such value for a queue, and who uses the queue
    /// holds it.
    #[must_use]
    pub fn new(handle: vk::Queue, family: u32) -> Arc<Self> {
        Arc::new(Self {
            handle,
            family,
            turn: Mutex::new(()),
        })
    }

    /// The number of its family.
    #[must_use]
    pub fn family(&self) -> u32 {
        self.family
    }

    /// Waits until nobody uses the queue, and keeps it.
    pub fn hold(&self) -> HeldQueue<'_> {
        HeldQueue {
            _turn: self.turn.lock(),
            handle: self.handle,
        }
    }
}

/// Commands to submit: after some points, up to one.
pub(in super::super) struct Submission<'a> {
    pub(in super::super) commands: &'a Commands,
    pub(in super::super) waits: &'a [(vk::Semaphore, u64)],
    pub(in super::super) signal: (&'a Semaphore, u64),
}

impl SharedQueue {
    /// Sleeps until all that was submitted to the queue is done, or the device is lost.
    pub(in super::super) fn wait_idle(&self, raw: &Raw) {
        let queue = self.hold();
        // SAFETY: the queue is of the device, which lives, and held.
        let answer = unsafe { raw.device.queue_wait_idle(queue.handle()) };
        let _ = raw.said("vkQueueWaitIdle", answer);
    }

    /// Submits by one call, in this order.
    ///
    /// # Errors
    /// Those of `vkQueueSubmit`; nothing was submitted, or the device is lost.
    pub(in super::super) fn submit(
        &self,
        raw: &Raw,
        submissions: &[Submission<'_>],
    ) -> Result<(), VulkanError> {
        struct Parts {
            commands: [vk::CommandBuffer; 1],
            waits: Vec<vk::Semaphore>,
            values: Vec<u64>,
            stages: Vec<vk::PipelineStageFlags>,
            signal: [vk::Semaphore; 1],
            value: [u64; 1],
        }
        let parts: Vec<Parts> = submissions
            .iter()
            .map(|s| Parts {
                commands: [s.commands.handle()],
                waits: s.waits.iter().map(|w| w.0).collect(),
                values: s.waits.iter().map(|w| w.1).collect(),
                stages: vec![vk::PipelineStageFlags::ALL_COMMANDS; s.waits.len()],
                signal: [s.signal.0.handle()],
                value: [s.signal.1],
            })
            .collect();
        let mut values: Vec<_> = parts
            .iter()
            .map(|p| {
                vk::TimelineSemaphoreSubmitInfo::default()
                    .wait_semaphore_values(&p.values)
                    .signal_semaphore_values(&p.value)
            })
            .collect();
        let infos: Vec<_> = parts
            .iter()
            .zip(&mut values)
            .map(|(p, values)| {
                vk::SubmitInfo::default()
                    .command_buffers(&p.commands)
                    .wait_semaphores(&p.waits)
                    .wait_dst_stage_mask(&p.stages)
                    .signal_semaphores(&p.signal)
                    .push_next(values)
            })
            .collect();
        let queue = self.hold();
        // SAFETY: the queue is of the device and held; commands, semaphores and what they use are kept
        // by the submitter until the signal (rule at the head); values only grow.
        let answer = unsafe {
            raw.device
                .queue_submit(queue.handle(), &infos, vk::Fence::null())
        };
        raw.said("vkQueueSubmit", answer)
    }
}
