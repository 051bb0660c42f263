//! The events.

use core::fmt;

use placement::{CacheMode, MemType};

use crate::clock::Time;

/// Why something moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its user asked for the place.
    Validate,
    /// It had to make room for the object of that number.
    EvictedFor(u64),
    /// The whole memory was cleared: suspend, shutdown or an explicit call.
    Cleared,
    /// It passes through on its way to another place.
    Hop,
    /// System memory was short.
    Reclaim,
    /// Its move failed, and it is where it was.
    RolledBack,
    /// The CPU touched it where it cannot reach it.
    CpuAccess,
}

/// How content moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Nothing was copied.
    Null,
    /// The new place was filled with zeroes.
    Clear,
    /// The CPU copied.
    Cpu,
    /// The copy engine of that number copied.
    Engine(u8),
}

/// Something that the manager did or refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An object was made.
    Created {
        /// The object's number.
        object: u64,
        /// Its size.
        bytes: u64,
    },
    /// An object's space was given back for good.
    Released {
        /// The object's number.
        object: u64,
    },
    /// An object has a new place. Its content may still be on its way, behind `fence`.
    Moved {
        /// The object's number.
        object: u64,
        /// Where it was; `None` when it was nowhere.
        from: Option<MemType>,
        /// Where it is.
        to: MemType,
        /// Its size.
        bytes: u64,
        /// How its content moved.
        how: How,
        /// Why.
        why: Reason,
        /// When the move was begun.
        since: Time,
        /// Timeline and point that its content waits for.
        fence: Option<(u64, u64)>,
    },
    /// An object lost its place and its content.
    Discarded {
        /// The object's number.
        object: u64,
        /// Where it was.
        from: Option<MemType>,
        /// Its size.
        bytes: u64,
        /// Why.
        why: Reason,
    },
    /// Pages went to the backup.
    SwappedOut {
        /// The object's number.
        object: u64,
        /// Bytes written.
        bytes: u64,
        /// When it was begun.
        since: Time,
    },
    /// Pages came back from the backup.
    SwappedIn {
        /// The object's number.
        object: u64,
        /// Bytes read.
        bytes: u64,
        /// When it was begun.
        since: Time,
    },
    /// The cache mode of an object's pages was changed where they are.
    CacheSwitched {
        /// The object's number.
        object: u64,
        /// Its size.
        bytes: u64,
        /// The mode that they had.
        from: CacheMode,
        /// The mode that they have.
        to: CacheMode,
    },
    /// System pages were mapped for a device. Only a sink is told.
    Mapped {
        /// The object's number.
        object: u64,
        /// Its size.
        bytes: u64,
        /// How many segments the device sees.
        segments: u64,
        /// Whether the device is one that the object is lent to.
        lent: bool,
    },
    /// An access through a window waited for content, and goes on.
    Faulted {
        /// The object's number.
        object: u64,
        /// The page that was touched.
        page: u64,
        /// Pages that are shown since.
        pages: u64,
        /// Whether it was a store.
        write: bool,
        /// When it was heard of.
        since: Time,
    },
    /// An access through a window ended in a signal.
    Poisoned {
        /// The object's number.
        object: u64,
        /// The page that was touched.
        page: u64,
        /// Why.
        because: &'static str,
    },
    /// A victim was passed over.
    PassedOver {
        /// The victim's number.
        object: u64,
        /// The object that wanted its room.
        wanted_by: u64,
        /// Why it could stay.
        because: &'static str,
    },
    /// A request was refused.
    Refused {
        /// The object's number.
        object: u64,
        /// The memory type that was asked last.
        mem_type: MemType,
        /// Pages that were wanted.
        pages: u64,
    },
    /// A thread slept.
    Waited {
        /// The object's number, 0 if it was not for one.
        object: u64,
        /// What it waited for.
        what: &'static str,
        /// When it fell asleep.
        since: Time,
    },
    /// A transaction gave way to an older one.
    BackedOff {
        /// The age of the one that gave way.
        age: u64,
    },
    /// A callback of a user or a driver panicked; the manager went on.
    CallbackPanicked {
        /// What the callback was for.
        what: &'static str,
    },
    /// The device was lost. Sent exactly once.
    DeviceLost,
}

impl Event {
    /// The object that the event is about, 0 if it is about none.
    #[must_use]
    pub const fn object(&self) -> u64 {
        match *self {
            Self::Created { object, .. }
            | Self::Released { object }
            | Self::Moved { object, .. }
            | Self::Discarded { object, .. }
            | Self::SwappedOut { object, .. }
            | Self::SwappedIn { object, .. }
            | Self::CacheSwitched { object, .. }
            | Self::Mapped { object, .. }
            | Self::PassedOver { object, .. }
            | Self::Refused { object, .. }
            | Self::Faulted { object, .. }
            | Self::Poisoned { object, .. }
            | Self::Waited { object, .. } => object,
            Self::BackedOff { .. } | Self::CallbackPanicked { .. } | Self::DeviceLost => 0,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { object, bytes } => write!(f, "object {object} made, {bytes} bytes"),
            Self::Released { object } => write!(f, "object {object} released"),
            Self::Moved {
                object,
                from,
                to,
                bytes,
                how,
                why,
                ..
            } => {
                write!(f, "object {object} moved ")?;
                if let Some(from) = from {
                    write!(f, "from {from} ")?;
                }
                write!(f, "to {to}, {bytes} bytes, {how:?}, {why:?}")
            }
            Self::Discarded {
                object, bytes, why, ..
            } => write!(f, "object {object} discarded, {bytes} bytes, {why:?}"),
            Self::SwappedOut { object, bytes, .. } => {
                write!(f, "object {object} swapped out, {bytes} bytes")
            }
            Self::SwappedIn { object, bytes, .. } => {
                write!(f, "object {object} swapped in, {bytes} bytes")
            }
            Self::CacheSwitched {
                object, from, to, ..
            } => write!(f, "object {object} was {from}, is {to}"),
            Self::Mapped {
                object,
                bytes,
                segments,
                lent,
            } => {
                let whom = if *lent { "another" } else { "its" };
                write!(
                    f,
                    "object {object} mapped for {whom} device, {bytes} bytes in {segments} segments"
                )
            }
            Self::Faulted {
                object,
                page,
                pages,
                write,
                ..
            } => {
                let what = if *write { "written" } else { "read" };
                write!(
                    f,
                    "object {object}, page {page} {what}, {pages} pages shown"
                )
            }
            Self::Poisoned {
                object,
                page,
                because,
            } => write!(f, "object {object}, page {page} poisoned: {because}"),
            Self::PassedOver {
                object,
                wanted_by,
                because,
            } => write!(
                f,
                "object {object} stayed although object {wanted_by} wanted its room: {because}"
            ),
            Self::Refused {
                object,
                mem_type,
                pages,
            } => write!(f, "object {object} refused, {pages} pages in {mem_type}"),
            Self::Waited { object, what, .. } => write!(f, "object {object} waited for {what}"),
            Self::BackedOff { age } => write!(f, "transaction {age} backed off"),
            Self::CallbackPanicked { what } => write!(f, "a callback panicked: {what}"),
            Self::DeviceLost => f.write_str("device lost"),
        }
    }
}

/// An event and its moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When it was decided.
    pub at: Time,
    /// What was decided.
    pub event: Event,
}
