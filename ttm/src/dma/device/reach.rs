//! How a device gets to frames.

use super::super::{
    Align, Direction, DmaAddr, DmaError, IoRun, IovaConfig, IovaRange, IovaRequest, IovaSpace,
    IovaSpan, MappedList, Mask, PageList, Path, SegmentParms,
};
use crate::clock::Clock;
use crate::pages::FrameSpan;
use crate::sync::Arc;

/// Where frames are on the bus.
pub trait FrameAddresses: Send + Sync {
    /// The address of the first byte, if the frames lie one after the other.
    fn address(&self, span: FrameSpan) -> Option<u64>;
}

impl<F: Fn(FrameSpan) -> Option<u64> + Send + Sync> FrameAddresses for F {
    fn address(&self, span: FrameSpan) -> Option<u64> {
        self(span)
    }
}

/// The tables of one address space of an IOMMU.
pub trait Translation: Send + Sync {
    /// Shows the frames of `run` from `at` on, to be read, written or both, as the direction says.
    /// Nothing is shown there.
    ///
    /// # Errors
    /// What the tables say; nothing is shown.
    fn map(&self, at: DmaAddr, run: &IoRun, direction: Direction) -> Result<(), DmaError>;

    /// Shows nothing there any more. The device may still remember.
    fn unmap(&self, gone: IovaSpan);

    /// The device has forgotten these from the return on. May wait.
    fn invalidate(&self, gone: &[IovaSpan]);
}

/// One of the two ways.
pub(super) enum Reach {
    Direct(Box<dyn FrameAddresses>),
    Translated {
        space: Box<IovaSpace>,
        tables: Arc<dyn Translation>,
        clock: Arc<dyn Clock>,
    },
}

impl Reach {
    pub(super) fn translated(
        config: IovaConfig,
        tables: Arc<dyn Translation>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DmaError> {
        let forgets = Arc::clone(&tables);
        let space = Box::new(IovaSpace::new(config, move |gone| {
            forgets.invalidate(gone)
        })?);
        Ok(Self::Translated {
            space,
            tables,
            clock,
        })
    }

    /// Whether memory is mapped so on that path.
    pub(super) fn serves(&self, path: Path) -> Result<(), DmaError> {
        match (self, path) {
            (Self::Direct(_), Path::Direct | Path::Identity)
            | (Self::Translated { .. }, Path::Translated { .. } | Path::Owned { .. }) => Ok(()),
            _ => Err(DmaError::NoPath { path }),
        }
    }

    /// Has a device find a list: where the frames are, or in one block of I/O addresses.
    pub(super) fn show(
        &self,
        list: &PageList,
        parms: &SegmentParms,
        mask: Mask,
        direction: Direction,
    ) -> Result<(MappedList, Option<IovaRange>), DmaError> {
        let (space, tables, clock) = match self {
            Self::Direct(addresses) => {
                let mapped = list.direct(parms, |span| addresses.address(span))?;
                return Ok((mapped, None));
            }
            Self::Translated {
                space,
                tables,
                clock,
            } => (space, tables, clock),
        };
        let layout = list.layout(parms, space.granule())?;
        let request = IovaRequest::new(layout.bytes()).limit(mask).align(
            match layout.bytes() <= space.largest_cached() {
                true => Align::Natural,
                false => Align::Min(layout.align()),
            },
        );
        let block = space.alloc(&request)?;
        let base = block.first();
        let mut shown = 0;
        let mut show = || {
            for run in layout.runs() {
                let at = DmaAddr::new(base.get() + run.at).ok_or(DmaError::AddressOverflow)?;
                tables.map(at, &run, direction)?;
                shown = run.at + run.len;
            }
            layout.at(base)
        };
        match show() {
            Ok(mapped) => Ok((mapped, Some(block))),
            Err(error) => {
                if shown > 0 {
                    tables.unmap(IovaSpan::within(base.get(), shown));
                }
                space.free(block, clock.now());
                Err(error)
            }
        }
    }

    /// Shows nothing in a block any more, and takes it back.
    pub(super) fn end(&self, block: IovaRange) {
        if let Self::Translated {
            space,
            tables,
            clock,
        } = self
        {
            tables.unmap(block.span());
            space.free(block, clock.now());
        }
    }
}
