//! The invariants, asserted on a snapshot.
//!
//! Meant for tests, debug builds and the simulator: it takes every reservation in turn. Objects
//! that somebody holds are left out, and with them the sums that they belong to, so run it when
//! nothing is in flight to have it check everything.

use core::fmt;
use std::collections::BTreeMap;

use placement::{MemType, PageRange};

use crate::bo::{BoCore, BoState, Content, Shown};
use crate::device::DeviceCore;
use crate::reservation::{Held, Lockable, Taken};
use crate::resource::{Home, Manager};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

use super::suspend::as_bo;
use super::validate::satisfies;

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    detail: String,
}

impl Violation {
    /// The invariant's number, as in `I-05`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.detail.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Violation {}

impl From<String> for Violation {
    fn from(detail: String) -> Self {
        Self { detail }
    }
}

/// What a check has looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Objects whose state was checked.
    pub objects: usize,
    /// Objects that somebody held.
    pub busy: usize,
}

/// What the objects say of themselves, to be held against the counters.
#[derive(Default)]
struct Sums {
    held: BTreeMap<MemType, Vec<PageRange>>,
    frames: u64,
    slots: u64,
    /// Objects' pages that the device finds.
    mapped: u64,
    /// Objects that are lent to other devices.
    lent: u64,
    generations: BTreeMap<(usize, u64), u64>,
}

impl DeviceCore {
    /// Checks everything that can be checked now.
    pub(crate) fn check(&self) -> Result<Checked, Violation> {
        self.domain.check()?;
        let mut checked = Checked::default();
        let mut sums = Sums::default();
        for manager in self.managers.iter().flatten() {
            for (home, victim) in manager.residents() {
                // What is being taken down gives its space back by itself.
                let Some(bo) = victim.upgrade().and_then(as_bo) else {
                    checked.busy += 1;
                    continue;
                };
                match bo.look(manager, home, &mut sums) {
                    Some(result) => {
                        result?;
                        checked.objects += 1;
                    }
                    None => checked.busy += 1,
                }
            }
        }
        if checked.busy == 0 {
            self.check_sums(&mut sums)?;
        }
        Ok(checked)
    }

    fn check_sums(&self, sums: &mut Sums) -> Result<(), Violation> {
        for manager in self.managers.iter().flatten() {
            let held = sums.held.entry(manager.mem_type()).or_default();
            manager.check(held)?;
        }
        let retired = self.retired_pages.lock();
        for (_, tt) in retired.iter() {
            sums.frames += tt.charged().get();
            sums.slots += tt.swapped().get();
        }
        drop(retired);
        // Objects that are nowhere, or released and not yet taken down, may hold pages too.
        let used = self.budget.used().get();
        if sums.frames > used {
            return Err(format!(
                "I-03: objects hold {} frames, {used} are charged to the system limit",
                sums.frames
            )
            .into());
        }
        self.pool.check()?;
        self.ledger.check()?;
        self.budget.check()?;
        // Others' frames are out of the pool too, if it is shared; a suspend may have put by room
        // without frames.
        let (owned, put_by) = (self.pool.owned().get(), self.stash.lock().unbacked());
        let shared = Arc::strong_count(&self.pool) > 1;
        if owned + put_by < used || owned + put_by > used && !shared {
            return Err(format!(
                "I-28: {owned} frames are out of the pool, {used} charged to the system limit"
            )
            .into());
        }
        if let Some(mapper) = &self.mapper
            && mapper.live() < sums.mapped
        {
            let live = mapper.live();
            return Err(format!(
                "I-50: the device finds the pages of {} objects, and {live} are mapped for it",
                sums.mapped
            )
            .into());
        }
        let exports = self.exports.load(Ordering::Relaxed);
        if sums.lent > exports {
            return Err(format!(
                "I-54: {} objects are exported, and {exports} exports are counted",
                sums.lent
            )
            .into());
        }
        if let Some(backup) = &self.backup {
            let (in_backup, limit) = (backup.used().get(), backup.limit().get());
            if sums.slots > in_backup {
                return Err(format!(
                    "I-59: objects hold {} slots, the backup says {in_backup}",
                    sums.slots
                )
                .into());
            }
            if in_backup > limit {
                return Err(
                    format!("I-63: {in_backup} pages in the backup, its limit is {limit}").into(),
                );
            }
        }
        Ok(())
    }
}

impl BoCore {
    /// Checks one object; `None` if somebody holds it.
    fn look(
        &self,
        manager: &Arc<Manager>,
        home: Home,
        sums: &mut Sums,
    ) -> Option<Result<(), Violation>> {
        let ticket = self.device.domain.ticket().ok()?;
        let reservation = self.reservation();
        match reservation.try_lock(ticket.thread()) {
            Taken::Now => {}
            Taken::Before | Taken::No => return None,
        }
        let result = {
            let held = reservation.held(ticket.thread());
            let state = self.state(&held);
            self.check_state(&held, &state, manager, home, sums)
        };
        reservation.unlock(ticket.thread(), &self.device.domain);
        Some(result.map_err(Violation::from))
    }

    fn check_state(
        &self,
        held: &Held<'_>,
        state: &BoState,
        manager: &Arc<Manager>,
        home: Home,
        sums: &mut Sums,
    ) -> Result<(), String> {
        let id = self.id;
        let Some(resource) = &state.resource else {
            return Err(format!(
                "I-41: object {id} is listed in {} and is nowhere",
                manager.mem_type()
            ));
        };
        if !Arc::ptr_eq(resource.manager(), manager) {
            return Err(format!(
                "I-05: object {id} is listed in {} and holds space in {}",
                manager.mem_type(),
                resource.mem_type()
            ));
        }
        if resource.manager().home(resource.node()) != Some(home) {
            return Err(format!(
                "I-41: object {id} has two entries in {}",
                manager.mem_type()
            ));
        }
        let wanted = state.home();
        if home != wanted && !(wanted == Home::Ordered && home == Home::Busy) {
            return Err(format!(
                "{}: object {id} is {home:?} and should be {wanted:?}",
                if state.pins > 0 { "I-07" } else { "I-41" }
            ));
        }
        let level = manager.level(resource.node());
        if level != Some(state.level()) {
            return Err(format!(
                "I-41: object {id} is at level {level:?} and should be at {}",
                state.level()
            ));
        }
        held.fences().check()?;
        self.check_space(resource, sums)?;
        if let Some(placement) = &state.placement
            && !placement
                .places()
                .iter()
                .any(|p| satisfies(resource, p) && p.cache.is_none_or(|mode| mode == state.mode))
        {
            return Err(format!(
                "I-06: object {id} is in none of the places it was validated to"
            ));
        }
        let old = state.moving.as_ref().and_then(|m| m.old_tt.as_ref());
        let all = [state.tt.as_ref(), state.suspended.as_ref(), old];
        sums.mapped += all
            .into_iter()
            .flatten()
            .filter(|tt| self.device.is_found(tt))
            .count() as u64;
        for tt in [&state.tt, &state.suspended].into_iter().flatten() {
            tt.check(
                self.device.backup.is_some(),
                self.device.pool.offers().runs_are_free,
            )?;
            sums.frames += tt.charged().get();
            sums.slots += tt.swapped().get();
        }
        if let Some(tt) = old {
            sums.frames += tt.charged().get();
        }
        if manager.uses_frames() && self.device.lacks_mapping(state) {
            return Err(format!(
                "I-49: object {id} is in {}, and the device does not find it",
                manager.mem_type()
            ));
        }
        if manager.uses_frames()
            && let Some(tt) = &state.tt
            && tt.mode() != state.mode
        {
            let (mode, pages) = (state.mode, tt.mode());
            return Err(format!(
                "I-23: object {id} is {mode}, its pages are {pages}"
            ));
        }
        self.check_views(state)?;
        if let Some(lender) = state.lender() {
            lender.check(state)?;
            sums.lent += 1;
        }
        let populated = state.tt.as_ref().is_some_and(|tt| !tt.is_empty());
        if populated && !manager.uses_frames() {
            return Err(format!(
                "I-05: object {id} has system pages and a place in {}",
                manager.mem_type()
            ));
        }
        Ok(())
    }

    /// Nothing is shown but where the content is, and nothing while it is on its way (I-20, I-21).
    fn check_views(&self, state: &BoState) -> Result<(), String> {
        let views = state.live_views();
        if views.is_empty() {
            return Ok(());
        }
        let absent = state.moving.is_some()
            || state.suspended.is_some()
            || matches!(state.content, Content::Purged | Content::Lost);
        let shown = match absent {
            true => Shown::default(),
            false => match self.shown(state) {
                Ok(shown) => shown,
                // The host does not say now.
                Err(_) => return Ok(()),
            },
        };
        views.iter().try_for_each(|view| view.check(&shown))
    }

    fn check_space(
        &self,
        resource: &crate::resource::Resource,
        sums: &mut Sums,
    ) -> Result<(), String> {
        let ranges = resource.ranges();
        let pages: u64 = ranges.iter().map(|r| r.len().get()).sum();
        if pages != self.pages.get() {
            return Err(format!(
                "I-01: object {} holds {pages} pages of {}",
                self.id,
                self.pages.get()
            ));
        }
        for extent in resource.extents() {
            if extent.start() % self.align.get().max(1) != 0 && resource.extents().len() == 1 {
                return Err(format!("I-01: object {} is not aligned as asked", self.id));
            }
            let key = (resource.mem_type().index(), extent.generation());
            if !resource.manager().uses_frames()
                && sums
                    .generations
                    .insert(key, self.id)
                    .is_some_and(|other| other != self.id)
            {
                return Err(format!(
                    "I-18: object {} shares a generation with another",
                    self.id
                ));
            }
        }
        sums.held
            .entry(resource.mem_type())
            .or_default()
            .extend(ranges);
        Ok(())
    }
}
