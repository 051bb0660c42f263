//! Where pages go when memory is short.

use placement::PageCount;

use crate::error::Result;
use crate::pages::Kmap;

/// Whose pages, which, and from which swap-out; part of every checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotTag {
    /// The object's number.
    pub object: u64,
    /// The first page of the run, inside the object.
    pub first_page: u64,
    /// Which swap-out of the object.
    pub generation: u32,
}

impl SlotTag {
    /// The tag of the page `offset` pages into the run.
    #[must_use]
    pub const fn page(self, offset: u64) -> Self {
        Self {
            first_page: self.first_page + offset,
            ..self
        }
    }
}

/// Slots of a backup and the duty to discard them. Not `Clone`: a slot has one owner (I-59).
#[derive(Debug)]
#[must_use = "slots that are not discarded are lost"]
pub struct SlotRun {
    first: u64,
    pages: PageCount,
    tag: SlotTag,
}

impl SlotRun {
    /// For backups: the ownership of slots for the run that `tag` names.
    pub const fn new(first: u64, pages: PageCount, tag: SlotTag) -> Self {
        Self { first, pages, tag }
    }

    /// The first slot, as the backup numbers them.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// How many pages.
    #[must_use]
    pub const fn pages(&self) -> PageCount {
        self.pages
    }

    /// Whose pages they are for, and from which swap-out.
    #[must_use]
    pub const fn tag(&self) -> SlotTag {
        self.tag
    }
}

/// Which way pages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From frames to slots.
    Out,
    /// From slots to frames.
    In,
}

/// One run on its way. It owns the window through which its frames are read or written.
#[derive(Debug)]
pub struct Transfer {
    /// What its owner calls it.
    pub id: usize,
    /// Its first slot.
    pub first: u64,
    /// Its frames; as many pages as it has slots.
    pub memory: Kmap,
}

/// Runs to be moved, one after the other, and what became of them.
pub trait Transfers {
    /// The next run; `None` if there is none now. Asked again after each that is done.
    fn next(&mut self) -> Option<Transfer>;

    /// A run has arrived, or failed: then slots and frames are undefined where they were written.
    fn done(&mut self, transfer: Transfer, result: Result<()>);
}

/// Keeps pages elsewhere: a file, memory, another machine.
///
/// The manager checks what comes back against checksums of its own, so a backup may be wrong but
/// cannot pass wrong bytes on. What swapping out needs is allocated in [`Backup::prepare`], when
/// pages are populated: when memory is short nothing is allocated.
pub trait Backup: Send + Sync {
    /// Makes ready to take `runs` more runs without allocating.
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory); nothing has changed.
    fn prepare(&self, runs: usize) -> Result<()>;

    /// Undoes as much of [`Backup::prepare`].
    fn unprepare(&self, runs: usize);

    /// Takes slots that nobody has, with room behind them. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Backup`](crate::Error::Backup) if it is full, naming the limit; no slot was taken.
    fn take(&self, pages: PageCount, tag: SlotTag) -> Result<SlotRun>;

    /// Moves runs, several at once if it can, until `work` has no more and all are done. May wait
    /// for the disk.
    fn transfer(&self, direction: Direction, work: &mut dyn Transfers);

    /// Takes slots back. What they held is never shown to anybody again (I-63).
    fn discard(&self, slots: SlotRun);

    /// Pages that it may hold at most.
    fn limit(&self) -> PageCount;

    /// Pages that it holds.
    fn used(&self) -> PageCount;
}
