//! The exact least recently used policy, as a doubly linked list in two arrays.

use super::{Card, Counts, DoesNotFit, groups};
use crate::args::Order;
use crate::replay::trace::Trace;
use cli::size::ByteSize;

/// Counts a replay in which the object touched longest ago leaves first.
///
/// After a group, recency is in the order of its touches. Takes constant time a touch.
///
/// # Errors
/// [`DoesNotFit`]: the objects of a group exceed `room`.
pub(crate) fn lru(trace: &Trace, room: ByteSize, order: Order) -> Result<Counts, DoesNotFit> {
    let mut card = Card::new(trace, room);
    let mut list = List::new(trace.objects().len());
    for group in groups(trace, order) {
        card.begin(&group)?;
        let touches = &trace.touches()[group.touches];
        // Off the list, the group's objects are no victims while the others come in.
        for &object in touches {
            list.unlink(object);
        }
        for &object in touches {
            card.touch(object, || list.take_oldest());
            list.unlink(object);
            list.push_newest(object);
        }
    }
    Ok(card.counts)
}

/// A circle of objects through a head, oldest first. An object linked to itself is off the list.
struct List {
    /// The index of the head, one past the last object.
    head: u32,
    newer: Vec<u32>,
    older: Vec<u32>,
}

impl List {
    fn new(objects: usize) -> Self {
        let alone: Vec<u32> = (0..=objects as u32).collect();
        Self {
            head: objects as u32,
            newer: alone.clone(),
            older: alone,
        }
    }

    /// Takes an object off the list, or does nothing where it is off.
    fn unlink(&mut self, object: u32) {
        let (older, newer) = (self.older[object as usize], self.newer[object as usize]);
        self.newer[older as usize] = newer;
        self.older[newer as usize] = older;
        self.newer[object as usize] = object;
        self.older[object as usize] = object;
    }

    fn push_newest(&mut self, object: u32) {
        let newest = self.older[self.head as usize];
        self.newer[newest as usize] = object;
        self.older[object as usize] = newest;
        self.newer[object as usize] = self.head;
        self.older[self.head as usize] = object;
    }

    fn take_oldest(&mut self) -> u32 {
        let oldest = self.newer[self.head as usize];
        assert_ne!(
            oldest, self.head,
            "a group that fits always leaves a victim"
        );
        self.unlink(oldest);
        oldest
    }
}
