//! Objects that nobody uses any more, content that is thrown away, and what waited for a fence.

use placement::CacheMode;

use crate::bo::{BoCore, BoState, Content};
use crate::error::{Error, Result};
use crate::reservation::{Guard, Held, Lockable, Taken};
use crate::trace::{Event, Reason};

use super::migrate::pending;

impl BoCore {
    /// Runs `f` if the reservation is free. One that this thread holds is not: what it guards may
    /// be open further up.
    pub(super) fn with_free<T>(&self, f: impl FnOnce(&Held<'_>) -> T) -> Option<T> {
        let ticket = self.device.domain.ticket().ok()?;
        let reservation = self.reservation();
        if reservation.try_lock(ticket.thread()) != Taken::Now {
            return None;
        }
        let guard = Guard::of(reservation, ticket, true);
        Some(f(&guard.held()))
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
            self.device.retire_pages(tt, fences);
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
        state.placement = None;
        state.mode = CacheMode::Cached;
    }

    /// Throws the content away. The object is nowhere, and fresh; one whose owner had declared
    /// that it does not need it is purged.
    pub(super) fn discard(&self, held: &Held<'_>, state: &mut BoState, why: Reason) -> Result<()> {
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        if state.is_brought() || self.foreign {
            return Err(Error::Unsupported(
                "memory of somebody else's is not thrown away; drop the object",
            ));
        }
        let from = state.mem_type();
        self.revoke_views(state)?;
        let advised = state.advice == crate::driver::Advice::DontNeed;
        self.abandon(held, state);
        state.content = match state.content {
            // Its owner has to be told, so it is not silently fresh again.
            Content::Lost if why != Reason::Validate => Content::Lost,
            _ if advised && why != Reason::Validate => Content::Purged,
            _ => Content::Fresh,
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
