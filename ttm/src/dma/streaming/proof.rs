//! Proof that a device owns a backing.

use core::marker::PhantomData;

use crate::dma::Backing;

/// Shows that a device owns a backing, as long as it lives.
///
/// What was to be done to the CPU's caches has been done for that device, and the CPU has not looked
/// since: another device that is mapped for needs it no more. If nothing had to be done for the
/// first, because it snoops, and it has to be for the other, it is done in spite of the proof.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct DeviceOwnedProof<'a> {
    memory: u64,
    pub(in crate::dma) flushed: bool,
    owner: PhantomData<&'a ()>,
}

impl DeviceOwnedProof<'_> {
    pub(super) fn new(backing: &Backing, flushed: bool) -> Self {
        Self {
            memory: backing.number(),
            flushed,
            owner: PhantomData,
        }
    }

    pub(super) fn is_of(&self, backing: &Backing) -> bool {
        self.memory == backing.number()
    }
}
