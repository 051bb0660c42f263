//! Buffers whose memory is bound by a queue.

use ash::vk;

use super::{Buffer, Memory, Raw, Semaphore, SharedQueue, VulkanError};

/// New memory for bytes of a sparse buffer.
pub(in super::super) struct BufferBind<'a> {
    pub(in super::super) buffer: &'a Buffer,
    /// The first byte of the buffer.
    pub(in super::super) at: u64,
    pub(in super::super) bytes: u64,
    pub(in super::super) memory: &'a Memory,
    /// The first byte of the memory.
    pub(in super::super) offset: u64,
}

/// Binds to submit: after some points, up to one.
pub(in super::super) struct SparseSubmission<'a> {
    /// Binds of one buffer adjoin.
    pub(in super::super) binds: &'a [BufferBind<'a>],
    pub(in super::super) waits: &'a [(vk::Semaphore, u64)],
    pub(in super::super) signal: (&'a Semaphore, u64),
}

impl SharedQueue {
    /// Has the queue bind memory.
    ///
    /// # Errors
    /// Those of `vkQueueBindSparse`; nothing was submitted, or the device is lost.
    pub(in super::super) fn bind_sparse(
        &self,
        raw: &Raw,
        submission: &SparseSubmission<'_>,
    ) -> Result<(), VulkanError> {
        let groups: Vec<(vk::Buffer, Vec<vk::SparseMemoryBind>)> = submission
            .binds
            .chunk_by(|a, b| a.buffer.handle() == b.buffer.handle())
            .map(|binds| (binds[0].buffer.handle(), binds.iter().map(bind).collect()))
            .collect();
        let buffers: Vec<_> = groups
            .iter()
            .map(|(buffer, binds)| {
                vk::SparseBufferMemoryBindInfo::default()
                    .buffer(*buffer)
                    .binds(binds)
            })
            .collect();
        let waits: Vec<_> = submission.waits.iter().map(|w| w.0).collect();
        let wait_values: Vec<_> = submission.waits.iter().map(|w| w.1).collect();
        let signals = [submission.signal.0.handle()];
        let values = [submission.signal.1];
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&values);
        let info = vk::BindSparseInfo::default()
            .buffer_binds(&buffers)
            .wait_semaphores(&waits)
            .signal_semaphores(&signals)
            .push_next(&mut timeline);
        let queue = self.hold();
        // SAFETY: the queue is of the device, binds sparse memory and is held; the buffers are sparse,
        // ranges are inside and aligned as they need (their users check), and buffers, memory and
        // semaphores are kept until the signal (rule at the head).
        let answer = unsafe {
            raw.device
                .queue_bind_sparse(queue.handle(), &[info], vk::Fence::null())
        };
        raw.said("vkQueueBindSparse", answer)
    }
}

fn bind(bind: &BufferBind<'_>) -> vk::SparseMemoryBind {
    vk::SparseMemoryBind::default()
        .resource_offset(bind.at)
        .size(bind.bytes)
        .memory(bind.memory.handle())
        .memory_offset(bind.offset)
}
