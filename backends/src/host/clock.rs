//! The wall clock.

use core::fmt;
use std::time::Instant;

use ttm::clock::{Blocking, Clock, Time, WaitCell, WaitFor, Woken};
use ttm::sync::Arc;

use super::cycles::CycleCounter;

/// The host's monotonic time, from the moment at which the clock was made. Sleepers block their
/// threads.
///
/// ```
/// use backends::host::WallClock;
/// use ttm::clock::{Clock, WaitCell, WaitFor, Woken};
///
/// let clock = WallClock::new();
/// let soon = clock.now().after_nanos(1_000_000);
/// assert_eq!(clock.park(&WaitCell::new(), Some(soon), WaitFor::Work), Woken::TimedOut);
/// assert!(clock.now() >= soon);
/// ```
///
/// Its ticks come from the processor's cycle counter where the kernel trusts that to be the same
/// on all cores, so that threads share nothing to draw them; otherwise from a shared counter.
pub struct WallClock {
    counter: Option<CycleCounter>,
    blocking: Blocking<Box<dyn Fn() -> Time + Send + Sync>>,
}

impl WallClock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        let origin = Instant::now();
        Self {
            counter: CycleCounter::find(),
            blocking: Blocking::new(Box::new(move || {
                let ns = origin.elapsed().as_nanos();
                Time::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
            })),
        }
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for WallClock {
    fn now(&self) -> Time {
        self.blocking.now()
    }

    fn tick(&self, n: u64) -> u64 {
        match &self.counter {
            Some(counter) => counter.tick(),
            None => self.blocking.tick(n),
        }
    }

    fn park(&self, cell: &Arc<WaitCell>, deadline: Option<Time>, what: WaitFor) -> Woken {
        self.blocking.park(cell, deadline, what)
    }

    fn unpark(&self, cell: &Arc<WaitCell>) {
        self.blocking.unpark(cell);
    }

    fn wait_graph(&self) -> String {
        self.blocking.wait_graph()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WallClock({:?})", self.now())
    }
}

/// A new wall clock, for a device and everything that signals to it.
#[must_use]
pub fn wall_clock() -> Arc<dyn Clock> {
    Arc::new(WallClock::new())
}
