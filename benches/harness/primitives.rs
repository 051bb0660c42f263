//! What this machine's primitives cost, and what that does to a comparison with the kernel.
//!
//! The kernel's figures were taken on one machine. Where reading the clock, taking a lock and
//! allocating cost about the same here, ours compares plainly with them. Where one of them does
//! not, both sides are divided by what their own primitives cost, and the ratio is *normalised*.

use std::hint::black_box;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use crate::kernel::{self, Figure};
use crate::measure::{Stopwatch, interleave};

/// How far a primitive may be from the kernel's, either way, for a plain comparison.
pub const TOLERANCE: f64 = 1.3;

const REPEATS: usize = 61;
const OPS: usize = 10_000;

/// The cost of three primitives, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Primitives {
    /// Reading the monotonic clock.
    pub clock_read_ns: f64,
    /// Taking and releasing a `parking_lot::Mutex` that nobody else wants.
    pub lock_pair_ns: f64,
    /// Allocating and freeing 256 bytes.
    pub alloc_pair_256_ns: f64,
}

impl Primitives {
    /// What they cost the kernel.
    pub const KERNEL: Self = Self {
        clock_read_ns: kernel::CLOCK_READ.ns,
        lock_pair_ns: kernel::LOCK_PAIR.ns,
        alloc_pair_256_ns: kernel::ALLOC_PAIR_256.ns,
    };

    /// Measures them on this thread: some milliseconds.
    pub fn measure() -> Self {
        let lock = Mutex::new(0_u64);
        let mut clock_read = |watch: &mut Stopwatch| {
            watch.time(OPS, || {
                for _ in 0..OPS {
                    black_box(Instant::now());
                }
            });
        };
        let mut lock_pair = |watch: &mut Stopwatch| {
            watch.time(OPS, || {
                for _ in 0..OPS {
                    *black_box(&lock).lock() += 1;
                }
            });
        };
        let mut alloc_pair = |watch: &mut Stopwatch| {
            watch.time(OPS, || {
                for _ in 0..OPS {
                    drop(black_box(Vec::<u8>::with_capacity(black_box(256))));
                }
            });
        };
        let [clock, lock, alloc] =
            interleave(REPEATS, [&mut clock_read, &mut lock_pair, &mut alloc_pair]);
        Self {
            clock_read_ns: clock.median,
            lock_pair_ns: lock.median,
            alloc_pair_256_ns: alloc.median,
        }
    }

    /// Each primitive over the kernel's: above 1 is slower here.
    pub fn ratios(&self) -> [f64; 3] {
        [
            self.clock_read_ns / Self::KERNEL.clock_read_ns,
            self.lock_pair_ns / Self::KERNEL.lock_pair_ns,
            self.alloc_pair_256_ns / Self::KERNEL.alloc_pair_256_ns,
        ]
    }

    /// The machine factor: the geometric mean of [`Self::ratios`].
    pub fn factor(&self) -> f64 {
        self.ratios().iter().product::<f64>().cbrt()
    }

    /// Whether a primitive is too far from the kernel's for a plain comparison.
    pub fn normalises(&self) -> bool {
        self.ratios()
            .iter()
            .any(|&ratio| !(1.0 / TOLERANCE..=TOLERANCE).contains(&ratio))
    }

    /// Ours over the kernel's, normalised by [`Self::factor`] where it must be.
    pub fn against_kernel(&self, ours_ns: f64, kernel: &Figure) -> f64 {
        let divisor = if self.normalises() {
            self.factor()
        } else {
            1.0
        };
        ours_ns / kernel.ns / divisor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURE: Figure = Figure {
        workload: "any",
        ns: 100.0,
    };

    fn scaled(clock: f64, lock: f64, alloc: f64) -> Primitives {
        let kernel = Primitives::KERNEL;
        Primitives {
            clock_read_ns: kernel.clock_read_ns * clock,
            lock_pair_ns: kernel.lock_pair_ns * lock,
            alloc_pair_256_ns: kernel.alloc_pair_256_ns * alloc,
        }
    }

    #[test]
    fn within_the_tolerance_the_comparison_is_plain() {
        let machine = scaled(1.29, 0.8, 1.0);
        assert!(!machine.normalises());
        assert_eq!(machine.against_kernel(150.0, &FIGURE), 1.5);
    }

    #[test]
    fn beyond_it_both_sides_are_divided_by_their_primitives() {
        let slow = scaled(2.0, 2.0, 2.0);
        assert!(slow.normalises());
        assert!((slow.factor() - 2.0).abs() < 1e-9);
        assert!((slow.against_kernel(200.0, &FIGURE) - 1.0).abs() < 1e-9);
        let fast = scaled(0.5, 0.5, 0.5);
        assert!((fast.against_kernel(50.0, &FIGURE) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_primitive_too_far_is_enough_and_the_divisor_is_the_geometric_mean() {
        let odd = scaled(8.0, 1.0, 1.0);
        assert!(odd.normalises());
        assert!((odd.factor() - 2.0).abs() < 1e-9);
    }
}
