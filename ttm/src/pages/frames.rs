//! Runs of frames, and where they come from.

use placement::PageCount;

use crate::error::Result;

use super::Mapped;

/// Which frames: a description that owns nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameSpan {
    /// The page file, as its source numbers them.
    pub file: u32,
    /// The first page in the file.
    pub first: u64,
    /// How many pages.
    pub pages: PageCount,
}

impl FrameSpan {
    /// The part of `pages` pages that begins `offset` pages into this one.
    ///
    /// # Panics
    /// If the part is not inside.
    #[must_use]
    pub fn part(&self, offset: u64, pages: PageCount) -> Self {
        assert!(
            offset
                .checked_add(pages.get())
                .is_some_and(|end| end <= self.pages.get()),
            "{offset}+{} pages of {self:?}",
            pages.get()
        );
        Self {
            file: self.file,
            first: self.first + offset,
            pages,
        }
    }
}

/// Frames and the duty to give them back. Not `Clone`: it has one owner.
#[derive(Debug)]
#[must_use = "frames that are not given back are lost"]
pub struct FrameRun {
    span: FrameSpan,
}

impl FrameRun {
    /// For page sources: the ownership of frames that nobody else owns.
    pub const fn new(span: FrameSpan) -> Self {
        Self { span }
    }

    /// Which frames.
    #[must_use]
    pub const fn span(&self) -> FrameSpan {
        self.span
    }

    /// How many.
    #[must_use]
    pub const fn pages(&self) -> PageCount {
        self.span.pages
    }
}

/// Where frames come from: page files of the host, or counters of a simulation.
pub trait PageSource: Send + Sync {
    /// Takes a run of adjoining frames. They read as zero to everybody (I-14, I-30).
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory) if there are none; nothing was taken.
    fn take(&self, pages: PageCount) -> Result<FrameRun>;

    /// Takes frames back. Nobody reaches them any more.
    fn give(&self, run: FrameRun);

    /// Maps frames for the CPU, readable and writable, until the mapping drops.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses,
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the frames have no content.
    fn map(&self, span: FrameSpan) -> Result<Mapped>;

    /// Frames that are with owners now.
    fn taken(&self) -> PageCount;
}
