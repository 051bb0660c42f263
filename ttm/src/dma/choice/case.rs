//! What the table is asked.

use crate::dma::{Mask, NotCoherent, Path, Tri, Verdict};

/// Who uses the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Share {
    /// One device.
    #[default]
    Exclusive,
    /// Several: a copy would be one of them's.
    Shared,
}

/// How the CPU uses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CpuUse {
    /// Each use is bracketed: there are points at which to sync.
    Bracketed,
    /// It is mapped for users, who say nothing.
    #[default]
    Persistent,
}

/// Where the memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Memory {
    /// It is still to be allocated: it can be had where the device reaches it.
    #[default]
    Ours,
    /// It is there already, and ends at this byte.
    Foreign {
        /// The last byte, as the CPU counts them.
        end: u64,
    },
}

/// How its ends lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Ends {
    /// At pages of the IOMMU, nothing else in them.
    #[default]
    Granule,
    /// At cache lines.
    Line,
    /// Within a line that something else is in.
    Neither,
}

/// Whether the maintenance of the caches is to be left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SkipSync {
    /// No.
    #[default]
    No,
    /// Yes: a device owns the buffer already.
    Proven,
    /// Yes, without a proof.
    Unproven,
}

/// What is to be used by a device, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// Who uses it.
    pub share: Share,
    /// How the CPU uses it.
    pub cpu_use: CpuUse,
    /// Where it comes from.
    pub memory: Memory,
    /// How its ends lie.
    pub ends: Ends,
    /// Whether the device writes it.
    pub device_writes: bool,
    /// An I/O address that it is to have, with its last byte.
    pub io_end: Option<u64>,
    /// Whether maintenance is to be left out.
    pub skip_sync: SkipSync,
    /// Fail rather than sync or copy.
    pub coherent: bool,
    /// Copying it on its way is allowed.
    pub allow_bounce: bool,
    /// Coherent memory can be had.
    pub coherent_memory: bool,
    /// What is unmapped is to be out of reach at once.
    pub revocable: bool,
}

/// A graphics driver's buffer: allocated for the device, page by page, and mapped for users.
impl Default for Need {
    fn default() -> Self {
        Self {
            share: Share::Exclusive,
            cpu_use: CpuUse::Persistent,
            memory: Memory::Ours,
            ends: Ends::Granule,
            device_writes: true,
            io_end: None,
            skip_sync: SkipSync::No,
            coherent: false,
            allow_bounce: false,
            coherent_memory: true,
            revocable: false,
        }
    }
}

impl Need {
    /// What a device of the manager's needs of system pages: they are still to be allocated, and each
    /// use by the device is bracketed by moves, which keep the CPU out.
    #[must_use]
    pub fn managed() -> Self {
        Self {
            cpu_use: CpuUse::Bracketed,
            ..Self::default()
        }
    }
}

/// The way, as the table has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Way {
    Direct,
    Identity,
    Translated,
    /// Owned, and whether the IOMMU forces its requests to snoop.
    Owned(bool),
    Unknown,
}

/// Where the memory lies for the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Lies {
    Ours,
    Below,
    Above,
}

/// Everything that a row may look at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Case {
    pub(super) way: Way,
    /// Whether accesses snoop, all taken together.
    pub(super) snoop: Tri,
    /// The device asks not to snoop.
    pub(super) asks_not_to: bool,
    /// Everything on a direct path is copied, or nobody knows that it is not.
    pub(super) forced: bool,
    /// Some memory is out of reach.
    pub(super) limited: bool,
    pub(super) lies: Lies,
    pub(super) untrusted: bool,
    pub(super) encrypted: bool,
    pub(super) restricted: bool,
    pub(super) io_above: bool,
    pub(super) shared: bool,
    pub(super) persistent: bool,
    pub(super) ends: Ends,
    pub(super) device_writes: bool,
    pub(super) skip: SkipSync,
    pub(super) coherent: bool,
    pub(super) allow_bounce: bool,
    pub(super) pool: bool,
    pub(super) coherent_memory: bool,
    /// What the device reaches, for errors.
    pub(super) mask: Mask,
    /// The last byte that it would have to reach, for errors.
    pub(super) end: u64,
}

impl Case {
    pub(super) fn new(verdict: &Verdict, need: &Need) -> Self {
        let way = match verdict.path {
            Path::Direct => Way::Direct,
            Path::Identity => Way::Identity,
            Path::Translated { .. } => Way::Translated,
            Path::Owned { forces_snoop } => Way::Owned(forces_snoop.is_yes()),
            Path::Blocked | Path::Unknown => Way::Unknown,
        };
        let lies = match need.memory {
            Memory::Ours => Lies::Ours,
            Memory::Foreign { end } if end <= verdict.mask.last() => Lies::Below,
            Memory::Foreign { .. } => Lies::Above,
        };
        Self {
            way,
            snoop: verdict.snoops(),
            asks_not_to: verdict.asks_not_to,
            forced: !verdict.forced_bounce.is_no(),
            limited: verdict.mask < verdict.required || lies == Lies::Above,
            lies,
            untrusted: verdict.untrusted.is_yes(),
            encrypted: verdict.encrypted.is_yes(),
            restricted: verdict.restricted.is_yes(),
            io_above: need.io_end.is_some_and(|end| end > verdict.mask.last()),
            shared: need.share == Share::Shared,
            persistent: need.cpu_use == CpuUse::Persistent,
            ends: need.ends,
            device_writes: need.device_writes,
            skip: need.skip_sync,
            coherent: need.coherent,
            allow_bounce: need.allow_bounce,
            pool: !verdict.bounce_pool.is_no(),
            coherent_memory: need.coherent_memory,
            mask: verdict.mask,
            end: verdict.required.last(),
        }
    }

    pub(super) fn ours(&self) -> bool {
        self.lies == Lies::Ours
    }

    pub(super) fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct | Way::Identity)
    }

    /// There are points at which to copy, and nobody else who would see the copy.
    pub(super) fn can_be_copied(&self) -> bool {
        !self.shared && !self.persistent && self.skip == SkipSync::No
    }

    /// A line that something else is in would be written by both.
    pub(super) fn tears_lines(&self) -> bool {
        self.ends == Ends::Neither && self.device_writes
    }

    /// Why the buffer may be copied on its way if it is mapped as it is.
    pub(super) fn bounces(&self) -> Option<NotCoherent> {
        let maybe_direct = self.is_direct() || self.way == Way::Unknown;
        if self.restricted {
            Some(NotCoherent::RestrictedPool)
        } else if self.encrypted {
            Some(NotCoherent::EncryptedMemory)
        } else if maybe_direct && self.forced {
            Some(NotCoherent::ForcedBounce)
        } else if maybe_direct && self.limited && self.lies != Lies::Below {
            let Self { mask, end, .. } = *self;
            Some(NotCoherent::AboveMask { end, mask })
        } else if self.way == Way::Translated && self.untrusted && self.ends != Ends::Granule {
            Some(NotCoherent::UntrustedUnaligned)
        } else {
            None
        }
    }

    /// Whose fault it is that coherency cannot be promised.
    pub(super) fn cause(&self) -> NotCoherent {
        self.bounces().unwrap_or(match self.snoop.is_no() {
            true => NotCoherent::DeviceDoesNotSnoop,
            false => NotCoherent::Unknown,
        })
    }
}
