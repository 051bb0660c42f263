//! Buffer objects: what they are. What is done to them is in [`residency`](crate::residency).

mod core;
mod create;
mod exec;
mod reserved;
mod sharing;
mod views;

pub(crate) use self::core::{BoCore, BoState, Content, Moving, NewBo, OldPlace, span};
pub(crate) use self::sharing::Sharing;
pub(crate) use self::views::{LiveViews, Shown, ShownPart, View};
pub use exec::{Exec, Locked};
pub use reserved::{Pin, Reserved};

use ::core::fmt;
use ::core::marker::PhantomData;

use placement::PageCount;

use crate::driver::{BoKind, Driver, typed};
use crate::reservation::Reservation;
use crate::resource::{Bulk, Group};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// What a new object is to be.
///
/// ```
/// use ttm::bo::BoInfo;
/// use ttm::driver::BoKind;
/// let info = BoInfo::new(64 << 10).kind(BoKind::Kernel).priority(1);
/// # let _ = info;
/// ```
#[derive(Clone, Debug)]
pub struct BoInfo {
    pub(crate) bytes: u64,
    pub(crate) kind: BoKind,
    pub(crate) align: PageCount,
    pub(crate) opaque: bool,
    pub(crate) contiguous: bool,
    pub(crate) foreign: bool,
    pub(crate) priority: u8,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) shared: Option<SharedReservation>,
}

impl BoInfo {
    /// An object of `bytes` bytes, rounded up to whole pages.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            kind: BoKind::Device,
            align: PageCount::ONE,
            opaque: false,
            contiguous: false,
            foreign: false,
            priority: 0,
            group: None,
            shared: None,
        }
    }

    /// Who reaches it.
    #[must_use]
    pub fn kind(mut self, kind: BoKind) -> Self {
        self.kind = kind;
        self
    }

    /// Its alignment in every place, in pages; a power of two.
    #[must_use]
    pub fn align(mut self, align: PageCount) -> Self {
        self.align = align;
        self
    }

    /// Says that device memory holds its content in a form of the device's own, as it does tiled
    /// images: only engines copy it in and out, and the CPU looks at it in system memory alone.
    #[must_use]
    pub fn opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// Says that it lies in one run wherever it is in device memory, whatever its places say: what the
    /// device has of it cannot be in pieces.
    #[must_use]
    pub fn contiguous(mut self) -> Self {
        self.contiguous = true;
        self
    }

    /// Says that its content lies in memory of somebody else's, of which only its driver knows, and stays
    /// there: nothing of it is in any memory of this device, and nothing can be. It is locked, fenced and
    /// released like any other; what would move or look at its content is refused.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self.kind = BoKind::Imported;
        self
    }

    /// Its eviction priority, 0 to 3; 0 goes first.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// The client that it is charged to.
    #[must_use]
    pub fn group(mut self, group: &Arc<Group>) -> Self {
        self.group = Some(Arc::clone(group));
        self
    }

    /// A reservation that it shares with others, as all objects of a GPU address space do.
    #[must_use]
    pub fn reservation(mut self, shared: &SharedReservation) -> Self {
        self.shared = Some(shared.clone());
        self
    }
}

/// A reservation for several objects: locking one locks all, and they share their fences.
#[derive(Clone, Debug, Default)]
pub struct SharedReservation(pub(crate) Arc<Reservation>);

impl SharedReservation {
    /// A free one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// A group of objects that age together; see [`Bulk`].
#[derive(Clone, Debug)]
pub struct BulkGroup(pub(crate) Arc<Bulk>);

/// A handle of a buffer object. Clones are the same object.
///
/// Dropping the last handle only enqueues the object: no lock, no wait, no driver call. Its space
/// is given back by the next call that makes or moves something, or by the device's reaper, behind
/// whatever still uses it.
pub struct Bo<D: Driver> {
    pub(crate) core: Arc<BoCore>,
    pub(crate) driver: PhantomData<fn() -> D>,
}

impl<D: Driver> Bo<D> {
    /// The object's number, unique in its device.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// The size that was asked for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.core.bytes
    }

    /// Its size in pages.
    #[must_use]
    pub fn pages(&self) -> PageCount {
        self.core.pages
    }

    /// Who reaches it.
    #[must_use]
    pub fn kind(&self) -> BoKind {
        self.core.kind
    }

    /// What the driver keeps for it.
    #[must_use]
    pub fn object(&self) -> &D::Object {
        typed::<D>(&*self.core.object)
    }

    /// Whether somebody holds its reservation at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        crate::reservation::Lockable::reservation(&*self.core).is_locked()
    }

    /// How many handles there are.
    #[must_use]
    pub fn handles(&self) -> u32 {
        self.core.handles.load(Ordering::Relaxed)
    }
}

impl<D: Driver> Clone for Bo<D> {
    fn clone(&self) -> Self {
        // Relaxed: whoever clones has a handle, so the count is not zero and stays so.
        self.core.handles.fetch_add(1, Ordering::Relaxed);
        Self {
            core: Arc::clone(&self.core),
            driver: PhantomData,
        }
    }
}

impl<D: Driver> Drop for Bo<D> {
    fn drop(&mut self) {
        // Release, and acquire for the last: what was done through other handles is done.
        if self.core.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let device = &self.core.device;
        let core: Arc<BoCore> = Arc::clone(&self.core);
        device.released.push(core);
        if device.is_closed() {
            // Nobody else comes by any more.
            device.reap();
        }
    }
}

impl<D: Driver> PartialEq for Bo<D> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl<D: Driver> Eq for Bo<D> {}

impl<D: Driver> fmt::Debug for Bo<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bo({}, {} bytes)", self.id(), self.bytes())
    }
}
