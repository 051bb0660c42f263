//! Objects that age together, such as all of a GPU address space.

use core::fmt;

use crate::sync::atomic::{AtomicU64, Ordering};

/// A group of objects that share a reservation and move through the order of eviction as one:
/// using one makes all as young, and inside the group the order of use is kept.
pub struct Bulk {
    id: u64,
    stamp: AtomicU64,
}

impl Bulk {
    /// A group without members. `id` is unique in the device.
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            stamp: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// A member was used. Transactions that end at the same time may do this in any order.
    pub(crate) fn touch(&self, stamp: u64) {
        self.stamp.fetch_max(stamp, Ordering::Relaxed);
    }
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bulk({})", self.id)
    }
}
