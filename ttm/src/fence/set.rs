//! The fences of one reservation, by what they are for.

use crate::error::{Error, Result};

use super::timeline::{Fence, FenceError, Status};

/// A few fences.
pub(crate) type FenceVec = Vec<Fence>;

/// What the work behind a fence does with the memory. A class is waited for together with all
/// stronger ones (those above it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Usage {
    /// Memory management: moves and clears. Everybody waits.
    Kernel,
    /// Writes of the content.
    Write,
    /// Reads of the content.
    Read,
    /// Anything else that must end before the memory goes to somebody else.
    Bookkeep,
}

/// At most one pending fence per timeline and usage class, with slots reserved ahead, so that
/// adding a fence after the work was queued cannot fail.
#[derive(Debug, Default)]
pub struct FenceSet {
    fences: Vec<(Fence, Usage)>,
    reserved: usize,
}

impl FenceSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for `slots` more fences. Signalled fences make room first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for zero slots, [`Error::NoMemory`] if there is none.
    #[inline]
    pub fn reserve(&mut self, slots: usize) -> Result<()> {
        if slots == 0 {
            return Err(Error::Invalid("zero fence slots reserved"));
        }
        let slots = self.reserved.max(slots);
        self.make_room(slots)?;
        self.reserved = slots;
        Ok(())
    }

    #[inline]
    fn make_room(&mut self, slots: usize) -> Result<()> {
        if self.fences.len() + slots > self.fences.capacity() {
            self.prune();
            self.fences
                .try_reserve(slots)
                .map_err(|_| Error::no_memory(placement::PageCount::ZERO))?;
        }
        Ok(())
    }

    /// Makes room for the fences of a move beside the slots that users have reserved.
    pub(crate) fn make_room_for_moves(&mut self, fences: usize) -> Result<()> {
        self.make_room(self.reserved + fences)
    }

    /// Adds the fence of a move, for which there is room beside the reserved slots.
    pub(crate) fn add_move(&mut self, fence: Fence) {
        self.reserved += 1;
        self.add(fence, Usage::Kernel);
    }

    /// Slots that are reserved and not used.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Gives unused slots up, as at the end of a transaction.
    #[inline]
    pub fn unreserve(&mut self) {
        self.reserved = 0;
    }

    /// Adds a fence. It replaces one of the same timeline that it covers and whose usage is not
    /// stronger, or a signalled one.
    ///
    /// # Panics
    /// If no slot was reserved: the work is queued already, so this may not fail.
    pub fn add(&mut self, fence: Fence, usage: Usage) {
        assert!(
            self.reserved > 0,
            "a fence is added without a reserved slot: {fence:?} {usage:?}"
        );
        self.reserved -= 1;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::DroppedFence) && usage == Usage::Kernel {
            return;
        }
        // What says no more than the new one goes first, so that one of a kind remains (I-36).
        self.fences
            .retain(|(old, class)| !(fence.covers(old) && usage <= *class));
        let says_more = |(old, class): &(Fence, Usage)| old.covers(&fence) && *class <= usage;
        if self.fences.iter().any(says_more) {
            return;
        }
        let free = |(old, _): &&mut (Fence, Usage)| old.is_signalled() && !failed(old);
        if let Some(slot) = self.fences.iter_mut().find(free) {
            *slot = (fence, usage);
            return;
        }
        self.fences.push((fence, usage));
    }

    /// The pending fences that a user of class `usage` waits for.
    pub fn waited_by(&self, usage: Usage) -> impl Iterator<Item = &Fence> {
        self.fences
            .iter()
            .filter(move |(fence, class)| *class <= usage && !fence.is_signalled())
            .map(|(fence, _)| fence)
    }

    /// Whether a user of class `usage` has nothing to wait for.
    #[inline]
    #[must_use]
    pub fn is_idle(&self, usage: Usage) -> bool {
        self.fences.is_empty() || self.waited_by(usage).next().is_none()
    }

    /// The first error among the fences of the stronger classes up to `usage`.
    #[must_use]
    pub fn error(&self, usage: Usage) -> Option<FenceError> {
        self.fences
            .iter()
            .filter(|(_, class)| *class <= usage)
            .find_map(|(fence, _)| match fence.status() {
                Status::Failed(error) => Some(error),
                _ => None,
            })
    }

    /// All fences with their classes, signalled ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&Fence, Usage)> {
        self.fences.iter().map(|(fence, usage)| (fence, *usage))
    }

    /// Whether there is no fence at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fences.is_empty()
    }

    /// Drops the fences that have signalled.
    pub fn prune(&mut self) {
        self.fences.retain(|(fence, _)| !fence.is_signalled());
    }

    /// Replaces the fences of one timeline by `fence`, as when a preempted queue is unbound.
    pub fn replace(&mut self, timeline: u64, fence: &Fence, usage: Usage) {
        for (old, old_usage) in &mut self.fences {
            if old.timeline() == timeline {
                *old = fence.clone();
                *old_usage = usage;
            }
        }
    }

    /// I-36: at most one pending fence per timeline and class.
    ///
    /// # Errors
    /// The two that are too many.
    pub fn check(&self) -> core::result::Result<(), String> {
        for (n, (a, usage_a)) in self.fences.iter().enumerate() {
            for (b, usage_b) in &self.fences[n + 1..] {
                if usage_a == usage_b
                    && a.same_timeline(b)
                    && !a.is_signalled()
                    && !b.is_signalled()
                {
                    return Err(format!("I-36: {a:?} and {b:?} of class {usage_a:?}"));
                }
            }
        }
        Ok(())
    }
}

fn failed(fence: &Fence) -> bool {
    matches!(fence.status(), Status::Failed(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Blocking, Time};
    use crate::fence::Timeline;
    use crate::sync::Arc;

    fn timeline(id: u64) -> Timeline {
        Timeline::new(id, Arc::new(Blocking::new(|| Time::ZERO)))
    }

    #[test]
    fn a_class_waits_for_itself_and_the_stronger_ones() {
        let t = timeline(1);
        let u = timeline(2);
        let mut set = FenceSet::new();
        set.reserve(2).unwrap();
        set.add(t.issue(), Usage::Write);
        set.add(u.issue(), Usage::Bookkeep);
        assert!(set.is_idle(Usage::Kernel));
        assert_eq!(set.waited_by(Usage::Write).count(), 1);
        assert_eq!(set.waited_by(Usage::Read).count(), 1);
        assert_eq!(set.waited_by(Usage::Bookkeep).count(), 2);
        t.signal(1);
        assert!(set.is_idle(Usage::Read));
    }

    #[test]
    fn a_later_point_replaces_an_earlier_one_but_never_a_stronger_class() {
        let t = timeline(1);
        let mut set = FenceSet::new();
        set.reserve(3).unwrap();
        set.add(t.issue(), Usage::Read);
        set.add(t.issue(), Usage::Write);
        assert_eq!(set.iter().count(), 1);
        set.add(t.issue(), Usage::Bookkeep);
        assert_eq!(set.iter().count(), 2);
        set.check().unwrap();
    }

    #[test]
    fn a_signalled_fence_does_not_hide_one_of_the_same_timeline_behind_it() {
        let (t, u) = (timeline(1), timeline(2));
        let mut set = FenceSet::new();
        set.reserve(2).unwrap();
        set.add(u.issue(), Usage::Kernel);
        set.add(t.issue(), Usage::Read);
        u.signal(1);
        set.reserve(1).unwrap();
        set.add(t.issue(), Usage::Read);
        set.check().unwrap();
        assert_eq!(
            set.waited_by(Usage::Read)
                .map(Fence::seqno)
                .collect::<Vec<_>>(),
            [2]
        );
    }

    #[test]
    #[should_panic(expected = "without a reserved slot")]
    fn adding_without_a_slot_is_a_bug() {
        FenceSet::new().add(timeline(1).issue(), Usage::Read);
    }

    #[test]
    fn zero_slots_are_refused() {
        assert_eq!(FenceSet::new().reserve(0).unwrap_err().to_errno(), 22);
    }
}
