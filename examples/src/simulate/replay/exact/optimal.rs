//! The offline optimum: what is needed again last leaves first (Belady).

use std::collections::BinaryHeap;

use super::{Card, Counts, DoesNotFit, groups};
use crate::args::Order;
use crate::replay::trace::Trace;
use cli::size::ByteSize;

/// The next use of what is never used again.
const NEVER: u32 = u32::MAX;

/// Counts a replay in which the object whose next use is farthest leaves first.
///
/// For objects of one size no policy that brings in every touched object misses less. For objects
/// of several sizes it is a good bound but not the optimum, which is hard to compute. Takes
/// O(log touches) time a touch.
///
/// # Errors
/// [`DoesNotFit`]: the objects of a group exceed `room`.
pub(crate) fn optimal(trace: &Trace, room: ByteSize, order: Order) -> Result<Counts, DoesNotFit> {
    let next = next_uses(trace);
    let mut card = Card::new(trace, room);
    let mut next_use = vec![NEVER; trace.objects().len()];
    // Every resident object stands here with its next use. An entry may be stale: evicted, or
    // touched since; a later touch of it pushed another.
    let mut farthest: BinaryHeap<(u32, u32)> = BinaryHeap::new();
    for group in groups(trace, order) {
        card.begin(&group)?;
        // The group's own objects are no victims: those resident stand with their use in this
        // group, nearer than any other, and those brought in are pushed after it.
        for at in group.touches.clone() {
            let object = trace.touches()[at];
            card.touch(object, || take_farthest(&mut farthest, &next_use));
        }
        for at in group.touches.clone() {
            next_use[trace.touches()[at] as usize] = next[at];
        }
        for at in group.touches.clone() {
            // The last touch in the group, if several.
            if next[at] as usize >= group.touches.end {
                farthest.push((next[at], trace.touches()[at]));
            }
        }
    }
    Ok(card.counts)
}

/// Takes the resident object with the farthest next use.
fn take_farthest(farthest: &mut BinaryHeap<(u32, u32)>, next_use: &[u32]) -> u32 {
    loop {
        let (at, object) = farthest
            .pop()
            .expect("a group that fits always leaves a victim");
        // An object touched since then has a later use; one evicted is not here a second time,
        // for each use is pushed once.
        if next_use[object as usize] == at {
            return object;
        }
    }
}

/// For each touch, the index of the next touch of the same object, or [`NEVER`].
fn next_uses(trace: &Trace) -> Vec<u32> {
    let mut next = vec![NEVER; trace.touches().len()];
    let mut last = vec![NEVER; trace.objects().len()];
    for (at, &object) in trace.touches().iter().enumerate().rev() {
        next[at] = std::mem::replace(&mut last[object as usize], at as u32);
    }
    next
}
