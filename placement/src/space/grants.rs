//! The records behind extents: who was granted what, and when.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Extent, PageCount, PageRange};

/// The end of the chain of vacant records.
const NONE: u32 = u32::MAX;

/// Records of the extents that a space has granted and not taken back.
///
/// A record is found by the extent's token and believed only if all of it agrees. Vacant records
/// are chained and used again, so a steady load allocates nothing.
///
/// # Invariants
/// `taken` is the sum of the pages of all records; no generation is above `generation`, which
/// never goes down.
#[derive(Debug)]
pub(super) struct Grants {
    records: Vec<Record>,
    vacant: u32,
    taken: u64,
    generation: u64,
}

// Never across two cache lines: giving back begins with a miss here.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Record {
    // Of a vacant record: the next vacant one.
    start: u64,
    pages: u64,
    // Zero of a vacant record; the first grant is 1.
    generation: u64,
    block: u32,
}

impl Grants {
    pub(super) const fn new() -> Self {
        Self {
            records: Vec::new(),
            vacant: NONE,
            taken: 0,
            generation: 0,
        }
    }

    /// Records a new grant of `range`; `block` is the space's own note, handed out by
    /// [`revoke`](Self::revoke).
    #[inline]
    pub(super) fn grant(&mut self, range: PageRange, block: u32) -> Extent {
        self.generation += 1;
        self.taken += range.len().get();
        let record = Record {
            start: range.start(),
            pages: range.len().get(),
            generation: self.generation,
            block,
        };
        let token = self.vacant;
        if let Some(place) = self.records.get_mut(token as usize) {
            self.vacant = place.start as u32;
            *place = record;
            return Extent::granted(range, self.generation, token);
        }
        let token = u32::try_from(self.records.len()).unwrap_or(NONE);
        assert!(token != NONE, "a space has fewer than 2^32 - 1 extents");
        self.records.push(record);
        Extent::granted(range, self.generation, token)
    }

    /// Forgets a grant; returns its block.
    ///
    /// # Panics
    /// If there is no such grant.
    #[inline]
    pub(super) fn revoke(&mut self, extent: &Extent) -> u32 {
        let vacant = self.vacant;
        let record = self.record(extent);
        let block = record.block;
        record.generation = 0;
        record.start = u64::from(vacant);
        self.vacant = extent.token();
        self.taken -= extent.pages().get();
        block
    }

    /// Cuts a grant down to its first `keep` pages; returns what is left of it, and its block.
    ///
    /// # Panics
    /// If there is no such grant, or `keep` is zero or more than it has.
    pub(super) fn shorten(&mut self, extent: Extent, keep: PageCount) -> (Extent, u32) {
        let kept = match extent.range().sub_range(PageCount::ZERO, keep) {
            Some(kept) if !kept.is_empty() => kept,
            _ => panic!("cannot keep {} pages of extent {extent}", keep.get()),
        };
        let record = self.record(&extent);
        record.pages = keep.get();
        let block = record.block;
        self.taken -= extent.pages().get() - keep.get();
        (
            Extent::granted(kept, extent.generation(), extent.token()),
            block,
        )
    }

    #[inline]
    fn record(&mut self, extent: &Extent) -> &mut Record {
        match self.records.get_mut(extent.token() as usize) {
            Some(record)
                if record.generation == extent.generation()
                    && record.start == extent.start()
                    && record.pages == extent.pages().get() =>
            {
                record
            }
            _ => unknown(extent),
        }
    }

    /// The generation that no grant so far exceeds.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes the generations of all later grants greater than `generation`.
    pub(super) fn resume(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// The pages granted.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The ranges granted with their tokens, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PageRange, u32)> + '_ {
        let granted = (0..).zip(&self.records).filter(|(_, r)| r.generation != 0);
        granted.map(|(token, r)| (PageRange::within_max(r.start, r.start + r.pages), token))
    }

    /// The ranges granted with their blocks, sorted by start.
    pub(super) fn sorted(&self) -> Vec<(PageRange, u32)> {
        let granted = self.records.iter().filter(|record| record.generation != 0);
        let mut ranges: Vec<_> = granted
            .map(|r| (PageRange::within_max(r.start, r.start + r.pages), r.block))
            .collect();
        ranges.sort_unstable_by_key(|(range, _)| (range.start(), range.end()));
        ranges
    }

    /// Checks the invariants, and that the chain holds all vacant records.
    pub(super) fn check(&self) -> Result<(), String> {
        let granted = self.records.iter().filter(|record| record.generation != 0);
        let sum: u64 = granted.clone().map(|record| record.pages).sum();
        if sum != self.taken {
            return Err(format!(
                "{} pages are counted as taken, {sum} are",
                self.taken
            ));
        }
        if let Some(record) = granted.clone().find(|r| r.generation > self.generation) {
            return Err(format!(
                "{record:?} is newer than the last grant, {}",
                self.generation
            ));
        }
        let chain = core::iter::successors(self.records.get(self.vacant as usize), |record| {
            self.records.get(record.start as usize)
        });
        let (vacant, holes) = (chain.take(self.records.len() + 1), self.records.len());
        let vacant = vacant.filter(|record| record.generation == 0).count();
        match vacant + granted.count() == holes {
            true => Ok(()),
            false => Err(format!(
                "{vacant} of {holes} records are in the chain of vacant ones"
            )),
        }
    }
}

#[cold]
#[inline(never)]
pub(super) fn unknown(extent: &Extent) -> ! {
    panic!("extent {extent} is not granted by this space, or was given back already")
}
