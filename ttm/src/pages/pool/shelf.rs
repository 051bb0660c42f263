//! Where runs lie: sorted by kind, cleanliness and order.

use placement::{CacheMode, PageCount};

use crate::cache::Ledger;
use crate::pages::{Dirty, FrameKind, FrameRun, Want, Zeroed, order_of};

use super::config::{index_of, kind_at};
use super::magazine::Magazines;
use super::table::PoolRow;

/// Orders that there are: up to 2^52 pages.
const ORDERS: usize = 53;

/// Runs of an order that are looked at for one of the exact length.
const LOOKED_AT: usize = 16;

/// A run that was found.
pub(super) enum Found {
    Zeroed(FrameRun<Zeroed>),
    Dirty(FrameRun<Dirty>),
}

impl Found {
    pub(super) fn pages(&self) -> PageCount {
        match self {
            Self::Zeroed(run) => run.pages(),
            Self::Dirty(run) => run.pages(),
        }
    }

    pub(super) fn kind(&self) -> FrameKind {
        match self {
            Self::Zeroed(run) => run.kind(),
            Self::Dirty(run) => run.kind(),
        }
    }
}

/// The runs of one kind and cleanliness, by order; the last given is the first taken.
struct Orders<C> {
    lists: [Vec<FrameRun<C>>; ORDERS],
    pages: u64,
}

impl<C> Orders<C> {
    fn new() -> Self {
        Self {
            lists: core::array::from_fn(|_| Vec::new()),
            pages: 0,
        }
    }

    fn put(&mut self, run: FrameRun<C>) {
        self.pages += run.pages().get();
        self.lists[usize::from(run.order())].push(run);
    }

    /// A run of `pages` pages, or one that is longer and of the same order.
    fn take(&mut self, pages: PageCount) -> Option<FrameRun<C>> {
        let list = &mut self.lists[usize::from(order_of(pages))];
        let youngest = list.len().saturating_sub(LOOKED_AT);
        let exact = list[youngest..].iter().rposition(|r| r.pages() == pages);
        let longer = || list[youngest..].iter().rposition(|r| r.pages() > pages);
        let at = exact.or_else(longer)?;
        let run = list.remove(youngest + at);
        self.pages -= run.pages().get();
        Some(run)
    }

    /// The oldest of the largest runs.
    fn take_largest(&mut self) -> Option<FrameRun<C>> {
        let list = self.lists.iter_mut().rev().find(|list| !list.is_empty())?;
        let run = list.remove(0);
        self.pages -= run.pages().get();
        Some(run)
    }

    fn rows(&self, kind: FrameKind, zeroed: bool, rows: &mut Vec<PoolRow>) {
        for (order, list) in (0..).zip(&self.lists).filter(|(_, list)| !list.is_empty()) {
            rows.push(PoolRow {
                kind,
                order,
                zeroed,
                runs: list.len() as u64,
                pages: list.iter().map(|r| r.pages().get()).sum(),
                huge: list.iter().filter(|r| r.is_huge()).count() as u64,
            });
        }
    }

    fn check(&self, kind: FrameKind, ledger: &Ledger) -> Result<(), String> {
        let mut sum = 0;
        for (order, list) in self.lists.iter().enumerate() {
            for run in list {
                sum += run.pages().get();
                if run.kind() != kind || usize::from(run.order()) != order {
                    return Err(format!("I-29: {run:?} lies with {kind}, order {order}"));
                }
                let mode = ledger.mode_of(run.span().area(), CacheMode::Cached);
                if mode != kind.mode {
                    return Err(format!("I-23: {run:?} is {mode} by the ledger"));
                }
            }
        }
        if sum != self.pages {
            return Err(format!(
                "I-29: {sum} pages of {kind}, {} counted",
                self.pages
            ));
        }
        Ok(())
    }
}

/// # Invariants
/// I-29: runs lie with their own kind and order, and the counters are right.
pub(super) struct Shelves {
    classes: Vec<Class>,
    /// Pages that were handed out here and not given back here; magazines count their own.
    pub(super) owned: i64,
    /// The kind from which the next run is taken when the pool shrinks.
    turn: usize,
}

struct Class {
    zeroed: Orders<Zeroed>,
    dirty: Orders<Dirty>,
}

impl Class {
    fn pages(&self) -> u64 {
        self.zeroed.pages + self.dirty.pages
    }

    fn take_largest(&mut self) -> Option<FrameRun<Dirty>> {
        // Zeroed ones cost something to make again.
        let dirty = self.dirty.take_largest();
        dirty.or_else(|| self.zeroed.take_largest().map(FrameRun::dirtied))
    }
}

impl Shelves {
    pub(super) fn new(nodes: u8) -> Self {
        let class = |_| Class {
            zeroed: Orders::new(),
            dirty: Orders::new(),
        };
        Self {
            classes: (0..usize::from(nodes) * 9).map(class).collect(),
            owned: 0,
            turn: 0,
        }
    }

    pub(super) fn put_zeroed(&mut self, run: FrameRun<Zeroed>) {
        self.classes[index_of(run.kind())].zeroed.put(run);
    }

    pub(super) fn put_dirty(&mut self, run: FrameRun<Dirty>) {
        self.classes[index_of(run.kind())].dirty.put(run);
    }

    /// Takes what `want` says. What is longer is cut; answers the rest too.
    pub(super) fn take(
        &mut self,
        want: &Want,
        zeroed_first: bool,
    ) -> Option<(Found, Option<Found>)> {
        let class = &mut self.classes[index_of(want.kind)];
        let zeroed = |class: &mut Class| class.zeroed.take(want.pages).map(Found::Zeroed);
        let dirty = |class: &mut Class| class.dirty.take(want.pages).map(Found::Dirty);
        let mut found = match zeroed_first {
            true => zeroed(class).or_else(|| dirty(class)),
            false => dirty(class).or_else(|| zeroed(class)),
        }?;
        let rest = match &mut found {
            Found::Zeroed(run) if run.pages() > want.pages => {
                Some(Found::Zeroed(run.split_off(want.pages)))
            }
            Found::Dirty(run) if run.pages() > want.pages => {
                Some(Found::Dirty(run.split_off(want.pages)))
            }
            _ => None,
        };
        Some((found, rest))
    }

    /// A dirty run of any kind, at most `most` pages long, to be zeroed.
    pub(super) fn take_dirty(&mut self, most: u64) -> Option<FrameRun<Dirty>> {
        for class in &mut self.classes {
            for list in &mut class.dirty.lists {
                if let Some(run) = list.pop_if(|run| run.pages().get() <= most) {
                    class.dirty.pages -= run.pages().get();
                    return Some(run);
                }
            }
        }
        None
    }

    /// A run to be given back to the system, from each kind in turn.
    pub(super) fn take_for_shrink(&mut self) -> Option<FrameRun<Dirty>> {
        for _ in 0..self.classes.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.classes.len();
            if let Some(run) = self.take_of(index) {
                return Some(run);
            }
        }
        None
    }

    pub(super) fn take_of(&mut self, index: usize) -> Option<FrameRun<Dirty>> {
        self.classes[index].take_largest()
    }

    pub(super) fn pages(&self) -> u64 {
        self.classes.iter().map(Class::pages).sum()
    }

    pub(super) fn on_node(&self, node: u8) -> u64 {
        let first = usize::from(node) * 9;
        self.classes[first..first + 9]
            .iter()
            .map(Class::pages)
            .sum()
    }

    pub(super) fn of_kind(&self, kind: FrameKind) -> u64 {
        self.classes[index_of(kind)].pages()
    }

    /// Zeroed pages of the default kind in runs of `pages` pages.
    pub(super) fn ready(&self, pages: PageCount) -> u64 {
        let class = &self.classes[index_of(FrameKind::default())];
        let list = &class.zeroed.lists[usize::from(order_of(pages))];
        list.iter().map(|r| r.pages().get()).sum()
    }

    pub(super) fn rows(&self, magazines: &Magazines) -> Vec<PoolRow> {
        let mut rows = magazines.rows();
        for (index, class) in self.classes.iter().enumerate() {
            class.zeroed.rows(kind_at(index), true, &mut rows);
            class.dirty.rows(kind_at(index), false, &mut rows);
        }
        rows
    }

    pub(super) fn check(&self, ledger: &Ledger) -> Result<(), String> {
        for (index, class) in self.classes.iter().enumerate() {
            class.zeroed.check(kind_at(index), ledger)?;
            class.dirty.check(kind_at(index), ledger)?;
        }
        Ok(())
    }
}
