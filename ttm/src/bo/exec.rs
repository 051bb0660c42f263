//! Transactions: a closure that locks and validates, and what follows once.

use core::fmt;
use core::marker::PhantomData;

use crate::context::OpContext;
use crate::device::{Device, DeviceCore};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::fence::{Fence, Usage};
use crate::reservation::{Member, Transaction};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::trace::Event;

use super::{Bo, BoCore, Reserved};

/// The transaction inside the closure of [`Device::exec`].
pub struct Exec<'o, D: Driver> {
    device: &'o DeviceCore,
    transaction: Transaction<'o, Arc<BoCore>>,
    driver: PhantomData<fn() -> D>,
}

/// A transaction that holds all it wanted. Queue the work now, add its fences; dropping it stamps
/// every object as used and releases them.
pub struct Locked<'o, D: Driver, R> {
    exec: Exec<'o, D>,
    value: R,
}

impl<D: Driver> Device<D> {
    /// Runs `body` until it has locked and validated everything it wants, then hands the locks
    /// to the caller for the effects.
    ///
    /// `body` may run several times, because a transaction that stands in the way of an older one
    /// gives everything up and starts again: it locks, validates and reserves fence slots, and
    /// has no other effect. Answers other than `Ok` end the transaction, except
    /// [`Error::Deadlock`], which restarts it. The oldest transaction never restarts.
    ///
    /// ```
    /// # use ttm::fixture::{device, vram};
    /// use ttm::{bo::BoInfo, context::OpContext, fence::Usage};
    /// # let (device, timeline) = device();
    /// let a = device.create(BoInfo::new(4096), ())?;
    /// let b = device.create(BoInfo::new(8192), ())?;
    /// let locked = device.exec(OpContext::new(), |t| {
    ///     for bo in [&a, &b] {
    ///         let reserved = t.lock(bo)?;
    ///         reserved.validate(&vram())?;
    ///         reserved.reserve_fences(1)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// let fence = timeline.issue(); // queue the work here
    /// locked.fence_all(&fence, Usage::Write);
    /// drop(locked);
    /// timeline.signal(fence.seqno());
    /// # Ok::<(), ttm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `body`; [`Error::Reentrant`] from inside a driver's answer or another transaction
    /// of this thread; those of waiting for a lock that was lost.
    #[inline]
    pub fn exec<'o, R>(
        &'o self,
        context: OpContext,
        mut body: impl FnMut(&Exec<'o, D>) -> Result<R>,
    ) -> Result<Locked<'o, D, R>> {
        let core: &'o DeviceCore = &self.core;
        let mut exec = Exec {
            device: core,
            transaction: Transaction::begin(&core.domain, context)?,
            driver: PhantomData,
        };
        loop {
            match body(&exec) {
                Ok(value) if !exec.transaction.terms().is_backing_off() => {
                    return Ok(Locked { exec, value });
                }
                // A `Deadlock` that was swallowed counts all the same.
                Ok(_) | Err(Error::Deadlock) => exec.back_off()?,
                Err(error) => return Err(error),
            }
        }
    }
}

impl<'o, D: Driver> Exec<'o, D> {
    #[cold]
    fn back_off(&mut self) -> Result<()> {
        self.device.emit(Event::BackedOff {
            age: self.transaction.terms().ticket().age(),
        });
        self.transaction.restart()
    }

    /// Takes the reservation of an object, waiting for it if the context allows.
    ///
    /// # Errors
    /// - [`Error::AlreadyLocked`]: this transaction has locked it before.
    /// - [`Error::Deadlock`]: return it from the closure.
    /// - [`Error::Busy`], [`Error::Interrupted`], [`Error::TimedOut`], [`Error::Stalled`].
    #[inline]
    pub fn lock<'t>(&'t self, bo: &'o Bo<D>) -> Result<Reserved<'t, D>> {
        if self.device.fails(Site::Lock) {
            self.transaction.terms().lost(None);
            return Err(Error::Deadlock);
        }
        if !core::ptr::eq(&*bo.core.device, self.device) {
            return Err(Error::Invalid("the object belongs to another device"));
        }
        self.transaction.lock(&bo.core)?;
        Ok(Reserved {
            bo: &bo.core,
            terms: self.transaction.terms(),
            driver: PhantomData,
        })
    }

    /// The terms of the transaction, and what it did so far.
    #[must_use]
    pub fn context(&self) -> &OpContext {
        self.transaction.terms().context()
    }
}

impl<D: Driver, R> Locked<'_, D, R> {
    /// What the closure answered.
    pub fn value(&self) -> &R {
        &self.value
    }

    /// The terms of the transaction, and what it did.
    #[must_use]
    pub fn context(&self) -> &OpContext {
        self.exec.transaction.terms().context()
    }

    /// A held object.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the transaction does not hold it.
    pub fn get<'t>(&'t self, bo: &'t Bo<D>) -> Result<Reserved<'t, D>> {
        if !self.holds(&bo.core) {
            return Err(Error::Invalid("the transaction does not hold the object"));
        }
        Ok(Reserved {
            bo: &bo.core,
            terms: self.exec.transaction.terms(),
            driver: PhantomData,
        })
    }

    fn holds(&self, bo: &Arc<BoCore>) -> bool {
        self.exec
            .transaction
            .holds(|member| Arc::ptr_eq(member, bo), bo)
    }

    /// Adds the fence of the work that was queued to one object.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the transaction does not hold the object.
    ///
    /// # Panics
    /// If the closure reserved no slot for it.
    pub fn fence(&self, bo: &Bo<D>, fence: &Fence, usage: Usage) -> Result<()> {
        self.get(bo)?.add_fence(fence.clone(), usage);
        Ok(())
    }

    /// Adds the fence of the work that was queued to every object.
    ///
    /// # Panics
    /// If the closure reserved no slot for one of them.
    pub fn fence_all(&self, fence: &Fence, usage: Usage) {
        self.exec.transaction.for_each(|_, member| {
            let reserved = Reserved::<D> {
                bo: member,
                terms: self.exec.transaction.terms(),
                driver: PhantomData,
            };
            reserved.add_fence(fence.clone(), usage);
        });
    }
}

impl<D: Driver, R> Drop for Locked<'_, D, R> {
    #[inline]
    fn drop(&mut self) {
        let transaction = &self.exec.transaction;
        let len = transaction.len() as u64;
        let last = self.exec.device.stamps(len);
        transaction.for_each(|n, member| {
            let stamp = last - len + 1 + n as u64;
            // Relaxed: written under the reservation; whoever evicts compares it later.
            member.stamp.store(stamp, Ordering::Relaxed);
            if member.in_bulk.load(Ordering::Relaxed) {
                let held = transaction.terms().held(member);
                if let Some(bulk) = &member.state(&held).bulk {
                    bulk.touch(stamp);
                }
            }
        });
    }
}

impl crate::reservation::Lockable for Arc<BoCore> {
    #[inline]
    fn reservation(&self) -> &crate::reservation::Reservation {
        (**self).reservation()
    }
}

impl Member for Arc<BoCore> {
    #[inline]
    fn seat(&self) -> &crate::sync::atomic::AtomicU32 {
        (**self).seat()
    }
}

impl<D: Driver> fmt::Debug for Exec<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exec({} held)", self.transaction.len())
    }
}

impl<D: Driver, R: fmt::Debug> fmt::Debug for Locked<'_, D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locked({:?}, {:?})", self.exec, self.value)
    }
}
