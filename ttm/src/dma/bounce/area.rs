//! Sets of slots with a lock of their own.

use super::SET_SLOTS;
use super::request::BouncePlace;
use crate::sync::Mutex;

/// Adjoining slots of one set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slots {
    /// The first, of the whole pool.
    pub(super) first: u64,
    pub(super) count: u64,
}

pub(super) struct Area {
    first_set: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Which slots are used, a bit each, by set.
    used: Vec<u128>,
    /// Where the last search ended.
    next: usize,
}

impl Area {
    pub(super) fn new(first_set: u64, end_set: u64) -> Self {
        let sets = (end_set - first_set) as usize;
        Self {
            first_set,
            inner: Mutex::new(Inner {
                used: vec![0; sets],
                next: 0,
            }),
        }
    }

    /// Takes slots that nobody has, of the set where the last were found or of one after it.
    pub(super) fn take(&self, place: &BouncePlace) -> Option<Slots> {
        let mut inner = self.inner.lock();
        let sets = inner.used.len();
        let (set, slot) = (inner.next..sets)
            .chain(0..inner.next)
            .find_map(|set| Some((set, place.find(inner.used[set])?)))?;
        inner.used[set] |= bits(slot, place.slots());
        inner.next = set;
        Some(Slots {
            first: (self.first_set + set as u64) * SET_SLOTS + slot,
            count: place.slots(),
        })
    }

    /// Takes slots back.
    ///
    /// # Panics
    /// If one of them is free.
    pub(super) fn give(&self, slots: Slots) {
        let set = slots.first / SET_SLOTS - self.first_set;
        let bits = bits(slots.first % SET_SLOTS, slots.count);
        let mut inner = self.inner.lock();
        let used = &mut inner.used[set as usize];
        assert_eq!(*used & bits, bits, "{slots:?} are free");
        *used &= !bits;
    }
}

/// `count` bits from `first` on.
pub(super) const fn bits(first: u64, count: u64) -> u128 {
    (u128::MAX >> (SET_SLOTS - count)) << first
}
