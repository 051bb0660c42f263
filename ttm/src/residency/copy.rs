//! Copies by the CPU, piece by piece through short mappings.

use placement::{PAGE_SIZE, PageCount, PageRange};

use crate::device::DeviceCore;
use crate::driver::Side;
use crate::error::{Error, Result};
use crate::pages::{FrameSpan, Mapped};
use crate::resource::MemoryKind;

/// A run of one side that can be mapped at once.
#[derive(Clone, Copy)]
enum Run {
    Frames(FrameSpan),
    Device(usize, PageRange),
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
        let mut source: Option<(Mapped, usize)> = None;
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

    fn map_run(&self, run: Run) -> Result<Mapped> {
        match run {
            Run::Frames(span) => self.source.map(span),
            Run::Device(index, range) => match self.managers[index].as_ref().map(|m| m.kind()) {
                Some(MemoryKind::Device(region)) => region.map(range),
                _ => Err(Error::Invalid(
                    "a copy names a memory type without a region",
                )),
            },
        }
    }

    /// Maps `pages` pages of one side, from its page `first` on: as many as adjoin.
    pub(super) fn map_part(&self, side: &Side, first: u64, pages: u64) -> Result<Mapped> {
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
        Side::Zero => (&[], None),
        Side::Frames(spans) => (spans, None),
        Side::Device { mem_type, ranges } => (&[], Some((mem_type.index(), ranges))),
    };
    let frames = spans.iter().map(|span| Run::Frames(*span));
    let ranges = device
        .into_iter()
        .flat_map(|(index, ranges)| ranges.iter().map(move |range| Run::Device(index, *range)));
    frames.chain(ranges)
}
