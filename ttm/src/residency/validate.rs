//! Making an object resident in one of its places.

use placement::{MemType, Place, PlaceFlags, Placement};

use crate::bo::{BoCore, BoState, Content};
use crate::error::{Error, Result};
use crate::reservation::Held;
use crate::resource::{Ask, Resource};
use crate::trace::{Event, Reason};

/// A place in device memory for as long as one object has it: another is not equal to it, were it the same
/// pages again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest {
    mem_type: MemType,
    number: u64,
}

impl BoCore {
    /// Makes the object resident in one of `placement`'s places; an empty placement throws the
    /// content away.
    ///
    /// # Errors
    /// [`Error::Pinned`], [`Error::NoSpace`], [`Error::TooBig`], [`Error::NoMemory`],
    /// [`Error::ContentLost`], [`Error::DeviceLost`], and those of waiting. The object is where
    /// it was; victims that have left stay away.
    pub(crate) fn validate(
        &self,
        held: &Held<'_>,
        placement: &Placement,
        ask: &Ask<'_>,
    ) -> Result<()> {
        let mut state = self.state(held);
        if placement.is_empty() {
            return self.discard(held, &mut state, Reason::Validate);
        }
        self.make_ready(held, &mut state, ask)?;
        if state.content == Content::Lost {
            return Err(Error::ContentLost);
        }
        for forced in [false, true] {
            if let Some(place) = state.place_in(placement, forced) {
                if let Some(mode) = place.cache.filter(|mode| *mode != state.mode) {
                    self.switch_mode(held, &mut state, mode, ask)?;
                }
                state.note(placement);
                return Ok(());
            }
            if state.pins > 0 {
                return Err(Error::Pinned);
            }
            if let Some(taken) = self.find_space(&state, placement, forced, ask)? {
                self.migrate(held, &mut state, taken, ask, Reason::Validate)?;
                state.note(placement);
                return Ok(());
            }
        }
        let of_frames = |place: &Place| {
            let manager = self.device.manager(place.mem_type);
            manager.is_some_and(|manager| manager.uses_frames())
        };
        if state.is_brought() && !placement.places().iter().any(of_frames) {
            return Err(Error::Unsupported(
                "memory that a user brought stays in its frames; name a place in TT or SYSTEM, or \
                 copy it to an object of the device's own",
            ));
        }
        Err(self.no_space(placement))
    }

    /// Whether the object rests in a place that the pass without eviction accepts: nothing to do.
    #[inline]
    pub(crate) fn is_settled_in(&self, held: &Held<'_>, placement: &Placement) -> bool {
        let state = self.state(held);
        self.is_still(&state)
            && state
                .place_in(placement, false)
                .is_some_and(|place| place.cache.is_none_or(|mode| mode == state.mode))
    }

    /// Whether nothing is under way, and nothing lost.
    #[inline]
    fn is_still(&self, state: &BoState) -> bool {
        state.moving.is_none()
            && state.suspended.is_none()
            && state.content != Content::Lost
            && state.losses == self.device.losses()
    }

    /// Where the object rests in device memory.
    #[inline]
    pub(super) fn rest(&self, held: &Held<'_>) -> Option<Rest> {
        let state = self.state(held);
        let resource = state.resource.as_ref()?;
        let rests = self.is_still(&state) && !resource.manager().uses_frames();
        rests.then(|| Rest {
            mem_type: resource.mem_type(),
            number: resource.node().to_key(),
        })
    }

    fn no_space(&self, placement: &Placement) -> Error {
        let places = placement.places();
        if let Some(place) = places.last() {
            self.device.emit(Event::Refused {
                object: self.id,
                mem_type: place.mem_type,
                pages: self.pages.get(),
            });
        }
        self.refusal(places)
    }

    /// Why none of `places` would do.
    pub(super) fn refusal(&self, places: &[Place]) -> Error {
        let manager = |p: &Place| self.device.manager(p.mem_type).filter(|m| m.is_used());
        let never = |p: &&Place| {
            manager(p).is_some_and(|m| self.pages > m.usage().size || self.pages > p.window.len())
        };
        if let Some(place) = places.iter().find(never)
            && places.iter().all(|p| manager(p).is_none() || never(&p))
        {
            return Error::TooBig {
                mem_type: place.mem_type,
                wanted: self.pages,
            };
        }
        Error::NoSpace(Box::new(crate::error::NoSpace {
            wanted: self.pages,
            tried: places
                .iter()
                .filter_map(manager)
                .map(|m| m.tried())
                .collect(),
        }))
    }
}

impl BoState {
    /// The place of `placement` that the object is in and that this pass considers, if perhaps in
    /// another cache mode.
    #[inline]
    fn place_in<'p>(&self, placement: &'p Placement, forced: bool) -> Option<&'p Place> {
        let resource = self.resource.as_ref()?;
        if resource.flags().contains(PlaceFlags::TEMPORARY) {
            return None;
        }
        let mut places = placement.places().iter();
        places.find(|place| place.considered(forced) && satisfies(resource, place))
    }

    /// Remembers what was asked for, in debug builds, so that checks can hold the object to it
    /// (I-06).
    pub(super) fn note(&mut self, placement: &Placement) {
        if cfg!(debug_assertions) {
            self.placement = Some(Box::new(placement.clone()));
        }
    }
}

/// Whether `resource` is what `place` wishes for.
#[inline]
pub(super) fn satisfies(resource: &Resource, place: &Place) -> bool {
    resource.mem_type() == place.mem_type
        && resource.is_within(place.window)
        && (!place.flags.contains(PlaceFlags::CONTIGUOUS) || resource.is_contiguous())
}
