//! How much system memory a device may populate, and whose it is.

use std::collections::BTreeMap;

use placement::PageCount;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

/// The weight of a client that nobody gave another.
const WEIGHT: u32 = 100;

/// Who populates pages: one client of a device, with a weight in the division of what there is.
#[derive(Debug)]
pub struct Client {
    weight: AtomicU32,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            weight: AtomicU32::new(WEIGHT),
        }
    }
}

impl Client {
    /// Its share, relative to others'; 100 unless set.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Sets its share, at any time; at least 1.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
    }
}

/// A limit on populated pages, changeable at any time, and what is used of it.
///
/// Two limits: above the *soft* one others are swapped out in the background, above the *hard* one
/// whoever wants pages swaps others out himself first, or waits.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    soft: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
    clients: Mutex<BTreeMap<usize, Share>>,
}

/// What one client has; there while it has any.
#[derive(Debug)]
struct Share {
    client: Arc<Client>,
    used: u64,
}

impl Budget {
    /// Nothing used of `limit`, and no soft limit.
    #[must_use]
    pub fn new(limit: PageCount) -> Self {
        Self {
            limit: AtomicU64::new(limit.get()),
            soft: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            clients: Mutex::new(BTreeMap::new()),
        }
    }

    /// Charges `pages`, to `client` too.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if they do not fit; nothing was charged.
    pub fn charge(&self, pages: PageCount, client: Option<&Arc<Client>>) -> Result<()> {
        let limit = self.limit.load(Ordering::Relaxed);
        let charged = self
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(pages.get()).filter(|sum| *sum <= limit)
            });
        match charged {
            Ok(before) => {
                self.peak.fetch_max(before + pages.get(), Ordering::Relaxed);
                self.assign(pages, client);
                Ok(())
            }
            Err(_) => Err(Error::no_memory(pages)),
        }
    }

    /// Gives pages that are charged already to a client.
    pub(crate) fn assign(&self, pages: PageCount, client: Option<&Arc<Client>>) {
        if let Some(client) = client {
            let mut clients = self.clients.lock();
            let share = clients.entry(key(client)).or_insert_with(|| Share {
                client: Arc::clone(client),
                used: 0,
            });
            share.used += pages.get();
        }
    }

    /// Gives a charge back.
    pub fn uncharge(&self, pages: PageCount, client: Option<&Arc<Client>>) {
        let before = self.used.fetch_sub(pages.get(), Ordering::Relaxed);
        debug_assert!(before >= pages.get(), "uncharged more than was charged");
        if let Some(client) = client {
            let mut clients = self.clients.lock();
            let key = key(client);
            let share = clients.get_mut(&key).expect("a client that was charged");
            share.used -= pages.get();
            if share.used == 0 {
                clients.remove(&key);
            }
        }
    }

    /// What `client` uses.
    #[must_use]
    pub fn used_by(&self, client: &Arc<Client>) -> PageCount {
        let used = self.clients.lock().get(&key(client)).map_or(0, |s| s.used);
        PageCount::new(used).unwrap_or(PageCount::MAX)
    }

    /// Whether `client` uses more than its part, by weight, of what all clients together use.
    #[must_use]
    pub fn is_over_share(&self, client: &Arc<Client>) -> bool {
        let clients = self.clients.lock();
        let Some(own) = clients.get(&key(client)) else {
            return false;
        };
        let (mut used, mut weights) = (0u128, 0u128);
        for share in clients.values() {
            used += u128::from(share.used);
            weights += u128::from(share.client.weight());
        }
        // own / used > weight / weights, without a division.
        u128::from(own.used) * weights > used * u128::from(client.weight())
    }

    /// Whether several clients have pages.
    pub(crate) fn has_rivals(&self) -> bool {
        self.clients.lock().len() > 1
    }

    /// Sets the hard limit. What is used beyond it stays; new charges wait until it fits.
    pub fn set_limit(&self, limit: PageCount) {
        self.limit.store(limit.get(), Ordering::Relaxed);
    }

    /// Sets the soft limit; [`PageCount::MAX`] is none.
    pub fn set_soft_limit(&self, limit: PageCount) {
        self.soft.store(limit.get(), Ordering::Relaxed);
    }

    /// The hard limit.
    #[must_use]
    pub fn limit(&self) -> PageCount {
        PageCount::new(self.limit.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }

    /// The soft limit.
    #[must_use]
    pub fn soft_limit(&self) -> PageCount {
        PageCount::new(self.soft.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }

    /// Pages above the soft limit.
    #[must_use]
    pub fn excess(&self) -> PageCount {
        self.used().saturating_sub(self.soft_limit())
    }

    /// What is used.
    #[must_use]
    pub fn used(&self) -> PageCount {
        PageCount::new(self.used.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }

    /// The most that was ever used.
    #[must_use]
    pub fn peak(&self) -> PageCount {
        PageCount::new(self.peak.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
    }

    /// I-03 for clients: together they have no more than is used.
    pub(crate) fn check(&self) -> core::result::Result<(), String> {
        let clients: u64 = self.clients.lock().values().map(|share| share.used).sum();
        let used = self.used().get();
        if clients > used {
            return Err(format!("I-03: clients have {clients} pages of {used} used"));
        }
        Ok(())
    }
}

/// A client as a number, for as long as it lives.
fn key(client: &Arc<Client>) -> usize {
    Arc::as_ptr(client) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(n: u64) -> PageCount {
        PageCount::new(n).unwrap()
    }

    #[test]
    fn a_refused_charge_changes_nothing() {
        let budget = Budget::new(pages(10));
        let client = Arc::new(Client::default());
        budget.charge(pages(7), Some(&client)).unwrap();
        assert!(budget.charge(pages(4), Some(&client)).is_err());
        assert_eq!(budget.used(), pages(7));
        assert_eq!(budget.used_by(&client), pages(7));
        budget.set_limit(pages(3));
        assert!(budget.charge(pages(1), None).is_err());
        budget.uncharge(pages(7), Some(&client));
        budget.charge(pages(3), None).unwrap();
        assert_eq!(budget.peak(), pages(7));
        assert_eq!(budget.used_by(&client), pages(0));
        budget.check().unwrap();
    }

    #[test]
    fn shares_follow_the_weights() {
        let budget = Budget::new(pages(1000));
        let [hog, modest] = [(); 2].map(|()| Arc::new(Client::default()));
        budget.charge(pages(60), Some(&hog)).unwrap();
        budget.charge(pages(40), Some(&modest)).unwrap();
        assert!(budget.is_over_share(&hog) && !budget.is_over_share(&modest));
        hog.set_weight(300);
        assert!(!budget.is_over_share(&hog) && budget.is_over_share(&modest));
        budget.uncharge(pages(40), Some(&modest));
        // Alone, it has exactly its share.
        assert!(!budget.is_over_share(&hog) && !budget.is_over_share(&modest));
    }

    #[test]
    fn the_soft_limit_refuses_nothing() {
        let budget = Budget::new(pages(10));
        assert_eq!(budget.excess(), pages(0));
        budget.set_soft_limit(pages(4));
        budget.charge(pages(9), None).unwrap();
        assert_eq!(budget.excess(), pages(5));
    }
}
