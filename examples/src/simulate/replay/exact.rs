//! What a replay would count at best, and under an exact policy: computed, not managed.
//!
//! Every touched object is brought in (there is no bypass), objects leave only when there is no
//! room, and the room is a number of bytes without fragmentation. [`optimal()`] knows the
//! future. For tests, `lru` is the exact least recently used policy, a reference for the manager's.
//!
//! The unit of work is a *group* of touches whose objects are resident together: one touch
//! ([`Order::Touch`]) or a whole request ([`Order::Request`]). No object of the group at hand is a
//! victim.

#[cfg(test)]
mod lru;
mod optimal;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use lru::lru;
pub(crate) use optimal::optimal;

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::trace::Trace;
use crate::args::Order;
use cli::size::ByteSize;

/// What happened in a replay. No sum overflows: [`Trace`] bounds the bytes of all touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Touches in the trace.
    pub(crate) touches: u64,
    /// Touches that found the object absent.
    pub(crate) misses: u64,
    /// Objects sent away to make room.
    pub(crate) evictions: u64,
    /// Bytes of the objects brought in.
    pub(crate) bytes_in: u64,
    /// Bytes of the objects sent away.
    pub(crate) bytes_out: u64,
}

/// The objects of one group don't fit in the room, even alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoesNotFit {
    /// The line of the trace file, from 1.
    pub(crate) line: usize,
    /// The number of different objects in the group.
    pub(crate) objects: usize,
    /// Their size together.
    pub(crate) wanted: ByteSize,
    /// The room there is.
    pub(crate) room: ByteSize,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            objects,
            wanted,
            room,
        } = self;
        let objects = match objects {
            1 => "an object".into(),
            n => format!("{n} objects together"),
        };
        write!(
            f,
            "line {line}: {objects} of {wanted} cannot fit in room for {room}"
        )
    }
}

impl std::error::Error for DoesNotFit {}

/// A run of touches whose objects are resident together.
#[derive(Clone, Debug)]
struct Group {
    line: usize,
    touches: Range<usize>,
}

/// Whether every group fits in the room, alone.
///
/// # Errors
/// [`DoesNotFit`]: the first that doesn't.
pub(crate) fn check_fits(trace: &Trace, room: ByteSize, order: Order) -> Result<(), DoesNotFit> {
    let mut card = Card::new(trace, room);
    groups(trace, order).try_for_each(|group| card.begin(&group))
}

/// All groups of a trace, in order.
fn groups(trace: &Trace, order: Order) -> impl Iterator<Item = Group> {
    let mut at = 0;
    trace.requests().flat_map(move |request| {
        let start = at;
        at += request.ids.len();
        let width = match order {
            Order::Touch => 1,
            Order::Request => request.ids.len().max(1),
        };
        (start..at).step_by(width).map(move |first| Group {
            line: request.line,
            touches: first..first + width,
        })
    })
}

/// The objects on the card and the bytes they take: what both policies share.
struct Card<'a> {
    trace: &'a Trace,
    room: ByteSize,
    used: u64,
    resident: Vec<bool>,
    counts: Counts,
    /// For each object, one more than the number of the last group that held it.
    seen: Vec<u32>,
    group: u32,
}

impl<'a> Card<'a> {
    fn new(trace: &'a Trace, room: ByteSize) -> Self {
        Self {
            trace,
            room,
            used: 0,
            resident: vec![false; trace.objects().len()],
            counts: Counts::default(),
            seen: vec![0; trace.objects().len()],
            group: 0,
        }
    }

    /// Begins a group, and fails where its objects exceed the room.
    fn begin(&mut self, group: &Group) -> Result<(), DoesNotFit> {
        self.group += 1;
        let (mut objects, mut wanted) = (0, 0);
        for &object in &self.trace.touches()[group.touches.clone()] {
            let seen = &mut self.seen[object as usize];
            if std::mem::replace(seen, self.group) != self.group {
                objects += 1;
                wanted += self.size(object);
            }
        }
        if wanted <= self.room.bytes() {
            return Ok(());
        }
        Err(DoesNotFit {
            line: group.line,
            objects,
            wanted: ByteSize(wanted),
            room: self.room,
        })
    }

    /// Counts a touch; brings the object in when absent, sending away what `victim` names.
    fn touch(&mut self, object: u32, mut victim: impl FnMut() -> u32) {
        self.counts.touches += 1;
        if self.resident[object as usize] {
            return;
        }
        let size = self.size(object);
        while self.used + size > self.room.bytes() {
            self.evict(victim());
        }
        self.resident[object as usize] = true;
        self.used += size;
        self.counts.misses += 1;
        self.counts.bytes_in += size;
    }

    fn evict(&mut self, object: u32) {
        assert!(
            self.resident[object as usize],
            "the victim {object} is absent"
        );
        assert_ne!(
            self.seen[object as usize], self.group,
            "the victim {object} is in use"
        );
        self.resident[object as usize] = false;
        self.used -= self.size(object);
        self.counts.evictions += 1;
        self.counts.bytes_out += self.size(object);
    }

    fn size(&self, object: u32) -> u64 {
        self.trace.objects()[object as usize].size.bytes()
    }
}
