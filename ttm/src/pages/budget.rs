//! How much system memory the device may populate.

use placement::PageCount;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU64, Ordering};

/// A limit on populated pages, changeable at any time, and what is used of it.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
}

impl Budget {
    /// Nothing used of `limit`.
    #[must_use]
    pub fn new(limit: PageCount) -> Self {
        Self {
            limit: AtomicU64::new(limit.get()),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    /// Charges `pages`.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if they do not fit; nothing was charged.
    pub fn charge(&self, pages: PageCount) -> Result<()> {
        let limit = self.limit.load(Ordering::Relaxed);
        let charged = self
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(pages.get()).filter(|sum| *sum <= limit)
            });
        match charged {
            Ok(before) => {
                self.peak.fetch_max(before + pages.get(), Ordering::Relaxed);
                Ok(())
            }
            Err(_) => Err(Error::NoMemory { wanted: pages }),
        }
    }

    /// Gives a charge back.
    pub fn uncharge(&self, pages: PageCount) {
        let before = self.used.fetch_sub(pages.get(), Ordering::Relaxed);
        debug_assert!(before >= pages.get(), "uncharged more than was charged");
    }

    /// Sets the limit. What is used beyond it stays; new charges wait until it fits.
    pub fn set_limit(&self, limit: PageCount) {
        self.limit.store(limit.get(), Ordering::Relaxed);
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> PageCount {
        PageCount::new(self.limit.load(Ordering::Relaxed)).unwrap_or(PageCount::MAX)
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
        budget.charge(pages(7)).unwrap();
        assert!(budget.charge(pages(4)).is_err());
        assert_eq!(budget.used(), pages(7));
        budget.set_limit(pages(3));
        assert!(budget.charge(pages(1)).is_err());
        budget.uncharge(pages(7));
        budget.charge(pages(3)).unwrap();
        assert_eq!(budget.peak(), pages(7));
    }
}
