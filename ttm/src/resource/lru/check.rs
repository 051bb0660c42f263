//! The invariants of the order.

use super::sequence::Sequence;
use super::{Home, Link, Lru, What};

impl Lru {
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
                (What::One { bulk, .. }, Home::Ordered) => {
                    if bulk.is_none() && node.order != u32::from(node.level) {
                        return Err(format!(
                            "I-41: entry {index} of level {} is in the order {}",
                            node.level, node.order
                        ));
                    }
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
