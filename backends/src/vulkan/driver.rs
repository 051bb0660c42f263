//! A driver for Vulkan devices, with its policy in knobs.

use placement::{MemType, Place, Placement};
use ttm::driver::{Advice, BoFacts, BoKind, Driver, EngineId, Eviction, MoveFacts, Route};
use ttm::fence::Fence;
use ttm::sync::Arc;

use super::core::Core;
use super::layout::{BAR, GART};
use super::objects::VulkanObject;

/// The transfer queue.
const QUEUE: EngineId = EngineId(0);

/// Where victims go, and who copies. A driver of one's own may ask it for all answers but its own.
///
/// Victims go to SYSTEM, which is swapped out when it is short; what nobody needs is thrown away.
/// Images stay where they are on a device that imports no system pages.
/// Content is copied by the queue, or by the CPU where that was measured to be sooner.
#[derive(Clone)]
pub struct VulkanDriver {
    core: Arc<Core>,
    evict_to: Placement,
}

impl VulkanDriver {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::clone(core),
            evict_to: Placement::of(Place::new(MemType::SYSTEM)),
        }
    }

    /// Where victims go from device memory.
    #[must_use]
    pub fn evict_to(mut self, placement: Placement) -> Self {
        self.evict_to = placement;
        self
    }

    /// Whether a memory type is system pages.
    fn is_frames(&self, mem_type: MemType) -> bool {
        self.core.sides.region(mem_type).is_none()
    }

    fn is_visible(&self, mem_type: MemType) -> bool {
        let region = self.core.sides.region(mem_type);
        region.is_none_or(|region| region.kind().of.visible && region.kind().of.coherent)
    }

    /// A memory of chunks that the CPU and the queue reach: the stop between pages that the device
    /// does not find and memory that the CPU does not reach.
    fn between(&self) -> Option<MemType> {
        [MemType::TT, GART, BAR]
            .into_iter()
            .find(|t| !self.is_frames(*t) && self.is_visible(*t))
    }

    /// Whether an object has nowhere to go: an image becomes rows only where the queue finds the pages
    /// that these go to.
    fn is_stuck(&self, object: &VulkanObject) -> bool {
        let mut places = self.evict_to.places().iter();
        object.images().is_some()
            && self.core.sides.import().is_none()
            && places.all(|place| self.is_frames(place.mem_type))
    }

    fn content(&self, bo: &BoFacts, from: MemType, to: MemType) -> Route {
        let frames = self.is_frames(from) || self.is_frames(to);
        let found = !frames || self.core.sides.import().is_some();
        let seen = self.is_visible(from) && self.is_visible(to) && !bo.opaque;
        let bytes = bo.pages.bytes();
        if seen && (!found || self.core.costs.cpu_copies(bytes, self.is_frames(from))) {
            return Route::Cpu;
        }
        match self.between() {
            Some(stop) if !found => Route::Hop(Place::new(stop).temporary()),
            _ => Route::Engine(QUEUE),
        }
    }

    fn fresh(&self, bo: &BoFacts, to: MemType) -> Route {
        // Frames are zero when they are taken.
        if self.is_frames(to) || bo.kind != BoKind::Device && !bo.opaque {
            return Route::Null;
        }
        let by_cpu = self.is_visible(to) && self.core.costs.cpu_copies(bo.pages.bytes(), true);
        match by_cpu && !bo.opaque {
            true => Route::Clear(None),
            false => Route::Clear(Some(QUEUE)),
        }
    }

    /// How the content of an object gets to its new place.
    #[must_use]
    pub fn route_of(&self, bo: &BoFacts, object: &VulkanObject, job: &MoveFacts) -> Route {
        if let Some(images) = object.images() {
            self.core.sides.enter_images(bo.id, images);
        }
        match job.from {
            Some(from) if job.has_content => self.content(bo, from, job.to),
            _ => self.fresh(bo, job.to),
        }
    }
}

impl Driver for VulkanDriver {
    type Object = VulkanObject;

    fn evict_to(&self, bo: &BoFacts, object: &VulkanObject) -> Eviction {
        if bo.advice == Advice::DontNeed {
            return Eviction::Discard;
        }
        match bo.mem_type {
            Some(MemType::SYSTEM) | None => Eviction::Never,
            Some(_) if self.is_stuck(object) => Eviction::Never,
            Some(MemType::TT) => Eviction::To(Placement::of(Place::new(MemType::SYSTEM))),
            Some(_) => Eviction::To(self.evict_to.clone()),
        }
    }

    fn place_for_cpu(&self, _: &BoFacts, _: &VulkanObject) -> Placement {
        // TT in chunks is in no file that a window could map.
        match self.is_frames(MemType::TT) {
            true => Placement::default(),
            false => Placement::of(Place::new(MemType::SYSTEM)),
        }
    }

    fn route(&self, bo: &BoFacts, object: &VulkanObject, job: &MoveFacts) -> Route {
        self.route_of(bo, object, job)
    }

    fn reusable(&self, object: &VulkanObject) -> bool {
        !object.went_out()
    }

    fn released(&self, object: &VulkanObject, pending: &[Fence]) {
        object.released(pending);
    }
}

impl core::fmt::Debug for VulkanDriver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "VulkanDriver({}, {:?})",
            self.core.raw.facts.name, self.evict_to
        )
    }
}
