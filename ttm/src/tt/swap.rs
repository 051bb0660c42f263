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
    /// Allocates nothing. Answers the pages that went.
    ///
    /// # Errors
    /// [`Error::Backup`] or [`Error::Unsupported`]; the pages that did not go keep their frames.
    pub(crate) fn swap_out(
        &mut self,
        supply: &Supply<'_>,
        enough: &dyn Fn(PageCount) -> bool,
    ) -> (PageCount, Result<()>) {
        let Some(backup) = supply.backup else {
            let why = "swapping needs a backup; give the device one";
            return (PageCount::ZERO, Err(Error::Unsupported(why)));
        };
        self.generation = self.generation.wrapping_add(1);
        let mut out = SwapOut {
            tt: self,
            supply,
            backup,
            enough,
            at: 0,
            first: 0,
            flying: SmallVec::new(),
            begun: 0,
            gone: 0,
            result: Ok(()),
        };
        backup.transfer(Direction::Out, &mut out);
        debug_assert!(out.flying.is_empty(), "a backup ends with all runs done");
        let gone = PageCount::new(out.gone).expect("part of the object");
        (gone, out.result)
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
            flying: SmallVec::new(),
            back: 0,
            result: Ok(()),
        };
        backup.transfer(Direction::In, &mut swap);
        debug_assert!(swap.flying.is_empty(), "a backup ends with all runs done");
        let back = PageCount::new(swap.back).expect("part of the object");
        (back, swap.result)
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

struct SwapOut<'a> {
    tt: &'a mut Tt,
    supply: &'a Supply<'a>,
    backup: &'a dyn Backup,
    enough: &'a dyn Fn(PageCount) -> bool,
    /// The next part, and its first page.
    at: usize,
    first: u64,
    /// Parts on their way, with their slots.
    flying: SmallVec<[(usize, SlotRun); IN_FLIGHT]>,
    begun: u64,
    gone: u64,
    result: Result<()>,
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
        self.flying.push((n, slots));
        Ok(transfer)
    }
}

impl Transfers for SwapOut<'_> {
    fn next(&mut self) -> Option<Transfer> {
        let begun = PageCount::new(self.begun).expect("part of the object");
        if self.result.is_err() || self.flying.len() == IN_FLIGHT || (self.enough)(begun) {
            return None;
        }
        while self.at < self.tt.parts.len() {
            let (n, first) = (self.at, self.first);
            let pages = self.tt.parts[n].pages().get();
            self.at += 1;
            self.first += pages;
            if matches!(self.tt.parts[n], Part::Frames(_)) {
                let begun = self.begin(n, first);
                return match begun {
                    Ok(transfer) => {
                        self.begun += pages;
                        Some(transfer)
                    }
                    Err(error) => {
                        self.result = Err(error);
                        None
                    }
                };
            }
        }
        None
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        let n = transfer.id;
        drop(transfer);
        let at = self.flying.iter().position(|(id, _)| *id == n);
        let (_, slots) = self
            .flying
            .swap_remove(at.expect("each run is done once, after it was begun"));
        if let Err(error) = result {
            // The frames stay the truth (I-62).
            self.backup.discard(slots);
            if self.result.is_ok() {
                self.result = Err(error);
            }
            return;
        }
        self.gone += slots.pages().get();
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
    /// Parts on their way: number, first page, frames.
    flying: SmallVec<[(usize, u64, FrameRun<Dirty>); IN_FLIGHT]>,
    back: u64,
    result: Result<()>,
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
                self.flying.push((n, first, run));
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
        if self.result.is_err() || self.flying.len() == IN_FLIGHT {
            return None;
        }
        while self.at < self.tt.parts.len() && self.first < self.wanted.end {
            let (n, first) = (self.at, self.first);
            let end = first + self.tt.parts[n].pages().get();
            self.at += 1;
            self.first = end;
            if end > self.wanted.start && matches!(self.tt.parts[n], Part::Slots(_)) {
                return match self.begin(n, first) {
                    Ok(transfer) => Some(transfer),
                    Err(error) => {
                        self.result = Err(error);
                        None
                    }
                };
            }
        }
        None
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        let n = transfer.id;
        let at = self.flying.iter().position(|(id, ..)| *id == n);
        let (_, first, run) = self
            .flying
            .swap_remove(at.expect("each run is done once, after it was begun"));
        let Part::Slots(slots) = &self.tt.parts[n] else {
            unreachable!("a part that is on its way stays what it is")
        };
        let arrived = result.and_then(|()| self.tt.verify(first, slots.tag(), &transfer.memory));
        drop(transfer);
        if let Err(error) = arrived {
            // The slots stay, and a retry may succeed (I-61).
            self.tt.give_frames(self.supply, run);
            if self.result.is_ok() {
                self.result = Err(error);
            }
            return;
        }
        self.back += run.pages().get();
        let part = core::mem::replace(&mut self.tt.parts[n], Part::Frames(run));
        if let Part::Slots(slots) = part {
            self.backup.discard(slots);
        }
    }
}
