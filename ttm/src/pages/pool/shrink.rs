//! Giving pooled frames back to the system, because somebody asks or a limit does.

use placement::{CacheMode, PageCount};

use crate::pages::{Dirty, FrameKind, FrameRun};

use super::config::PoolLimit;
use super::magazine::Magazines;
use super::{Pool, add};

impl Pool {
    /// Gives about `target` pooled pages back to the system: kinds in turn, large runs first, then
    /// magazines. Answers how many it gave; zero if nothing is pooled (I-31). May exceed the target
    /// by a run.
    pub fn scan(&self, target: PageCount) -> PageCount {
        let mut given = 0;
        while given < target.get() {
            let next = self.shelves.lock().take_for_shrink();
            let Some(run) = next else {
                break;
            };
            let pages = run.pages().get();
            if !self.release(run) {
                break;
            }
            given += pages;
        }
        while given < target.get() {
            let Some(batch) = self.magazines.drain_some() else {
                break;
            };
            given += batch.len() as u64;
            self.release_singles(batch);
        }
        PageCount::new(given).unwrap_or(PageCount::MAX)
    }

    /// Gives everything that is pooled back to the system, and unmaps every kept window.
    pub fn shrink(&self) -> PageCount {
        self.kmaps.trim();
        self.scan(PageCount::MAX)
    }

    /// Sets a limit, and shrinks what is above it.
    pub fn set_limit(&self, limit: PoolLimit, pages: PageCount) {
        self.limits.set(limit, pages);
        loop {
            let next = {
                let mut shelves = self.shelves.lock();
                let depot = self.magazines.in_depot();
                self.limits.take_excess(&mut shelves, depot)
            };
            if !next.is_some_and(|run| self.release(run)) {
                break;
            }
        }
        while self
            .limits
            .is_exceeded_by(&self.shelves.lock(), self.magazines.in_depot())
        {
            match self.magazines.drain_depot() {
                Some(batch) => self.release_singles(batch),
                None => break,
            }
        }
    }

    /// A full magazine goes to the depot, or to the source if the pool is full.
    pub(super) fn store<C>(
        &self,
        batch: Vec<FrameRun<C>>,
        depot: impl FnOnce(&Magazines, Vec<FrameRun<C>>),
    ) {
        let fits = {
            let shelves = self.shelves.lock();
            let pages = PageCount::new(batch.len() as u64).expect("few");
            self.limits.admit(
                &shelves,
                self.magazines.in_depot(),
                FrameKind::default(),
                pages,
            )
        };
        if fits {
            depot(&self.magazines, batch);
            self.wake();
        } else {
            let dirty = batch.into_iter().map(FrameRun::forget_state);
            self.release_singles(dirty.collect());
        }
    }

    pub(super) fn release_singles(&self, batch: Vec<FrameRun<Dirty>>) {
        for run in batch {
            self.release(run);
        }
    }

    /// A run that never was the pool's goes back to who made frames of it.
    pub(crate) fn give_brought(&self, run: FrameRun<Dirty>) {
        self.kmaps.forget(run.span());
        self.source.give(run);
    }

    /// A run that is nobody's goes back to the source, cached. Answers false if it could not be
    /// made so: then it stays in the pool.
    pub(super) fn release(&self, mut run: FrameRun<Dirty>) -> bool {
        let mode = run.kind().mode;
        if mode != CacheMode::Cached {
            if self.switch(&mut [&mut run], CacheMode::Cached).is_err() {
                // It keeps its mode, and its place in the pool.
                self.shelves.lock().put_dirty(run);
                return false;
            }
        } else {
            self.kmaps.forget(run.span());
        }
        add(&self.counters.released, run.pages().get());
        self.source.give(run);
        true
    }
}
