//! The lock word.
//!
//! ```text
//!   bit 31      bit 30 … 24    bits 23 … 0
//!   contended   unused         thread index + 1 of the holder, 0 when free
//! ```
//!
//! The contended bit is set and cleared only under the domain's lock. While it is set, the holder
//! cannot release without that lock either, so whoever has it sees a holder that stays.

use core::fmt;
use core::marker::PhantomData;

use crate::fence::FenceSet;
use crate::sync::atomic::{AtomicU32, Ordering};

use super::domain::Domain;
use super::locked_by::{Borrowed, LockedBy};

/// Set while somebody waits or watches.
pub(super) const CONTENDED: u32 = 1 << 31;
/// The bits of the holder.
pub(super) const HOLDER: u32 = (1 << 24) - 1;

/// The lock of one object, or of several that share it, and their fences.
#[repr(C)]
pub struct Reservation {
    pub(super) word: AtomicU32,
    fences: LockedBy<FenceSet>,
}

/// How a try went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It is ours now.
    Now,
    /// It was ours already.
    Before,
    /// Somebody else has it.
    No,
}

impl Reservation {
    /// A free reservation without fences.
    #[must_use]
    pub fn new() -> Self {
        Self {
            word: AtomicU32::new(0),
            fences: LockedBy::new(FenceSet::new()),
        }
    }

    /// Whether anybody holds it at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & HOLDER != 0
    }

    /// Takes it if it is free.
    #[inline]
    pub(crate) fn try_lock(&self, thread: u32) -> Taken {
        // Acquire: pairs with the release of the unlock before.
        match self
            .word
            .compare_exchange(0, thread + 1, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => Taken::Now,
            Err(word) if word & HOLDER == thread + 1 => Taken::Before,
            Err(_) => Taken::No,
        }
    }

    /// Gives it up. The caller holds it.
    #[inline]
    pub(crate) fn unlock(&self, thread: u32, domain: &Domain) {
        // Release: pairs with the acquire of the next lock.
        if self
            .word
            .compare_exchange(thread + 1, 0, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            domain.unlock_contended(self, thread);
        }
    }

    /// The proof that `thread`, the calling one, holds this reservation.
    ///
    /// The proof must be gone before the lock is: its lifetime is that of the borrow, and the
    /// callers in this crate bind it to the guard that unlocks.
    #[inline]
    pub(crate) fn held(&self, thread: u32) -> Held<'_> {
        debug_assert_eq!(
            self.word.load(Ordering::Relaxed) & HOLDER,
            thread + 1,
            "the proof of a lock that is not held"
        );
        Held {
            reservation: self,
            not_send: PhantomData,
        }
    }
}

impl Default for Reservation {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        match word & HOLDER {
            0 => f.write_str("Reservation(free)"),
            holder => write!(f, "Reservation(held by thread {})", holder - 1),
        }
    }
}

/// The proof that this thread holds a reservation.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    reservation: &'a Reservation,
    not_send: PhantomData<*const ()>,
}

impl<'a> Held<'a> {
    #[inline]
    pub(crate) fn reservation(&self) -> &'a Reservation {
        self.reservation
    }

    /// The fences of the reservation.
    #[inline]
    pub(crate) fn fences(&self) -> Borrowed<'a, FenceSet> {
        self.reservation.fences.borrow(self, self.reservation)
    }
}
