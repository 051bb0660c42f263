//! Data that a lock somewhere else guards.
//!
//! The rule that the `unsafe` blocks here rely on: the value is reached only through a
//! [`Held`] of the reservation that guards it, which exists on one thread at a time, and only
//! while `borrowed` is false on entry, so references never overlap.
#![expect(
    unsafe_code,
    reason = "a cell that opens to the proof of a distant lock"
)]

use core::cell::{Cell, UnsafeCell};
use core::ops::{Deref, DerefMut};

use super::lock::Held;

/// A value that only the holder of a reservation can reach, like a `RefCell` that is shared by
/// threads because the reservation keeps them apart.
pub(crate) struct LockedBy<T> {
    borrowed: Cell<bool>,
    value: UnsafeCell<T>,
}

// SAFETY: `borrowed` and `value` are reached only through a `Held` of the guarding reservation
// (asserted in `borrow`), whose lock and unlock are an acquire and a release; so threads take
// turns, and `T: Send` lets the value change threads between turns.
unsafe impl<T: Send> Sync for LockedBy<T> {}

impl<T> LockedBy<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            borrowed: Cell::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Opens the cell.
    ///
    /// # Panics
    /// If `held` is not the proof for `guard`, the reservation that guards this cell, or if the
    /// cell is open already.
    #[inline]
    pub(crate) fn borrow<'a>(
        &'a self,
        held: &Held<'a>,
        guard: &super::Reservation,
    ) -> Borrowed<'a, T> {
        assert!(
            core::ptr::eq(held.reservation(), guard),
            "a cell is opened with the proof of another reservation"
        );
        assert!(!self.borrowed.get(), "a guarded cell is opened twice");
        self.borrowed.set(true);
        Borrowed { cell: self }
    }
}

/// An open cell.
pub(crate) struct Borrowed<'a, T> {
    cell: &'a LockedBy<T>,
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `borrowed` was false when this guard was made and is true until it drops, so
        // this guard is the only way to the value; its thread holds the lock (`borrow`).
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for Borrowed<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` makes the reference unique.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for Borrowed<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.borrowed.set(false);
    }
}
