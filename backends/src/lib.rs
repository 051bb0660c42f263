//! Backends of the userspace TTM: everything that the manager gets from outside.
//!
//! [`ttm`] makes no system call, spawns no thread and knows no device. This crate does:
//!
//! - [`host`]: the machine itself. Time ([`host::WallClock`]), frames in memory files
//!   ([`host::MemfdPages`]), how short memory is ([`host::SystemPressure`]), swap in an unlinked
//!   file ([`host::FileBackup`]), the CPU's caches ([`host::HostCache`]) and threads for background work ([`host::Threads`]).
//! - [`dma`]: what the platform says of its devices' ways to memory ([`dma::Probe`]).
//! - `sim` (feature `sim`, on by default): a fake device with VRAM, copy engines, kernels and a
//!   virtual clock, which fails when it is told to.
//! - `vulkan` (feature `vulkan`): memory of real devices by way of Vulkan.
//!
//! What is not here: policy. Which object leaves, where it goes and who waits is decided in
//! [`ttm`]; a backend does what it is asked or says why not.
//!
//! # Unsafe code
//!
//! Denied in the crate. The files that need it say so at their head: `dma/udmabuf.rs` and
//! `dma/vfio/nodes.rs` (ioctls),
//! `host/addresses.rs` (files mapped at chosen addresses), `host/cache_ops/x86_64.rs` and
//! `host/cache_ops/aarch64.rs` (cache maintenance), `host/file_map.rs` (a mapping becomes a
//! [`ttm::pages::Mapped`]), `host/pages/nodes.rs` (memory policies), `host/space/mapping.rs`
//! (windows), `host/space/uffd.rs` (userfaultfd), `host/space/signal.rs` (a signal handler),
//! `host/positional.rs` (file I/O from and to raw memory), `host/backup/io/uring.rs` (the same, handed
//! to the kernel), `sim/words.rs` (volatile words), `vulkan/instance.rs`, `vulkan/query.rs` and
//! `vulkan/open.rs` (calls of the Vulkan loader), `vulkan/raw.rs` and what is under it (calls of a
//! device), and `vulkan/foreign.rs` (descriptors of others).
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod dma;
pub mod host;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "vulkan")]
pub mod vulkan;
