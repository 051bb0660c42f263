//! Giving memory back while the system is short of it.
//!
//! ```text
//!            some, or worse                      calm for a while
//!   calm ─────────────────────▶ squeezing ─────────────────────────▶ calm
//!                                │    ▲
//!              each step: the pool, then those who can reclaim;
//!              twice as much as before, while it does not help
//! ```
//!
//! Whoever knows how short memory is implements [`Pressure`]; whoever can give some back implements
//! [`Reclaim`]. The [`Reclaimer`] sits between them, holds no lock while it calls either, and has
//! hysteresis: it begins when pressure is felt, and is content only when it was not felt several
//! times in a row. Until then the pool fetches nothing ahead.

use core::fmt;
use core::time::Duration;

use placement::PageCount;

use crate::clock::{Clock, Progress, Service, Time, WaitCell};
use crate::sync::{Arc, Mutex};

use super::Pool;

/// How short memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// Not at all.
    #[default]
    None,
    /// Some work is slowed down by it.
    Some,
    /// Nothing goes on, or the next allocation may fail.
    Full,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Some => "some",
            Self::Full => "full",
        })
    }
}

/// Knows how short memory is.
pub trait Pressure: Send + Sync {
    /// How short memory is now. Never waits.
    fn level(&self) -> Level;

    /// Where it knows from, for people.
    fn describe(&self) -> String;
}

/// Can give memory back.
pub trait Reclaim: Send + Sync {
    /// Pages that it could give back.
    fn count(&self) -> PageCount;

    /// Gives about `target` pages back to the system or to the pool. Waits for devices and locks
    /// only with `may_wait`. Answers how many; zero if it cannot.
    fn reclaim(&self, target: PageCount, may_wait: bool) -> PageCount;
}

/// The least that a squeeze asks for: 8 MiB.
const FIRST: u64 = 2048;

/// The most that one step asks for: 256 MiB.
const MOST: u64 = 1 << 16;

/// Readings without pressure after which all is calm.
const CALM_READINGS: u32 = 4;

/// The time between two readings.
const PERIOD: Duration = Duration::from_millis(100);

/// What a reclaimer has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReclaimerCounts {
    /// Times that pressure was read.
    pub readings: u64,
    /// Times that it began to squeeze.
    pub squeezes: u64,
    /// Pages that the pool gave back.
    pub from_pool: u64,
    /// Pages that others gave back.
    pub from_others: u64,
    /// Whether it squeezes now.
    pub squeezing: bool,
}

#[derive(Default)]
struct State {
    next: Time,
    calm: u32,
    target: u64,
    counts: ReclaimerCounts,
}

/// Watches pressure, and gives memory back while there is some. A [`Service`].
pub struct Reclaimer {
    pool: Arc<Pool>,
    pressure: Arc<dyn Pressure>,
    others: Vec<Arc<dyn Reclaim>>,
    clock: Arc<dyn Clock>,
    bell: Arc<WaitCell>,
    state: Mutex<State>,
}

impl Reclaimer {
    /// A reclaimer that shrinks `pool` while `pressure` says so.
    #[must_use]
    pub fn new(pool: Arc<Pool>, pressure: Arc<dyn Pressure>, clock: Arc<dyn Clock>) -> Self {
        Self {
            pool,
            pressure,
            others: Vec::new(),
            clock,
            bell: WaitCell::new(),
            state: Mutex::new(State::default()),
        }
    }

    /// Asks `other` too, once the pool is empty.
    #[must_use]
    pub fn with(mut self, other: Arc<dyn Reclaim>) -> Self {
        self.others.push(other);
        self
    }

    /// What it has done.
    #[must_use]
    pub fn counts(&self) -> ReclaimerCounts {
        self.state.lock().counts
    }

    /// Reads the pressure, whatever the time, and acts on it once. Answers pages given back.
    pub fn look(&self) -> PageCount {
        let level = self.pressure.level();
        let Some(target) = self.state.lock().decide(level) else {
            self.pool.set_pressed(false);
            return PageCount::ZERO;
        };
        self.pool.set_pressed(true);
        if level == Level::None {
            return PageCount::ZERO;
        }
        let from_pool = self.pool.scan(target);
        let mut left = target.saturating_sub(from_pool);
        let mut from_others = 0;
        for other in &self.others {
            if left.is_zero() {
                break;
            }
            let given = other.reclaim(left, level == Level::Full);
            left = left.saturating_sub(given);
            from_others += given.get();
        }
        // What others gave lies in the pool.
        if from_others > 0 {
            self.pool
                .scan(PageCount::new(from_others).unwrap_or(PageCount::MAX));
        }
        let mut state = self.state.lock();
        state.counts.from_pool += from_pool.get();
        state.counts.from_others += from_others;
        PageCount::new(from_pool.get() + from_others).unwrap_or(PageCount::MAX)
    }
}

impl State {
    /// How much has to be given back now; `None` if all is calm.
    fn decide(&mut self, level: Level) -> Option<PageCount> {
        self.counts.readings += 1;
        if level == Level::None {
            self.calm += 1;
            if self.calm >= CALM_READINGS {
                self.target = 0;
                self.counts.squeezing = false;
            }
        } else {
            self.calm = 0;
            self.target = match self.target {
                0 => FIRST,
                n => (n * 2).min(MOST),
            };
            if !self.counts.squeezing {
                self.counts.squeezing = true;
                self.counts.squeezes += 1;
            }
        }
        let squeezing = self.counts.squeezing;
        squeezing.then(|| PageCount::new(self.target).expect("below the most"))
    }
}

impl Service for Reclaimer {
    fn name(&self) -> &'static str {
        "reclaimer"
    }

    fn step(&self) -> Progress {
        let now = self.clock.now();
        {
            let mut state = self.state.lock();
            if now < state.next {
                return Progress::Idle;
            }
            state.next = now.after_nanos(PERIOD.as_nanos() as u64);
        }
        self.look();
        Progress::Idle
    }

    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}

impl fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reclaimer({:?})", self.counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_more_while_it_does_not_help_and_is_content_only_after_a_while() {
        let mut state = State::default();
        let mut decide = |level| state.decide(level).map(PageCount::get);
        assert_eq!(decide(Level::None), None);
        assert_eq!(decide(Level::Some), Some(FIRST));
        assert_eq!(decide(Level::Full), Some(2 * FIRST));
        for _ in 1..CALM_READINGS {
            assert_eq!(decide(Level::None), Some(2 * FIRST), "not yet content");
        }
        assert_eq!(decide(Level::None), None);
        assert_eq!(decide(Level::Some), Some(FIRST), "it begins anew");
        for _ in 0..20 {
            decide(Level::Some);
        }
        assert_eq!(decide(Level::Some), Some(MOST));
        assert_eq!(state.counts.squeezes, 2);
    }
}
