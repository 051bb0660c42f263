//! The Vulkan backend on a real driver: lavapipe, or whatever device is there.
//!
//! Without a loader or a device each test says `skipped:` and passes; with `TTM_REQUIRE_VULKAN` set it
//! fails instead.

mod gpu;
mod shim;
mod stage;

mod buffers;
mod faults;
mod images;
mod laws;
mod losses;
mod model;
mod windows;
mod moves;

mod nth;

mod raw;

mod validation;

mod words;
