//! Moves that copy nothing, between device memory and system pages.

use ttm::bo::BoInfo;
use ttm::context::OpContext;
use ttm::fault::{Faults, Site};
use ttm::fixture::{builder, system, vram};
use ttm::placement::{CacheMode, MemType, Place, Placement};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicBool, Ordering};

/// Fails that step while it is told to.
struct Fails(Site, AtomicBool);

impl Faults for Fails {
    fn hit(&self, site: Site) -> bool {
        site == self.0 && self.1.load(Ordering::Relaxed)
    }
}

/// System pages that a null move asked for had the mode of the device memory that the object left,
/// which their source did not offer; and they stayed behind when the move failed.
#[test]
fn an_object_that_leaves_device_memory_gets_ordinary_pages_or_none() {
    for site in [Site::MoveCommit, Site::Frames, Site::Records] {
        let faults = Arc::new(Fails(site, AtomicBool::new(true)));
        let device = builder()
            .faults(Arc::clone(&faults) as Arc<dyn Faults>)
            .build()
            .unwrap();
        faults.1.store(false, Ordering::Relaxed);
        let bo = device
            .create_in(OpContext::new(), BoInfo::new(3 * 4096), (), &vram())
            .unwrap();
        let tt = Placement::of(Place::new(MemType::TT));
        let go = |to: &Placement| {
            let moved = device.exec(OpContext::new(), |t| t.lock(&bo)?.validate(to));
            moved.map(drop)
        };
        faults.1.store(true, Ordering::Relaxed);
        assert!(go(&tt).is_err(), "{site}");
        device.check().unwrap_or_else(|v| panic!("{site}: {v}"));
        assert!(device.system_budget().used().is_zero(), "{site}");
        faults.1.store(false, Ordering::Relaxed);
        for to in [&tt, &vram(), &system(), &vram(), &tt] {
            go(to).unwrap();
            device.check().unwrap_or_else(|v| panic!("{site}: {v}"));
        }
        let mode = device.exec(OpContext::new(), |t| Ok(t.lock(&bo)?.facts().mode));
        assert_eq!(*mode.unwrap().value(), CacheMode::Cached);
        drop(bo);
        device.close(None).unwrap();
    }
}
