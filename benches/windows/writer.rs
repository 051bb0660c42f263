//! A writer that never rests, and how long it was made to.
//!
//! The rule that the `unsafe` block here relies on: whoever starts a [`Writer`] hands it addresses
//! that stay mapped, or make accesses wait, until it is given others or stopped.
#![expect(unsafe_code, reason = "stores at bare addresses")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::measure;

const PAGE: usize = 4096;

#[derive(Default)]
struct Shared {
    base: AtomicUsize,
    pages: AtomicUsize,
    /// Counts the addresses that the writer has seen.
    seen: AtomicUsize,
    wanted: AtomicUsize,
    longest_ns: AtomicU64,
    stop: AtomicBool,
}

/// A thread on the second CPU that stores a word to one page after the other, each time reading
/// the clock.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let _ = measure::pin(1);
            write(&theirs);
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Lets it write there from now on; it has left the addresses before when this returns.
    pub(crate) fn aim(&self, base: usize, bytes: usize) {
        let shared = &self.shared;
        shared.base.store(base, Ordering::Relaxed);
        shared.pages.store(bytes / PAGE, Ordering::Relaxed);
        let wanted = shared.wanted.fetch_add(1, Ordering::Release) + 1;
        while shared.seen.load(Ordering::Acquire) != wanted {
            thread::yield_now();
        }
    }

    /// How long it waited at most while `work` ran and shortly after.
    pub(crate) fn longest_gap(&self, work: impl FnOnce()) -> Duration {
        let settle = || thread::sleep(Duration::from_micros(200));
        settle();
        self.shared.longest_ns.store(0, Ordering::Relaxed);
        work();
        settle();
        Duration::from_nanos(self.shared.longest_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Stores one word at a window's first byte.
pub(crate) fn store(base: usize, value: u64) {
    let to: *mut u64 = std::ptr::with_exposed_provenance_mut(base);
    // SAFETY: the page is mapped, or makes the store wait (rule above).
    unsafe { to.write_volatile(value) };
}

fn write(shared: &Shared) {
    let (mut base, mut pages, mut n) = (0, 0, 0_u64);
    let mut last = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let wanted = shared.wanted.load(Ordering::Acquire);
        if shared.seen.load(Ordering::Relaxed) != wanted {
            base = shared.base.load(Ordering::Relaxed);
            pages = shared.pages.load(Ordering::Relaxed);
            shared.seen.store(wanted, Ordering::Release);
            last = Instant::now();
        }
        if pages == 0 {
            thread::yield_now();
            continue;
        }
        // A stride that is prime to every power of two visits all pages.
        let page = (n as usize).wrapping_mul(7) % pages;
        store(base + page * PAGE, n);
        n += 1;
        let now = Instant::now();
        let gap = now.duration_since(last).as_nanos() as u64;
        if gap > shared.longest_ns.load(Ordering::Relaxed) {
            shared.longest_ns.store(gap, Ordering::Relaxed);
        }
        last = now;
    }
}
