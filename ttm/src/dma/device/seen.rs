//! What the decision table is asked of a device.

use super::super::{DmaError, PageList, Tri, Verdict};
use super::reach::Reach;
use super::{DmaDevice, Reached};

/// What a device is taken for when something is mapped.
pub(in crate::dma) struct Seen {
    /// Without facts.
    pub(in crate::dma) verdict: Verdict,
    /// Which of its decisions that is.
    pub(in crate::dma) epoch: u64,
}

impl DmaDevice {
    /// The verdict with what the device reaches by now, and with what is known of the memory.
    pub(in crate::dma) fn seen(&self, reached: Reached, snooped: bool, decrypted: bool) -> Seen {
        let state = self.state.lock();
        let mut verdict = Verdict {
            mask: reached.mask(&state.masks),
            ..state.bare.clone()
        };
        let epoch = state.epoch;
        drop(state);
        if !snooped {
            verdict.snoop = Tri::No;
        }
        if decrypted {
            verdict.encrypted = Tri::No;
        }
        Seen { verdict, epoch }
    }

    /// The smallest page of its tables, or of memory.
    pub(in crate::dma) fn granule(&self) -> u64 {
        match &self.reach {
            Reach::Direct(_) => placement::PAGE_SIZE,
            Reach::Translated { space, .. } => space.granule(),
        }
    }

    /// The last byte of a list at its own addresses, which on a path with translation do not matter.
    ///
    /// # Errors
    /// [`DmaError::NoAddress`], [`DmaError::AddressOverflow`].
    pub(in crate::dma) fn end_of(&self, list: &PageList) -> Result<u64, DmaError> {
        let Reach::Direct(addresses) = &self.reach else {
            return Ok(0);
        };
        let mut end = 0;
        for (index, segment) in list.cpu_segments().iter().enumerate() {
            let first = addresses.address(segment.span);
            let first = first.ok_or(DmaError::NoAddress { index })?;
            let first = first.checked_add(segment.offset);
            let first = first.ok_or(DmaError::AddressOverflow)?;
            end = end.max(super::super::words::last_byte(first, segment.len)?);
        }
        Ok(end)
    }
}
