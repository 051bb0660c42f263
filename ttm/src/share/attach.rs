//! Attaching, and mapping what is attached.

use core::fmt;

use placement::PAGE_SIZE;

use crate::bo::{BoCore, Reserved, View};
use crate::context::OpContext;
use crate::dma::{AttachRequest, Direction, DmaError, MappedList, Mapper};
use crate::driver::Driver;
use crate::error::Result;
use crate::fence::{Fence, Usage};
use crate::sync::{Arc, Weak};
use crate::tt::Lease;

use super::borrower::Borrower;
use super::fit::{Open, reaching, same};
use super::{AttachInfo, Shared};

/// Somebody attached. Keeps the object alive. Dropping it detaches and gives up its mapping and its
/// pins: no lock that is waited for, no driver call. What was mapped is unmapped by whoever reserves
/// the object next, or by the device's reaper, behind the fences that are pending then.
#[must_use = "dropping it detaches"]
pub struct Attachment<D: Driver> {
    core: Arc<Borrower>,
    shared: Shared<D>,
}

impl<D: Driver> Shared<D> {
    /// Attaches a device, or an address space of one, that frames are mapped for by `mapper`. Takes
    /// the reservation for a moment. Nothing is populated, and nothing mapped.
    ///
    /// Several attachments of one device are as good as attachments of several.
    ///
    /// # Errors
    /// [`Error::Dma`](crate::Error::Dma) of
    /// - [`DmaError::Vetoed`]: the exporter's driver refuses;
    /// - [`DmaError::AttachIncompatible`]: with the others that are attached, or with those that keep
    ///   the object where it is;
    /// - [`DmaError::NeedsMigration`]: it would have to move, and nobody asked for that;
    /// - [`DmaError::PeerNotReachable`]: device memory is all that he can use, and he reaches none.
    ///
    /// [`Error::Reentrant`](crate::Error::Reentrant) inside a transaction, those of waiting, and of
    /// moving where that is asked for. Nobody is attached then.
    pub fn attach(
        &self,
        context: OpContext,
        mapper: Arc<dyn Mapper>,
        info: AttachInfo,
    ) -> Result<Attachment<D>> {
        let lender = self.lender();
        lender
            .exporter
            .admit(&info)
            .map_err(|why| DmaError::Vetoed { why: why.into() })?;
        let request = AttachRequest {
            name: &info.name,
            constraints: reaching(info.constraints, info.peer)?,
            dynamic: info.dynamic || info.revocable,
        };
        let mut attached: Option<Attachment<D>> = None;
        let locked = self.exec(context, |reserved| {
            let id = open(reserved, |mut open| {
                open.bo.take_back(open.held, open.state);
                open.attach(lender, &request, info.migrates)
            })?;
            let core = Arc::new(Borrower::new(lender, id, Arc::clone(&mapper), &info));
            lender.with(|inner| inner.attached.insert(id, Arc::downgrade(&core)));
            let view: Weak<dyn View> = Arc::downgrade(&core) as Weak<dyn View>;
            let shared = self.clone();
            // One of a round before detaches.
            attached = Some(Attachment { core, shared });
            let mut state = reserved.bo.state(&reserved.held());
            state.views.get_or_insert_default().add(view);
            Ok(())
        });
        drop(locked?);
        Ok(attached.expect("the closure ended well"))
    }
}

/// Runs `f` with what the reservation of an object guards.
pub(super) fn open<D: Driver, T>(
    reserved: &Reserved<'_, D>,
    f: impl FnOnce(Open<'_>) -> Result<T>,
) -> Result<T> {
    reserved.with_ask(|ask| {
        let held = reserved.held();
        let mut state = reserved.bo.state(&held);
        f(Open {
            bo: reserved.bo,
            held: &held,
            state: &mut state,
            ask,
        })
    })
}

impl<D: Driver> Attachment<D> {
    /// What is attached to.
    #[must_use]
    pub fn shared(&self) -> &Shared<D> {
        &self.shared
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// How often its mapping was taken away.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.core.lock().generation
    }

    /// Maps the object for the attached device, where it is now, or where that device can use it if
    /// it cannot use it there and nobody else has it mapped. It is populated, and swapped in.
    ///
    /// The list is this attachment's own: segments of whole pages, never handed to another. For who
    /// is neither dynamic nor revocable the object stays where it is from now on (I-55), and the
    /// manager's fences are waited for; a dynamic one has them behind [`Attachment::fences`].
    ///
    /// # Errors
    /// - [`Error::Invalid`](crate::Error::Invalid): `reserved` is another object.
    /// - [`DmaError::AlreadyLent`]: it has it mapped.
    /// - [`DmaError::PeerNotReachable`]: it is kept in device memory that he does not reach.
    /// - [`DmaError::AttachIncompatible`]: it is kept where those attached cannot use it, or there is
    ///   nowhere else.
    /// - [`Error::Purged`](crate::Error::Purged), [`Error::ContentLost`](crate::Error::ContentLost),
    ///   [`Error::DeviceLost`](crate::Error::DeviceLost), those of the mapper, and those of validate.
    ///
    /// Nothing is mapped then.
    pub fn map(&self, reserved: &Reserved<'_, D>, direction: Direction) -> Result<Arc<MappedList>> {
        self.is_of(reserved)?;
        let core = &*self.core;
        open(reserved, |mut open| {
            open.bo.take_back(open.held, open.state);
            if core.lock().lent.is_some() {
                return Err(DmaError::AlreadyLent.into());
            }
            let stays = core.stays();
            if core.lock().keeps {
                // It was taken away although it stays, as by a device that slept.
                core.leave();
                open.state.unpin();
            }
            open.bo
                .ready_to_lend(open.held, open.state, !core.dynamic, open.ask)?;
            open.fit(core)?;
            let (list, lease) = open.lend(core, direction)?;
            core.enter(&list, lease);
            if stays {
                open.state.pin();
            }
            Ok(list)
        })
    }

    /// Where the attached device finds the object. Valid under the reservation, and for jobs behind
    /// fences that were added under it.
    ///
    /// # Errors
    /// [`DmaError::NotLent`] before it was mapped; [`DmaError::Revoked`] once it was taken away, until
    /// it is mapped again.
    pub fn list(&self) -> core::result::Result<Arc<MappedList>, DmaError> {
        self.core.list()
    }

    /// Ends the mapping. It goes once the fences that are pending now have signalled; an idle one
    /// goes at once.
    ///
    /// # Errors
    /// [`DmaError::NotLent`]; [`Error::Invalid`](crate::Error::Invalid) if `reserved` is another
    /// object.
    pub fn unmap(&self, reserved: &Reserved<'_, D>) -> Result<()> {
        self.is_of(reserved)?;
        let held = reserved.held();
        let mut state = reserved.bo.state(&held);
        let (had, kept) = self.core.leave();
        if kept {
            state.unpin();
        }
        reserved.bo.take_back_or_look_later(&held, &mut state);
        match had || kept {
            true => Ok(()),
            false => Err(DmaError::NotLent.into()),
        }
    }

    /// What a dynamic borrower has to wait for before he touches what was mapped.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `reserved` is another object.
    pub fn fences(&self, reserved: &Reserved<'_, D>) -> Result<Vec<Fence>> {
        self.is_of(reserved)?;
        Ok(reserved.fences(Usage::Kernel))
    }

    /// Keeps the object where it is, where this attachment and the others can use it, until
    /// [`Attachment::unpin`]; nests. For scanout and the like, not for long-lived use: the exporter
    /// says how many pins there may be.
    ///
    /// # Errors
    /// [`DmaError::NotDynamic`], [`DmaError::TooManyPins`], and those of [`Attachment::map`].
    pub fn pin(&self, reserved: &Reserved<'_, D>) -> Result<()> {
        self.is_of(reserved)?;
        let core = &*self.core;
        if !core.dynamic {
            return Err(DmaError::NotDynamic.into());
        }
        open(reserved, |mut open| {
            open.bo.take_back(open.held, open.state);
            let most = core.lender.most_pins;
            if core.lender.with(|inner| inner.pins >= most) {
                return Err(DmaError::TooManyPins { most }.into());
            }
            open.bo
                .ready_to_lend(open.held, open.state, true, open.ask)?;
            open.fit(core)?;
            core.lock().pinned += 1;
            core.lender.with(|inner| {
                inner.solver.pin(core.id);
                inner.pins += 1;
            });
            open.state.pin();
            Ok(())
        })
    }

    /// Undoes one [`Attachment::pin`].
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if it has none, or `reserved` is another object.
    pub fn unpin(&self, reserved: &Reserved<'_, D>) -> Result<()> {
        self.is_of(reserved)?;
        let core = &*self.core;
        {
            let mut state = core.lock();
            if state.pinned == 0 {
                return Err(crate::Error::Invalid("the attachment has no pin"));
            }
            state.pinned -= 1;
            core.lender.with(|inner| {
                inner.solver.unpin(core.id);
                inner.pins -= 1;
            });
        }
        reserved.unpin()
    }

    fn is_of(&self, reserved: &Reserved<'_, D>) -> Result<()> {
        same(Arc::ptr_eq(reserved.bo, self.shared.bo_core()))
    }
}

impl Open<'_> {
    /// Maps the object, which is where the borrower can use it.
    fn lend(
        &mut self,
        borrower: &Borrower,
        direction: Direction,
    ) -> Result<(Arc<MappedList>, Arc<Lease>)> {
        let lease = Arc::new(Lease::default());
        let bo: &BoCore = self.bo;
        let list = match self.state.has_frames() {
            true => bo.lend_pages(self.state, &borrower.mapper, direction, &lease)?,
            false => {
                let ranges = bo.bus_ranges(self.state, &|_| None).unwrap_or_default();
                let list = MappedList::peer(&borrower.parms, &ranges)?;
                bo.may_be_written(self.state);
                Arc::new(list)
            }
        };
        let between = |at: u64| !at.is_multiple_of(PAGE_SIZE);
        let mut segments = list.dma_segments().iter();
        let odd = segments.position(|s| between(s.addr.get()) || between(s.len));
        if let Some(index) = odd {
            lease.end();
            bo.take_back_or_look_later(self.held, self.state);
            let mask = PAGE_SIZE - 1;
            return Err(DmaError::Misaligned { index, mask }.into());
        }
        Ok((list, lease))
    }
}

impl<D: Driver> Drop for Attachment<D> {
    fn drop(&mut self) {
        let pins = self.core.detach();
        self.shared.bo_core().owe(pins);
    }
}

impl<D: Driver> fmt::Debug for Attachment<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachment({} to {:?})", self.core.name, self.shared)
    }
}
