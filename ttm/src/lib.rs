//! A userspace TTM: the memory manager that a Rust graphics driver embeds.
//!
//! Buffer objects move between system memory, a backup and the memories of a device; whoever
//! needs room evicts the least recently used; fences order it all. A driver implements
//! [`Driver`](driver::Driver), builds a [`Device`](device::Device), and submits its work under
//! [`Device::exec`](device::Device::exec).
//!
//! This crate makes no system call and spawns no thread: time, pages, engines and background work
//! come from outside, through small traits beside their users. It is not a command submission, not
//! a scheduler, and knows no GPU page tables.
//!
//! # Floors
//!
//! A module uses those above it in this list, never those below (`tests/floors.rs` holds them to
//! it). Unsafe code is in `pages/copy.rs`, `pages/heap.rs`, `pages/mapped.rs`, `pages/owner.rs`,
//! `map/access.rs`, `map/cells.rs` and `reservation/locked_by.rs`, and nowhere else.
#![deny(unsafe_code)]

// Words.
pub mod error;
pub mod sync;
#[cfg(feature = "plant")]
pub mod plant;
pub mod clock;
pub mod fault;
pub mod trace;
// Time.
pub mod fence;
pub mod context;
pub mod reservation;
// Memory.
pub mod cache;
pub mod pages;
pub mod dma;
pub mod tt;
// Space.
pub mod resource;
// Device.
pub mod driver;
pub mod device;
// Object.
pub mod bo;
// Motion.
pub mod residency;
// Use.
pub mod map;
pub mod share;
pub mod bo_cache;

// Below all: what the examples of the documentation run on.
#[doc(hidden)]
pub mod fixture;

pub use error::{Error, Result};
pub use placement;
