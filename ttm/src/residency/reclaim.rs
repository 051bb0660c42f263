//! Getting system pages back from their objects: the one path, for whoever is short of them.
//!
//! In this order, until enough is free:
//!
//! 1. what nobody needs (`Advice::DontNeed`) is thrown away;
//! 2. idle objects of clients that have more than their share are swapped out,
//! 3. then idle objects of anybody, least recently used first;
//! 4. and, if the caller may wait, objects that a device or another transaction still uses.
//!
//! A large object gives only as many runs as are wanted. Nothing is reclaimed for the sake of long
//! runs: a source that has only short ones is taken at its word.

use core::cell::Cell;

use placement::{MemType, PageCount, PageRange};

use crate::context::{OomPolicy, OpContext};
use crate::device::DeviceCore;
use crate::error::{Error, Result, Shortage};
use crate::pages::Reclaim;
use crate::resource::Ask;
use crate::sync::Weak;

use super::hunt::{Attempt, Hunt};
use super::settle::wait_fence;
use super::suspend::with_ask;

/// One way of looking for victims.
struct Pass {
    unneeded_only: bool,
    idle_only: bool,
    fairly: bool,
}

const PASSES: [Pass; 4] = [
    Pass {
        unneeded_only: true,
        idle_only: true,
        fairly: false,
    },
    Pass {
        unneeded_only: false,
        idle_only: true,
        fairly: true,
    },
    Pass {
        unneeded_only: false,
        idle_only: true,
        fairly: false,
    },
    Pass {
        unneeded_only: false,
        idle_only: false,
        fairly: false,
    },
];

/// What one step of the relief service asks for at most: 16 MiB.
const RELIEF: PageCount = PageCount::new(4096).expect("a small count");

impl DeviceCore {
    /// Frees system pages until `wanted` fit the limit, by throwing away and swapping out. Answers
    /// false if nothing was freed.
    pub(super) fn reclaim(&self, wanted: PageCount, object: u64, ask: &Ask<'_>) -> Result<bool> {
        if self.reap() {
            return Ok(true);
        }
        let fails_fast = ask.context.oom_policy() == OomPolicy::FailFast;
        if fails_fast || wanted > self.budget.limit() {
            return Ok(false);
        }
        let before = self.budget.used();
        // Asking every object again for each victim of a hunt would give the same answer.
        let stays_dry = |dry: PageCount| before <= dry;
        if ask.dry.and_then(Cell::get).is_some_and(stays_dry) {
            return Ok(false);
        }
        let limit = self.budget.limit().saturating_sub(wanted);
        // If the limit was not what stood in the way, the source was: others have to give as much.
        let target = if before > limit {
            limit
        } else {
            before.saturating_sub(wanted)
        };
        if self.reclaim_to(target, object, ask)? || self.budget.used() < before {
            return Ok(true);
        }
        if self.wait_for_pages(ask)? {
            return Ok(true);
        }
        if let Some(dry) = ask.dry {
            dry.set(Some(before));
        }
        Ok(false)
    }

    /// Frees system pages until at most `target` are in use. Answers false if nobody had to give
    /// for that, or if it is more still.
    pub(super) fn reclaim_to(&self, target: PageCount, object: u64, ask: &Ask<'_>) -> Result<bool> {
        let room = || self.budget.used() <= target;
        if room() {
            return Ok(false);
        }
        for pass in &PASSES {
            if pass.fairly && !self.budget.has_rivals() {
                continue;
            }
            let last = !pass.idle_only;
            let ask = Ask {
                wanted_by: object,
                window: PageRange::ALL,
                idle_only: pass.idle_only,
                fairly: pass.fairly,
                until: Some(target),
                ..*ask
            };
            // What leaves TT is in SYSTEM then, with its pages.
            for mem_type in [MemType::SYSTEM, MemType::TT, MemType::SYSTEM] {
                let chained = ask.chain & 1 << mem_type.index() != 0;
                let Some(manager) = self.manager(mem_type).filter(|m| m.uses_frames()) else {
                    continue;
                };
                if chained && mem_type != MemType::SYSTEM {
                    continue;
                }
                let (claim, epoch) =
                    manager.claim(&*self.clock, ask.ticket.age(), PageRange::EMPTY);
                let hunt = Hunt::new(self, manager, &ask, &claim)
                    .gently(!last)
                    .unneeded_only(pass.unneeded_only);
                let found = hunt.until(epoch, || {
                    Ok(if room() {
                        Attempt::Done(())
                    } else {
                        Attempt::More { own_group: false }
                    })
                })?;
                if found.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(room())
    }

    /// Waits for pages that only a fence keeps. Answers false if there are none, or the caller
    /// may not wait.
    fn wait_for_pages(&self, ask: &Ask<'_>) -> Result<bool> {
        let fence = self.retired_pages.lock().oldest_fence().cloned();
        match fence {
            Some(fence) if ask.context.may_wait() => {
                wait_fence(&fence, ask)?;
                self.reap();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Remembers why the backup took no more, or that it does again.
    pub(super) fn note_refusal(&self, result: &Result<()>) {
        let mut refusal = self.refusal.lock();
        match result {
            Err(Error::Backup(source)) => *refusal = Some(format!("the backup {source}").into()),
            Err(_) => {}
            Ok(()) => *refusal = None,
        }
    }

    /// The error of a populate for which nothing more could be freed.
    pub(super) fn shortage(&self, wanted: PageCount) -> Error {
        Error::NoMemory {
            wanted,
            why: Some(Box::new(Shortage {
                limit: self.budget.limit(),
                used: self.budget.used(),
                backup: self.backup.as_ref().map(|b| (b.used(), b.limit())),
                refusal: self.refusal.lock().clone(),
            })),
        }
    }

    /// Wakes the relief service if it has something to do.
    pub(super) fn relieve(&self) {
        if !self.budget.excess().is_zero() {
            self.clock.unpark(&self.relief);
        }
    }

    /// Swaps out some of what is above the soft limit. Answers false if there is nothing to do, or
    /// it cannot be done.
    pub(super) fn swap_out_excess(&self) -> bool {
        let excess = self.budget.excess().min(RELIEF);
        !excess.is_zero() && !self.give_back(excess, false).is_zero()
    }

    /// Gives about `target` pages back on nobody's behalf. Answers how many.
    fn give_back(&self, target: PageCount, may_wait: bool) -> PageCount {
        let before = self.budget.used();
        let level = before.saturating_sub(target);
        let context = match may_wait {
            true => OpContext::new(),
            false => OpContext::new().without_waiting(),
        };
        // Whoever cannot begin or go on now is asked again; what left has left.
        let _ = with_ask(self, context, |ask| {
            self.reap();
            self.reclaim_to(level, 0, ask)
        });
        before.saturating_sub(self.budget.used())
    }
}

/// A device, as one that can give system pages back.
pub(super) struct Givers(pub(super) Weak<DeviceCore>);

impl Reclaim for Givers {
    fn count(&self) -> PageCount {
        let Some(device) = self.0.upgrade() else {
            return PageCount::ZERO;
        };
        let backup = device.backup.as_ref();
        let room = backup.map_or(PageCount::ZERO, |b| b.limit().saturating_sub(b.used()));
        device.budget.used().min(room)
    }

    fn reclaim(&self, target: PageCount, may_wait: bool) -> PageCount {
        let device = self.0.upgrade();
        device.map_or(PageCount::ZERO, |device| device.give_back(target, may_wait))
    }
}
