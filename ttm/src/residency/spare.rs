//! Objects that their users have done with, and that somebody else may take over as they are.

use placement::PlaceFlags;

use crate::bo::{BoCore, BoState, Content};
use crate::driver::{Advice, BoKind};

impl BoCore {
    /// Marks an object as one that nobody needs, if its next user can have it as it is: nobody else
    /// reaches it, and nothing keeps it where it is. Answers whether that is so.
    pub(crate) fn set_spare(&self) -> bool {
        if self.shares_reservation() || self.kind == BoKind::Imported {
            return false;
        }
        self.with_free(|held| {
            let mut state = self.state(held);
            self.pay(&mut state);
            let spare = self.is_there(&state)
                && state.stands_alone()
                && self.device.driver.reusable(&*self.object);
            if spare {
                state.advise(Advice::DontNeed, self.last_use());
            }
            spare
        })
        .unwrap_or(false)
    }

    /// Takes the mark off. Answers whether the object is still where it was: nobody needed the room.
    pub(crate) fn take_spare(&self) -> bool {
        self.with_free(|held| {
            let mut state = self.state(held);
            let there = self.is_there(&state);
            if there {
                state.advise(Advice::WillNeed, self.last_use());
            }
            there
        })
        .unwrap_or(false)
    }

    /// Whether the object has a place of its own, with what was in it.
    fn is_there(&self, state: &BoState) -> bool {
        let resource = state.resource.as_ref();
        resource.is_some_and(|resource| !resource.flags().contains(PlaceFlags::TEMPORARY))
            && matches!(state.content, Content::Fresh | Content::Kept)
            && !self.lost_its_memory(state)
    }
}

impl BoState {
    /// Whether nothing keeps the object, and nobody but its user sees it.
    fn stands_alone(&self) -> bool {
        self.pins == 0
            && self.bulk.is_none()
            && self.suspended.is_none()
            && self.sharing.is_none()
            && !self.is_brought()
            && self.views.as_ref().is_none_or(|v| v.live().is_empty())
    }
}
