//! `dc cvac` and `dc civac`, which Linux lets every process use, or does for it.
//!
//! The rule that the `unsafe` blocks here rely on: these instructions change no byte of memory, and
//! fault only where a read would; the addresses of [`Lines`] are mapped.
#![expect(unsafe_code, reason = "instructions without an intrinsic")]

use core::arch::asm;
use core::fmt;

use super::Lines;

/// The longest line there can be, in words of 4 bytes as a power of two: 2 KiB.
const LONGEST: u32 = 9;

/// What the processor tells in `CTR_EL0`; on machines with several kinds of processors the kernel
/// answers what holds for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instructions {
    /// Bytes that one instruction covers: the shortest line of a data cache.
    step: u16,
    /// Bytes that a write-back may reach over.
    shared: u32,
}

impl Instructions {
    pub(super) fn probe() -> Result<Self, &'static str> {
        let ctr: u64;
        // SAFETY: every process may read the register, or the kernel reads it for it; nothing else
        // happens.
        unsafe {
            asm!("mrs {ctr}, ctr_el0", ctr = out(reg) ctr, options(nomem, nostack, preserves_flags));
        }
        Ok(Self::of(ctr))
    }

    fn of(ctr: u64) -> Self {
        let field = |at: u32| (ctr >> at & 0xf) as u32;
        let bytes = |log_of_words: u32| 4_u32 << log_of_words.min(LONGEST);
        let (shortest, granule) = (field(16), field(24));
        Self {
            step: bytes(shortest) as u16,
            // No granule is told: any there can be.
            shared: match granule {
                0 => bytes(LONGEST),
                _ => bytes(granule),
            },
        }
    }

    pub(super) fn step(self) -> usize {
        self.step.into()
    }

    /// Bytes of the longest line that the processor tells of.
    pub(super) fn shared(self) -> u32 {
        self.shared
    }

    #[expect(
        clippy::unused_self,
        reason = "as on processors where there is a choice"
    )]
    pub(super) fn clean(self, lines: Lines<'_>) {
        for at in lines {
            // SAFETY: `at` is mapped (invariant of `Lines`).
            unsafe { asm!("dc cvac, {at}", at = in(reg) at, options(nostack, preserves_flags)) };
        }
    }

    #[expect(
        clippy::unused_self,
        reason = "as on processors where there is a choice"
    )]
    pub(super) fn flush(self, lines: Lines<'_>) {
        for at in lines {
            // SAFETY: `at` is mapped (invariant of `Lines`).
            unsafe { asm!("dc civac, {at}", at = in(reg) at, options(nostack, preserves_flags)) };
        }
    }

    /// Not only as far as other processors see: to where devices do.
    #[expect(
        clippy::unused_self,
        reason = "as on processors where there is a choice"
    )]
    pub(super) fn barrier(self) {
        // SAFETY: a barrier reads and writes nothing.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("arm64: dc cvac cleans, dc civac flushes, dsb sy waits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_granules_are_told_in_words() {
        let lines = |ctr| {
            let told = Instructions::of(ctr);
            (told.step(), told.shared())
        };
        // Cortex-A76: lines of 64 bytes, a granule of 64.
        assert_eq!(lines(0x9444_c004), (64, 64));
        assert_eq!(lines(5 << 24 | 3 << 16), (32, 128));
        assert_eq!(lines(4 << 16), (64, 2048));
    }
}
