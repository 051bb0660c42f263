//! Device memory as the CPU sees it.

use placement::{CacheMode, PageCount, PageRange};

use crate::cache::Modes;
use crate::dma::DmaAddr;
use crate::error::Result;
use crate::pages::{FileRange, Mapped};

/// The memory behind a manager. Its *aperture* is what the CPU can reach of it (the BAR).
pub trait Region: Send + Sync {
    /// Its size.
    fn size(&self) -> PageCount;

    /// Sees to it that there is memory behind pages that were just granted and not used before: for
    /// memories that grow. Called with no lock of this crate's but reservations, before anything
    /// else is done with the pages. Memory that is all there has nothing to do.
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory): there is none, and its space, which knows of that,
    /// grants nothing there until somebody gave something back. Others leave, and it is tried again.
    /// Any other error ends the validate.
    fn provide(&self, pages: PageRange) -> Result<()> {
        let _ = pages;
        Ok(())
    }

    /// Whether `page` is in one run with the page before it. Not so between the allocations of a memory
    /// that has several.
    fn goes_on_at(&self, page: u64) -> bool {
        let _ = page;
        true
    }

    /// The pages that the CPU can reach; empty if none.
    fn aperture(&self) -> PageRange;

    /// The modes in which the CPU can map it.
    fn modes(&self) -> Modes;

    /// The mode in which it is mapped unless a place wishes for another.
    fn own_mode(&self) -> CacheMode;

    /// Maps pages for the CPU in `mode`, readable and writable, until the mapping drops.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) outside the aperture,
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses,
    /// [`Error::DeviceLost`](crate::Error::DeviceLost).
    fn map(&self, pages: PageRange, mode: CacheMode) -> Result<Mapped>;

    /// Where pages lie in a file, for mappings of them in `mode` that last.
    ///
    /// # Errors
    /// Those of [`Region::map`], and [`Error::Unsupported`](crate::Error::Unsupported) if they are
    /// in no file.
    fn file(&self, pages: PageRange, mode: CacheMode) -> Result<FileRange>;

    /// Where pages lie on the bus, one after the other, for other devices that reach them there; none
    /// if nobody does.
    fn bus(&self, pages: PageRange) -> Option<DmaAddr> {
        let _ = pages;
        None
    }
}
