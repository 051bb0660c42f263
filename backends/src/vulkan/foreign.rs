//! Memory that goes out as a descriptor, and memory of others that comes in as one.
//!
//! The rule that the `unsafe` block here relies on: that of [`VulkanDevice::import`].
#![expect(unsafe_code, reason = "a descriptor says nothing of what it is of")]

use core::fmt;
use std::os::fd::OwnedFd;

use ash::vk;
use ttm::bo::Reserved;
use ttm::driver::{Driver, Side};
use ttm::error::{Error, Result};

use super::device::VulkanDevice;
use super::raw::{Buffer, BufferWant, Memory};

/// An object's memory as it goes out, or somebody else's as it comes in.
#[derive(Debug)]
pub struct Exported {
    /// The descriptor, of the whole allocation.
    pub fd: OwnedFd,
    /// As what it is one.
    pub how: vk::ExternalMemoryHandleTypeFlags,
    /// The memory type of the allocation, as the device that made it numbers them.
    pub type_index: u32,
    /// Bytes of the allocation.
    pub allocation: u64,
    /// The first byte of the object.
    pub offset: u64,
    /// Bytes of the object.
    pub bytes: u64,
}

/// A buffer over memory of somebody else's, which no manager moves.
pub struct ForeignBuffer {
    // First: it goes before its memory.
    buffer: Buffer,
    _memory: Memory,
}

impl ForeignBuffer {
    /// The handle.
    #[must_use]
    pub fn handle(&self) -> vk::Buffer {
        self.buffer.handle()
    }

    /// Where shaders find it, if it was made for that.
    #[must_use]
    pub fn address(&self) -> Option<u64> {
        self.buffer.address()
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.buffer.bytes()
    }
}

impl fmt::Debug for ForeignBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForeignBuffer({} bytes)", self.bytes())
    }
}

impl VulkanDevice {
    /// A descriptor of the allocation that an object is in, and where the object lies in it, for
    /// another process or API. Pin the object first: it says nothing of where it goes next.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the memory does not go out ([`VulkanDevice::trials`] says as what it
    /// does), or the object is in several pieces, or not in device memory.
    pub fn export<D: Driver>(&self, reserved: &Reserved<'_, D>) -> Result<Exported> {
        const REFUSED: Error = Error::Unsupported(
            "only an object in one run of device memory that goes out can be handed out; \
             `VulkanDevice::trials` says as what memory goes out",
        );
        let Side::Device { mem_type, ranges } = reserved.side()? else {
            return Err(REFUSED);
        };
        let core = self.core();
        let how = core.exported_as(mem_type);
        let ([range], false) = (&ranges[..], how.is_empty()) else {
            return Err(REFUSED);
        };
        let region = core.sides.region(mem_type);
        let chunk = region.and_then(|region| region.chunk_at(range.start()));
        let chunk = chunk.ok_or(REFUSED)?;
        Ok(Exported {
            fd: chunk.memory.export(how)?,
            how,
            type_index: chunk.type_index,
            allocation: chunk.memory.bytes(),
            offset: chunk.offset_of(range.start()),
            bytes: range.len().bytes(),
        })
    }

    /// Takes memory of somebody else's in, as a buffer over the bytes that he names. It counts to no
    /// limit.
    ///
    /// # Errors
    /// [`Error::Backend`] if the device takes no such descriptor, or the buffer does not go there;
    /// [`Error::NoMemory`].
    ///
    /// # Safety
    /// What `from` says of the descriptor is so: an opaque one is of a device with the same driver and
    /// UUIDs, of an allocation of that size and type. Work on the buffer is over before it is dropped.
    pub unsafe fn import(
        &self,
        from: Exported,
        usage: vk::BufferUsageFlags,
    ) -> Result<ForeignBuffer> {
        let core = self.core();
        let Exported {
            how,
            type_index,
            allocation,
            offset,
            bytes,
            ..
        } = from;
        // SAFETY: as the caller promises.
        let memory = unsafe { Memory::import_fd(&core.raw, from.fd, how, type_index, allocation)? };
        let want = BufferWant {
            bytes,
            usage,
            flags: vk::BufferCreateFlags::empty(),
            families: core.families_of(&[]),
            external: how,
        };
        let buffer = Buffer::within(&core.raw, &want, &memory, Some(type_index), offset)?;
        Ok(ForeignBuffer {
            buffer,
            _memory: memory,
        })
    }
}
