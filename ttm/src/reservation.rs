//! Reservations: the locks of objects, taken by many at a time, without deadlock.
//!
//! A [`Reservation`] is one word and a [`FenceSet`](crate::fence::FenceSet). A transaction takes
//! as many as it likes, in any order, under one *ticket*. Uncontended, taking one is a single
//! compare-and-swap and touches nothing that other transactions touch.
//!
//! Only a conflict makes tickets meet, in the [`Domain`] of the device: the first conflict gives
//! both their *age*. A transaction that finds a lock held by a younger one *wounds* it: should the
//! younger one ever have to wait, it gets [`Error::Deadlock`](crate::Error::Deadlock) instead,
//! releases everything, waits for the lock that it lost, and starts again with its old age. So the
//! oldest never backs off, every transaction becomes the oldest in the end, and nobody waits in a
//! circle (I-44…I-48).
//!
//! What a reservation guards sits in a [`LockedBy`], which opens only to the [`Held`] of that
//! very reservation.

mod domain;
mod guard;
mod lock;
mod locked_by;
mod transaction;

pub(crate) use domain::Ticket;
pub(crate) use domain::{Domain, Released, Waited};
pub(crate) use guard::Guard;
pub use lock::Reservation;
pub(crate) use lock::{Held, Taken};
pub(crate) use locked_by::{Borrowed, LockedBy};
pub(crate) use transaction::{Lockable, Member, Terms, Transaction, wait_lock};
