//! The address space of this process, for windows.
//!
//! How accesses are made to wait, best first:
//!
//! | [`Strategy`] | loads and stores | system calls that copy | writes noted |
//! |---|---|---|---|
//! | `Privileged`: userfaultfd | wait | wait | from Linux 6.7 on |
//! | `UserMode`: userfaultfd of any user | wait | `EFAULT` | from Linux 6.7 on |
//! | `Older`: userfaultfd with the features of Linux 6.1 | wait | as allowed | no |
//! | `Signal`: a handler of `SIGSEGV`, chained | wait | `EFAULT` | no |
//! | `None` | the object is pinned | as long as it is pinned | no |
//!
//! A window waits in empty memory that userfaultfd watches (or that nobody may touch). What it shows
//! is prepared elsewhere and moved over it by `mremap`, one piece at a time, each at once for
//! everybody. To revoke a mapping of a memory file, its page tables are emptied while the kernel is
//! told to ask before it fills them; mappings of other files, which it does not watch, are replaced
//! by empty memory.

mod mapping;
mod signal;
mod uffd;

use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags};
use ttm::error::{Error, Result};
use ttm::map::{
    Abilities, Access, AddressSpace, Addresses, Aside, Fault, FaultSource, Piece, Revoke,
    WriteTracking,
};
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::sync::{Arc, Mutex};

use mapping::Side;
use signal::Arena;
use uffd::{Uffd, feature};

/// How accesses are made to wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Strategy {
    /// userfaultfd for loads, stores and the kernel's own accesses. Takes `CAP_SYS_PTRACE`,
    /// `vm.unprivileged_userfaultfd=1`, or rights to `/dev/userfaultfd`.
    Privileged,
    /// userfaultfd for loads and stores, which every user may have.
    UserMode,
    /// userfaultfd with no feature that is younger than Linux 6.1, privileged if that is allowed.
    Older,
    /// A handler of `SIGSEGV`. Choosing it installs the handler, for the rest of the process's life;
    /// it calls the one that was there before for every address that is not a window's.
    Signal,
    /// Nothing waits: whoever wants an address keeps the object where it is.
    None,
}

impl Strategy {
    /// All, the best first.
    pub const ALL: [Self; 5] = [
        Self::Privileged,
        Self::UserMode,
        Self::Older,
        Self::Signal,
        Self::None,
    ];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Privileged => "userfaultfd",
            Self::UserMode => "userfaultfd user mode",
            Self::Older => "userfaultfd as of 6.1",
            Self::Signal => "signal handler",
            Self::None => "none",
        })
    }
}

enum How {
    Watched(Uffd),
    Handled(Arc<Arena>),
    Still,
}

/// Addresses of this process whose accesses can wait. See the table of [`Strategy`]s.
///
/// ```
/// use backends::host::{HostSpace, Strategy};
/// use ttm::map::AddressSpace;
///
/// let space = HostSpace::probe();
/// println!("{}", space.describe());
/// let at = space.reserve(8192, 4096, 0).expect("addresses");
/// space.release(at);
/// assert!(!HostSpace::with(Strategy::None).unwrap().abilities().loads_wait);
/// ```
pub struct HostSpace {
    strategy: Strategy,
    how: How,
    /// A file without bytes.
    empty: File,
    /// What was reserved, by the first address.
    reserved: Mutex<BTreeMap<usize, usize>>,
    /// Whose writes are noted.
    tracked: Mutex<Vec<Addresses>>,
    stopped: AtomicBool,
}

impl HostSpace {
    /// The best that this process may have without installing a signal handler.
    ///
    /// # Panics
    /// If the process may not even have a memory file.
    #[must_use]
    pub fn probe() -> Self {
        let quiet = [Strategy::Privileged, Strategy::UserMode, Strategy::None];
        let found = quiet.into_iter().find_map(|s| Self::with(s).ok());
        found.expect("a memory file")
    }

    /// One strategy.
    ///
    /// # Errors
    /// [`Error::Backend`] if this process may not have it; the text says what it takes.
    pub fn with(strategy: Strategy) -> Result<Self> {
        let watched = |user_mode_only, mask| Uffd::open(user_mode_only, mask).map(How::Watched);
        let how = match strategy {
            Strategy::Privileged => watched(false, u64::MAX)?,
            Strategy::UserMode => watched(true, u64::MAX)?,
            Strategy::Older => {
                watched(false, feature::OF_6_1).or_else(|_| watched(true, feature::OF_6_1))?
            }
            Strategy::Signal => How::Handled(Arena::get().and_then(|arena| arena.alone())?),
            Strategy::None => How::Still,
        };
        Ok(Self {
            strategy,
            how,
            empty: empty_file()?,
            reserved: Mutex::new(BTreeMap::new()),
            tracked: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
        })
    }

    /// Which it is.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// What it is and can do, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Abilities {
            loads_wait,
            calls_wait,
            tracks_writes,
            ..
        } = self.abilities();
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let features = match &self.how {
            How::Watched(uffd) => format!(", features {:#x}", uffd.features()),
            _ => String::new(),
        };
        format!(
            "{}{features}: loads wait: {}, system calls wait: {}, writes are noted: {}",
            self.strategy,
            yes(loads_wait),
            yes(calls_wait),
            yes(tracks_writes)
        )
    }

    /// Sees to it that nobody changes other addresses than those that were reserved here.
    fn assert_ours(&self, at: Addresses) {
        let reserved = self.reserved.lock();
        let before = reserved.range(..=at.base).next_back();
        let inside = before.is_some_and(|(base, bytes)| at.end() <= base + bytes);
        assert!(inside, "{at:?} was not reserved here");
    }

    /// Empty memory over `at`, in which accesses wait.
    fn cover(&self, at: Addresses) -> io::Result<()> {
        match &self.how {
            How::Watched(uffd) => {
                let empty = Side::empty(at.bytes)?;
                uffd.watch_missing(empty.addresses())?;
                // Returns when somebody has read that it was moved.
                empty.move_to(at)
            }
            How::Handled(_) | How::Still => mapping::forbid(at),
        }
    }

    fn zap(&self, uffd: &Uffd, at: Addresses) -> io::Result<()> {
        let tracked = self.tracked.lock().contains(&at);
        let watched = match tracked {
            true => uffd.keep_watching_writes(at),
            false => uffd.watch(at),
        };
        // What cannot be watched, or is locked in memory, is replaced.
        match watched
            .map_err(io::Error::from)
            .and_then(|()| mapping::zap(at))
        {
            Ok(()) => Ok(()),
            Err(_) => self.cover(at),
        }
    }
}

/// A file that has no bytes and never will.
fn empty_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("ttm poison", flags)?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(File::from(file))
}

/// The system's number of the calling thread.
fn thread() -> u64 {
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            let raw = rustix::thread::gettid().as_raw_nonzero().get();
            number.set(u64::from(raw.unsigned_abs()));
        }
        number.get()
    })
}

/// Sides and where they go.
struct Prepared(Vec<(Side, Addresses)>);

impl AddressSpace for HostSpace {
    fn abilities(&self) -> Abilities {
        let (loads_wait, calls_wait, tracks_writes) = match &self.how {
            How::Watched(uffd) => (true, !uffd.is_user_mode_only(), uffd.tracks()),
            How::Handled(_) => (true, false, false),
            How::Still => (false, false, false),
        };
        Abilities {
            loads_wait,
            calls_wait,
            tracks_writes,
            thread: Some(thread),
        }
    }

    fn reserve(&self, bytes: usize, align: usize, phase: usize) -> Result<Addresses> {
        if let How::Handled(arena) = &self.how {
            let at = arena.take(bytes, align, phase)?;
            self.reserved.lock().insert(at.base, at.bytes);
            return Ok(at);
        }
        let side = Side::reserve(bytes, align, phase)?;
        side.keep_from_children()?;
        if let How::Watched(uffd) = &self.how {
            // Nobody knows these addresses yet.
            mapping::allow(side.addresses(), Access::ReadWrite)?;
            uffd.watch_missing(side.addresses())
                .map_err(io::Error::from)?;
        }
        let at = side.keep();
        self.reserved.lock().insert(at.base, at.bytes);
        Ok(at)
    }

    fn prepare(&self, pieces: &[Piece], access: Access, filled: bool) -> Result<Aside> {
        let side = |piece: &Piece| Ok((Side::of_file(piece, access, filled)?, piece.at));
        let sides = pieces.iter().map(side).collect::<io::Result<Vec<_>>>()?;
        Ok(Aside::new(Prepared(sides)))
    }

    fn switch(&self, aside: Aside) -> Result<()> {
        let prepared = aside.into_inner::<Prepared>();
        let prepared = prepared.ok_or(Error::Invalid("prepared by another address space"))?;
        for (side, at) in prepared.0 {
            self.assert_ours(at);
            if let Err(error) = side.move_to(at) {
                // What was there waits still, or is gone: then nobody else gets the addresses.
                mapping::fill_hole(at);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// # Panics
    /// If the addresses were not reserved here.
    fn revoke(&self, at: Addresses, how: Revoke) -> Result<()> {
        self.assert_ours(at);
        match (&self.how, how) {
            (How::Watched(uffd), Revoke::Zap) => self.zap(uffd, at)?,
            _ => self.cover(at)?,
        }
        Ok(())
    }

    fn wake(&self, at: Addresses) {
        match &self.how {
            How::Watched(uffd) => uffd.wake(at),
            How::Handled(arena) => arena.wake(),
            How::Still => {}
        }
    }

    /// # Panics
    /// If the addresses were not reserved here.
    fn poison(&self, at: Addresses) -> Result<()> {
        self.assert_ours(at);
        Ok(mapping::poison(at, &self.empty)?)
    }

    /// # Panics
    /// If the addresses were not reserved here, as a whole.
    fn release(&self, at: Addresses) {
        let bytes = self.reserved.lock().remove(&at.base);
        assert_eq!(bytes, Some(at.bytes), "{at:?} was not reserved here");
        match &self.how {
            How::Handled(arena) => {
                // Should that be refused, the addresses stay out of use.
                if mapping::forbid(at).is_ok() {
                    arena.give(at);
                }
            }
            _ => mapping::unmap(at),
        }
        self.tracked.lock().retain(|tracked| *tracked != at);
        self.wake(at);
    }

    fn tracking(&self) -> Option<&dyn WriteTracking> {
        self.abilities().tracks_writes.then_some(self)
    }
}

impl WriteTracking for HostSpace {
    fn track(&self, at: Addresses) -> Result<()> {
        self.assert_ours(at);
        let How::Watched(uffd) = &self.how else {
            return Err(Error::Unsupported("nothing here notes writes"));
        };
        uffd.watch_writes(at).map_err(io::Error::from)?;
        self.tracked.lock().push(at);
        Ok(())
    }

    fn written(&self, at: Addresses, each: &mut dyn FnMut(Range<usize>)) -> Result<()> {
        let How::Watched(uffd) = &self.how else {
            return Err(Error::Unsupported("nothing here notes writes"));
        };
        self.tracked.lock().retain(|tracked| *tracked != at);
        Ok(uffd.scan(at, each)?)
    }
}

impl FaultSource for HostSpace {
    fn next(&self) -> Option<Fault> {
        match &self.how {
            How::Watched(uffd) => uffd.next(),
            How::Handled(arena) => loop {
                if self.stopped.load(Ordering::SeqCst) {
                    return None;
                }
                if let Some(fault) = arena.next() {
                    return Some(fault);
                }
            },
            // Nothing ever waits.
            How::Still => None,
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        match &self.how {
            How::Watched(uffd) => uffd.stop(),
            How::Handled(arena) => arena.nudge(),
            How::Still => {}
        }
    }
}

impl fmt::Debug for HostSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostSpace({})", self.strategy)
    }
}
