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

#[cfg(test)]
mod tests {
    use placement::{CacheMode, PageCount, PageRange};
    use ttm::trace::Reason;

    use super::*;

    const SYSTEM: Option<MemType> = Some(MemType::SYSTEM);
    const VRAM: Option<MemType> = Some(MemType::VRAM);

    fn bo(mem_type: Option<MemType>, kind: BoKind, advice: Advice) -> BoFacts {
        BoFacts {
            id: 1,
            pages: PageCount::ONE,
            kind,
            mem_type,
            range: PageRange::EMPTY,
            priority: 0,
            pinned: false,
            mode: CacheMode::Cached,
            advice,
            opaque: false,
            cpu_access: false,
        }
    }

    fn route(driver: &SimDriver, kind: BoKind, from: Option<MemType>, to: MemType) -> String {
        let job = MoveFacts {
            from,
            to,
            range: PageRange::EMPTY,
            has_content: from.is_some(),
            why: Reason::Validate,
        };
        let bo = bo(from, kind, Advice::WillNeed);
        format!("{:?}", driver.route(&bo, &(), &job))
    }

    #[test]
    fn the_mode_says_who_moves_content_and_the_kind_what_is_cleared() {
        let to_vram = |mode, kind, from| {
            let driver = SimDriver::new().routes(mode);
            route(&driver, kind, from, MemType::VRAM)
        };
        let (device, kernel) = (BoKind::Device, BoKind::Kernel);
        let rows = [
            (
                RouteMode::Engine,
                "Engine(EngineId(0))",
                "Clear(Some(EngineId(0)))",
            ),
            (RouteMode::Cpu, "Cpu", "Clear(None)"),
            (RouteMode::Null, "Null", "Null"),
        ];
        for (mode, content, fresh) in rows {
            assert_eq!(to_vram(mode, device, SYSTEM), content);
            assert_eq!(to_vram(mode, device, None), fresh);
            assert_eq!(to_vram(mode, kernel, None), "Null");
            let driver = SimDriver::new().routes(mode);
            assert_eq!(route(&driver, device, None, MemType::SYSTEM), "Null");
        }
        let two = SimDriver::new().engines(EngineId(0), EngineId(1));
        let out = route(&two, device, VRAM, MemType::SYSTEM);
        assert_eq!(out, "Engine(EngineId(1))");
    }

    #[test]
    fn content_hops_only_between_vram_and_system_and_only_if_told_to() {
        let hop = SimDriver::new().hop(true);
        for (from, to) in [(SYSTEM, MemType::VRAM), (VRAM, MemType::SYSTEM)] {
            assert!(route(&hop, BoKind::Device, from, to).starts_with("Hop"));
        }
        let direct = route(&hop, BoKind::Device, VRAM, MemType::TT);
        assert!(direct.starts_with("Engine"));
        assert!(route(&hop, BoKind::Device, None, MemType::VRAM).starts_with("Clear"));
    }

    #[test]
    fn victims_go_where_the_knob_says_or_nowhere_if_nobody_needs_them() {
        let to = |driver: &SimDriver, mem_type, advice| {
            let bo = bo(mem_type, BoKind::Device, advice);
            match driver.evict_to(&bo, &()) {
                Eviction::To(p) => p.places().iter().map(|p| p.mem_type).collect(),
                Eviction::Discard => vec![],
                Eviction::Never => vec![MemType::VRAM],
            }
        };
        let (plain, by_tt) = (SimDriver::new(), SimDriver::new().evict_vram_by_tt());
        let need = Advice::WillNeed;
        assert_eq!(to(&plain, VRAM, need), [MemType::SYSTEM]);
        assert_eq!(to(&by_tt, VRAM, need), [MemType::TT, MemType::SYSTEM]);
        assert_eq!(to(&by_tt, Some(MemType::TT), need), [MemType::SYSTEM]);
        assert_eq!(to(&plain, SYSTEM, need), [MemType::VRAM], "never");
        assert_eq!(to(&plain, VRAM, Advice::DontNeed), []);
    }
}
