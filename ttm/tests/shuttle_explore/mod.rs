//! Runs a scenario under many schedules.
//!
//! Half of them are random, half change the thread that runs at few, random places (PCT), which
//! finds rare orders. The seed is fixed, so that a failure comes back; `TTM_SEED` chooses another
//! one and `TTM_SCHEDULES` multiplies their number. A failing schedule is printed by shuttle
//! itself, to be handed to `shuttle::replay`.

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::{Config, MaxSteps, Runner};
use ttm::device::Device;
use ttm::fixture::Counting;
use ttm::trace::Event;

/// The changes of thread that PCT makes.
const DEPTH: usize = 3;

/// Runs `scenario` under `schedules` schedules; a panic, a deadlock or endless running fails.
pub(crate) fn explore(schedules: usize, scenario: fn()) {
    let schedules = schedules * from_env("TTM_SCHEDULES", 1) as usize;
    let seed = from_env("TTM_SEED", 0x7474_6d00);
    let random = RandomScheduler::new_from_seed(seed, schedules.div_ceil(2));
    Runner::new(random, config()).run(scenario);
    let pct = PctScheduler::new_from_seed(seed, DEPTH, schedules / 2);
    Runner::new(pct, config()).run(scenario);
}

/// Runs `scenario` under every schedule, or the first `most` if there are more.
#[allow(
    dead_code,
    reason = "not every test file has a scenario that is small enough"
)]
pub(crate) fn explore_all(most: usize, scenario: fn()) {
    let schedules = Runner::new(DfsScheduler::new(Some(most), false), config()).run(scenario);
    println!("{schedules} schedules");
}

fn config() -> Config {
    let mut config = Config::new();
    // A validate that evicts is a deep chain of calls.
    config.stack_size = 256 << 10;
    // A few thousand are enough; more is a thread that spins.
    config.max_steps = MaxSteps::FailAfter(50_000);
    config
}

fn from_env(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// Something that only one thread may be in at a time.
#[derive(Default)]
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) struct Alone(AtomicBool);

#[allow(dead_code, reason = "not every test file needs it")]
impl Alone {
    /// Enters, lets others run, and leaves.
    pub(crate) fn pass(&self) {
        assert!(
            !self.0.swap(true, Ordering::SeqCst),
            "two hold one reservation"
        );
        shuttle::thread::yield_now();
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What has to hold when all threads have ended: the invariants, and I-45 for the oldest
/// transaction of all, which never backs off.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) fn check(device: &Device<Counting>) {
    let checked = device.check().unwrap_or_else(|v| panic!("{v}"));
    assert_eq!(checked.busy, 0, "a reservation is still held");
    let oldest = device
        .events()
        .iter()
        .any(|record| matches!(record.event, Event::BackedOff { age: 1 }));
    assert!(!oldest, "the oldest transaction backed off");
}
