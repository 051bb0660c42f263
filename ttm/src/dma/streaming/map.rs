//! The decision table, carried out: a range of a backing in place, or in slots of the bounce pool.

use core::ops::Range;

use placement::PAGE_SIZE;

use super::hold::{CHUNK, Hold, Way, chunks};
use crate::dma::bounce::Held;
use crate::dma::choice::decide;
use crate::dma::device::{About, Reached};
use crate::dma::ledger::{Kind, RecordAttrs};
use crate::dma::{
    Backing, BounceRequest, Code, Decision, Direction, DmaDevice, DmaError, DmaMapping, DmaSegment,
    Ends, FrameBytes, MapAttrs, MappedList, Memory, Need, PageList, Share, SkipSync, Verdict,
};

/// What is asked of the table, but for what the memory and the range say.
#[derive(Clone, Copy)]
pub(in crate::dma) struct Ask<'a> {
    pub(in crate::dma) range: &'a Range<u64>,
    pub(in crate::dma) direction: Direction,
    pub(in crate::dma) attrs: &'a MapAttrs<'a>,
    pub(in crate::dma) share: Share,
}

/// What is to be done by a decision.
pub(super) enum Plan {
    InPlace { synced: bool },
    Copy,
}

/// What the table says, and by which row.
pub(super) fn plan(verdict: &Verdict, need: &Need) -> (Result<Plan, DmaError>, Code) {
    let (decision, code) = decide(verdict, need);
    let needs = |decrypted| Err(DmaError::NeedsAllocation { code, decrypted });
    let plan = match decision {
        Decision::Streaming => Ok(Plan::InPlace { synced: false }),
        Decision::Synced { copies: false } => Ok(Plan::InPlace { synced: true }),
        Decision::Synced { copies: true } | Decision::Bounce => Ok(Plan::Copy),
        Decision::Coherent => needs(false),
        Decision::Decrypted => needs(true),
        Decision::Refuse(error) => Err(error),
    };
    (plan, code)
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
            let plan = plan(&seen.verdict, &need).0?;
            let mut about = about(backing, attrs, &need, seen.epoch);
            let made = match plan {
                Plan::InPlace { synced } => {
                    about.synced = Some(synced);
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
                chunks(0..len, CHUNK, |at, bytes| {
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
    let mut set = RecordAttrs::empty();
    set.set(RecordAttrs::COHERENT, attrs.coherent);
    set.set(RecordAttrs::DECRYPTED, attrs.decrypted);
    set.set(RecordAttrs::SKIP_SYNC, attrs.skip.is_some());
    // Those who share a backing have its lines in common.
    set.set(RecordAttrs::IGNORE_LINES, attrs.ignore_lines || shared);
    About {
        reached: Reached::Streaming,
        kind: Kind::Single,
        attrs: set,
        memory: backing.number(),
        synced: Some(true),
        epoch: Some(epoch),
    }
}
