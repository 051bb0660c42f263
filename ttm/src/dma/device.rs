//! A device as memory is mapped for it.
//!
//! ```text
//!   frames ──cut by the parameters──▶ list ──┬── direct: the frames' own addresses, under the mask
//!                                            └── translated: one block of I/O addresses, tables
//! ```
//!
//! The path is the verdict's when something is mapped, and is kept with it: it is unmapped as it
//! was mapped. What is live commits the mask and the path.

mod counts;
mod live;
mod reach;
mod seen;
#[cfg(test)]
mod tests;

use core::fmt;

use super::bounce::Bouncer;
use super::quarantine::Quarantine;
use super::{
    BounceMemory, BouncePool, Direction, DmaError, DmaMapping, FrameBytes, IovaConfig, IovaStats,
    Ledger, Mapper, Mask, MaskChange, Masks, PageList, Path, SegmentParms, Verdict,
};
use crate::clock::Clock;
use crate::sync::{Arc, Mutex};

use self::counts::Counts;
use self::reach::Reach;

pub use counts::{DmaStats, LiveMappings};
pub(super) use live::{About, Reached};
pub use reach::{FrameAddresses, Translation};

/// The way that was decided on, and how often it was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathDecision {
    /// The path.
    pub path: Path,
    /// Counts the decisions, from 0 on.
    pub epoch: u64,
}

/// A device, or one address space of it: what maps memory for it.
///
/// A device with several address spaces has one of these for each. Frames that are mapped for one
/// are mapped for another without touching them.
///
/// # Invariants
/// I-49: what is live lies under the mask that it was mapped with, and I/O addresses do not overlap.
/// A list that is not empty is never mapped by nothing.
///
/// ```
/// use ttm::dma::{Direction, DmaDevice, DmaError, FrameBytes, Mapper, Mask, Path, SegmentParms};
/// use ttm::dma::{Tri, Verdict};
/// use ttm::pages::FrameSpan;
/// use ttm::placement::PageCount;
///
/// # fn main() -> Result<(), DmaError> {
/// let verdict = Verdict { path: Path::Direct, snoop: Tri::Yes, ..Verdict::unknown("card") };
/// let device = DmaDevice::direct(verdict, SegmentParms::DEFAULT, |span: FrameSpan| {
///     Some(span.first * 4096)
/// })?;
/// device.set_masks(Mask::bits(40))?;
///
/// let spans = [FrameSpan { file: 0, first: 16, pages: PageCount::new(4).unwrap() }];
/// let bytes = FrameBytes { spans: &spans, offset: 0, len: 4 * 4096 };
/// let mapping = device.map(bytes, Direction::Both)?;
/// assert_eq!(mapping.list().dma_segments()[0].addr.get(), 0x1_0000);
/// // The mask is committed as far as something is mapped.
/// assert!(device.set_masks(Mask::bits(16)).is_err());
/// device.unmap(mapping);
/// # Ok(())
/// # }
/// ```
pub struct DmaDevice {
    /// Tells it from others.
    id: Arc<()>,
    parms: SegmentParms,
    reach: Reach,
    pool: Option<Arc<dyn Bouncer>>,
    ledger: Option<Arc<Ledger>>,
    pub(super) counts: Counts,
    pub(super) quarantine: Quarantine,
    /// A leaf.
    state: Mutex<State>,
}

struct State {
    verdict: Arc<Verdict>,
    /// The same without facts, which each mapping copies and completes.
    bare: Verdict,
    epoch: u64,
    masks: Masks,
    /// Mappings through the pool.
    bounced: u64,
    /// Whether there ever was one since the verdict.
    has_bounced: bool,
}

impl State {
    /// Whether the CPU has to sync what is mapped, unless more is known of it.
    fn need_sync(&self) -> bool {
        self.has_bounced || !self.verdict.snoops().is_yes()
    }
}

impl DmaDevice {
    /// A device that finds frames at their own addresses: on a path that is direct, or an IOMMU's
    /// that lets addresses through. It reaches what the verdict says.
    ///
    /// # Errors
    /// [`DmaError::BadParms`]; [`DmaError::NoPath`] for a verdict of another path.
    pub fn direct(
        verdict: Verdict,
        parms: SegmentParms,
        addresses: impl FrameAddresses + 'static,
    ) -> Result<Self, DmaError> {
        Self::new(verdict, parms, Reach::Direct(Box::new(addresses)))
    }

    /// A device behind translation: its tables are `tables`, and I/O addresses come from a space
    /// like `space`. The clock is the one by which lazy invalidation waits.
    ///
    /// # Errors
    /// [`DmaError::BadParms`], [`DmaError::BadGranule`]; [`DmaError::NoPath`] for a verdict of
    /// another path.
    pub fn translated(
        verdict: Verdict,
        parms: SegmentParms,
        space: IovaConfig,
        tables: Arc<dyn Translation>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DmaError> {
        let reach = Reach::translated(space, tables, clock)?;
        Self::new(verdict, parms, reach)
    }

    fn new(verdict: Verdict, parms: SegmentParms, reach: Reach) -> Result<Self, DmaError> {
        parms.validate()?;
        reach.serves(verdict.path)?;
        let mut masks = Masks::new(Mask::bits(1));
        masks.set_both(verdict.mask)?;
        let state = State {
            bare: verdict.without_facts(),
            verdict: Arc::new(verdict),
            epoch: 0,
            masks,
            bounced: 0,
            has_bounced: false,
        };
        Ok(Self {
            id: Arc::new(()),
            parms,
            reach,
            pool: None,
            ledger: None,
            counts: Counts::default(),
            quarantine: Quarantine::default(),
            state: Mutex::new(state),
        })
    }

    /// The same with a pool, through which what it cannot reach, or may not see, is copied where that
    /// is allowed. It reaches all of the pool without a sync.
    #[must_use]
    pub fn with_bounce<M: BounceMemory + 'static>(mut self, pool: Arc<BouncePool<M>>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// The same with a ledger, which is told of all that is mapped.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// The same, looking for devices that write after the fence of their work: a pattern is written
    /// to what leaves the quarantine, which is freed by the next
    /// [reaping](DmaDevice::reap_quarantine) if it is still there, and never if not. What is written
    /// after that is not found, nor what happens to be the pattern; what is found was written.
    #[must_use]
    pub fn with_late_write_check(mut self) -> Self {
        self.quarantine.poisons = true;
        self
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_deref()
    }

    pub(super) fn pool(&self) -> Result<&dyn Bouncer, DmaError> {
        self.pool.as_deref().ok_or(DmaError::NoBouncePool)
    }

    /// A number that no other device has meanwhile.
    #[must_use]
    pub fn number(&self) -> u64 {
        Arc::as_ptr(&self.id).addr() as u64
    }

    /// What is known of its way to memory.
    #[must_use]
    pub fn verdict(&self) -> Arc<Verdict> {
        Arc::clone(&self.state.lock().verdict)
    }

    /// How it wants its lists.
    #[must_use]
    pub const fn parms(&self) -> &SegmentParms {
        &self.parms
    }

    /// The path that is mapped by now.
    #[must_use]
    pub fn path(&self) -> PathDecision {
        let state = self.state.lock();
        PathDecision {
            path: state.verdict.path,
            epoch: state.epoch,
        }
    }

    /// Takes another verdict for good. Nothing else changes the path; above all no mask does.
    ///
    /// # Errors
    /// [`DmaError::PathChangeWhileLive`] for another path, or
    /// [`DmaError::MaskNarrowedWhileLive`], while something is mapped; [`DmaError::NoPath`] for a
    /// path that takes another kind of mapping. Nothing has changed.
    pub fn renegotiate(&self, verdict: Verdict) -> Result<PathDecision, DmaError> {
        self.reach.serves(verdict.path)?;
        let mut state = self.state.lock();
        let live = state.masks.live();
        if verdict.path != state.verdict.path && live > 0 {
            return Err(DmaError::PathChangeWhileLive { live });
        }
        state.masks.set_both(verdict.mask)?;
        state.has_bounced = state.bounced > 0;
        state.epoch += 1;
        state.bare = verdict.without_facts();
        state.verdict = Arc::new(verdict);
        Ok(PathDecision {
            path: state.verdict.path,
            epoch: state.epoch,
        })
    }

    /// What it reaches, as it stands.
    #[must_use]
    pub fn masks(&self) -> Masks {
        self.state.lock().masks
    }

    /// Sets what it reaches of memory that is mapped as it is.
    ///
    /// # Errors
    /// Those of [`Masks::set_streaming`].
    pub fn set_streaming_mask(&self, mask: Mask) -> Result<MaskChange, DmaError> {
        self.state.lock().masks.set_streaming(mask)
    }

    /// Sets what it reaches of memory that is allocated for it.
    ///
    /// # Errors
    /// Those of [`Masks::set_coherent`].
    pub fn set_coherent_mask(&self, mask: Mask) -> Result<MaskChange, DmaError> {
        self.state.lock().masks.set_coherent(mask)
    }

    /// Sets both.
    ///
    /// # Errors
    /// Those of [`Masks::set_both`].
    pub fn set_masks(&self, mask: Mask) -> Result<MaskChange, DmaError> {
        self.state.lock().masks.set_both(mask)
    }

    /// What would reach all that can be mapped: all memory on a direct path, I/O addresses of 32 bits
    /// behind translation.
    #[must_use]
    pub fn required_mask(&self) -> Mask {
        match self.reach {
            Reach::Direct(_) => self.state.lock().verdict.required,
            Reach::Translated { .. } => Mask::bits(32),
        }
    }

    /// Whether it reaches less than that.
    #[must_use]
    pub fn is_addressing_limited(&self) -> bool {
        self.masks().streaming() < self.required_mask()
    }

    /// What adjoining segments have to begin and end at to be joined: a power of two less one;
    /// `None` where none are.
    #[must_use]
    pub fn merge_boundary(&self) -> Option<u64> {
        match &self.reach {
            Reach::Direct(_) => None,
            Reach::Translated { space, .. } => Some(space.granule() - 1),
        }
    }

    /// The most bytes that are mapped without asking the shared space of I/O addresses, where there
    /// is one.
    #[must_use]
    pub fn optimal_bytes(&self) -> Option<u64> {
        match &self.reach {
            Reach::Direct(_) => None,
            Reach::Translated { space, .. } => Some(space.largest_cached()),
        }
    }

    /// How full its I/O addresses are; `None` where it has none.
    #[must_use]
    pub fn iova_stats(&self) -> Option<IovaStats> {
        match &self.reach {
            Reach::Direct(_) => None,
            Reach::Translated { space, .. } => Some(space.stats()),
        }
    }

    /// Has the device forget what was unmapped, where that is lazy.
    pub fn flush(&self) {
        if let Reach::Translated { space, .. } = &self.reach {
            space.flush();
        }
    }

    /// The number of the last decision.
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }
}

impl Mapper for DmaDevice {
    /// # Errors
    /// - [`DmaError::ZeroLength`], [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`]:
    ///   bytes that are not in the frames;
    /// - [`DmaError::NoAddress`]: frames without an address on a direct path;
    /// - [`DmaError::AboveMask`]: the device does not reach them;
    /// - [`DmaError::IovaExhausted`]: no I/O addresses are left, which may be retried;
    /// - what [`SegmentParms::check`] finds, and what the tables say.
    #[track_caller]
    fn map(&self, bytes: FrameBytes<'_>, direction: Direction) -> Result<DmaMapping, DmaError> {
        let list = PageList::build(&self.parms, bytes)?;
        self.map_list(&list, direction, &About::LIST)
    }

    /// # Panics
    /// If it is another device's.
    #[track_caller]
    fn unmap(&self, mapping: DmaMapping) {
        self.end(mapping);
    }

    fn live(&self) -> u64 {
        self.masks().live()
    }
}

impl Drop for DmaDevice {
    /// What is in its quarantine is lost with it, unless its fences say that it need not be.
    fn drop(&mut self) {
        self.reap_quarantine();
        self.quarantine.lose();
        if let Some(ledger) = &self.ledger {
            ledger.released(self.number());
        }
    }
}

impl fmt::Debug for DmaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(
            f,
            "DmaDevice({}, {}, {}, {} live)",
            state.verdict.device,
            state.verdict.path,
            state.masks.streaming(),
            state.masks.live()
        )
    }
}
