//! Memory of Vulkan devices.

mod facts;
mod layout;

pub use facts::{Can, Facts, Heap, Limits, Type};
pub use layout::{BAR, Chunked, GART, Layout, MadeOf, Memory};
