//! What is known of a device's way to memory, and from where.
//!
//! Path, snooping and bouncing are three questions with three answers. A translated path can be
//! incoherent, a direct one can snoop and still copy everything.

use core::fmt;

use super::{Mask, Tri};

/// By which way a device's accesses reach memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Path {
    /// No IOMMU is in between: addresses are the memory's own.
    Direct,
    /// An IOMMU that lets the addresses through as they are.
    Identity,
    /// An IOMMU translates.
    Translated {
        /// What is unmapped is unreachable at once; else a while later.
        strict: bool,
    },
    /// The process owns the device and its translations (VFIO, iommufd).
    Owned {
        /// The IOMMU makes requests snoop that ask not to.
        forces_snoop: Tri,
    },
    /// It reaches nothing.
    Blocked,
    /// Nobody knows.
    #[default]
    Unknown,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Identity => "identity",
            Self::Translated { strict: true } => "translated",
            Self::Translated { strict: false } => "translated, lazy",
            Self::Owned { .. } => "owned",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        })
    }
}

/// How far a source is to be believed; of two that disagree, the stronger counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Trust {
    /// A rule of thumb.
    Guess,
    /// What somebody wanted, such as the kernel's command line.
    Intent,
    /// What the kernel or the firmware says.
    Declared,
    /// What was tried.
    Measured,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Guess => "guess",
            Self::Intent => "intent",
            Self::Declared => "declared",
            Self::Measured => "measured",
        })
    }
}

/// What a fact is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Topic {
    /// The way to memory.
    Path,
    /// Whether the device's accesses look into the CPU's caches.
    Snoop,
    /// Whether the device may make such as do not.
    NoSnoop,
    /// Whether an IOMMU makes them, even those that ask not to.
    ForcedSnoop,
    /// Whether everything is copied on its way.
    ForcedBounce,
    /// Whether there is a pool to copy to.
    BouncePool,
    /// Whether the device may reach only a pool of its own.
    RestrictedPool,
    /// What addresses the device reaches.
    Mask,
    /// What I/O addresses can be mapped, and how.
    Iova,
    /// What addresses memory has.
    Memory,
    /// Whether the device is trusted.
    Trust,
    /// Whether memory is encrypted for this guest.
    Encryption,
    /// The length of a cache line.
    Line,
    /// Where the device sits and what it has, which decides nothing.
    Hardware,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Path => "path",
            Self::Snoop => "snoop",
            Self::NoSnoop => "no-snoop requests",
            Self::ForcedSnoop => "forced snoop",
            Self::ForcedBounce => "forced bounce",
            Self::BouncePool => "bounce pool",
            Self::RestrictedPool => "restricted pool",
            Self::Mask => "mask",
            Self::Iova => "I/O addresses",
            Self::Memory => "memory",
            Self::Trust => "trust",
            Self::Encryption => "encryption",
            Self::Line => "cache line",
            Self::Hardware => "hardware",
        })
    }
}

/// When what is mapped as it is may be copied on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BouncePolicy {
    /// Never.
    Never,
    /// What lies out of the device's reach.
    IfUnreachable,
    /// What does not begin and end at pages of the IOMMU.
    IfUnaligned,
    /// Everything.
    Always,
    /// Nobody knows.
    Unknown,
}

impl fmt::Display for BouncePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Never => "never",
            Self::IfUnreachable => "if out of reach",
            Self::IfUnaligned => "if unaligned",
            Self::Always => "always",
            Self::Unknown => "unknown",
        })
    }
}

/// Something that a source says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// What it is about.
    pub topic: Topic,
    /// What it says, for people.
    pub says: String,
    /// Where that was read.
    pub source: String,
    /// How far it is to be believed.
    pub trust: Trust,
    /// Whether reading it took privileges.
    pub privileged: bool,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            says,
            source,
            trust,
            ..
        } = self;
        write!(f, "{topic}: {says} [{source}, {trust}]")
    }
}

/// A source that could not be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// The source.
    pub source: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)
    }
}

/// What a driver cannot do without.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Coherency {
    /// The CPU and the device see the same in system pages, without syncs.
    Streaming,
}

/// What is known of a device's way to memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The device, for people.
    pub device: String,
    /// The way.
    pub path: Path,
    /// Whether the device's accesses look into the CPU's caches.
    pub snoop: Tri,
    /// Whether the device is known to make requests that do not.
    pub asks_not_to: bool,
    /// Whether it may make such requests, by the setting that PCI Express has for that. Most may and
    /// do not: that it may does not make it [`asks_not_to`](Self::asks_not_to).
    pub may_ask_not_to: Tri,
    /// Whether the platform copies everything that is mapped on a direct path.
    pub forced_bounce: Tri,
    /// Whether it has a pool to copy to.
    pub bounce_pool: Tri,
    /// Whether the device may reach a pool of its own and nothing else.
    pub restricted: Tri,
    /// Whether it is kept apart as not trusted.
    pub untrusted: Tri,
    /// Whether this guest's memory is encrypted.
    pub encrypted: Tri,
    /// What it reaches.
    pub mask: Mask,
    /// What reaches all memory.
    pub required: Mask,
    /// Bytes of a cache line.
    pub line: u32,
    /// What was found, in the order in which it was.
    pub facts: Vec<Fact>,
    /// What could not be asked.
    pub missing: Vec<Missing>,
    /// Facts that contradict each other, in words.
    pub conflicts: Vec<String>,
}

impl Verdict {
    /// Nothing is known of the device but its name.
    #[must_use]
    pub fn unknown(device: &str) -> Self {
        Self {
            device: device.into(),
            path: Path::Unknown,
            snoop: Tri::Unknown,
            asks_not_to: false,
            may_ask_not_to: Tri::Unknown,
            forced_bounce: Tri::Unknown,
            bounce_pool: Tri::Unknown,
            restricted: Tri::Unknown,
            untrusted: Tri::Unknown,
            encrypted: Tri::Unknown,
            mask: Mask::DEFAULT,
            required: Mask::ALL,
            line: 64,
            facts: Vec::new(),
            missing: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    /// The same without what it was found by: to be copied often.
    pub(super) fn without_facts(&self) -> Self {
        Self {
            device: String::new(),
            facts: Vec::new(),
            missing: Vec::new(),
            conflicts: Vec::new(),
            ..self.clone()
        }
    }

    /// For tests: a device that snoops, reaches everything, and is copied for by nobody.
    #[doc(hidden)]
    #[must_use]
    pub fn for_tests(path: Path) -> Self {
        Self {
            path,
            snoop: Tri::Yes,
            forced_bounce: Tri::No,
            restricted: Tri::No,
            untrusted: Tri::No,
            encrypted: Tri::No,
            mask: Mask::ALL,
            required: Mask::bits(35),
            ..Self::unknown("dev")
        }
    }

    /// Whether its accesses look into the CPU's caches, all that is known taken together: an IOMMU
    /// that forces them to, requests that ask not to, memory that may be encrypted.
    #[must_use]
    pub fn snoops(&self) -> Tri {
        let (path, encrypted) = (self.path, self.encrypted);
        match path {
            Path::Owned {
                forces_snoop: Tri::Yes,
            } => Tri::Yes,
            _ if self.asks_not_to => Tri::No,
            Path::Unknown | Path::Blocked if self.snoop.is_yes() => Tri::Unknown,
            _ if self.snoop.is_yes() && encrypted == Tri::Unknown => Tri::Unknown,
            _ => self.snoop,
        }
    }

    /// When what is mapped as it is may be copied on its way.
    #[must_use]
    pub fn bounce(&self) -> BouncePolicy {
        if self.restricted.is_yes() || self.encrypted.is_yes() {
            return BouncePolicy::Always;
        }
        match self.path {
            Path::Direct | Path::Identity => match self.forced_bounce {
                Tri::Yes => BouncePolicy::Always,
                Tri::Unknown => BouncePolicy::Unknown,
                Tri::No if self.mask < self.required => BouncePolicy::IfUnreachable,
                Tri::No => BouncePolicy::Never,
            },
            Path::Translated { .. } if self.untrusted.is_yes() => BouncePolicy::IfUnaligned,
            Path::Translated { .. } | Path::Owned { .. } => BouncePolicy::Never,
            Path::Blocked | Path::Unknown => BouncePolicy::Unknown,
        }
    }

    /// Whether memory that is mapped as it is, page by page and wherever it lies, is seen alike by
    /// the CPU and the device without a sync. `None` if that cannot be known.
    ///
    /// This is the answer to the question that drivers ask; what to do is
    /// [`choose`](super::choose)'s.
    #[must_use]
    pub fn streaming_is_coherent(&self) -> Option<bool> {
        match self.bounce() {
            BouncePolicy::Always | BouncePolicy::IfUnreachable => Some(false),
            _ if self.snoops().is_no() => Some(false),
            BouncePolicy::Unknown => None,
            // Whole pages are always aligned.
            BouncePolicy::Never | BouncePolicy::IfUnaligned => {
                self.snoops().is_yes().then_some(true)
            }
        }
    }

    /// What is said of `topic`.
    pub fn about(&self, topic: Topic) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(move |fact| fact.topic == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct() -> Verdict {
        Verdict::for_tests(Path::Direct)
    }

    #[test]
    fn not_knowing_is_never_yes() {
        assert_eq!(direct().streaming_is_coherent(), Some(true));
        for blind in [
            Verdict {
                snoop: Tri::Unknown,
                ..direct()
            },
            Verdict {
                path: Path::Unknown,
                ..direct()
            },
            Verdict {
                forced_bounce: Tri::Unknown,
                ..direct()
            },
            Verdict {
                encrypted: Tri::Unknown,
                ..direct()
            },
        ] {
            assert_eq!(blind.streaming_is_coherent(), None, "{blind:?}");
        }
    }

    #[test]
    fn a_bounce_is_incoherent_whatever_snoops() {
        for bounced in [
            Verdict {
                forced_bounce: Tri::Yes,
                ..direct()
            },
            Verdict {
                mask: Mask::bits(28),
                ..direct()
            },
            Verdict {
                restricted: Tri::Yes,
                ..direct()
            },
            Verdict {
                snoop: Tri::No,
                ..direct()
            },
        ] {
            assert_eq!(bounced.streaming_is_coherent(), Some(false), "{bounced:?}");
        }
        // Forced bouncing is for direct paths only.
        let translated = Verdict {
            path: Path::Translated { strict: true },
            forced_bounce: Tri::Yes,
            mask: Mask::bits(28),
            ..direct()
        };
        assert_eq!(translated.streaming_is_coherent(), Some(true));
    }
}
