//! What the device finds of system pages: mapped when an object comes to where it uses them, or is
//! handed to it, and unmapped when it has left and nothing uses it any more.
//!
//! ```text
//!   SYSTEM ──to TT, or handed out──▶ found ──to SYSTEM, idle──▶ SYSTEM
//!                                      └──copied away, the copy has arrived──▶ (frames go back)
//! ```

use placement::{MemType, PageRange};

use crate::bo::{BoCore, BoState};
use crate::device::DeviceCore;
use crate::dma::MappedList;
use crate::driver::Side;
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::fence::Usage;
use crate::reservation::Held;
use crate::resource::Ask;
use crate::trace::Event;
use crate::tt::Tt;

use super::hunt::Hunt;
use super::migrate::{frames, pending};
use super::settle::wait_fence;
use super::suspend::as_bo;

/// Whether a device finds system pages of that memory type for as long as they are there.
fn stays_found(mem_type: Option<MemType>) -> bool {
    mem_type.is_some_and(|mem_type| mem_type != MemType::SYSTEM)
}

impl DeviceCore {
    /// Has the device find every page of `tt`, which has all its frames. Others leave if that is what
    /// it takes. Answers whether it did not before; without a mapper it finds them by itself.
    ///
    /// # Errors
    /// [`Error::Dma`], and those of waiting for others. Nothing has changed.
    pub(super) fn map_tt(&self, tt: &mut Tt, object: u64, ask: &Ask<'_>) -> Result<bool> {
        let Some(mapper) = &self.mapper else {
            return Ok(false);
        };
        self.probe(Site::Map, || {
            Error::Backend("mapping for the device was made to fail".into())
        })?;
        loop {
            match tt.map_for(mapper) {
                Ok(Some(list)) => {
                    self.tell_mapped(object, &list, false);
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error) if error.is_retryable() && self.unmap_others(object, ask)? => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Notes that pages were mapped.
    pub(super) fn tell_mapped(&self, object: u64, list: &MappedList, lent: bool) {
        self.emit_to_sink(|| Event::Mapped {
            object,
            bytes: list.bytes(),
            segments: list.dma_segments().len() as u64,
            lent,
        });
    }

    /// The device finds these pages no more, which it does not use.
    pub(super) fn unmap_tt(&self, tt: &mut Tt) {
        if let Some(mapper) = &self.mapper {
            tt.unmap_for(mapper);
        }
    }

    /// What the device is handed to find these pages: addresses, if they were mapped for it.
    pub(super) fn frames_for_device(&self, tt: &Tt) -> Side {
        let mapper = self.mapper.as_ref();
        match mapper.and_then(|mapper| tt.list_for(mapper)) {
            Some(list) => Side::Mapped(list.clone()),
            None => frames(tt),
        }
    }

    /// Has the device find something less: what has left already, what is idle, what is not, in this
    /// order. Answers false if there is nothing.
    fn unmap_others(&self, object: u64, ask: &Ask<'_>) -> Result<bool> {
        if self.reap() {
            return Ok(true);
        }
        for idle_only in [true, false] {
            for manager in self.managers.iter().flatten() {
                let mem_type = manager.mem_type();
                let chained = ask.chain & 1 << mem_type.index() != 0;
                if chained || !manager.uses_frames() || !stays_found(Some(mem_type)) {
                    continue;
                }
                let ask = Ask {
                    wanted_by: object,
                    window: PageRange::ALL,
                    chain: ask.chain | 1 << mem_type.index(),
                    idle_only,
                    ..*ask
                };
                let (claim, _) = manager.claim(&*self.clock, ask.ticket.age(), PageRange::EMPTY);
                if Hunt::new(self, manager, &ask, &claim).evict_one()? {
                    return Ok(true);
                }
            }
            // Those that have left are found until nothing uses them.
            if self.wait_for_one_that_left(ask)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn wait_for_one_that_left(&self, ask: &Ask<'_>) -> Result<bool> {
        if !ask.context.may_wait() {
            return Ok(false);
        }
        for _ in 0..self.moving.len() {
            let Some(weak) = self.moving.pop() else {
                break;
            };
            let bo = weak.upgrade().and_then(as_bo);
            self.moving.push(weak);
            let fence = bo.and_then(|bo| bo.with_free(|held| pending(held).into_iter().next())?);
            if let Some(fence) = fence {
                wait_fence(&fence, ask)?;
                self.reap();
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl BoCore {
    /// Has the device find the object's pages, which are populated, for as long as its place or what
    /// it is handed says.
    ///
    /// # Errors
    /// Those of [`DeviceCore::map_tt`].
    pub(super) fn map_pages(&self, state: &mut BoState, ask: &Ask<'_>) -> Result<()> {
        let tt = state.tt.as_mut().expect("just populated");
        let newly = self.device.map_tt(tt, self.id, ask)?;
        if newly && !stays_found(state.mem_type()) {
            // Whoever it is handed to adds a fence, or does not.
            self.look_later();
        }
        Ok(())
    }

    /// The device finds pages no more that it does not use where the object is: now, if it is idle,
    /// else when it is.
    pub(super) fn unmap_pages(&self, held: &Held<'_>, state: &mut BoState) {
        if self.is_found_in_passing(state) && !self.unmap_if_idle(held, state) {
            self.look_later();
        }
    }

    /// Whether the device finds pages that it will not find for long.
    pub(super) fn is_found_in_passing(&self, state: &BoState) -> bool {
        let found = state.tt.as_ref().is_some_and(|tt| self.device.is_found(tt));
        found && !stays_found(state.mem_type())
    }

    /// Ends that if nothing uses the object. Answers whether nothing does.
    pub(super) fn unmap_if_idle(&self, held: &Held<'_>, state: &mut BoState) -> bool {
        let idle = state.moving.is_none() && held.fences().is_idle(Usage::Bookkeep);
        #[cfg(feature = "plant")]
        let idle = idle || crate::plant::is(crate::plant::Defect::EarlyUnmap);
        if idle
            && self.is_found_in_passing(state)
            && let Some(tt) = &mut state.tt
        {
            self.device.unmap_tt(tt);
        }
        idle
    }
}

impl DeviceCore {
    /// Whether the device should find the object where it is, and does not.
    pub(super) fn lacks_mapping(&self, state: &BoState) -> bool {
        self.mapper.is_some()
            && stays_found(state.mem_type())
            && !state.tt.as_ref().is_some_and(|tt| self.is_found(tt))
    }

    /// Whether the device finds these pages, by its mapper.
    pub(super) fn is_found(&self, tt: &Tt) -> bool {
        let mapper = self.mapper.as_ref();
        mapper.is_some_and(|mapper| tt.list_for(mapper).is_some())
    }
}
