//! Sharing, on a device without content.
//!
//! The rows of the table of `dma-buf`'s capabilities, each by its number:
//!
//! - 86, 99: `an_object_is_exported_once`, `its_size_is_whole_pages_for_life`
//! - 87: `a_veto_is_told`, `nothing_is_populated_before_the_first_map`,
//!   `a_late_strict_one_is_refused_or_has_it_moved`
//! - 88: `each_attachment_has_a_list_of_its_own`, `who_is_static_keeps_the_object`; a map without
//!   the reservation cannot be written
//! - 89: `pins_are_for_who_is_dynamic_and_counted`
//! - 90: `who_is_dynamic_is_told_before_the_object_moves`,
//!   `queued_jobs_keep_the_old_mapping_for_a_while`, `a_notice_cannot_call_the_device`,
//!   `who_is_revocable_never_holds_anything_up`
//! - 91: `brackets_wait_for_those_who_are_in_the_way`, `brackets_nest_and_keep_the_object`; an end
//!   without a beginning cannot be written
//! - 92, 93: mappings for the CPU are the exporter's windows and `VMap`s; the tests of windows have them
//! - 94, 95: `fences_go_both_ways`
//! - 96: `a_device_gets_its_own_object_back`
//! - 97, 98, 101 are Linux's own: nothing here makes a system call
//! - 100: `device_memory_is_mapped_for_who_reaches_it`, and the tests of `ttm::dma`'s `PciTree`

mod cpu;
mod exports;
mod modes;
mod moves;
mod solver;

use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::context::{CancelToken, OpContext};
use ttm::device::Device;
use ttm::dma::{
    AttachOutcome, AttachRequest, AttachmentId, BusRange, CacheModes, Constraints, Direction,
    DmaAddr, DmaDevice, DmaError, Field, Mapper, Mask, NoPeerPath, Path, PeerPath, SegmentParms,
    Solver, Storage, StorageKind, Tri, Verdict,
};
use ttm::driver::Advice;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Timeline, Usage};
use ttm::fixture::{BUS, Counting, builder, device, system, vram};
use ttm::pages::FrameSpan;
use ttm::placement::{CacheMode, MemType, Place, Placement};
use ttm::share::{
    AttachInfo, Attachment, ExportInfo, Exporter, Import, MoveNotice, ShareCounts, Shared,
};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

const SIZE: u64 = 5 * 4096;

fn tt() -> Placement {
    Placement::of(Place::new(MemType::TT))
}

fn verdict(path: Path) -> Verdict {
    Verdict {
        path,
        snoop: Tri::Yes,
        ..Verdict::unknown("camera")
    }
}

/// A device that finds frame n at page n of the bus.
fn camera() -> Arc<DmaDevice> {
    let address = |span: FrameSpan| Some(span.first * 4096);
    Arc::new(DmaDevice::direct(verdict(Path::Direct), SegmentParms::WIDEST, address).unwrap())
}

fn mapper(camera: &Arc<DmaDevice>) -> Arc<dyn Mapper> {
    Arc::clone(camera) as Arc<dyn Mapper>
}

struct Scene {
    device: Device<Counting>,
    queue: Timeline,
    bo: Bo<Counting>,
    shared: Shared<Counting>,
    camera: Arc<DmaDevice>,
}

impl Scene {
    fn new() -> Self {
        Self::exporting(ExportInfo::new())
    }

    fn exporting(info: ExportInfo) -> Self {
        let (device, queue) = device();
        let bo = device.create(BoInfo::new(SIZE - 100), ()).unwrap();
        let shared = device.export(&bo, info).unwrap();
        Self {
            device,
            queue,
            bo,
            shared,
            camera: camera(),
        }
    }

    fn attach(&self, info: AttachInfo) -> Result<Attachment<Counting>> {
        self.shared
            .attach(OpContext::new(), mapper(&self.camera), info)
    }

    fn map(&self, attached: &Attachment<Counting>) -> Result<Arc<ttm::dma::MappedList>> {
        let mapped = |bo: &Reserved<'_, Counting>| attached.map(bo, Direction::Both);
        let locked = self.shared.exec(OpContext::new(), mapped)?;
        Ok(Arc::clone(locked.value()))
    }

    fn unmap(&self, attached: &Attachment<Counting>) -> Result<()> {
        let unmapped = self
            .shared
            .exec(OpContext::new(), |bo| attached.unmap(bo))?;
        drop(unmapped);
        Ok(())
    }

    fn go(&self, to: &Placement) -> Result<()> {
        let gone = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.bo)?.validate(to))?;
        drop(gone);
        Ok(())
    }

    fn fence(&self, usage: Usage) -> Fence {
        let locked = self
            .shared
            .exec(OpContext::new(), |bo| bo.reserve_fences(1))
            .unwrap();
        let fence = self.queue.issue();
        locked.fence_all(&fence, usage);
        fence
    }

    fn check(&self) {
        self.device.check().unwrap_or_else(|v| panic!("{v}"));
    }

    /// Nothing is left of any of it.
    fn end(self) {
        let Self {
            device,
            bo,
            shared,
            camera,
            queue,
        } = self;
        queue.signal(queue.issued());
        assert_eq!(shared.counts(), ShareCounts::default());
        drop(shared);
        assert_eq!(device.exports(), 0);
        assert_eq!(bo.handles(), 1);
        device.check().unwrap_or_else(|v| panic!("{v}"));
        drop(bo);
        device.close(None).unwrap_or_else(|h| panic!("{h:?}"));
        assert_eq!(camera.live(), 0);
    }
}

fn dma(error: Error) -> DmaError {
    match error {
        Error::Dma { source, .. } => *source.downcast().expect("a DmaError"),
        error => panic!("{error}"),
    }
}

struct Says(Option<&'static str>);

impl Exporter for Says {
    fn admit(&self, borrower: &AttachInfo) -> core::result::Result<(), String> {
        match self.0 {
            Some(who) if borrower.name() == who => Err(format!("not for a {who}")),
            _ => Ok(()),
        }
    }

    fn address(&self, frames: FrameSpan) -> Option<DmaAddr> {
        DmaAddr::new(frames.first * 4096)
    }
}

/// A seeded row of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        let seed = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = seed.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}
