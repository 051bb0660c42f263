//! Semaphores that count.

use core::time::Duration;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use ash::vk;
use ttm::sync::Arc;

use super::{Raw, VulkanError};

/// A timeline semaphore: ours, or one that its user destroys later than this value.
pub(in super::super) struct Semaphore {
    raw: Arc<Raw>,
    handle: vk::Semaphore,
    ours: bool,
    goes_out: bool,
}

impl Semaphore {
    /// Makes one at 0. With `exported` it can go out as a descriptor.
    ///
    /// # Errors
    /// Those of `vkCreateSemaphore`.
    pub(in super::super) fn create(raw: &Arc<Raw>, exported: bool) -> Result<Self, VulkanError> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let mut export = vk::ExportSemaphoreCreateInfo::default()
            .handle_types(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
        let mut info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        if exported {
            info = info.push_next(&mut export);
        }
        // SAFETY: the device lives and has timeline semaphores (rule at the head).
        let answer = unsafe { raw.device.create_semaphore(&info, None) };
        Ok(Self {
            raw: Arc::clone(raw),
            handle: raw.said("vkCreateSemaphore", answer)?,
            ours: true,
            goes_out: exported,
        })
    }

    /// Makes one that is also that of a descriptor, at the value where that is.
    ///
    /// # Errors
    /// Those of `vkCreateSemaphore` and `vkImportSemaphoreFdKHR`; [`VulkanError::Unsuitable`] without the
    /// extension. The descriptor is closed then.
    ///
    /// # Safety
    /// The descriptor is of a timeline semaphore of such a device as the driver can share.
    pub(in super::super) unsafe fn import(
        raw: &Arc<Raw>,
        fd: OwnedFd,
    ) -> Result<Self, VulkanError> {
        let functions = raw.semaphore_fd()?;
        let made = Self::create(raw, false)?;
        let info = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(made.handle)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD)
            .fd(fd.as_raw_fd());
        // SAFETY: the semaphore was just made, a timeline as the descriptor's is (the caller promises),
        // which is open.
        let answer = unsafe { functions.import_semaphore_fd(&info) };
        raw.said("vkImportSemaphoreFdKHR", answer)?;
        // The driver has it now.
        let _ = fd.into_raw_fd();
        Ok(made)
    }

    /// Takes a user's on.
    ///
    /// # Safety
    /// It is a timeline semaphore of the device, and lives longer than the result.
    pub(in super::super) unsafe fn borrowed(raw: &Arc<Raw>, handle: vk::Semaphore) -> Self {
        Self {
            raw: Arc::clone(raw),
            handle,
            ours: false,
            goes_out: false,
        }
    }

    /// The handle.
    pub(in super::super) fn handle(&self) -> vk::Semaphore {
        self.handle
    }

    /// Where it is.
    ///
    /// # Errors
    /// Those of `vkGetSemaphoreCounterValue`.
    pub(in super::super) fn value(&self) -> Result<u64, VulkanError> {
        // SAFETY: the semaphore lives and is a timeline (rule at the head).
        let answer = unsafe { self.raw.device.get_semaphore_counter_value(self.handle) };
        self.raw.said("vkGetSemaphoreCounterValue", answer)
    }

    /// Brings it to `value`, from the CPU.
    ///
    /// # Errors
    /// Those of `vkSignalSemaphore`.
    pub(in super::super) fn signal(&self, value: u64) -> Result<(), VulkanError> {
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.handle)
            .value(value);
        // SAFETY: the semaphore lives and is a timeline; its users bring it forward only, and no
        // submission that is pending has a smaller value (they are signalled in order).
        let answer = unsafe { self.raw.device.signal_semaphore(&info) };
        self.raw.said("vkSignalSemaphore", answer)
    }

    /// Whether it was made to go out as a descriptor.
    pub(in super::super) fn goes_out(&self) -> bool {
        self.goes_out
    }

    /// A descriptor of it.
    ///
    /// # Errors
    /// Those of `vkGetSemaphoreFdKHR`; [`VulkanError::Unsuitable`] without the extension.
    ///
    /// # Panics
    /// If it does not go out.
    pub(in super::super) fn export(&self) -> Result<OwnedFd, VulkanError> {
        assert!(self.goes_out, "a semaphore that was not made to go out");
        let functions = self.raw.semaphore_fd()?;
        let info = vk::SemaphoreGetFdInfoKHR::default()
            .semaphore(self.handle)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
        // SAFETY: the semaphore lives and was made to go out (checked).
        let answer = unsafe { functions.get_semaphore_fd(&info) };
        let fd = self.raw.said("vkGetSemaphoreFdKHR", answer)?;
        // SAFETY: the call gives a new descriptor to its caller.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Sleeps until one of them has come to its value, or the time is over.
    ///
    /// # Errors
    /// Those of `vkWaitSemaphores`; that the time is over is none.
    pub(in super::super) fn wait_any(
        raw: &Arc<Raw>,
        points: &[(vk::Semaphore, u64)],
        patience: Duration,
    ) -> Result<(), VulkanError> {
        let semaphores: Vec<_> = points.iter().map(|p| p.0).collect();
        let values: Vec<_> = points.iter().map(|p| p.1).collect();
        let info = vk::SemaphoreWaitInfo::default()
            .flags(vk::SemaphoreWaitFlags::ANY)
            .semaphores(&semaphores)
            .values(&values);
        let nanos = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the callers have the semaphores, all timelines, and keep them for the call.
        let answer = unsafe { raw.device.wait_semaphores(&info, nanos) };
        match answer {
            Err(vk::Result::TIMEOUT) => Ok(()),
            answer => raw.said("vkWaitSemaphores", answer),
        }
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: nothing submitted uses it (rule at the head), and it is ours.
            unsafe { self.raw.device.destroy_semaphore(self.handle, None) }
        }
    }
}
