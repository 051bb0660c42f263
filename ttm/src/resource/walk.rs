//! A walk through a manager's users, least recently used first, for as long as the caller asks.
//!
//! A victim that is locked by somebody else is put aside until it is released, so that a crowd of
//! locked objects costs one look each and not one for every eviction. One that does not help this
//! caller stays in the walk's hand and goes back when the walk ends. No lock is held between two
//! steps, and nothing that happens meanwhile disturbs the walk.

use core::cell::{Cell, RefCell};

use smallvec::SmallVec;

use crate::reservation::{Domain, Released};
use crate::sync::Arc;

use super::lru::{BusyKey, Home, NodeId};
use super::manager::{ClaimGuard, Manager};
use super::victim::Victim;
use super::{LEVELS, UNNEEDED};

/// A walk. What it still has in hand goes back when it drops.
pub(crate) struct Walk<'a> {
    manager: &'a Arc<Manager>,
    hand: RefCell<SmallVec<[NodeId; 4]>>,
    busy_at: Cell<Option<BusyKey>>,
    own_changes: Cell<u64>,
    /// Levels of the order that it visits.
    levels: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(manager: &'a Arc<Manager>) -> Self {
        Self {
            manager,
            hand: RefCell::new(SmallVec::new()),
            busy_at: Cell::new(None),
            own_changes: Cell::new(0),
            levels: LEVELS,
        }
    }

    /// Visits only objects whose content nobody needs.
    pub(crate) fn unneeded_only(mut self, only: bool) -> Self {
        if only {
            self.levels = usize::from(UNNEEDED) + 1;
        }
        self
    }

    /// Takes the next candidate in hand.
    pub(crate) fn next(&self) -> Option<(NodeId, Arc<dyn Victim>)> {
        loop {
            let (node, victim) = self.manager.lru().take_oldest(self.levels)?;
            self.hand.borrow_mut().push(node);
            // An object that is being taken down gives its space back by itself.
            if let Some(victim) = victim {
                return Some((node, victim));
            }
        }
    }

    /// The next one that was found locked, by this walk or another; it stays where it is.
    pub(crate) fn next_busy(&self) -> Option<Arc<dyn Victim>> {
        loop {
            let (at, victim) = self.manager.lru().busy_after(self.busy_at.get())?;
            self.busy_at.set(Some(at));
            if let Some(victim) = victim.upgrade() {
                return Some(victim);
            }
        }
    }

    /// Begins the list of busy ones again.
    pub(crate) fn rewind_busy(&self) {
        self.busy_at.set(None);
    }

    /// Puts `node` aside until its reservation is released.
    pub(crate) fn put_aside(&self, node: NodeId, victim: &dyn Victim, domain: &Domain) {
        self.hand.borrow_mut().retain(|n| *n != node);
        if !self.manager.set_busy(node) {
            return;
        }
        self.own_changes.set(self.own_changes.get() + 1);
        let watcher: Arc<dyn Released> = Arc::clone(self.manager) as _;
        if !domain.watch(victim.reservation(), Arc::clone(&watcher), node.to_key()) {
            watcher.released(node.to_key());
        }
    }

    /// The candidate has left: there is nothing to put back.
    pub(crate) fn let_go(&self, node: NodeId) {
        self.hand.borrow_mut().retain(|n| *n != node);
    }

    /// How often this walk has changed the manager's epoch by putting things back or aside.
    pub(crate) fn own_changes(&self) -> u64 {
        self.own_changes.get()
    }

    /// Puts everything in hand back in order.
    pub(crate) fn put_back(&self) {
        let mut hand = self.hand.borrow_mut();
        if hand.is_empty() {
            return;
        }
        let mut lru = self.manager.lru();
        lru.changed();
        self.own_changes.set(self.own_changes.get() + 1);
        for node in hand.drain(..) {
            if lru.home(node) == Some(Home::InHand) {
                lru.set_home(node, Home::Ordered);
            }
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// What one level of evictions keeps from others, and the levels that led to it: a victim's own
/// move may need another one to leave.
pub(crate) struct Level<'a> {
    pub(crate) walk: &'a Walk<'a>,
    pub(crate) claim: Option<&'a ClaimGuard<'a>>,
    pub(crate) outer: Option<&'a Level<'a>>,
}

impl Level<'_> {
    /// The transaction is about to sleep for a lock: nobody may have to wait for what it has in
    /// hand, and the oldest claimant need not wait for it.
    pub(crate) fn rest(&self) {
        self.walk.put_back();
        if let Some(claim) = self.claim {
            claim.rest();
        }
        if let Some(outer) = self.outer {
            outer.rest();
        }
    }

    /// The transaction goes on.
    pub(crate) fn awake(&self) {
        if let Some(claim) = self.claim {
            claim.awake();
        }
        if let Some(outer) = self.outer {
            outer.awake();
        }
    }
}
