//! What is done to locked objects and to whole devices: the public side of this module.

use placement::{MemType, Placement};

use crate::bo::{Bo, BoInfo, Reserved};
use crate::clock::{Background, Service};
use crate::context::OpContext;
use crate::device::{Device, DeviceCore};
use crate::driver::{Driver, Side};
use crate::error::Result;
use crate::fence::Usage;
use crate::pages::Reclaim;
use crate::sync::Arc;

use super::check::{Checked, Violation};
use super::prepare::Prepared;
use super::reclaim::Givers;
use super::suspend::{Suspended, with_ask};
use super::validate::Rest;

impl<D: Driver> Reserved<'_, D> {
    /// Makes the object resident in one of `placement`'s places, evicting others if nothing else
    /// helps. An empty placement throws the content away.
    ///
    /// Its content may still be on its way afterwards: work on it waits for the fences of class
    /// [`Usage::Kernel`]. May wait for victims and fences, if the context allows.
    ///
    /// # Errors
    /// - [`Error::Pinned`](crate::Error::Pinned): it is pinned elsewhere.
    /// - [`Error::NoSpace`](crate::Error::NoSpace): no place has room, and nothing more can be evicted.
    /// - [`Error::TooBig`](crate::Error::TooBig): no place could hold it if it were empty.
    /// - [`Error::NoMemory`](crate::Error::NoMemory): system pages ran out.
    /// - [`Error::ContentLost`](crate::Error::ContentLost), [`Error::DeviceLost`](crate::Error::DeviceLost).
    /// - [`Error::Deadlock`](crate::Error::Deadlock), [`Error::Interrupted`](crate::Error::Interrupted), [`Error::TimedOut`](crate::Error::TimedOut), [`Error::Busy`](crate::Error::Busy): return
    ///   them from the closure.
    ///
    /// The object is where it was; victims that have left stay away.
    #[inline]
    pub fn validate(&self, placement: &Placement) -> Result<()> {
        if self.bo.is_settled_in(&self.held(), placement) && !self.terms.is_backing_off() {
            return Ok(());
        }
        self.with_ask(|ask| self.bo.validate(&self.held(), placement, ask))
    }

    /// Waits until a user of class `usage` has nothing to wait for.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) if the context does not wait, [`Error::TimedOut`](crate::Error::TimedOut), [`Error::Interrupted`](crate::Error::Interrupted),
    /// [`Error::Stalled`](crate::Error::Stalled).
    pub fn wait_idle(&self, usage: Usage) -> Result<()> {
        self.with_ask(|ask| self.bo.wait_idle(&self.held(), usage, ask))
    }

    /// Gives an object in system memory its pages, swapping them in.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if it is in device memory; those of validate.
    pub fn populate(&self) -> Result<()> {
        self.with_ask(|ask| self.bo.populate_here(&self.held(), ask))
    }

    /// Moves the pages of an object in system memory to the backup.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if it is not in system memory, [`Error::Pinned`](crate::Error::Pinned),
    /// [`Error::Unsupported`](crate::Error::Unsupported) without a backup, [`Error::Backup`](crate::Error::Backup), and those of waiting.
    pub fn swap_out(&self) -> Result<()> {
        self.with_ask(|ask| self.bo.swap_out_here(&self.held(), ask))
    }

    /// Reads bytes of the content by the CPU, after the writes that are pending.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) outside the object, [`Error::Unsupported`](crate::Error::Unsupported) where the CPU cannot reach,
    /// [`Error::Purged`](crate::Error::Purged), [`Error::ContentLost`](crate::Error::ContentLost), and those of validate.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.with_ask(|ask| self.bo.read(&self.held(), offset, out, ask))
    }

    /// Writes bytes of the content by the CPU, after everything that uses it.
    ///
    /// # Errors
    /// As [`Reserved::read`].
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.with_ask(|ask| self.bo.write(&self.held(), offset, bytes, ask))
    }

    /// Where the object rests in device memory, for those who note what they made of [`Reserved::side`]:
    /// while it is the same, so is that. `None` elsewhere, while it moves, and once its content is lost.
    #[must_use]
    #[inline]
    pub fn rest(&self) -> Option<Rest> {
        self.bo.rest(&self.held())
    }

    /// What a device is handed to reach the object where it is now. Valid while the reservation
    /// is held, and behind a fence added to it.
    ///
    /// # Errors
    /// [`Error::Purged`](crate::Error::Purged), [`Error::ContentLost`](crate::Error::ContentLost), and those of populating.
    pub fn side(&self) -> Result<Side> {
        self.with_ask(|ask| self.bo.side(&self.held(), ask))
    }
}

impl<D: Driver> Device<D> {
    /// Makes an object and validates it.
    ///
    /// # Errors
    /// Those of [`Device::create`] and [`Reserved::validate`](crate::bo::Reserved::validate); no
    /// object is left behind.
    pub fn create_in(
        &self,
        context: OpContext,
        info: BoInfo,
        object: D::Object,
        placement: &Placement,
    ) -> Result<Bo<D>> {
        let bo = self.create(info, object)?;
        self.exec(context, |t| t.lock(&bo)?.validate(placement))?;
        Ok(bo)
    }

    /// Evicts everything evictable from a memory type, as for a test or before unplugging.
    /// Answers how many objects left. May wait for their fences.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if there is no such memory type; the first that a victim met.
    pub fn evict_all(&self, mem_type: MemType, context: OpContext) -> Result<u64> {
        let mut gone = 0;
        with_ask(&self.core, context, |ask| {
            self.core.evict_all(mem_type, ask, &mut gone)
        })?;
        Ok(gone)
    }

    /// Makes sure that the device's memories can be emptied before it sleeps: counts what they hold,
    /// swaps others out, and puts by the room. [`Prepared::commit`] then does it; dropping the
    /// result undoes it. Do this while the rest of the system still runs. May wait.
    ///
    /// # Errors
    /// [`Error::Shortfall`](crate::Error::Shortfall) with the figures if it cannot fit: then nothing
    /// was moved, or what could be swapped out was. [`Error::NoMemory`](crate::Error::NoMemory) if
    /// the page source has less than its limit. [`Error::Busy`](crate::Error::Busy) while somebody else prepares.
    ///
    /// ```
    /// use ttm::context::OpContext;
    /// use ttm::fixture;
    /// # fn main() -> ttm::Result<()> {
    /// let (device, _) = fixture::device();
    /// let mut prepared = device.prepare_suspend(OpContext::new())?;
    /// let suspended = prepared.commit(OpContext::new())?;
    /// assert_eq!(suspended.evicted, 0, "nothing was there");
    /// drop(prepared);
    /// assert_eq!(device.resume(OpContext::new())?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn prepare_suspend(&self, context: OpContext) -> Result<Prepared<D>> {
        Prepared::new(self, context)
    }

    /// Both halves at once, on the same terms: [`Device::prepare_suspend`] and
    /// [`Prepared::commit`]. May be called again after an error.
    ///
    /// # Errors
    /// Those of both; nothing is lost, and the device works on.
    pub fn suspend(&self, context: OpContext) -> Result<Suspended> {
        let mut prepared = self.prepare_suspend(context.clone())?;
        prepared.commit(context)
    }

    /// Puts the content of pinned objects back after the device slept. Others come back when
    /// they are validated next. Answers how many were restored.
    ///
    /// # Errors
    /// The first that an object met; call again.
    pub fn resume(&self, context: OpContext) -> Result<u64> {
        let mut restored = 0;
        with_ask(&self.core, context, |ask| {
            self.core.resume(ask, &mut restored)
        })?;
        Ok(restored)
    }

    /// Background work of the device, for the host's threads: taking down what was released, keeping
    /// the pool filled and zeroed, swapping out above the soft limit.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<dyn Service>> {
        let core = &self.core;
        vec![
            Arc::new(Background::new(
                "reaper",
                core,
                &core.bell,
                DeviceCore::reap,
            )),
            core.pool.service(),
            Arc::new(Background::new("relief", core, &core.relief, |core| {
                core.swap_out_excess()
            })),
        ]
    }

    /// The device as one who can give system pages back, for a
    /// [`Reclaimer`](crate::pages::Reclaimer). Does not keep the device alive.
    #[must_use]
    pub fn reclaim(&self) -> Arc<dyn Reclaim> {
        Arc::new(Givers(Arc::downgrade(&self.core)))
    }

    /// Asserts the invariants. For tests and debug builds: takes every reservation in turn.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<Checked, Violation> {
        self.core.check()
    }
}
