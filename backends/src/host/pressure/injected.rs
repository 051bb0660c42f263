//! Pressure that somebody injects.

use ttm::pages::{Level, Pressure};
use ttm::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// A level that is set from outside, for tests and simulations.
///
/// ```
/// use backends::host::InjectedPressure;
/// use ttm::pages::{Level, Pressure};
///
/// let pressure = InjectedPressure::new();
/// assert_eq!(pressure.level(), Level::None);
/// pressure.set(Level::Full);
/// assert_eq!(pressure.level(), Level::Full);
/// assert_eq!(pressure.readings(), 2);
/// ```
#[derive(Debug, Default)]
pub struct InjectedPressure {
    /// A [`Level`] as a number. Relaxed, as is the count: they order nothing.
    level: AtomicU8,
    readings: AtomicU64,
}

impl InjectedPressure {
    /// No pressure yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what is read from now on.
    pub fn set(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// How many times it was read.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.readings.load(Ordering::Relaxed)
    }
}

impl Pressure for InjectedPressure {
    fn level(&self) -> Level {
        self.readings.fetch_add(1, Ordering::Relaxed);
        let level = self.level.load(Ordering::Relaxed);
        let levels = [Level::None, Level::Some, Level::Full];
        levels[usize::from(level)]
    }

    fn describe(&self) -> String {
        "injected pressure".into()
    }
}
