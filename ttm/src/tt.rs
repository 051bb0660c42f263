//! An object's system pages: never touched, in frames, in the backup, or any mix.
//!
//! ```text
//!             populate              swap_out
//!   never ───────────────▶ frames ◀──────────▶ slots
//!     ▲                       │      populate    │
//!     └───────────────────────┴──────────────────┘
//!                    unpopulate, discard
//! ```
//!
//! Each page is in exactly one of the three states, and each change of a run of pages is whole or
//! not at all, so an interrupted swap leaves a valid mix that the next one goes on with. The
//! checksums that a swap-out writes are allocated when the frames are, so that swapping out needs
//! no memory.

mod backup;
mod checksum;

pub use backup::{Backup, SlotRun, SlotTag};

use placement::PageCount;

use crate::error::{Corrupt, Error, Result};
use crate::fault::Site;
use crate::pages::{Budget, FrameRun, FrameSpan, PageSource};

/// The longest run of frames that is taken at once, in pages: 2 MiB.
pub const RUN_PAGES: u64 = 512;

/// What a Tt needs from its device to change state.
pub(crate) struct Supply<'a> {
    pub(crate) source: &'a dyn PageSource,
    pub(crate) backup: Option<&'a dyn Backup>,
    pub(crate) budget: &'a Budget,
    /// True makes the step of that site fail.
    pub(crate) fault: &'a dyn Fn(Site) -> bool,
}

/// A run of pages in one state.
#[derive(Debug)]
enum Part {
    Never(PageCount),
    Frames(FrameRun),
    Slots(SlotRun),
}

impl Part {
    fn pages(&self) -> PageCount {
        match self {
            Self::Never(pages) => *pages,
            Self::Frames(run) => run.pages(),
            Self::Slots(run) => run.pages(),
        }
    }
}

/// The translation table of an object.
///
/// # Invariants
/// The parts cover the object's pages in order, each page once (I-05 for pages). `checksums` has
/// a place for every page as soon as one page has a frame.
#[derive(Debug)]
pub(crate) struct Tt {
    object: u64,
    pages: PageCount,
    parts: Vec<Part>,
    checksums: Vec<u32>,
    /// Counts swap-outs, so that an old copy is never taken for a new one.
    generation: u32,
}

impl Tt {
    /// Pages that were never touched. Allocates nothing to speak of.
    pub(crate) fn new(object: u64, pages: PageCount) -> Self {
        Self {
            object,
            pages,
            parts: Vec::new(),
            checksums: Vec::new(),
            generation: 0,
        }
    }

    /// Whether every page has a frame.
    pub(crate) fn is_populated(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|p| matches!(p, Part::Frames(_)))
    }

    /// Whether no page has a frame or a slot.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Never(_)))
    }

    /// Pages that have frames.
    pub(crate) fn resident(&self) -> PageCount {
        self.count(|p| matches!(p, Part::Frames(_)))
    }

    /// Pages that are in the backup.
    pub(crate) fn swapped(&self) -> PageCount {
        self.count(|p| matches!(p, Part::Slots(_)))
    }

    fn count(&self, of: impl Fn(&Part) -> bool) -> PageCount {
        let sum = self.parts.iter().filter(|p| of(p)).map(|p| p.pages().get());
        PageCount::new(sum.sum()).expect("not more than the object has")
    }

    /// The frames, in page order, with the page at which each run begins.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u64, FrameSpan)> {
        let mut at = 0;
        self.parts.iter().filter_map(move |part| {
            let first = at;
            at += part.pages().get();
            match part {
                Part::Frames(run) => Some((first, run.span())),
                _ => None,
            }
        })
    }

    /// Gives every page a frame: zeroed where there was nothing, with its content where there
    /// was a slot. Answers the pages that came back from the backup.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::Backup`], [`Error::Corrupt`]. What was done stays done; the
    /// next call goes on.
    pub(crate) fn populate(&mut self, supply: &Supply<'_>) -> Result<PageCount> {
        if self.parts.is_empty() {
            self.split()?;
        }
        if self.checksums.is_empty() {
            self.reserve_records(supply)?;
        }
        let mut back = 0;
        let mut first = 0;
        for n in 0..self.parts.len() {
            let pages = self.parts[n].pages();
            match &self.parts[n] {
                Part::Frames(_) => {}
                Part::Never(_) => self.parts[n] = Part::Frames(take_frames(supply, pages)?),
                Part::Slots(_) => {
                    self.swap_in_part(n, first, supply)?;
                    back += pages.get();
                }
            }
            first += pages.get();
        }
        Ok(PageCount::new(back).expect("not more than the object has"))
    }

    /// Cuts the object into parts of at most a run.
    fn split(&mut self) -> Result<()> {
        let runs = self.pages.get().div_ceil(RUN_PAGES);
        let no_memory = Error::NoMemory { wanted: self.pages };
        let runs = usize::try_from(runs).map_err(|_| Error::NoMemory { wanted: self.pages })?;
        self.parts.try_reserve_exact(runs).map_err(|_| no_memory)?;
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
        let no_memory = || Error::NoMemory { wanted: self.pages };
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

    fn tag(&self, first_page: u64) -> SlotTag {
        SlotTag {
            object: self.object,
            first_page,
            generation: self.generation,
        }
    }

    fn swap_in_part(&mut self, n: usize, first: u64, supply: &Supply<'_>) -> Result<()> {
        let Part::Slots(slots) = &self.parts[n] else {
            unreachable!("the caller saw slots")
        };
        let backup = supply.backup.expect("slots came from a backup");
        let run = take_frames(supply, slots.pages())?;
        let loaded = self.load_checked(slots, first, &run, backup, supply);
        if let Err(error) = loaded {
            give_frames(supply, run);
            return Err(error);
        }
        if let Part::Slots(slots) = core::mem::replace(&mut self.parts[n], Part::Frames(run)) {
            backup.discard(slots);
        }
        Ok(())
    }

    fn load_checked(
        &self,
        slots: &SlotRun,
        first: u64,
        run: &FrameRun,
        backup: &dyn Backup,
        supply: &Supply<'_>,
    ) -> Result<()> {
        if (supply.fault)(Site::BackupLoad) {
            return Err(Error::Backup("a load was made to fail".into()));
        }
        let mapped = supply.source.map(run.span())?;
        let tag = SlotTag {
            generation: slots.generation(),
            ..self.tag(first)
        };
        backup.load(slots, tag, &mapped)?;
        for page in 0..run.pages().get() {
            let expected = self.checksums[index(first + page)];
            let found = checksum::of_page(&mapped, index(page), tag.page(page));
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

    /// Moves every frame to the backup. Allocates nothing. Answers the pages that went.
    ///
    /// # Errors
    /// [`Error::Backup`] or [`Error::Unsupported`]; the pages that did not go keep their frames.
    pub(crate) fn swap_out(&mut self, supply: &Supply<'_>) -> (PageCount, Result<()>) {
        let mut gone = 0;
        let mut first = 0;
        self.generation = self.generation.wrapping_add(1);
        for n in 0..self.parts.len() {
            let pages = self.parts[n].pages().get();
            if matches!(self.parts[n], Part::Frames(_)) {
                if let Err(error) = self.swap_out_part(n, first, supply) {
                    return (
                        PageCount::new(gone).expect("part of the object"),
                        Err(error),
                    );
                }
                gone += pages;
            }
            first += pages;
        }
        (PageCount::new(gone).expect("part of the object"), Ok(()))
    }

    fn swap_out_part(&mut self, n: usize, first: u64, supply: &Supply<'_>) -> Result<()> {
        let Part::Frames(run) = &self.parts[n] else {
            unreachable!("the caller saw frames")
        };
        let Some(backup) = supply.backup else {
            return Err(Error::Unsupported(
                "swapping needs a backup; give the device one",
            ));
        };
        if (supply.fault)(Site::BackupStore) {
            return Err(Error::Backup("a store was made to fail".into()));
        }
        let mapped = supply.source.map(run.span())?;
        let tag = self.tag(first);
        for page in 0..run.pages().get() {
            self.checksums[index(first + page)] =
                checksum::of_page(&mapped, index(page), tag.page(page));
        }
        let slots = backup.store(tag, &mapped)?;
        drop(mapped);
        if let Part::Frames(run) = core::mem::replace(&mut self.parts[n], Part::Slots(slots)) {
            give_frames(supply, run);
        }
        Ok(())
    }

    /// Gives everything back; the content is gone.
    pub(crate) fn unpopulate(&mut self, supply: &Supply<'_>) {
        for part in self.parts.drain(..) {
            match part {
                Part::Never(_) => {}
                Part::Frames(run) => give_frames(supply, run),
                Part::Slots(slots) => {
                    supply
                        .backup
                        .expect("slots came from a backup")
                        .discard(slots);
                }
            }
        }
    }

    /// The invariants of the type.
    pub(crate) fn check(&self) -> core::result::Result<(), String> {
        let sum: u64 = self.parts.iter().map(|p| p.pages().get()).sum();
        if !self.parts.is_empty() && sum != self.pages.get() {
            return Err(format!(
                "I-05: object {} has {} pages, its parts {sum}",
                self.object,
                self.pages.get()
            ));
        }
        Ok(())
    }
}

fn index(page: u64) -> usize {
    usize::try_from(page).expect("populated pages are countable")
}

fn take_frames(supply: &Supply<'_>, pages: PageCount) -> Result<FrameRun> {
    if (supply.fault)(Site::Frames) {
        return Err(Error::NoMemory { wanted: pages });
    }
    supply.budget.charge(pages)?;
    supply
        .source
        .take(pages)
        .inspect_err(|_| supply.budget.uncharge(pages))
}

fn give_frames(supply: &Supply<'_>, run: FrameRun) {
    let pages = run.pages();
    supply.source.give(run);
    supply.budget.uncharge(pages);
}
