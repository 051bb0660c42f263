//! `ttm_device_test`; its page pools are with the other pools.

use backends::sim::{SimDriver, VirtualClock};
use placement::MemType;
use ttm::clock::Clock;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::error::Error;
use ttm::sync::Arc;

use crate::support::{World, system};
use crate::{mock, setup};

fn assert_new(world: &World) {
    let manager = world.device.manager(MemType::SYSTEM).unwrap();
    assert!(manager.uses_frames() && manager.is_used());
    let tt = world.device.manager(MemType::TT).unwrap();
    assert!(tt.uses_frames() && tt.is_used());
    // The work queue of the kernel is services here: the host decides whose thread steps it.
    let services = world.device.services();
    let names: Vec<_> = services.iter().map(|service| service.name()).collect();
    assert_eq!(names, ["reaper", "refill", "relief"]);
    assert_eq!(world.device.live_objects(), 0);
}

/// The vtable is there (as a value with a type), a system manager backed by pages is in use, and
/// so is what runs in the background. There is no CPU address space to store.
#[test]
fn device_init_basic() {
    let world = mock();
    let _driver: &SimDriver = world.device.driver();
    assert_new(&world);
}

/// Three devices, each complete. There is no global list that links them: nothing is shared, and
/// an object of one is refused by another.
#[test]
fn device_init_multiple() {
    let worlds = [mock(), mock(), mock()];
    worlds.iter().for_each(assert_new);
    let bo = worlds[0].create_in(4096, &system());
    for other in &worlds[1..] {
        assert_eq!(other.used(MemType::SYSTEM), 0);
        let refused = other
            .device
            .exec(OpContext::new(), |t| t.lock(&bo).map(drop))
            .map(drop);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(worlds[0].used(MemType::SYSTEM), 1);
}

/// Closing ends a device whose objects are gone; nothing is left in its managers. The system
/// manager stays readable, because handles of the device may still be around.
#[test]
fn device_fini_basic() {
    let world = mock();
    let bo = world.create_in(8192, &system());
    assert_eq!(world.device.close(None).unwrap_err().objects, 1);
    drop(bo);
    world.assert_empty();
    let manager = world.device.manager(MemType::SYSTEM).unwrap();
    assert_eq!(manager.usage().objects, 0);
    assert!(world.device.eviction_order(MemType::SYSTEM, 0).is_empty());
}

/// There is no manager of mmap offsets whose absence could be refused. What a device cannot do
/// without is a source of pages; its absence is the same error, `EINVAL`.
#[test]
fn device_init_no_vma_man() {
    let clock: Arc<dyn Clock> = VirtualClock::new();
    let error = Device::builder(SimDriver::new(), clock)
        .build()
        .unwrap_err();
    assert!(matches!(error, Error::Invalid(_)));
    assert_eq!(error.to_errno(), 22);
    // With it everything else may be left out.
    setup().build(SimDriver::new());
}
