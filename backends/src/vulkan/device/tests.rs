//! Chains of copies, which the manager has none of: a driver's own.

use placement::{CacheMode, PageRange, Request, Space};
use ttm::driver::Side;
use ttm::driver::{CopyEngine, CopyJob};
use ttm::fence::{FenceError, Status, Timeline};
use ttm::pages::Mapped;
use ttm::resource::Region;

use super::super::costs::Copies;
use super::*;

const BYTES: u64 = 64 << 10;

/// Pages of the device, written to.
struct Pages {
    range: PageRange,
    seen: Mapped,
}

fn pages(vulkan: &VulkanDevice) -> Pages {
    let region = vulkan.core.sides.region(MemType::VRAM).unwrap();
    let taken = ChunkSpace(Arc::clone(region))
        .take(&Request::new(pages_of(BYTES)))
        .unwrap();
    let range = taken[0].range();
    region.provide(range).unwrap();
    let seen = region.map(range, CacheMode::Cached).unwrap();
    seen.write(0, &[0x5a; BYTES as usize]);
    Pages { range, seen }
}

impl Pages {
    fn clear(&self, after: &[&Fence], behind: &[&Fence]) -> CopyJob {
        let all = |fences: &[&Fence]| fences.iter().map(|fence| (*fence).clone()).collect();
        CopyJob {
            object: u64::MAX,
            pages: pages_of(BYTES),
            src: Side::Zero,
            dst: Side::Device {
                mem_type: MemType::VRAM,
                ranges: [self.range].into_iter().collect(),
            },
            after: all(after),
            behind: all(behind),
        }
    }

    fn are(&self, byte: u8) -> bool {
        let mut found = [0; BYTES as usize];
        self.seen.read(0, &mut found);
        found.iter().all(|b| *b == byte)
    }
}

#[test]
fn a_copy_that_goes_on_from_a_failed_one_fails_in_its_turn_and_touches_nothing() {
    let config = VulkanConfig::new("ttm tests")
        .limit(MemType::VRAM, 16 << 20)
        .copies(Copies::Queue);
    let vulkan = match VulkanDevice::open(&config) {
        Ok(vulkan) => vulkan,
        Err(error) => {
            let required = std::env::var_os("TTM_REQUIRE_VULKAN").is_some();
            assert!(!required, "a Vulkan device is required here: {error}");
            eprintln!("skipped: {error}");
            return;
        }
    };
    let engine = &vulkan.core.engine;
    let (one, other) = (pages(&vulkan), pages(&vulkan));
    let first = Timeline::new(1, vulkan.clock());
    let second = Timeline::new(2, vulkan.clock());
    let (before, held) = (first.issue(), second.issue());
    let doomed = engine.submit(one.clear(&[&before], &[&held])).unwrap();
    let next = engine.submit(one.clear(&[&doomed], &[])).unwrap();
    let apart = engine.submit(other.clear(&[], &[])).unwrap();
    first.fail(before.seqno(), FenceError::Failed);
    std::thread::sleep(core::time::Duration::from_millis(50));
    assert!(
        !doomed.is_signalled(),
        "others still use what it gives free"
    );
    second.signal(held.seqno());
    let failed = Status::Failed(FenceError::DependencyFailed);
    assert_eq!(doomed.wait(None).unwrap(), failed);
    assert_eq!(next.wait(None).unwrap(), failed);
    assert_eq!(apart.wait(None).unwrap(), Status::Done);
    assert!(one.are(0x5a) && other.are(0));
    // What goes on from a copy that was done is done.
    let again = engine.submit(other.clear(&[&apart], &[])).unwrap();
    let last = engine.submit(one.clear(&[&again], &[&apart])).unwrap();
    assert_eq!(last.wait(None).unwrap(), Status::Done);
    assert!(one.are(0));
    assert_eq!(engine.counts().failed, 2);
}
