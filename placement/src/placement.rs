//! Wishes in order of preference.

use smallvec::SmallVec;

use crate::Place;

/// An ordered list of [`Place`]s; the first that can be had is taken.
///
/// An empty placement says that the content is not needed: the object keeps no memory at all.
///
/// ```
/// use placement::{MemType, Place, Placement};
///
/// let wishes = Placement::of(Place::new(MemType::VRAM)).with(Place::new(MemType::TT).fallback());
/// assert_eq!(wishes.places().len(), 2);
/// assert!(Placement::new().is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    places: SmallVec<[Place; 2]>,
}

impl Placement {
    /// Makes the empty placement: throw the content away.
    pub fn new() -> Self {
        Self {
            places: SmallVec::new(),
        }
    }

    /// Makes a placement of one place.
    pub fn of(place: Place) -> Self {
        Self::new().with(place)
    }

    /// Adds a place, after (less wanted than) those that are there.
    pub fn with(mut self, place: Place) -> Self {
        self.places.push(place);
        self
    }

    /// The places, the most wanted first.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether the content may be thrown away.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl From<Place> for Placement {
    fn from(place: Place) -> Self {
        Self::of(place)
    }
}

impl From<&[Place]> for Placement {
    fn from(places: &[Place]) -> Self {
        Self {
            places: SmallVec::from_slice(places),
        }
    }
}

impl FromIterator<Place> for Placement {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        Self {
            places: places.into_iter().collect(),
        }
    }
}

impl<'a> IntoIterator for &'a Placement {
    type Item = &'a Place;
    type IntoIter = core::slice::Iter<'a, Place>;

    fn into_iter(self) -> Self::IntoIter {
        self.places.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemType;

    #[test]
    fn order_is_kept_however_it_is_made() {
        let places = [
            MemType::VRAM,
            MemType::TT,
            MemType::SYSTEM,
            MemType::VRAM,
            MemType::TT,
        ]
        .map(Place::new);
        let by_slice = Placement::from(&places[..]);
        let by_iter: Placement = places.into_iter().collect();
        let by_hand = places.into_iter().fold(Placement::new(), Placement::with);
        assert_eq!(by_slice.places(), &places);
        assert_eq!(by_slice, by_iter);
        assert_eq!(by_slice, by_hand);
        assert_eq!((&by_slice).into_iter().count(), 5);
    }
}
