//! Frames of a page source, with the CPU's mappings of them.

use core::ops::Range;

use placement::{CacheMode, PAGE_SIZE, PageCount};

use super::OwnedMemory;
use crate::cache::Maintenance;
use crate::dma::DmaError;
use crate::error::Error;
use crate::pages::{Dirty, FrameKind, FrameRun, FrameSpan, Mapped, PageSource, Want, Zone};
use crate::sync::Arc;

/// What frames are wanted.
#[derive(Clone, Copy, Debug)]
pub(in crate::dma) struct Wanted {
    pub(in crate::dma) zone: Zone,
    pub(in crate::dma) mode: CacheMode,
    /// In one run or not at all.
    pub(in crate::dma) contiguous: bool,
    /// The most pages of a run.
    pub(in crate::dma) longest: PageCount,
    /// With a view for the CPU.
    pub(in crate::dma) viewed: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            zone: Zone::Normal,
            mode: CacheMode::Cached,
            contiguous: false,
            longest: PageCount::MAX,
            viewed: true,
        }
    }
}

/// Frames of a source until the drop, which gives them back, cached.
pub(in crate::dma) struct Frames {
    source: Arc<dyn PageSource>,
    /// In the order of the bytes.
    parts: Vec<Part>,
    spans: Vec<FrameSpan>,
    bytes: u64,
    snooped: bool,
}

struct Part {
    /// Where in the bytes it begins.
    at: u64,
    run: FrameRun<Dirty>,
    mode: CacheMode,
    mapped: Option<Mapped>,
}

impl Frames {
    /// # Errors
    /// [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`], [`DmaError::OutOfMemory`] and
    /// [`DmaError::Source`]; nothing was taken.
    pub(in crate::dma) fn take(
        source: &Arc<dyn PageSource>,
        bytes: u64,
        wanted: Wanted,
    ) -> Result<Self, DmaError> {
        if bytes == 0 {
            return Err(DmaError::ZeroLength);
        }
        let whole = PageCount::from_bytes_ceil(bytes).ok_or(DmaError::AddressOverflow)?;
        let mut frames = Self {
            source: Arc::clone(source),
            parts: Vec::new(),
            spans: Vec::new(),
            bytes,
            snooped: source.offers().snooped,
        };
        let (mut left, mut longest) = (whole.get(), wanted.longest.get());
        while left > 0 {
            let pages = PageCount::new(left.min(longest)).expect("a part of the whole");
            match frames.take_run(pages, wanted) {
                Ok(()) => left -= pages.get(),
                Err(Error::NoMemory { .. }) if !wanted.contiguous && pages.get() > 1 => {
                    longest = pages.get() / 2;
                }
                Err(Error::NoMemory { .. }) => return Err(DmaError::OutOfMemory { bytes }),
                Err(error) => return Err(source_says(&error)),
            }
        }
        Ok(frames)
    }

    fn take_run(&mut self, pages: PageCount, wanted: Wanted) -> Result<(), Error> {
        let kind = FrameKind {
            zone: wanted.zone,
            ..FrameKind::default()
        };
        let run = self.source.take(&Want { pages, kind })?.dirtied();
        let (span, mode) = (run.span(), wanted.mode);
        let at = self.parts.last().map_or(0, Part::end);
        self.spans.push(span);
        // From here on the drop gives it back.
        self.parts.push(Part {
            at,
            run,
            mode: CacheMode::Cached,
            mapped: None,
        });
        let part = self.parts.last_mut().expect("just pushed");
        if mode != CacheMode::Cached {
            switch(&*self.source, span, CacheMode::Cached, mode)?;
            part.mode = mode;
        }
        if wanted.viewed {
            part.mapped = Some(self.source.map(span, mode)?);
        }
        Ok(())
    }

    /// Calls `f` for each piece of `len` bytes from `at` on: with the mapping, the offset in it, and
    /// which of the bytes.
    fn each(&self, at: u64, len: usize, mut f: impl FnMut(&Mapped, usize, Range<usize>)) {
        let mut done = 0;
        while done < len {
            let (mapped, offset) = self.find(at + done as u64);
            let piece = (len - done).min(mapped.len() - offset);
            f(mapped, offset, done..done + piece);
            done += piece;
        }
    }

    /// The mapping that shows a byte, and where in it.
    ///
    /// # Panics
    /// If there is none.
    pub(in crate::dma) fn find(&self, at: u64) -> (&Mapped, usize) {
        let part = &self.parts[self.part_at(at)];
        let mapped = part.mapped.as_ref().expect("frames with a view");
        (mapped, (at - part.at) as usize)
    }

    fn part_at(&self, at: u64) -> usize {
        self.parts.partition_point(|part| part.end() <= at)
    }
}

impl Part {
    fn end(&self) -> u64 {
        self.at + self.run.pages().bytes()
    }
}

impl OwnedMemory for Frames {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn frames(&self) -> &[FrameSpan] {
        &self.spans
    }

    fn read(&self, at: u64, out: &mut [u8]) {
        self.each(at, out.len(), |mapped, offset, bytes| {
            mapped.read(offset, &mut out[bytes]);
        });
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.each(at, bytes.len(), |mapped, offset, piece| {
            mapped.write(offset, &bytes[piece]);
        });
    }

    /// Maintains whole pages.
    fn maintain(&self, bytes: Range<u64>, what: Maintenance) {
        if bytes.is_empty() {
            return;
        }
        for part in &self.parts[self.part_at(bytes.start)..] {
            let end = bytes.end.min(part.end());
            if part.at >= bytes.end {
                break;
            }
            let first = (bytes.start.max(part.at) - part.at) / PAGE_SIZE;
            let pages = (end - part.at).div_ceil(PAGE_SIZE) - first;
            let pages = PageCount::new(pages).expect("pages of a run");
            self.source
                .maintain(part.run.span().part(first, pages), what);
        }
    }

    fn is_snooped(&self) -> bool {
        self.snooped
    }
}

impl Drop for Frames {
    /// Frames whose mode the source does not change back are lost: nobody could use them.
    fn drop(&mut self) {
        for mut part in self.parts.drain(..) {
            drop(part.mapped.take());
            let cached = part.mode == CacheMode::Cached
                || switch(&*self.source, part.run.span(), part.mode, CacheMode::Cached).is_ok();
            if cached {
                self.source.give(part.run);
            }
        }
    }
}

/// Changes the mode of frames that nobody has mapped.
fn switch(
    source: &dyn PageSource,
    span: FrameSpan,
    from: CacheMode,
    to: CacheMode,
) -> Result<(), Error> {
    if let Some(what) = Maintenance::of_switch(from, to) {
        source.maintain(span, what);
    }
    source.switch(&[span], from, to)
}

fn source_says(error: &Error) -> DmaError {
    DmaError::Source {
        says: error.to_string().into(),
    }
}
