//! The end of a move: the copy is good, or the object goes back to where it was.

use crate::bo::{BoCore, BoState, Content, Moving};
use crate::error::{Error, Result};
use crate::fence::{Fence, FenceError, Status, Usage};
use crate::reservation::Held;
use crate::resource::{Ask, Home, Order, Victim};
use crate::sync::Weak;
use crate::trace::{Event, How, Reason};

const FOREIGN: Error = Error::Unsupported(
    "the content lies in memory of somebody else's and stays there: lock the object, and use what its \
     driver knows of it",
);

impl BoCore {
    /// Looks whether the object's move has ended. Never waits.
    ///
    /// # Errors
    /// [`Error::ContentLost`] if the copy failed and the old place is gone too.
    pub(super) fn settle(&self, held: &Held<'_>, state: &mut BoState) -> Result<()> {
        self.take_back(held, state);
        let lost = self.lost_its_memory(state);
        let Some(moving) = &state.moving else {
            if lost && state.content == Content::Kept {
                self.lose(state);
            }
            return Ok(());
        };
        let status = match moving.fence.status() {
            // It had arrived where it is no more, and nothing came later.
            Status::Done if lost && !moving.written => Status::Failed(FenceError::DeviceLost),
            status => status,
        };
        match status {
            Status::Pending => Ok(()),
            Status::Done => {
                let moving = state.moving.take().expect("seen above");
                if let Some(mut tt) = moving.old_tt {
                    tt.unpopulate(&self.device.supply(&|_| false));
                }
                if lost {
                    self.lose(state);
                    return Ok(());
                }
                self.unmap_pages(held, state);
                self.follow_views(state);
                Ok(())
            }
            Status::Failed(error) => {
                let moving = state.moving.take().expect("seen above");
                self.roll_back(held, state, *moving, error)
            }
        }
    }

    /// Whether the object is in memory of a device that was lost since it came there.
    pub(super) fn lost_its_memory(&self, state: &BoState) -> bool {
        state.losses != self.device.losses() && !state.has_frames()
    }

    /// The content went with its memory.
    fn lose(&self, state: &mut BoState) {
        // Should the host refuse, the CPU sees what the dead device shows.
        let _ = self.revoke_views(state);
        state.content = Content::Lost;
    }

    /// What comes before every use: a move that has ended is settled, and content that was saved
    /// when the device slept, and not put back since, is put back. Content that is nowhere here has
    /// no use.
    pub(super) fn make_ready(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if self.foreign {
            return Err(FOREIGN);
        }
        if state.suspended.is_some() {
            self.restore(held, state, ask)?;
        }
        self.settle(held, state)
    }

    /// Waits for the object's move to end.
    pub(super) fn wait_for_move(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if let Some(moving) = &state.moving {
            self.wait_fence(&moving.fence.clone(), ask)?;
        }
        self.settle(held, state)
    }

    /// The copy failed: the old place is the truth.
    fn roll_back(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        moving: Moving,
        error: FenceError,
    ) -> Result<()> {
        // Who was lent the pages of the new place has lost them.
        for view in state.live_views() {
            let _ = view.revoke();
        }
        if moving.fresh {
            // There was nothing to copy, so nothing is lost with either place.
            state.moving = Some(Box::new(moving));
            self.abandon(held, state);
            state.content = Content::Fresh;
            return Ok(());
        }
        let Moving {
            old, old_tt, mode, ..
        } = moving;
        let device = &self.device;
        let victim: Weak<dyn Victim> = self.me.clone();
        let back = old.and_then(|old| {
            let order = Order {
                flags: old.flags,
                group: self.group.as_ref(),
                home: Home::Ordered,
                ..self.plain_order(state, &victim)
            };
            old.manager.unretire(old.number, &order)
        });
        let from = state.mem_type();
        let fences: Vec<Fence> = held.fences().waited_by(Usage::Bookkeep).cloned().collect();
        let frames_are_the_truth = old_tt.is_some();
        if !frames_are_the_truth && (back.is_none() || error == FenceError::DeviceLost) {
            state.content = Content::Lost;
            return Err(match error {
                FenceError::DeviceLost => Error::DeviceLost,
                _ => Error::ContentLost,
            });
        }
        if let Some(resource) = state.resource.take() {
            resource.retire(fences.iter().cloned(), false);
        }
        if let Some(new_tt) = core::mem::replace(&mut state.tt, old_tt) {
            device.retire_pages(new_tt, fences);
        }
        state.placement = None;
        state.mode = mode;
        // The frames are there; without their old space they are plain system pages.
        state.resource = match back {
            Some(resource) => Some(resource),
            None => Some(self.system_resource(state)?),
        };
        state.update_home();
        self.unmap_pages(held, state);
        self.follow_views(state);
        device.emit(Event::Moved {
            object: self.id,
            from,
            to: state.mem_type().expect("just set"),
            bytes: self.pages.bytes(),
            how: How::Null,
            why: Reason::RolledBack,
            since: device.clock.now(),
            fence: None,
        });
        Ok(())
    }

    /// Waits for a fence of the object, which is an event.
    pub(super) fn wait_fence(&self, fence: &Fence, ask: &Ask<'_>) -> Result<Status> {
        if fence.is_signalled() {
            return Ok(fence.status());
        }
        let since = self.device.clock.now();
        let result = wait_fence(fence, ask);
        self.device.emit_to_sink(|| Event::Waited {
            object: self.id,
            what: "fence",
            since,
        });
        result
    }

    /// Waits for every fence that a user of class `usage` has to wait for.
    ///
    /// # Errors
    /// [`Error::Busy`] if the context does not wait, [`Error::TimedOut`],
    /// [`Error::Interrupted`], [`Error::Stalled`].
    pub(crate) fn wait_idle(&self, held: &Held<'_>, usage: Usage, ask: &Ask<'_>) -> Result<()> {
        loop {
            let next = held.fences().waited_by(usage).next().cloned();
            match next {
                None => return Ok(()),
                Some(fence) => self.wait_fence(&fence, ask)?,
            };
        }
    }
}

/// Sleeps until `fence`, on the terms of `ask`.
///
/// # Errors
/// [`Error::Busy`] if the context does not wait, [`Error::TimedOut`], [`Error::Interrupted`],
/// [`Error::Stalled`].
pub(super) fn wait_fence(fence: &Fence, ask: &Ask<'_>) -> Result<Status> {
    if fence.is_signalled() {
        return Ok(fence.status());
    }
    let context = ask.context;
    if !context.may_wait() {
        return Err(Error::Busy);
    }
    if context.is_cancelled() {
        return Err(Error::Interrupted);
    }
    ask.ticket.forget_now();
    let cell = ask.ticket.cell();
    let status = context.sleeping(cell, ask.ticket.domain.clock(), || {
        fence.wait_at(cell, context.deadline(), &|| context.is_cancelled())
    })?;
    match status {
        Status::Pending if context.is_cancelled() => Err(Error::Interrupted),
        Status::Pending => Err(Error::TimedOut),
        status => Ok(status),
    }
}
