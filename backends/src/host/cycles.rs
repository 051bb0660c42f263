//! The processor's cycle counter, as an order of events.
//!
//! The rule that the `unsafe` block here relies on: the instruction exists on every x86-64
//! processor, and touches no memory.
#![expect(unsafe_code, reason = "reading the cycle counter")]

/// A cycle counter that runs alike on all cores.
#[derive(Clone, Copy, Debug)]
pub(super) struct CycleCounter(());

impl CycleCounter {
    /// The counter, if the kernel uses it as its own clock: then it has seen that the cores
    /// agree.
    pub(super) fn find() -> Option<Self> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let source = std::fs::read_to_string(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        );
        source
            .is_ok_and(|name| name.trim() == "tsc")
            .then_some(Self(()))
    }

    /// The present count.
    ///
    /// A transaction of `n` objects takes more than `n` cycles, so the `n` numbers up to the
    /// count at its end are greater than the count at any earlier transaction's end. The
    /// processor may read it some tens of nanoseconds early, beside what comes before it in the
    /// program: uses on two cores that are so close have no order that matters. (Waiting for
    /// what comes before, as `rdtscp` does, costs twice as much: bench `touch`.)
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(super) fn tick(self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// Not reached: `find` finds none.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn tick(self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_greater_than_one_before_a_lock_and_its_release() {
        let Some(counter) = CycleCounter::find() else {
            println!("skipped: the kernel does not use the cycle counter");
            return;
        };
        let lock = ttm::sync::Mutex::new(());
        let draw = |_| {
            let count = counter.tick();
            drop(lock.lock());
            count
        };
        let counts: Vec<u64> = (0..1000).map(draw).collect();
        assert!(counts.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
