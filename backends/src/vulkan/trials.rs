//! What a device is found to do, by trying: drivers say more than they keep.
//!
//! Binding imported memory to a sparse buffer is one such thing: Mesa's lavapipe (25.0) says that it
//! can, takes the call, and binds other memory. So each way is tried once, with a few pages and
//! their content, when the device is opened.

use core::time::Duration;
use std::fs::File;

use ash::vk;
use placement::PAGE_SIZE;
use ttm::pages::Mapped;
use ttm::sync::Arc;

use crate::host::{FileMap, memfd, reserve};

use super::error::VulkanError;
use super::layout::Chunked;
use super::raw::{
    Buffer, BufferBind, BufferWant, CommandPool, Commands, Memory, MemoryWant, Raw, Semaphore,
    SharedQueue, SparseSubmission, Submission,
};

/// The longest that a trial is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that are tried with: as many as the largest granule of sparse memory has.
const BYTES: u64 = 64 << 10;

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trials {
    /// A sparse buffer shows the memory that was bound last, at an address that stays.
    pub sparse: bool,
    /// The same for imported memory.
    pub sparse_import: bool,
    /// Imported memory is the process's own.
    pub import: bool,
    /// Memory that goes out as a file, and at which byte of it it begins; and whether such memory can
    /// be bound to sparse buffers.
    pub file: Option<(vk::ExternalMemoryHandleTypeFlags, u64)>,
    /// Whether memory that goes out can be bound to sparse buffers.
    pub sparse_file: bool,
}

/// Waits for queues when it is dropped: a trial that ends early leaves nothing at work on what it
/// made. Made after that.
pub(super) struct Quiet<'a> {
    pub(super) raw: &'a Raw,
    pub(super) queue: &'a SharedQueue,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.queue.wait_idle(self.raw);
    }
}

/// Queues to try with.
pub(super) struct Bench<'a> {
    pub(super) raw: &'a Arc<Raw>,
    pub(super) transfer: &'a Arc<SharedQueue>,
    pub(super) sparse: Option<&'a Arc<SharedQueue>>,
    /// Memory that the CPU sees too.
    pub(super) visible: Chunked,
}

impl Bench<'_> {
    /// Tries everything that the device says it can. What fails is not there.
    pub(super) fn run(&self) -> Trials {
        let mut found = Trials::default();
        let plain = self.memory(vk::ExternalMemoryHandleTypeFlags::empty());
        if let Ok(memory) = &plain {
            let none = vk::ExternalMemoryHandleTypeFlags::empty();
            found.sparse = self.shows(memory, 0x11, none).unwrap_or(false);
        }
        if self.raw.extensions().host_import.is_some()
            && let Ok(memory) = self.imported()
        {
            found.import = self.copies(&memory, 0x22).unwrap_or(false);
            let host = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
            found.sparse_import =
                found.import && found.sparse && self.shows(&memory, 0x33, host).unwrap_or(false);
        }
        found.file = self.find_file();
        if let Some((how, _)) = found.file
            && let Ok(memory) = self.memory(how)
        {
            found.sparse_file = found.sparse && self.shows(&memory, 0x44, how).unwrap_or(false);
        }
        found
    }

    fn memory(
        &self,
        export: vk::ExternalMemoryHandleTypeFlags,
    ) -> Result<Arc<Memory>, VulkanError> {
        let want = MemoryWant {
            type_index: self.visible.type_index,
            bytes: BYTES,
            priority: 0.5,
            mapped: true,
            export,
        };
        Memory::allocate(self.raw, &want).map(Arc::new)
    }

    fn imported(&self) -> Result<Arc<Memory>, VulkanError> {
        let mapped = page_file(BYTES).and_then(|file| mapping_of(&file, BYTES));
        let mapped = mapped.map_err(|error| self.raw.lacks(error.to_string()))?;
        Memory::import(self.raw, mapped).map(Arc::new)
    }

    fn buffer(
        &self,
        external: vk::ExternalMemoryHandleTypeFlags,
        flags: vk::BufferCreateFlags,
    ) -> BufferWant {
        let mut families = vec![self.transfer.family()];
        families.extend(self.sparse.map(|queue| queue.family()));
        families.dedup();
        let mut want = BufferWant {
            flags,
            external,
            ..BufferWant::for_copies(BYTES, &families)
        };
        if self.raw.facts.can.buffer_address {
            want.usage |= vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        }
        want
    }

    /// Whether a plain buffer over `memory` shows what the CPU wrote there.
    fn copies(&self, memory: &Arc<Memory>, byte: u8) -> Result<bool, VulkanError> {
        let external = external_of(memory);
        let want = self.buffer(external, vk::BufferCreateFlags::empty());
        let buffer = Buffer::within(self.raw, &want, memory, None, 0)?;
        self.looks_right(&buffer, memory, byte, &[])
    }

    /// Whether a sparse buffer that was bound to other memory before shows that of `memory`.
    fn shows(
        &self,
        memory: &Arc<Memory>,
        byte: u8,
        external: vk::ExternalMemoryHandleTypeFlags,
    ) -> Result<bool, VulkanError> {
        let Some(sparse) = self.sparse.filter(|_| self.raw.facts.can.sparse_buffers) else {
            return Ok(false);
        };
        let want = self.buffer(external, vk::BufferCreateFlags::SPARSE_BINDING);
        let buffer = Buffer::create(self.raw, &want)?;
        if buffer.requirements().align > BYTES {
            return Ok(false);
        }
        let before = self.memory(vk::ExternalMemoryHandleTypeFlags::empty())?;
        let address = buffer.address();
        let bound = Semaphore::create(self.raw, false)?;
        let _quiet = Quiet {
            raw: self.raw,
            queue: sparse,
        };
        for (value, memory) in [(1, &before), (2, memory)] {
            let binds = [BufferBind {
                buffer: &buffer,
                at: 0,
                bytes: BYTES,
                memory,
                offset: 0,
            }];
            sparse.bind_sparse(
                self.raw,
                &SparseSubmission {
                    binds: &binds,
                    waits: &[],
                    signal: (&bound, value),
                },
            )?;
            Semaphore::wait_any(self.raw, &[(bound.handle(), value)], PATIENCE)?;
        }
        let right = self.looks_right(&buffer, memory, byte, &[(bound.handle(), 2)])?;
        Ok(right && buffer.address() == address)
    }

    /// Whether the device finds in `buffer` what the CPU writes into `memory`.
    fn looks_right(
        &self,
        buffer: &Buffer,
        memory: &Arc<Memory>,
        byte: u8,
        waits: &[(vk::Semaphore, u64)],
    ) -> Result<bool, VulkanError> {
        let seen = self.memory(vk::ExternalMemoryHandleTypeFlags::empty())?;
        let none = vk::ExternalMemoryHandleTypeFlags::empty();
        let copy = self.buffer(none, vk::BufferCreateFlags::empty());
        let copy = Buffer::within(self.raw, &copy, &seen, Some(self.visible.type_index), 0)?;
        let (Some(from), Some(to)) = (whole(memory), whole(&seen)) else {
            return Ok(false);
        };
        let pattern = vec![byte; from.len()];
        from.write(0, &pattern);
        to.zero(0, to.len());
        let pool = CommandPool::create(self.raw, self.transfer.family())?;
        let commands = Commands::create(&pool)?;
        let done = Semaphore::create(self.raw, false)?;
        let _quiet = Quiet {
            raw: self.raw,
            queue: self.transfer,
        };
        commands.begin()?;
        commands.barrier();
        let region = vk::BufferCopy::default().size(BYTES);
        commands.copy(buffer, &copy, &[region]);
        commands.show_to_host();
        commands.end()?;
        self.transfer.submit(
            self.raw,
            &[Submission {
                commands: &commands,
                waits,
                signal: (&done, 1),
            }],
        )?;
        let waited = Semaphore::wait_any(self.raw, &[(done.handle(), 1)], PATIENCE);
        if waited.is_err() || done.value()? < 1 {
            return Ok(false);
        }
        let mut found = vec![0; to.len()];
        to.read(0, &mut found);
        Ok(found == pattern)
    }

    /// As what memory goes out so that a mapping of it shows the same bytes, and from which byte on.
    fn find_file(&self) -> Option<(vk::ExternalMemoryHandleTypeFlags, u64)> {
        let can = &self.raw.facts.can;
        let dma_buf = (can.dma_buf, vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
        let opaque = (can.opaque_fd, vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD);
        for (able, how) in [dma_buf, opaque] {
            if !able || self.raw.extensions().memory_fd.is_none() {
                continue;
            }
            for base in [0, PAGE_SIZE] {
                if self.is_file(how, base).unwrap_or(false) {
                    return Some((how, base));
                }
            }
        }
        None
    }

    fn is_file(
        &self,
        how: vk::ExternalMemoryHandleTypeFlags,
        base: u64,
    ) -> Result<bool, VulkanError> {
        let memory = self.memory(how)?;
        let file = File::from(memory.export(how)?);
        let bytes = usize::try_from(BYTES).expect("few");
        // A file that is shorter would end in a signal.
        let long = file.metadata().is_ok_and(|m| m.len() >= base + BYTES);
        let (true, Some(ours)) = (long, whole(&memory)) else {
            return Ok(false);
        };
        let Ok(map) = FileMap::populated(&file, base, bytes, &Arc::default()) else {
            return Ok(false);
        };
        let theirs = map.into_mapped();
        // Both ways, each page its own.
        let pattern = |seed: u8| -> Vec<u8> {
            let byte = |n: usize| seed ^ (n / 97) as u8 ^ (n / PAGE_SIZE as usize) as u8;
            (0..bytes).map(byte).collect()
        };
        // Looked at first: where it is not the same memory, writing would overwrite the driver's.
        for (seed, from, to) in [(0x55, &ours, &theirs), (0x66, &theirs, &ours)] {
            from.write(0, &pattern(seed));
            let mut found = vec![0; bytes];
            to.read(0, &mut found);
            if found != pattern(seed) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn external_of(memory: &Memory) -> vk::ExternalMemoryHandleTypeFlags {
    match memory.is_imported() {
        true => vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
        false => vk::ExternalMemoryHandleTypeFlags::empty(),
    }
}

fn whole(memory: &Arc<Memory>) -> Option<Mapped> {
    memory.host_view()
}

/// A memory file of some pages, as the manager's frames are.
pub(super) fn page_file(bytes: u64) -> std::io::Result<File> {
    let file = memfd("vulkan trial")?;
    rustix::fs::ftruncate(&file, bytes)?;
    let pages = placement::PageCount::new(bytes / PAGE_SIZE).expect("few");
    reserve(&file, placement::PageRange::at(0, pages).expect("few"))?;
    Ok(file)
}

/// A mapping of all of it.
pub(super) fn mapping_of(file: &File, bytes: u64) -> std::io::Result<Mapped> {
    let bytes = usize::try_from(bytes).expect("few");
    Ok(FileMap::populated(file, 0, bytes, &Arc::default())?.into_mapped())
}
