//! Devices that find a table's frames: by whom they were mapped, and where they are for each.
//!
//! The table's own device has one mapping at most. Others are *lent*: each has a [`Lease`], which
//! either side can end. An ended one is unmapped once the fences have signalled that were pending
//! when that was noticed, or with the frames.

use core::fmt;

use placement::PAGE_SIZE;

use crate::dma::{BusRange, Direction, DmaError, DmaMapping, FrameBytes, MappedList, Mapper, Path};
use crate::fence::Fence;
use crate::pages::FrameSpan;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

use super::Tt;

/// What one mapper has mapped.
pub(super) struct Reached {
    mapper: Arc<dyn Mapper>,
    mapping: DmaMapping,
    /// None for the table's own device.
    lease: Option<Arc<Lease>>,
    /// What was pending when the lease was seen to have ended.
    behind: Option<Vec<Fence>>,
}

/// Whether a mapping that was lent still counts. The table and the borrower have it.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Release when set, acquire when read: whoever sees it set sees what came before.
    ended: AtomicBool,
}

impl Lease {
    /// The borrower uses the mapping no more, but for work that is queued already.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether that was said.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Reached {
    fn has_ended(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.has_ended())
    }

    /// Ends it. Whoever had it lent sees that it is gone.
    fn unmap(self) {
        if let Some(lease) = &self.lease {
            lease.end();
        }
        self.mapper.unmap(self.mapping);
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.mapping, f)
    }
}

impl Tt {
    /// Has the device of that mapper find every page, which is the table's own: it has one mapping at
    /// most. Answers where, unless it did before.
    ///
    /// # Errors
    /// Those of [`Mapper::map`]; nothing has changed.
    ///
    /// # Panics
    /// If a page has no frame.
    pub(crate) fn map_for(
        &mut self,
        mapper: &Arc<dyn Mapper>,
    ) -> Result<Option<Arc<MappedList>>, DmaError> {
        match self.list_for(mapper) {
            Some(_) => Ok(None),
            None => self.map(mapper, Direction::Both, None).map(Some),
        }
    }

    /// Has another device find every page, for as long as the lease lasts and the frames stay. Each
    /// call makes a mapping of its own.
    ///
    /// # Errors
    /// As [`Tt::map_for`].
    ///
    /// # Panics
    /// As [`Tt::map_for`].
    pub(crate) fn lend(
        &mut self,
        mapper: &Arc<dyn Mapper>,
        direction: Direction,
        lease: &Arc<Lease>,
    ) -> Result<Arc<MappedList>, DmaError> {
        self.map(mapper, direction, Some(Arc::clone(lease)))
    }

    fn map(
        &mut self,
        mapper: &Arc<dyn Mapper>,
        direction: Direction,
        lease: Option<Arc<Lease>>,
    ) -> Result<Arc<MappedList>, DmaError> {
        assert!(self.is_populated(), "a device finds all pages or none");
        let spans: Vec<FrameSpan> = self.frames().map(|(_, span)| span).collect();
        let bytes = FrameBytes {
            spans: &spans,
            offset: 0,
            len: self.pages.bytes(),
        };
        let mapping = mapper.map(bytes, direction)?;
        let list = Arc::clone(mapping.list());
        self.reached.push(Reached {
            mapper: Arc::clone(mapper),
            mapping,
            lease,
            behind: None,
        });
        Ok(list)
    }

    /// Where the table's own device, whose mapper that is, finds the pages, if it does.
    pub(crate) fn list_for(&self, mapper: &Arc<dyn Mapper>) -> Option<&Arc<MappedList>> {
        let by = |r: &&Reached| r.lease.is_none() && Arc::ptr_eq(&r.mapper, mapper);
        self.reached.iter().find(by).map(|r| r.mapping.list())
    }

    /// Where a borrower finds the pages, if it does.
    pub(crate) fn list_lent(&self, lease: &Arc<Lease>) -> Option<&Arc<MappedList>> {
        let by = |r: &&Reached| r.lease.as_ref().is_some_and(|l| Arc::ptr_eq(l, lease));
        self.reached.iter().find(by).map(|r| r.mapping.list())
    }

    /// Where the frames are on the bus, as a device has it that finds them as they are; none if there
    /// is none such.
    pub(crate) fn bus_ranges(&self) -> Option<Vec<BusRange>> {
        let as_it_is = |r: &&Reached| matches!(r.mapping.path(), Path::Direct | Path::Identity);
        let segments = self.reached.iter().find(as_it_is)?.mapping.list();
        let segments = segments.dma_segments().iter();
        let range = segments.map(|s| BusRange {
            addr: s.addr,
            len: s.len,
        });
        Some(range.collect())
    }

    /// The table's own device finds the pages no more. Nothing of it uses them.
    pub(crate) fn unmap_for(&mut self, mapper: &Arc<dyn Mapper>) {
        let by = |r: &Reached| r.lease.is_none() && Arc::ptr_eq(&r.mapper, mapper);
        if let Some(n) = self.reached.iter().position(by) {
            self.reached.swap_remove(n).unmap();
        }
    }

    /// Whether a mapping is lent whose lease has ended.
    pub(crate) fn has_ended_leases(&self) -> bool {
        self.reached.iter().any(Reached::has_ended)
    }

    /// Unmaps what was lent, its lease ended, and no longer used. `pending` says what may use what
    /// has only just ended.
    pub(crate) fn unmap_ended(&mut self, pending: impl Fn() -> Vec<Fence>) {
        let mut n = 0;
        while n < self.reached.len() {
            let reached = &mut self.reached[n];
            if reached.has_ended() {
                let behind = reached.behind.get_or_insert_with(&pending);
                if behind.iter().all(Fence::is_signalled) {
                    self.reached.swap_remove(n).unmap();
                    continue;
                }
            }
            n += 1;
        }
    }

    /// No device finds the pages any more. Comes before they are given away.
    pub(super) fn unmap_all(&mut self) {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::NoUnmap) {
            self.reached.clear();
        }
        self.reached.drain(..).for_each(Reached::unmap);
    }

    /// What devices find is all that the object has.
    pub(super) fn check_reached(&self) -> Result<(), String> {
        let id = self.object;
        for Reached { mapping, .. } in &self.reached {
            if !self.is_populated() {
                return Err(format!(
                    "I-49: a device finds pages of object {id}, and not all have frames"
                ));
            }
            let found = mapping.list().cpu_segments().unwrap_or_default();
            let found = found
                .iter()
                .flat_map(|s| (0..s.span.pages.get()).map(|n| (s.span.file, s.span.first + n)));
            let own = self
                .frames()
                .flat_map(|(_, s)| (0..s.pages.get()).map(move |n| (s.file, s.first + n)));
            if mapping.list().bytes() != self.pages.get() * PAGE_SIZE || !found.eq(own) {
                return Err(format!(
                    "I-49: a device finds other frames than object {id} has"
                ));
            }
        }
        Ok(())
    }
}
