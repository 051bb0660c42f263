//! What shows an object to the CPU, and follows it when it moves.

use core::cell::Cell;
use core::ops::Range;

use smallvec::SmallVec;

use crate::error::Result;
use crate::pages::FileRange;
use crate::sync::{Arc, Weak};

/// Where the parts of an object lie that the CPU can map now, in the object's order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) parts: SmallVec<[ShownPart; 1]>,
}

/// Adjoining pages of an object that adjoin in a file too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ShownPart {
    /// The first page, counted from the object's beginning.
    pub(crate) first: u64,
    pub(crate) pages: u64,
    pub(crate) file: FileRange,
}

impl ShownPart {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.pages
    }

    /// What of the part is in `range`.
    pub(crate) fn within(&self, range: &Range<u64>) -> Option<Self> {
        let first = self.first.max(range.start);
        let end = self.end().min(range.end);
        (first < end).then(|| Self {
            first,
            pages: end - first,
            file: self.file.later((first - self.first) * placement::PAGE_SIZE),
        })
    }
}

impl Shown {
    /// Adds a part behind the others.
    pub(crate) fn push(&mut self, part: ShownPart) {
        if let Some(last) = self.parts.last_mut()
            && last.end() == part.first
            && last
                .file
                .is_followed_by(&part.file, last.pages * placement::PAGE_SIZE)
        {
            last.pages += part.pages;
        } else {
            self.parts.push(part);
        }
    }

    /// What of it is in `range`.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = ShownPart> {
        self.parts
            .iter()
            .filter_map(move |part| part.within(&range))
    }
}

/// Something that shows an object. Called under the object's reservation.
///
/// A move calls `prepare`, then `revoke` (or `track`, copies, `revoke`, and copies again what was
/// `written`), and in the end `follow`, with the new place or, if it failed, the old one. Without
/// the last call accesses wait until somebody asks for the content.
pub(crate) trait View: Send + Sync {
    /// The content will lie in `shown` soon: what following needs is made ready, if that pays.
    fn prepare(&self, shown: &Shown);

    /// Notes from now on which pages are written. False if it cannot.
    fn track(&self) -> bool;

    /// From the return on, every access waits. Answers whether anything was shown before.
    ///
    /// # Errors
    /// What the address space says; accesses go on, or wait.
    fn revoke(&self) -> Result<bool>;

    /// The pages that were written between `track` and `revoke`.
    ///
    /// # Errors
    /// What the address space says; then any may have been.
    fn written(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()>;

    /// The content lies in `shown`, and nowhere else. Accesses may go on.
    fn follow(&self, shown: &Shown);

    /// I-19, I-20 and I-25: nothing is shown but what lies in `shown`.
    fn check(&self, shown: &Shown) -> core::result::Result<(), String>;
}

/// The views of one object.
#[derive(Default)]
pub(crate) struct Views {
    views: Vec<Weak<dyn View>>,
    precopy: Precopy,
}

impl Views {
    pub(crate) fn add(&mut self, view: Weak<dyn View>) {
        self.views.retain(|view| view.strong_count() > 0);
        self.views.push(view);
    }

    /// Those that are alive.
    pub(crate) fn live(&self) -> LiveViews {
        self.views.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn precopy(&self) -> &Precopy {
        &self.precopy
    }
}

/// Views that stay alive for the time of a move.
pub(crate) type LiveViews = SmallVec<[Arc<dyn View>; 2]>;

/// Whether copying while writers go on pays, as the object's last moves have it. Used under its
/// reservation.
#[derive(Default)]
pub(crate) struct Precopy {
    /// Moves to do without it.
    left: Cell<u32>,
    /// How many it was the last time.
    skipped: Cell<u32>,
}

impl Precopy {
    /// After so many moves without it is tried again.
    const MOST: u32 = 63;

    /// Whether the next move tries it.
    pub(crate) fn is_due(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left == 0
    }

    /// Of `pages` pages, `again` had to be copied again.
    pub(crate) fn learn(&self, again: u64, pages: u64) {
        let skip = match again * 4 > pages {
            true => (self.skipped.get() * 2 + 1).min(Self::MOST),
            false => 0,
        };
        self.skipped.set(skip);
        self.left.set(skip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pay_is_tried_less_and_less() {
        let precopy = Precopy::default();
        let mut tried = Vec::new();
        for n in 0..200 {
            if precopy.is_due() {
                tried.push(n);
                precopy.learn(90, 100);
            }
        }
        assert_eq!(tried, [0, 2, 6, 14, 30, 62, 126, 190]);
        while !precopy.is_due() {}
        precopy.learn(1, 100);
        assert!(precopy.is_due());
    }
}
