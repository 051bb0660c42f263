//! A bounce pool: memory that a device reaches, through which the bytes of memory that it does not
//! reach are copied.
//!
//! ```text
//!   map              buffer ──▶ slots    whatever the direction
//!   sync for device  buffer ──▶ slots    if the device reads
//!   sync for CPU     buffer ◀── slots    if the device writes
//!   unmap            buffer ◀── slots    if the device writes, and the sync is not skipped
//! ```
//!
//! Mapping copies in even what only the device writes: it may write less than all of it, and what
//! it left would come back as what was in the slots before.
//!
//! The pool is slots of 2 KiB in sets of 128. A mapping lies within one set, its address agrees
//! with that of the original in the bits that the device wants kept. The sets are divided into
//! areas with a lock each; a thread begins at its own and tries all. Those locks are leaves, and
//! none is held during a copy.
//!
//! What of its slots a mapping does not use is zeroed when they are taken, so that a device finds
//! nothing of whoever had them before.
//!
//! A buffer is mapped by who has it alone (`&mut`): a shared one would have two contents. That a
//! shared one is refused ([`DmaError::WouldBounceShared`]) is for those who know of it, above.

mod area;
mod held;
mod mapping;
mod memory;
mod request;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Range;

use super::{DmaAddr, DmaError};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{CachePadded, lane};

use self::area::{Area, Slots};
use self::request::BouncePlace;

pub(super) use held::{Bouncer, Held};
pub use mapping::{Bounced, Unmap};
pub use memory::{BounceBytes, BounceMemory};
pub use request::BounceRequest;

/// Bytes of a slot.
const SLOT: u64 = 2048;

/// Slots of a set.
const SET_SLOTS: u64 = 128;

/// Bytes of a set: the most that one mapping can have.
const SET: u64 = SET_SLOTS * SLOT;

/// How full a pool is, in bytes of slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BounceStats {
    /// All of it.
    pub total: u64,
    /// Mapped, the slots that a mapping uses in part included.
    pub used: u64,
    /// The most that ever was.
    pub high_water: u64,
}

/// Memory that a device reaches, in slots.
///
/// # Invariants
/// No slot is in two mappings that are live.
///
/// ```
/// use ttm::dma::{
///     BounceBytes, BounceMemory, BouncePool, BounceRequest, Direction, DmaAddr, DmaError, Unmap,
/// };
///
/// # fn main() -> Result<(), DmaError> {
/// let memory = BounceBytes::new(vec![0; 256 << 10]);
/// let base = DmaAddr::new(0x10_0000).expect("a low address");
/// let pool = BouncePool::new(memory, base, 1)?;
///
/// let mut buffer = *b"before";
/// let request = BounceRequest::new(0x1_2340_0005, Direction::FromDevice).min_align_mask(0xfff);
/// let mapping = pool.map(&mut buffer, &request)?;
/// assert_eq!(mapping.address().get() & 0xfff, 5);
///
/// // The device writes two bytes of six.
/// pool.memory().put(mapping.address().get() - base.get(), b"af");
/// assert_eq!(pool.unmap(mapping, Unmap::Sync), b"affore");
///
/// let mut large = vec![0; 300 << 10];
/// let refused = pool.map(&mut large, &request).unwrap_err();
/// assert!(matches!(refused, DmaError::TooLargeForBounce { max, .. } if max == (256 << 10) - 5));
/// # Ok(())
/// # }
/// ```
pub struct BouncePool<M> {
    memory: M,
    /// The device's address of its first byte.
    base: u64,
    /// A power of two of them.
    areas: Box<[CachePadded<Area>]>,
    sets: u64,
    used: CachePadded<Used>,
}

/// Slots.
#[derive(Default)]
struct Used {
    now: AtomicU64,
    most: AtomicU64,
}

impl<M: BounceMemory> BouncePool<M> {
    /// A pool in `memory`, whose first byte the device finds at `base`, for so many threads at once.
    ///
    /// It has an area for each of them, rounded up to a power of two, as long as each has a set. What
    /// is left of the memory beside whole sets is not used.
    ///
    /// # Errors
    /// - [`DmaError::BouncePoolTooSmall`]: not one set, which is 256 KiB;
    /// - [`DmaError::MisalignedAddress`]: `base` is no multiple of a set;
    /// - [`DmaError::AddressOverflow`]: it goes past the last address.
    pub fn new(memory: M, base: DmaAddr, threads: usize) -> Result<Self, DmaError> {
        let (base, len) = (base.get(), memory.len());
        let sets = len / SET;
        if sets == 0 {
            return Err(DmaError::BouncePoolTooSmall { len, least: SET });
        }
        if !base.is_multiple_of(SET) {
            return Err(DmaError::MisalignedAddress {
                address: base,
                align: SET,
            });
        }
        base.checked_add(len).ok_or(DmaError::AddressOverflow)?;
        let wanted = threads.max(1).checked_next_power_of_two();
        let areas = wanted.map_or(u64::MAX, |n| n as u64).min(1 << sets.ilog2());
        let area = |n| CachePadded::new(Area::new(n * sets / areas, (n + 1) * sets / areas));
        Ok(Self {
            memory,
            base,
            areas: (0..areas).map(area).collect(),
            sets,
            used: CachePadded::default(),
        })
    }

    /// Maps the bytes: finds slots and copies them in, whatever the direction.
    ///
    /// The mapping has the buffer until it is [unmapped](Self::unmap).
    ///
    /// # Errors
    /// - [`DmaError::ZeroLength`];
    /// - [`DmaError::BadAlignment`]: a mask is no power of two less one, or more is to be
    ///   kept of the address than a set can;
    /// - [`DmaError::TooLargeForBounce`]: more than a set, or a segment, has from there on;
    /// - [`DmaError::AboveMask`]: the device does not reach all of the pool;
    /// - [`DmaError::BouncePoolFull`]: there is no room now; this one may be retried.
    pub fn map<'b>(
        &self,
        buffer: &'b mut [u8],
        request: &BounceRequest,
    ) -> Result<Bounced<'b>, DmaError> {
        let held = self.hold(buffer.len() as u64, request)?;
        self.memory.put(held.at, buffer);
        Ok(Bounced {
            buffer,
            direction: request.direction,
            held,
        })
    }

    /// Finds slots for `len` bytes, which are to be copied in, and zeroes the rest of those slots.
    fn hold(&self, len: u64, request: &BounceRequest) -> Result<Held, DmaError> {
        let place = request.place(len)?;
        let end = self.base + (self.sets * SET - 1);
        if end > request.limit.last() {
            let mask = request.limit;
            return Err(DmaError::AboveMask { end, mask });
        }
        let (area, slots) = self.take(&place).ok_or_else(|| DmaError::BouncePoolFull {
            need: place.slots() * SLOT,
            total: self.sets * SET,
            used: self.stats().used,
        })?;
        // Relaxed: they only count.
        let used = self.used.now.fetch_add(slots.count, Ordering::Relaxed) + slots.count;
        self.used.most.fetch_max(used, Ordering::Relaxed);
        let first = slots.first * SLOT;
        let at = first + place.head();
        self.clear(first, at);
        self.clear(at + len, first + slots.count * SLOT);
        Ok(Held {
            at,
            address: self.base + at,
            len,
            area,
            slots,
            home: self.home(),
        })
    }

    /// Zeroes what a mapping leaves of its first or its last slot.
    fn clear(&self, from: u64, to: u64) {
        const ZEROES: [u8; SLOT as usize] = [0; SLOT as usize];
        let len = (to - from) as usize;
        for at in (0..len).step_by(ZEROES.len()) {
            let piece = (len - at).min(ZEROES.len());
            self.memory.put(from + at as u64, &ZEROES[..piece]);
        }
    }

    /// Gives slots back.
    fn release(&self, held: &Held) {
        self.areas[held.area].give(held.slots);
        self.used.now.fetch_sub(held.slots.count, Ordering::Relaxed);
    }

    /// Asks all areas, the thread's own first; answers which had room.
    fn take(&self, place: &BouncePlace) -> Option<(usize, Slots)> {
        let count = self.areas.len();
        let own = lane() as usize;
        (0..count).find_map(|n| {
            let area = (own + n) & (count - 1);
            Some((area, self.areas[area].take(place)?))
        })
    }

    /// Shows the device what the CPU wrote to bytes of the mapping. Copies nothing if the device
    /// does not read.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`]; nothing was copied.
    ///
    /// # Panics
    /// If the mapping is another pool's.
    pub fn sync_for_device(
        &self,
        mapping: &mut Bounced<'_>,
        bytes: Range<usize>,
    ) -> Result<(), DmaError> {
        let bytes = self.checked(mapping, bytes)?;
        if mapping.direction.device_reads() {
            let at = mapping.held.at + bytes.start as u64;
            self.memory.put(at, &mapping.buffer[bytes]);
        }
        Ok(())
    }

    /// Shows the CPU what the device wrote to bytes of the mapping. Copies nothing if the device
    /// does not write.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`]; nothing was copied.
    ///
    /// # Panics
    /// If the mapping is another pool's.
    pub fn sync_for_cpu(
        &self,
        mapping: &mut Bounced<'_>,
        bytes: Range<usize>,
    ) -> Result<(), DmaError> {
        let bytes = self.checked(mapping, bytes)?;
        if mapping.direction.device_writes() {
            let at = mapping.held.at + bytes.start as u64;
            self.memory.get(at, &mut mapping.buffer[bytes]);
        }
        Ok(())
    }

    /// Ends the mapping, which the device must no longer use, and gives the buffer back: with what
    /// the device wrote, unless the sync is skipped.
    ///
    /// # Panics
    /// If the mapping is another pool's.
    pub fn unmap<'b>(&self, mapping: Bounced<'b>, how: Unmap) -> &'b mut [u8] {
        self.assert_own(&mapping.held);
        if how == Unmap::Sync && mapping.direction.device_writes() {
            self.memory.get(mapping.held.at, mapping.buffer);
        }
        self.release(&mapping.held);
        mapping.buffer
    }

    fn checked(
        &self,
        mapping: &Bounced<'_>,
        bytes: Range<usize>,
    ) -> Result<Range<usize>, DmaError> {
        self.assert_own(&mapping.held);
        match bytes.start <= bytes.end && bytes.end <= mapping.buffer.len() {
            true => Ok(bytes),
            false => Err(DmaError::RangeOutOfMapping {
                offset: bytes.start as u64,
                len: bytes.end.saturating_sub(bytes.start) as u64,
                mapped: mapping.buffer.len() as u64,
            }),
        }
    }

    fn assert_own(&self, held: &Held) {
        assert_eq!(held.home, self.home(), "a mapping of another pool");
    }

    /// What tells this pool from others that live.
    fn home(&self) -> usize {
        self.areas.as_ptr().addr()
    }
}

impl<M> BouncePool<M> {
    /// The memory, as the device uses it.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// How many areas it has.
    #[must_use]
    pub const fn areas(&self) -> usize {
        self.areas.len()
    }

    /// How full it is; approximate while others map and unmap.
    #[must_use]
    pub fn stats(&self) -> BounceStats {
        BounceStats {
            total: self.sets * SET,
            used: self.used.now.load(Ordering::Relaxed) * SLOT,
            high_water: self.used.most.load(Ordering::Relaxed) * SLOT,
        }
    }
}

impl<M> fmt::Debug for BouncePool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BouncePool")
            .field("base", &format_args!("{:#x}", self.base))
            .field("areas", &self.areas())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
