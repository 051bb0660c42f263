//! Copies by the CPU, piece by piece through short mappings.

use core::ops::{Deref, Range};

use placement::{MemType, PAGE_SIZE, PageCount, PageRange};

use crate::cache::{Area, Ledger, Memory, ViewId};
use crate::device::DeviceCore;
use crate::driver::Side;
use crate::error::{Error, Result};
use crate::pages::{FrameSpan, Kmap, Mapped};
use crate::resource::{MemoryKind, Region};

/// A run of one side that can be mapped at once.
#[derive(Clone, Copy)]
enum Run {
    Frames(FrameSpan),
    Device(usize, PageRange),
}

/// The CPU's short look at a run.
pub(crate) enum View<'a> {
    /// At system pages.
    Frames(Kmap),
    /// At device memory, entered in the device's ledger. Unmapped before it is closed there.
    Device(
        Mapped,
        #[expect(dead_code, reason = "its drop closes the entry")] OpenView<'a>,
    ),
}

impl Deref for View<'_> {
    type Target = Mapped;

    fn deref(&self) -> &Mapped {
        match self {
            Self::Frames(kmap) => kmap,
            Self::Device(mapped, _) => mapped,
        }
    }
}

/// An entry of a ledger.
pub(crate) struct OpenView<'a> {
    ledger: &'a Ledger,
    view: ViewId,
}

impl Drop for OpenView<'_> {
    fn drop(&mut self) {
        self.ledger.close(self.view);
    }
}

impl DeviceCore {
    /// Copies all pages of `src` to `dst`. Both are idle.
    ///
    /// # Errors
    /// Those of mapping: [`Error::Unsupported`] outside the aperture, [`Error::Backend`],
    /// [`Error::DeviceLost`]. The source is intact.
    pub(super) fn copy_by_cpu(&self, src: &Side, dst: &Side) -> Result<()> {
        let whole: u64 = runs(dst).map(|run| run.pages() * PAGE_SIZE).sum();
        let mut sources = runs(src);
        let mut source: Option<(View<'_>, usize)> = None;
        for run in runs(dst) {
            let target = self.map_run(run)?;
            let mut done = 0;
            while done < target.len() {
                if *src == Side::Zero {
                    target.zero(0, target.len());
                    break;
                }
                let (mapped, at) = match source.take() {
                    Some((mapped, at)) if at < mapped.len() => (mapped, at),
                    _ => {
                        let run = sources
                            .next()
                            .ok_or(Error::Invalid("a copy's sides differ"))?;
                        (self.map_run(run)?, 0)
                    }
                };
                let len = (mapped.len() - at).min(target.len() - done);
                mapped.copy_piece_to(at, &target, done, planted_length(len), whole);
                done += len;
                source = Some((mapped, at + len));
            }
        }
        Ok(())
    }

    /// The same for the pages of `range`.
    ///
    /// # Errors
    /// As [`DeviceCore::copy_by_cpu`].
    pub(super) fn copy_pages_by_cpu(
        &self,
        src: &Side,
        dst: &Side,
        range: Range<u64>,
    ) -> Result<()> {
        let mut first = range.start;
        while first < range.end {
            let target = self.map_part(dst, first, range.end - first)?;
            let source = self.map_part(src, first, target.len() as u64 / PAGE_SIZE)?;
            let len = source.len();
            source.copy_piece_to(0, &target, 0, len, len as u64);
            first += len as u64 / PAGE_SIZE;
        }
        Ok(())
    }

    fn map_run(&self, run: Run) -> Result<View<'_>> {
        match run {
            Run::Frames(span) => self.map_frames(span),
            Run::Device(index, range) => {
                let manager = self.managers[index].as_ref();
                match manager.map(|m| (m.kind(), m.mem_type())) {
                    Some((MemoryKind::Device(region), mem_type)) => {
                        self.map_device(&**region, mem_type, range)
                    }
                    _ => Err(Error::Invalid(
                        "a copy names a memory type without a region",
                    )),
                }
            }
        }
    }

    /// A window over frames.
    pub(super) fn map_frames(&self, span: FrameSpan) -> Result<View<'_>> {
        self.pool.kmap(span).map(View::Frames)
    }

    fn map_device(
        &self,
        region: &dyn Region,
        mem_type: MemType,
        range: PageRange,
    ) -> Result<View<'_>> {
        let area = Area {
            memory: Memory::Device(mem_type),
            first: range.start(),
            pages: range.len(),
        };
        let (view, mode) = self.ledger.open(area, region.own_mode())?;
        let open = OpenView {
            ledger: &self.ledger,
            view,
        };
        let mapped = region.map(range, mode)?;
        Ok(View::Device(mapped, open))
    }

    /// Maps `pages` pages of one side, from its page `first` on: as many as adjoin.
    pub(super) fn map_part(&self, side: &Side, first: u64, pages: u64) -> Result<View<'_>> {
        let mut at = 0;
        for run in runs(side) {
            let len = run.pages();
            if first < at + len {
                let offset = first - at;
                let count = PageCount::new(pages.min(len - offset)).expect("part of an object");
                return self.map_run(run.part(offset, count));
            }
            at += len;
        }
        Err(Error::Invalid("a page beyond the object"))
    }
}

/// With the defect planted, the last page of every piece is left out.
fn planted_length(len: usize) -> usize {
    #[cfg(feature = "plant")]
    if crate::plant::is(crate::plant::Defect::OffByOneExtent) {
        return len - PAGE_SIZE as usize;
    }
    debug_assert!((len as u64).is_multiple_of(PAGE_SIZE));
    len
}

impl Run {
    fn pages(&self) -> u64 {
        match self {
            Self::Frames(span) => span.pages.get(),
            Self::Device(_, range) => range.len().get(),
        }
    }

    fn part(self, offset: u64, count: PageCount) -> Self {
        match self {
            Self::Frames(span) => Self::Frames(span.part(offset, count)),
            Self::Device(index, range) => {
                let offset = PageCount::new(offset).expect("inside the range");
                let part = range.sub_range(offset, count).expect("inside the range");
                Self::Device(index, part)
            }
        }
    }
}

fn runs(side: &Side) -> impl Iterator<Item = Run> {
    let (spans, device): (&[FrameSpan], Option<(usize, &[PageRange])>) = match side {
        // What the CPU copies is not what a device is handed.
        Side::Zero | Side::Mapped(_) => (&[], None),
        Side::Frames(spans) => (spans, None),
        Side::Device { mem_type, ranges } => (&[], Some((mem_type.index(), ranges))),
    };
    let frames = spans.iter().map(|span| Run::Frames(*span));
    let ranges = device
        .into_iter()
        .flat_map(|(index, ranges)| ranges.iter().map(move |range| Run::Device(index, *range)));
    frames.chain(ranges)
}
