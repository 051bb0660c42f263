//! Clients as groups, with protection and limits per memory type.

use core::fmt;

use placement::{MemType, PageCount};

use crate::error::{Error, Result};
use crate::pages::Client;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What a group is promised and allowed in one memory type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Up to this, its objects are never evicted for others.
    pub min: PageCount,
    /// Up to this, its objects are evicted for others only if nothing else is left.
    pub low: PageCount,
    /// It never holds more than this.
    pub max: PageCount,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min: PageCount::ZERO,
            low: PageCount::ZERO,
            max: PageCount::MAX,
        }
    }
}

/// How well a victim is protected from a requester.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Protection {
    None,
    Low,
    Min,
}

#[derive(Debug)]
struct Account {
    used: AtomicU64,
    min: AtomicU64,
    low: AtomicU64,
    max: AtomicU64,
}

/// A client, or a group of clients: what it uses counts for its parents too.
///
/// ```
/// use ttm::resource::{Group, Limits};
/// use ttm::placement::{MemType, PageCount};
/// let desktop = Group::new("desktop", None);
/// let game = Group::new("game", Some(&desktop));
/// let max = PageCount::new(1000).unwrap();
/// desktop.set_limits(MemType::VRAM, Limits { max, ..Limits::default() });
/// assert_eq!(game.used(MemType::VRAM).get(), 0);
/// assert_eq!(desktop.limits(MemType::VRAM).max, max);
/// ```
pub struct Group {
    name: Box<str>,
    parent: Option<Arc<Group>>,
    accounts: [Account; MemType::COUNT],
    client: Arc<Client>,
}

impl Group {
    /// A group without protection or limits.
    #[must_use]
    pub fn new(name: &str, parent: Option<&Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            parent: parent.cloned(),
            accounts: core::array::from_fn(|_| Account {
                used: AtomicU64::new(0),
                min: AtomicU64::new(0),
                low: AtomicU64::new(0),
                max: AtomicU64::new(PageCount::MAX.get()),
            }),
            client: Arc::default(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its weight when system memory is short, 100 unless set: who has more than his part by weight
    /// is swapped out first.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.client.weight()
    }

    /// Sets its weight, at any time; at least 1.
    pub fn set_weight(&self, weight: u32) {
        self.client.set_weight(weight);
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Sets protection and limit, at any time. What is used beyond the limit stays; nothing new
    /// is granted until it fits (F-31).
    pub fn set_limits(&self, mem_type: MemType, limits: Limits) {
        let account = &self.accounts[mem_type.index()];
        account.min.store(limits.min.get(), Ordering::Relaxed);
        account.low.store(limits.low.get(), Ordering::Relaxed);
        account.max.store(limits.max.get(), Ordering::Relaxed);
    }

    /// Its protection and limit.
    #[must_use]
    pub fn limits(&self, mem_type: MemType) -> Limits {
        let account = &self.accounts[mem_type.index()];
        let pages = |n: &AtomicU64| PageCount::new(n.load(Ordering::Relaxed)).expect("was one");
        Limits {
            min: pages(&account.min),
            low: pages(&account.low),
            max: pages(&account.max),
        }
    }

    /// What it and its children use.
    #[must_use]
    pub fn used(&self, mem_type: MemType) -> PageCount {
        let used = self.accounts[mem_type.index()].used.load(Ordering::Relaxed);
        PageCount::new(used).expect("a sum of grants")
    }

    fn ancestry(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |group| group.parent.as_deref())
    }

    /// Whether `self` is `other` or below it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.ancestry().any(|group| core::ptr::eq(group, other))
    }

    /// Charges the group and its parents.
    ///
    /// # Errors
    /// [`Error::OverLimit`] with the group whose limit it is; nothing was charged.
    pub(crate) fn charge(
        &self,
        mem_type: MemType,
        pages: PageCount,
    ) -> core::result::Result<(), (Error, &Self)> {
        for group in self.ancestry() {
            let account = &group.accounts[mem_type.index()];
            let max = account.max.load(Ordering::Relaxed);
            let fits = account
                .used
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    used.checked_add(pages.get()).filter(|sum| *sum <= max)
                });
            if fits.is_err() {
                self.uncharge_below(group, mem_type, pages);
                let limit = PageCount::new(max).expect("was one");
                return Err((Error::OverLimit { mem_type, limit }, group));
            }
        }
        Ok(())
    }

    fn uncharge_below(&self, end: &Self, mem_type: MemType, pages: PageCount) {
        for group in self.ancestry() {
            if core::ptr::eq(group, end) {
                return;
            }
            group.accounts[mem_type.index()]
                .used
                .fetch_sub(pages.get(), Ordering::Relaxed);
        }
    }

    /// Charges whatever the limits say: the pages never left the group's objects.
    pub(crate) fn recharge(&self, mem_type: MemType, pages: PageCount) {
        for group in self.ancestry() {
            group.accounts[mem_type.index()]
                .used
                .fetch_add(pages.get(), Ordering::Relaxed);
        }
    }

    pub(crate) fn uncharge(&self, mem_type: MemType, pages: PageCount) {
        for group in self.ancestry() {
            let before = group.accounts[mem_type.index()]
                .used
                .fetch_sub(pages.get(), Ordering::Relaxed);
            debug_assert!(before >= pages.get(), "a group is uncharged below zero");
        }
    }

    /// How well an object of this group is protected from `requester`. Its own group, and those
    /// above it, protect nothing from it.
    pub(crate) fn protection(&self, mem_type: MemType, requester: Option<&Self>) -> Protection {
        self.ancestry()
            .filter(|group| !requester.is_some_and(|r| r.is_within(group)))
            .map(|group| {
                let account = &group.accounts[mem_type.index()];
                let used = account.used.load(Ordering::Relaxed);
                if used <= account.min.load(Ordering::Relaxed) {
                    Protection::Min
                } else if used <= account.low.load(Ordering::Relaxed) {
                    Protection::Low
                } else {
                    Protection::None
                }
            })
            .max()
            .unwrap_or(Protection::None)
    }

    /// Whether `pages` more would still be under the protection of this group.
    pub(crate) fn is_protected_with(&self, mem_type: MemType, pages: PageCount) -> bool {
        let account = &self.accounts[mem_type.index()];
        let used = account.used.load(Ordering::Relaxed) + pages.get();
        let min = account.min.load(Ordering::Relaxed);
        used <= min.max(account.low.load(Ordering::Relaxed))
    }
}

/// Pushes an error without its group.
pub(crate) fn refuse(result: core::result::Result<(), (Error, &Group)>) -> Result<()> {
    result.map_err(|(error, _)| error)
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(n: u64) -> PageCount {
        PageCount::new(n).unwrap()
    }

    fn limits(min: u64, low: u64, max: u64) -> Limits {
        Limits {
            min: pages(min),
            low: pages(low),
            max: pages(max),
        }
    }

    #[test]
    fn a_parents_limit_binds_its_children_and_a_refusal_charges_nobody() {
        let parent = Group::new("parent", None);
        let child = Group::new("child", Some(&parent));
        parent.set_limits(MemType::VRAM, limits(0, 0, 10));
        child.charge(MemType::VRAM, pages(8)).unwrap();
        let (error, group) = child.charge(MemType::VRAM, pages(3)).unwrap_err();
        assert_eq!((error.to_errno(), group.name()), (11, "parent"));
        assert_eq!(child.used(MemType::VRAM), pages(8));
        assert_eq!(parent.used(MemType::VRAM), pages(8));
        child.uncharge(MemType::VRAM, pages(8));
        assert_eq!(parent.used(MemType::VRAM), pages(0));
    }

    #[test]
    fn a_limit_below_the_usage_refuses_what_is_new_and_keeps_what_is_old() {
        let group = Group::new("g", None);
        group.charge(MemType::VRAM, pages(8)).unwrap();
        group.set_limits(MemType::VRAM, limits(0, 0, 0));
        assert!(group.charge(MemType::VRAM, pages(1)).is_err());
        group.uncharge(MemType::VRAM, pages(8));
        assert_eq!(group.used(MemType::VRAM), pages(0));
    }

    #[test]
    fn protection_is_against_others_only() {
        let game = Group::new("game", None);
        let miner = Group::new("miner", None);
        game.set_limits(MemType::VRAM, limits(4, 8, 100));
        game.charge(MemType::VRAM, pages(6)).unwrap();
        assert_eq!(
            game.protection(MemType::VRAM, Some(&miner)),
            Protection::Low
        );
        assert_eq!(
            game.protection(MemType::VRAM, Some(&game)),
            Protection::None
        );
        game.uncharge(MemType::VRAM, pages(3));
        assert_eq!(game.protection(MemType::VRAM, None), Protection::Min);
    }
}
