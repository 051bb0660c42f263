//! A locked object, and what that allows.

use core::fmt;
use core::marker::PhantomData;

use placement::{MemType, PageRange};

use crate::bo::{Bo, BoCore, BulkGroup, Content};
use crate::driver::{Advice, BoFacts, Driver, typed};
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::fence::{Fence, Usage};
use crate::reservation::{Guard, Held, Lockable, Terms};
use crate::resource::{Ask, PRIORITIES};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// An object whose reservation a transaction of this thread holds. Everything that needs the lock
/// is a method here.
pub struct Reserved<'t, D: Driver> {
    pub(crate) bo: &'t Arc<BoCore>,
    pub(crate) terms: &'t Terms<'t>,
    pub(crate) driver: PhantomData<fn() -> D>,
}

impl<'t, D: Driver> Reserved<'t, D> {
    pub(crate) fn held(&self) -> Held<'t> {
        self.terms.held(self.bo)
    }

    pub(crate) fn with_ask<T>(&self, f: impl FnOnce(&Ask<'_>) -> Result<T>) -> Result<T> {
        if self.terms.is_backing_off() {
            return Err(Error::Deadlock);
        }
        let ask = Ask {
            ticket: self.terms.ticket(),
            context: self.terms.context(),
            wanted_by: self.bo.id,
            window: PageRange::ALL,
            group: self.bo.group.as_deref(),
            chain: 0,
            idle_only: false,
            fairly: false,
            until: None,
            dry: None,
            stash: false,
            level: None,
            lost: &|other| self.terms.lost(other),
        };
        f(&ask)
    }

    /// Where the object is.
    #[must_use]
    pub fn mem_type(&self) -> Option<MemType> {
        self.bo.state(&self.held()).mem_type()
    }

    /// The pages that it holds there, in its own order. System memory types have no addresses:
    /// there the ranges only count.
    #[must_use]
    pub fn ranges(&self) -> Vec<PageRange> {
        let state = self.bo.state(&self.held());
        let resource = state.resource.as_ref();
        resource.map_or_else(Vec::new, |r| r.ranges().to_vec())
    }

    /// What its driver is told.
    #[must_use]
    pub fn facts(&self) -> BoFacts {
        self.bo.facts(&self.bo.state(&self.held()))
    }

    /// Makes room for `slots` fences, so that adding them after the work was queued cannot fail.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, [`Error::NoMemory`].
    #[inline]
    pub fn reserve_fences(&self, slots: usize) -> Result<()> {
        self.bo.device.probe(Site::FenceSlots, || {
            Error::no_memory(placement::PageCount::ZERO)
        })?;
        self.held().fences().reserve(slots)
    }

    /// The pending fences that a user of class `usage` has to wait for.
    #[must_use]
    pub fn fences(&self, usage: Usage) -> Vec<Fence> {
        self.held().fences().waited_by(usage).cloned().collect()
    }

    /// Whether a user of class `usage` has nothing to wait for.
    #[must_use]
    pub fn is_idle(&self, usage: Usage) -> bool {
        self.held().fences().is_idle(usage)
    }

    pub(crate) fn add_fence(&self, fence: Fence, usage: Usage) {
        self.held().fences().add(fence, usage);
        self.bo.state(&self.held()).touched(usage);
    }

    /// Keeps the object where it is until [`Reserved::unpin`]; nests. See also [`Pin`].
    pub fn pin(&self) {
        self.bo.state(&self.held()).pin();
    }

    /// Undoes one [`Reserved::pin`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not pinned.
    pub fn unpin(&self) -> Result<()> {
        if self.bo.state(&self.held()).unpin() {
            Ok(())
        } else {
            Err(Error::Invalid("the object is not pinned"))
        }
    }

    /// How often it is pinned.
    #[must_use]
    pub fn pins(&self) -> u32 {
        self.bo.state(&self.held()).pins
    }

    /// Pins the object until the value drops, which takes the reservation for a moment.
    pub fn pin_guard(&self) -> Pin {
        self.pin();
        Pin {
            bo: Arc::clone(self.bo),
        }
    }

    /// Changes the eviction priority, 0 to 3.
    ///
    /// # Errors
    /// [`Error::Invalid`] beyond 3.
    pub fn set_priority(&self, priority: u8) -> Result<()> {
        if usize::from(priority) >= PRIORITIES {
            return Err(Error::Invalid("a priority is 0 to 3"));
        }
        let mut state = self.bo.state(&self.held());
        state.priority = priority;
        state.reclassify(self.bo.last_use());
        Ok(())
    }

    /// Puts the object into a group that ages together, or takes it out. All members share a
    /// reservation.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the object has a reservation of its own.
    pub fn set_bulk(&self, bulk: Option<&BulkGroup>) -> Result<()> {
        if bulk.is_some() && !self.bo.shares_reservation() {
            return Err(Error::Invalid(
                "members of a bulk group share a reservation",
            ));
        }
        let mut state = self.bo.state(&self.held());
        state.bulk = bulk.map(|b| Arc::clone(&b.0));
        // Relaxed: guarded by the reservation.
        self.bo.in_bulk.store(bulk.is_some(), Ordering::Relaxed);
        state.reclassify(self.bo.last_use());
        Ok(())
    }

    /// Says whether the owner needs the content. What nobody needs is the first to go, and goes
    /// without being copied. Answers false if it is gone already.
    pub fn advise(&self, advice: Advice) -> bool {
        let mut state = self.bo.state(&self.held());
        state.advise(advice, self.bo.last_use());
        state.content != Content::Purged
    }

    /// Whether every page of the object has a frame of system memory.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        let state = self.bo.state(&self.held());
        state.tt.as_ref().is_some_and(|tt| tt.is_populated())
    }

    /// Pages that are in the backup.
    #[must_use]
    pub fn swapped(&self) -> placement::PageCount {
        let state = self.bo.state(&self.held());
        let tt = state.tt.as_ref();
        tt.map_or(placement::PageCount::ZERO, |tt| tt.swapped())
    }

    /// What the driver keeps for it.
    #[must_use]
    pub fn object(&self) -> &'t D::Object {
        typed::<D>(&*self.bo.object)
    }

    /// The object.
    #[must_use]
    pub fn bo(&self) -> Bo<D> {
        // A locked object may be on its way out only if nobody has a handle; we were given one.
        self.bo.handles.fetch_add(1, Ordering::Relaxed);
        Bo {
            core: Arc::clone(self.bo),
            driver: PhantomData,
        }
    }
}

impl<D: Driver> fmt::Debug for Reserved<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reserved({})", self.bo.id)
    }
}

/// Keeps an object where it is. Dropping it unpins, waiting for the reservation if it must.
pub struct Pin {
    bo: Arc<BoCore>,
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", self.bo.id)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let domain = &self.bo.device.domain;
        let Ok(ticket) = domain.ticket() else {
            return;
        };
        let reservation = self.bo.reservation();
        let guard = Guard::try_take(reservation, ticket).or_else(|| {
            let waited = ticket.lock_contended(reservation, false, None, &|| false);
            waited.ok().map(|()| Guard::of(reservation, ticket, true))
        });
        let Some(guard) = guard else {
            return;
        };
        // Somebody may have undone the pin by hand; then there is nothing to do.
        self.bo.state(&guard.held()).unpin();
    }
}
