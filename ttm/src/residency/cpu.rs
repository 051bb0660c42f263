//! The CPU's own reads and writes of an object, by call.

use placement::PAGE_SIZE;

use crate::bo::{BoCore, BoState, Content};
use crate::driver::Side;
use crate::error::{Error, Result};
use crate::fence::Usage;
use crate::pages::Mapped;
use crate::reservation::Held;
use crate::resource::Ask;

use super::migrate::{device_side, frames};

impl BoCore {
    /// Reads bytes of the content, after the writes that are pending.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside the object, [`Error::Purged`], [`Error::ContentLost`],
    /// [`Error::Unsupported`] where the CPU cannot reach, and those of waiting and populating.
    pub(crate) fn read(
        &self,
        held: &Held<'_>,
        offset: u64,
        out: &mut [u8],
        ask: &Ask<'_>,
    ) -> Result<()> {
        let end = self.checked_end(offset, out.len())?;
        let mut state = self.state(held);
        self.wait_idle(held, Usage::Write, ask)?;
        self.make_ready(held, &mut state, ask)?;
        if self.is_untouched(&state)? {
            out.fill(0);
            return Ok(());
        }
        self.each_piece(&mut state, offset, end, ask, |mapped, from, at, len| {
            mapped.read(from, &mut out[at..at + len]);
        })
    }

    /// Writes bytes of the content, after everything that uses it.
    ///
    /// # Errors
    /// As [`BoCore::read`].
    pub(crate) fn write(
        &self,
        held: &Held<'_>,
        offset: u64,
        bytes: &[u8],
        ask: &Ask<'_>,
    ) -> Result<()> {
        let end = self.checked_end(offset, bytes.len())?;
        let mut state = self.state(held);
        self.wait_idle(held, Usage::Read, ask)?;
        self.make_ready(held, &mut state, ask)?;
        self.is_untouched(&state)?;
        self.be_somewhere(&mut state)?;
        state.content = Content::Kept;
        self.each_piece(&mut state, offset, end, ask, |mapped, to, at, len| {
            mapped.write(to, &bytes[at..at + len]);
        })
    }

    /// What a device reads or writes when it is handed this object now: its pages, populated.
    pub(crate) fn side(&self, held: &Held<'_>, ask: &Ask<'_>) -> Result<Side> {
        let mut state = self.state(held);
        self.make_ready(held, &mut state, ask)?;
        self.is_untouched(&state)?;
        self.be_somewhere(&mut state)?;
        self.side_of(&mut state, ask)
    }

    /// Whatever is about to be written has a place, system memory if it had none.
    fn be_somewhere(&self, state: &mut BoState) -> Result<()> {
        if state.resource.is_none() {
            state.resource = Some(self.system_resource(state)?);
        }
        Ok(())
    }

    fn checked_end(&self, offset: u64, len: usize) -> Result<u64> {
        offset
            .checked_add(len as u64)
            .filter(|end| *end <= self.bytes)
            .ok_or(Error::Invalid(
                "a range of bytes that is not inside the object",
            ))
    }

    /// Whether there is no content yet.
    fn is_untouched(&self, state: &BoState) -> Result<bool> {
        match state.content {
            Content::Purged => Err(Error::Purged),
            Content::Lost => Err(Error::ContentLost),
            Content::Fresh => Ok(state.resource.is_none() || state.tt.is_none()),
            Content::Kept => Ok(false),
        }
    }

    fn side_of(&self, state: &mut BoState, ask: &Ask<'_>) -> Result<Side> {
        match &state.resource {
            Some(resource) if !resource.manager().uses_frames() => Ok(device_side(resource)),
            _ => {
                self.populate(state, ask)?;
                Ok(frames(state.tt.as_ref().expect("just populated")))
            }
        }
    }

    /// Calls `f` with a mapping, the byte in it, the byte of the buffer, and how many, for each
    /// piece of the range that adjoins.
    fn each_piece(
        &self,
        state: &mut BoState,
        mut offset: u64,
        end: u64,
        ask: &Ask<'_>,
        mut f: impl FnMut(&Mapped, usize, usize, usize),
    ) -> Result<()> {
        let side = self.side_of(state, ask)?;
        let mut at = 0;
        while offset < end {
            let first = offset / PAGE_SIZE;
            let pages = end.div_ceil(PAGE_SIZE) - first;
            let mapped = self.device.map_part(&side, first, pages)?;
            let from = (offset - first * PAGE_SIZE) as usize;
            let left = usize::try_from(end - offset).expect("as long as a buffer");
            let len = (mapped.len() - from).min(left);
            f(&mapped, from, at, len);
            at += len;
            offset += len as u64;
        }
        Ok(())
    }
}
