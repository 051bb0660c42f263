//! What a driver author writes, and what they are told.
//!
//! A [`Driver`] answers questions of policy from [`BoFacts`] and its own per-object data; it is
//! never handed a buffer object, and calling the device from inside an answer is refused with
//! [`Error::Reentrant`](crate::Error::Reentrant). A [`CopyEngine`] takes [`CopyJob`]s and gives
//! fences.

use core::any::Any;

use placement::{CacheMode, MemType, PageCount, PageRange, Place, Placement};
use smallvec::SmallVec;

use crate::dma::MappedList;
use crate::error::Result;
use crate::fence::Fence;
use crate::pages::FrameSpan;
use crate::sync::Arc;
use crate::trace::Reason;

/// Who reaches an object, and what its fresh pages look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BoKind {
    /// Users can map it; fresh pages are zero.
    #[default]
    Device,
    /// The driver's own; fresh device memory is not cleared.
    Kernel,
    /// Its pages belong to somebody else; it is never swapped out.
    Imported,
}

/// Whether an object's owner needs its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Advice {
    /// It does.
    #[default]
    WillNeed,
    /// Evicting it may throw the content away.
    DontNeed,
}

/// What a driver is told of an object.
#[derive(Clone, Copy, Debug)]
pub struct BoFacts {
    /// The object's number, unique in the device.
    pub id: u64,
    /// Its size.
    pub pages: PageCount,
    /// Who reaches it.
    pub kind: BoKind,
    /// Where it is.
    pub mem_type: Option<MemType>,
    /// The pages that it holds there, first to last; empty where places have no addresses.
    pub range: PageRange,
    /// Its eviction priority.
    pub priority: u8,
    /// Whether it is pinned.
    pub pinned: bool,
    /// The cache mode of its pages where it is.
    pub mode: CacheMode,
    /// Whether its owner needs the content.
    pub advice: Advice,
    /// Whether device memory holds its content in a form of the device's own ([`BoInfo::opaque`]).
    ///
    /// [`BoInfo::opaque`]: crate::bo::BoInfo::opaque
    pub opaque: bool,
    /// Whether the CPU touched it lately where it could not reach it: a place in the aperture suits
    /// it. Ends when it is validated into device memory the next time.
    pub cpu_access: bool,
}

/// What a driver is told of a move.
#[derive(Clone, Copy, Debug)]
pub struct MoveFacts {
    /// Where it goes from; `None` for a fresh object.
    pub from: Option<MemType>,
    /// Where it goes to.
    pub to: MemType,
    /// The pages that it will hold there, first to last.
    pub range: PageRange,
    /// Whether there is content to keep. Without, a move may clear or leave garbage.
    pub has_content: bool,
    /// Why.
    pub why: Reason,
}

/// What becomes of a victim.
#[derive(Clone, Debug)]
pub enum Eviction {
    /// It goes to one of these places.
    To(Placement),
    /// Its content is thrown away.
    Discard,
    /// It stays.
    Never,
}

/// A copy engine of the device, in the order in which its builder was given them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EngineId(pub u8);

/// How content gets to its new place.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// Nothing is copied: the content does not matter, or the driver knows better.
    Null,
    /// The engine fills the new place with zeroes; without one, the CPU does.
    Clear(Option<EngineId>),
    /// The CPU copies, through the aperture.
    Cpu,
    /// An engine copies.
    Engine(EngineId),
    /// It has to go through this place first.
    Hop(Place),
}

/// Policy: answers from facts. All calls come under the object's reservation; none may block for
/// long or call the device. A panic unwinds through the manager, which undoes what it had begun.
pub trait Driver: Send + Sync + 'static {
    /// What the driver keeps for each object.
    type Object: Send + Sync + 'static;

    /// Where a victim goes from where it is.
    fn evict_to(&self, bo: &BoFacts, object: &Self::Object) -> Eviction;

    /// Whether evicting `bo` is worth its cost to somebody who wants pages of `window`.
    fn worth_evicting(&self, bo: &BoFacts, object: &Self::Object, window: PageRange) -> bool {
        let _ = (bo, object, window);
        true
    }

    /// Where an object goes that the CPU touches where it cannot reach it. An empty placement leaves
    /// it to the manager: the aperture of the same memory if it has room as it is, else TT, else
    /// SYSTEM.
    fn place_for_cpu(&self, bo: &BoFacts, object: &Self::Object) -> Placement {
        let _ = (bo, object);
        Placement::default()
    }

    /// How a move's content gets there. Not asked between places that share the same frames.
    fn route(&self, bo: &BoFacts, object: &Self::Object, job: &MoveFacts) -> Route;

    /// The object has a new place (or none). Its content may still be on its way.
    fn moved(&self, bo: &BoFacts, object: &Self::Object, job: &MoveFacts) {
        let _ = (bo, object, job);
    }

    /// Whether somebody else may take the object over as it is, by way of a
    /// [`BoCache`](crate::bo_cache::BoCache). Not if others than its user reach it, as they do once it was
    /// handed to another process.
    fn reusable(&self, object: &Self::Object) -> bool {
        let _ = object;
        true
    }

    /// Nobody has the object any more; what the driver keeps for it is dropped soon, not necessarily
    /// after `pending`, the fences of work that still uses it.
    fn released(&self, object: &Self::Object, pending: &[Fence]) {
        let _ = (object, pending);
    }
}

/// One end of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// Zeroes; only as a source.
    Zero,
    /// System pages, in the object's order.
    Frames(SmallVec<[FrameSpan; 1]>),
    /// System pages where the device finds them, in the object's order: what a device with a
    /// [`Mapper`](crate::dma::Mapper) is handed.
    Mapped(Arc<MappedList>),
    /// Device memory, in the object's order.
    Device {
        /// Which memory.
        mem_type: MemType,
        /// Which of its pages.
        ranges: SmallVec<[PageRange; 1]>,
    },
}

/// Work for a copy engine. Neither end is given to somebody else before the fence.
#[derive(Clone, Debug)]
pub struct CopyJob {
    /// The object whose content it is.
    pub object: u64,
    /// How many pages.
    pub pages: PageCount,
    /// From where.
    pub src: Side,
    /// To where.
    pub dst: Side,
    /// Copies that this one goes on from: if one fails, so does the job, and it touches nothing.
    /// The manager has none; a driver that chains jobs may.
    pub after: Vec<Fence>,
    /// Other fences to wait for, of work that uses either end. What became of that work is not
    /// the copy's business: it copies whatever it left.
    pub behind: Vec<Fence>,
}

/// Copies in the background, in the order of submission.
pub trait CopyEngine: Send + Sync {
    /// Queues a job; the fence signals after its last write, with an error if it could not be
    /// done, in which case the source is intact.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) or
    /// [`Error::Backend`](crate::Error::Backend); nothing was queued.
    fn submit(&self, job: CopyJob) -> Result<Fence>;
}

/// The driver, with its object type put aside.
pub(crate) trait AnyDriver: Send + Sync {
    fn evict_to(&self, bo: &BoFacts, object: &dyn Any) -> Eviction;
    fn worth_evicting(&self, bo: &BoFacts, object: &dyn Any, window: PageRange) -> bool;
    fn place_for_cpu(&self, bo: &BoFacts, object: &dyn Any) -> Placement;
    fn route(&self, bo: &BoFacts, object: &dyn Any, job: &MoveFacts) -> Route;
    fn moved(&self, bo: &BoFacts, object: &dyn Any, job: &MoveFacts);
    fn reusable(&self, object: &dyn Any) -> bool;
    fn released(&self, object: &dyn Any, pending: &[Fence]);
}

/// Puts a driver's object type back.
pub(crate) struct Typed<D>(pub(crate) Arc<D>);

/// What a driver keeps for an object, as what it is.
#[inline]
pub(crate) fn typed<D: Driver>(object: &dyn Any) -> &D::Object {
    object
        .downcast_ref()
        .expect("a device makes all its objects with its driver's object type")
}

impl<D: Driver> AnyDriver for Typed<D> {
    fn evict_to(&self, bo: &BoFacts, object: &dyn Any) -> Eviction {
        self.0.evict_to(bo, typed::<D>(object))
    }
    fn worth_evicting(&self, bo: &BoFacts, object: &dyn Any, window: PageRange) -> bool {
        self.0.worth_evicting(bo, typed::<D>(object), window)
    }
    fn place_for_cpu(&self, bo: &BoFacts, object: &dyn Any) -> Placement {
        self.0.place_for_cpu(bo, typed::<D>(object))
    }
    fn route(&self, bo: &BoFacts, object: &dyn Any, job: &MoveFacts) -> Route {
        self.0.route(bo, typed::<D>(object), job)
    }
    fn moved(&self, bo: &BoFacts, object: &dyn Any, job: &MoveFacts) {
        self.0.moved(bo, typed::<D>(object), job);
    }
    fn reusable(&self, object: &dyn Any) -> bool {
        self.0.reusable(typed::<D>(object))
    }
    fn released(&self, object: &dyn Any, pending: &[Fence]) {
        self.0.released(typed::<D>(object), pending);
    }
}
