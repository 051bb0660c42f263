//! A device as memory is mapped for it.
//!
//! ```text
//!   frames ──cut by the parameters──▶ list ──┬── direct: the frames' own addresses, under the mask
//!                                            └── translated: one block of I/O addresses, tables
//! ```
//!
//! The path is the verdict's when something is mapped, and is kept with it: it is unmapped as it
//! was mapped. What is live commits the mask and the path.

mod reach;
#[cfg(test)]
mod tests;

use core::fmt;

use super::{
    Direction, DmaError, DmaMapping, FrameBytes, IovaConfig, IovaRange, IovaStats, MappedList,
    Mapper, Mask, MaskChange, Masks, PageList, Path, SegmentParms, Verdict,
};
use crate::clock::Clock;
use crate::sync::{Arc, Mutex};

use self::reach::Reach;

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
    /// A leaf.
    state: Mutex<State>,
}

struct State {
    verdict: Arc<Verdict>,
    epoch: u64,
    masks: Masks,
}

/// What it takes to end a mapping.
struct Live {
    /// I/O addresses, where there is translation.
    block: Option<IovaRange>,
    /// The device's, so that no other is given it.
    id: Arc<()>,
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
            verdict: Arc::new(verdict),
            epoch: 0,
            masks,
        };
        Ok(Self {
            id: Arc::new(()),
            parms,
            reach,
            state: Mutex::new(state),
        })
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
        state.epoch += 1;
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

    /// Maps a list by the path that there is.
    pub(super) fn map_list(
        &self,
        list: &PageList,
        direction: Direction,
    ) -> Result<DmaMapping, DmaError> {
        loop {
            let (before, mask) = {
                let state = self.state.lock();
                (state.epoch, state.masks.streaming())
            };
            // Without the lock: lists may be long, and tables take their time.
            let (mapped, block) = self.reach.show(list, &self.parms, mask, direction)?;
            let entered = {
                let mut state = self.state.lock();
                let path = state.verdict.path;
                match state.epoch == before {
                    true => Some(enter(&mut state.masks, &mapped).map(|()| path)),
                    false => None,
                }
            };
            match (entered, block) {
                (Some(Ok(path)), block) => {
                    let id = Arc::clone(&self.id);
                    let live = Live { block, id };
                    return Ok(DmaMapping::new(mapped, direction, path, live));
                }
                (refused, block) => {
                    if let Some(block) = block {
                        self.reach.end(block);
                    }
                    if let Some(Err(error)) = refused {
                        return Err(error);
                    }
                }
            }
        }
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
    fn map(&self, bytes: FrameBytes<'_>, direction: Direction) -> Result<DmaMapping, DmaError> {
        let list = PageList::build(&self.parms, bytes)?;
        self.map_list(&list, direction)
    }

    /// # Panics
    /// If it is another device's.
    fn unmap(&self, mapping: DmaMapping) {
        let Live { block, id } = mapping.into_handle();
        assert!(Arc::ptr_eq(&id, &self.id), "a mapping of another device");
        if let Some(block) = block {
            self.reach.end(block);
        }
        self.state.lock().masks.leave_streaming();
    }

    fn live(&self) -> u64 {
        self.masks().live()
    }
}

/// Commits the mask to a list.
fn enter(masks: &mut Masks, list: &MappedList) -> Result<(), DmaError> {
    let segments = list.dma_segments();
    let first = segments.iter().map(|segment| segment.addr.get()).min();
    let first = first.ok_or(DmaError::ZeroLength)?;
    let mut last = first;
    for segment in segments {
        last = last.max(segment.last()?);
    }
    masks.enter_streaming(first, last - first + 1)
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
