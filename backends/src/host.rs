//! The machine itself: time, frames, how short of memory it is, swap, threads.
//!
//! ```
//! use backends::host::{FileBackup, MemfdPages, wall_clock};
//! use placement::PageCount;
//! use ttm::pages::{PageSource, Want};
//!
//! # fn main() -> ttm::error::Result<()> {
//! let clock = wall_clock();
//! let pages = MemfdPages::new()?;
//! let swap = FileBackup::new(std::env::temp_dir(), 64 << 20)?;
//!
//! let run = pages.take(&Want::new(PageCount::ONE))?;
//! assert_eq!(pages.taken(), PageCount::ONE);
//! pages.give(run.dirtied());
//! # let _ = (clock, swap);
//! # Ok(())
//! # }
//! ```

mod addresses;
mod backup;
mod cache_ops;
mod clock;
mod cycles;
mod faults;
mod file_map;
mod pages;
mod positional;
mod pressure;
mod space;
mod threads;

pub use backup::{BackupError, BackupStats, FileBackup, IoEngine};
pub use cache_ops::{CacheUnavailable, HostCache};
pub use clock::{WallClock, wall_clock};
pub use faults::FaultThreads;
pub use pages::{HugeCounts, HugePages, MemfdPages, memory_file};
pub use positional::{read_into_window, write_from_window};
pub use pressure::{
    AvailablePressure, CgroupPressure, InjectedPressure, PsiPressure, SystemPressure,
};
pub use space::{HostSpace, Strategy};
pub use threads::Threads;

#[cfg(any(feature = "sim", feature = "vulkan"))]
pub(crate) use file_map::FileMap;
#[cfg(feature = "sim")]
pub(crate) use pages::{discard, host_pages, out_of_memory, punch, write_zeroes};
#[cfg(any(feature = "sim", feature = "vulkan"))]
pub(crate) use pages::{memfd, reserve};
