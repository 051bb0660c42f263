//! Devices that find a table's frames: by whom they were mapped, and where they are for each.

use core::fmt;

use placement::PAGE_SIZE;

use crate::dma::{Direction, DmaError, DmaMapping, FrameBytes, MappedList, Mapper};
use crate::pages::FrameSpan;
use crate::sync::Arc;

use super::Tt;

/// What one mapper has mapped.
pub(super) struct Reached {
    mapper: Arc<dyn Mapper>,
    mapping: DmaMapping,
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.mapping, f)
    }
}

impl Tt {
    /// Has the device of that mapper find every page. Each has one mapping of a table at most.
    ///
    /// # Errors
    /// Those of [`Mapper::map`]; nothing has changed.
    ///
    /// # Panics
    /// If a page has no frame.
    pub(crate) fn map_for(&mut self, mapper: &Arc<dyn Mapper>) -> Result<(), DmaError> {
        if self.list_for(mapper).is_some() {
            return Ok(());
        }
        assert!(self.is_populated(), "a device finds all pages or none");
        let spans: Vec<FrameSpan> = self.frames().map(|(_, span)| span).collect();
        let bytes = FrameBytes {
            spans: &spans,
            offset: 0,
            len: self.pages.bytes(),
        };
        let mapping = mapper.map(bytes, Direction::Both)?;
        let mapper = Arc::clone(mapper);
        self.reached.push(Reached { mapper, mapping });
        Ok(())
    }

    /// Where the device of that mapper finds the pages, if it does.
    pub(crate) fn list_for(&self, mapper: &Arc<dyn Mapper>) -> Option<&Arc<MappedList>> {
        let by = |reached: &&Reached| Arc::ptr_eq(&reached.mapper, mapper);
        self.reached.iter().find(by).map(|r| r.mapping.list())
    }

    /// The device of that mapper finds the pages no more. Nothing of it uses them.
    pub(crate) fn unmap_for(&mut self, mapper: &Arc<dyn Mapper>) {
        let by = |reached: &Reached| Arc::ptr_eq(&reached.mapper, mapper);
        if let Some(n) = self.reached.iter().position(by) {
            let Reached { mapper, mapping } = self.reached.swap_remove(n);
            mapper.unmap(mapping);
        }
    }

    /// No device finds the pages any more. Comes before they are given away.
    pub(super) fn unmap_all(&mut self) {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::NoUnmap) {
            self.reached.clear();
        }
        for Reached { mapper, mapping } in self.reached.drain(..) {
            mapper.unmap(mapping);
        }
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
