//! Device memory: one allocation.

use core::ptr::NonNull;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use ash::vk;
use ttm::pages::Mapped;
use ttm::sync::Arc;
use ttm::sync::atomic::Ordering;

use super::{Raw, VulkanError};

/// What memory is wanted.
pub(in super::super) struct MemoryWant {
    /// The number of the memory type.
    pub(in super::super) type_index: u32,
    pub(in super::super) bytes: u64,
    /// 0 to 1: what the driver keeps near the device the longest, where it can be told.
    pub(in super::super) priority: f32,
    /// Whether all of it is mapped for the CPU, for as long as it lives.
    pub(in super::super) mapped: bool,
    /// As what it can go out.
    pub(in super::super) export: vk::ExternalMemoryHandleTypeFlags,
}

/// An allocation.
pub(in super::super) struct Memory {
    raw: Arc<Raw>,
    handle: vk::DeviceMemory,
    number: u64,
    bytes: u64,
    at: Option<NonNull<u8>>,
    /// The process's memory, if it is that. Goes after the allocation.
    from: Option<Mapped>,
}

// SAFETY: the address is of memory that belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing is reached through `&Memory` but by `Mapped`, which copies.
unsafe impl Sync for Memory {}

impl Memory {
    /// Allocates.
    ///
    /// # Errors
    /// Those of `vkAllocateMemory` and `vkMapMemory`; nothing is allocated.
    pub(in super::super) fn allocate(
        raw: &Arc<Raw>,
        want: &MemoryWant,
    ) -> Result<Self, VulkanError> {
        let mut priority = vk::MemoryPriorityAllocateInfoEXT::default().priority(want.priority);
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(want.export);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(want.bytes)
            .memory_type_index(want.type_index);
        if raw.extensions.priority {
            info = info.push_next(&mut priority);
        }
        if !want.export.is_empty() {
            info = info.push_next(&mut export);
        }
        let mut memory = Self::made(raw, info, None)?;
        if want.mapped {
            memory.map()?;
        }
        Ok(memory)
    }

    /// Makes memory of the process the device's, for as long as both live.
    ///
    /// # Errors
    /// [`VulkanError::Unsuitable`] if the device takes none of it, those of `vkAllocateMemory`.
    pub(in super::super) fn import(raw: &Arc<Raw>, from: Mapped) -> Result<Self, VulkanError> {
        let bits = raw.host_pointer_types(&from)?;
        let type_index = raw
            .importing_type(bits)
            .ok_or_else(|| raw.lacks("a memory type for memory of the process"))?;
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT)
            .host_pointer(from.as_ptr().cast());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(from.len() as u64)
            .memory_type_index(type_index)
            .push_next(&mut import);
        Self::made(raw, info, Some(from))
    }

    /// The memory types as which a descriptor can come in, a bit for each.
    ///
    /// # Errors
    /// Those of `vkGetMemoryFdPropertiesKHR`.
    pub(in super::super) fn types_of_fd(
        raw: &Raw,
        fd: &OwnedFd,
        how: vk::ExternalMemoryHandleTypeFlags,
    ) -> Result<u32, VulkanError> {
        let memory_fd = raw.memory_fd()?;
        let mut found = vk::MemoryFdPropertiesKHR::default();
        // SAFETY: the device lives (rule at the head), the extension is on, and the descriptor is open.
        let answer = unsafe { memory_fd.get_memory_fd_properties(how, fd.as_raw_fd(), &mut found) };
        raw.said("vkGetMemoryFdPropertiesKHR", answer)?;
        Ok(found.memory_type_bits)
    }

    /// Makes memory of somebody else's this device's too.
    ///
    /// # Errors
    /// Those of `vkAllocateMemory`; the descriptor is closed then.
    ///
    /// # Safety
    /// The descriptor is of such an allocation of such a device as the driver can share.
    pub(in super::super) unsafe fn import_fd(
        raw: &Arc<Raw>,
        fd: OwnedFd,
        how: vk::ExternalMemoryHandleTypeFlags,
        type_index: u32,
        bytes: u64,
    ) -> Result<Self, VulkanError> {
        raw.memory_fd()?;
        let mut import = vk::ImportMemoryFdInfoKHR::default()
            .handle_type(how)
            .fd(fd.as_raw_fd());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(type_index)
            .push_next(&mut import);
        let memory = Self::made(raw, info, None)?;
        // The driver has it now.
        let _ = fd.into_raw_fd();
        Ok(memory)
    }

    fn made(
        raw: &Arc<Raw>,
        info: vk::MemoryAllocateInfo<'_>,
        from: Option<Mapped>,
    ) -> Result<Self, VulkanError> {
        let mut flags =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut info = info;
        if raw.facts.can.buffer_address {
            info = info.push_next(&mut flags);
        }
        // SAFETY: the device lives (rule at the head); the structure and those in its chain are
        // valid and of extensions that are on, and a host pointer in it is of memory that is mapped
        // for as long as the result lives (its owner is put into it).
        let answer = unsafe { raw.device.allocate_memory(&info, None) };
        let handle = raw.said("vkAllocateMemory", answer)?;
        raw.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            raw: Arc::clone(raw),
            handle,
            // Relaxed: only that it is given once matters.
            number: raw.numbers.fetch_add(1, Ordering::Relaxed),
            bytes: info.allocation_size,
            at: None,
            from,
        })
    }

    fn map(&mut self) -> Result<(), VulkanError> {
        // SAFETY: the memory is of the device, visible (its maker's wish says so), and not mapped.
        let answer = unsafe {
            self.raw
                .device
                .map_memory(self.handle, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
        };
        let at = self.raw.said("vkMapMemory", answer)?;
        self.at = NonNull::new(at.cast());
        match self.at {
            Some(_) => Ok(()),
            None => Err(VulkanError::Call {
                what: "vkMapMemory",
                result: vk::Result::ERROR_MEMORY_MAP_FAILED,
            }),
        }
    }

    /// The handle, for calls that name it.
    pub(in super::super) fn handle(&self) -> vk::DeviceMemory {
        self.handle
    }

    /// A number that no other allocation of the device has or had; handles come again.
    pub(in super::super) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes it has.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is the process's.
    pub(in super::super) fn is_imported(&self) -> bool {
        self.from.is_some()
    }

    /// Some of the bytes, for the CPU; `None` if it is not mapped.
    ///
    /// # Panics
    /// If they are not inside.
    pub(in super::super) fn view(self: &Arc<Self>, offset: u64, len: u64) -> Option<Mapped> {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "bytes {offset}+{len} of {}",
            self.bytes
        );
        let index = |n| usize::try_from(n).expect("part of a mapping");
        let at = self.at?;
        // SAFETY: all bytes of the memory are mapped at `at`, and the offset is inside (asserted).
        let at = unsafe { at.add(index(offset)) };
        // SAFETY: `len` bytes from there are mapped (asserted), readable and writable, until the
        // memory is freed, which its owner here prevents; nobody makes references to them.
        Some(unsafe { Mapped::new(at, index(len), Arc::clone(self)) })
    }

    /// All the bytes, for the CPU: through its own mapping, or where they were imported from.
    pub(in super::super) fn host_view(self: &Arc<Self>) -> Option<Mapped> {
        let Some(from) = &self.from else {
            return self.view(0, self.bytes);
        };
        let at = NonNull::new(from.as_ptr())?;
        // SAFETY: the imported bytes stay mapped until the memory is dropped, which its owner here
        // prevents; nobody makes references to them.
        Some(unsafe { Mapped::new(at, from.len(), Arc::clone(self)) })
    }

    /// A descriptor of the memory, as it was to go out.
    ///
    /// # Errors
    /// Those of `vkGetMemoryFdKHR`; [`VulkanError::Unsuitable`] without the extension.
    pub(in super::super) fn export(
        &self,
        as_what: vk::ExternalMemoryHandleTypeFlags,
    ) -> Result<OwnedFd, VulkanError> {
        let functions = self.raw.memory_fd()?;
        let info = vk::MemoryGetFdInfoKHR::default()
            .memory(self.handle)
            .handle_type(as_what);
        // SAFETY: the memory lives and was allocated to go out as that (its makers ask only then).
        let answer = unsafe { functions.get_memory_fd(&info) };
        let fd = self.raw.said("vkGetMemoryFdKHR", answer)?;
        // SAFETY: the call gives a new descriptor to its caller.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Tells the driver how near the device the memory is to be kept, where it can be told.
    pub(in super::super) fn set_priority(&self, priority: f32) {
        if let Some(functions) = &self.raw.extensions.pageable {
            // SAFETY: the memory lives; the function is of an extension that is on.
            unsafe {
                (functions.fp().set_device_memory_priority_ext)(
                    self.raw.device.handle(),
                    self.handle,
                    priority,
                );
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nothing submitted uses the memory (rule at the head); its mapping ends with it, and
        // whoever looked through that had this value.
        unsafe { self.raw.device.free_memory(self.handle, None) }
        self.raw.allocations.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Raw {
    /// The memory types that memory of the process can be.
    fn host_pointer_types(&self, memory: &Mapped) -> Result<u32, VulkanError> {
        let Some(functions) = &self.extensions.host_import else {
            return Err(self.lacks("VK_EXT_external_memory_host"));
        };
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: the device lives, the function is of an extension that is on, the pointer is of
        // mapped memory and only looked up.
        let result = unsafe {
            (functions.fp().get_memory_host_pointer_properties_ext)(
                self.device.handle(),
                vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
                memory.as_ptr().cast(),
                &mut properties,
            )
        };
        self.said("vkGetMemoryHostPointerPropertiesEXT", result.result())?;
        Ok(properties.memory_type_bits)
    }

    /// The type of `bits` that the CPU shares best: coherent, and cached if there is such a one.
    fn importing_type(&self, bits: u32) -> Option<u32> {
        use vk::MemoryPropertyFlags as P;
        let candidates = (0..)
            .zip(&self.facts.types)
            .filter(|(n, _)| bits & 1 << n != 0);
        candidates
            .filter(|(_, t)| t.flags.contains(P::HOST_COHERENT))
            .max_by_key(|(_, t)| {
                let local = t.flags.contains(P::DEVICE_LOCAL);
                (t.flags.contains(P::HOST_CACHED), !local)
            })
            .map(|(n, _)| n)
    }
}
