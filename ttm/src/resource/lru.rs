//! The order of eviction.
//!
//! ```text
//!   level 0 ─▶ a ─ b ─ [bulk: c ─ d] ─ e      list, in the order of arrival
//!                 f, g                           heap, what was put right later
//!   level 1 ─▶ …
//!   out of order: in a walk's hand · busy (found locked) · unevictable (pinned, swapped, …)
//! ```
//!
//! A *level* is a priority, or, before all of them, that of objects whose content nobody needs.
//! Each entry has a *key*, the moment of its last use as far as this list knows. A use writes only
//! the object's own stamp; the entry that is about to be taken is compared with it, and goes back
//! with its newer key if it was used meanwhile. What arrives is the youngest and goes to the end of
//! a list in constant time; only what is put right goes through a heap. The oldest of both is
//! exactly the least recently used one.

mod check;
mod sequence;

use std::collections::{BTreeMap, BTreeSet};

use crate::sync::{Arc, Weak};

use super::LEVELS;
use super::bulk::Bulk;
use super::victim::Victim;

use sequence::Sequence;

const NONE: u32 = u32::MAX;

/// A stamp as a key: real ones are even.
pub(super) const fn key_of_stamp(stamp: u64) -> u64 {
    stamp * 2
}

/// The key of what arrives when the last stamp was `last`: younger than it, older than the next.
pub(crate) const fn key_of_arrival(last: u64) -> u64 {
    last * 2 + 1
}

/// Names an entry. The generation tells it from a later one in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeId {
    index: u32,
    generation: u32,
}

impl NodeId {
    pub(crate) const fn to_key(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub(super) const fn from_key(key: u64) -> Self {
        Self {
            index: key as u32,
            generation: (key >> 32) as u32,
        }
    }
}

/// Where an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// In order: it can be proposed as a victim.
    Ordered,
    /// A walk has it in hand.
    InHand,
    /// It was found locked; its release brings it back.
    Busy,
    /// Pinned, swapped out, or without anything to evict.
    Unevictable,
}

/// Priority, key and index of a busy entry.
pub(super) type BusyKey = (u8, u64, u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Out,
    List { prev: u32, next: u32 },
    Heap { at: u32 },
}

struct Node {
    generation: u32,
    key: u64,
    home: Home,
    link: Link,
    /// The order that it belongs to: a level's or a bulk entry's.
    order: u32,
    level: u8,
    what: What,
}

enum What {
    Free {
        next: u32,
    },
    One {
        victim: Weak<dyn Victim>,
        bulk: Option<Arc<Bulk>>,
    },
    /// Stands in a level's order for all ordered members of a group.
    Group {
        bulk: Arc<Bulk>,
        order: u32,
    },
}

/// All entries of a manager.
///
/// # Invariants
/// An entry with [`Home::Ordered`] is linked in exactly one sequence, any other in none (I-41);
/// a list's keys never fall; a group entry exists while, and only while, it has ordered members.
pub(crate) struct Lru {
    nodes: Vec<Node>,
    free: u32,
    /// One for each level, then one for each group entry.
    orders: Vec<Sequence>,
    free_orders: Vec<u32>,
    groups: BTreeMap<(u64, u8), u32>,
    busy: BTreeSet<BusyKey>,
    ordered: usize,
    live: usize,
}

impl Lru {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            orders: (0..LEVELS).map(|_| Sequence::new()).collect(),
            free_orders: Vec::new(),
            groups: BTreeMap::new(),
            busy: BTreeSet::new(),
            ordered: 0,
            live: 0,
        }
    }

    /// How many entries eviction could choose from, busy ones included.
    pub(crate) fn evictable(&self) -> usize {
        self.ordered + self.busy.len()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Adds an entry.
    pub(crate) fn insert(
        &mut self,
        victim: Weak<dyn Victim>,
        key: u64,
        level: u8,
        bulk: Option<Arc<Bulk>>,
        home: Home,
    ) -> NodeId {
        debug_assert!((level as usize) < LEVELS);
        let index = self.new_node(Node {
            generation: 0,
            key,
            home: Home::Unevictable,
            link: Link::Out,
            order: NONE,
            level,
            what: What::One { victim, bulk },
        });
        self.live += 1;
        if home == Home::Ordered {
            self.enter(index);
        } else {
            self.nodes[index as usize].home = home;
        }
        self.id(index)
    }

    fn new_node(&mut self, mut node: Node) -> u32 {
        if self.free == NONE {
            let index = u32::try_from(self.nodes.len()).expect("fewer than 2^32 objects");
            self.nodes.push(node);
            return index;
        }
        let index = self.free;
        let slot = &mut self.nodes[index as usize];
        if let What::Free { next } = slot.what {
            self.free = next;
        }
        node.generation = slot.generation;
        *slot = node;
        index
    }

    fn free_node(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
        node.what = What::Free { next: self.free };
        self.free = index;
    }

    fn id(&self, index: u32) -> NodeId {
        NodeId {
            index,
            generation: self.nodes[index as usize].generation,
        }
    }

    fn find(&self, id: NodeId) -> Option<u32> {
        let node = self.nodes.get(id.index as usize)?;
        let live = node.generation == id.generation && matches!(node.what, What::One { .. });
        live.then_some(id.index)
    }

    /// Removes an entry for good.
    pub(crate) fn remove(&mut self, id: NodeId) {
        let index = self.find(id).expect("an entry is removed once");
        self.leave(index, Home::InHand);
        self.live -= 1;
        self.free_node(index);
    }

    /// Changes where an entry is; an ordered one comes back with its newest key.
    pub(crate) fn set_home(&mut self, id: NodeId, home: Home) {
        let Some(index) = self.find(id) else {
            return;
        };
        self.leave(index, home);
        if home == Home::Ordered {
            self.refresh(index);
            self.enter(index);
        } else if home == Home::Busy {
            let node = &self.nodes[index as usize];
            self.busy.insert((node.level, node.key, index));
        }
    }

    /// Where an entry is; `None` if it is gone.
    pub(crate) fn home(&self, id: NodeId) -> Option<Home> {
        self.find(id).map(|index| self.nodes[index as usize].home)
    }

    /// The level of an entry; `None` if it is gone.
    pub(crate) fn level(&self, id: NodeId) -> Option<u8> {
        self.find(id).map(|index| self.nodes[index as usize].level)
    }

    /// Changes level and group of an entry whose object was used last at `stamp`.
    pub(crate) fn reclassify(
        &mut self,
        id: NodeId,
        level: u8,
        bulk: Option<Arc<Bulk>>,
        stamp: u64,
    ) {
        let index = self
            .find(id)
            .expect("a resource's entry lives as long as it");
        let home = self.nodes[index as usize].home;
        self.leave(index, home);
        let node = &mut self.nodes[index as usize];
        node.level = level;
        node.key = node.key.max(key_of_stamp(stamp));
        if let What::One { bulk: old, .. } = &mut node.what {
            *old = bulk;
        }
        match home {
            Home::Ordered => self.enter(index),
            Home::Busy => {
                self.busy.insert((level, node.key, index));
            }
            Home::InHand | Home::Unevictable => {}
        }
    }

    /// Takes an ordered entry out of its sequence, or a busy one off the busy list.
    fn leave(&mut self, index: u32, to: Home) {
        let node = &self.nodes[index as usize];
        match node.home {
            Home::Ordered => {
                let order = node.order;
                self.unlink(index);
                self.ordered -= 1;
                self.drop_group_if_empty(order);
            }
            Home::Busy => {
                self.busy.remove(&(node.level, node.key, index));
            }
            Home::InHand | Home::Unevictable => {}
        }
        self.nodes[index as usize].home = to;
    }

    /// Puts an entry into its sequence.
    fn enter(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let (level, key) = (node.level, node.key);
        let bulk = match &node.what {
            What::One { bulk, .. } => bulk.clone(),
            _ => unreachable!("only objects enter an order"),
        };
        let order = match bulk {
            None => u32::from(level),
            Some(bulk) => self.group_order(bulk, level, key),
        };
        self.nodes[index as usize].home = Home::Ordered;
        self.ordered += 1;
        self.link(order, index);
    }

    /// The sequence of a group's members, made if there is none.
    fn group_order(&mut self, bulk: Arc<Bulk>, level: u8, key: u64) -> u32 {
        if let Some(group) = self.groups.get(&(bulk.id(), level)) {
            let What::Group { order, .. } = self.nodes[*group as usize].what else {
                unreachable!("the map names group entries")
            };
            return order;
        }
        let order = self.free_orders.pop().unwrap_or_else(|| {
            self.orders.push(Sequence::new());
            u32::try_from(self.orders.len() - 1).expect("fewer than 2^32 groups")
        });
        let id = bulk.id();
        let key = key.max(key_of_stamp(bulk.stamp()));
        let group = self.new_node(Node {
            generation: 0,
            key,
            home: Home::Ordered,
            link: Link::Out,
            order: NONE,
            level,
            what: What::Group { bulk, order },
        });
        self.groups.insert((id, level), group);
        self.link(u32::from(level), group);
        order
    }

    fn drop_group_if_empty(&mut self, order: u32) {
        if (order as usize) < LEVELS || !self.orders[order as usize].is_empty() {
            return;
        }
        let found = self.groups.iter().find(|(_, node)| {
            matches!(self.nodes[**node as usize].what, What::Group { order: o, .. } if o == order)
        });
        let (key, group) = found
            .map(|(k, n)| (*k, *n))
            .expect("an order has its group");
        self.groups.remove(&key);
        self.unlink(group);
        self.free_node(group);
        self.free_orders.push(order);
    }

    /// The newest key that is known of an entry.
    fn newest_key(&self, index: u32) -> u64 {
        self.look_at(index).0
    }

    /// The newest key that is known of an entry, and its object, unless that is on its way out.
    fn look_at(&self, index: u32) -> (u64, Option<Arc<dyn Victim>>) {
        let node = &self.nodes[index as usize];
        let (stamp, victim) = match &node.what {
            What::One { victim, .. } => {
                let victim = victim.upgrade();
                (victim.as_ref().map_or(0, |v| v.stamp()), victim)
            }
            What::Group { bulk, .. } => (bulk.stamp(), None),
            What::Free { .. } => (0, None),
        };
        (node.key.max(key_of_stamp(stamp)), victim)
    }

    fn refresh(&mut self, index: u32) {
        self.nodes[index as usize].key = self.newest_key(index);
    }

    /// Takes the least recently used entry of the lowest of the first `levels` levels in hand.
    pub(crate) fn take_oldest(
        &mut self,
        levels: usize,
    ) -> Option<(NodeId, Option<Arc<dyn Victim>>)> {
        for level in 0..levels as u32 {
            let Some((mut index, mut victim)) = self.unlink_oldest(level) else {
                continue;
            };
            if let What::Group { order, .. } = self.nodes[index as usize].what {
                // The group stays where it was, with one member less.
                self.link(level, index);
                (index, victim) = self.unlink_oldest(order).expect("a group has members");
                self.drop_group_if_empty(order);
            }
            self.ordered -= 1;
            self.nodes[index as usize].home = Home::InHand;
            return Some((self.id(index), victim));
        }
        None
    }

    /// The first busy entry after `after` by level and age.
    pub(crate) fn busy_after(&self, after: Option<BusyKey>) -> Option<(BusyKey, Weak<dyn Victim>)> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let at = *self.busy.range((from, Unbounded)).next()?;
        let What::One { victim, .. } = &self.nodes[at.2 as usize].what else {
            unreachable!("only objects are busy")
        };
        Some((at, victim.clone()))
    }

    /// All entries with their homes, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Home, &Weak<dyn Victim>)> {
        self.nodes.iter().filter_map(|node| match &node.what {
            What::One { victim, .. } => Some((node.home, victim)),
            _ => None,
        })
    }

    /// The ordered entries of a level, in the order in which they would be evicted.
    pub(crate) fn in_order(&self, level: u8) -> Vec<Weak<dyn Victim>> {
        let mut entries = Vec::new();
        for (_, index) in self.sorted(u32::from(level)) {
            match &self.nodes[index as usize].what {
                What::One { victim, .. } => entries.push(victim.clone()),
                What::Group { order, .. } => {
                    for (_, member) in self.sorted(*order) {
                        if let What::One { victim, .. } = &self.nodes[member as usize].what {
                            entries.push(victim.clone());
                        }
                    }
                }
                What::Free { .. } => {}
            }
        }
        entries
    }
}
