//! What lending an object to another device takes: its content there, all of it, in memory that the
//! other can use.

use placement::{CacheMode, MemType, PageRange, Place, Placement};

use crate::bo::{BoCore, BoState, Content};
use crate::dma::{BusRange, Direction, DmaAddr, MappedList, Mapper};
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::fence::Usage;
use crate::pages::{FrameSpan, Zone};
use crate::reservation::Held;
use crate::resource::{Ask, MemoryKind};
use crate::sync::Arc;
use crate::trace::Reason;
use crate::tt::{Fill, Lease};

use super::migrate::{frames, pending};

impl BoCore {
    /// Has the content somewhere. With `still` no move is under way on return, and nothing of the
    /// manager's is pending.
    ///
    /// # Errors
    /// [`Error::Purged`], [`Error::ContentLost`], [`Error::DeviceLost`], and those of waiting.
    pub(crate) fn ready_to_lend(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        still: bool,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if still {
            self.stand_still(held, state, ask)?;
        } else {
            self.make_ready(held, state, ask)?;
            self.is_untouched(state)?;
            self.be_somewhere(state)?;
        }
        if self.device.is_lost() && !state.has_frames() {
            return Err(Error::DeviceLost);
        }
        Ok(())
    }

    /// Gives every page of an object in system memory a frame.
    ///
    /// # Errors
    /// Those of populating.
    pub(crate) fn populate_to_lend(&self, state: &mut BoState, ask: &Ask<'_>) -> Result<()> {
        match state.has_frames() {
            true => self.populate(state, ask),
            false => Ok(()),
        }
    }

    /// Has another device find the object's pages, which are populated. It may write from now on.
    ///
    /// # Errors
    /// [`Error::Dma`]. Nothing has changed.
    pub(crate) fn lend_pages(
        &self,
        state: &mut BoState,
        mapper: &Arc<dyn Mapper>,
        direction: Direction,
        lease: &Arc<Lease>,
    ) -> Result<Arc<MappedList>> {
        self.device.probe(Site::Map, || {
            Error::Backend("mapping for another device was made to fail".into())
        })?;
        let tt = state.tt.as_mut().expect("just populated");
        let list = tt.lend(mapper, direction, lease)?;
        self.device.tell_mapped(self.id, &list, true);
        self.may_be_written(state);
        Ok(list)
    }

    /// Another device may write to the object from now on.
    pub(crate) fn may_be_written(&self, state: &mut BoState) {
        if state.content == Content::Fresh {
            state.content = Content::Kept;
        }
    }

    /// Ends what was lent and is given back or was taken away: now, if nothing uses it, else when
    /// nothing does.
    pub(crate) fn take_back(&self, held: &Held<'_>, state: &mut BoState) {
        self.pay(state);
        if let Some(tt) = &mut state.tt
            && tt.has_ended_leases()
        {
            tt.unmap_ended(|| pending(held));
        }
    }

    /// The same, by the reaper if it is not done on return.
    pub(crate) fn take_back_or_look_later(&self, held: &Held<'_>, state: &mut BoState) {
        self.take_back(held, state);
        if state.tt.as_ref().is_some_and(|tt| tt.has_ended_leases()) {
            self.look_later();
        }
    }

    /// Takes the object away from everybody who looks at it or was lent it.
    ///
    /// # Errors
    /// Those of revoking.
    pub(crate) fn take_away(&self, held: &Held<'_>, state: &mut BoState) -> Result<()> {
        self.revoke_views(state)?;
        self.take_back_or_look_later(held, state);
        self.follow_views(state);
        Ok(())
    }

    /// Where the object is on the bus, as far as that is known: of system pages by `address`, or by a
    /// device that finds them as they are.
    pub(crate) fn bus_ranges(
        &self,
        state: &BoState,
        address: &dyn Fn(FrameSpan) -> Option<DmaAddr>,
    ) -> Option<Vec<BusRange>> {
        match &state.resource {
            Some(resource) if !resource.manager().uses_frames() => {
                let MemoryKind::Device(region) = resource.manager().kind() else {
                    return None;
                };
                let range = |range: &PageRange| {
                    let (addr, len) = (region.bus(*range)?, range.len().bytes());
                    Some(BusRange { addr, len })
                };
                resource.ranges().iter().map(range).collect()
            }
            _ => {
                let tt = state.tt.as_ref().filter(|tt| tt.is_populated())?;
                let range = |(_, span): (u64, FrameSpan)| {
                    let (addr, len) = (address(span)?, span.pages.bytes());
                    Some(BusRange { addr, len })
                };
                let told: Option<Vec<BusRange>> = tt.frames().map(range).collect();
                told.or_else(|| tt.bus_ranges())
            }
        }
    }

    /// Moves the object to system pages that devices find, in `mode` if that is some, and waits until
    /// it is there.
    ///
    /// # Errors
    /// [`Error::Pinned`], and those of validate.
    pub(crate) fn come_to_frames(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        mode: Option<CacheMode>,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        if state.has_frames() {
            return match mode.filter(|mode| *mode != state.mode) {
                Some(mode) => {
                    self.be_somewhere(state)?;
                    self.switch_mode(held, state, mode, ask)?;
                    // Nobody validated it to a place of that mode.
                    state.placement = None;
                    Ok(())
                }
                None => Ok(()),
            };
        }
        let place = |mem_type| match mode {
            Some(mode) => Place::new(mem_type).cached(mode),
            None => Place::new(mem_type),
        };
        let placement = Placement::of(place(MemType::TT)).with(place(MemType::SYSTEM));
        self.come_to(held, state, &placement, Reason::Validate, ask)
    }

    /// Whether frames that it gets are from the zone DMA32.
    pub(crate) fn lies_low(&self) -> bool {
        self.is_low() || self.device.zone == Zone::Dma32
    }

    /// The last byte of the zone DMA32, if there is such a zone.
    pub(crate) fn low_zone_last(&self) -> Option<u64> {
        let offers = self.device.pool.offers();
        offers.zones.has(Zone::Dma32).then_some(offers.dma32_last)
    }

    /// Has the object's frames in the zone DMA32: those that it has move there, by the CPU.
    ///
    /// # Errors
    /// [`Error::Pinned`], [`Error::Unsupported`] for memory that a user brought, and those of
    /// populating, copying and waiting. The object is where it was.
    pub(crate) fn come_low(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if self.lies_low() {
            return Ok(());
        }
        let has_pages = state.tt.as_ref().is_some_and(|tt| !tt.is_empty());
        if !has_pages {
            self.set_low(true);
            return Ok(());
        }
        if state.is_brought() {
            return Err(Error::Unsupported(
                "memory that a user brought stays in its frames, which lie too high for the device; \
                 bring memory that it reaches, or copy it to an object of the device's own",
            ));
        }
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        self.wait_idle(held, Usage::Bookkeep, ask)?;
        self.settle(held, state)?;
        self.populate(state, ask)?;
        self.set_low(true);
        let moved = self.renew_pages(state, ask);
        if moved.is_err() {
            self.set_low(false);
        }
        moved
    }

    /// Gives an idle, populated object other frames, with its content.
    fn renew_pages(&self, state: &mut BoState, ask: &Ask<'_>) -> Result<()> {
        let mut fresh = self.new_tt(state.mode);
        let found = state.tt.as_ref().is_some_and(|tt| self.device.is_found(tt));
        let mut made = self.populate_tt(&mut fresh, Fill::Overwritten, ask);
        if made.is_ok() && found {
            made = self.device.map_tt(&mut fresh, self.id, ask).map(drop);
        }
        if made.is_ok() {
            let src = frames(state.tt.as_ref().expect("just populated"));
            let dst = frames(&fresh);
            made = self.fill_under_views(state, &src, &dst, state.mode);
            if made.is_err() {
                self.follow_views(state);
            }
        }
        let supply = self.device.supply(&|_| false);
        if let Err(error) = made {
            fresh.unpopulate(&supply);
            return Err(error);
        }
        if let Some(mut old) = state.tt.replace(fresh) {
            old.unpopulate(&supply);
        }
        state.update_home();
        self.follow_views(state);
        Ok(())
    }
}
