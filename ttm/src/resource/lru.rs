//! The order of eviction.
//!
//! ```text
//!   priority 0 ─▶ a ─ b ─ [bulk: c ─ d] ─ e      list, in the order of arrival
//!                 f, g                           heap, what was put right later
//!   priority 1 ─▶ …
//!   out of order: in a walk's hand · busy (found locked) · unevictable (pinned, swapped, …)
//! ```
//!
//! Each entry has a *key*, the moment of its last use as far as this list knows. A use writes only
//! the object's own stamp; the entry that is about to be taken is compared with it, and goes back
//! with its newer key if it was used meanwhile. What arrives is the youngest and goes to the end of
//! a list in constant time; only what is put right goes through a heap. The oldest of both is
//! exactly the least recently used one.

use std::collections::{BTreeMap, BTreeSet};

use crate::sync::{Arc, Weak};

use super::PRIORITIES;
use super::bulk::Bulk;
use super::victim::Victim;

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
    pub(super) const fn to_key(self) -> u64 {
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
    /// The order that it belongs to: a priority's or a bulk entry's.
    order: u32,
    priority: u8,
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
    /// Stands in a priority's order for all ordered members of a group.
    Group {
        bulk: Arc<Bulk>,
        order: u32,
    },
}

/// A list in the order of arrival, and a heap of what was put right.
struct Sequence {
    head: u32,
    tail: u32,
    heap: Vec<u32>,
}

impl Sequence {
    const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            heap: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.head == NONE && self.heap.is_empty()
    }
}

/// All entries of a manager.
///
/// # Invariants
/// An entry with [`Home::Ordered`] is linked in exactly one sequence, any other in none (I-41);
/// a list's keys never fall; a group entry exists while, and only while, it has ordered members.
pub(crate) struct Lru {
    nodes: Vec<Node>,
    free: u32,
    /// One for each priority, then one for each group entry.
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
            orders: (0..PRIORITIES).map(|_| Sequence::new()).collect(),
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
        priority: u8,
        bulk: Option<Arc<Bulk>>,
        home: Home,
    ) -> NodeId {
        debug_assert!((priority as usize) < PRIORITIES);
        let index = self.new_node(Node {
            generation: 0,
            key,
            home: Home::Unevictable,
            link: Link::Out,
            order: NONE,
            priority,
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
            self.busy.insert((node.priority, node.key, index));
        }
    }

    /// Where an entry is; `None` if it is gone.
    pub(crate) fn home(&self, id: NodeId) -> Option<Home> {
        self.find(id).map(|index| self.nodes[index as usize].home)
    }

    /// Changes priority and group of an entry.
    pub(crate) fn reclassify(&mut self, id: NodeId, priority: u8, bulk: Option<Arc<Bulk>>) {
        let index = self
            .find(id)
            .expect("a resource's entry lives as long as it");
        let home = self.nodes[index as usize].home;
        self.leave(index, Home::InHand);
        let node = &mut self.nodes[index as usize];
        node.priority = priority;
        if let What::One { bulk: old, .. } = &mut node.what {
            *old = bulk;
        }
        node.home = Home::InHand;
        let id = self.id(index);
        self.set_home(id, home);
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
                self.busy.remove(&(node.priority, node.key, index));
            }
            Home::InHand | Home::Unevictable => {}
        }
        self.nodes[index as usize].home = to;
    }

    /// Puts an entry into its sequence.
    fn enter(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let (priority, key) = (node.priority, node.key);
        let bulk = match &node.what {
            What::One { bulk, .. } => bulk.clone(),
            _ => unreachable!("only objects enter an order"),
        };
        let order = match bulk {
            None => u32::from(priority),
            Some(bulk) => self.group_order(bulk, priority, key),
        };
        self.nodes[index as usize].home = Home::Ordered;
        self.ordered += 1;
        self.link(order, index);
    }

    /// The sequence of a group's members, made if there is none.
    fn group_order(&mut self, bulk: Arc<Bulk>, priority: u8, key: u64) -> u32 {
        if let Some(group) = self.groups.get(&(bulk.id(), priority)) {
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
            priority,
            what: What::Group { bulk, order },
        });
        self.groups.insert((id, priority), group);
        self.link(u32::from(priority), group);
        order
    }

    fn drop_group_if_empty(&mut self, order: u32) {
        if (order as usize) < PRIORITIES || !self.orders[order as usize].is_empty() {
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
        let node = &self.nodes[index as usize];
        let stamp = match &node.what {
            What::One { victim, .. } => victim.upgrade().map_or(0, |v| v.stamp()),
            What::Group { bulk, .. } => bulk.stamp(),
            What::Free { .. } => 0,
        };
        node.key.max(key_of_stamp(stamp))
    }

    fn refresh(&mut self, index: u32) {
        self.nodes[index as usize].key = self.newest_key(index);
    }

    fn link(&mut self, order: u32, index: u32) {
        let key = self.nodes[index as usize].key;
        let sequence = &mut self.orders[order as usize];
        let tail = sequence.tail;
        let link = if tail == NONE || self.nodes[tail as usize].key <= key {
            sequence.tail = index;
            if tail == NONE {
                sequence.head = index;
            } else if let Link::List { next, .. } = &mut self.nodes[tail as usize].link {
                *next = index;
            }
            Link::List {
                prev: tail,
                next: NONE,
            }
        } else {
            sequence.heap.push(index);
            Link::Heap {
                at: u32::try_from(sequence.heap.len() - 1).expect("fewer than 2^32 objects"),
            }
        };
        let node = &mut self.nodes[index as usize];
        node.link = link;
        node.order = order;
        if let Link::Heap { at } = link {
            self.sift_up(order, at as usize);
        }
    }

    fn unlink(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let order = node.order;
        let link = core::mem::replace(&mut node.link, Link::Out);
        match link {
            Link::Out => unreachable!("an ordered entry is linked"),
            Link::List { prev, next } => {
                self.join(order, prev, next);
            }
            Link::Heap { at } => {
                let at = at as usize;
                let heap = &mut self.orders[order as usize].heap;
                heap.swap_remove(at);
                if at < heap.len() {
                    self.place(order, at);
                    self.sift_up(order, at);
                    self.sift_down(order, at);
                }
            }
        }
    }

    fn join(&mut self, order: u32, prev: u32, next: u32) {
        match self.nodes.get_mut(prev as usize).map(|n| &mut n.link) {
            Some(Link::List { next: n, .. }) => *n = next,
            _ => self.orders[order as usize].head = next,
        }
        match self.nodes.get_mut(next as usize).map(|n| &mut n.link) {
            Some(Link::List { prev: p, .. }) => *p = prev,
            _ => self.orders[order as usize].tail = prev,
        }
    }

    /// Notes in the entry where the heap has it.
    fn place(&mut self, order: u32, at: usize) {
        let index = self.orders[order as usize].heap[at];
        self.nodes[index as usize].link = Link::Heap {
            at: u32::try_from(at).expect("fewer than 2^32 objects"),
        };
    }

    fn heap_key(&self, order: u32, at: usize) -> Option<u64> {
        let index = self.orders[order as usize].heap.get(at)?;
        Some(self.nodes[*index as usize].key)
    }

    fn heap_swap(&mut self, order: u32, a: usize, b: usize) {
        self.orders[order as usize].heap.swap(a, b);
        self.place(order, a);
        self.place(order, b);
    }

    fn sift_up(&mut self, order: u32, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 4;
            if self.heap_key(order, parent) <= self.heap_key(order, at) {
                return;
            }
            self.heap_swap(order, parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self, order: u32, mut at: usize) {
        loop {
            let children = (4 * at + 1)..(4 * at + 5);
            let least = children
                .filter_map(|c| self.heap_key(order, c).map(|key| (key, c)))
                .min();
            match least {
                Some((key, child)) if Some(key) < self.heap_key(order, at) => {
                    self.heap_swap(order, child, at);
                    at = child;
                }
                _ => return,
            }
        }
    }

    /// The oldest entry by the recorded keys.
    fn front(&self, order: u32) -> Option<u32> {
        let sequence = &self.orders[order as usize];
        let head = self.nodes.get(sequence.head as usize);
        let top = sequence
            .heap
            .first()
            .map(|n| (*n, self.nodes[*n as usize].key));
        match (head, top) {
            (Some(head), Some((_, key))) if head.key <= key => Some(sequence.head),
            (_, Some((top, _))) => Some(top),
            (Some(_), None) => Some(sequence.head),
            (None, None) => None,
        }
    }

    /// Takes the oldest entry of a sequence off it, putting right what was used meanwhile.
    fn unlink_oldest(&mut self, order: u32) -> Option<u32> {
        loop {
            let index = self.front(order)?;
            let newest = self.newest_key(index);
            if newest == self.nodes[index as usize].key {
                self.unlink(index);
                return Some(index);
            }
            self.unlink(index);
            self.nodes[index as usize].key = newest;
            // Still the oldest by what is recorded of the others, which are no older than that?
            let next = self.front(order).map(|n| self.nodes[n as usize].key);
            if next.is_none_or(|next| newest <= next) {
                return Some(index);
            }
            self.link(order, index);
        }
    }

    /// Takes the least recently used entry of the lowest priority in hand.
    pub(crate) fn take_oldest(&mut self) -> Option<(NodeId, Weak<dyn Victim>)> {
        for priority in 0..PRIORITIES as u32 {
            let Some(mut index) = self.unlink_oldest(priority) else {
                continue;
            };
            if let What::Group { order, .. } = self.nodes[index as usize].what {
                // The group stays where it was, with one member less.
                self.link(priority, index);
                index = self.unlink_oldest(order).expect("a group has members");
                self.drop_group_if_empty(order);
            }
            self.ordered -= 1;
            let node = &mut self.nodes[index as usize];
            node.home = Home::InHand;
            let What::One { victim, .. } = &node.what else {
                unreachable!("groups have only objects as members")
            };
            let victim = victim.clone();
            return Some((self.id(index), victim));
        }
        None
    }

    /// The first busy entry after `after` by priority and age.
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

    /// The ordered entries of a priority, in the order in which they would be evicted.
    pub(crate) fn in_order(&self, priority: u8) -> Vec<Weak<dyn Victim>> {
        let mut entries = Vec::new();
        for (_, index) in self.sorted(u32::from(priority)) {
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

    fn sorted(&self, order: u32) -> Vec<(u64, u32)> {
        let sequence = &self.orders[order as usize];
        let mut all: Vec<_> = sequence.heap.clone();
        let mut at = sequence.head;
        while let Some(node) = self.nodes.get(at as usize) {
            all.push(at);
            let Link::List { next, .. } = node.link else {
                break;
            };
            at = next;
        }
        let mut keyed: Vec<_> = all.into_iter().map(|n| (self.newest_key(n), n)).collect();
        keyed.sort_unstable();
        keyed
    }

    /// The invariants of the type.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut linked = vec![0u32; self.nodes.len()];
        for (order, sequence) in self.orders.iter().enumerate() {
            self.check_sequence(order, sequence, &mut linked)?;
        }
        let mut ordered = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            let expected = match (&node.what, node.home) {
                (What::Free { .. }, _) => 0,
                (What::Group { .. }, _) => 1,
                (What::One { .. }, Home::Ordered) => {
                    ordered += 1;
                    1
                }
                (What::One { .. }, _) => 0,
            };
            if linked[index] != expected {
                return Err(format!(
                    "I-41: entry {index} ({:?}) is on {} lists",
                    node.home, linked[index]
                ));
            }
        }
        if ordered != self.ordered {
            return Err(format!(
                "I-41: {ordered} entries ordered, {} counted",
                self.ordered
            ));
        }
        Ok(())
    }

    fn check_sequence(
        &self,
        order: usize,
        sequence: &Sequence,
        linked: &mut [u32],
    ) -> Result<(), String> {
        let mut at = sequence.head;
        let mut last = 0;
        while let Some(node) = self.nodes.get(at as usize) {
            linked[at as usize] += 1;
            if node.order as usize != order || node.key < last {
                return Err(format!("I-42: entry {at} is out of order in list {order}"));
            }
            last = node.key;
            let Link::List { next, .. } = node.link else {
                return Err(format!(
                    "I-41: entry {at} is on a list and thinks it is not"
                ));
            };
            at = next;
        }
        for (n, index) in sequence.heap.iter().enumerate() {
            linked[*index as usize] += 1;
            let node = &self.nodes[*index as usize];
            if node.link != (Link::Heap { at: n as u32 }) || node.order as usize != order {
                return Err(format!(
                    "I-41: entry {index} is in a heap and thinks it is not"
                ));
            }
            if n > 0 && self.nodes[sequence.heap[(n - 1) / 4] as usize].key > node.key {
                return Err(format!(
                    "I-42: entry {index} is older than its parent in the heap"
                ));
            }
        }
        Ok(())
    }
}
