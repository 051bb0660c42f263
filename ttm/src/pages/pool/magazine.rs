//! Single cached frames, by thread.
//!
//! A thread takes and gives from a magazine of its own, whose lock nobody else wants. Magazines
//! that are full or empty are exchanged, by half, with a depot that needs no lock.

use crate::pages::{Dirty, FrameKind, FrameRun, Zeroed};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{CachePadded, Mutex, Queue, lane};

use super::table::PoolRow;

/// Frames that go to and come from the depot at once.
pub(super) const BATCH: usize = if cfg!(ttm_zeal) { 1 } else { 32 };

/// Threads that have a magazine for themselves; more share.
const SLOTS: usize = 64;

pub(super) struct Magazines {
    slots: Box<[CachePadded<Mutex<Slot>>]>,
    zeroed: Depot<Zeroed>,
    dirty: Depot<Dirty>,
}

/// Batches that are no thread's.
struct Depot<C> {
    batches: Queue<Vec<FrameRun<C>>>,
    /// Pages of them all.
    pages: AtomicU64,
}

impl<C> Depot<C> {
    fn new() -> Self {
        Self {
            batches: Queue::new(),
            pages: AtomicU64::new(0),
        }
    }

    fn push(&self, batch: Vec<FrameRun<C>>) {
        self.pages.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.batches.push(batch);
    }

    fn pop(&self) -> Option<Vec<FrameRun<C>>> {
        let batch = self.batches.pop()?;
        self.pages.fetch_sub(batch.len() as u64, Ordering::Relaxed);
        Some(batch)
    }

    fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

struct Slot {
    zeroed: Vec<FrameRun<Zeroed>>,
    dirty: Vec<FrameRun<Dirty>>,
    /// Frames taken less frames given here.
    owned: i64,
    takes: u64,
    gives: u64,
}

impl Slot {
    fn new() -> CachePadded<Mutex<Self>> {
        CachePadded::new(Mutex::new(Self {
            zeroed: Vec::new(),
            dirty: Vec::new(),
            owned: 0,
            takes: 0,
            gives: 0,
        }))
    }

    fn took<C>(&mut self, run: FrameRun<C>) -> FrameRun<C> {
        self.owned += 1;
        self.takes += 1;
        run
    }

    fn gave(&mut self) {
        self.owned -= 1;
        self.gives += 1;
    }
}

/// Puts a frame into a magazine; answers half of it if it was full.
fn put<C>(magazine: &mut Vec<FrameRun<C>>, run: FrameRun<C>) -> Option<Vec<FrameRun<C>>> {
    magazine.push(run);
    // The older half: what was used last stays at hand.
    (magazine.len() > 2 * BATCH).then(|| magazine.drain(..BATCH).collect())
}

impl Magazines {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::new()).collect(),
            zeroed: Depot::new(),
            dirty: Depot::new(),
        }
    }

    #[inline]
    fn slot(&self) -> &Mutex<Slot> {
        &self.slots[lane() as usize % SLOTS]
    }

    /// A frame of the thread's own, or, if it has none, of a batch that it fetches.
    #[inline]
    fn take<C>(
        &self,
        depot: &Depot<C>,
        own: impl Fn(&mut Slot) -> &mut Vec<FrameRun<C>>,
    ) -> Option<FrameRun<C>> {
        {
            let mut slot = self.slot().lock();
            if let Some(run) = own(&mut slot).pop() {
                return Some(slot.took(run));
            }
        }
        let batch = depot.pop()?;
        let mut slot = self.slot().lock();
        own(&mut slot).extend(batch);
        let run = own(&mut slot).pop()?;
        Some(slot.took(run))
    }

    /// A frame that is zero.
    #[inline]
    pub(super) fn take_zeroed(&self) -> Option<FrameRun<Zeroed>> {
        self.take(&self.zeroed, |slot| &mut slot.zeroed)
    }

    /// A frame that has to be zeroed.
    #[inline]
    pub(super) fn take_dirty(&self) -> Option<FrameRun<Dirty>> {
        self.take(&self.dirty, |slot| &mut slot.dirty)
    }

    /// Any frame, rather one that is not zero.
    #[inline]
    pub(super) fn take_any(&self) -> Option<FrameRun<Dirty>> {
        let dirty = self.take_dirty();
        dirty.or_else(|| self.take_zeroed().map(FrameRun::dirtied))
    }

    /// Takes a frame back; answers a batch for the depot if there are too many.
    #[inline]
    pub(super) fn give_dirty(&self, run: FrameRun<Dirty>) -> Option<Vec<FrameRun<Dirty>>> {
        let mut slot = self.slot().lock();
        slot.gave();
        put(&mut slot.dirty, run)
    }

    /// The same for a frame that is still zero.
    #[inline]
    pub(super) fn give_zeroed(&self, run: FrameRun<Zeroed>) -> Option<Vec<FrameRun<Zeroed>>> {
        let mut slot = self.slot().lock();
        slot.gave();
        put(&mut slot.zeroed, run)
    }

    /// Takes a fresh frame; the others beside it are for the next.
    pub(super) fn receive(
        &self,
        run: FrameRun<Zeroed>,
        rest: Vec<FrameRun<Zeroed>>,
    ) -> FrameRun<Zeroed> {
        let mut slot = self.slot().lock();
        slot.zeroed.extend(rest);
        slot.took(run)
    }

    pub(super) fn depot_dirty(&self, batch: Vec<FrameRun<Dirty>>) {
        self.dirty.push(batch);
    }

    pub(super) fn depot_zeroed(&self, batch: Vec<FrameRun<Zeroed>>) {
        self.zeroed.push(batch);
    }

    /// A batch of dirty frames out of the depot, to be zeroed.
    pub(super) fn dirty_batch(&self) -> Option<Vec<FrameRun<Dirty>>> {
        self.dirty.pop()
    }

    /// A batch out of the depot.
    pub(super) fn drain_depot(&self) -> Option<Vec<FrameRun<Dirty>>> {
        if let Some(batch) = self.dirty_batch() {
            return Some(batch);
        }
        let batch = self.zeroed.pop()?;
        Some(batch.into_iter().map(FrameRun::dirtied).collect())
    }

    /// Some frames: a batch out of the depot, or what a thread has.
    pub(super) fn drain_some(&self) -> Option<Vec<FrameRun<Dirty>>> {
        if let Some(batch) = self.drain_depot() {
            return Some(batch);
        }
        self.slots.iter().find_map(|slot| {
            let mut slot = slot.lock();
            let mut batch = core::mem::take(&mut slot.dirty);
            batch.extend(slot.zeroed.drain(..).map(FrameRun::dirtied));
            (!batch.is_empty()).then_some(batch)
        })
    }

    /// Pages in the depot.
    pub(super) fn in_depot(&self) -> u64 {
        self.zeroed.pages() + self.dirty.pages()
    }

    /// Pages in the depot and with all threads.
    pub(super) fn pages(&self) -> u64 {
        let of = |slot: &CachePadded<Mutex<Slot>>| {
            let slot = slot.lock();
            (slot.zeroed.len() + slot.dirty.len()) as u64
        };
        self.in_depot() + self.slots.iter().map(of).sum::<u64>()
    }

    /// Frames that were taken here less those that were given here.
    pub(super) fn owned(&self) -> i64 {
        self.slots.iter().map(|slot| slot.lock().owned).sum()
    }

    /// Frames that were ever taken, and given.
    pub(super) fn traffic(&self) -> (u64, u64) {
        self.slots.iter().fold((0, 0), |(takes, gives), slot| {
            let slot = slot.lock();
            (takes + slot.takes, gives + slot.gives)
        })
    }

    pub(super) fn rows(&self) -> Vec<PoolRow> {
        let (mut zeroed, mut dirty) = (self.zeroed.pages(), self.dirty.pages());
        for slot in &self.slots {
            let slot = slot.lock();
            zeroed += slot.zeroed.len() as u64;
            dirty += slot.dirty.len() as u64;
        }
        let row = |pages, zeroed| PoolRow {
            kind: FrameKind::default(),
            order: 0,
            zeroed,
            runs: pages,
            pages,
            huge: 0,
        };
        let rows = [row(zeroed, true), row(dirty, false)];
        rows.into_iter().filter(|row| row.pages > 0).collect()
    }
}
