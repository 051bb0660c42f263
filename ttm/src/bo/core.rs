//! What a buffer object is, without its driver's type.

use core::any::Any;

use placement::{CacheMode, MemType, PageCount, PageRange, PlaceFlags, Placement};

use crate::device::DeviceCore;
use crate::driver::{Advice, BoFacts, BoKind};
use crate::fence::{Fence, Usage};
use crate::reservation::{Borrowed, Held, Lockable, LockedBy, Member, Reservation};
use crate::resource::{Bulk, Group, Home, Manager, Resource, UNNEEDED, level_of};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Weak};
use crate::tt::Tt;

use super::sharing::Sharing;
use super::views::{LiveViews, Views};

/// A buffer object.
///
/// Laid out by hand: what every transaction and every eviction looks at shares a cache line.
#[repr(C)]
pub(crate) struct BoCore {
    pub(crate) stamp: AtomicU64,
    pub(crate) device: Arc<DeviceCore>,
    shared: Option<Arc<Reservation>>,
    seat: AtomicU32,
    own: Reservation,
    /// Handles that users hold; at zero it is on its way out.
    pub(crate) handles: AtomicU32,
    /// Whether `state.bulk` is some; a hint that spares a look.
    pub(crate) in_bulk: AtomicBool,
    pub(crate) kind: BoKind,
    state: LockedBy<BoState>,
    pub(crate) id: u64,
    pub(crate) me: Weak<Self>,
    pub(crate) pages: PageCount,
    /// The size that was asked for.
    pub(crate) bytes: u64,
    pub(crate) align: PageCount,
    /// Device memory holds the content in a form of its own.
    pub(crate) opaque: bool,
    /// Device memory has it in one run.
    pub(crate) contiguous: bool,
    /// Its content lies in memory of somebody else's, and is nowhere here.
    pub(crate) foreign: bool,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) object: Box<dyn Any + Send + Sync>,
    /// Pins that were given up by somebody who could not lock.
    owed: AtomicU32,
    /// Its frames have to be in the zone DMA32, whatever the device needs. Guarded by the reservation.
    low: AtomicBool,
}

/// What the reservation of an object guards.
///
/// # Invariants
/// I-05: `resource` is where it is; without one it is nowhere, and `tt` says whether there is
/// content. While `moving`, the old place is kept until the fence says that the copy is good.
///
/// What most objects lack most of the time is boxed, to keep the others small.
pub(crate) struct BoState {
    pub(crate) resource: Option<Resource>,
    pub(crate) tt: Option<Box<Tt>>,
    pub(crate) moving: Option<Box<Moving>>,
    pub(crate) pins: u32,
    pub(crate) priority: u8,
    pub(crate) advice: Advice,
    pub(crate) content: Content,
    /// The cache mode of the pages where it is, in which the CPU maps them.
    pub(crate) mode: CacheMode,
    pub(crate) bulk: Option<Arc<Bulk>>,
    /// Places of the last successful validate, for I-06.
    pub(crate) placement: Option<Box<Placement>>,
    /// How often the device had been lost when the object came to its place.
    pub(crate) losses: u64,
    /// The content of a pinned object while its device is suspended.
    pub(crate) suspended: Option<Box<Tt>>,
    /// The CPU lately wanted it where it could not reach it.
    pub(crate) cpu_access: bool,
    /// What shows it to the CPU.
    pub(crate) views: Option<Box<Views>>,
    /// Who lends it to other devices.
    pub(crate) sharing: Option<Box<Weak<dyn Sharing>>>,
}

/// Whether there is something to lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Nothing was ever written: zero, or garbage for the driver's own objects.
    Fresh,
    /// It has to be kept.
    Kept,
    /// It was thrown away with its owner's consent.
    Purged,
    /// It was in memory that is gone.
    Lost,
}

/// A copy on its way, and where the content still is should it fail.
pub(crate) struct Moving {
    pub(crate) fence: Fence,
    pub(crate) old: Option<OldPlace>,
    pub(crate) old_tt: Option<Box<Tt>>,
    /// The mode that its pages had there.
    pub(crate) mode: CacheMode,
    /// There was nothing to copy: should it fail, the object is fresh and nowhere again.
    pub(crate) fresh: bool,
    /// Work that may write was queued behind it: from its end on the old place is out of date.
    pub(crate) written: bool,
}

/// Space that waits for the fence of the move away from it.
pub(crate) struct OldPlace {
    pub(crate) manager: Arc<Manager>,
    pub(crate) number: u64,
    pub(crate) flags: PlaceFlags,
}

/// What [`BoCore::new`] needs.
pub(crate) struct NewBo {
    pub(crate) kind: BoKind,
    pub(crate) pages: PageCount,
    pub(crate) bytes: u64,
    pub(crate) align: PageCount,
    pub(crate) opaque: bool,
    pub(crate) contiguous: bool,
    pub(crate) foreign: bool,
    pub(crate) shared: Option<Arc<Reservation>>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) priority: u8,
    pub(crate) object: Box<dyn Any + Send + Sync>,
}

impl BoCore {
    pub(crate) fn new(device: &Arc<DeviceCore>, new: NewBo) -> Arc<Self> {
        let device = Arc::clone(device);
        Arc::new_cyclic(|me| Self {
            id: device.next_id(),
            device,
            me: me.clone(),
            kind: new.kind,
            pages: new.pages,
            bytes: new.bytes,
            align: new.align,
            opaque: new.opaque,
            contiguous: new.contiguous,
            foreign: new.foreign,
            own: Reservation::new(),
            shared: new.shared,
            group: new.group,
            seat: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            handles: AtomicU32::new(1),
            in_bulk: AtomicBool::new(false),
            state: LockedBy::new(BoState {
                resource: None,
                tt: None,
                moving: None,
                pins: 0,
                priority: new.priority,
                advice: Advice::WillNeed,
                content: Content::Fresh,
                mode: CacheMode::Cached,
                bulk: None,
                placement: None,
                losses: 0,
                suspended: None,
                cpu_access: false,
                views: None,
                sharing: None,
            }),
            object: new.object,
            owed: AtomicU32::new(0),
            low: AtomicBool::new(false),
        })
    }

    /// Pages of its own, none of them touched yet.
    pub(crate) fn new_tt(&self, mode: CacheMode) -> Box<Tt> {
        let client = self.group.as_ref().map(|group| Arc::clone(group.client()));
        Box::new(Tt::new(self.id, self.pages, client, mode))
    }

    /// The guarded state.
    #[inline]
    pub(crate) fn state<'a>(&'a self, held: &Held<'a>) -> Borrowed<'a, BoState> {
        self.state.borrow(held, self.reservation())
    }

    pub(crate) fn shares_reservation(&self) -> bool {
        self.shared.is_some()
    }

    /// Gives up pins without a lock: whoever has it next, or the reaper, takes them off.
    pub(crate) fn owe(&self, pins: u32) {
        // Release, and acquire below: what was done under the pins is done.
        self.owed.fetch_add(pins, Ordering::Release);
        self.look_later();
    }

    /// Has the reaper look after it.
    pub(crate) fn look_later(&self) {
        self.device.moving.push(self.me.clone());
        self.device.clock.unpark(&self.device.bell);
    }

    /// Takes off the pins that were given up.
    pub(crate) fn pay(&self, state: &mut BoState) {
        if self.owed.load(Ordering::Relaxed) == 0 {
            return;
        }
        for _ in 0..self.owed.swap(0, Ordering::Acquire) {
            state.unpin();
        }
    }

    /// Whether its frames have to be in the zone DMA32, whatever the device needs.
    pub(crate) fn is_low(&self) -> bool {
        // Relaxed: guarded by the reservation.
        self.low.load(Ordering::Relaxed)
    }

    /// Says so of frames from now on.
    pub(crate) fn set_low(&self, low: bool) {
        self.low.store(low, Ordering::Relaxed);
    }

    /// The stamp of the last transaction that held it.
    #[inline]
    pub(crate) fn last_use(&self) -> u64 {
        // Relaxed: written under the reservation; who does not hold it compares it later.
        self.stamp.load(Ordering::Relaxed)
    }

    /// Whether the last handle is gone.
    pub(crate) fn is_released(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0
    }

    /// What drivers are told.
    pub(crate) fn facts(&self, state: &BoState) -> BoFacts {
        BoFacts {
            id: self.id,
            pages: self.pages,
            kind: self.kind,
            mem_type: state.resource.as_ref().map(Resource::mem_type),
            range: state.resource.as_ref().map_or(PageRange::EMPTY, span),
            priority: state.priority,
            pinned: state.pins > 0,
            mode: state.mode,
            advice: state.advice,
            opaque: self.opaque,
            cpu_access: state.cpu_access,
        }
    }
}

/// First to last page of a resource; empty where pages have no addresses.
pub(crate) fn span(resource: &Resource) -> PageRange {
    if resource.manager().uses_frames() {
        return PageRange::EMPTY;
    }
    let starts = resource.extents().iter().map(|e| e.start());
    let ends = resource.extents().iter().map(|e| e.range().end());
    match (starts.min(), ends.max()) {
        (Some(start), Some(end)) => PageRange::new(start, end).expect("min is not after max"),
        _ => PageRange::EMPTY,
    }
}

impl BoState {
    /// Where the entry of the object belongs: out of eviction's reach, or in order.
    pub(crate) fn home(&self) -> Home {
        let system = self.mem_type() == Some(MemType::SYSTEM);
        let stays = |tt: &Tt| tt.resident().is_zero() || tt.is_brought();
        let stays_here = || self.tt.as_deref().is_none_or(stays);
        if self.pins > 0 || system && stays_here() {
            Home::Unevictable
        } else {
            Home::Ordered
        }
    }

    /// Its level in the order of eviction.
    pub(crate) fn level(&self) -> u8 {
        match self.advice {
            Advice::DontNeed => UNNEEDED,
            Advice::WillNeed => level_of(self.priority),
        }
    }

    /// Whether the object lives in system pages, or nowhere.
    pub(crate) fn has_frames(&self) -> bool {
        self.resource
            .as_ref()
            .is_none_or(|resource| resource.manager().uses_frames())
    }

    /// Whether the memory is a user's own.
    pub(crate) fn is_brought(&self) -> bool {
        self.tt.as_ref().is_some_and(|tt| tt.is_brought())
    }

    pub(crate) fn mem_type(&self) -> Option<MemType> {
        self.resource.as_ref().map(Resource::mem_type)
    }

    /// What shows the object now.
    #[inline]
    pub(crate) fn live_views(&self) -> LiveViews {
        self.views
            .as_ref()
            .map_or_else(LiveViews::new, |v| v.live())
    }

    /// Who lends it to other devices, if somebody does.
    pub(crate) fn lender(&self) -> Option<Arc<dyn Sharing>> {
        self.sharing.as_ref()?.upgrade()
    }

    /// Keeps the object where it is, once more.
    pub(crate) fn pin(&mut self) {
        self.pins += 1;
        if self.pins == 1 {
            self.update_home();
        }
    }

    /// Undoes one pin. Answers false if there is none.
    pub(crate) fn unpin(&mut self) -> bool {
        if self.pins == 0 {
            return false;
        }
        self.pins -= 1;
        if self.pins == 0 {
            self.update_home();
        }
        true
    }

    /// Puts the entry where it belongs now.
    pub(crate) fn update_home(&self) {
        if let Some(resource) = &self.resource {
            resource.set_home(self.home());
        }
    }
}

impl Lockable for BoCore {
    #[inline]
    fn reservation(&self) -> &Reservation {
        self.shared.as_deref().unwrap_or(&self.own)
    }
}

impl Member for BoCore {
    #[inline]
    fn seat(&self) -> &AtomicU32 {
        &self.seat
    }
}

impl BoState {
    /// A device uses it from now on, and may write to it.
    pub(crate) fn touched(&mut self, usage: Usage) {
        if usage != Usage::Read
            && let Some(moving) = &mut self.moving
        {
            moving.written = true;
        }
        if self.resource.is_some() && self.content == Content::Fresh {
            self.content = Content::Kept;
        }
    }

    /// Notes whether the owner needs the content of an object that was used last at `stamp`.
    #[inline]
    pub(crate) fn advise(&mut self, advice: Advice, stamp: u64) {
        if self.advice != advice {
            self.advice = advice;
            self.reclassify(stamp);
        }
    }

    /// Tells the manager about a changed priority, group or need of an object that was used last at
    /// `stamp`.
    pub(crate) fn reclassify(&self, stamp: u64) {
        if let Some(resource) = &self.resource {
            let manager = resource.manager();
            manager.reclassify(resource.node(), self.level(), self.bulk.clone(), stamp);
        }
    }
}
