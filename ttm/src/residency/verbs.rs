//! What is done to locked objects and to whole devices: the public side of this module.

use placement::{MemType, Placement};

use crate::bo::{Bo, BoInfo, Reserved};
use crate::context::OpContext;
use crate::device::Device;
use crate::driver::{Driver, Side};
use crate::error::Result;
use crate::fence::Usage;

use super::check::{Checked, Violation};
use super::suspend::{Suspended, with_ask};

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

    /// Empties the device's memories before it sleeps: what is evictable leaves, the content of
    /// what is pinned is saved to system pages. May be called again after an error.
    ///
    /// # Errors
    /// The first that an object met, such as [`Error::NoMemory`](crate::Error::NoMemory); nothing is lost, and the device
    /// works on.
    pub fn suspend(&self, context: OpContext) -> Result<Suspended> {
        let mut report = Suspended::default();
        with_ask(&self.core, context, |ask| {
            self.core.suspend(ask, &mut report)
        })?;
        Ok(report)
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

    /// Asserts the invariants. For tests and debug builds: takes every reservation in turn.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<Checked, Violation> {
        self.core.check()
    }
}
