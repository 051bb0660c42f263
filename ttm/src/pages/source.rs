//! Where frames come from.

use bitflags::bitflags;
use placement::{CacheMode, PageCount};

use crate::cache::{Maintenance, Modes};
use crate::error::Result;

use super::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Want, Zone};

bitflags! {
    /// A set of zones.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Zones: u8 {
        /// [`Zone::Dma32`].
        const DMA32 = 1 << 0;
        /// [`Zone::Normal`].
        const NORMAL = 1 << 1;
        /// [`Zone::High`].
        const HIGH = 1 << 2;
    }
}

impl Zones {
    /// Whether `zone` is in the set.
    #[must_use]
    pub const fn has(self, zone: Zone) -> bool {
        self.contains(match zone {
            Zone::Dma32 => Self::DMA32,
            Zone::Normal => Self::NORMAL,
            Zone::High => Self::HIGH,
        })
    }
}

/// What a page source can give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offers {
    /// Zones for which it vouches.
    pub zones: Zones,
    /// NUMA nodes, numbered from 0.
    pub nodes: u8,
    /// Modes that its frames can have. Fresh ones are cached.
    pub modes: Modes,
    /// Whether devices see what is in the CPU's caches. Without, caches are cleaned before a
    /// device reads and dropped before the CPU reads what a device wrote.
    pub snooped: bool,
    /// Whether a long run costs no more than short ones: indices of a file always adjoin, real
    /// addresses only by luck.
    pub runs_are_free: bool,
    /// How much there is, at most.
    pub capacity: PageCount,
    /// The last byte of the zone DMA32, as devices address it; nothing is there without the zone.
    pub dma32_last: u64,
}

impl Offers {
    /// A source of ordinary memory: cached, any address, one node, snooped, runs for free.
    #[must_use]
    pub const fn ordinary(capacity: PageCount) -> Self {
        Self {
            zones: Zones::NORMAL,
            nodes: 1,
            modes: Modes::CACHED,
            snooped: true,
            runs_are_free: true,
            capacity,
            dma32_last: u32::MAX as u64,
        }
    }
}

/// Where frames come from: page files of the host, or a simulation.
///
/// Meant to be slow: each call may be a system call. A [`Pool`](super::Pool) in front of it makes
/// frames cheap. No lock of this crate is held while it is called, but reservations may be.
pub trait PageSource: Send + Sync {
    /// What it can give. Does not change.
    fn offers(&self) -> Offers;

    /// Takes fresh, adjoining, cached frames in the zone and on the node that `want` names. They
    /// read as zero to everybody (I-14, I-30).
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory) if there are none;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a zone or node that it does not
    /// offer. Nothing was taken.
    fn take(&self, want: &Want) -> Result<FrameRun>;

    /// Takes frames back: a run, or a part of one that was split. They are cached, and nobody
    /// reaches them any more. Their memory is the system's again.
    fn give(&self, run: FrameRun<Dirty>);

    /// Overwrites frames in `mode` with zeroes, mapped or not.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses; the content is undefined.
    fn zero(&self, span: FrameSpan, mode: CacheMode) -> Result<()>;

    /// Maps frames for the CPU in their mode, readable and writable, until the mapping drops.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses,
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the frames have no content.
    fn map(&self, span: FrameSpan, mode: CacheMode) -> Result<Mapped>;

    /// Where frames lie in a file, for mappings of them in `mode` that last.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if they are in no file;
    /// [`Error::Invalid`](crate::Error::Invalid) for frames that nobody has.
    fn file(&self, span: FrameSpan, mode: CacheMode) -> Result<FileRange>;

    /// Changes the mode of frames that nobody has mapped and whose caches were maintained.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported), naming who could, for a mode that it does
    /// not offer; [`Error::Backend`](crate::Error::Backend). No frame has changed.
    fn switch(&self, spans: &[FrameSpan], from: CacheMode, to: CacheMode) -> Result<()>;

    /// Maintains the CPU's caches over frames. A source whose frames are snooped and always cached
    /// has nothing to do.
    fn maintain(&self, span: FrameSpan, what: Maintenance);

    /// Frames that are out.
    fn taken(&self) -> PageCount;
}
