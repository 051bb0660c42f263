//! A range of some memory, mapped for one device as the decision table says.
//!
//! In place: what is to be maintained of caches is, at each hand-over. As a copy in slots of the
//! bounce pool: it is copied instead. Nothing here knows who owns the buffer; that is for those above.

use core::ops::Range;

use placement::PAGE_SIZE;

use crate::cache::Maintenance;
use crate::dma::bounce::Held;
use crate::dma::device::{About, Reached};
use crate::dma::ledger::{Kind, RecordAttrs};
use crate::dma::{
    Backing, BounceRequest, Choice, Decision, Direction, DmaDevice, DmaError, DmaMapping,
    DmaSegment, Ends, FrameBytes, MapAttrs, MappedList, Memory, Need, OwnedMemory, PageList, Share,
    SkipSync, choose,
};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// Bytes that are copied at once between memory and a pool.
const CHUNK: usize = 2048;

/// What is mapped, and how.
pub(in crate::dma) struct Hold {
    mapping: DmaMapping,
    /// The first byte, of the memory.
    first: u64,
    len: u64,
    way: Way,
    need: Need,
    decrypted: bool,
    /// By which decision.
    epoch: u64,
}

enum Way {
    /// With caches to maintain, or not.
    InPlace { synced: bool },
    /// Copied, piece by piece in order.
    Copied(Vec<Held>),
}

/// What is asked of the table, but for what the memory and the range say.
#[derive(Clone, Copy)]
pub(in crate::dma) struct Ask<'a> {
    pub(in crate::dma) range: &'a Range<u64>,
    pub(in crate::dma) direction: Direction,
    pub(in crate::dma) attrs: &'a MapAttrs<'a>,
    pub(in crate::dma) share: Share,
}

/// What is to be done by a decision.
enum Plan {
    InPlace { synced: bool },
    Copy,
}

fn plan(choice: Choice) -> Result<Plan, DmaError> {
    let code = choice.code;
    let needs = |decrypted| Err(DmaError::NeedsAllocation { code, decrypted });
    match choice.decision {
        Decision::Streaming => Ok(Plan::InPlace { synced: false }),
        Decision::Synced { copies: false } => Ok(Plan::InPlace { synced: true }),
        Decision::Synced { copies: true } | Decision::Bounce => Ok(Plan::Copy),
        Decision::Coherent => needs(false),
        Decision::Decrypted => needs(true),
        Decision::Refuse(error) => Err(error),
    }
}

impl DmaDevice {
    /// Maps a range of memory as the table decides, and shows the device what is in it.
    ///
    /// # Errors
    /// Those of [`DmaDevice::map_streaming`].
    #[track_caller]
    pub(in crate::dma) fn hold(&self, backing: &Backing, ask: Ask<'_>) -> Result<Hold, DmaError> {
        let Ask {
            range,
            direction,
            attrs,
            ..
        } = ask;
        attrs.validate()?;
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        backing.check(range.start, len)?;
        let bytes = FrameBytes {
            spans: backing.frames(),
            offset: range.start,
            len,
        };
        let list = PageList::build(self.parms(), bytes)?;
        let end = self.end_of(&list)?;
        loop {
            let snooped = backing.memory().is_snooped();
            let seen = self.seen(Reached::Streaming, snooped, attrs.decrypted);
            let need = need(
                backing,
                ask,
                end,
                self.granule(),
                u64::from(seen.verdict.line),
            );
            let plan = plan(choose(&seen.verdict, &need))?;
            let mut about = about(backing, attrs, &need, seen.epoch);
            let made = match plan {
                Plan::InPlace { synced } => {
                    about.synced = synced;
                    let mapping = self.try_map_list(&list, direction, &about)?;
                    mapping.map(|mapping| (mapping, Way::InPlace { synced }))
                }
                Plan::Copy => self.copy_in(backing, range.start, &list, direction, &about)?,
            };
            if let Some((mapping, way)) = made {
                let hold = Hold {
                    mapping,
                    first: range.start,
                    len,
                    way,
                    need,
                    decrypted: attrs.decrypted,
                    epoch: seen.epoch,
                };
                // A proof of a device that snoops says nothing of caches.
                let flushed = attrs.skip.is_some_and(|proof| proof.flushed);
                if !flushed && hold.is_in_place() {
                    hold.for_device(self, &**backing.memory(), &(0..len));
                }
                return Ok(hold);
            }
        }
    }

    /// Copies a list to slots and maps those: all of it or nothing. `None` if the decision changed.
    #[track_caller]
    fn copy_in(
        &self,
        backing: &Backing,
        first: u64,
        list: &PageList,
        direction: Direction,
        about: &About,
    ) -> Result<Option<(DmaMapping, Way)>, DmaError> {
        let mut pieces = Vec::new();
        let made = self
            .fill_slots(backing, first, list, direction, &mut pieces)
            .and_then(|segments| MappedList::copied(list.clone(), segments, self.parms()))
            .and_then(|mapped| {
                let epoch = about.epoch.unwrap_or_default();
                self.map_copies(mapped, direction, about, epoch)
            });
        match made {
            Ok(Some(mapping)) => Ok(Some((mapping, Way::Copied(pieces)))),
            other => {
                for piece in pieces {
                    self.pool()?.give(piece);
                }
                other.map(|_| None)
            }
        }
    }

    /// Takes slots for all of a list, and copies in what is there, whatever the direction.
    fn fill_slots(
        &self,
        backing: &Backing,
        mut from: u64,
        list: &PageList,
        direction: Direction,
        pieces: &mut Vec<Held>,
    ) -> Result<Vec<DmaSegment>, DmaError> {
        let pool = self.pool()?;
        let (len, max) = (list.bytes(), pool.total());
        if len > max {
            return Err(DmaError::TooLargeForBounce { len, max });
        }
        let parms = self.parms();
        let mut segments = Vec::new();
        for segment in list.cpu_segments() {
            let mut at = segment.span.first * PAGE_SIZE + segment.offset;
            let end = at + segment.len;
            while at < end {
                let request = BounceRequest::new(at, direction)
                    .min_align_mask(parms.min_align_mask)
                    .boundary(parms.boundary_mask)
                    .limit(self.masks().streaming());
                let len = request.largest()?.min(end - at);
                let held = pool.hold(len, &request)?;
                segments.push(DmaSegment {
                    addr: held.address(),
                    len,
                    bus: false,
                });
                chunks(0..len, |at, bytes| {
                    let bytes = &mut [0; CHUNK][..bytes];
                    backing.memory().read(from + at, bytes);
                    pool.put(&held, at, bytes);
                });
                pieces.push(held);
                from += len;
                at += len;
            }
        }
        Ok(segments)
    }
}

/// Calls `f` with where each chunk begins, and how long it is.
fn chunks(bytes: Range<u64>, mut f: impl FnMut(u64, usize)) {
    let mut at = bytes.start;
    while at < bytes.end {
        let len = (bytes.end - at).min(CHUNK as u64);
        f(at, len as usize);
        at += len;
    }
}

fn need(backing: &Backing, ask: Ask<'_>, end: u64, granule: u64, line: u64) -> Need {
    let Ask {
        range,
        direction,
        attrs,
        share,
    } = ask;
    // What follows the last byte in its page is nobody's.
    let at = |step: u64| {
        range.start.is_multiple_of(step)
            && (range.end.is_multiple_of(step) || range.end == backing.bytes())
    };
    Need {
        share,
        cpu_use: attrs.cpu_use(),
        memory: Memory::Foreign { end },
        ends: match (at(granule), at(line.max(1))) {
            (true, _) => Ends::Granule,
            (false, true) => Ends::Line,
            (false, false) => Ends::Neither,
        },
        device_writes: direction.device_writes(),
        io_end: None,
        skip_sync: match attrs.skip {
            None => SkipSync::No,
            Some(proof) if proof.is_of(backing) => SkipSync::Proven,
            Some(_) => SkipSync::Unproven,
        },
        coherent: attrs.coherent,
        allow_bounce: attrs.allow_bounce,
        coherent_memory: true,
        revocable: false,
    }
}

fn about(backing: &Backing, attrs: &MapAttrs<'_>, need: &Need, epoch: u64) -> About {
    let shared = need.share == Share::Shared;
    let flags = [
        (RecordAttrs::COHERENT, attrs.coherent),
        (RecordAttrs::DECRYPTED, attrs.decrypted),
        (RecordAttrs::SKIP_SYNC, attrs.skip.is_some()),
        // Those who share a backing have its lines in common.
        (RecordAttrs::IGNORE_LINES, attrs.ignore_lines || shared),
    ];
    let set = flags.into_iter().filter(|(_, set)| *set);
    About {
        reached: Reached::Streaming,
        kind: Kind::Single,
        attrs: set.map(|(flag, _)| flag).collect(),
        memory: backing.number(),
        synced: true,
        epoch: Some(epoch),
    }
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
        let mapped = self.len;
        match offset.checked_add(len) {
            Some(end) if end <= mapped => Ok(()),
            Some(_) => Err(DmaError::RangeOutOfMapping {
                offset,
                len,
                mapped,
            }),
            None => Err(DmaError::AddressOverflow),
        }
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
                chunks(bytes.clone(), |at, len| {
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
            Way::Copied(_) => chunks(bytes.clone(), |at, len| {
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

    /// Calls `f` with where each chunk of at most `most` bytes begins, and how long it is.
    pub(in crate::dma) fn each_chunk(&self, most: usize, mut f: impl FnMut(u64, usize)) {
        let mut at = 0;
        while at < self.len {
            let len = (self.len - at).min(most as u64);
            f(at, len as usize);
            at += len;
        }
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
        let choice = choose(&seen.verdict, &self.need);
        let code = choice.code;
        match (plan(choice), &mut self.way) {
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
        plan(choose(&seen.verdict, &need)).err()
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
