//! Giving an object system pages.

use core::ops::Range;

use placement::{CacheMode, PlaceFlags, Request};

use crate::bo::{BoCore, BoState};
use crate::error::{Error, Result};
use crate::pages::Zone;
use crate::reservation::Held;
use crate::resource::{Ask, Home, Order, Resource, TakeRefused, Victim};
use crate::sync::Weak;
use crate::trace::Event;
use crate::tt::{Fill, Supply, Tt};

impl BoCore {
    /// Gives every page of the object a frame, with its content.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if nothing more can be swapped out, [`Error::Backup`],
    /// [`Error::Corrupt`], and those of waiting. What was populated stays; the next call goes on.
    pub(super) fn populate(&self, state: &mut BoState, ask: &Ask<'_>) -> Result<()> {
        self.populate_part(state, 0..self.pages.get(), Some(Fill::Zeroes), ask)
    }

    /// The same for an object that is about to have `mode`: if it has no frame yet, all are fetched
    /// in that mode, so that pooled ones will do and none is switched.
    ///
    /// # Errors
    /// Those of [`BoCore::populate`].
    pub(super) fn populate_in(
        &self,
        state: &mut BoState,
        mode: CacheMode,
        ask: &Ask<'_>,
    ) -> Result<()> {
        let before = state.mode;
        if !state.has_frames() {
            // Its mode now is that of device memory.
            state.tt.get_or_insert_with(|| self.new_tt(mode));
        }
        let no_frame = state.tt.as_ref().is_none_or(|tt| tt.resident().is_zero());
        if before == mode || !no_frame || !state.has_frames() {
            return self.populate(state, ask);
        }
        self.set_pages_mode(state, mode);
        let populated = self.populate(state, ask);
        if populated.is_err() {
            self.set_pages_mode(state, before);
        }
        populated
    }

    /// Changes the mode of pages that nobody uses. They keep theirs if that fails; then they are not
    /// where they were validated to.
    pub(super) fn set_pages_mode(&self, state: &mut BoState, mode: CacheMode) {
        let supply = self.device.supply(&|_| false);
        let set = match &mut state.tt {
            Some(tt) => tt.set_mode(mode, &supply),
            None => Ok(()),
        };
        match set {
            Ok(()) => state.mode = mode,
            Err(_) => state.placement = None,
        }
    }

    /// Gives the pages of `range`, and those that share a run with them, frames with their content;
    /// without `fresh`, only those that have some.
    ///
    /// # Errors
    /// Those of [`BoCore::populate`].
    pub(super) fn populate_part(
        &self,
        state: &mut BoState,
        range: Range<u64>,
        fresh: Option<Fill>,
        ask: &Ask<'_>,
    ) -> Result<()> {
        let mode = state.mode;
        let tt = state.tt.get_or_insert_with(|| self.new_tt(mode));
        let populated = self.populate_tt_part(tt, range, fresh, ask);
        state.update_home();
        populated
    }

    /// Populates an object that is in system memory, or nowhere.
    pub(super) fn populate_here(&self, held: &Held<'_>, ask: &Ask<'_>) -> Result<()> {
        let mut state = self.state(held);
        self.make_ready(held, &mut state, ask)?;
        match &state.resource {
            None => state.resource = Some(self.system_resource(&state)?),
            Some(resource) if resource.manager().uses_frames() => {}
            Some(_) => return Err(Error::Invalid("the object is in device memory")),
        }
        self.populate(&mut state, ask)
    }

    /// The same for pages that are not the object's yet.
    pub(super) fn populate_tt(&self, tt: &mut Tt, fill: Fill, ask: &Ask<'_>) -> Result<()> {
        self.populate_tt_part(tt, 0..self.pages.get(), Some(fill), ask)
    }

    fn populate_tt_part(
        &self,
        tt: &mut Tt,
        range: Range<u64>,
        fresh: Option<Fill>,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if tt.is_populated() {
            return Ok(());
        }
        let device = &self.device;
        let since = device.clock.now();
        let fault = |site| device.fails(site);
        let low = self.is_low();
        let supply = Supply {
            stash: (ask.stash && !low).then_some(&device.stash),
            zone: if low { Zone::Dma32 } else { device.zone },
            ..device.supply(&fault)
        };
        let swapped = tt.swapped();
        let result = loop {
            match tt.populate_range(range.clone(), fresh, &supply) {
                Err(Error::NoMemory { wanted, .. }) => {
                    if !device.reclaim(wanted, self.id, ask)? {
                        break Err(device.shortage(wanted));
                    }
                }
                result => break result,
            }
        };
        device.relieve();
        let back = swapped.saturating_sub(tt.swapped());
        if !back.is_zero() {
            device.emit(Event::SwappedIn {
                object: self.id,
                bytes: back.bytes(),
                since,
            });
        }
        result.map(|_| ())
    }

    /// An order for any space that fits, out of eviction's reach.
    pub(super) fn plain_order<'a>(
        &self,
        state: &'a BoState,
        victim: &'a Weak<dyn Victim>,
    ) -> Order<'a> {
        Order {
            request: Request::new(self.pages),
            flags: PlaceFlags::empty(),
            victim,
            group: None,
            level: state.level(),
            bulk: state.bulk.as_ref(),
            home: Home::Unevictable,
            last_stamp: self.device.stamps(1),
            accepts_fences: true,
            claim: None,
            cache: None,
        }
    }

    /// A resource in the system memory type, which is never full.
    pub(super) fn system_resource(&self, state: &BoState) -> Result<Resource> {
        let victim: Weak<dyn Victim> = self.me.clone();
        let order = self.plain_order(state, &victim);
        match self.device.system().take(&order) {
            Ok(taken) => {
                let mut resource = taken.resource;
                resource.settle();
                Ok(resource)
            }
            Err(TakeRefused::Off) => Err(Error::Invalid("the system memory type is switched off")),
            Err(_) => Err(Error::no_memory(self.pages)),
        }
    }
}
