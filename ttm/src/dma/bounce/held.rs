//! Slots of a pool that a mapping has, whatever is copied to them.

use super::area::Slots;
use super::{BounceMemory, BouncePool, BounceRequest};
use crate::dma::{DmaAddr, DmaError};

/// Slots that are somebody's until they are given back.
#[derive(Debug)]
#[must_use = "slots that are dropped are lost; give them back"]
pub(in crate::dma) struct Held {
    /// Where in the pool.
    pub(super) at: u64,
    pub(super) address: u64,
    pub(super) len: u64,
    /// Which area the slots are of.
    pub(super) area: usize,
    pub(super) slots: Slots,
    /// The pool that it is of.
    pub(super) home: usize,
}

impl Held {
    /// Where the device finds the first byte.
    ///
    /// # Panics
    /// Never: a pool ends before the last of all addresses.
    pub(in crate::dma) fn address(&self) -> DmaAddr {
        DmaAddr::new(self.address).expect("no pool has the last address")
    }

    /// How many bytes.
    pub(in crate::dma) const fn len(&self) -> u64 {
        self.len
    }

    fn check(&self, at: u64, len: usize) {
        let end = at.checked_add(len as u64);
        let inside = end.is_some_and(|end| end <= self.len);
        assert!(inside, "bytes {at}+{len} of {} in slots", self.len);
    }
}

/// A pool, whatever memory it is in: who maps a backing copies piece by piece and has no buffer to
/// lend.
pub(in crate::dma) trait Bouncer: Send + Sync {
    /// Finds slots for `len` bytes, of which nothing is copied yet.
    ///
    /// # Errors
    /// Those of [`BouncePool::map`].
    fn hold(&self, len: u64, request: &BounceRequest) -> Result<Held, DmaError>;

    /// Takes slots back, which the device no longer uses.
    ///
    /// # Panics
    /// If they are of another pool.
    fn give(&self, held: Held);

    /// Copies in, `at` bytes from the first.
    ///
    /// # Panics
    /// If they are of another pool, or the bytes are not inside.
    fn put(&self, held: &Held, at: u64, bytes: &[u8]);

    /// Copies out, likewise.
    ///
    /// # Panics
    /// As [`Bouncer::put`].
    fn get(&self, held: &Held, at: u64, bytes: &mut [u8]);

    /// Bytes of slots, used or not.
    fn total(&self) -> u64;
}

impl<M: BounceMemory> Bouncer for BouncePool<M> {
    fn hold(&self, len: u64, request: &BounceRequest) -> Result<Held, DmaError> {
        Self::hold(self, len, request)
    }

    fn give(&self, held: Held) {
        self.assert_own(&held);
        self.release(&held);
    }

    fn put(&self, held: &Held, at: u64, bytes: &[u8]) {
        self.assert_own(held);
        held.check(at, bytes.len());
        self.memory.put(held.at + at, bytes);
    }

    fn get(&self, held: &Held, at: u64, bytes: &mut [u8]) {
        self.assert_own(held);
        held.check(at, bytes.len());
        self.memory.get(held.at + at, bytes);
    }

    fn total(&self) -> u64 {
        self.stats().total
    }
}
