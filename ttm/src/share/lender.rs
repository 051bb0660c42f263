//! What all exports of an object have in common: who is attached, and what the exporter says.

use std::collections::BTreeMap;

use placement::PAGE_SIZE;

use crate::bo::{BoCore, BoState};
use crate::dma::{AttachmentId, Bound, DmaAddr, DmaError, Empty, Field, MappedList, Solver};
use crate::pages::FrameSpan;
use crate::sync::{Arc, Mutex, Weak};

use super::AttachInfo;
use super::borrower::Borrower;

/// What the driver of an exported object says. The answers of `()` are those of who has no opinion.
pub trait Exporter: Send + Sync {
    /// Whether somebody may attach. No lock of this crate is held.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, borrower: &AttachInfo) -> Result<(), String> {
        let _ = borrower;
        Ok(())
    }

    /// Where frames lie on the bus, one after the other; none if that is not known. Without it, what
    /// borrowers reach of system memory is found out when they map it. Called under the reservation.
    fn address(&self, frames: FrameSpan) -> Option<DmaAddr> {
        let _ = frames;
        None
    }
}

impl Exporter for () {}

/// What is done with an exported object at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShareCounts {
    /// Attachments.
    pub attached: u64,
    /// Those that have it mapped.
    pub mapped: u64,
    /// Pins of attachments.
    pub pinned: u64,
    /// Imports by other devices.
    pub imports: u64,
    /// Brackets of the CPU that are open.
    pub brackets: u64,
}

/// The part of an export that has no types.
pub(super) struct Lender {
    pub(super) exporter: Arc<dyn Exporter>,
    /// The most pins of attachments.
    pub(super) most_pins: u32,
    inner: Mutex<Inner>,
}

/// A leaf of the lock order.
pub(super) struct Inner {
    pub(super) solver: Solver,
    pub(super) attached: BTreeMap<AttachmentId, Weak<Borrower>>,
    pub(super) pins: u32,
    pub(super) imports: u64,
    pub(super) brackets: u64,
}

impl Lender {
    pub(super) fn new(solver: Solver, exporter: Arc<dyn Exporter>, most_pins: u32) -> Arc<Self> {
        Arc::new(Self {
            exporter,
            most_pins,
            inner: Mutex::new(Inner {
                solver,
                attached: BTreeMap::new(),
                pins: 0,
                imports: 0,
                brackets: 0,
            }),
        })
    }

    /// Runs `f` with what the lock guards. It calls nothing foreign.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock())
    }

    /// Those attached, each kept alive.
    pub(super) fn borrowers(&self) -> Vec<Arc<Borrower>> {
        self.with(|inner| inner.attached.values().filter_map(Weak::upgrade).collect())
    }

    /// Their names.
    pub(super) fn names(&self, ids: &[AttachmentId]) -> Vec<String> {
        let all = self.borrowers();
        let named = |id: &AttachmentId| all.iter().find(|b| b.id == *id).map(|b| b.name.clone());
        ids.iter().filter_map(named).collect()
    }

    pub(super) fn counts(&self) -> ShareCounts {
        self.with(|inner| {
            let uses = |id: &AttachmentId| inner.solver.uses(*id).unwrap_or_default();
            let mapped = inner.attached.keys().filter(|id| uses(id).0 > 0).count();
            ShareCounts {
                attached: inner.attached.len() as u64,
                mapped: mapped as u64,
                pinned: u64::from(inner.pins),
                imports: inner.imports,
                brackets: inner.brackets,
            }
        })
    }

    /// I-54 and I-55, of an object in that state.
    pub(super) fn check(&self, bo: &BoCore, state: &BoState) -> Result<(), String> {
        let mut needed = 0;
        let (pins, brackets) = self.with(|inner| (inner.pins, inner.brackets));
        let mut pinned = 0;
        for borrower in self.borrowers() {
            let use_of = borrower.in_use();
            let (name, object) = (&borrower.name, bo.id);
            if let Some((list, lease)) = &use_of.lent {
                check_list(bo, state, list, lease)
                    .map_err(|what| format!("I-55: {name} has object {object}, and {what}"))?;
            }
            let (mapped, pins) = self
                .with(|inner| inner.solver.uses(borrower.id))
                .unwrap_or((0, 0));
            if (mapped > 0) != use_of.lent.is_some() || pins != use_of.pinned {
                return Err(format!(
                    "I-54: {name} of object {object} is counted {mapped} mapped and {pins} pinned, \
                     and has {use_of:?}"
                ));
            }
            pinned += use_of.pinned;
            needed += u64::from(use_of.pinned) + u64::from(use_of.keeps);
        }
        if pinned != pins {
            return Err(format!(
                "I-54: attachments of object {} have {pinned} pins, {pins} are counted",
                bo.id
            ));
        }
        if needed + brackets > u64::from(state.pins) {
            return Err(format!(
                "I-55: object {} is needed where it is by {needed} and {brackets} brackets, and \
                 pinned {} times",
                bo.id, state.pins
            ));
        }
        Ok(())
    }
}

fn check_list(
    bo: &BoCore,
    state: &BoState,
    list: &Arc<MappedList>,
    lease: &Arc<crate::tt::Lease>,
) -> Result<(), String> {
    if list.bytes() != bo.pages.get() * PAGE_SIZE {
        return Err(format!("its list has {} bytes", list.bytes()));
    }
    if state.has_frames() {
        let tt = state.tt.as_ref();
        let lent = tt.and_then(|tt| tt.list_lent(lease));
        return match lent.is_some_and(|lent| Arc::ptr_eq(lent, list)) {
            true => Ok(()),
            false => Err("its list is not of the object's frames".into()),
        };
    }
    let ranges = bo.bus_ranges(state, &|_| None).unwrap_or_default();
    let (mut found, mut at) = (list.dma_segments().iter(), 0);
    let mut rest = 0;
    for range in &ranges {
        let mut start = range.addr.get();
        let mut left = range.len;
        while left > 0 {
            if rest == 0 {
                let Some(segment) = found.next() else {
                    return Err("its list ends before the object".into());
                };
                (at, rest) = (segment.addr.get(), segment.len);
            }
            if at != start {
                return Err(format!("its list has {at:#x} for {start:#x}"));
            }
            let step = rest.min(left);
            (at, start, rest, left) = (at + step, start + step, rest - step, left - step);
        }
    }
    match rest == 0 && found.next().is_none() {
        true => Ok(()),
        false => Err("its list goes on where the object ends".into()),
    }
}

/// The error of what a solver refuses.
pub(super) fn empty(empty: Empty) -> DmaError {
    incompatible(empty.field, empty.ours, empty.theirs, Vec::new())
}

/// The error of what there is and what is wanted, and of who keeps it so.
pub(super) fn incompatible(
    field: Field,
    have: Bound,
    want: Bound,
    held_by: Vec<String>,
) -> DmaError {
    DmaError::AttachIncompatible {
        field,
        have: Box::new(have),
        want: Box::new(want),
        held_by: held_by.into(),
    }
}
