//! One memory type: its space, its users in order, what waits for fences, who has a claim.

use core::fmt;
use core::ops::{Deref, DerefMut};

use placement::{
    CacheMode, Extents, MemType, PageCount, PageRange, PlaceFlags, Request, Space, TakeError,
};
use smallvec::SmallVec;

use crate::clock::{Clock, WaitCell};
use crate::error::{Error, Result, Tried};
use crate::fence::{Fence, FenceVec, RetireQueue, Status};
use crate::reservation::Released;
use crate::sync::{Arc, Mutex, MutexGuard, Weak};
use crate::trace::Counters;

use super::bulk::Bulk;
use super::claims::{AfterHunt, Claims};
use super::grant::{Leaving, Resource};
use super::group::{Group, refuse};
use super::lru::{Home, Lru, NodeId, key_of_arrival};
use super::region::Region;
use super::victim::Victim;

/// What the memory behind a manager is made of.
#[derive(Clone)]
pub enum MemoryKind {
    /// The objects' own system pages; the space only counts.
    Frames,
    /// Memory of the device.
    Device(Arc<dyn Region>),
}

impl fmt::Debug for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frames => "Frames",
            Self::Device(_) => "Device",
        })
    }
}

/// What a memory type holds at one moment, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// All of it.
    pub size: PageCount,
    /// With objects.
    pub used: PageCount,
    /// Behind fences, free after them.
    pub retired: PageCount,
    /// Free.
    pub free: PageCount,
    /// Objects that hold some of it.
    pub objects: usize,
}

/// A request of one object for space.
pub(crate) struct Order<'a> {
    pub(crate) request: Request,
    pub(crate) flags: PlaceFlags,
    pub(crate) victim: &'a Weak<dyn Victim>,
    pub(crate) group: Option<&'a Arc<Group>>,
    /// Its level in the order of eviction.
    pub(crate) level: u8,
    pub(crate) bulk: Option<&'a Arc<Bulk>>,
    pub(crate) home: Home,
    /// The last stamp that was given: what arrives is younger.
    pub(crate) last_stamp: u64,
    /// Takes space whose fences are pending, ordered after them.
    pub(crate) accepts_fences: bool,
    /// The caller's claim, if it has one.
    pub(crate) claim: Option<u64>,
    /// The cache mode that the place wishes for.
    pub(crate) cache: Option<CacheMode>,
}

/// Granted space.
pub(crate) struct Taken {
    pub(crate) resource: Resource,
    /// Nothing may touch the space before these.
    pub(crate) after: FenceVec,
}

/// Why nothing was granted.
pub(crate) enum TakeRefused {
    /// No room now.
    Full,
    /// The group's limit; only evicting from that group's own objects helps.
    Limit(Error),
    /// It could not fit into the empty memory.
    Never,
    /// The arguments make no sense.
    Invalid,
    /// The memory type is switched off.
    Off,
}

/// Space that an object gave up before its fences.
struct Retired {
    number: u64,
    extents: Extents,
    pages: PageCount,
    /// Keep it if a fence failed: its object may want it back.
    recoverable: bool,
}

struct State {
    space: Box<dyn Space>,
    lru: Lru,
    used: u64,
    retired: RetireQueue<Retired>,
    retired_pages: u64,
    /// Handed-on space whose fences are pending.
    pending: Vec<(PageRange, Fence)>,
    claims: Claims,
    epoch: u64,
    counters: Counters,
    numbers: u64,
    in_use: bool,
}

/// The manager of one memory type.
pub struct Manager {
    mem_type: MemType,
    kind: MemoryKind,
    state: Mutex<State>,
}

impl Manager {
    pub(crate) fn new(mem_type: MemType, kind: MemoryKind, space: Box<dyn Space>) -> Arc<Self> {
        Arc::new(Self {
            mem_type,
            kind,
            state: Mutex::new(State {
                space,
                lru: Lru::new(),
                used: 0,
                retired: RetireQueue::default(),
                retired_pages: 0,
                pending: Vec::new(),
                claims: Claims::default(),
                epoch: 0,
                counters: Counters::default(),
                numbers: 0,
                in_use: true,
            }),
        })
    }

    /// Its memory type.
    #[must_use]
    pub fn mem_type(&self) -> MemType {
        self.mem_type
    }

    /// What its memory is made of.
    #[must_use]
    pub fn kind(&self) -> &MemoryKind {
        &self.kind
    }

    /// Whether its objects use system pages of their own.
    #[must_use]
    pub fn uses_frames(&self) -> bool {
        matches!(self.kind, MemoryKind::Frames)
    }

    /// What it holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.state.lock();
        let pages = |n| PageCount::new(n).expect("a sum of grants");
        Usage {
            size: state.space.size(),
            used: pages(state.used),
            retired: pages(state.retired_pages),
            free: state.space.free(),
            objects: state.lru.len(),
        }
    }

    /// What it has seen.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state.lock().counters
    }

    /// Whether validates consider it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.state.lock().in_use
    }

    /// Switches it on or off for validates. What is here stays.
    pub fn set_used(&self, used: bool) {
        self.state.lock().in_use = used;
    }

    pub(super) fn lru(&self) -> LockedLru<'_> {
        LockedLru(self.state.lock())
    }

    /// Takes space for an object and enters it as the youngest.
    pub(crate) fn take(self: &Arc<Self>, order: &Order<'_>) -> Result<Taken, TakeRefused> {
        if let Some(group) = order.group {
            refuse(group.charge(self.mem_type, order.request.pages)).map_err(TakeRefused::Limit)?;
        }
        let result = self.state.lock().take(order);
        match result {
            Ok((extents, node, after)) => Ok(Taken {
                resource: Resource {
                    manager: Arc::clone(self),
                    extents,
                    node,
                    group: order.group.cloned(),
                    pages: order.request.pages,
                    flags: order.flags,
                    cache: order.cache,
                    leaving: Leaving::Unused,
                },
                after,
            }),
            Err(refused) => {
                if let Some(group) = order.group {
                    group.uncharge(self.mem_type, order.request.pages);
                }
                Err(refused)
            }
        }
    }

    /// Gives space back whose fences are done. Called by the resource's drop.
    pub(super) fn give(resource: &mut Resource) {
        let manager = &*resource.manager;
        {
            let mut state = manager.state.lock();
            state.depart(resource);
            for extent in core::mem::take(&mut resource.extents) {
                state.free(extent);
            }
        }
        if let Some(group) = &resource.group {
            group.uncharge(manager.mem_type, resource.pages);
        }
    }

    pub(super) fn retire(
        mut resource: Resource,
        fences: impl IntoIterator<Item = Fence>,
        recoverable: bool,
    ) -> u64 {
        let manager = Arc::clone(&resource.manager);
        // A group pays for what it uses; this is free but for a fence.
        if let Some(group) = resource.group.take() {
            group.uncharge(manager.mem_type, resource.pages);
        }
        let mut state = manager.state.lock();
        let state = &mut *state;
        state.depart(&resource);
        state.numbers += 1;
        let number = state.numbers;
        state.retired_pages += resource.pages.get();
        state.retired.push(
            fences,
            Retired {
                number,
                extents: core::mem::take(&mut resource.extents),
                pages: resource.pages,
                recoverable,
            },
        );
        number
    }

    /// Takes a retired resource back for its object, whose move away failed. `None` if its space
    /// was handed on meanwhile.
    pub(crate) fn unretire(self: &Arc<Self>, number: u64, back: &Order<'_>) -> Option<Resource> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let (_, retired) = state.retired.take_oldest(|r, _| r.number == number)?;
        state.retired_pages -= retired.pages.get();
        state.used += retired.pages.get();
        let node = state.enter(back);
        state.counters.arrivals += 1;
        state.counters.bytes_in += retired.pages.bytes();
        if let Some(group) = back.group {
            group.recharge(self.mem_type, retired.pages);
        }
        Some(Resource {
            manager: Arc::clone(self),
            extents: retired.extents,
            node,
            group: back.group.cloned(),
            pages: retired.pages,
            flags: back.flags,
            cache: back.cache,
            leaving: Leaving::Moved,
        })
    }

    /// Nobody wants the retired resource back any more, whatever becomes of its fences.
    pub(crate) fn forget(&self, number: u64) {
        let mut state = self.state.lock();
        let found = state.retired.take_oldest(|r, _| r.number == number);
        let Some((fences, mut retired)) = found else {
            return;
        };
        retired.recoverable = false;
        if fences.iter().all(Fence::is_signalled) {
            state.free_retired(retired);
        } else {
            state.retired.push(fences, retired);
        }
    }

    /// Frees what waited for fences that have signalled. Answers whether anything was.
    pub(crate) fn reap(&self) -> bool {
        self.state.lock().reap()
    }

    /// The fence after which the oldest retired space is free.
    pub(crate) fn oldest_fence(&self) -> Option<Fence> {
        self.state.lock().retired.oldest_fence().cloned()
    }

    /// Registers a claim on what is freed in `window`; answers it with the present epoch.
    pub(crate) fn claim<'a>(
        &'a self,
        clock: &'a dyn Clock,
        age: u64,
        window: PageRange,
    ) -> (ClaimGuard<'a>, u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let number = state.claims.add(age, window);
        let epoch = state.epoch;
        let claim = ClaimGuard {
            manager: self,
            clock,
            number,
        };
        (claim, epoch)
    }

    /// A number that changes whenever a hunt could find more than before.
    pub(crate) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// What a transaction does that found nobody left to ask since `epoch`. To sleep, it leaves
    /// `cell` with its claim: the end of any claim wakes it, and, if it is the oldest, every
    /// other one that comes to rest.
    pub(crate) fn after_hunt(
        &self,
        own: u64,
        epoch: u64,
        cell: &Arc<WaitCell>,
        clock: &dyn Clock,
    ) -> AfterHunt {
        let mut state = self.state.lock();
        let changed = state.epoch != epoch;
        let (after, wakes) = state.claims.after_hunt(own, changed, cell);
        drop(state);
        if let Some(cell) = wakes {
            clock.unpark(&cell);
        }
        after
    }

    pub(crate) fn set_home(&self, node: NodeId, home: Home) {
        self.state.lock().lru.set_home(node, home);
    }

    pub(crate) fn home(&self, node: NodeId) -> Option<Home> {
        self.state.lock().lru.home(node)
    }

    pub(crate) fn level(&self, node: NodeId) -> Option<u8> {
        self.state.lock().lru.level(node)
    }

    pub(crate) fn reclassify(&self, node: NodeId, level: u8, bulk: Option<Arc<Bulk>>, stamp: u64) {
        self.state.lock().lru.reclassify(node, level, bulk, stamp);
    }

    /// What there is, for an error's text.
    pub(crate) fn tried(&self) -> Tried {
        let state = self.state.lock();
        Tried {
            mem_type: self.mem_type,
            free: state.space.free(),
            largest_hole: state.space.largest_hole(),
            retired: PageCount::new(state.retired_pages).expect("a sum of grants"),
            evictable: state.lru.evictable(),
            unevictable: state.lru.len() - state.lru.evictable(),
        }
    }

    /// The objects in the order in which they would be evicted, for tests and for people.
    pub(crate) fn eviction_order(&self, level: u8) -> Vec<u64> {
        let victims = self.state.lock().lru.in_order(level);
        objects(victims.iter())
    }

    /// All objects here, with where their entries are.
    pub(crate) fn residents(&self) -> Vec<(Home, Weak<dyn Victim>)> {
        let state = self.state.lock();
        let entries = state.lru.entries();
        entries.map(|(home, v)| (home, v.clone())).collect()
    }

    /// Puts an entry that a walk has in hand aside as busy. Answers false if its owner has put
    /// it elsewhere meanwhile.
    pub(super) fn set_busy(&self, node: NodeId) -> bool {
        let mut state = self.state.lock();
        let in_hand = state.lru.home(node) == Some(Home::InHand);
        if in_hand {
            state.lru.set_home(node, Home::Busy);
            state.counters.busy_victims += 1;
            // Another hunt may have passed its place on the list of busy ones.
            state.epoch += 1;
        }
        in_hand
    }

    /// The invariants that one manager can see: I-01, I-02, I-04, I-41, I-42, and I-03 for its
    /// own counter, against `held`, the ranges that live resources say they hold.
    pub(crate) fn check(&self, held: &[PageRange]) -> core::result::Result<(), String> {
        let state = self.state.lock();
        let name = self.mem_type;
        state
            .space
            .check()
            .map_err(|e| format!("I-04: {name}: {e}"))?;
        state.lru.check().map_err(|e| format!("{e} in {name}"))?;
        let sum: u64 = held.iter().map(|r| r.len().get()).sum();
        if sum != state.used {
            return Err(format!(
                "I-03: {name}: {sum} pages with objects, {} counted as used",
                state.used
            ));
        }
        if matches!(self.kind, MemoryKind::Frames) {
            return Ok(());
        }
        let mut all: Vec<PageRange> = held.to_vec();
        for (_, retired) in state.retired.iter() {
            all.extend(retired.extents.iter().map(|e| e.range()));
        }
        all.sort_by_key(|r| r.start());
        if let Some(pair) = all.windows(2).find(|p| p[0].end() > p[1].start()) {
            return Err(format!(
                "I-01: {name}: {:?} overlaps {:?}",
                pair[0], pair[1]
            ));
        }
        let total: u64 = all.iter().map(|r| r.len().get()).sum();
        let size = state.space.size().get();
        if total + state.space.free().get() != size {
            return Err(format!(
                "I-02: {name}: {total} pages with objects or retired, {} free, {size} in all",
                state.space.free().get()
            ));
        }
        Ok(())
    }
}

fn objects<'a>(victims: impl Iterator<Item = &'a Weak<dyn Victim>>) -> Vec<u64> {
    victims
        .filter_map(|v| v.upgrade().map(|v| v.object()))
        .collect()
}

/// A claim. Its end wakes who waited for it.
pub(crate) struct ClaimGuard<'a> {
    manager: &'a Manager,
    clock: &'a dyn Clock,
    number: u64,
}

impl ClaimGuard<'_> {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The transaction is about to sleep, with no victim in hand.
    pub(crate) fn rest(&self) {
        let wakes = self.manager.state.lock().claims.rest(self.number);
        if let Some(cell) = wakes {
            self.clock.unpark(&cell);
        }
    }

    /// The transaction hunts again.
    pub(crate) fn awake(&self) {
        self.manager.state.lock().claims.awake(self.number);
    }
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        let sleepers = self.manager.state.lock().claims.end(self.number);
        sleepers.iter().for_each(|cell| self.clock.unpark(cell));
    }
}

impl Released for Manager {
    fn released(&self, key: u64) {
        let node = NodeId::from_key(key);
        let mut state = self.state.lock();
        if state.lru.home(node) == Some(Home::Busy) {
            state.lru.set_home(node, Home::Ordered);
            state.epoch += 1;
        }
    }
}

/// The manager's lock, for the walk: it reaches the order of eviction and nothing else.
pub(super) struct LockedLru<'a>(MutexGuard<'a, State>);

impl LockedLru<'_> {
    /// Entries came back that others had not seen.
    pub(super) fn changed(&mut self) {
        self.0.epoch += 1;
    }
}

impl Deref for LockedLru<'_> {
    type Target = Lru;
    fn deref(&self) -> &Lru {
        &self.0.lru
    }
}

impl DerefMut for LockedLru<'_> {
    fn deref_mut(&mut self) -> &mut Lru {
        &mut self.0.lru
    }
}

impl State {
    fn take(&mut self, order: &Order<'_>) -> Result<(Extents, NodeId, FenceVec), TakeRefused> {
        if !self.in_use {
            return Err(TakeRefused::Off);
        }
        let extents = match self.take_space(order) {
            Ok(extents) => extents,
            Err(TakeError::Full) => {
                self.counters.full += 1;
                return Err(TakeRefused::Full);
            }
            Err(TakeError::Never) => return Err(TakeRefused::Never),
            Err(TakeError::Invalid) => return Err(TakeRefused::Invalid),
        };
        let after = self.fences_over(&extents);
        let pages = order.request.pages;
        self.epoch += 1;
        self.used += pages.get();
        self.counters.arrivals += 1;
        self.counters.bytes_in += pages.bytes();
        let node = self.enter(order);
        Ok((extents, node, after))
    }

    /// Enters an object as the youngest.
    fn enter(&mut self, order: &Order<'_>) -> NodeId {
        self.lru.insert(
            order.victim.clone(),
            key_of_arrival(order.last_stamp),
            order.level,
            order.bulk.cloned(),
            order.home,
        )
    }

    /// Clean space first, then what its fences have freed, then what is behind fences.
    fn take_space(&mut self, order: &Order<'_>) -> Result<Extents, TakeError> {
        match self.take_clean(order) {
            Err(TakeError::Full) if !self.retired.is_empty() => {}
            result => return result,
        }
        if self.reap() {
            match self.take_clean(order) {
                Err(TakeError::Full) => {}
                result => return result,
            }
        }
        while order.accepts_fences && self.hand_on_oldest() {
            match self.take_clean(order) {
                Err(TakeError::Full) => {}
                result => return result,
            }
        }
        Err(TakeError::Full)
    }

    fn take_clean(&mut self, order: &Order<'_>) -> Result<Extents, TakeError> {
        let extents = self.space.take(&order.request)?;
        if !self.claims.keep(&extents, order.claim) {
            return Ok(extents);
        }
        for extent in extents {
            self.space.give(extent);
        }
        Err(TakeError::Full)
    }

    /// Releases the oldest retired space into the free space, its fences kept beside it.
    fn hand_on_oldest(&mut self) -> bool {
        let healthy = |fences: &[Fence]| {
            !fences.is_empty()
                && !fences
                    .iter()
                    .any(|f| matches!(f.status(), Status::Failed(_)))
        };
        let Some((fences, retired)) = self.retired.take_oldest(|_, f| healthy(f)) else {
            return false;
        };
        for extent in &retired.extents {
            for fence in fences.iter().filter(|f| !f.is_signalled()) {
                self.pending.push((extent.range(), fence.clone()));
            }
        }
        self.free_retired(retired);
        true
    }

    /// The fences that must be waited for before these pages are touched.
    fn fences_over(&mut self, extents: &Extents) -> FenceVec {
        if self.pending.is_empty() {
            return FenceVec::new();
        }
        self.pending.retain(|(_, fence)| !fence.is_signalled());
        let touches = |range: &PageRange| extents.iter().any(|e| e.range().intersects(range));
        let over = self.pending.iter().filter(|(range, _)| touches(range));
        over.map(|(_, fence)| fence.clone()).collect()
    }

    /// Takes a resource out of the order and the counters; its pages stay taken.
    fn depart(&mut self, resource: &Resource) {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Defect::StaleResource)
            && resource.leaving == Leaving::Evicted
        {
            self.used -= resource.pages.get();
            return;
        }
        self.lru.remove(resource.node);
        let bytes = resource.pages.bytes();
        #[cfg(feature = "plant")]
        let charged = !crate::plant::is(crate::plant::Defect::LostUncharge);
        #[cfg(not(feature = "plant"))]
        let charged = true;
        if charged {
            self.used -= resource.pages.get();
        }
        match resource.leaving {
            Leaving::Unused => {
                self.counters.arrivals -= 1;
                self.counters.bytes_in -= bytes;
                return;
            }
            Leaving::Moved => {}
            Leaving::Evicted => {
                self.counters.evictions += 1;
                self.counters.evicted_bytes += bytes;
            }
        }
        self.counters.departures += 1;
        self.counters.bytes_out += bytes;
    }

    fn free(&mut self, extent: placement::Extent) {
        let range = extent.range();
        self.epoch += 1;
        self.space.give(extent);
        self.claims.freed(range);
    }

    fn free_retired(&mut self, retired: Retired) {
        self.retired_pages -= retired.pages.get();
        for extent in retired.extents {
            self.free(extent);
        }
    }

    fn reap(&mut self) -> bool {
        let mut ready: SmallVec<[Retired; 4]> = SmallVec::new();
        let failed = |f: &Fence| matches!(f.status(), Status::Failed(_));
        self.retired.reap(
            |item, fences| !(item.recoverable && fences.iter().any(failed)),
            |item| ready.push(item),
        );
        let any = !ready.is_empty();
        for item in ready {
            self.free_retired(item);
        }
        any
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manager({}, {:?})", self.mem_type, self.usage())
    }
}
