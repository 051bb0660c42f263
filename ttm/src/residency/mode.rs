//! Cache modes: which one pages get where they go, and changing it where they are.

use placement::CacheMode;

use crate::bo::{BoCore, BoState};
use crate::cache::{Area, Memory};
use crate::error::{Error, Result};
use crate::fence::Usage;
use crate::reservation::Held;
use crate::resource::{Ask, MemoryKind, Region, Resource};
use crate::trace::Event;

impl BoCore {
    /// The mode that the object's pages will have in `new`: what its place wishes for; else system
    /// pages keep theirs, and device memory has its own.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming who could, if the pages cannot have it.
    pub(super) fn mode_in(&self, state: &BoState, new: &Resource) -> Result<CacheMode> {
        match new.manager().kind() {
            MemoryKind::Frames => {
                let kept = match state.has_frames() {
                    true => state.mode,
                    false => CacheMode::Cached,
                };
                let mode = new.cache().unwrap_or(kept);
                self.device.pool.admit_mode(mode).map(|()| mode)
            }
            MemoryKind::Device(region) => {
                let mode = new.cache().unwrap_or_else(|| region.own_mode());
                admit(&**region, mode).map(|()| mode)
            }
        }
    }

    /// Notes the mode of device memory that was taken for the object, in place of its last owner's.
    /// Nobody looks at it yet.
    pub(super) fn enter_modes(&self, new: &Resource, mode: CacheMode) {
        if let MemoryKind::Device(region) = new.manager().kind() {
            let entry = (mode != region.own_mode()).then_some(mode);
            for area in areas(new) {
                let set = self.device.ledger.set(area, entry);
                set.expect("nobody looks at space that was just taken");
            }
        }
    }

    /// Changes the mode of the object's pages where they are.
    ///
    /// # Errors
    /// [`Error::Pinned`], [`Error::Unsupported`], [`Error::Busy`] while somebody looks at them, and
    /// those of waiting. Nothing has changed.
    pub(super) fn switch_mode(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        mode: CacheMode,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        if matches!(self.mode_kind(state), MemoryKind::Frames) {
            self.device.pool.admit_mode(mode)?;
            self.wait_idle(held, Usage::Bookkeep, ask)?;
            self.settle(held, state)?;
        }
        self.revoke_views(state)?;
        let switched = self.switch_pages(state, mode);
        if switched.is_ok() {
            let from = core::mem::replace(&mut state.mode, mode);
            self.device.emit(Event::CacheSwitched {
                object: self.id,
                bytes: self.pages.bytes(),
                from,
                to: mode,
            });
        }
        self.follow_views(state);
        switched
    }

    fn mode_kind<'a>(&self, state: &'a BoState) -> &'a MemoryKind {
        let resource = state.resource.as_ref().expect("it is in a place");
        resource.manager().kind()
    }

    /// Nobody looks at the pages; they get `mode`.
    fn switch_pages(&self, state: &mut BoState, mode: CacheMode) -> Result<()> {
        let resource = state.resource.as_ref().expect("it is in a place");
        match resource.manager().kind() {
            MemoryKind::Frames => {
                if let Some(tt) = &mut state.tt {
                    let fault = |site| self.device.fails(site);
                    tt.set_mode(mode, &self.device.supply(&fault))?;
                }
            }
            MemoryKind::Device(region) => {
                admit(&**region, mode)?;
                let entry = (mode != region.own_mode()).then_some(mode);
                for area in areas(resource) {
                    self.device.ledger.may_switch(area)?;
                }
                for area in areas(resource) {
                    self.device.ledger.set(area, entry)?;
                }
            }
        }
        Ok(())
    }
}

fn admit(region: &dyn Region, mode: CacheMode) -> Result<()> {
    if region.modes().has(mode) {
        return Ok(());
    }
    Err(Error::Unsupported(
        "this device memory cannot be mapped in that cache mode; its region's `modes` say in which",
    ))
}

fn areas(resource: &Resource) -> impl Iterator<Item = Area> {
    let memory = Memory::Device(resource.mem_type());
    resource.extents().iter().map(move |extent| Area {
        memory,
        first: extent.start(),
        pages: extent.pages(),
    })
}
