//! One sequence of the order: a list in the order of arrival, and a 4-ary heap of what was put
//! right.

use crate::sync::Arc;

use super::{Link, Lru, NONE, Victim};

/// A list in the order of arrival, and a heap of what was put right.
pub(super) struct Sequence {
    pub(super) head: u32,
    tail: u32,
    pub(super) heap: Vec<u32>,
}

impl Sequence {
    pub(super) const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            heap: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE && self.heap.is_empty()
    }
}

impl Lru {
    pub(super) fn link(&mut self, order: u32, index: u32) {
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

    pub(super) fn unlink(&mut self, index: u32) {
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
    pub(super) fn unlink_oldest(&mut self, order: u32) -> Option<(u32, Option<Arc<dyn Victim>>)> {
        loop {
            let index = self.front(order)?;
            let (newest, victim) = self.look_at(index);
            if newest == self.nodes[index as usize].key {
                self.unlink(index);
                return Some((index, victim));
            }
            self.unlink(index);
            self.nodes[index as usize].key = newest;
            // Still the oldest by what is recorded of the others, which are no older than that?
            let next = self.front(order).map(|n| self.nodes[n as usize].key);
            if next.is_none_or(|next| newest <= next) {
                return Some((index, victim));
            }
            self.link(order, index);
        }
    }

    /// The entries of a sequence with their newest keys, oldest first.
    pub(super) fn sorted(&self, order: u32) -> Vec<(u64, u32)> {
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
}
