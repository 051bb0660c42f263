//! The seams to whoever owns the process's address space and hears of its faults.

use core::any::Any;
use core::fmt;

use crate::error::Result;
use crate::pages::FileRange;

/// Addresses of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Addresses {
    /// The first.
    pub base: usize,
    /// How many.
    pub bytes: usize,
}

impl Addresses {
    /// The part of `bytes` bytes that begins `offset` bytes into these.
    ///
    /// # Panics
    /// If it is not inside.
    #[must_use]
    pub fn part(&self, offset: usize, bytes: usize) -> Self {
        let inside = offset.checked_add(bytes).is_some_and(|e| e <= self.bytes);
        assert!(inside, "bytes {offset}+{bytes} of {self:?}");
        Self {
            base: self.base + offset,
            bytes,
        }
    }

    /// The first address after them.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.base + self.bytes
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub const fn contains(&self, address: usize) -> bool {
        self.base <= address && address < self.end()
    }
}

/// What happens to accesses while content is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities {
    /// Loads and stores wait. Where they do not, whoever wants an address keeps the object where
    /// it is.
    pub loads_wait: bool,
    /// System calls that copy wait too; where they do not, they fail with `EFAULT`.
    pub calls_wait: bool,
    /// Which pages are written can be noted while writers go on.
    pub tracks_writes: bool,
    /// The number of the calling thread, as [`Fault::thread`] gives it.
    pub thread: Option<fn() -> u64>,
}

/// What may be done through a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Loads.
    Read,
    /// Loads and stores.
    #[default]
    ReadWrite,
}

/// A piece of a window, and the memory that it is to show.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where the window has it.
    pub at: Addresses,
    /// The memory.
    pub file: FileRange,
}

/// Pieces that are mapped somewhere else and wait for being switched to. Dropping it unmaps them.
pub struct Aside(Box<dyn Any + Send>);

impl Aside {
    /// For implementations of [`AddressSpace`]: wraps what [`AddressSpace::switch`] needs, and what
    /// unmaps the pieces when it drops.
    #[must_use]
    pub fn new(pieces: impl Any + Send) -> Self {
        Self(Box::new(pieces))
    }

    /// What was wrapped; `None` if it is of another type.
    #[must_use]
    pub fn into_inner<T: Any>(self) -> Option<Box<T>> {
        self.0.downcast().ok()
    }
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aside")
    }
}

/// How accesses are made to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoke {
    /// Everything that is mapped there can be watched: page tables are emptied, and the kernel asks
    /// before it fills them again.
    Zap,
    /// Whatever is mapped there is replaced by a mapping of nothing.
    Cover,
}

/// The process's address space, as far as windows need it.
///
/// Addresses that were reserved are always mapped: by something of the window's, or by nothing that
/// anybody could read (I-19). Every change of a window's addresses is made under its lock, one at a
/// time; different windows change at the same time. A forked child inherits none of it.
pub trait AddressSpace: Send + Sync {
    /// What accesses do while content is on its way. Does not change.
    fn abilities(&self) -> Abilities;

    /// Puts `bytes` addresses aside, the first of them `phase` bytes above a multiple of `align`.
    /// Accesses wait.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host gives none.
    fn reserve(&self, bytes: usize, align: usize, phase: usize) -> Result<Addresses>;

    /// Maps `pieces` aside, with their page tables filled if `filled`.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses; nothing is mapped.
    fn prepare(&self, pieces: &[Piece], access: Access, filled: bool) -> Result<Aside>;

    /// Puts what was prepared in place of what is mapped there, each piece at once for everybody.
    /// Who waits there already waits on until [`AddressSpace::wake`].
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses. What then is at the addresses
    /// of the pieces is unknown; nobody's but the window's.
    fn switch(&self, aside: Aside) -> Result<()>;

    /// From the return on, every access to `at` waits, and what was mapped there is not used any
    /// more, except by who has its pages pinned in the kernel.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses; accesses go on as before, or
    /// wait.
    fn revoke(&self, at: Addresses, how: Revoke) -> Result<()>;

    /// Wakes who waits at `at`: they try again.
    fn wake(&self, at: Addresses);

    /// Accesses to `at` end in a signal (`SIGBUS`), copying system calls in `EFAULT`; those that
    /// wait already, after [`AddressSpace::wake`].
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses; accesses wait.
    fn poison(&self, at: Addresses) -> Result<()>;

    /// Gives addresses back. Who still waits there ends in `SIGSEGV`.
    fn release(&self, at: Addresses);

    /// How writes are noted, if they can be.
    fn tracking(&self) -> Option<&dyn WriteTracking>;
}

/// Notes which pages are written, while writers go on. Where all that is mapped can be watched.
pub trait WriteTracking {
    /// Notes writes to `at` from the return on.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses; nothing is noted.
    fn track(&self, at: Addresses) -> Result<()>;

    /// The pages that were written between [`WriteTracking::track`] and a [`Revoke::Zap`] since, as
    /// bytes from the first address on.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend) if the host refuses; any page may have been
    /// written.
    fn written(&self, at: Addresses, each: &mut dyn FnMut(core::ops::Range<usize>)) -> Result<()>;
}

/// An access that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The address, or that of its page.
    pub address: usize,
    /// Whether it is a store.
    pub write: bool,
    /// The number of the thread that waits; 0 if nobody knows.
    pub thread: u64,
}

/// Tells of accesses that wait.
///
/// Whoever moves something may have to wait until the source was asked for the next fault, so
/// somebody is always about to ask.
pub trait FaultSource: Send + Sync {
    /// Waits for the next access. `None` after [`FaultSource::stop`].
    fn next(&self) -> Option<Fault>;

    /// Makes everybody who asks, now and later, leave with `None`.
    fn stop(&self);
}

/// Lets accesses go on.
pub trait FaultHandler: Send + Sync {
    /// Brings the content to where the access waits and wakes it, or ends it. Called by several
    /// threads at once; may wait for locks and fences, so never by the only one that asks the
    /// [`FaultSource`].
    fn serve(&self, fault: &Fault);
}
