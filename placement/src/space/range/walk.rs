//! Reading the tree of holes: the widest hole, all holes in order, and the check of its laws.

use alloc::format;
use alloc::string::String;

use super::holes::Holes;
use super::node::{Weight, weight};

impl Holes {
    /// The width of the widest hole.
    pub(super) fn largest(&self) -> u64 {
        match self.widest {
            Weight::MAX => self.largest_of(self.root, self.height),
            exact => exact as u64,
        }
    }

    /// The width of the widest hole below a node; looks only at those too wide for a weight.
    fn largest_of(&self, id: u32, level: usize) -> u64 {
        let node = &self.nodes[id as usize];
        let wide = (0..node.len()).filter(|&slot| node.weight(slot) == Weight::MAX);
        let widths = wide.map(|slot| match level {
            0 => node.value(slot) - node.key(slot),
            _ => self.largest_of(node.value(slot) as u32, level - 1),
        });
        widths.max().unwrap_or(0)
    }

    /// All holes, in address order, as `(start, end)`.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.from(0)
    }

    /// The holes from the last one that begins at or before `page` on, in address order.
    pub(super) fn from(&self, page: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut path = self.path_to_hole(page).unwrap_or_else(|| self.path_to(0));
        core::iter::from_fn(move || {
            let leaf = &self.nodes[path.node(0)];
            if path.slot(0) >= leaf.len() {
                let up = (1..=self.height)
                    .find(|&level| path.slot(level) + 1 < self.nodes[path.node(level)].len())?;
                path.slots[up] += 1;
                for level in (0..up).rev() {
                    let above = &self.nodes[path.node(level + 1)];
                    path.nodes[level] = above.value(path.slot(level + 1)) as u32;
                    path.slots[level] = 0;
                }
                if self.nodes[path.node(0)].len() == 0 {
                    return None;
                }
            }
            let hole = self.hole_at(&path);
            path.slots[0] += 1;
            Some(hole)
        })
    }

    /// Checks the invariants.
    pub(super) fn check(&self) -> Result<(), String> {
        let widest = self.check_node(self.root, self.height, 0..u64::MAX)?;
        if widest != self.widest {
            return Err(format!("the widest hole is {widest}, not {}", self.widest));
        }
        let mut last = None;
        for (start, end) in self.iter() {
            if end <= start || last.is_some_and(|last| start <= last) {
                return Err(format!(
                    "hole {start:#x}..{end:#x} after one that ends at {last:x?}"
                ));
            }
            last = Some(end);
        }
        Ok(())
    }

    fn check_node(
        &self,
        id: u32,
        level: usize,
        bounds: core::ops::Range<u64>,
    ) -> Result<Weight, String> {
        let node = &self.nodes[id as usize];
        if node.len() == 0 && (level > 0 || id != self.root) {
            return Err(format!("node {id} at level {level} is empty"));
        }
        for slot in 0..node.len() {
            let (key, value) = (node.key(slot), node.value(slot));
            if (slot > 0 || level == 0) && !bounds.contains(&key) {
                return Err(format!("key {key:#x} of node {id} is not in {bounds:#x?}"));
            }
            let weighs = match level {
                0 => weight(value - key),
                _ => {
                    let lower = if slot == 0 { bounds.start } else { key };
                    let upper = if slot + 1 < node.len() {
                        node.key(slot + 1)
                    } else {
                        bounds.end
                    };
                    self.check_node(value as u32, level - 1, lower..upper)?
                }
            };
            if weighs != node.weight(slot) {
                return Err(format!(
                    "slot {slot} of node {id} weighs {weighs}: {node:?}"
                ));
            }
        }
        Ok(node.widest())
    }
}
