//! Reading the tree of holes: the widest hole, all holes, and the check of its laws.

use alloc::format;
use alloc::string::String;

use super::holes::Holes;
use super::leaf::{Hole, Leaf};
use super::links::{Neighbour, Place};
use super::node::Weight;
use super::tree::Tree;
use super::want::Want;
use crate::PageRange;

/// A block's first page, the page after it, how its neighbours know it, and these.
pub(super) type Block = (u64, u64, Neighbour, Neighbour, Neighbour);

impl Holes {
    /// The width of the widest hole.
    pub(super) fn largest(&self) -> u64 {
        self.leaves
            .iter()
            .map(Leaf::widest_width)
            .max()
            .unwrap_or(0)
    }

    /// Looks at the holes in or across `window` until `look` says to stop.
    pub(super) fn visit(&self, window: PageRange, mut look: impl FnMut(&Hole) -> bool) {
        let any = Want {
            window,
            ..Want::ANY
        };
        self.tree.seek(&any, &mut |leaf| {
            let leaf = &self.leaves[leaf as usize];
            leaf.slots()
                .any(|slot| look(&leaf.hole(slot)))
                .then_some(())
        });
    }

    /// All holes.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.leaves.iter().enumerate().flat_map(|(id, leaf)| {
            leaf.slots().map(move |slot| {
                let (hole, this) = (leaf.hole(slot), Place::new(id as u32, slot));
                let [before, after] = [hole.before, hole.after].map(Neighbour::grant);
                (hole.start, hole.end, Neighbour::hole(this), before, after)
            })
        })
    }

    /// Checks the invariants.
    pub(super) fn check(&self) -> Result<(), String> {
        self.tree.check(&|id, bounds| {
            let leaf = &self.leaves[id as usize];
            let ordered = leaf.is_in_order() && leaf.weigh() <= leaf.widest;
            let bounded = bounds.start <= leaf.low && leaf.high <= bounds.end;
            if !ordered || !bounded || (leaf.len() == 0 && !self.tree.is_leaf()) {
                return Err(format!("leaf {id} of {bounds:#x?}: {leaf:?}"));
            }
            match leaf
                .slots()
                .find(|&slot| !bounds.contains(&leaf.hole(slot).start))
            {
                Some(slot) => Err(format!("{:x?} is not in {bounds:#x?}", leaf.hole(slot))),
                None => Ok(leaf.widest),
            }
        })
    }
}

impl Tree {
    /// Checks the invariants; `weigh` checks a leaf against the bounds of its holes.
    fn check(
        &self,
        weigh: &impl Fn(u32, core::ops::Range<u64>) -> Result<Weight, String>,
    ) -> Result<(), String> {
        let widest = self.check_node(self.root, self.height, 0..u64::MAX, weigh)?;
        match widest == self.widest() {
            true => Ok(()),
            false => Err(format!("the tree weighs {widest}, not {}", self.widest())),
        }
    }

    fn check_node(
        &self,
        id: u32,
        height: usize,
        bounds: core::ops::Range<u64>,
        weigh: &impl Fn(u32, core::ops::Range<u64>) -> Result<Weight, String>,
    ) -> Result<Weight, String> {
        if height == 0 {
            return weigh(id, bounds);
        }
        let node = &self.nodes[id as usize];
        if node.len() == 0 || (id == self.root && node.len() == 1) {
            return Err(format!("node {id} at level {height} is too small"));
        }
        for slot in 0..node.len() {
            let key = node.key(slot);
            if slot > 0 && !bounds.contains(&key) {
                return Err(format!("key {key:#x} of node {id} is not in {bounds:#x?}"));
            }
            let lower = if slot == 0 { bounds.start } else { key };
            let upper = match slot + 1 < node.len() {
                true => node.key(slot + 1),
                false => bounds.end,
            };
            let weighs = self.check_node(node.below(slot), height - 1, lower..upper, weigh)?;
            if weighs != node.weight(slot) {
                return Err(format!(
                    "slot {slot} of node {id} weighs {weighs}: {node:?}"
                ));
            }
        }
        Ok(node.widest())
    }
}
