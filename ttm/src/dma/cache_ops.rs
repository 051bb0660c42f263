//! Cache maintenance for devices that do not look into the CPU's caches.
//!
//! ```text
//!   the CPU wrote ──clean──▶ device       device wrote ──invalidate──▶ the CPU reads
//! ```
//!
//! What each hand-over needs is [`Direction::before_device`] and [`Direction::before_cpu`]; who can do
//! it is a [`CacheOps`]; a list of ranges is one [`maintain`]. A line that two owners share survives
//! none of this, hence [`whole_lines`].

use core::ops::Range;

use super::words::{last_byte, power_of_two};
use super::{Direction, DmaError};
use crate::cache::Maintenance;
use crate::pages::Mapped;

/// The CPU's caches, as far as this process may maintain them.
pub trait CacheOps: Send + Sync {
    /// Bytes of the longest line that two owners must not share: a power of two.
    fn line(&self) -> u32;

    /// Begins the maintenance of all lines that have a byte of `bytes`; no bytes, no lines. It is done
    /// after the next [`barrier`](Self::barrier), in no order before.
    ///
    /// Where lines cannot be dropped without being written back, [`Maintenance::Invalidate`] does
    /// [`Maintenance::Flush`]: the same for lines that the CPU has not written since they were
    /// cleaned.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    fn maintain(&self, memory: &Mapped, bytes: Range<usize>, what: Maintenance);

    /// Waits until all maintenance begun on this thread is done. Reads and writes after it see what
    /// it left, and none before it comes after.
    fn barrier(&self);
}

/// Maintains a list of ranges, between one barrier before and one after. No ranges, no barriers.
///
/// The first barrier keeps the maintenance behind whatever told the caller that the device is done.
///
/// # Panics
/// If a range is not inside its mapping.
pub fn maintain<'a>(
    ops: &dyn CacheOps,
    list: impl IntoIterator<Item = (&'a Mapped, Range<usize>)>,
    what: Maintenance,
) {
    let mut list = list.into_iter().peekable();
    if list.peek().is_none() {
        return;
    }
    ops.barrier();
    for (memory, bytes) in list {
        ops.maintain(memory, bytes, what);
    }
    ops.barrier();
}

impl Direction {
    /// What the CPU's lines need before a device that does not snoop uses the memory.
    ///
    /// The same for all: a dirty line that stays would be written over what the device writes.
    ///
    /// ```
    /// use ttm::cache::Maintenance;
    /// use ttm::dma::Direction;
    ///
    /// assert_eq!(Direction::FromDevice.before_device(), Maintenance::Clean);
    /// assert_eq!(Direction::FromDevice.before_cpu(), Some(Maintenance::Invalidate));
    /// assert_eq!(Direction::ToDevice.before_cpu(), None);
    /// ```
    #[must_use]
    pub const fn before_device(self) -> Maintenance {
        match self {
            Self::ToDevice | Self::FromDevice | Self::Both => Maintenance::Clean,
        }
    }

    /// What they need before the CPU uses what such a device has used; `None` if it wrote nothing.
    #[must_use]
    pub const fn before_cpu(self) -> Option<Maintenance> {
        match self.device_writes() {
            true => Some(Maintenance::Invalidate),
            false => None,
        }
    }
}

/// Whether `len` bytes from `offset` on share no line of `line` bytes with anything else, as they must
/// where a device that does not snoop writes them. The offset counts from where a line begins.
///
/// ```
/// use ttm::dma::{DmaError, whole_lines};
///
/// assert_eq!(whole_lines(128, 64, 64), Ok(()));
/// let torn = whole_lines(100, 50, 64).unwrap_err();
/// assert_eq!(torn, DmaError::PartialCacheLine { head: 36, tail: 42, line: 64 });
/// ```
///
/// # Errors
/// - [`DmaError::PartialCacheLine`]: something else is, or may be, in the first or the last line.
/// - [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`].
/// - [`DmaError::BadAlignment`]: the line is no power of two.
pub fn whole_lines(offset: u64, len: u64, line: u32) -> Result<(), DmaError> {
    let mask = power_of_two(line.into())? - 1;
    let last = last_byte(offset, len)?;
    // Both are below a line, which has 32 bits.
    foreign((offset & mask) as u32, (!last & mask) as u32, line)
}

/// Whether nothing foreign is in the first and the last line, if it has so many bytes there.
///
/// # Errors
/// [`DmaError::PartialCacheLine`].
pub(super) const fn foreign(head: u32, tail: u32, line: u32) -> Result<(), DmaError> {
    match (head, tail) {
        (0, 0) => Ok(()),
        _ => Err(DmaError::PartialCacheLine { head, tail, line }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::dice::Dice;

    #[test]
    fn a_line_is_whole_if_each_of_its_bytes_is_ones_own() {
        let mut dice = Dice::new(1);
        for _ in 0..20_000 {
            let line = dice.of(&[1, 2, 32, 64, 128, 2048]);
            let (offset, len) = (dice.below(5000), 1 + dice.below(5000));
            let own = offset..offset + len;
            let line_of = |byte: u64| byte / u64::from(line);
            let foreign = |bytes: Range<u64>| {
                let lines = line_of(own.start)..=line_of(own.end - 1);
                bytes.filter(|b| lines.contains(&line_of(*b))).count() as u32
            };
            let (head, tail) = (foreign(0..own.start), foreign(own.end..own.end + 4096));
            let expected = match (head, tail) {
                (0, 0) => Ok(()),
                _ => Err(DmaError::PartialCacheLine { head, tail, line }),
            };
            assert_eq!(
                whole_lines(offset, len, line),
                expected,
                "{own:?} of {line}"
            );
        }
    }

    #[test]
    fn lines_end_where_addresses_do() {
        assert_eq!(whole_lines(u64::MAX - 63, 64, 64), Ok(()));
        assert_eq!(
            whole_lines(u64::MAX - 63, 65, 64),
            Err(DmaError::AddressOverflow)
        );
        assert_eq!(whole_lines(0, 0, 64), Err(DmaError::ZeroLength));
        for line in [0, 48] {
            let refused = whole_lines(0, 64, line);
            assert!(matches!(refused, Err(DmaError::BadAlignment { .. })));
        }
    }

    #[test]
    fn dirty_lines_are_gone_before_a_device_writes_and_clean_ones_before_the_cpu_reads() {
        for direction in Direction::ALL {
            assert_eq!(direction.before_device(), Maintenance::Clean, "{direction}");
            assert_eq!(
                direction.before_cpu().is_some(),
                direction.device_writes(),
                "{direction}"
            );
        }
    }
}
