//! Platforms that a fake device can be in.
//!
//! What the platform does to the device's accesses is real: who manages memory there against the
//! [verdict](Platform::verdict) loses data, and sees it.

use core::fmt;

use placement::PageCount;
use ttm::dma::{Fact, Mask, Path, Topic, Tri, Trust, Verdict};

use super::cache::CacheModel;
use super::gpu::GpuConfig;
use super::link::Link;
use super::memory::SimMemory;

/// A platform, by name.
///
/// ```
/// use backends::sim::Platform;
/// use ttm::dma::{Code, Need, choose};
///
/// let platform = Platform::named("bounce-forced").expect("it is one of them");
/// let choice = choose(&platform.verdict(), &Need::default());
/// assert_eq!(choice.code, Code::D09);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Platform {
    name: &'static str,
    says: &'static str,
    path: Path,
    snoop: Tri,
    link: Link,
    untrusted: bool,
}

const fn plain(name: &'static str, says: &'static str, path: Path) -> Platform {
    Platform {
        name,
        says,
        path,
        snoop: Tri::Yes,
        link: Link::Plain,
        untrusted: false,
    }
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 10] = [
        plain(
            "coherent",
            "no IOMMU; everything is seen as it is",
            Path::Direct,
        ),
        Self {
            link: Link::Copied,
            ..plain(
                "bounce-forced",
                "what is mapped for the device is copied, what is allocated for it is not",
                Path::Direct,
            )
        },
        plain(
            "iommu-amd",
            "behind a translating IOMMU",
            Path::Translated { strict: true },
        ),
        plain(
            "iommu-intel",
            "behind a translating IOMMU, lazily invalidated",
            Path::Translated { strict: false },
        ),
        plain(
            "identity",
            "an IOMMU that lets addresses through",
            Path::Identity,
        ),
        Self {
            snoop: Tri::No,
            ..plain(
                "non-snooping",
                "the device does not see the CPU's caches",
                Path::Direct,
            )
        },
        Self {
            link: Link::Narrow(28),
            ..plain(
                "mask-28",
                "the device has 28 address lines, and memory lies above them too",
                Path::Direct,
            )
        },
        Self {
            link: Link::Narrow(32),
            ..plain(
                "mask-32",
                "the device has 32 address lines, and memory lies above them too",
                Path::Identity,
            )
        },
        Self {
            untrusted: true,
            ..plain(
                "untrusted",
                "a device that was plugged in, behind a translating IOMMU",
                Path::Translated { strict: true },
            )
        },
        Self {
            link: Link::Encrypted,
            ..plain(
                "encrypted",
                "a guest whose memory is encrypted, except what is allocated for the device",
                Path::Direct,
            )
        },
    ];

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.name == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it is.
    #[must_use]
    pub const fn says(&self) -> &'static str {
        self.says
    }

    /// The memory of the machine: 255 MiB that every device reaches, and 64 GiB above 4 GiB. `seed`
    /// is for what caches do by themselves, where there are some.
    #[must_use]
    pub fn memory(&self, seed: u64) -> SimMemory {
        let pages = |n| PageCount::new(n).expect("a size");
        let memory = SimMemory::new(pages(64 << 18)).dma32(pages(255 << 8));
        match self.snoop {
            Tri::No => memory.cache(CacheModel::seeded(seed)),
            _ => memory.link(self.link),
        }
    }

    /// Puts a card into the platform: its memory, and what lies between the two. `seed` is for what
    /// caches do by themselves, where there are some.
    pub fn put(&self, card: &mut GpuConfig, seed: u64) {
        card.memory = self.memory(seed);
        card.translated = matches!(self.path, Path::Translated { .. });
    }

    /// What a probe of the platform would say of the device.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mask = match self.link {
            Link::Narrow(bits) => Mask::bits(bits),
            _ => Mask::ALL,
        };
        let fact = |topic, says: String| Fact {
            topic,
            says,
            source: format!("platform {}", self.name),
            trust: Trust::Declared,
            privileged: false,
        };
        Verdict {
            path: self.path,
            snoop: self.snoop,
            forced_bounce: (self.link == Link::Copied).into(),
            bounce_pool: Tri::No,
            restricted: Tri::No,
            untrusted: self.untrusted.into(),
            encrypted: (self.link == Link::Encrypted).into(),
            mask,
            required: Mask::bits(37),
            facts: vec![
                fact(Topic::Path, self.path.to_string()),
                fact(Topic::Snoop, self.snoop.to_string()),
                fact(Topic::Mask, mask.to_string()),
            ],
            ..Verdict::unknown("the fake card")
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
