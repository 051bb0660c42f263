//! What can go wrong, sorted by what the caller does next.
//!
//! Ask [`Error::class`]: *retry* (the same call may succeed later), *refuse* (the request cannot
//! be met as it stands) or *broken* (the device, its backup or an invariant is gone).

use core::fmt;

use placement::{MemType, PageCount};

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What the caller does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Call again, perhaps after waiting; nothing has changed.
    Retry,
    /// Change the request or free something first; nothing has changed.
    Refuse,
    /// Give up on the object or the device that the error names.
    Broken,
}

/// Why a call failed. Nothing has changed unless the call's documentation says what has.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else holds it and the caller did not want to wait.
    Busy,
    /// An older transaction wants a lock that this one holds. Return it from the closure of
    /// `Device::exec`, which releases everything and runs the closure again.
    Deadlock,
    /// The operation's cancel token was used.
    Interrupted,
    /// The operation's deadline passed.
    TimedOut,
    /// No place of the placement has room, and nothing more can be evicted for it.
    NoSpace(Box<NoSpace>),
    /// System memory (the page source, or its limit) is used up and nothing more can be swapped.
    NoMemory {
        /// Pages that were wanted.
        wanted: PageCount,
        /// What stood in the way, where it is known.
        why: Option<Box<Shortage>>,
    },
    /// A device cannot be put to sleep: what is in its memory does not fit anywhere else.
    Shortfall(Box<Shortfall>),
    /// The request could not be met by an empty device either.
    TooBig {
        /// The memory type that was asked.
        mem_type: MemType,
        /// Pages that were wanted.
        wanted: PageCount,
    },
    /// A limit of the client's group forbids it.
    OverLimit {
        /// The memory type whose limit it is.
        mem_type: MemType,
        /// The limit, in pages.
        limit: PageCount,
    },
    /// The budget of mappings is used up: a window needs some of the process's.
    NoMappings {
        /// Mappings that were wanted.
        wanted: usize,
        /// Mappings that windows may have.
        limit: usize,
    },
    /// The arguments make no sense; the text says which and why.
    Invalid(&'static str),
    /// The object is pinned where it is.
    Pinned,
    /// This transaction holds the object already.
    AlreadyLocked,
    /// Called from inside a driver callback or from inside another transaction of this thread.
    Reentrant,
    /// The backend cannot do it; the text says who could.
    Unsupported(&'static str),
    /// The device's way to memory is not what was required of it; the text explains what it is, and
    /// from where that is known.
    NotCoherent(Box<str>),
    /// System pages cannot be mapped for the device; the source is a
    /// [`DmaError`](crate::dma::DmaError).
    Dma {
        /// Whether the same may succeed once others have been unmapped.
        retry: bool,
        /// The number that the kernel would answer with.
        errno: i32,
        /// What stood in the way.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The content was thrown away after its owner declared that it did not need it.
    Purged,
    /// The content existed only in memory that is gone.
    ContentLost,
    /// The device is gone. System memory and swapped contents stay readable.
    DeviceLost,
    /// Nothing can ever wake the caller; the text is the wait graph.
    Stalled(Box<str>),
    /// The backup could not read or write; the object is where it was.
    Backup(Box<dyn std::error::Error + Send + Sync>),
    /// A page came back from the backup with another content than it left with.
    Corrupt(Box<Corrupt>),
    /// A backend failed; the source says how.
    Backend(Box<dyn std::error::Error + Send + Sync>),
}

/// Why system memory ran out.
#[derive(Clone, Debug)]
pub struct Shortage {
    /// Pages that the device may populate.
    pub limit: PageCount,
    /// Pages that it has populated.
    pub used: PageCount,
    /// Pages in the backup and its limit; `None` without a backup.
    pub backup: Option<(PageCount, PageCount)>,
    /// What the backup said last when it was asked to take more.
    pub refusal: Option<Box<str>>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the system limit of {} are in use",
            self.used, self.limit
        )?;
        match (&self.refusal, self.backup) {
            (Some(refusal), _) => write!(f, ", and {refusal}"),
            (None, None) => f.write_str(", and there is no backup to swap to"),
            (None, Some((used, limit))) => {
                write!(f, ", and the backup holds {used} of its limit of {limit}")
            }
        }
    }
}

/// What is missing before a device can sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortfall {
    /// Pages that device memory holds and that have to go somewhere.
    pub needed: PageCount,
    /// Pages that system memory could take once everything that can leave it has.
    pub available: PageCount,
    /// Pages that are populated.
    pub used: PageCount,
    /// Pages that may be populated.
    pub limit: PageCount,
    /// Pages that the backup could still take; none without a backup.
    pub backup_free: PageCount,
}

/// What was tried before [`Error::NoSpace`].
#[derive(Clone, Debug)]
pub struct NoSpace {
    /// Pages that were wanted.
    pub wanted: PageCount,
    /// One line for each place that was tried, in order.
    pub tried: Vec<Tried>,
}

/// The state of one memory type at the moment a request was refused there.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// The memory type.
    pub mem_type: MemType,
    /// Free pages.
    pub free: PageCount,
    /// The largest run of free pages.
    pub largest_hole: PageCount,
    /// Pages that wait for a fence before they are free.
    pub retired: PageCount,
    /// Objects that eviction could choose from.
    pub evictable: usize,
    /// Objects that are pinned or otherwise out of eviction's reach.
    pub unevictable: usize,
}

/// A page that came back wrong.
#[derive(Clone, Debug)]
pub struct Corrupt {
    /// The object's number.
    pub object: u64,
    /// The page inside the object.
    pub page: u64,
    /// The checksum that was recorded.
    pub expected: u64,
    /// The checksum of what came back.
    pub found: u64,
}

impl Error {
    /// System memory ran out, and nothing more is known.
    #[must_use]
    pub const fn no_memory(wanted: PageCount) -> Self {
        Self::NoMemory { wanted, why: None }
    }

    /// What the caller does next.
    ///
    /// ```
    /// use ttm::error::{Class, Error};
    /// assert_eq!(Error::Busy.class(), Class::Retry);
    /// assert_eq!(Error::Pinned.class(), Class::Refuse);
    /// assert_eq!(Error::DeviceLost.class(), Class::Broken);
    /// ```
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Busy | Self::Deadlock | Self::Interrupted | Self::TimedOut => Class::Retry,
            Self::Dma { retry: true, .. } => Class::Retry,
            Self::NoSpace(_)
            | Self::NoMemory { .. }
            | Self::Shortfall(_)
            | Self::TooBig { .. }
            | Self::OverLimit { .. }
            | Self::NoMappings { .. }
            | Self::Invalid(_)
            | Self::Pinned
            | Self::AlreadyLocked
            | Self::Reentrant
            | Self::Unsupported(_)
            | Self::NotCoherent(_)
            | Self::Dma { .. }
            | Self::Purged => Class::Refuse,
            Self::ContentLost
            | Self::DeviceLost
            | Self::Stalled(_)
            | Self::Backup(_)
            | Self::Corrupt(_)
            | Self::Backend(_) => Class::Broken,
        }
    }

    /// The number that the Linux kernel's TTM would answer with, for those who know it.
    ///
    /// One difference is deliberate: TTM turns "no space" into `ENOMEM` at the end of a validate;
    /// here it stays `ENOSPC`, apart from running out of system memory.
    #[must_use]
    pub fn to_errno(&self) -> i32 {
        match self {
            Self::Busy => 16,
            Self::Deadlock => 35,
            Self::Interrupted => 512,
            Self::TimedOut => 110,
            Self::NoSpace(_) => 28,
            Self::NoMemory { .. } | Self::Shortfall(_) => 12,
            Self::TooBig { .. } => 7,
            Self::OverLimit { .. } => 11,
            Self::NoMappings { .. } => 12,
            Self::Dma { errno, .. } => *errno,
            Self::Invalid(_) | Self::Pinned => 22,
            Self::AlreadyLocked => 114,
            Self::Reentrant => 40,
            Self::Unsupported(_) | Self::NotCoherent(_) => 95,
            Self::Purged | Self::ContentLost => 61,
            Self::DeviceLost => 19,
            Self::Stalled(_) => 35,
            Self::Backup(_) | Self::Corrupt(_) | Self::Backend(_) => 5,
        }
    }

    /// Whether an eviction that met this error may try another victim.
    #[must_use]
    pub(crate) fn skips_victim(&self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::NoSpace(_)
                | Self::NoMemory { .. }
                | Self::TooBig { .. }
                | Self::OverLimit { .. }
                | Self::Pinned
                | Self::Dma { .. }
                | Self::Backup(_)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("busy: somebody else holds it; try again"),
            Self::Deadlock => f.write_str(
                "deadlock: an older transaction goes first; return this from the exec closure",
            ),
            Self::Interrupted => f.write_str("interrupted by the cancel token"),
            Self::TimedOut => f.write_str("the deadline passed"),
            Self::NoSpace(detail) => {
                write!(f, "no space for {} pages", detail.wanted.get())?;
                for t in &detail.tried {
                    write!(
                        f,
                        "; {}: {} pages free (largest run {}), {} behind fences, {} evictable and {} unevictable objects",
                        t.mem_type,
                        t.free.get(),
                        t.largest_hole.get(),
                        t.retired.get(),
                        t.evictable,
                        t.unevictable
                    )?;
                }
                f.write_str("; unpin or release objects, or name a fallback place")
            }
            Self::NoMemory { wanted, why } => {
                write!(f, "out of system memory for {} pages", wanted.get())?;
                match why {
                    Some(why) => write!(
                        f,
                        ": {why}; raise the limit, or give the device a larger backup"
                    ),
                    None => {
                        f.write_str("; free some, take less, or raise the limit if there is one")
                    }
                }
            }
            Self::Shortfall(s) => write!(
                f,
                "cannot sleep: {} of device memory have to go somewhere, and system memory has \
                 room for {} ({} of its limit of {} in use, {} free in the backup); release \
                 objects, raise the limit, or enlarge the backup",
                s.needed, s.available, s.used, s.limit, s.backup_free
            ),
            Self::TooBig { mem_type, wanted } => write!(
                f,
                "{} pages can never fit into {mem_type} as asked; name a smaller size or a wider window",
                wanted.get()
            ),
            Self::NoMappings { wanted, limit } => write!(
                f,
                "windows may have {limit} mappings, and {wanted} more would be too many; close some, \
                 or raise the budget (and the kernel's vm.max_map_count)"
            ),
            Self::OverLimit { mem_type, limit } => write!(
                f,
                "the group's limit of {} pages in {mem_type} is reached",
                limit.get()
            ),
            Self::Invalid(why) => write!(f, "invalid request: {why}"),
            Self::Pinned => f.write_str("the object is pinned; unpin it first"),
            Self::AlreadyLocked => f.write_str("this transaction holds the object already"),
            Self::Reentrant => f.write_str(
                "called from inside a driver callback or another transaction of this thread",
            ),
            Self::Unsupported(who) => write!(f, "unsupported: {who}"),
            Self::NotCoherent(why) => write!(f, "not coherent as required: {why}"),
            Self::Dma { source, .. } => write!(f, "not mapped for the device: {source}"),
            Self::Purged => f.write_str("the content was purged; fill the object again"),
            Self::ContentLost => f.write_str("the content was lost with the memory that held it"),
            Self::DeviceLost => f.write_str("the device is lost; create a new one"),
            Self::Stalled(graph) => write!(f, "nothing can wake this thread:\n{graph}"),
            Self::Backup(source) => write!(f, "the backup {source}"),
            Self::Corrupt(detail) => write!(
                f,
                "object {} page {}: checksum {:016x} expected, {:016x} found in the backup",
                detail.object, detail.page, detail.expected, detail.found
            ),
            Self::Backend(source) => write!(f, "backend: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The text above has theirs already.
            Self::Backup(source) | Self::Backend(source) | Self::Dma { source, .. } => {
                source.source()
            }
            _ => None,
        }
    }
}
