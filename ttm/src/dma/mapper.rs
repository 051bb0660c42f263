//! The seam by which frames become reachable for a device.

use core::any::Any;
use core::fmt;

use super::{Direction, DmaError, FrameBytes, MappedList, Path};
use crate::sync::Arc;

/// Makes frames reachable for one device, by one address space of it.
///
/// A [`DmaDevice`](super::DmaDevice) is one. Called under reservations, with no lock of this crate
/// held. May wait for the device's tables, but not for other mappings to go.
pub trait Mapper: Send + Sync {
    /// Maps bytes of frames. From the return on the device reaches them, in the way that the
    /// direction says, until [`Mapper::unmap`]; nobody gives the frames away meanwhile.
    ///
    /// # Errors
    /// What stands against it. Nothing is mapped. One that [may be
    /// retried](DmaError::is_retryable) succeeds once others have unmapped something.
    fn map(&self, bytes: FrameBytes<'_>, direction: Direction) -> Result<DmaMapping, DmaError>;

    /// Ends a mapping, which no job of the device uses any more. From the return on the device does
    /// not reach the frames by it: not by its tables, and not by what it remembers of them, unless
    /// the address space was asked to be lazy about that.
    fn unmap(&self, mapping: DmaMapping);

    /// How many mappings there are.
    fn live(&self) -> u64;
}

/// Frames that a device reaches, and the duty to end that by [`Mapper::unmap`].
///
/// Not by drop: whoever unwinds may have left the device at work, and memory that a device still
/// reaches must rather be lost than be somebody else's.
#[must_use = "what is dropped stays mapped for ever; unmap it"]
pub struct DmaMapping {
    list: Arc<MappedList>,
    direction: Direction,
    path: Path,
    handle: Box<dyn Any + Send + Sync>,
}

impl DmaMapping {
    /// For mappers: what they have mapped, the path by which they did, and what they need to undo it.
    pub fn new<H: Any + Send + Sync>(
        list: MappedList,
        direction: Direction,
        path: Path,
        handle: H,
    ) -> Self {
        Self {
            list: Arc::new(list),
            direction,
            path,
            handle: Box::new(handle),
        }
    }

    /// Where the device finds what.
    #[must_use]
    pub const fn list(&self) -> &Arc<MappedList> {
        &self.list
    }

    /// Who writes and who reads.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// The path by which it was mapped; it is unmapped by the same, whatever became of the device's.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.path
    }

    /// For mappers: what they need to undo it; `None` if it is another mapper's.
    #[must_use]
    pub fn handle<H: Any>(&self) -> Option<&H> {
        let handle: &dyn Any = &*self.handle;
        handle.downcast_ref()
    }

    /// For mappers: what they need to undo it.
    ///
    /// # Panics
    /// If it is another mapper's.
    pub fn into_handle<H: Any>(self) -> H {
        let handle: Box<dyn Any> = self.handle;
        *handle
            .downcast()
            .unwrap_or_else(|_| panic!("a mapping of another mapper"))
    }
}

impl fmt::Debug for DmaMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DmaMapping({} bytes in {} segments, {}, {})",
            self.list.bytes(),
            self.list.dma_segments().len(),
            self.direction,
            self.path
        )
    }
}
