//! Threads for background work.

use core::time::Duration;
use std::io;
use std::thread::{self, JoinHandle};

use ttm::clock::{Clock, Progress, Service, WaitFor};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicBool, Ordering};

/// The longest sleep of a service's thread. A bell that nobody rang costs this much at most.
const PERIOD: Duration = Duration::from_millis(10);

/// A named thread for each service, stepping it while there is work and sleeping on its bell
/// otherwise. Dropping it stops and joins all of them.
///
/// ```
/// use backends::host::{Threads, wall_clock};
/// use ttm::clock::{Progress, Service, WaitCell};
/// use ttm::sync::Arc;
/// use ttm::sync::atomic::{AtomicU64, Ordering};
///
/// struct Count(AtomicU64, Arc<WaitCell>);
///
/// impl Service for Count {
///     fn name(&self) -> &'static str {
///         "count to ten"
///     }
///     fn step(&self) -> Progress {
///         match self.0.load(Ordering::Relaxed) {
///             10 => Progress::Idle,
///             n => {
///                 self.0.store(n + 1, Ordering::Relaxed);
///                 Progress::Did
///             }
///         }
///     }
///     fn bell(&self) -> &Arc<WaitCell> {
///         &self.1
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let clock = wall_clock();
/// let count = Arc::new(Count(AtomicU64::new(0), WaitCell::new()));
/// let threads = Threads::start(&clock, [count.clone() as Arc<dyn Service>])?;
/// while count.0.load(Ordering::Relaxed) < 10 {
///     std::thread::yield_now();
/// }
/// drop(threads);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it stops the services"]
pub struct Threads {
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    running: Vec<(Arc<dyn Service>, JoinHandle<()>)>,
}

impl Threads {
    /// Starts a thread for each of `services`, which sleeps through `clock`.
    ///
    /// # Errors
    /// The host's, if it gives no more threads; those that were started are stopped again.
    pub fn start(
        clock: &Arc<dyn Clock>,
        services: impl IntoIterator<Item = Arc<dyn Service>>,
    ) -> io::Result<Self> {
        let mut threads = Self {
            clock: Arc::clone(clock),
            stop: Arc::new(AtomicBool::new(false)),
            running: Vec::new(),
        };
        for service in services {
            let clock = Arc::clone(clock);
            let stop = Arc::clone(&threads.stop);
            let served = Arc::clone(&service);
            let handle = thread::Builder::new()
                .name(service.name().into())
                .spawn(move || serve(&*served, &*clock, &stop))?;
            threads.running.push((service, handle));
        }
        Ok(threads)
    }

    /// How many threads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

fn serve(service: &dyn Service, clock: &dyn Clock, stop: &AtomicBool) {
    // Acquire with the release in `drop`.
    while !stop.load(Ordering::Acquire) {
        if service.step() == Progress::Idle {
            let until = clock.now().after_nanos(PERIOD.as_nanos() as u64);
            clock.park(service.bell(), Some(until), WaitFor::Work);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for (service, _) in &self.running {
            self.clock.unpark(service.bell());
        }
        for (service, handle) in self.running.drain(..) {
            let panicked = handle.join().is_err();
            assert!(
                !panicked || thread::panicking(),
                "the service \"{}\" panicked; its own message is above",
                service.name()
            );
        }
    }
}
