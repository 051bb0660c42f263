//! Runs on their way between frames and slots, several at once.
//!
//! While the backup moves some runs, the next is prepared: its slots are taken, its frames mapped,
//! its checksums computed. A run changes state when it has arrived, and not before.

use core::ops::Range;

use placement::PageCount;
use smallvec::SmallVec;

use crate::error::{Corrupt, Error, Result};
use crate::fault::Site;
use crate::pages::{Dirty, FrameRun, Kmap};

use super::backup::{Backup, Direction, SlotRun, SlotTag, Transfer, Transfers};
use super::populate::Refusal;
use super::{Fill, Part, Supply, Tt, checksum, index, switch};

/// Runs on their way at once at most, for a backup that would take more.
const IN_FLIGHT: usize = 16;

impl Tt {
    fn tag(&self, first_page: u64) -> SlotTag {
        SlotTag {
            object: self.object,
            first_page,
            generation: self.generation,
        }
    }

    /// Moves frames to the backup, in page order, until `enough` of what went and is on its way.
    /// Allocates nothing. No device finds any of them from now on. Answers the pages that went.
    ///
    /// # Errors
    /// [`Error::Backup`]; the pages that did not go keep their frames.
    pub(crate) fn swap_out(
        &mut self,
        backup: &dyn Backup,
        supply: &Supply<'_>,
        enough: &dyn Fn(PageCount) -> bool,
    ) -> (PageCount, Result<()>) {
        self.unmap_all();
        self.generation = self.generation.wrapping_add(1);
        let mut out = SwapOut {
            tt: self,
            supply,
            backup,
            enough,
            at: 0,
            first: 0,
            flying: Flying::new(),
            begun: 0,
        };
        backup.transfer(Direction::Out, &mut out);
        out.flying.end()
    }

    /// Brings slots back to frames, those of the pages of `range`. Answers the pages that came.
    pub(super) fn swap_in(
        &mut self,
        range: Range<u64>,
        supply: &Supply<'_>,
    ) -> (PageCount, Result<()>) {
        let wanted = |(at, part): (u64, &Part)| {
            let end = at + part.pages().get();
            matches!(part, Part::Slots(_)) && at < range.end && end > range.start
        };
        let Some(backup) = supply.backup.filter(|_| self.with_offsets().any(wanted)) else {
            return (PageCount::ZERO, Ok(()));
        };
        let mut swap = SwapIn {
            tt: self,
            supply,
            backup,
            at: 0,
            first: 0,
            wanted: range,
            flying: Flying::new(),
        };
        backup.transfer(Direction::In, &mut swap);
        swap.flying.end()
    }

    /// Compares what came back with the checksums of when it left.
    fn verify(&self, first: u64, tag: SlotTag, memory: &Kmap) -> Result<()> {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::UnverifiedLoad) {
            return Ok(());
        }
        for page in 0..memory.span().pages.get() {
            let expected = self.checksums[index(first + page)];
            let found = checksum::of_page(memory, index(page), tag.page(page));
            if expected != found {
                return Err(Error::Corrupt(Box::new(Corrupt {
                    object: self.object,
                    page: first + page,
                    expected: expected.into(),
                    found: found.into(),
                })));
            }
        }
        Ok(())
    }
}

/// Parts on their way, each with what is kept for it meanwhile, and what came of the others.
struct Flying<T> {
    parts: SmallVec<[(usize, T); IN_FLIGHT]>,
    arrived: u64,
    /// The first failure; after it no part begins.
    result: Result<()>,
}

impl<T> Flying<T> {
    fn new() -> Self {
        Self {
            parts: SmallVec::new(),
            arrived: 0,
            result: Ok(()),
        }
    }

    fn may_begin(&self) -> bool {
        self.result.is_ok() && self.parts.len() < IN_FLIGHT
    }

    /// What was kept for part `n`, which is not on its way any more.
    fn land(&mut self, n: usize) -> T {
        let at = self.parts.iter().position(|(id, _)| *id == n);
        let at = at.expect("each run is done once, after it was begun");
        self.parts.swap_remove(at).1
    }

    fn fail(&mut self, error: Error) {
        if self.result.is_ok() {
            self.result = Err(error);
        }
    }

    /// The pages that arrived, and the first failure.
    fn end(self) -> (PageCount, Result<()>) {
        debug_assert!(self.parts.is_empty(), "a backup ends with all runs done");
        let arrived = PageCount::new(self.arrived).expect("part of the object");
        (arrived, self.result)
    }
}

struct SwapOut<'a> {
    tt: &'a mut Tt,
    supply: &'a Supply<'a>,
    backup: &'a dyn Backup,
    enough: &'a dyn Fn(PageCount) -> bool,
    /// The next part, and its first page.
    at: usize,
    first: u64,
    flying: Flying<SlotRun>,
    begun: u64,
}

impl SwapOut<'_> {
    /// Takes slots for the run, maps it and notes its checksums.
    fn begin(&mut self, n: usize, first: u64) -> Result<Transfer> {
        let Part::Frames(run) = &self.tt.parts[n] else {
            unreachable!("the caller saw frames")
        };
        if (self.supply.fault)(Site::BackupStore) {
            return Err(Error::Backup("cannot store: it was made to fail".into()));
        }
        let span = run.span();
        let tag = self.tt.tag(first);
        let slots = self.backup.take(span.pages, tag)?;
        let memory = match self.supply.pool.kmap(span) {
            Ok(memory) => memory,
            Err(error) => {
                self.backup.discard(slots);
                return Err(error);
            }
        };
        for page in 0..span.pages.get() {
            self.tt.checksums[index(first + page)] =
                checksum::of_page(&memory, index(page), tag.page(page));
        }
        let transfer = Transfer {
            id: n,
            first: slots.first(),
            memory,
        };
        self.flying.parts.push((n, slots));
        Ok(transfer)
    }
}

impl Transfers for SwapOut<'_> {
    fn next(&mut self) -> Option<Transfer> {
        let begun = PageCount::new(self.begun).expect("part of the object");
        if !self.flying.may_begin() || (self.enough)(begun) {
            return None;
        }
        while self.at < self.tt.parts.len() {
            let (n, first) = (self.at, self.first);
            let pages = self.tt.parts[n].pages().get();
            self.at += 1;
            self.first += pages;
            if matches!(self.tt.parts[n], Part::Frames(_)) {
                let begun = self.begin(n, first).inspect(|_| self.begun += pages);
                return begun.map_err(|error| self.flying.fail(error)).ok();
            }
        }
        None
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        let n = transfer.id;
        drop(transfer);
        let slots = self.flying.land(n);
        if let Err(error) = result {
            // The frames stay the truth (I-62).
            self.backup.discard(slots);
            return self.flying.fail(error);
        }
        self.flying.arrived += slots.pages().get();
        let part = core::mem::replace(&mut self.tt.parts[n], Part::Slots(slots));
        if let Part::Frames(run) = part {
            self.tt.give_frames(self.supply, run);
        }
    }
}

struct SwapIn<'a> {
    tt: &'a mut Tt,
    supply: &'a Supply<'a>,
    backup: &'a dyn Backup,
    at: usize,
    first: u64,
    wanted: Range<u64>,
    /// With their first pages and their new frames.
    flying: Flying<(u64, FrameRun<Dirty>)>,
}

impl SwapIn<'_> {
    fn begin(&mut self, n: usize, first: u64) -> Result<Transfer> {
        let Part::Slots(slots) = &self.tt.parts[n] else {
            unreachable!("the caller saw slots")
        };
        if (self.supply.fault)(Site::BackupLoad) {
            return Err(Error::Backup("cannot load: it was made to fail".into()));
        }
        let (slot, pages) = (slots.first(), slots.pages());
        let taken = self.tt.take_frames(self.supply, pages, Fill::Overwritten);
        let mut run = taken.map_err(Refusal::into_error)?;
        let switched = switch(&mut [&mut run], self.tt.mode, self.supply);
        match switched.and_then(|()| self.supply.pool.kmap(run.span())) {
            Ok(memory) => {
                self.flying.parts.push((n, (first, run)));
                Ok(Transfer {
                    id: n,
                    first: slot,
                    memory,
                })
            }
            Err(error) => {
                self.tt.give_frames(self.supply, run);
                Err(error)
            }
        }
    }
}

impl Transfers for SwapIn<'_> {
    fn next(&mut self) -> Option<Transfer> {
        if !self.flying.may_begin() {
            return None;
        }
        while self.at < self.tt.parts.len() && self.first < self.wanted.end {
            let (n, first) = (self.at, self.first);
            let end = first + self.tt.parts[n].pages().get();
            self.at += 1;
            self.first = end;
            if end > self.wanted.start && matches!(self.tt.parts[n], Part::Slots(_)) {
                let begun = self.begin(n, first);
                return begun.map_err(|error| self.flying.fail(error)).ok();
            }
        }
        None
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        let n = transfer.id;
        let (first, run) = self.flying.land(n);
        let Part::Slots(slots) = &self.tt.parts[n] else {
            unreachable!("a part that is on its way stays what it is")
        };
        let arrived = result.and_then(|()| self.tt.verify(first, slots.tag(), &transfer.memory));
        drop(transfer);
        if let Err(error) = arrived {
            // The slots stay, and a retry may succeed (I-61).
            self.tt.give_frames(self.supply, run);
            return self.flying.fail(error);
        }
        self.flying.arrived += run.pages().get();
        let part = core::mem::replace(&mut self.tt.parts[n], Part::Frames(run));
        if let Part::Slots(slots) = part {
            self.backup.discard(slots);
        }
    }
}
