//! The CPU's own reads and writes of an object, by call.

use core::ops::Range;

use placement::{PAGE_SIZE, PageCount};

use crate::bo::{BoCore, BoState, Content};
use crate::driver::Side;
use crate::error::{Error, Result};
use crate::fence::Usage;
use crate::reservation::Held;
use crate::resource::Ask;
use crate::tt::Fill;

use super::copy::View;
use super::migrate::device_side;
use super::view::OPAQUE;

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
        let range = Bytes { offset, end };
        self.each_piece(&mut state, range, None, ask, |mapped, from, at, len| {
            let out = &mut out[at..at + len];
            match mapped {
                Some(mapped) => mapped.read(from, out),
                None => out.fill(0),
            }
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
        let range = Bytes { offset, end };
        let fill = Some(Fill::Zeroes);
        self.each_piece(&mut state, range, fill, ask, |mapped, to, at, len| {
            let mapped = mapped.expect("what is written has pages");
            mapped.write(to, &bytes[at..at + len]);
        })
    }

    /// Maps pages for the CPU, piece by piece, in their order; brings them to where it reaches them.
    ///
    /// # Errors
    /// As [`BoCore::reach`].
    pub(crate) fn look_at(
        &self,
        held: &Held<'_>,
        pages: Range<u64>,
        ask: &Ask<'_>,
    ) -> Result<Vec<View<'_>>> {
        let mut state = self.state(held);
        self.stand_still(held, &mut state, ask)?;
        state.content = Content::Kept;
        match self.looks(&mut state, pages.clone(), ask) {
            Err(Error::Unsupported(_)) if !state.has_frames() => {
                self.come_to_the_cpu(held, &mut state, ask)?;
                self.looks(&mut state, pages, ask)
            }
            looks => looks,
        }
    }

    fn looks(
        &self,
        state: &mut BoState,
        pages: Range<u64>,
        ask: &Ask<'_>,
    ) -> Result<Vec<View<'_>>> {
        let range = Bytes {
            offset: pages.start * PAGE_SIZE,
            end: pages.end * PAGE_SIZE,
        };
        let mut looks = Vec::new();
        self.each_piece(state, range, Some(Fill::Zeroes), ask, |view, _, _, _| {
            looks.push(view.expect("what is looked at has pages"));
        })?;
        Ok(looks)
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
    pub(super) fn be_somewhere(&self, state: &mut BoState) -> Result<()> {
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
    pub(super) fn is_untouched(&self, state: &BoState) -> Result<bool> {
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
                self.map_pages(state, ask)?;
                let tt = state.tt.as_ref().expect("just populated");
                Ok(self.device.frames_for_device(tt))
            }
        }
    }

    /// Calls `f` with a mapping (none where a page was never touched), the byte in it, the byte of
    /// the buffer, and how many, for each piece of the range that adjoins. Of system pages only
    /// those of the range are populated: `fresh` ones, and those that are in the backup.
    fn each_piece<'s>(
        &'s self,
        state: &mut BoState,
        range: Bytes,
        fresh: Option<Fill>,
        ask: &Ask<'_>,
        mut f: impl FnMut(Option<View<'s>>, usize, usize, usize),
    ) -> Result<()> {
        let Bytes { mut offset, end } = range;
        let device = match &state.resource {
            Some(resource) if !resource.manager().uses_frames() => {
                if self.opaque {
                    return Err(Error::Unsupported(OPAQUE));
                }
                Some(device_side(resource))
            }
            _ => {
                let pages = offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE);
                self.populate_part(state, pages, fresh, ask)?;
                None
            }
        };
        let mut at = 0;
        while offset < end {
            let first = offset / PAGE_SIZE;
            let pages = end.div_ceil(PAGE_SIZE) - first;
            let (mapped, bytes) = match &device {
                Some(side) => {
                    let mapped = self.device.map_part(side, first, pages)?;
                    let bytes = mapped.len();
                    (Some(mapped), bytes)
                }
                None => self.map_frames_at(state, first, pages)?,
            };
            let from = (offset - first * PAGE_SIZE) as usize;
            let left = usize::try_from(end - offset).expect("as long as a buffer");
            let len = (bytes - from).min(left);
            f(mapped, from, at, len);
            at += len;
            offset += len as u64;
        }
        Ok(())
    }

    /// A window over at most `pages` of the object's frames from page `first` on, and how many
    /// bytes it, or the hole there, has.
    fn map_frames_at(
        &self,
        state: &BoState,
        first: u64,
        pages: u64,
    ) -> Result<(Option<View<'_>>, usize)> {
        let tt = state.tt.as_ref().expect("just populated");
        let (start, len, span) = tt.around(first);
        let offset = first - start;
        let count = PageCount::new(pages.min(len.get() - offset)).expect("part of a run");
        let bytes = usize::try_from(count.bytes()).expect("populated pages are countable");
        let view = match span {
            Some(span) => Some(self.device.map_frames(span.part(offset, count))?),
            None => None,
        };
        Ok((view, bytes))
    }
}

/// Bytes of an object, from `offset` to before `end`.
#[derive(Clone, Copy)]
struct Bytes {
    offset: u64,
    end: u64,
}
