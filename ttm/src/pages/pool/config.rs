//! How much a pool may keep.

use placement::{CacheMode, PageCount};

use crate::pages::{Dirty, FrameKind, FrameRun, Zone};
use crate::sync::atomic::{AtomicU64, Ordering};

use super::shelf::Shelves;

/// What a pool is made with; everything but the reserve can be changed later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Frames that are pooled at most, over all kinds.
    pub limit: PageCount,
    /// Zeroed frames in runs of 2 MiB that the refill service keeps ready, if there is one.
    pub reserve: PageCount,
}

impl Default for PoolConfig {
    /// 256 MiB, and nothing fetched ahead.
    fn default() -> Self {
        Self {
            limit: PageCount::new(1 << 16).expect("below the greatest count"),
            reserve: PageCount::ZERO,
        }
    }
}

/// Which limit of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolLimit {
    /// All that is pooled.
    All,
    /// What is pooled of one NUMA node.
    Node(u8),
    /// What is pooled of one kind.
    Kind(FrameKind),
}

/// The number of a kind: by node, zone and mode.
pub(super) fn index_of(kind: FrameKind) -> usize {
    (usize::from(kind.node) * Zone::ALL.len() + kind.zone as usize) * 3 + kind.mode as usize
}

/// The kind of that number.
pub(super) fn kind_at(index: usize) -> FrameKind {
    FrameKind {
        mode: CacheMode::ALL[index % 3],
        zone: Zone::ALL[index / 3 % 3],
        node: u8::try_from(index / 9).expect("a node of the source"),
    }
}

/// The limits, changeable at any time.
pub(super) struct Limits {
    all: AtomicU64,
    nodes: Vec<AtomicU64>,
    kinds: Vec<AtomicU64>,
    pub(super) reserve: u64,
}

impl Limits {
    pub(super) fn new(config: &PoolConfig, nodes: u8) -> Self {
        let endless = |n: usize| (0..n).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self {
            all: AtomicU64::new(config.limit.get()),
            nodes: endless(usize::from(nodes)),
            kinds: endless(usize::from(nodes) * 9),
            reserve: config.reserve.get(),
        }
    }

    fn cell(&self, limit: PoolLimit) -> Option<&AtomicU64> {
        match limit {
            PoolLimit::All => Some(&self.all),
            PoolLimit::Node(node) => self.nodes.get(usize::from(node)),
            PoolLimit::Kind(kind) => self.kinds.get(index_of(kind)),
        }
    }

    /// A node or kind that the source does not have is never pooled, so its limit is nothing.
    pub(super) fn set(&self, limit: PoolLimit, pages: PageCount) {
        if let Some(cell) = self.cell(limit) {
            cell.store(pages.get(), Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, limit: PoolLimit) -> PageCount {
        let pages = self.cell(limit).map_or(0, |n| n.load(Ordering::Relaxed));
        PageCount::new(pages).unwrap_or(PageCount::MAX)
    }

    /// Whether `pages` more of a kind may be pooled. `depot` is what is pooled in magazines.
    pub(super) fn admit(
        &self,
        shelves: &Shelves,
        depot: u64,
        kind: FrameKind,
        pages: PageCount,
    ) -> bool {
        let fits = |limit: &AtomicU64, used: u64| {
            used.saturating_add(pages.get()) <= limit.load(Ordering::Relaxed)
        };
        let singles = if kind == FrameKind::default() {
            depot
        } else {
            0
        };
        let of_node = if kind.node == 0 { depot } else { 0 };
        fits(&self.all, shelves.pages() + depot)
            && fits(
                &self.nodes[usize::from(kind.node)],
                shelves.on_node(kind.node) + of_node,
            )
            && fits(&self.kinds[index_of(kind)], shelves.of_kind(kind) + singles)
    }

    /// Takes a run off the shelves that is above a limit.
    pub(super) fn take_excess(&self, shelves: &mut Shelves, depot: u64) -> Option<FrameRun<Dirty>> {
        let over = |limit: &AtomicU64, used: u64| used > limit.load(Ordering::Relaxed);
        for index in 0..self.kinds.len() {
            let kind = kind_at(index);
            let above = over(&self.kinds[index], shelves.of_kind(kind))
                || over(
                    &self.nodes[usize::from(kind.node)],
                    shelves.on_node(kind.node),
                );
            if above && let Some(run) = shelves.take_of(index) {
                return Some(run);
            }
        }
        if over(&self.all, shelves.pages() + depot) {
            return shelves.take_for_shrink();
        }
        None
    }

    /// Whether what is in magazines alone is above a limit.
    pub(super) fn is_exceeded_by(&self, shelves: &Shelves, depot: u64) -> bool {
        let none = PageCount::ZERO;
        depot > 0 && !self.admit(shelves, depot, FrameKind::default(), none)
    }

    /// I-32 for the shelves.
    pub(super) fn check(&self, shelves: &Shelves) -> Result<(), String> {
        let within = |what: &str, used: u64, limit: &AtomicU64| {
            let limit = limit.load(Ordering::Relaxed);
            if used > limit {
                return Err(format!(
                    "I-32: {used} pages pooled {what}, the limit is {limit}"
                ));
            }
            Ok(())
        };
        within("in all", shelves.pages(), &self.all)?;
        for (node, limit) in (0..).zip(&self.nodes) {
            within("on a node", shelves.on_node(node), limit)?;
        }
        for (index, limit) in self.kinds.iter().enumerate() {
            within("of a kind", shelves.of_kind(kind_at(index)), limit)?;
        }
        Ok(())
    }
}
