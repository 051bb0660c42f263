//! One reservation, held for the length of a scope.

use super::domain::Ticket;
use super::lock::{Held, Reservation, Taken};

/// A reservation that was taken beside a transaction's own, or found in its hands.
pub(crate) struct Guard<'a> {
    reservation: &'a Reservation,
    ticket: Ticket<'a>,
    took: bool,
}

impl<'a> Guard<'a> {
    /// Takes `reservation` if it is free, or is held by this thread already.
    pub(crate) fn try_take(reservation: &'a Reservation, ticket: Ticket<'a>) -> Option<Self> {
        match reservation.try_lock(ticket.thread()) {
            Taken::Now => Some(Self::of(reservation, ticket, true)),
            Taken::Before => Some(Self::of(reservation, ticket, false)),
            Taken::No => None,
        }
    }

    /// Wraps a reservation that this thread holds; releases it on drop if it `took` it.
    pub(crate) const fn of(reservation: &'a Reservation, ticket: Ticket<'a>, took: bool) -> Self {
        Self {
            reservation,
            ticket,
            took,
        }
    }

    /// The proof, for as long as the guard lives.
    pub(crate) fn held(&self) -> Held<'_> {
        self.reservation.held(self.ticket.thread())
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.took {
            self.reservation
                .unlock(self.ticket.thread(), self.ticket.domain);
        }
    }
}
