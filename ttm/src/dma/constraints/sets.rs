//! The sets that constraints are about: cache modes, kinds of storage, encryption.

use core::fmt;

use placement::CacheMode;

/// Some of the cache modes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheModes(u8);

impl CacheModes {
    /// Every mode.
    pub const ALL: Self = Self::of(&CacheMode::ALL);

    /// Those modes.
    #[must_use]
    pub const fn of(modes: &[CacheMode]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < modes.len() {
            bits |= 1 << modes[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Whether the mode is one of them.
    #[must_use]
    pub const fn contains(self, mode: CacheMode) -> bool {
        self.0 & (1 << mode as u8) != 0
    }

    /// The modes in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The modes, from the one that the CPU likes best.
    pub fn iter(self) -> impl Iterator<Item = CacheMode> {
        let all = CacheMode::ALL.into_iter();
        all.filter(move |mode| self.contains(*mode))
    }
}

impl fmt::Display for CacheModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        alternatives(f, self.iter())
    }
}

impl fmt::Debug for CacheModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A kind of memory that can store a buffer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StorageKind {
    /// Memory of the host's, anywhere.
    Ram,
    /// Memory of the host's below the masks of all devices.
    RamBelowMask,
    /// Memory of a device's. It has no frames of the host's.
    DeviceMemory,
    /// Memory of an encrypted guest's that it shares with its host and so with every device.
    SharedEncrypted,
}

impl StorageKind {
    /// All of them; where nobody prefers any, the first is best.
    pub const ALL: [Self; 4] = [
        Self::Ram,
        Self::RamBelowMask,
        Self::DeviceMemory,
        Self::SharedEncrypted,
    ];
}

impl fmt::Display for StorageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ram => "RAM",
            Self::RamBelowMask => "RAM below the mask",
            Self::DeviceMemory => "device memory",
            Self::SharedEncrypted => "memory shared with the host",
        })
    }
}

/// Some of the kinds of storage, in order of preference.
///
/// Where two disagree about the order, what is in both is ordered by its worse place of the two:
/// so it does not matter who was asked first.
///
/// ```
/// use ttm::dma::{StorageKind, StorageKinds};
///
/// let card = StorageKinds::ordered(&[StorageKind::DeviceMemory, StorageKind::Ram]);
/// let camera = StorageKinds::ordered(&[StorageKind::RamBelowMask]);
/// let both = card.intersection(camera);
/// // RAM below a mask is RAM.
/// assert_eq!(both.first(), Some(StorageKind::RamBelowMask));
/// assert!(!both.contains(StorageKind::DeviceMemory));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StorageKinds([Option<u8>; StorageKind::ALL.len()]);

impl StorageKinds {
    /// Every kind, none preferred.
    pub const ANY: Self = Self([Some(0); StorageKind::ALL.len()]);

    /// Those kinds, the best first. Who takes RAM takes RAM below a mask as well, if next.
    #[must_use]
    pub fn ordered(kinds: &[StorageKind]) -> Self {
        let mut ranks = [None; StorageKind::ALL.len()];
        for (rank, kind) in (0u8..).step_by(2).zip(kinds) {
            ranks[*kind as usize].get_or_insert(rank);
        }
        if let Some(rank) = ranks[StorageKind::Ram as usize] {
            ranks[StorageKind::RamBelowMask as usize].get_or_insert(rank + 1);
        }
        Self(ranks)
    }

    /// Whether the kind is one of them.
    #[must_use]
    pub const fn contains(self, kind: StorageKind) -> bool {
        self.0[kind as usize].is_some()
    }

    /// The kinds in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let mut ranks = self.0;
        for (rank, theirs) in ranks.iter_mut().zip(other.0) {
            *rank = rank.zip(theirs).map(|(a, b)| a.max(b));
        }
        Self(ranks)
    }

    /// Those kinds for which `keep` says so.
    #[must_use]
    pub fn filter(self, keep: impl Fn(StorageKind) -> bool) -> Self {
        let mut ranks = self.0;
        for kind in StorageKind::ALL {
            if !keep(kind) {
                ranks[kind as usize] = None;
            }
        }
        Self(ranks)
    }

    /// The best, if there is any.
    #[must_use]
    pub fn first(self) -> Option<StorageKind> {
        self.iter().next()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.first().is_none()
    }

    /// The kinds, the best first.
    pub fn iter(self) -> impl Iterator<Item = StorageKind> {
        let mut kinds = StorageKind::ALL;
        kinds.sort_by_key(|kind| self.0[*kind as usize]);
        kinds.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl fmt::Display for StorageKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        alternatives(f, self.iter())
    }
}

impl fmt::Debug for StorageKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Which memory of an encrypted guest's can be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Encryption {
    /// Any: there is no encryption, or it is no matter.
    #[default]
    Any,
    /// Only what is encrypted.
    Encrypted,
    /// Only what is not.
    Clear,
    /// Only what the guest shares with its host.
    SharedOnly,
}

impl Encryption {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Any, Self::Encrypted, Self::Clear, Self::SharedOnly];

    /// What both can read.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => one,
            (a, b) if a == b => a,
            _ => Self::SharedOnly,
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "encrypted or not",
            Self::Encrypted => "encrypted",
            Self::Clear => "not encrypted",
            Self::SharedOnly => "shared with the host",
        })
    }
}

/// One or the other.
fn alternatives<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    all: impl Iterator<Item = T>,
) -> fmt::Result {
    let mut any = false;
    for one in all {
        let before = if any { " or " } else { "" };
        write!(f, "{before}{one}")?;
        any = true;
    }
    match any {
        true => Ok(()),
        false => f.write_str("none"),
    }
}
