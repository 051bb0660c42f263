//! Where pages go when memory is short.

use placement::PageCount;

use crate::error::Result;
use crate::pages::Mapped;

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
    generation: u32,
}

impl SlotRun {
    /// For backups: the ownership of slots that hold the run of `tag`.
    pub const fn new(first: u64, pages: PageCount, tag: SlotTag) -> Self {
        Self {
            first,
            pages,
            generation: tag.generation,
        }
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

    /// The swap-out that filled them.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }
}

/// Keeps pages elsewhere: a file, a compressed pool, another machine.
///
/// The manager checks what comes back against checksums of its own, so a backup may be wrong but
/// cannot pass wrong bytes on.
pub trait Backup: Send + Sync {
    /// Stores the pages of `from`, all or none, in slots taken for them. May wait for the disk.
    ///
    /// # Errors
    /// [`Error::Backup`](crate::Error::Backup) if it is full or cannot write; no slot was taken.
    fn store(&self, tag: SlotTag, from: &Mapped) -> Result<SlotRun>;

    /// Reads all pages of `slots` into `into`. The slots stay.
    ///
    /// # Errors
    /// [`Error::Backup`](crate::Error::Backup) if it cannot read; `into` is undefined.
    fn load(&self, slots: &SlotRun, tag: SlotTag, into: &Mapped) -> Result<()>;

    /// Takes slots back. What they held is never shown to anybody again (I-63).
    fn discard(&self, slots: SlotRun);

    /// Pages that it may hold at most.
    fn limit(&self) -> PageCount;

    /// Pages that it holds.
    fn used(&self) -> PageCount;
}
