//! What the tests of backups share: frames with windows over them, and runs that are moved.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::VecDeque;

use backends::host::{MemfdPages, wall_clock};
use ttm::error::Result;
use ttm::pages::{FrameRun, Kmap, PageSource, Pool, PoolConfig, Want, Zeroed};
use ttm::sync::Arc;
use ttm::tt::{Backup, Direction, SlotRun, SlotTag, Transfer, Transfers};

use super::support::{assert_stamped, pages, stamp};

pub(crate) fn tag(object: u64) -> SlotTag {
    SlotTag {
        object,
        first_page: 0,
        generation: 1,
    }
}

/// A pool of frames.
pub(crate) struct Frames(pub(crate) Arc<Pool>);

impl Frames {
    pub(crate) fn new() -> Self {
        Self::over(Arc::new(MemfdPages::new().unwrap()))
    }

    pub(crate) fn over(source: Arc<dyn PageSource>) -> Self {
        Self(Pool::new(source, wall_clock(), PoolConfig::default()))
    }

    /// A run of `n` frames, with the words of `owner` in it.
    pub(crate) fn of(&self, n: u64, owner: u64) -> FrameRun<Zeroed> {
        let run = self.0.take(&Want::new(pages(n))).unwrap();
        stamp(&self.kmap(&run), owner);
        run
    }

    pub(crate) fn kmap(&self, run: &FrameRun<Zeroed>) -> Kmap {
        self.0.kmap(run.span()).unwrap()
    }

    pub(crate) fn give(&self, run: FrameRun<Zeroed>) {
        self.0.give(run.dirtied());
    }

    /// Stores a run with the words of `owner`.
    pub(crate) fn store(&self, backup: &dyn Backup, n: u64, owner: u64) -> Result<SlotRun> {
        let slots = backup.take(pages(n), tag(owner))?;
        let run = self.of(n, owner);
        let stored = one(backup, Direction::Out, slots.first(), self.kmap(&run));
        self.give(run);
        match stored {
            Ok(()) => Ok(slots),
            Err(error) => {
                backup.discard(slots);
                Err(error)
            }
        }
    }

    /// Loads a run into frames that had other words.
    pub(crate) fn load(&self, backup: &dyn Backup, slots: &SlotRun) -> Result<FrameRun<Zeroed>> {
        let run = self.of(slots.pages().get(), 0xffff);
        match one(backup, Direction::In, slots.first(), self.kmap(&run)) {
            Ok(()) => Ok(run),
            Err(error) => {
                self.give(run);
                Err(error)
            }
        }
    }

    /// Loads a run that should have the words of `owner`.
    pub(crate) fn assert_stored(&self, backup: &dyn Backup, slots: &SlotRun, owner: u64) {
        let run = self.load(backup, slots).unwrap();
        assert_stamped(&self.kmap(&run), owner);
        self.give(run);
    }
}

/// Runs that wait to be moved, and what became of them.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) waiting: VecDeque<Transfer>,
    pub(crate) done: Vec<(usize, Result<()>)>,
}

impl Batch {
    pub(crate) fn add(&mut self, first: u64, memory: Kmap) {
        let id = self.waiting.len();
        self.waiting.push_back(Transfer { id, first, memory });
    }
}

impl Transfers for Batch {
    fn next(&mut self) -> Option<Transfer> {
        self.waiting.pop_front()
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        self.done.push((transfer.id, result));
    }
}

/// Moves one run.
pub(crate) fn one(
    backup: &dyn Backup,
    direction: Direction,
    first: u64,
    memory: Kmap,
) -> Result<()> {
    let mut batch = Batch::default();
    batch.add(first, memory);
    backup.transfer(direction, &mut batch);
    let (_, result) = batch.done.pop().expect("each run is done");
    assert!(batch.done.is_empty(), "done once");
    result
}

/// Moves several runs, all of which succeed.
pub(crate) fn many(backup: &dyn Backup, direction: Direction, runs: Vec<(u64, Kmap)>) {
    let mut batch = Batch::default();
    let count = runs.len();
    for (first, memory) in runs {
        batch.add(first, memory);
    }
    backup.transfer(direction, &mut batch);
    batch.done.sort_by_key(|(id, _)| *id);
    for (n, (id, result)) in batch.done.iter().enumerate() {
        assert_eq!(n, *id);
        assert!(result.is_ok(), "run {n}: {result:?}");
    }
    assert_eq!(batch.done.len(), count);
}
