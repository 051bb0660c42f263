//! Objects that nobody uses any more, content that is thrown away, and what waited for a fence.

use crate::bo::{BoCore, BoState, Content};
use crate::error::{Error, Result};
use crate::reservation::{Held, Lockable, Taken};
use crate::trace::{Event, Reason};

use super::migrate::pending;

impl BoCore {
    /// Runs `f` if the reservation is free or ours.
    pub(super) fn with_free<T>(&self, f: impl FnOnce(&Held<'_>) -> T) -> Option<T> {
        let domain = &self.device.domain;
        let ticket = domain.ticket().ok()?;
        let reservation = self.reservation();
        let taken = reservation.try_lock(ticket.thread);
        if taken == Taken::No {
            return None;
        }
        struct Unlock<'a>(&'a BoCore, u32, bool);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                if self.2 {
                    self.0.reservation().unlock(self.1, &self.0.device.domain);
                }
            }
        }
        let _unlock = Unlock(self, ticket.thread, taken == Taken::Now);
        Some(f(&reservation.held(ticket.thread)))
    }

    /// Gives up space and pages, behind what still uses them.
    pub(super) fn abandon(&self, held: &Held<'_>, state: &mut BoState) {
        let fences = pending(held);
        if let Some(resource) = state.resource.take() {
            if fences.is_empty() {
                drop(resource);
            } else {
                resource.retire(fences.iter().cloned(), false);
            }
        }
        if let Some(tt) = state.tt.take() {
            self.device.retire_pages(tt, fences.to_vec());
        }
        if let Some(tt) = state.suspended.take() {
            self.device.retire_pages(tt, Vec::new());
        }
        if let Some(moving) = state.moving.take() {
            if let Some(tt) = moving.old_tt {
                self.device.retire_pages(tt, vec![moving.fence]);
            }
            if let Some(old) = moving.old {
                old.manager.forget(old.number);
            }
        }
        state.bulk = None;
    }

    /// Throws the content away. The object is nowhere, and fresh; one whose owner had declared
    /// that it does not need it is purged.
    pub(super) fn discard(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        why: Reason,
    ) -> Result<()> {
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        let from = state.mem_type();
        let advised = state.advice == crate::driver::Advice::DontNeed;
        let bulk = state.bulk.clone();
        self.abandon(held, state);
        state.bulk = bulk;
        state.content = if advised && why != Reason::Validate {
            Content::Purged
        } else {
            Content::Fresh
        };
        self.device.emit(Event::Discarded {
            object: self.id,
            from,
            bytes: self.pages.bytes(),
            why,
        });
        Ok(())
    }
}
