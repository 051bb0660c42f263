//! What devices ask of a buffer that they share.
//!
//! Each says what it can use, [`Constraints`]; what all can use is what each can, intersected. The
//! result does not depend on the order, and another device never widens it. Storage that was
//! chosen by it fits all; storage that is there already is held to each by
//! [`accepts`](Constraints::accepts).
//!
//! Addresses are those that the device itself puts on the bus towards the storage. Who has them
//! translated asks for less: its limit and its one run are matters of its I/O addresses.

mod bound;
mod sets;
mod storage;
#[cfg(test)]
mod tests;

use core::fmt;

use placement::{CacheMode, PAGE_SIZE, PageCount};

use super::{Mask, SegmentParms};

pub use bound::{Bound, Field};
pub use sets::{CacheModes, Encryption, StorageKind, StorageKinds};
pub use storage::{Misfit, Storage};

/// What somebody can use, of all the ways to store a buffer.
///
/// ```
/// use ttm::dma::{Constraints, Field, Mask};
///
/// let camera = Constraints { limit: Mask::bits(32), contiguous: true, ..Constraints::ANY };
/// let card = Constraints { max_segments: Some(16), alignment: 1 << 16, ..Constraints::ANY };
/// let both = camera.intersect(&card).unwrap();
/// assert_eq!((both.limit, both.alignment), (Mask::bits(32), 1 << 16));
///
/// // Two facts that exclude each other are named with both sides.
/// let bounced = Constraints { always_bounces: true, ..Constraints::ANY };
/// let strict = Constraints { no_bounce: true, ..Constraints::ANY };
/// assert_eq!(bounced.intersect(&strict).unwrap_err().field, Field::NoBounce);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Constraints {
    /// Which addresses are reached; at least a page.
    pub limit: Mask,
    /// The most bytes of a segment; at least a page.
    pub max_segment: u64,
    /// As [`SegmentParms::boundary_mask`].
    pub boundary_mask: u64,
    /// As [`SegmentParms::min_align_mask`].
    pub min_align_mask: u64,
    /// What the first address of each run is a multiple of, in bytes; at least 1.
    pub alignment: u64,
    /// The most segments; `None` for as many as there are.
    pub max_segments: Option<u32>,
    /// All of it has to be one run.
    pub contiguous: bool,
    /// The host has to have frames for it.
    pub needs_cpu_pages: bool,
    /// How the CPU may cache it.
    pub caching: CacheModes,
    /// CPU and device have to see the same without syncs.
    pub coherent: bool,
    /// A fact: the device passes the CPU's caches by.
    pub never_snoops: bool,
    /// It must not be copied on its way.
    pub no_bounce: bool,
    /// A fact: whatever the device is given is copied on its way.
    pub always_bounces: bool,
    /// In what kinds of memory it may be, the best first.
    pub storage: StorageKinds,
    /// How it may be encrypted.
    pub encryption: Encryption,
}

/// Nothing is left that both can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Empty {
    /// What it is about.
    pub field: Field,
    /// What one side says.
    pub ours: Bound,
    /// What the other says; of another field, if two exclude each other.
    pub theirs: Bound,
}

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ours, theirs, .. } = self;
        match ours == theirs {
            true => write!(f, "nothing has {ours}"),
            false => write!(f, "nothing has both {ours} and {theirs}"),
        }
    }
}

impl core::error::Error for Empty {}

/// The fields that exclude each other, or twice the one that is impossible.
type Conflict = (Field, Field);

impl Constraints {
    /// Those of somebody who can use everything.
    pub const ANY: Self = Self {
        limit: Mask::ALL,
        max_segment: PageCount::MAX.bytes(),
        boundary_mask: u64::MAX,
        min_align_mask: 0,
        alignment: 1,
        max_segments: None,
        contiguous: false,
        needs_cpu_pages: false,
        caching: CacheModes::ALL,
        coherent: false,
        never_snoops: false,
        no_bounce: false,
        always_bounces: false,
        storage: StorageKinds::ANY,
        encryption: Encryption::Any,
    };

    /// Those of a device that takes such lists.
    #[must_use]
    pub const fn of_parms(parms: SegmentParms) -> Self {
        Self {
            max_segment: parms.max_segment,
            boundary_mask: parms.boundary_mask,
            min_align_mask: parms.min_align_mask,
            max_segments: parms.max_segments,
            ..Self::ANY
        }
    }

    /// How lists are cut that all can use.
    #[must_use]
    pub const fn parms(&self) -> SegmentParms {
        SegmentParms {
            max_segment: self.max_segment,
            boundary_mask: self.boundary_mask,
            min_align_mask: self.min_align_mask,
            max_segments: self.max_segments,
        }
    }

    /// What it says of one field.
    #[must_use]
    pub fn bound(&self, field: Field) -> Bound {
        match field {
            Field::Limit => Bound::Limit(self.limit),
            Field::MaxSegment => Bound::MaxSegment(self.max_segment),
            Field::BoundaryMask => Bound::BoundaryMask(self.boundary_mask),
            Field::MinAlignMask => Bound::MinAlignMask(self.min_align_mask),
            Field::Alignment => Bound::Alignment(self.alignment),
            Field::MaxSegments => Bound::MaxSegments(self.max_segments.map(u64::from)),
            Field::Contiguous => Bound::Contiguous(self.contiguous),
            Field::CpuPages => Bound::CpuPages(self.needs_cpu_pages),
            Field::Caching => Bound::Caching(self.caching),
            Field::Coherent => Bound::Coherent(self.coherent),
            Field::NeverSnoops => Bound::NeverSnoops(self.never_snoops),
            Field::NoBounce => Bound::NoBounce(self.no_bounce),
            Field::AlwaysBounces => Bound::AlwaysBounces(self.always_bounces),
            Field::Storage => Bound::Storage(self.storage),
            Field::Encryption => Bound::Encryption(self.encryption),
        }
    }

    /// The same, with what follows from it spelled out:
    ///
    /// - segments are whole pages, no longer than boundaries are apart, and reach from one aligned
    ///   address to the next;
    /// - who needs frames cannot use memory of a device's;
    /// - a device that does not snoop is coherent only where the CPU does not cache;
    /// - who reads encrypted memory and who reads clear memory both read what is shared with the
    ///   host, and nothing else.
    ///
    /// # Errors
    /// [`Empty`]: nothing is like that.
    pub fn normal(self) -> Result<Self, Empty> {
        self.closed()
            .map_err(|conflict| self.empty(&self, conflict))
    }

    /// What both can use.
    ///
    /// The order does not matter, neither here nor among several, and the result is
    /// [`normal`](Self::normal).
    ///
    /// # Errors
    /// [`Empty`]: nothing. It says what it is about, and what each side said.
    pub fn intersect(&self, other: &Self) -> Result<Self, Empty> {
        let (ours, theirs) = (self.normal()?, other.normal()?);
        let met = ours.met(&theirs).and_then(Self::closed);
        met.map_err(|conflict| ours.empty(&theirs, conflict))
    }

    /// Field by field.
    fn met(&self, other: &Self) -> Result<Self, Conflict> {
        let common = lcm(self.alignment, other.alignment);
        let least = match (self.max_segments, other.max_segments) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        };
        Ok(Self {
            limit: self.limit.min(other.limit),
            max_segment: self.max_segment.min(other.max_segment),
            boundary_mask: self.boundary_mask & other.boundary_mask,
            min_align_mask: self.min_align_mask | other.min_align_mask,
            alignment: common.ok_or((Field::Alignment, Field::Alignment))?,
            max_segments: least,
            contiguous: self.contiguous | other.contiguous,
            needs_cpu_pages: self.needs_cpu_pages | other.needs_cpu_pages,
            caching: self.caching.intersection(other.caching),
            coherent: self.coherent | other.coherent,
            never_snoops: self.never_snoops | other.never_snoops,
            no_bounce: self.no_bounce | other.no_bounce,
            always_bounces: self.always_bounces | other.always_bounces,
            storage: self.storage.intersection(other.storage),
            encryption: self.encryption.intersection(other.encryption),
        })
    }

    /// With what follows. Each step only narrows, and none undoes what one before did.
    fn closed(mut self) -> Result<Self, Conflict> {
        self.check_own()?;
        let between = self.boundary_mask.saturating_add(1);
        let step = self.min_align_mask | (PAGE_SIZE - 1);
        self.max_segment = self.max_segment.min(between) & !step;
        if self.max_segment == 0 {
            return Err((Field::MinAlignMask, Field::MaxSegment));
        }
        if self.needs_cpu_pages {
            let framed = |kind| kind != StorageKind::DeviceMemory;
            self.storage = self.narrowed(Field::CpuPages, framed)?;
        }
        if self.encryption == Encryption::SharedOnly {
            let shared = |kind| kind == StorageKind::SharedEncrypted;
            self.storage = self.narrowed(Field::Encryption, shared)?;
        }
        if self.coherent && self.never_snoops {
            let past = CacheModes::of(&[CacheMode::WriteCombined, CacheMode::Uncached]);
            self.caching = self.caching.intersection(past);
            if self.caching.is_empty() {
                return Err((Field::Coherent, Field::NeverSnoops));
            }
        }
        match self.no_bounce && self.always_bounces {
            true => Err((Field::NoBounce, Field::AlwaysBounces)),
            false => Ok(self),
        }
    }

    fn narrowed(
        &self,
        by: Field,
        keep: impl Fn(StorageKind) -> bool,
    ) -> Result<StorageKinds, Conflict> {
        let kept = self.storage.filter(keep);
        match kept.is_empty() {
            // Mixed encryption is the two sides' own contradiction.
            true if by == Field::Encryption => Err((by, by)),
            true => Err((by, Field::Storage)),
            false => Ok(kept),
        }
    }

    /// Whether each field alone leaves something.
    fn check_own(&self) -> Result<(), Conflict> {
        let is_mask = |mask: u64| mask & mask.wrapping_add(1) == 0;
        let page = PAGE_SIZE - 1;
        let impossible = [
            (Field::Limit, self.limit.last() < page),
            (Field::MaxSegment, self.max_segment < PAGE_SIZE),
            (Field::BoundaryMask, !is_mask(self.boundary_mask)),
            (Field::BoundaryMask, self.boundary_mask < page),
            (Field::MinAlignMask, !is_mask(self.min_align_mask)),
            (Field::Alignment, self.alignment == 0),
            (Field::MaxSegments, self.max_segments == Some(0)),
            (Field::Caching, self.caching.is_empty()),
            (Field::Storage, self.storage.is_empty()),
        ];
        if let Some((field, _)) = impossible.into_iter().find(|(_, wrong)| *wrong) {
            return Err((field, field));
        }
        match self.alignment > self.limit.last() {
            true => Err((Field::Alignment, Field::Limit)),
            false => Ok(()),
        }
    }

    /// The error of a conflict, with what each side said.
    fn empty(&self, other: &Self, (field, against): Conflict) -> Empty {
        // Who says nothing of the second field has said the first.
        let theirs_is_against = other.bound(against) != Self::ANY.bound(against);
        let (ours, theirs) = match theirs_is_against {
            true => (field, against),
            false => (against, field),
        };
        Empty {
            field,
            ours: self.bound(ours),
            theirs: other.bound(theirs),
        }
    }

    /// Whether storage will do as it is.
    ///
    /// # Errors
    /// [`Misfit`]: it will not; what it is about, what there is and what is wanted.
    pub fn accepts(&self, storage: &Storage) -> Result<(), Misfit> {
        let want = self.normal().map_err(|empty| Misfit {
            field: empty.field,
            have: empty.ours,
            want: empty.theirs,
        })?;
        want.accepts_memory(storage)?;
        want.accepts_runs(storage)
    }

    fn accepts_memory(&self, storage: &Storage) -> Result<(), Misfit> {
        let (kind, shared) = (storage.kind(), StorageKind::SharedEncrypted);
        // Whether RAM is below the mask is seen by its addresses.
        let in_ram = kind == StorageKind::Ram && self.storage.contains(StorageKind::RamBelowMask);
        let readable = match self.encryption {
            Encryption::Any => true,
            Encryption::Encrypted => storage.is_encrypted() || kind == shared,
            Encryption::Clear => !storage.is_encrypted() || kind == shared,
            Encryption::SharedOnly => kind == shared,
        };
        let encryption = match (kind == shared, storage.is_encrypted()) {
            (true, _) => Encryption::SharedOnly,
            (false, true) => Encryption::Encrypted,
            (false, false) => Encryption::Clear,
        };
        let have = storage.has_cpu_pages();
        let kinds = StorageKinds::ANY.filter(|other| other == kind);
        let caching = CacheModes::of(&[storage.cache()]);
        self.holds(have || !self.needs_cpu_pages, Bound::CpuPages(have))?;
        let contained = self.storage.contains(kind) || in_ram;
        self.holds(contained, Bound::Storage(kinds))?;
        let cached = self.caching.contains(storage.cache());
        self.holds(cached, Bound::Caching(caching))?;
        self.holds(readable, Bound::Encryption(encryption))
    }

    fn accepts_runs(&self, storage: &Storage) -> Result<(), Misfit> {
        let runs = storage.runs();
        let end = runs.len() - 1;
        self.holds(end == 0 || !self.contiguous, Bound::Contiguous(false))?;
        let mut segments: u64 = 0;
        for (index, run) in runs.iter().enumerate() {
            let reached = run.last <= self.limit.last();
            self.holds(reached, Bound::Limit(Mask::up_to(run.last)))?;
            let aligned = run.first.is_multiple_of(self.alignment);
            let lowest = run.first & run.first.wrapping_neg();
            self.holds(aligned, Bound::Alignment(lowest))?;
            let mask = self.min_align_mask;
            let first = if index > 0 { run.first & mask } else { 0 };
            let last = if index < end {
                (run.last + 1) & mask
            } else {
                0
            };
            let odd = first | last;
            let kept = (odd & odd.wrapping_neg()).saturating_sub(1);
            self.holds(odd == 0, Bound::MinAlignMask(kept))?;
            segments += self.segments(run.first, run.last + 1);
        }
        let most = self.max_segments.map_or(u64::MAX, u64::from);
        self.holds(segments <= most, Bound::MaxSegments(Some(segments)))
    }

    /// How many segments a run is cut into.
    fn segments(&self, mut start: u64, end: u64) -> u64 {
        let parms = self.parms();
        let mut count = 0;
        while start < end {
            start = parms.cut(start, end);
            count += 1;
        }
        count
    }

    fn holds(&self, yes: bool, have: Bound) -> Result<(), Misfit> {
        let field = have.field();
        match yes {
            true => Ok(()),
            false => Err(Misfit {
                field,
                have,
                want: self.bound(field),
            }),
        }
    }
}

/// The least common multiple of two numbers that are not zero, if it is small enough.
const fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).checked_mul(b)
}
