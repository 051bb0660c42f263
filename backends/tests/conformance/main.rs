//! The kernel's own unit tests of TTM, case by case.
//!
//! Functions carry the names of the kernel's KUnit cases without their `ttm_`, and cover every
//! parameter of each. Where this manager promises something else on purpose, the comment of the
//! test says what and why. The fixture is the kernel's: 1 MiB of VRAM in buddy blocks, and a
//! driver whose content goes from VRAM to SYSTEM by way of TT. Instead of the kernel's mock
//! managers that are always busy or always full there are memory types that are too small.
//!
//! Some cases have no counterpart, because what they refuse cannot be written down here (a BO of
//! an unknown type), or because a part is built otherwise (no offset manager; the table of system
//! pages is no object of its own and is seen by what it does). They test the nearest promise and
//! say so.

#[path = "../support/mod.rs"]
mod support;

mod bo;
mod device;
mod pool;
mod resource;
mod tt;
mod validate;

use backends::sim::SimDriver;
use ttm::driver::BoKind;

use support::{Setup, World};

/// Every kind of object, in the kernel's order: `device`, `kernel`, `sg`.
const KINDS: [BoKind; 3] = [BoKind::Device, BoKind::Kernel, BoKind::Imported];

/// 1 MiB of VRAM in buddy blocks.
fn setup() -> Setup {
    Setup {
        buddy: true,
        ..Setup::default()
    }
}

/// The kernel's mock device.
fn mock() -> World {
    setup().build(SimDriver::new().hop(true))
}
