//! Frames in the right mode, mapped under the coherent mask, until the device has stopped.

use placement::{CacheMode, PageCount};

use crate::cache::Modes;
use crate::dma::backing::{Frames, Wanted, number_of};
use crate::dma::choice::decide;
use crate::dma::device::{About, Reached};
use crate::dma::ledger::{Class, Kind, RecordAttrs};
use crate::dma::quarantine::{Fences, Kept, Until};
use crate::dma::streaming::Hold;
use crate::dma::{
    AllocAttrs, CpuUse, Decision, Direction, DmaDevice, DmaError, FrameBytes, MappedList, Need,
    OwnedMemory, PageList,
};
use crate::fence::Fence;
use crate::pages::{PageSource, Zone};
use crate::sync::Arc;

/// # Invariants
/// The hold is there until it is freed or dropped.
pub(super) struct Allocated {
    pub(super) device: Arc<DmaDevice>,
    pub(super) frames: Arc<Frames>,
    pub(super) hold: Option<Hold>,
    pub(super) mode: CacheMode,
    pub(super) viewed: bool,
    pub(super) fences: Vec<Fence>,
}

impl DmaDevice {
    /// The mode in which the device sees what the CPU sees, and by which decision.
    fn coherent_mode(
        &self,
        source: &dyn PageSource,
        asked: CacheMode,
        attrs: AllocAttrs,
    ) -> Result<(CacheMode, u64), DmaError> {
        let offers = source.offers();
        let seen = self.seen(Reached::Coherent, offers.snooped, attrs.decrypted);
        let need = Need {
            cpu_use: CpuUse::Persistent,
            ..Need::default()
        };
        let (decision, code) = decide(&seen.verdict, &need);
        match decision {
            Decision::Refuse(error) => return Err(error),
            Decision::Decrypted if !attrs.decrypted => {
                return Err(DmaError::NeedsAllocation {
                    code,
                    decrypted: true,
                });
            }
            _ => {}
        }
        let mode = match seen.verdict.snoops().is_yes() {
            true => Some(CacheMode::Cached),
            false => around_caches(offers.modes, asked),
        };
        let mode = mode.ok_or(DmaError::CoherentUnsupported { asked })?;
        Ok((mode, seen.epoch))
    }
}

/// The mode nearest to what was asked for that goes around the caches. Nothing that was to be
/// uncached gathers writes.
fn around_caches(offers: Modes, asked: CacheMode) -> Option<CacheMode> {
    use CacheMode::{Cached, Uncached, WriteCombined};
    let wanted: &[CacheMode] = match asked {
        Cached => &[Uncached, WriteCombined],
        WriteCombined => &[WriteCombined, Uncached],
        Uncached => &[Uncached],
    };
    wanted.iter().copied().find(|mode| offers.has(*mode))
}

impl Allocated {
    #[track_caller]
    pub(super) fn new(
        device: &Arc<DmaDevice>,
        source: &Arc<dyn PageSource>,
        bytes: u64,
        asked: CacheMode,
        attrs: AllocAttrs,
        viewed: bool,
    ) -> Result<Self, DmaError> {
        attrs.validate()?;
        let whole = PageCount::from_bytes_ceil(bytes).ok_or(DmaError::AddressOverflow)?;
        loop {
            let (mode, epoch) = device.coherent_mode(&**source, asked, attrs)?;
            let wanted = Wanted {
                zone: Zone::Normal,
                mode,
                contiguous: attrs.contiguous,
                longest: match attrs.single_pages {
                    true => PageCount::ONE,
                    false => PageCount::MAX,
                },
                viewed,
            };
            let (frames, hold) = place(device, source, whole, wanted, attrs, epoch)?;
            if let Some(hold) = hold {
                return Ok(Self {
                    device: Arc::clone(device),
                    frames,
                    hold: Some(hold),
                    mode,
                    viewed,
                    fences: Vec::new(),
                });
            }
        }
    }

    pub(super) fn hold(&self) -> &Hold {
        self.hold.as_ref().expect("there until it is freed")
    }

    pub(super) fn dma(&self) -> &MappedList {
        self.hold().mapping().list()
    }

    #[track_caller]
    pub(super) fn free(&mut self) -> Result<(), DmaError> {
        Fences::of(&self.fences).check()?;
        if let Some(hold) = self.hold.take() {
            hold.end(&self.device);
        }
        Ok(())
    }
}

/// Takes frames that the device reaches and maps them: where the source likes, or else low. Without
/// a hold if the decision changed.
#[track_caller]
fn place(
    device: &DmaDevice,
    source: &Arc<dyn PageSource>,
    whole: PageCount,
    wanted: Wanted,
    attrs: AllocAttrs,
    epoch: u64,
) -> Result<(Arc<Frames>, Option<Hold>), DmaError> {
    let bytes = whole.bytes();
    let zones = source.offers().zones;
    let mut last = DmaError::OutOfMemory { bytes };
    for zone in [Zone::Normal, Zone::Dma32] {
        if !zones.has(zone) {
            continue;
        }
        let wanted = Wanted { zone, ..wanted };
        last = match Frames::take(source, bytes, wanted) {
            Err(error) => error,
            Ok(frames) => {
                let frames = Arc::new(frames);
                match map(device, &frames, attrs, epoch, wanted.viewed) {
                    Ok(hold) => return Ok((frames, hold)),
                    Err(error) => error,
                }
            }
        };
        let elsewhere = matches!(
            last,
            DmaError::OutOfMemory { .. } | DmaError::AboveMask { .. }
        );
        if !elsewhere {
            break;
        }
    }
    Err(of_pool(last, attrs.pool))
}

/// Maps frames under the coherent mask. `None` if the decision changed.
#[track_caller]
fn map(
    device: &DmaDevice,
    frames: &Arc<Frames>,
    attrs: AllocAttrs,
    epoch: u64,
    viewed: bool,
) -> Result<Option<Hold>, DmaError> {
    let bytes = FrameBytes {
        spans: frames.frames(),
        offset: 0,
        len: frames.bytes(),
    };
    let list = PageList::build(device.parms(), bytes)?;
    let mut set = RecordAttrs::COHERENT;
    set.set(RecordAttrs::NO_CPU_VIEW, !viewed);
    set.set(RecordAttrs::CONTIGUOUS, attrs.contiguous);
    set.set(RecordAttrs::DECRYPTED, attrs.decrypted);
    let memory: Arc<dyn OwnedMemory> = Arc::clone(frames) as _;
    let about = About {
        reached: Reached::Coherent,
        kind: Kind::Coherent,
        attrs: set,
        memory: number_of(&memory),
        synced: Some(false),
        epoch: Some(epoch),
    };
    let mapping = device.try_map_list(&list, Direction::Both, &about)?;
    Ok(mapping.map(|mapping| Hold::coherent(mapping, epoch)))
}

/// A pool of the device's own is not filled from elsewhere.
fn of_pool(error: DmaError, pool: Option<&'static str>) -> DmaError {
    match (error, pool) {
        (DmaError::OutOfMemory { .. }, Some(pool)) => DmaError::PoolExhausted { pool },
        (error, _) => error,
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else {
            return;
        };
        let until = Until::behind(core::mem::take(&mut self.fences));
        if let (Some(ledger), Until::Reset) = (self.device.ledger(), &until) {
            let text = "coherent memory is dropped and nobody says when the device stops".into();
            let ticket = self.device.ticket(hold.mapping());
            ledger.offence(Class::Leak, ticket, text, true);
        }
        self.device.quarantine(Kept {
            hold,
            memory: Arc::clone(&self.frames) as _,
            viewed: self.viewed,
            until,
        });
    }
}
