//! Small machines in memory, for the examples of the documentation and for tests: what the CPU sees
//! and what a device sees are two things, and a sync that is missing shows.
//!
//! ```text
//!   CPU ──▶ view, by lines ──clean──▶ memory ◀── device, or its bounce pool
//!                          ◀─invalidate──
//! ```
//!
//! A line is dirty where the view differs from what it was filled with. [`FakeMemory::tick`] lets
//! lines be written back and fetched by themselves, as caches may at any time.

mod device;
mod memory;

pub use device::{FakeDevice, FakeTables};
pub use memory::FakeMemory;

use super::{
    BounceBytes, BouncePool, DmaAddr, DmaDevice, IovaConfig, Mask, Path, SegmentParms, Tri, Verdict,
};
use crate::clock::{Blocking, Clock, Time};
use crate::pages::{FrameSpan, PageSource};
use crate::sync::Arc;
use placement::PAGE_SIZE;

/// How a device gets to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// Directly, and its accesses snoop.
    Coherent,
    /// Directly, and they do not.
    Deaf,
    /// Directly, they do not, and the verdict says they do.
    DeafAndDenied,
    /// Everything that is mapped is to be copied.
    Forced,
    /// It reaches less than there is.
    Narrow,
    /// By tables; it snoops.
    Translated,
    /// By tables; it does not snoop.
    TranslatedDeaf,
    /// By tables; it snoops and is not trusted.
    Untrusted,
}

impl Platform {
    /// All that tell the truth.
    pub const ALL: [Self; 7] = [
        Self::Coherent,
        Self::Deaf,
        Self::Forced,
        Self::Narrow,
        Self::Translated,
        Self::TranslatedDeaf,
        Self::Untrusted,
    ];

    fn verdict(self) -> Verdict {
        let path = match self.translates() {
            true => Path::Translated { strict: true },
            false => Path::Direct,
        };
        let seen = Verdict {
            device: "card".into(),
            ..Verdict::for_tests(path)
        };
        match self {
            Self::Deaf | Self::TranslatedDeaf => Verdict {
                snoop: Tri::No,
                ..seen
            },
            Self::Forced => Verdict {
                forced_bounce: Tri::Yes,
                ..seen
            },
            Self::Narrow => Verdict {
                mask: Mask::bits(32),
                bounce_pool: Tri::Yes,
                ..seen
            },
            Self::Untrusted => Verdict {
                untrusted: Tri::Yes,
                ..seen
            },
            Self::Coherent | Self::DeafAndDenied | Self::Translated => seen,
        }
    }

    const fn snoops(self) -> bool {
        !matches!(
            self,
            Self::Deaf | Self::DeafAndDenied | Self::TranslatedDeaf
        )
    }

    const fn translates(self) -> bool {
        matches!(
            self,
            Self::Translated | Self::TranslatedDeaf | Self::Untrusted
        )
    }
}

/// Where the device finds the bounce pool.
const POOL_AT: u64 = 0x10_0000;

/// Bytes of it.
const POOL_BYTES: usize = 1 << 20;

/// Frames that there are; half of them are within 32 bits.
const FRAMES: u64 = 512;

/// A memory, and a device that is mapped for.
#[derive(Debug)]
pub struct Machine {
    /// The platform.
    pub platform: Platform,
    /// Its memory.
    pub memory: Arc<FakeMemory>,
    /// Its bounce pool.
    pub pool: Arc<BouncePool<Arc<BounceBytes>>>,
    /// The device as it is mapped for.
    pub dma: Arc<DmaDevice>,
    /// The device as it reads and writes.
    pub device: FakeDevice,
}

impl Machine {
    /// A machine whose caches do what `seed` says.
    #[must_use]
    pub fn new(platform: Platform, seed: u64) -> Self {
        Self::with(platform, seed, |device| device)
    }

    /// The same with a device that `setup` has changed, such as by a ledger.
    ///
    /// # Panics
    /// Never: the device is one that can be.
    #[must_use]
    pub fn with(platform: Platform, seed: u64, setup: impl Fn(DmaDevice) -> DmaDevice) -> Self {
        let first = (1 << 20) - FRAMES / 2;
        let claims = platform.snoops() || platform == Platform::DeafAndDenied;
        let memory = FakeMemory::new(first, FRAMES, platform.snoops(), claims, seed);
        Self::beside(platform, memory, setup)
    }

    /// A machine with another device on the same memory.
    ///
    /// # Panics
    /// Never: the device is one that can be.
    #[must_use]
    pub fn beside(
        platform: Platform,
        memory: Arc<FakeMemory>,
        setup: impl Fn(DmaDevice) -> DmaDevice,
    ) -> Self {
        let bytes = Arc::new(BounceBytes::new(vec![0xee; POOL_BYTES]));
        let base = DmaAddr::new(POOL_AT).expect("a low address");
        let pool = BouncePool::new(Arc::clone(&bytes), base, 1).expect("a whole set");
        let pool = Arc::new(pool);
        let tables = platform.translates().then(FakeTables::new);
        let (verdict, parms) = (platform.verdict(), SegmentParms::DEFAULT);
        let device = match &tables {
            Some(tables) => DmaDevice::translated(
                verdict,
                parms,
                // What lies below is the pool's.
                IovaConfig {
                    reserved: vec![0..=(1 << 24) - 1],
                    ..IovaConfig::default()
                },
                Arc::clone(tables) as _,
                clock(),
            ),
            None => DmaDevice::direct(verdict, parms, |span: FrameSpan| {
                Some(span.first * PAGE_SIZE)
            }),
        };
        let device = device
            .expect("parameters that work")
            .with_bounce(Arc::clone(&pool));
        Self {
            platform,
            device: FakeDevice::new(Arc::clone(&memory), bytes, POOL_AT, tables),
            memory,
            pool,
            dma: Arc::new(setup(device)),
        }
    }

    /// Its memory, as frames are had from.
    #[must_use]
    pub fn source(&self) -> Arc<dyn PageSource> {
        Arc::clone(&self.memory) as _
    }
}

/// A clock that stands still.
#[must_use]
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(Blocking::new(|| Time::ZERO))
}
