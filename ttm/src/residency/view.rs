//! What shows an object to the CPU: kept out of the way of moves, and let in again.
//!
//! ```text
//!              prepare (new place)        revoke           copy        follow
//!   shown ───────────────────────▶ shown ────────▶ waiting ────▶ ... ────────▶ shown
//!                                    │ track                     ▲
//!                                    └── copy ── revoke ── copy what was written
//! ```
//!
//! Everything that copies, frees or reuses the memory behind an object revokes its views first
//! (I-21). After that letting them in again is never needed: who touches a view that waits has it
//! shown by [`BoCore::reach`].

use core::ops::Range;

use placement::{CacheMode, MemType, PageCount, Place, Placement};

use crate::bo::{BoCore, BoState, Content, LiveViews, Shown, ShownPart};
use crate::driver::Side;
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::fence::Usage;
use crate::pages::FrameSpan;
use crate::reservation::Held;
use crate::resource::{Ask, MemoryKind};
use crate::trace::Reason;
use crate::tt::Fill;

use super::migrate::device_side;

/// From this size on a copy by the CPU begins while writers go on, unless they are known to write
/// so much meanwhile that copying that again keeps them waiting no less (bench `windows`).
const PRECOPY_FROM: PageCount = PageCount::new(512).expect("2 MiB");

/// Why the CPU does not look at device memory of an opaque object.
pub(super) const OPAQUE: &str = "device memory holds this content in a form of its own; validate it \
                                 into TT or SYSTEM for the CPU";

/// So few pages between two that were written are copied again with them: mapping twice would take
/// longer.
const COPIED_ALONG: u64 = 16;

impl BoCore {
    /// Where the CPU finds the content, of system pages those that there are.
    ///
    /// # Errors
    /// Those of [`Region::file`](crate::resource::Region::file) and
    /// [`PageSource::file`](crate::pages::PageSource::file).
    pub(super) fn shown(&self, state: &BoState) -> Result<Shown> {
        match &state.resource {
            Some(resource) if !resource.manager().uses_frames() => {
                self.shown_of(&device_side(resource), state.mode)
            }
            _ => {
                let mut shown = Shown::default();
                for (first, span) in state.tt.iter().flat_map(|tt| tt.frames()) {
                    self.show_frames(&mut shown, first, span, state.mode)?;
                }
                Ok(shown)
            }
        }
    }

    /// Where the CPU will find the content when it is in `side`, all of it, in `mode`.
    ///
    /// # Errors
    /// As [`BoCore::shown`].
    pub(super) fn shown_of(&self, side: &Side, mode: CacheMode) -> Result<Shown> {
        let mut shown = Shown::default();
        let mut first = 0;
        match side {
            Side::Zero => {}
            Side::Frames(spans) => {
                for span in spans {
                    self.show_frames(&mut shown, first, *span, mode)?;
                    first += span.pages.get();
                }
            }
            Side::Mapped(_) => return Err(Error::Invalid("addresses are for the device")),
            Side::Device { .. } if self.opaque => return Err(Error::Unsupported(OPAQUE)),
            Side::Device { mem_type, ranges } => {
                let manager = self.device.manager(*mem_type);
                let Some(MemoryKind::Device(region)) = manager.map(|m| m.kind()) else {
                    return Err(Error::Invalid("memory without frames is the device's"));
                };
                for range in ranges {
                    let (pages, file) = (range.len().get(), region.file(*range, mode)?);
                    shown.push(ShownPart { first, pages, file });
                    first += pages;
                }
            }
        }
        Ok(shown)
    }

    fn show_frames(
        &self,
        shown: &mut Shown,
        first: u64,
        span: FrameSpan,
        mode: CacheMode,
    ) -> Result<()> {
        let (pages, file) = (span.pages.get(), self.device.pool.file(span, mode)?);
        shown.push(ShownPart { first, pages, file });
        Ok(())
    }

    /// Has the views make ready for the content to be in `side`.
    pub(super) fn prepare_views(&self, views: &LiveViews, side: &Side, mode: CacheMode) {
        if views.is_empty() {
            return;
        }
        // Without, they are made ready when they follow.
        if let Ok(shown) = self.shown_of(side, mode) {
            views.iter().for_each(|view| view.prepare(&shown));
        }
    }

    /// Makes every access through a view wait.
    ///
    /// # Errors
    /// What the address space says; views that were revoked already wait.
    pub(super) fn revoke_views(&self, state: &BoState) -> Result<()> {
        self.revoke(&state.live_views(), state)
    }

    pub(super) fn revoke(&self, views: &LiveViews, state: &BoState) -> Result<()> {
        if views.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::NoRevoke) {
            return Ok(());
        }
        self.device.probe(Site::Revoke, || {
            Error::Backend("revoking a window was made to fail".into())
        })?;
        let mut showed = false;
        for view in views {
            showed |= view.revoke()?;
        }
        if state.tt.as_ref().is_some_and(|tt| tt.has_ended_leases()) {
            self.look_later();
        }
        if showed && state.has_frames() {
            for (_, span) in state.tt.iter().flat_map(|tt| tt.frames()) {
                self.device.pool.hide(span, state.mode);
            }
        }
        Ok(())
    }

    /// Lets the views in again, where the content is now. Where it is still on its way, or cannot be
    /// reached, they wait on.
    pub(super) fn follow_views(&self, state: &BoState) {
        let views = state.live_views();
        if views.is_empty() || state.moving.is_some() || state.suspended.is_some() {
            return;
        }
        if state.content != Content::Kept || state.losses != self.device.losses() {
            return;
        }
        let Ok(shown) = self.shown(state) else {
            return;
        };
        self.before_looks(state);
        views.iter().for_each(|view| view.follow(&shown));
    }

    fn before_looks(&self, state: &BoState) {
        if state.has_frames() {
            for (_, span) in state.tt.iter().flat_map(|tt| tt.frames()) {
                self.device.pool.before_looks(span, state.mode);
            }
        }
    }

    /// Copies by the CPU what views show, while writers go on if that is possible and pays, and
    /// leaves all of them waiting.
    ///
    /// # Errors
    /// Those of copying and of revoking. The source is intact; views go on, or wait.
    pub(super) fn copy_from_under(
        &self,
        views: &LiveViews,
        state: &BoState,
        copy: impl FnOnce() -> Result<()>,
        src: &Side,
        dst: &Side,
    ) -> Result<()> {
        let precopy = state.views.as_ref().map(|views| views.precopy());
        let precopy = precopy.filter(|precopy| {
            self.pages >= PRECOPY_FROM
                && matches!(src, Side::Frames(_) | Side::Device { .. })
                && precopy.is_due()
                && views.iter().all(|view| view.track())
        });
        let Some(precopy) = precopy else {
            self.revoke(views, state)?;
            return copy();
        };
        copy()?;
        self.revoke(views, state)?;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::NoDirtyRecopy) {
            return Ok(());
        }
        let mut again: Vec<Range<u64>> = Vec::new();
        for view in views {
            if view.written(&mut |range| again.push(range)).is_err() {
                again.clear();
                again.push(0..self.pages.get());
                break;
            }
        }
        let again = joined(again);
        precopy.learn(
            again.iter().map(|r| r.end - r.start).sum(),
            self.pages.get(),
        );
        for range in again {
            self.device.copy_pages_by_cpu(src, dst, range)?;
        }
        Ok(())
    }

    /// Brings the content of `range`, and what shares a run with it, to where the CPU reaches it,
    /// and tells where that is. `writes` says whether it may be written from now on.
    ///
    /// # Errors
    /// [`Error::Purged`], [`Error::ContentLost`], [`Error::Pinned`] and [`Error::Unsupported`] where
    /// the CPU cannot reach, and those of validate.
    pub(crate) fn reach(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        range: Range<u64>,
        writes: bool,
        ask: &Ask<'_>,
    ) -> Result<Shown> {
        self.stand_still(held, state, ask)?;
        if let Err(Error::Unsupported(_)) = self.shown(state)
            && !state.has_frames()
        {
            self.come_to_the_cpu(held, state, ask)?;
        }
        if state.has_frames() {
            self.populate_part(state, range, Some(Fill::Zeroes), ask)?;
        }
        let shown = self.shown(state)?;
        if writes {
            state.content = Content::Kept;
        }
        self.before_looks(state);
        Ok(shown)
    }

    /// Has the content somewhere, with no move under way, so that the CPU can look at it.
    ///
    /// # Errors
    /// [`Error::Purged`], [`Error::ContentLost`], and those of waiting.
    pub(super) fn stand_still(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
    ) -> Result<()> {
        self.make_ready(held, state, ask)?;
        self.is_untouched(state)?;
        self.wait_for_move(held, state, ask)?;
        self.wait_idle(held, Usage::Kernel, ask)?;
        self.be_somewhere(state)
    }

    /// Moves the object to where its driver, or else the manager, wants it for the CPU, and waits
    /// until it is there.
    pub(super) fn come_to_the_cpu(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        ask: &Ask<'_>,
    ) -> Result<()> {
        if state.pins > 0 {
            return Err(Error::Pinned);
        }
        state.cpu_access = true;
        let facts = self.facts(state);
        let mut placement = self.device.driver.place_for_cpu(&facts, &*self.object);
        if placement.is_empty() {
            placement = self.near_the_cpu(state);
        }
        self.come_to(held, state, &placement, Reason::CpuAccess, ask)
    }

    /// Moves the object to one of `placement`'s places, and waits until it is there.
    ///
    /// # Errors
    /// Those of validate.
    pub(super) fn come_to(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        placement: &Placement,
        why: Reason,
        ask: &Ask<'_>,
    ) -> Result<()> {
        for forced in [false, true] {
            if let Some(taken) = self.find_space(state, placement, forced, ask)? {
                self.migrate(held, state, taken, ask, why)?;
                state.note(placement);
                return self.wait_for_move(held, state, ask);
            }
        }
        Err(self.refusal(placement.places()))
    }

    /// The aperture of the memory that the object is in, as it is; TT; SYSTEM.
    fn near_the_cpu(&self, state: &BoState) -> Placement {
        let mut placement = Placement::new();
        if let Some(resource) = &state.resource
            && let MemoryKind::Device(region) = resource.manager().kind()
        {
            let aperture = region.aperture();
            if !self.opaque && !aperture.is_empty() && !resource.is_within(aperture) {
                let place = Place::new(resource.mem_type()).within(aperture).desired();
                placement = placement.with(place);
            }
        }
        if self.device.manager(MemType::TT).is_some() {
            placement = placement.with(Place::new(MemType::TT));
        }
        placement.with(Place::new(MemType::SYSTEM))
    }
}

/// The ranges in order, those that overlap or nearly adjoin as one.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + COPIED_ALONG => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_nearly_adjoin_are_one() {
        assert_eq!(joined(vec![]), []);
        assert_eq!(
            joined(vec![40..41, 0..4, 2..3, 20..22, 100..110]),
            [0..22, 40..41, 100..110]
        );
    }
}
