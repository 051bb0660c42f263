//! A range of some memory, mapped for one device as the decision table says.
//!
//! In place: what is to be maintained of caches is, at each hand-over. As a copy in slots of the
//! bounce pool: it is copied instead. Nothing here knows who owns the buffer; that is for those above.

use core::ops::Range;

use super::map::{Plan, plan};
use crate::cache::Maintenance;
use crate::dma::bounce::Held;
use crate::dma::device::Reached;
use crate::dma::words::in_mapping;
use crate::dma::{DmaDevice, DmaError, DmaMapping, Need, OwnedMemory, Share};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// Bytes that are copied at once between memory and a pool.
pub(super) const CHUNK: usize = 2048;

/// What is mapped, and how.
pub(in crate::dma) struct Hold {
    pub(super) mapping: DmaMapping,
    /// The first byte, of the memory.
    pub(super) first: u64,
    pub(super) len: u64,
    pub(super) way: Way,
    pub(super) need: Need,
    pub(super) decrypted: bool,
    /// By which decision.
    pub(super) epoch: u64,
}

pub(super) enum Way {
    /// With caches to maintain, or not.
    InPlace { synced: bool },
    /// Copied, piece by piece in order.
    Copied(Vec<Held>),
}

impl Hold {
    /// Memory that was allocated for a device, mapped as it is.
    pub(in crate::dma) fn coherent(mapping: DmaMapping, epoch: u64) -> Self {
        let len = mapping.list().bytes();
        Self {
            mapping,
            first: 0,
            len,
            way: Way::InPlace { synced: false },
            need: Need::default(),
            decrypted: false,
            epoch,
        }
    }

    pub(in crate::dma) const fn mapping(&self) -> &DmaMapping {
        &self.mapping
    }

    pub(in crate::dma) const fn len(&self) -> u64 {
        self.len
    }

    pub(in crate::dma) const fn first(&self) -> u64 {
        self.first
    }

    pub(super) const fn is_in_place(&self) -> bool {
        matches!(self.way, Way::InPlace { .. })
    }

    /// Whether it is to be synced.
    pub(in crate::dma) const fn is_synced(&self) -> bool {
        !matches!(self.way, Way::InPlace { synced: false })
    }

    /// Whether lines are handed over, of which CPU and device must not have a part each.
    pub(in crate::dma) const fn has_lines(&self) -> bool {
        matches!(self.way, Way::InPlace { synced: true })
    }

    /// Whether there are such bytes in the mapping.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub(in crate::dma) fn check(&self, offset: u64, len: u64) -> Result<(), DmaError> {
        in_mapping(offset, len, self.len)
    }

    /// Shows the device what the CPU wrote to bytes of the mapping.
    pub(in crate::dma) fn for_device(
        &self,
        device: &DmaDevice,
        memory: &dyn OwnedMemory,
        bytes: &Range<u64>,
    ) {
        // Relaxed: it only counts.
        device.counts.for_device.fetch_add(1, Ordering::Relaxed);
        match &self.way {
            Way::InPlace { synced: false } => {}
            // Whatever the direction: a dirty line must not be written back over what the device
            // writes.
            Way::InPlace { synced: true } => {
                self.maintain_bytes(device, memory, bytes, Maintenance::Clean);
            }
            Way::Copied(_) if self.mapping.direction().device_reads() => {
                chunks(bytes.clone(), CHUNK, |at, len| {
                    let chunk = &mut [0; CHUNK][..len];
                    memory.read(self.first + at, chunk);
                    self.put(device, memory, at, chunk);
                });
            }
            Way::Copied(_) => {}
        }
    }

    /// Shows the CPU what the device wrote to bytes of the mapping.
    pub(in crate::dma) fn for_cpu(
        &self,
        device: &DmaDevice,
        memory: &dyn OwnedMemory,
        bytes: &Range<u64>,
    ) {
        device.counts.for_cpu.fetch_add(1, Ordering::Relaxed);
        if !self.mapping.direction().device_writes() {
            return;
        }
        match &self.way {
            Way::InPlace { synced: false } => {}
            Way::InPlace { synced: true } => {
                self.maintain_bytes(device, memory, bytes, Maintenance::Invalidate);
            }
            Way::Copied(_) => chunks(bytes.clone(), CHUNK, |at, len| {
                let chunk = &mut [0; CHUNK][..len];
                self.get(device, memory, at, chunk);
                memory.write(self.first + at, chunk);
            }),
        }
    }

    fn maintain_bytes(
        &self,
        device: &DmaDevice,
        memory: &dyn OwnedMemory,
        bytes: &Range<u64>,
        what: Maintenance,
    ) {
        let count = bytes.end - bytes.start;
        device.counts.maintained.fetch_add(count, Ordering::Relaxed);
        memory.maintain(self.first + bytes.start..self.first + bytes.end, what);
    }

    /// Maintains caches over all of it, if it is in place.
    pub(in crate::dma) fn maintain(&self, memory: &dyn OwnedMemory, what: Maintenance) {
        if self.is_in_place() {
            memory.maintain(self.first..self.first + self.len, what);
        }
    }

    /// Writes where the device finds it, without a sync.
    pub(in crate::dma) fn put(
        &self,
        device: &DmaDevice,
        memory: &dyn OwnedMemory,
        at: u64,
        bytes: &[u8],
    ) {
        let Way::Copied(pieces) = &self.way else {
            return memory.write(self.first + at, bytes);
        };
        let pool = device.pool().expect("the pool that it was copied to");
        each_piece(pieces, at, bytes.len(), |piece, at, range| {
            pool.put(piece, at, &bytes[range]);
        });
    }

    /// Reads where the device wrote it, without a sync.
    pub(in crate::dma) fn get(
        &self,
        device: &DmaDevice,
        memory: &dyn OwnedMemory,
        at: u64,
        out: &mut [u8],
    ) {
        let Way::Copied(pieces) = &self.way else {
            return memory.read(self.first + at, out);
        };
        let pool = device.pool().expect("the pool that it was copied to");
        each_piece(pieces, at, out.len(), |piece, at, range| {
            pool.get(piece, at, &mut out[range]);
        });
    }

    /// Asks the table again, if there is another verdict: what has to be synced by now is.
    ///
    /// # Errors
    /// [`DmaError::DecisionChanged`]: it would have to be mapped otherwise.
    pub(in crate::dma) fn decide_again(
        &mut self,
        device: &DmaDevice,
        memory: &Arc<dyn OwnedMemory>,
    ) -> Result<(), DmaError> {
        if device.epoch() == self.epoch {
            return Ok(());
        }
        let seen = device.seen(Reached::Streaming, memory.is_snooped(), self.decrypted);
        let (plan, code) = plan(&seen.verdict, &self.need);
        match (plan, &mut self.way) {
            (Ok(Plan::InPlace { synced: now }), Way::InPlace { synced }) => *synced |= now,
            // A copy is right everywhere.
            (Ok(_), Way::Copied(_)) => {}
            _ => return Err(DmaError::DecisionChanged { code }),
        }
        self.epoch = seen.epoch;
        Ok(())
    }

    /// What the table says if others use it too.
    pub(super) fn refusal_if_shared(
        &self,
        device: &DmaDevice,
        memory: &Arc<dyn OwnedMemory>,
    ) -> Option<DmaError> {
        let seen = device.seen(Reached::Streaming, memory.is_snooped(), self.decrypted);
        let need = Need {
            share: Share::Shared,
            ..self.need
        };
        plan(&seen.verdict, &need).0.err()
    }

    /// Ends it, which the device must no longer use. Shows nobody anything.
    #[track_caller]
    pub(in crate::dma) fn end(self, device: &DmaDevice) {
        device.end(self.mapping);
        if let Way::Copied(pieces) = self.way {
            let pool = device.pool().expect("the pool that it was copied to");
            pieces.into_iter().for_each(|piece| pool.give(piece));
        }
    }
}

/// Calls `f` with where each chunk of at most `most` bytes begins, and how long it is.
pub(in crate::dma) fn chunks(bytes: Range<u64>, most: usize, mut f: impl FnMut(u64, usize)) {
    let mut at = bytes.start;
    while at < bytes.end {
        let len = (bytes.end - at).min(most as u64);
        f(at, len as usize);
        at += len;
    }
}

/// Calls `f` for each part of `len` bytes from `at` on that is in one piece: with the piece, where in
/// it, and which of the bytes.
fn each_piece(pieces: &[Held], at: u64, len: usize, mut f: impl FnMut(&Held, u64, Range<usize>)) {
    let (mut skip, mut done) = (at, 0);
    for piece in pieces {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        if done == len {
            break;
        }
        let part = ((piece.len() - skip) as usize).min(len - done);
        f(piece, skip, done..done + part);
        done += part;
        skip = 0;
    }
}
