//! The CPU's caches, maintained from user mode.
//!
//! x86-64 and arm64 let every process clean and flush lines by address; which instructions there are
//! is asked once. No processor lets it drop a line without writing it back, and none tells whether a
//! device snoops.

use core::error::Error;
use core::fmt;
use core::ops::Range;

use ttm::cache::Maintenance;
use ttm::dma::CacheOps;
use ttm::pages::Mapped;

use crate::dma::{ProbeRoot, longest_line};

#[cfg_attr(target_arch = "x86_64", path = "cache_ops/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "cache_ops/aarch64.rs")]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "cache_ops/other.rs"
)]
mod imp;

/// Why the caches cannot be maintained from user mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheUnavailable {
    /// What is in the way, and what would help.
    pub why: &'static str,
}

impl fmt::Display for CacheUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "caches are not maintained here: {}", self.why)
    }
}

impl Error for CacheUnavailable {}

/// The caches of this machine.
///
/// ```
/// use backends::host::HostCache;
///
/// match HostCache::probe() {
///     Ok(cache) => println!("{}", cache.says()),
///     Err(why) => println!("{why}"),
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HostCache {
    instructions: imp::Instructions,
    line: u32,
}

impl HostCache {
    /// Asks the processor what it can do, and the kernel how long lines are.
    ///
    /// # Errors
    /// The processor has no such instructions, or none that user mode may count on.
    pub fn probe() -> Result<Self, CacheUnavailable> {
        let instructions = imp::Instructions::probe().map_err(|why| CacheUnavailable { why })?;
        let listed = longest_line(&ProbeRoot::system());
        Ok(Self {
            instructions,
            line: instructions
                .shared()
                .max(listed.map_or(0, |listed| listed.0)),
        })
    }

    /// Which instructions are used, for people.
    #[must_use]
    pub fn says(&self) -> String {
        let Self { instructions, line } = self;
        let step = instructions.step();
        format!("{instructions}, {step} bytes at a time; lines of {line} bytes are not shared")
    }
}

impl CacheOps for HostCache {
    fn line(&self) -> u32 {
        self.line
    }

    fn maintain(&self, memory: &Mapped, bytes: Range<usize>, what: Maintenance) {
        let lines = Lines::of(memory, bytes, self.instructions.step());
        match what {
            Maintenance::Clean => self.instructions.clean(lines),
            Maintenance::Invalidate | Maintenance::Flush => self.instructions.flush(lines),
        }
    }

    fn barrier(&self) {
        self.instructions.barrier();
    }
}

/// An address in each line that a range has a byte of.
///
/// # Invariants
/// Each is in a page that stays mapped while the mapping is borrowed: a line is within one page, and
/// of that page the mapping has a byte.
struct Lines<'a> {
    memory: &'a Mapped,
    /// Where the next line begins, from the first byte of the mapping on. Negative only for a
    /// mapping that does not begin at a line.
    next: isize,
    end: isize,
    step: isize,
}

impl<'a> Lines<'a> {
    /// # Panics
    /// If the range is not inside the mapping, or the step is no power of two up to 4096.
    fn of(memory: &'a Mapped, bytes: Range<usize>, step: usize) -> Self {
        let inside = bytes.start <= bytes.end && bytes.end <= memory.len();
        assert!(inside, "bytes {bytes:?} of a mapping of {}", memory.len());
        assert!(step.is_power_of_two() && step <= 4096, "lines of {step}");
        let into_line = (memory.as_ptr().addr() + bytes.start) % step;
        let signed = |offset: usize| isize::try_from(offset).expect("no mapping is longer");
        let (start, end) = (signed(bytes.start), signed(bytes.end));
        Self {
            memory,
            // INVARIANT: the first byte of the line that the range begins in.
            next: match bytes.is_empty() {
                true => end,
                false => start - signed(into_line),
            },
            end,
            step: signed(step),
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = *mut u8;

    fn next(&mut self) -> Option<*mut u8> {
        let at = self.next;
        (at < self.end).then(|| {
            self.next += self.step;
            self.memory.as_ptr().wrapping_offset(at)
        })
    }
}

#[cfg(test)]
mod tests;
