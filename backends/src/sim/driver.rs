//! A driver for simulations.

use placement::{MemType, Place, Placement};
use ttm::driver::{Advice, BoFacts, BoKind, Driver, EngineId, Eviction, MoveFacts, Route};

/// Who moves content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RouteMode {
    /// Engines: engine [`SimDriver::engines`]. The right one where content or time matter.
    #[default]
    Engine,
    /// The CPU, through the aperture; it fails outside.
    Cpu,
    /// Nobody: for devices without contents when time does not matter either.
    Null,
}

/// Policy in knobs: where victims go and who copies. Objects carry nothing of the driver's.
///
/// Fresh objects of [`BoKind::Device`] are cleared, those of [`BoKind::Kernel`] are not. An object
/// whose owner does not need its content is thrown away when it has to leave.
///
/// ```
/// use backends::sim::{RouteMode, SimDriver};
///
/// let driver = SimDriver::new().routes(RouteMode::Cpu).hop(true);
/// # let _ = driver;
/// ```
#[derive(Clone, Debug)]
pub struct SimDriver {
    routes: RouteMode,
    hop: bool,
    engine_in: EngineId,
    engine_out: EngineId,
    evict_vram_to: Placement,
}

impl SimDriver {
    /// Engine 0 copies; VRAM is evicted to SYSTEM, as is every other memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            routes: RouteMode::Engine,
            hop: false,
            engine_in: EngineId(0),
            engine_out: EngineId(0),
            evict_vram_to: Placement::of(Place::new(MemType::SYSTEM)),
        }
    }

    /// Who moves content.
    #[must_use]
    pub fn routes(mut self, routes: RouteMode) -> Self {
        self.routes = routes;
        self
    }

    /// Whether content between VRAM and SYSTEM goes by way of TT.
    #[must_use]
    pub fn hop(mut self, hop: bool) -> Self {
        self.hop = hop;
        self
    }

    /// Which engine copies into VRAM (and inside it), and which out of it.
    #[must_use]
    pub fn engines(mut self, into: EngineId, out: EngineId) -> Self {
        self.engine_in = into;
        self.engine_out = out;
        self
    }

    /// Where victims go from VRAM.
    #[must_use]
    pub fn evict_vram_to(mut self, placement: Placement) -> Self {
        self.evict_vram_to = placement;
        self
    }

    /// Victims go from VRAM to TT while that has room, else to SYSTEM.
    #[must_use]
    pub fn evict_vram_by_tt(self) -> Self {
        let placement = Placement::of(Place::new(MemType::TT).desired());
        self.evict_vram_to(placement.with(Place::new(MemType::SYSTEM)))
    }

    fn content_route(&self, from: MemType, to: MemType) -> Route {
        let ends = [from, to];
        if self.hop && ends.contains(&MemType::VRAM) && ends.contains(&MemType::SYSTEM) {
            return Route::Hop(Place::new(MemType::TT).temporary());
        }
        match self.routes {
            RouteMode::Engine if is_frames(to) => Route::Engine(self.engine_out),
            RouteMode::Engine => Route::Engine(self.engine_in),
            RouteMode::Cpu => Route::Cpu,
            RouteMode::Null => Route::Null,
        }
    }

    fn fresh_route(&self, kind: BoKind, to: MemType) -> Route {
        // Frames are zero when they are taken.
        if kind != BoKind::Device || is_frames(to) {
            return Route::Null;
        }
        match self.routes {
            RouteMode::Engine => Route::Clear(Some(self.engine_in)),
            RouteMode::Cpu => Route::Clear(None),
            RouteMode::Null => Route::Null,
        }
    }
}

impl Default for SimDriver {
    fn default() -> Self {
        Self::new()
    }
}

fn is_frames(mem_type: MemType) -> bool {
    mem_type == MemType::SYSTEM || mem_type == MemType::TT
}

impl Driver for SimDriver {
    type Object = ();

    fn evict_to(&self, bo: &BoFacts, (): &()) -> Eviction {
        if bo.advice == Advice::DontNeed {
            return Eviction::Discard;
        }
        match bo.mem_type {
            Some(MemType::VRAM) => Eviction::To(self.evict_vram_to.clone()),
            Some(MemType::SYSTEM) | None => Eviction::Never,
            Some(_) => Eviction::To(Placement::of(Place::new(MemType::SYSTEM))),
        }
    }

    fn route(&self, bo: &BoFacts, (): &(), job: &MoveFacts) -> Route {
        match job.from {
            Some(from) if job.has_content => self.content_route(from, job.to),
            _ => self.fresh_route(bo.kind, job.to),
        }
    }
}
