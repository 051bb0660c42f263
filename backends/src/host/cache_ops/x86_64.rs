//! `clflushopt` and `clwb` where there are, `clflush` elsewhere.
//!
//! The rule that the `unsafe` blocks here rely on: these instructions change no byte of memory, and
//! fault only where a read would; the addresses of [`Lines`] are mapped.
#![expect(unsafe_code, reason = "instructions without an intrinsic")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;

use super::Lines;

/// What the processor has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instructions {
    /// Bytes that one instruction covers.
    step: u16,
    clflushopt: bool,
    clwb: bool,
}

impl Instructions {
    pub(super) fn probe() -> Result<Self, &'static str> {
        let basic = __cpuid(1);
        let words = (basic.ebx >> 8) & 0xff;
        if basic.edx >> 19 & 1 == 0 || !words.is_power_of_two() {
            return Err("the processor does not list clflush, or says no length of lines");
        }
        let extended = match __cpuid(0).eax >= 7 {
            true => __cpuid_count(7, 0).ebx,
            false => 0,
        };
        Ok(Self {
            // At most 128 words of 8 bytes.
            step: (8 * words) as u16,
            clflushopt: extended >> 23 & 1 == 1,
            clwb: extended >> 24 & 1 == 1,
        })
    }

    pub(super) fn step(self) -> usize {
        self.step.into()
    }

    /// Bytes of the longest line that the processor tells of.
    pub(super) fn shared(self) -> u32 {
        self.step.into()
    }

    pub(super) fn clean(self, lines: Lines<'_>) {
        if !self.clwb {
            return self.flush(lines);
        }
        for at in lines {
            // SAFETY: `at` is mapped (invariant of `Lines`), and the processor has `clwb` (`probe`).
            unsafe { asm!("clwb [{at}]", at = in(reg) at, options(nostack, preserves_flags)) };
        }
    }

    pub(super) fn flush(self, lines: Lines<'_>) {
        if !self.clflushopt {
            for at in lines {
                // SAFETY: `at` is mapped (invariant of `Lines`), and the processor has `clflush`.
                unsafe {
                    asm!("clflush [{at}]", at = in(reg) at, options(nostack, preserves_flags))
                };
            }
            return;
        }
        for at in lines {
            // SAFETY: `at` is mapped (invariant of `Lines`), and the processor has `clflushopt`.
            unsafe {
                asm!("clflushopt [{at}]", at = in(reg) at, options(nostack, preserves_flags))
            };
        }
    }

    /// Not `sfence`, which does not hold back reads: what is read after an invalidation has to come
    /// from memory.
    pub(super) fn barrier(self) {
        // SAFETY: a fence reads and writes nothing.
        unsafe { asm!("mfence", options(nostack, preserves_flags)) };
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flush = match self.clflushopt {
            true => "clflushopt",
            false => "clflush",
        };
        let clean = match self.clwb {
            true => "clwb",
            false => flush,
        };
        write!(f, "x86-64: {clean} cleans, {flush} flushes, mfence waits")
    }
}
