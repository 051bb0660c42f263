//! What all threads of a run share: the objects, where the action is, and what was found wrong.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ttm::sync::Mutex;

use crate::gap::{Gaps, Move};
use crate::object::{Object, View};
use crate::random::Random;

/// So much of what is wrong is told in words.
const TOLD: usize = 8;

/// Where a run takes place.
pub(crate) struct Stage<'a> {
    objects: &'a [Object],
    /// Whether threads use addresses, which wait; else they call.
    by_address: bool,
    /// The object that is being moved.
    focus: AtomicUsize,
    stopped: AtomicBool,
    wrong: AtomicU64,
    told: Mutex<Vec<String>>,
}

/// What one thread did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) accesses: u64,
    /// Of those, system calls.
    pub(crate) calls: u64,
    pub(crate) gaps: Gaps,
}

impl Done {
    /// Adds what another thread did.
    pub(crate) fn add(&mut self, other: Self) {
        self.accesses += other.accesses;
        self.calls += other.calls;
        self.gaps.append(other.gaps);
    }
}

impl<'a> Stage<'a> {
    pub(crate) fn new(objects: &'a [Object], by_address: bool) -> Self {
        Self {
            objects,
            by_address,
            focus: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            wrong: AtomicU64::new(0),
            told: Mutex::new(Vec::new()),
        }
    }

    /// The objects.
    pub(crate) fn objects(&self) -> &'a [Object] {
        self.objects
    }

    /// Whether threads use addresses.
    pub(crate) fn is_by_address(&self) -> bool {
        self.by_address
    }

    /// The windows of all objects, for one thread.
    pub(crate) fn views(&self) -> ttm::Result<Vec<Vec<View<'a>>>> {
        let views = self.objects.iter().map(|o| o.views(self.by_address));
        views.collect()
    }

    /// From now on threads look at that object more often than at others.
    pub(crate) fn look_at(&self, object: usize) {
        // Relaxed: chance decides anyway.
        self.focus.store(object, Ordering::Relaxed);
    }

    /// An object for a thread to use: mostly the one that is being moved.
    pub(crate) fn choose(&self, random: &mut Random) -> usize {
        match random.below(8) {
            0 => random.below(self.objects.len() as u64) as usize,
            _ => self.focus.load(Ordering::Relaxed),
        }
    }

    /// Something is done to all objects.
    pub(crate) fn begins(&self, what: Move) {
        self.objects.iter().for_each(|object| object.begins(what));
    }

    /// Ends the run.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// A word is wrong, which ends the run.
    pub(crate) fn wrong(&self, what: impl Display) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.broken(what);
    }

    /// Something else is wrong, which ends the run.
    pub(crate) fn broken(&self, what: impl Display) {
        let mut told = self.told.lock();
        if told.len() < TOLD {
            told.push(what.to_string());
        }
        drop(told);
        self.stop();
    }

    /// How many words are wrong, and some of all that is, in words.
    pub(crate) fn found(&self) -> (u64, Vec<String>) {
        let wrong = self.wrong.load(Ordering::Relaxed);
        (wrong, self.told.lock().clone())
    }
}
