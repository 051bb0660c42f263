//! Memory of Vulkan devices.
//!
//! - [`Instance`]: the loader, opened when it is asked for, and the devices of this machine.
//! - [`Facts`]: what a device says of its memory, asked once or captured earlier ([`fixtures`]).
//! - [`Layout`]: which memories the manager has there, and why.

mod error;
mod facts;
pub mod fixtures;
mod instance;
mod layout;
mod query;

pub use error::VulkanError;
pub use facts::{Can, Facts, Heap, Limits, Type};
pub use instance::Instance;
pub use layout::{BAR, Chunked, GART, Layout, MadeOf, Memory};
