//! Frames for pages that have none.

use core::ops::Range;

use placement::PageCount;

use crate::error::{Error, Result};
use crate::fault::Site;
use crate::pages::{Dirty, FrameKind, FrameRun, Want};

use super::{Fill, Part, RUN_PAGES, Supply, Tt};

impl Tt {
    /// Gives the pages of `range`, and those that share a run with them, frames: as `fresh` says
    /// where there was nothing (none, without it), with their content where there was a slot.
    /// Answers the pages that came back from the backup.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::Backup`], [`Error::Corrupt`], and those of switching the mode.
    /// What was done stays done; the next call goes on.
    pub(crate) fn populate_range(
        &mut self,
        range: Range<u64>,
        fresh: Option<Fill>,
        supply: &Supply<'_>,
    ) -> Result<PageCount> {
        if self.parts.is_empty() {
            self.split()?;
        }
        if self.checksums.is_empty() {
            self.reserve_records(supply)?;
        }
        // The backup knows every part before it has a frame that may have to go.
        self.prepare_backup(supply)?;
        let fresh = match fresh {
            Some(fill) => self.populate_untouched(&range, supply, fill),
            None => Ok(()),
        };
        if let Err(error) = self.apply_mode(supply) {
            self.give_back_unswitched(supply);
            return Err(error);
        }
        fresh?;
        let (back, result) = self.swap_in(range, supply);
        result.map(|()| back)
    }

    /// Gives frames back that could not have the table's mode. They are fresh, so nothing is lost:
    /// whatever has content had the mode before.
    fn give_back_unswitched(&mut self, supply: &Supply<'_>) {
        for n in 0..self.parts.len() {
            if matches!(&self.parts[n], Part::Frames(run) if run.kind().mode != self.mode) {
                let never = Part::Never(self.parts[n].pages());
                if let Part::Frames(run) = core::mem::replace(&mut self.parts[n], never) {
                    self.give_frames(supply, run);
                }
            }
        }
    }

    fn populate_untouched(
        &mut self,
        range: &Range<u64>,
        supply: &Supply<'_>,
        fill: Fill,
    ) -> Result<()> {
        let (mut n, mut at) = (0, 0);
        while n < self.parts.len() && at < range.end {
            let pages = self.parts[n].pages();
            if at + pages.get() > range.start && matches!(self.parts[n], Part::Never(_)) {
                match self.take_frames(supply, pages, fill) {
                    Ok(run) => self.parts[n] = Part::Frames(run),
                    // Luck decides whether real addresses adjoin; nobody is evicted for that.
                    Err(Refusal::Source(Error::NoMemory { .. }))
                        if pages.get() > 1 && !supply.pool.offers().runs_are_free =>
                    {
                        self.halve(n, pages, supply)?;
                        continue;
                    }
                    Err(refusal) => return Err(refusal.into_error()),
                }
            }
            at += pages.get();
            n += 1;
        }
        Ok(())
    }

    /// Cuts an untouched part in two; the parts behind it are tried whole.
    fn halve(&mut self, n: usize, pages: PageCount, supply: &Supply<'_>) -> Result<()> {
        let order = crate::pages::order_of(pages);
        let half = PageCount::new(1 << (order - 1)).expect("less than the part");
        let rest = pages.saturating_sub(half);
        self.parts
            .try_reserve(1)
            .map_err(|_| Error::no_memory(self.pages))?;
        if let Some(backup) = supply.backup {
            backup.prepare(1)?;
            self.prepared += 1;
        }
        self.parts[n] = Part::Never(half);
        self.parts.insert(n + 1, Part::Never(rest));
        Ok(())
    }

    /// Cuts the object into parts of at most a run.
    fn split(&mut self) -> Result<()> {
        let no_memory = || Error::no_memory(self.pages);
        let runs =
            usize::try_from(self.pages.get().div_ceil(RUN_PAGES)).map_err(|_| no_memory())?;
        self.parts
            .try_reserve_exact(runs)
            .map_err(|_| no_memory())?;
        let mut left = self.pages.get();
        while left > 0 {
            let pages = left.min(RUN_PAGES);
            self.parts.push(Part::Never(
                PageCount::new(pages).expect("part of the object"),
            ));
            left -= pages;
        }
        Ok(())
    }

    fn reserve_records(&mut self, supply: &Supply<'_>) -> Result<()> {
        let no_memory = || Error::no_memory(self.pages);
        let pages = usize::try_from(self.pages.get()).map_err(|_| no_memory())?;
        if (supply.fault)(Site::Records) {
            return Err(no_memory());
        }
        if supply.backup.is_none() {
            return Ok(());
        }
        let mut checksums = Vec::new();
        checksums
            .try_reserve_exact(pages)
            .map_err(|_| no_memory())?;
        checksums.resize(pages, 0);
        self.checksums = checksums;
        Ok(())
    }

    fn prepare_backup(&mut self, supply: &Supply<'_>) -> Result<()> {
        if let Some(backup) = supply.backup
            && self.prepared < self.parts.len()
        {
            backup.prepare(self.parts.len() - self.prepared)?;
            self.prepared = self.parts.len();
        }
        Ok(())
    }

    pub(super) fn take_frames(
        &self,
        supply: &Supply<'_>,
        pages: PageCount,
        fill: Fill,
    ) -> Result<FrameRun<Dirty>, Refusal> {
        if (supply.fault)(Site::Frames) {
            return Err(Refusal::Budget(Error::no_memory(pages)));
        }
        let client = self.client.as_ref();
        let stashed = supply.stash.and_then(|stash| stash.lock().take(pages));
        match stashed {
            Some(stashed) => {
                supply.budget.assign(pages, client);
                if let Some(run) = stashed {
                    return Ok(run.dirtied());
                }
            }
            None => supply
                .budget
                .charge(pages, client)
                .map_err(Refusal::Budget)?,
        }
        let want = Want {
            pages,
            kind: FrameKind {
                zone: supply.zone,
                node: supply.node,
                mode: self.mode,
            },
        };
        let taken = match fill {
            Fill::Zeroes => supply.pool.take_unswitched(&want).map(FrameRun::dirtied),
            Fill::Overwritten => supply.pool.take_to_overwrite(&want),
        };
        taken.map_err(|error| {
            supply.budget.uncharge(pages, client);
            Refusal::Source(error)
        })
    }
}

/// Who has no frames.
pub(super) enum Refusal {
    /// The limit.
    Budget(Error),
    /// The source.
    Source(Error),
}

impl Refusal {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Budget(error) | Self::Source(error) => error,
        }
    }
}
