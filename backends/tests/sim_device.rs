//! The whole stack on the fake device: the manager evicts through the engines and swaps to a file
//! while clients write and kernels run, on the virtual clock. Every word is checked.

use backends::host::FileBackup;
use backends::sim::{FailingBackup, Gpu, GpuConfig, SimClock, SimDriver, VirtualClock};
use placement::{MemType, PageCount, Place, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::error::Result;
use ttm::fence::{Status, Usage};
use ttm::sync::Arc;

const OBJECTS: u64 = 12;
const PAGES: u64 = 16;

struct Stack {
    gpu: Gpu,
    clock: Arc<VirtualClock>,
    device: Device<SimDriver>,
}

fn stack(driver: SimDriver) -> Stack {
    let clock = VirtualClock::new();
    let pages = |n| PageCount::new(n).unwrap();
    let config = GpuConfig {
        aperture: pages(8),
        ..GpuConfig::new(pages(4 * PAGES))
    };
    let gpu = Gpu::new(config, SimClock::Virtual(Arc::clone(&clock))).unwrap();
    let swap = FileBackup::new(std::env::temp_dir(), 4 << 20).unwrap();
    let swap = FailingBackup::new(Arc::new(swap), Arc::clone(gpu.inject()));
    let device = Device::builder(driver, gpu.clock())
        .pages(gpu.pages())
        .backup(Arc::new(swap))
        .system_limit(pages(6 * PAGES))
        .memory(
            MemType::VRAM,
            Box::new(Range::new(gpu.config().vram)),
            gpu.region(),
        )
        .engine(gpu.engine(0))
        .faults(Arc::clone(gpu.inject()) as Arc<dyn ttm::fault::Faults>)
        .build()
        .unwrap();
    Stack { gpu, clock, device }
}

fn word(object: u64, round: u64) -> u64 {
    object << 32 | round
}

/// Checks one object by a kernel, then fills it anew, in VRAM.
fn use_object(stack: &Stack, bo: &Bo<SimDriver>, object: u64, round: u64) -> Result<u64> {
    let vram = Placement::of(Place::new(MemType::VRAM));
    let locked = stack.device.exec(OpContext::new(), |t| {
        let held = t.lock(bo)?;
        held.validate(&vram)?;
        held.reserve_fences(1)?;
        Ok((held.side()?, held.fences(Usage::Write)))
    })?;
    let (side, after) = locked.value().clone();
    let queue = stack.gpu.queue(object as usize % 2);
    let (checked, sum) = queue.checksum(&side, after)?;
    let filled = queue.fill(&side, word(object, round), [checked.clone()])?;
    locked.fence_all(&filled, Usage::Write);
    drop(locked);
    assert_eq!(checked.wait(None)?, Status::Done);
    Ok(sum.get().unwrap())
}

fn churn(driver: SimDriver) -> (u64, u64) {
    let stack = stack(driver);
    let objects: Vec<_> = (0..OBJECTS)
        .map(|_| {
            let info = BoInfo::new(PAGES * 4096);
            stack.device.create(info, ()).unwrap()
        })
        .collect();
    stack.clock.scope(|s| {
        for client in 0..3 {
            let (stack, objects) = (&stack, &objects);
            s.spawn(&format!("client {client}"), move || {
                for round in 0..8 {
                    for object in (client..OBJECTS).step_by(3) {
                        let bo = &objects[object as usize];
                        let found = use_object(stack, bo, object, round + 1).unwrap();
                        let before = if round == 0 { 0 } else { word(object, round) };
                        let all = core::iter::repeat_n(before, PAGES as usize * 512);
                        let expected = backends::sim::checksum_words(all);
                        assert_eq!(found, expected, "object {object} round {round}");
                    }
                }
            });
        }
    });
    (
        stack.clock.digest(),
        stack.gpu.inject().count("ttm.backup-store"),
    )
}

#[test]
fn content_survives_eviction_and_swap_the_same_way_every_time() {
    let first = churn(SimDriver::new());
    assert!(first.1 > 0, "nothing was swapped");
    for _ in 0..3 {
        assert_eq!(churn(SimDriver::new()), first);
    }
}
