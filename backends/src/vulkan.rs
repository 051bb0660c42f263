//! Memory of Vulkan devices.
//!
//! - [`Instance`]: the loader, opened when it is asked for, and the devices of this machine.
//! - [`Facts`]: what a device says of its memory, asked once or captured earlier ([`fixtures`]).
//! - [`Layout`]: which memories the manager has there, and why. [`Trials`]: what the device is found
//!   to keep of what it says.
//! - [`VulkanDevice`]: a device, opened here or by its user, with memories in chunks, its transfer
//!   queue as the copy engine, and fences both ways.
//! - [`BufferInfo`], [`ImageInfo`]: objects that are buffers or images wherever they are; a
//!   [`VulkanDevice::bind`] makes them ready for work.
//! - [`VulkanDriver`]: where victims go, and who copies.
//!
//! A submission:
//!
//! 1. In [`exec`](ttm::device::Device::exec): lock the objects, validate each, reserve a fence.
//! 2. [`VulkanDevice::bind`]: handles, and what to wait for.
//! 3. Submit, waiting for that, and signal a point of a [`UserTimeline`].
//! 4. Add the point's fence to the objects, and let go of them.

mod bind;
mod budget;
mod config;
mod core;
mod costs;
mod device;
mod driver;
mod engine;
mod error;
mod facts;
pub mod fixtures;
mod foreign;
mod images;
mod import;
mod instance;
mod known;
mod layout;
mod line;
mod objects;
mod open;
mod query;
mod raw;
mod region;
mod step;
mod tender;
mod trash;
mod trials;
mod user_timeline;
mod watch;

pub use bind::Binding;
pub use config::VulkanConfig;
pub use costs::{Copies, Cost, Costs};
pub use device::{DeviceQueues, MemoryParts, VulkanDevice};
pub use driver::VulkanDriver;
pub use engine::EngineCounts;
pub use error::VulkanError;
pub use facts::{Can, Facts, Heap, Limits, Type};
pub use foreign::{Exported, ForeignBuffer};
pub use instance::Instance;
pub use layout::{BAR, Chunked, GART, Layout, MadeOf, Memory};
pub use objects::{Bound, BufferInfo, Described, ImageInfo, VulkanObject};
pub use raw::{HeldQueue, SharedQueue};
pub use region::ChunkUsage;
pub use trials::Trials;
pub use user_timeline::UserTimeline;
