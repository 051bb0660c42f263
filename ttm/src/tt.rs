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
//! not at all, so an interrupted swap leaves a valid mix that the next one goes on with. What a
//! swap-out needs (checksums, room in the backup's tables) is allocated when the frames are, so
//! that swapping out needs no memory. All frames have the mode of the table; those that cannot have
//! it are not kept.

mod backup;
mod checksum;
mod dma;
mod populate;
mod stash;
mod swap;

pub(crate) use dma::Lease;
pub(crate) use stash::Stash;

pub use backup::{Backup, Direction, SlotRun, SlotTag, Transfer, Transfers};

use placement::{CacheMode, PageCount};
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::fault::Site;
use crate::pages::{Budget, Client, Dirty, FrameRun, FrameSpan, Pool, Zone};
use crate::sync::{Arc, Mutex};

use dma::Reached;

/// The longest run of frames that is taken, or swapped, at once, in pages: 2 MiB.
pub const RUN_PAGES: u64 = 512;

/// What a Tt needs from its device to change state.
pub(crate) struct Supply<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) backup: Option<&'a dyn Backup>,
    pub(crate) budget: &'a Budget,
    /// Where frames have to be.
    pub(crate) zone: Zone,
    pub(crate) node: u8,
    /// Frames that this operation may use before all others.
    pub(crate) stash: Option<&'a Mutex<Stash>>,
    /// True makes the step of that site fail.
    pub(crate) fault: &'a dyn Fn(Site) -> bool,
}

/// A run of pages in one state.
#[derive(Debug)]
enum Part {
    Never(PageCount),
    Frames(FrameRun<Dirty>),
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

/// What becomes of every byte of frames before anybody reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// They have to be zero.
    Zeroes,
    /// Their taker overwrites them all.
    Overwritten,
}

/// The translation table of an object.
///
/// # Invariants
/// The parts cover the object's pages in order, each page once (I-05 for pages). `checksums` has
/// a place for every page, and the backup is prepared for every part, as soon as one page has a
/// frame and there is a backup.
#[derive(Debug)]
pub(crate) struct Tt {
    object: u64,
    client: Option<Arc<Client>>,
    pages: PageCount,
    mode: CacheMode,
    parts: Vec<Part>,
    checksums: Vec<u32>,
    /// Parts that the backup is prepared for.
    prepared: usize,
    /// Counts swap-outs, so that an old copy is never taken for a new one.
    generation: u32,
    /// The frames are a user's own.
    brought: bool,
    /// By whom devices find the frames; only while every page has one.
    reached: Vec<Reached>,
}

impl Tt {
    /// Pages that were never touched. Allocates nothing to speak of.
    pub(crate) fn new(
        object: u64,
        pages: PageCount,
        client: Option<Arc<Client>>,
        mode: CacheMode,
    ) -> Self {
        Self {
            object,
            client,
            pages,
            mode,
            parts: Vec::new(),
            checksums: Vec::new(),
            prepared: 0,
            generation: 0,
            brought: false,
            reached: Vec::new(),
        }
    }

    /// Pages in frames that a user brought.
    pub(crate) fn brought(object: u64, run: FrameRun<Dirty>) -> Self {
        let (pages, mode) = (run.pages(), run.kind().mode);
        Self {
            brought: true,
            parts: vec![Part::Frames(run)],
            ..Self::new(object, pages, None, mode)
        }
    }

    /// Whether the frames are a user's own: they stay, as they are, and cost the device nothing.
    pub(crate) fn is_brought(&self) -> bool {
        self.brought
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

    /// Pages whose frames are charged to the device.
    pub(crate) fn charged(&self) -> PageCount {
        match self.brought {
            true => PageCount::ZERO,
            false => self.resident(),
        }
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
        self.with_offsets().filter_map(|(first, part)| match part {
            Part::Frames(run) => Some((first, run.span())),
            _ => None,
        })
    }

    fn with_offsets(&self) -> impl Iterator<Item = (u64, &Part)> {
        let mut at = 0;
        self.parts.iter().map(move |part| {
            let first = at;
            at += part.pages().get();
            (first, part)
        })
    }

    /// The run of pages around page `page`: where it begins, how long it is, and its frames if it
    /// has some.
    ///
    /// # Panics
    /// If the object has no such page.
    pub(crate) fn around(&self, page: u64) -> (u64, PageCount, Option<FrameSpan>) {
        let inside =
            |(first, part): &(u64, &Part)| (*first..*first + part.pages().get()).contains(&page);
        let found = self.with_offsets().find(inside);
        let (first, part) = found.expect("a page of the object, which was populated once");
        match part {
            Part::Frames(run) => (first, run.pages(), Some(run.span())),
            part => (first, part.pages(), None),
        }
    }

    /// The mode that its frames have, or will have.
    pub(crate) fn mode(&self) -> CacheMode {
        self.mode
    }

    /// Gives every frame the table's mode, those that were fetched for it together.
    fn apply_mode(&mut self, supply: &Supply<'_>) -> Result<()> {
        let mode = self.mode;
        let mut runs: SmallVec<[&mut FrameRun<Dirty>; 8]> = SmallVec::new();
        for part in &mut self.parts {
            if let Part::Frames(run) = part
                && run.kind().mode != mode
            {
                runs.push(run);
            }
        }
        switch(&mut runs, mode, supply)
    }

    /// Changes the mode of the table, and of the frames that it has.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for frames that were brought, and those of [`Pool::switch`]; nothing
    /// has changed, because all frames had one mode.
    pub(crate) fn set_mode(&mut self, mode: CacheMode, supply: &Supply<'_>) -> Result<()> {
        if self.brought && mode != self.mode {
            return Err(Error::Unsupported(
                "memory that a user brought keeps its cache mode; its user could have brought it in \
                 that mode",
            ));
        }
        let before = core::mem::replace(&mut self.mode, mode);
        let switched = self.apply_mode(supply);
        if switched.is_err() {
            self.mode = before;
        }
        switched
    }

    /// Gives everything back; the content is gone.
    ///
    /// Nothing of any device uses the pages.
    pub(crate) fn unpopulate(&mut self, supply: &Supply<'_>) {
        self.unmap_all();
        for part in core::mem::take(&mut self.parts) {
            match part {
                Part::Never(_) => {}
                Part::Frames(run) => self.give_frames(supply, run),
                Part::Slots(slots) => {
                    supply
                        .backup
                        .expect("slots came from a backup")
                        .discard(slots);
                }
            }
        }
        if let Some(backup) = supply.backup {
            backup.unprepare(core::mem::take(&mut self.prepared));
        }
    }

    fn give_frames(&self, supply: &Supply<'_>, run: FrameRun<Dirty>) {
        if self.brought {
            supply.pool.give_brought(run);
            return;
        }
        let pages = run.pages();
        supply.pool.give(run);
        supply.budget.uncharge(pages, self.client.as_ref());
    }

    /// The invariants of the type.
    pub(crate) fn check(&self, has_backup: bool, runs_are_free: bool) -> Result<(), String> {
        let id = self.object;
        let sum: u64 = self.parts.iter().map(|p| p.pages().get()).sum();
        if !self.parts.is_empty() && sum != self.pages.get() {
            return Err(format!(
                "I-05: object {id} has {} pages, its parts {sum}",
                self.pages.get()
            ));
        }
        let most = self.pages.get().div_ceil(RUN_PAGES);
        if self.brought && !self.is_populated() {
            return Err(format!(
                "I-63: frames that object {id} was brought are gone"
            ));
        }
        if runs_are_free && self.parts.len() as u64 > most {
            return Err(format!(
                "I-25: object {id} has {} runs, {most} would do",
                self.parts.len()
            ));
        }
        if has_backup && !self.brought && !self.is_empty() && self.prepared < self.parts.len() {
            return Err(format!(
                "I-66: object {id} has {} parts, the backup is prepared for {}",
                self.parts.len(),
                self.prepared
            ));
        }
        self.check_reached()?;
        for part in &self.parts {
            match part {
                Part::Frames(run) if run.kind().mode != self.mode => {
                    let (found, wanted) = (run.kind().mode, self.mode);
                    return Err(format!("I-23: object {id} is {wanted}, a run {found}"));
                }
                Part::Slots(slots) if slots.tag().object != id => {
                    let other = slots.tag().object;
                    return Err(format!("I-59: object {id} holds slots of {other}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Gives runs a mode, all or none.
fn switch(runs: &mut [&mut FrameRun<Dirty>], mode: CacheMode, supply: &Supply<'_>) -> Result<()> {
    if runs.iter().all(|run| run.kind().mode == mode) {
        return Ok(());
    }
    if (supply.fault)(Site::CacheSwitch) {
        return Err(Error::Backend("a cache switch was made to fail".into()));
    }
    supply.pool.switch(runs, mode)
}

fn index(page: u64) -> usize {
    usize::try_from(page).expect("populated pages are countable")
}
