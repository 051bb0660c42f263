//! Named places where a test, or a person at the simulator, can make this crate fail.
//!
//! A device asks its [`Faults`] at each site before the step that the site names. Without any
//! (the default) a site costs one test of a pointer, and there is none on the hot path.

use core::fmt;

/// A place inside the manager that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Site {
    /// Locking an object answers `Deadlock`.
    Lock,
    /// Reserving fence slots runs out of memory.
    FenceSlots,
    /// Making an object runs out of memory.
    Create,
    /// A manager says that it is full.
    Take,
    /// There is no memory behind space that a manager gave.
    Provide,
    /// Frames run out.
    Frames,
    /// The records that a swap-out will need cannot be allocated.
    Records,
    /// A move fails after its target was taken and before anything was copied.
    MoveStart,
    /// A move fails after everything was prepared, just before its point of no return.
    MoveCommit,
    /// The backup refuses a store.
    BackupStore,
    /// The backup refuses a load.
    BackupLoad,
    /// Frames keep their cache mode.
    CacheSwitch,
    /// Accesses through windows cannot be made to wait.
    Revoke,
    /// A window cannot be mapped over what it is to show.
    Show,
    /// System pages cannot be mapped for the device.
    Map,
}

impl Site {
    /// All sites, in the order in which an operation usually meets them.
    pub const ALL: [Self; 15] = [
        Self::Create,
        Self::Lock,
        Self::FenceSlots,
        Self::Take,
        Self::Provide,
        Self::Records,
        Self::Frames,
        Self::Map,
        Self::MoveStart,
        Self::MoveCommit,
        Self::BackupStore,
        Self::BackupLoad,
        Self::CacheSwitch,
        Self::Revoke,
        Self::Show,
    ];

    /// The name under which people inject it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "ttm.create",
            Self::Lock => "ttm.lock",
            Self::FenceSlots => "ttm.fence-slots",
            Self::Take => "ttm.take",
            Self::Provide => "ttm.provide",
            Self::Records => "ttm.records",
            Self::Frames => "ttm.frames",
            Self::MoveStart => "ttm.move-start",
            Self::MoveCommit => "ttm.move-commit",
            Self::BackupStore => "ttm.backup-store",
            Self::BackupLoad => "ttm.backup-load",
            Self::CacheSwitch => "ttm.cache-switch",
            Self::Revoke => "ttm.revoke",
            Self::Show => "ttm.show",
            Self::Map => "ttm.map",
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Decides which steps fail.
pub trait Faults: Send + Sync {
    /// Counts the site; true makes the step fail.
    fn hit(&self, site: Site) -> bool;
}
