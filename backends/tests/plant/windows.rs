//! Scenarios with windows, in the best address space that this process may have.

use backends::host::{FaultThreads, HostSpace};
use backends::sim::{Gpu, RouteMode, SimClock, SimDriver, VirtualClock};
use placement::PageCount;
use ttm::bo::Bo;
use ttm::fault::{Faults, Site};
use ttm::map::{AddressSpace, Follow, MapInfo, Window, WindowConfig, Windows};
use ttm::plant::Defect;
use ttm::sync::{Arc, Mutex};

use crate::support::{PAGE, Setup, World, system, vram};
use crate::{Found, SIZE, check, told};

/// Whether a defect can do harm here: windows over what moves need accesses that wait, a copy under
/// writers a kernel that notes writes.
pub(crate) fn can_harm(defect: Defect) -> bool {
    let able = HostSpace::probe().abilities();
    match defect {
        Defect::NoRevoke => able.loads_wait,
        Defect::NoDirtyRecopy => able.tracks_writes,
        _ => true,
    }
}

/// A window over all of `bo`, and who serves it.
fn open(
    world: &World,
    bo: &Bo<SimDriver>,
    follow: Follow,
) -> (Arc<Window<SimDriver>>, FaultThreads) {
    let space = Arc::new(HostSpace::probe());
    let config = WindowConfig {
        follow,
        ..WindowConfig::default()
    };
    let windows = Windows::with_config(&world.device, Arc::clone(&space) as _, config);
    let threads = FaultThreads::start(windows.handler(), space, 2).unwrap();
    let window = windows.map(bo, MapInfo::whole()).unwrap();
    window.populate().unwrap();
    (Arc::new(window), threads)
}

/// An object leaves from under its window, which is to wait for the next access.
pub(crate) fn left_from_under_a_window() -> Found {
    let world = World::new(&Setup::default());
    let bo = world.create_in(SIZE, &system());
    let (window, _threads) = open(&world, &bo, Follow::OnFault);
    window.words_mut().map_err(told)?[0].store(1);
    world.validate(&bo, &vram()).map_err(told)?;
    let checked = check(&world);
    drop(window);
    checked
}

/// Stores through a window when a copy has been made and writers are about to be kept out.
struct LateWriter(Mutex<Option<Arc<Window<SimDriver>>>>);

/// Where it stores.
const WORD: usize = 300 * 512;

impl Faults for LateWriter {
    fn hit(&self, site: Site) -> bool {
        let writes = (site == Site::Revoke).then(|| self.0.lock().take());
        if let Some(window) = writes.flatten() {
            window.words_mut().unwrap()[WORD].store(99);
        }
        false
    }
}

/// The CPU carries a large object to VRAM while a writer goes on.
pub(crate) fn written_while_it_was_copied() -> Found {
    let setup = Setup {
        vram: 1200,
        ..Setup::default()
    };
    let clock = VirtualClock::new();
    let time = SimClock::Virtual(Arc::clone(&clock));
    let gpu = Gpu::new(setup.config(), time).unwrap();
    let writer = Arc::new(LateWriter(Mutex::new(None)));
    let driver = SimDriver::new().routes(RouteMode::Cpu);
    let world = setup.with_faults(gpu, Some(clock), driver, Arc::clone(&writer) as _);
    let pages = PageCount::new(600).expect("a few");
    let bo = world.create_in(pages.get() * PAGE, &system());
    let (window, _threads) = open(&world, &bo, Follow::AtOnce);
    window.words_mut().map_err(told)?[WORD].store(1);
    *writer.0.lock() = Some(Arc::clone(&window));
    world.validate(&bo, &vram()).map_err(told)?;
    assert!(writer.0.lock().is_none(), "nobody was kept out");
    let mut found = [0; 8];
    window.read_at(8 * WORD as u64, &mut found).map_err(told)?;
    match u64::from_le_bytes(found) {
        99 => check(&world),
        found => Err(format!("I-15: a store was lost: {found} is there")),
    }
}
