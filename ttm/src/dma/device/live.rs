//! What is mapped for a device, from the list to its end.

use super::super::ledger::{Claim, Kind, Record, RecordAttrs, Ticket};
use super::super::{
    Direction, DmaError, DmaMapping, IovaRange, MappedList, Mask, Masks, PageList, Path,
};
use super::DmaDevice;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// Which of its masks a device reaches something by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::dma) enum Reached {
    /// Mapped as it is.
    Streaming,
    /// Allocated for it.
    Coherent,
}

impl Reached {
    pub(super) fn mask(self, masks: &Masks) -> Mask {
        match self {
            Self::Streaming => masks.streaming(),
            Self::Coherent => masks.coherent(),
        }
    }

    fn enter(self, masks: &mut Masks, first: u64, len: u64) -> Result<(), DmaError> {
        match self {
            Self::Streaming => masks.enter_streaming(first, len),
            Self::Coherent => masks.enter_coherent(first, len),
        }
    }

    fn leave(self, masks: &mut Masks) {
        match self {
            Self::Streaming => masks.leave_streaming(),
            Self::Coherent => masks.leave_coherent(),
        }
    }
}

/// What else there is to know of a mapping that is made.
#[derive(Clone, Copy, Debug)]
pub(in crate::dma) struct About {
    pub(in crate::dma) reached: Reached,
    pub(in crate::dma) kind: Kind,
    pub(in crate::dma) attrs: RecordAttrs,
    /// The memory, by a number of its own.
    pub(in crate::dma) memory: u64,
    /// Whether the CPU has to sync; without an answer, as of all that is mapped for the device.
    pub(in crate::dma) synced: Option<bool>,
    /// Only by that decision.
    pub(in crate::dma) epoch: Option<u64>,
}

impl About {
    /// A list that somebody maps and keeps in order himself.
    pub(super) const LIST: Self = Self {
        reached: Reached::Streaming,
        kind: Kind::List,
        // Frames are mapped for several devices and address spaces at once.
        attrs: RecordAttrs::IGNORE_LINES,
        memory: 0,
        synced: None,
        epoch: None,
    };
}

/// What a device is like when something is mapped for it.
struct Entered {
    path: Path,
    need_sync: bool,
    /// Bytes of a cache line, as the verdict has it.
    line: u32,
}

/// What it takes to end a mapping.
pub(super) struct Live {
    /// I/O addresses, where there is translation.
    block: Option<IovaRange>,
    /// The device's, so that no other is given it.
    id: Arc<()>,
    reached: Reached,
    bounced: bool,
    /// Whether the CPU has to sync.
    pub(super) synced: bool,
    record: Option<Box<(Record, Ticket)>>,
}

impl DmaDevice {
    /// Maps a list by the path that there is.
    ///
    /// # Errors
    /// Those of [`Mapper::map`](super::Mapper::map).
    #[track_caller]
    pub(in crate::dma) fn map_list(
        &self,
        list: &PageList,
        direction: Direction,
        about: &About,
    ) -> Result<DmaMapping, DmaError> {
        loop {
            if let Some(mapping) = self.try_map_list(list, direction, about)? {
                return Ok(mapping);
            }
        }
    }

    /// Maps a list, unless the decision changes meanwhile, or is not the one asked for.
    ///
    /// # Errors
    /// Those of [`Mapper::map`](super::Mapper::map).
    #[track_caller]
    pub(in crate::dma) fn try_map_list(
        &self,
        list: &PageList,
        direction: Direction,
        about: &About,
    ) -> Result<Option<DmaMapping>, DmaError> {
        let (before, mask) = {
            let state = self.state.lock();
            (state.epoch, about.reached.mask(&state.masks))
        };
        if about.epoch.is_some_and(|epoch| epoch != before) {
            return Ok(None);
        }
        // Without the lock: lists may be long, and tables take their time.
        let (mapped, block) = self.reach.show(list, &self.parms, mask, direction)?;
        match self.enter(&mapped, about.reached, before, false) {
            Ok(Some(entered)) => Ok(Some(
                self.made(mapped, direction, entered, block, about, false),
            )),
            refused => {
                if let Some(block) = block {
                    self.reach.end(block);
                }
                refused.map(|_| None)
            }
        }
    }

    /// Maps copies of a list, where they are. `None` if the decision is another by now.
    ///
    /// # Errors
    /// [`DmaError::AboveMask`].
    #[track_caller]
    pub(in crate::dma) fn map_copies(
        &self,
        mapped: MappedList,
        direction: Direction,
        about: &About,
        epoch: u64,
    ) -> Result<Option<DmaMapping>, DmaError> {
        let entered = self.enter(&mapped, about.reached, epoch, true)?;
        let made = entered.map(|it| self.made(mapped, direction, it, None, about, true));
        if let Some(mapping) = &made {
            // Relaxed: counts for people and tests.
            let bytes = mapping.list().bytes();
            self.counts.bounced.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(made)
    }

    /// Commits the mask to a list, if the decision is still that one.
    fn enter(
        &self,
        list: &MappedList,
        reached: Reached,
        epoch: u64,
        bounced: bool,
    ) -> Result<Option<Entered>, DmaError> {
        let (first, last) = list.bounds();
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Ok(None);
        }
        reached.enter(&mut state.masks, first, last - first + 1)?;
        if bounced {
            state.bounced += 1;
            state.has_bounced = true;
        }
        Ok(Some(Entered {
            path: state.verdict.path,
            need_sync: state.need_sync(),
            line: state.verdict.line,
        }))
    }

    #[track_caller]
    fn made(
        &self,
        list: MappedList,
        direction: Direction,
        entered: Entered,
        block: Option<IovaRange>,
        about: &About,
        bounced: bool,
    ) -> DmaMapping {
        // Relaxed: counts for people and tests.
        self.counts.mapped.fetch_add(1, Ordering::Relaxed);
        let record = match &self.ledger {
            Some(ledger) => {
                let record = self.record(&list, direction, about, bounced, entered.line);
                let ticket = ledger.mapped(record.clone(), list.dma_segments(), &self.parms);
                // Who gets the mapping has looked at the result.
                ledger.checked(ticket);
                Some(Box::new((record, ticket)))
            }
            None => None,
        };
        let live = Live {
            block,
            id: Arc::clone(&self.id),
            reached: about.reached,
            bounced,
            synced: about.synced.unwrap_or(entered.need_sync),
            record,
        };
        DmaMapping::new(list, direction, entered.path, live)
    }

    fn record(
        &self,
        list: &MappedList,
        direction: Direction,
        about: &About,
        bounced: bool,
        line: u32,
    ) -> Record {
        let cpu = list.cpu_segments().unwrap_or_default();
        let bytes = cpu.iter().filter(|_| !bounced).map(|segment| {
            let first = segment.span.first * placement::PAGE_SIZE + segment.offset;
            (segment.span.file, first, first + segment.len)
        });
        Record {
            device: self.number(),
            kind: about.kind,
            addr: list.dma_segments()[0].addr.get(),
            len: list.bytes(),
            direction,
            segments: cpu.len(),
            attrs: about.attrs,
            memory: about.memory,
            origin: super::super::ledger::Origin::Backing,
            bytes: bytes.collect(),
            line: u64::from(line.max(1)),
        }
    }

    /// Ends a mapping.
    ///
    /// # Panics
    /// If it is another device's.
    #[track_caller]
    pub(in crate::dma) fn end(&self, mapping: DmaMapping) {
        let Live {
            block,
            id,
            reached,
            bounced,
            record,
            ..
        } = mapping.into_handle();
        assert!(Arc::ptr_eq(&id, &self.id), "a mapping of another device");
        if let Some(block) = block {
            self.reach.end(block);
        }
        {
            let mut state = self.state.lock();
            reached.leave(&mut state.masks);
            state.bounced -= u64::from(bounced);
        }
        self.counts.unmapped.fetch_add(1, Ordering::Relaxed);
        if let (Some(ledger), Some(record)) = (&self.ledger, record) {
            let (record, ticket) = *record;
            let ticket = Some(ticket);
            ledger.unmapped(&Claim { record, ticket });
        }
    }

    /// The record of a mapping, where there is a ledger.
    pub(in crate::dma) fn ticket(&self, mapping: &DmaMapping) -> Option<Ticket> {
        let live: &Live = mapping.handle()?;
        live.record.as_ref().map(|record| record.1)
    }
}
