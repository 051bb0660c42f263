//! A fake device with VRAM, deterministic, honest about time, and able to fail on command.
//!
//! - [`VirtualClock`]: clients are threads that take turns; waiting advances time; nobody left to
//!   wake is a stall with its wait graph.
//! - [`Gpu`]: VRAM of any size with a CPU window of any size, copy engines with bandwidth and
//!   latency, [`Queue`]s that run kernels through the device's own view of memory, contents real
//!   or off. On a virtual clock or on the wall clock.
//! - [`SimMemory`]: the system memory around it. Frames have physical addresses in zones and on
//!   nodes, and with a [`CacheModel`] CPU and device see different bytes until caches are
//!   maintained.
//! - [`IoSpace`]: an IOMMU's address space, which the device's accesses are translated by.
//! - [`Inject`]: named places that fail, once or for ever, counted.
//! - [`SimDriver`]: a driver for it, with its policy in knobs.
//! - [`preset`]: layouts of real cards.
//!
//! A job, from submission to its fence, on either clock:
//!
//! 1. It is queued; its fence is the next point of its engine's timeline.
//! 2. When it is at the head and the engine is free, it waits for its `after` fences. If one
//!    failed, the job fails with it and touches nothing.
//! 3. It takes the engine's latency plus its bytes over the engine's bandwidth.
//! 4. At the end of that time the bytes are really moved, and the fence signals.
//!
//! ```
//! use backends::sim::{Gpu, GpuConfig, SimClock, VirtualClock};
//! use placement::{MemType, PageCount, PageRange};
//! use ttm::driver::Side;
//! use ttm::fence::Status;
//!
//! # fn main() -> ttm::error::Result<()> {
//! let clock = VirtualClock::new();
//! let vram = PageCount::new(1024).expect("few");
//! let gpu = Gpu::new(GpuConfig::new(vram), SimClock::Virtual(clock.clone()))?;
//!
//! let page = PageRange::new(0, 1).expect("in order");
//! let side = Side::Device { mem_type: MemType::VRAM, ranges: [page].into() };
//! let queue = gpu.queue(0);
//! let filled = queue.fill(&side, 7, [])?;
//! let (summed, sum) = queue.checksum(&side, [filled])?;
//! assert_eq!(summed.wait(None)?, Status::Done);
//! assert_eq!(sum.get(), Some(backends::sim::checksum_words([7; 512])));
//! # Ok(())
//! # }
//! ```

mod bus;
mod cache;
mod clock;
mod counting;
mod driver;
mod engine;
mod failing;
mod failing_space;
mod gpu;
mod inject;
mod io_space;
mod lane;
mod link;
mod memory;
mod pages;
mod physical;
mod platform;
mod memory_backup;
mod presets;
mod queue;
mod random;
mod runs;
mod scope;
mod timer;
mod vram;
mod words;

pub use cache::{CacheCounts, CacheModel};
pub use clock::VirtualClock;
pub use counting::CountingPages;
pub use driver::{RouteMode, SimDriver};
pub use failing::{FailingBackup, FailingPages};
pub use failing_space::FailingSpace;
pub use gpu::{EngineConfig, Gpu, GpuConfig, SimClock};
pub use inject::{Inject, InjectError};
pub use io_space::{IoFault, IoSpace};
pub use link::Link;
pub use memory::SimMemory;
pub use memory_backup::MemoryBackup;
pub use pages::{Fragments, SimPages};
pub use platform::Platform;
pub use presets::{preset, preset_names};
pub use queue::{Checksum, Queue};
pub use scope::Scope;
pub use words::checksum_words;
