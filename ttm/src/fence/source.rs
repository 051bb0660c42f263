//! Fences of a backend that must be asked: its timelines, and the service that pumps them.

use crate::clock::{Progress, Service, WaitCell};
use crate::sync::{Arc, Mutex};

use super::timeline::{FenceError, Timeline};

/// A backend's own counter behind a timeline (a syncobj, a Vulkan semaphore, a sequence number
/// in memory).
pub trait FenceSource: Send + Sync {
    /// The last point reached. Never waits.
    ///
    /// # Errors
    /// The first point that failed, and how; it and the points before it count as reached.
    fn poll(&self) -> Result<u64, (u64, FenceError)>;

    /// Asks for a wake-up of `bell` once `seqno` is reached, where the backend can.
    fn arm(&self, seqno: u64, bell: &Arc<WaitCell>);
}

type Pumped = (Arc<Timeline>, Arc<dyn FenceSource>);

/// Polls sources and signals their timelines.
pub struct Pump {
    sources: Mutex<Vec<Pumped>>,
    bell: Arc<WaitCell>,
}

impl Pump {
    /// A pump without sources.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sources: Mutex::new(Vec::new()),
            bell: WaitCell::new(),
        }
    }

    /// Signals `timeline` from now on as `source` says.
    pub fn add(&self, timeline: Arc<Timeline>, source: Arc<dyn FenceSource>) {
        self.sources.lock().push((timeline, source));
    }
}

impl Default for Pump {
    fn default() -> Self {
        Self::new()
    }
}

impl Service for Pump {
    fn name(&self) -> &'static str {
        "fence pump"
    }

    fn step(&self) -> Progress {
        // Cloned, because signalling runs callbacks, which hold no lock.
        let sources = self.sources.lock().clone();
        let mut progress = Progress::Idle;
        for (timeline, source) in sources {
            let before = timeline.reached();
            match source.poll() {
                Ok(seqno) => timeline.signal(seqno),
                Err((seqno, error)) => timeline.fail(seqno, error),
            }
            if timeline.reached() != before {
                progress = Progress::Did;
            }
            if timeline.reached() < timeline.issued() {
                source.arm(timeline.reached() + 1, &self.bell);
            }
        }
        progress
    }

    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Blocking, Time};
    use crate::fence::Status;
    use crate::sync::atomic::{AtomicU64, Ordering};

    struct Counter(AtomicU64);

    impl FenceSource for Counter {
        fn poll(&self) -> Result<u64, (u64, FenceError)> {
            match self.0.load(Ordering::Relaxed) {
                99 => Err((3, FenceError::Failed)),
                n => Ok(n),
            }
        }
        fn arm(&self, _: u64, bell: &Arc<WaitCell>) {
            bell.notify();
        }
    }

    #[test]
    fn a_pump_signals_what_its_source_reached() {
        let clock = Arc::new(Blocking::new(|| Time::ZERO));
        let timeline = Arc::new(Timeline::new(1, clock));
        let source = Arc::new(Counter(AtomicU64::new(0)));
        let pump = Pump::new();
        pump.add(timeline.clone(), source.clone());
        let fences: Vec<_> = (0..3).map(|_| timeline.issue()).collect();
        assert_eq!(pump.step(), Progress::Idle);
        source.0.store(2, Ordering::Relaxed);
        assert_eq!(pump.step(), Progress::Did);
        assert!(fences[1].is_signalled() && !fences[2].is_signalled());
        source.0.store(99, Ordering::Relaxed);
        assert_eq!(pump.step(), Progress::Did);
        assert_eq!(fences[2].status(), Status::Failed(FenceError::Failed));
        assert_eq!(fences[0].status(), Status::Done);
    }
}
