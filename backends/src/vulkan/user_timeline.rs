//! Timeline semaphores by which users say how far their work is.

use core::fmt;
use std::os::fd::OwnedFd;

use ash::vk;
use ttm::error::{Error, Result};
use ttm::fence::Fence;
use ttm::sync::{Arc, Mutex};

use super::core::Core;
use super::device::VulkanDevice;
use super::line::Line;
use super::raw::Semaphore;

/// A timeline semaphore by which a user says how far his work is.
#[derive(Clone)]
pub struct UserTimeline {
    core: Arc<Core>,
    line: Arc<Line>,
    last: Arc<Mutex<u64>>,
}

impl VulkanDevice {
    /// A new timeline semaphore for its user's work, at 0.
    ///
    /// When its user lets go of it, it stays for as long as a point of it is not reached, or copies
    /// and binds that were told to wait for one are not done. Others' work that
    /// [`VulkanDevice::bind`] told to wait for it is theirs to end before that.
    ///
    /// # Errors
    /// Those of `vkCreateSemaphore`.
    pub fn timeline(&self) -> Result<UserTimeline> {
        let exported = self.core.raw.exports_semaphores();
        let semaphore = Semaphore::create(&self.core.raw, exported)?;
        Ok(self.user_timeline(semaphore, 0))
    }

    pub(super) fn user_timeline(&self, semaphore: Semaphore, value: u64) -> UserTimeline {
        let core = &self.core;
        let line = Line::new(&core.raw, &core.watch, semaphore, &core.clock);
        core.lines.lock().push(Arc::clone(&line));
        UserTimeline {
            core: Arc::clone(core),
            line,
            last: Arc::new(Mutex::new(value)),
        }
    }
}

impl UserTimeline {
    /// The next point: work that is being submitted signals the semaphore to the value. Once that is
    /// submitted, the fence goes to the objects that it uses: not before, for copies wait for it, and
    /// what they wait for cannot come after them on one queue. Submit in the order of the values.
    pub fn next(&self) -> (Fence, u64) {
        let mut last = self.last.lock();
        *last += 1;
        let fence = self.line.fence_at(*last);
        (fence.expect("the last point and one more"), *last)
    }

    /// A fence for a value of one's own choice, more than all before.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not.
    pub fn fence_at(&self, value: u64) -> Result<Fence> {
        let mut last = self.last.lock();
        let fence = (value > *last).then(|| self.line.fence_at(value)).flatten();
        let fence = fence.ok_or(Error::Invalid("values of a timeline only grow"))?;
        *last = value;
        Ok(fence)
    }

    /// A point's work was not submitted after all: its fence fails, once the points before it are
    /// reached, and the semaphore is brought to its value. If a later point was given out by then,
    /// that one's work brings it there.
    pub fn cancel(&self, fence: &Fence) {
        self.line.cancel(fence);
    }

    /// The semaphore.
    #[must_use]
    pub fn semaphore(&self) -> vk::Semaphore {
        self.line.semaphore().handle()
    }

    /// A descriptor of the semaphore, for another process or API.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if semaphores of this device do not go out, or it was adopted or came in
    /// itself; [`Error::Backend`].
    pub fn export(&self) -> Result<OwnedFd> {
        let semaphore = self.line.semaphore();
        if !semaphore.goes_out() {
            return Err(Error::Unsupported(
                "only what `VulkanDevice::timeline` made goes out, where timeline semaphores of the device \
                 do (VK_KHR_external_semaphore_fd)",
            ));
        }
        Ok(semaphore.export()?)
    }
}

impl Drop for UserTimeline {
    fn drop(&mut self) {
        if Arc::strong_count(&self.last) == 1 {
            self.core.forget_line(&self.line);
        }
    }
}

impl fmt::Debug for UserTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UserTimeline({:?} at {})",
            self.semaphore(),
            *self.last.lock()
        )
    }
}
