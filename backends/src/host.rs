//! The machine itself: time, frames, swap, threads.
//!
//! ```
//! use backends::host::{FileBackup, MemfdPages, wall_clock};
//! use placement::PageCount;
//! use ttm::pages::PageSource;
//!
//! # fn main() -> ttm::error::Result<()> {
//! let clock = wall_clock();
//! let pages = MemfdPages::new()?;
//! let swap = FileBackup::new(std::env::temp_dir(), 64 << 20)?;
//!
//! let run = pages.take(PageCount::ONE)?;
//! assert_eq!(pages.taken(), PageCount::ONE);
//! pages.give(run);
//! # let _ = (clock, swap);
//! # Ok(())
//! # }
//! ```

mod backup;
mod clock;
mod cycles;
mod file_map;
mod pages;
mod positional;
mod threads;

pub use backup::{BackupError, FileBackup};
pub use clock::{WallClock, wall_clock};
pub use pages::MemfdPages;
pub use threads::Threads;

#[cfg(feature = "sim")]
pub(crate) use file_map::FileMap;
#[cfg(feature = "sim")]
pub(crate) use pages::{memfd, punch, reserve};
