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
//!
//! ```no_run
//! use ash::vk;
//! use backends::host::{MemfdPages, Threads};
//! use backends::vulkan::{BufferInfo, Described, VulkanConfig, VulkanDevice};
//! use placement::{MemType, Place, Placement};
//! use ttm::context::OpContext;
//! use ttm::fence::Usage;
//! use ttm::sync::Arc;
//!
//! # fn submit(_: &[backends::vulkan::Bound], _: &[(vk::Semaphore, u64)], _: vk::Semaphore, _: u64) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = VulkanConfig::new("engine").limit(MemType::VRAM, 2 << 30);
//! let vulkan = VulkanDevice::open(&config)?;
//! let device = vulkan.builder(Arc::new(MemfdPages::new()?)).build()?;
//! vulkan.tell_of_loss(&device);
//! let services = device.services().into_iter().chain(vulkan.services());
//! let threads = Threads::start(device.clock(), services)?;
//!
//! let vertices = BufferInfo::new(64 << 10).usage(vk::BufferUsageFlags::VERTEX_BUFFER);
//! let Described { info, object } = vulkan.buffer(&vertices)?;
//! let bo = device.create(info, object)?;
//! let timeline = vulkan.timeline()?;
//!
//! let locked = device.exec(OpContext::new(), |t| {
//!     let reserved = t.lock(&bo)?;
//!     reserved.validate(&Placement::of(Place::new(MemType::VRAM)))?;
//!     reserved.reserve_fences(1)
//! })?;
//! let binding = vulkan.bind(&locked, &[&bo], Usage::Write)?;
//! let (fence, value) = timeline.next();
//! submit(&binding.objects, &binding.waits, timeline.semaphore(), value);
//! locked.fence_all(&fence, Usage::Write);
//! # drop((locked, threads));
//! # Ok(())
//! # }
//! ```

// What went wrong, and the calls that did.
mod error;
mod raw;
// What a device is, says of itself, and is found to do.
mod facts;
pub mod fixtures;
mod instance;
mod layout;
mod query;
mod trials;
mod costs;
// Time.
mod watch;
mod line;
mod user_timeline;
mod trash;
// Memory.
mod budget;
mod region;
mod import;
// Motion.
mod images;
mod step;
mod engine;
// Use.
mod known;
mod objects;
mod bind;
mod driver;
mod foreign;
// The whole.
mod config;
mod core;
mod tender;
mod device;
mod open;

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
