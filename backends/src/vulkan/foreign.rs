//! Memory that goes out as a descriptor, and memory and semaphores of others that come in as one.
//!
//! The rule that the `unsafe` blocks here rely on: those of
//! [`VulkanDevice::import`] and [`VulkanDevice::import_timeline`].
#![expect(unsafe_code, reason = "a descriptor says nothing of what it is of")]

use core::fmt;
use std::os::fd::OwnedFd;

use ash::vk;
#[cfg(doc)]
use ttm::bo::BoInfo;
use ttm::bo::Reserved;
use ttm::driver::{Driver, Side};
use ttm::error::{Error, Result};

use super::core::Core;
use super::device::VulkanDevice;
use super::objects::{Described, VulkanObject};
use super::raw::{Buffer, BufferWant, Memory, Semaphore};
use super::user_timeline::UserTimeline;

/// An object's memory as it goes out, or somebody else's as it comes in.
#[derive(Debug)]
pub struct Exported {
    /// The descriptor, of the whole allocation.
    pub fd: OwnedFd,
    /// As what it is one.
    pub how: vk::ExternalMemoryHandleTypeFlags,
    /// The memory type of the allocation, as the device that made it numbers them. Of a dma-buf that comes
    /// in it does not matter.
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
    pub fn export<D>(&self, reserved: &Reserved<'_, D>) -> Result<Exported>
    where
        D: Driver,
        D::Object: AsRef<VulkanObject>,
    {
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
        let fd = chunk.memory.export(how)?;
        reserved.object().as_ref().goes_out();
        Ok(Exported {
            fd,
            how,
            type_index: chunk.type_index,
            allocation: chunk.memory.bytes(),
            offset: chunk.offset_of(range.start()),
            bytes: range.len().bytes(),
        })
    }

    /// Takes memory of somebody else's in as an object of the manager's: locked, fenced, bound and released
    /// with the others. It is [foreign](BoInfo::foreign): it stays where it is, is in none of the
    /// memories here, and counts to no limit; a validate of it is refused. Its handle is the same for
    /// ever, and goes when nobody has the object and the fences of its work have signalled.
    ///
    /// What others did to the memory, and what they wait for, is between them and its user: ownership of
    /// queue families, and semaphores that [come in](VulkanDevice::import_timeline).
    ///
    /// # Errors
    /// [`Error::Backend`] if the device takes no such descriptor, or the buffer does not go there;
    /// [`Error::NoMemory`].
    ///
    /// # Safety
    /// What `from` says of the descriptor is so: an opaque one is of a device with the same driver and
    /// UUIDs, of an allocation of that size and type.
    pub unsafe fn import_object(
        &self,
        from: Exported,
        usage: vk::BufferUsageFlags,
    ) -> Result<Described> {
        // SAFETY: as the caller promises; the buffer outlives the fences of its object.
        let buffer = unsafe { self.import(from, usage)? };
        Ok(VulkanObject::foreign(self.core(), buffer))
    }

    /// Takes memory of somebody else's in, as a buffer over the bytes that he names, without an object. It
    /// counts to no limit.
    ///
    /// # Errors
    /// Those of [`VulkanDevice::import_object`].
    ///
    /// # Safety
    /// That of [`VulkanDevice::import_object`], and work on the buffer is over before it is dropped.
    pub unsafe fn import(
        &self,
        from: Exported,
        usage: vk::BufferUsageFlags,
    ) -> Result<ForeignBuffer> {
        let core = self.core();
        let want = BufferWant {
            bytes: from.bytes,
            usage,
            flags: vk::BufferCreateFlags::empty(),
            families: core.families_of(&[]),
            external: from.how,
        };
        let type_index = core.type_of(&from, &want)?;
        // SAFETY: as the caller promises.
        let memory = unsafe {
            Memory::import_fd(&core.raw, from.fd, from.how, type_index, from.allocation)?
        };
        let buffer = Buffer::within(&core.raw, &want, &memory, Some(type_index), from.offset)?;
        Ok(ForeignBuffer {
            buffer,
            _memory: memory,
        })
    }

    /// Takes a timeline semaphore of another process or API in, at the value where it is. Whoever made it
    /// and its user agree on who signals which value: [`UserTimeline::fence_at`] is a fence of either's.
    ///
    /// # Errors
    /// [`Error::Backend`] if semaphores of this device do not come in, or the driver refuses this one; the
    /// descriptor is closed.
    ///
    /// # Safety
    /// The descriptor is of a timeline semaphore, of a device with the same driver and UUIDs.
    pub unsafe fn import_timeline(&self, fd: OwnedFd) -> Result<UserTimeline> {
        // SAFETY: as the caller promises.
        let semaphore = unsafe { Semaphore::import(self.raw(), fd)? };
        let value = semaphore.value()?;
        Ok(self.user_timeline(semaphore, value))
    }
}

impl Core {
    /// The memory type as which memory of somebody else's comes in: that of a dma-buf is one that suits it
    /// and the buffer, since whoever made it may number none, or others.
    fn type_of(&self, from: &Exported, want: &BufferWant) -> Result<u32> {
        if from.how != vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT {
            return Ok(from.type_index);
        }
        if !self.raw.extensions().dma_buf {
            return Err(self.raw.lacks("VK_EXT_external_memory_dma_buf").into());
        }
        let suits = Memory::types_of_fd(&self.raw, &from.fd, from.how)?;
        let types = suits & self.known.fit_of(&self.raw, want)?.types;
        match types {
            0 => Err(Error::Unsupported(
                "no memory type of this device suits both the dma-buf and a buffer of this usage",
            )),
            types => Ok(types.trailing_zeros()),
        }
    }
}
