//! Whether those who are attached can use the object where it is, and having it where they can.

use placement::CacheMode;

use crate::bo::{BoCore, BoState};
use crate::dma::{
    AttachOutcome, AttachRequest, AttachmentId, BusRange, Constraints, DmaAddr, DmaError, Field,
    Migration, Misfit, NoPeerPath, PeerPath, Storage, StorageKind,
};
use crate::error::{Error, Result};
use crate::reservation::Held;
use crate::resource::Ask;

use super::borrower::Borrower;
use super::lender::{Lender, empty, incompatible};

/// The object, reserved.
pub(super) struct Open<'a> {
    pub(super) bo: &'a BoCore,
    pub(super) held: &'a Held<'a>,
    pub(super) state: &'a mut BoState,
    pub(super) ask: &'a Ask<'a>,
}

impl Open<'_> {
    /// What the object is in, all of it, at those addresses if they are known.
    fn storage(&self, known: Option<Vec<BusRange>>) -> Result<Storage> {
        let kind = match self.state.has_frames() {
            true => StorageKind::Ram,
            false => StorageKind::DeviceMemory,
        };
        // Where it is not known, each is refused by its own mapper, if it must be.
        let unknown = || {
            let addr = DmaAddr::new(0).expect("not the last address");
            let len = self.bo.pages.bytes();
            vec![BusRange { addr, len }]
        };
        let storage = Storage::new(kind, &known.unwrap_or_else(unknown))?;
        Ok(storage.cached(self.state.mode))
    }

    /// Attaches somebody.
    ///
    /// # Errors
    /// [`DmaError::AttachIncompatible`], [`DmaError::NeedsMigration`], and those of moving.
    pub(super) fn attach(
        &mut self,
        lender: &Lender,
        request: &AttachRequest<'_>,
        migrates: bool,
    ) -> Result<AttachmentId> {
        for round in [0, 1] {
            let outcome = lender.with(|inner| {
                if !inner.solver.is_used() {
                    // It goes where all can use it when it is mapped next.
                    inner.solver.vacate();
                }
                inner.solver.attach(request)
            });
            match outcome {
                AttachOutcome::Fits(id) => return Ok(id),
                AttachOutcome::Incompatible {
                    field,
                    have,
                    want,
                    held_by,
                } => {
                    let held_by = lender.names(&held_by);
                    return Err(incompatible(field, have, want, held_by).into());
                }
                AttachOutcome::MigrateFirst(plan) if round == 0 => {
                    if !migrates {
                        return Err(needs_migration(lender, &plan).into());
                    }
                    self.suit(&plan.to)?;
                }
                AttachOutcome::MigrateFirst(plan) => return Err(unfit(&plan.because).into()),
            }
        }
        unreachable!("the second round answers")
    }

    /// Has all of the object in memory that everybody attached can use, if nobody uses it yet. Who
    /// uses it has it there already.
    ///
    /// # Errors
    /// [`DmaError::PeerNotReachable`], [`DmaError::AttachIncompatible`] if it is pinned elsewhere, or
    /// there is no such memory; those of moving and populating.
    pub(super) fn fit(&mut self, borrower: &Borrower) -> Result<()> {
        let lender = &*borrower.lender;
        if lender.with(|inner| inner.solver.is_used()) {
            return self.bo.populate_to_lend(self.state, self.ask);
        }
        let wanted = lender.with(|inner| inner.solver.wanted()).map_err(empty)?;
        if self.state.has_frames() {
            let fresh = self.state.tt.as_ref().is_none_or(|tt| tt.is_empty());
            if fresh && needs_low(self.bo, &wanted) {
                self.bo.come_low(self.held, self.state, self.ask)?;
            }
            self.bo.populate_to_lend(self.state, self.ask)?;
        }
        for last in [false, false, true] {
            let address = |span| lender.exporter.address(span);
            let known = self.bo.bus_ranges(self.state, &address);
            let device_memory = !self.state.has_frames();
            if known.is_none() && device_memory {
                self.leave_device_memory(borrower, &wanted)?;
                continue;
            }
            if known.is_none() && self.may_be_too_high(&wanted) {
                self.bo.come_low(self.held, self.state, self.ask)?;
                continue;
            }
            let storage = self.storage(known)?;
            match lender.with(|inner| inner.solver.settle(storage)) {
                Ok(()) => return Ok(()),
                Err(misfit) if device_memory && misfit.field == Field::Storage => {
                    self.leave_device_memory(borrower, &wanted)?;
                }
                Err(misfit) if last || self.state.pins > 0 => {
                    return Err(unfit(&misfit).into());
                }
                Err(_) => self.suit(&wanted)?,
            }
        }
        Err(unreachable_by(borrower.peer).into())
    }

    /// Has the object come to system memory, for who does not reach it in a device's.
    fn leave_device_memory(&mut self, borrower: &Borrower, wanted: &Constraints) -> Result<()> {
        if self.state.pins > 0 {
            return Err(unreachable_by(borrower.peer).into());
        }
        self.come_to_frames(mode_of(wanted, CacheMode::Cached), wanted)
    }

    /// Whether frames that are nobody knows where have to be low, and can come there.
    fn may_be_too_high(&self, wanted: &Constraints) -> bool {
        needs_low(self.bo, wanted) && !self.bo.lies_low() && self.state.pins == 0
    }

    /// Moves the object to memory like that, as far as this crate knows how.
    fn suit(&mut self, wanted: &Constraints) -> Result<()> {
        let mode = mode_of(wanted, self.mode_in_frames());
        self.come_to_frames(mode, wanted)
    }

    fn mode_in_frames(&self) -> CacheMode {
        match self.state.has_frames() {
            true => self.state.mode,
            false => CacheMode::Cached,
        }
    }

    fn come_to_frames(&mut self, mode: Option<CacheMode>, wanted: &Constraints) -> Result<()> {
        let Self {
            bo,
            held,
            state,
            ask,
        } = self;
        if needs_low(bo, wanted) {
            // Before it has frames, if it has none: then none are moved twice.
            bo.come_low(held, state, ask)?;
        }
        bo.come_to_frames(held, state, mode, ask)?;
        bo.populate_to_lend(state, ask)
    }
}

/// Whether system pages have to be from the zone DMA32: the limit leaves something out, and that zone
/// is within it.
fn needs_low(bo: &BoCore, wanted: &Constraints) -> bool {
    let limit = wanted.limit.last();
    limit != u64::MAX && bo.low_zone_last().is_some_and(|last| last <= limit)
}

/// The mode to have: the one that there is, or else the first that all can use.
fn mode_of(wanted: &Constraints, now: CacheMode) -> Option<CacheMode> {
    match wanted.caching.contains(now) {
        true => None,
        false => wanted.caching.iter().next(),
    }
}

/// The error of device memory that is not reached by that path.
fn unreachable_by(peer: Option<PeerPath>) -> DmaError {
    let reason = match peer {
        Some(PeerPath::NotSupported { reason }) => reason,
        _ => NoPeerPath::NoProvider,
    };
    DmaError::PeerNotReachable { reason }
}

fn needs_migration(lender: &Lender, plan: &Migration) -> DmaError {
    DmaError::NeedsMigration {
        field: plan.because.field,
        have: Box::new(plan.because.have),
        want: Box::new(plan.because.want),
        unmap: lender.names(&plan.unmap).into(),
    }
}

fn unfit(misfit: &Misfit) -> DmaError {
    incompatible(misfit.field, misfit.have, misfit.want, Vec::new())
}

/// What somebody can use who reaches the object by that path: without one, no device memory.
pub(super) fn reaching(constraints: Constraints, peer: Option<PeerPath>) -> Result<Constraints> {
    if peer.is_some_and(PeerPath::is_supported) {
        return Ok(constraints);
    }
    let framed = |kind| kind != StorageKind::DeviceMemory;
    let storage = constraints.storage.filter(framed);
    if storage.is_empty() {
        return Err(unreachable_by(peer).into());
    }
    Ok(Constraints {
        storage,
        ..constraints
    })
}

/// Whether the caller went wrong in which object he reserved.
pub(super) fn same(yes: bool) -> Result<()> {
    match yes {
        true => Ok(()),
        false => Err(Error::Invalid(
            "another object is reserved than the one that is attached",
        )),
    }
}
