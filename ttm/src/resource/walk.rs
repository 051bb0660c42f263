//! A walk through a manager's users, least recently used first, for as long as the caller asks.
//!
//! A victim that is locked by somebody else is put aside until it is released, so that a crowd of
//! locked objects costs one look each and not one for every eviction. One that does not help this
//! caller stays in the walk's hand and goes back when the walk ends. No lock is held between two
//! steps, and nothing that happens meanwhile disturbs the walk.

use smallvec::SmallVec;

use crate::reservation::{Domain, Released};
use crate::sync::Arc;

use super::lru::{Home, NodeId};
use super::manager::Manager;
use super::victim::Victim;

/// A walk. What it still has in hand goes back when it drops.
pub(crate) struct Walk<'a> {
    manager: &'a Arc<Manager>,
    hand: SmallVec<[NodeId; 4]>,
    busy_at: Option<(u8, u64, u32)>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(manager: &'a Arc<Manager>) -> Self {
        Self {
            manager,
            hand: SmallVec::new(),
            busy_at: None,
        }
    }

    /// Takes the next candidate in hand.
    pub(crate) fn next(&mut self) -> Option<(NodeId, Arc<dyn Victim>)> {
        loop {
            let (node, victim) = self.manager.lru().take_oldest()?;
            self.hand.push(node);
            // An object that is being taken down gives its space back by itself.
            if let Some(victim) = victim.upgrade() {
                return Some((node, victim));
            }
        }
    }

    /// The next one that was found locked, by this walk or another; it stays where it is.
    pub(crate) fn next_busy(&mut self) -> Option<(NodeId, Arc<dyn Victim>)> {
        loop {
            let (at, node, victim) = self.manager.lru().busy_after(self.busy_at)?;
            self.busy_at = Some(at);
            if let Some(victim) = victim.upgrade() {
                return Some((node, victim));
            }
        }
    }

    /// Begins the list of busy ones again.
    pub(crate) fn rewind_busy(&mut self) {
        self.busy_at = None;
    }

    /// Puts `node` aside until its reservation is released.
    pub(crate) fn put_aside(&mut self, node: NodeId, victim: &dyn Victim, domain: &Domain) {
        self.hand.retain(|n| *n != node);
        if !self.manager.set_busy(node) {
            return;
        }
        let watcher: Arc<dyn Released> = Arc::clone(self.manager) as _;
        if !domain.watch(victim.reservation(), Arc::clone(&watcher), node.to_key()) {
            watcher.released(node.to_key());
        }
    }

    /// Puts everything in hand back in order.
    pub(crate) fn put_back(&mut self) {
        if self.hand.is_empty() {
            return;
        }
        let mut lru = self.manager.lru();
        for node in self.hand.drain(..) {
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
