//! Who evicts, oldest first, and what was freed meanwhile.
//!
//! A transaction that evicts holds a claim. Space that is freed in its window serves the oldest
//! claim first; others see it as taken. One that finds nobody to ask sleeps while another may
//! leave something: the younger until the older ends, the oldest until the others rest. So
//! somebody always goes on, and nobody gives up too early.

use placement::{Extents, PageRange};
use smallvec::SmallVec;

use crate::clock::WaitCell;
use crate::sync::Arc;

/// The claims on one memory, by age.
#[derive(Default)]
pub(super) struct Claims {
    claims: Vec<Claim>,
    numbers: u64,
}

struct Claim {
    number: u64,
    age: u64,
    window: PageRange,
    freed: SmallVec<[PageRange; 4]>,
    /// Its transaction sleeps, for whatever, with no victim in hand.
    resting: bool,
    /// Where it sleeps, if it is for the other claims.
    sleeper: Option<Arc<WaitCell>>,
}

/// What a transaction does that found nobody left to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AfterHunt {
    /// Nothing can come any more.
    GiveUp,
    /// Something has changed meanwhile.
    Again,
    /// The same, and nobody else evicts here: it may have been this transaction's own doing.
    AgainAlone,
    /// Another transaction may leave something.
    Sleep,
}

impl Claims {
    /// Registers a claim; answers its number.
    pub(super) fn add(&mut self, age: u64, window: PageRange) -> u64 {
        self.numbers += 1;
        let at = self.claims.partition_point(|c| c.age <= age);
        self.claims.insert(
            at,
            Claim {
                number: self.numbers,
                age,
                window,
                freed: SmallVec::new(),
                resting: false,
                sleeper: None,
            },
        );
        self.numbers
    }

    /// Ends a claim. Answers everybody who sleeps for that.
    pub(super) fn end(&mut self, number: u64) -> SmallVec<[Arc<WaitCell>; 2]> {
        self.claims.retain(|c| c.number != number);
        let claims = self.claims.iter_mut();
        claims.filter_map(|c| c.sleeper.take()).collect()
    }

    fn find(&mut self, number: u64) -> Option<&mut Claim> {
        self.claims.iter_mut().find(|c| c.number == number)
    }

    /// Notes that a claim's transaction rests. Answers the oldest's sleeper, who waits for that.
    pub(super) fn rest(&mut self, number: u64) -> Option<Arc<WaitCell>> {
        self.find(number)?.resting = true;
        let oldest = self.claims.first_mut()?;
        if oldest.number == number {
            return None;
        }
        oldest.sleeper.take()
    }

    /// Its transaction goes on.
    pub(super) fn awake(&mut self, number: u64) {
        if let Some(claim) = self.find(number) {
            claim.resting = false;
            claim.sleeper = None;
        }
    }

    /// What the transaction of `own` does, and who has to be woken first. If it sleeps, it is at
    /// `cell`.
    pub(super) fn after_hunt(
        &mut self,
        own: u64,
        changed: bool,
        cell: &Arc<WaitCell>,
    ) -> (AfterHunt, Option<Arc<WaitCell>>) {
        let oldest = self.claims.first().is_none_or(|c| c.number == own);
        let others_rest = self.claims.iter().all(|c| c.number == own || c.resting);
        if oldest && others_rest {
            let after = match (changed, self.claims.len()) {
                (false, _) => AfterHunt::GiveUp,
                (true, 0 | 1) => AfterHunt::AgainAlone,
                (true, _) => AfterHunt::Again,
            };
            return (after, None);
        }
        let wakes = self.rest(own);
        if let Some(claim) = self.find(own) {
            claim.sleeper = Some(Arc::clone(cell));
        }
        (AfterHunt::Sleep, wakes)
    }

    /// Notes freed pages for the oldest claim that can use them.
    pub(super) fn freed(&mut self, range: PageRange) {
        let claim = self.claims.iter_mut().find(|c| c.window.intersects(&range));
        if let Some(claim) = claim {
            claim.freed.push(range);
        }
    }

    /// Whether an older claim than `own` waits for any of these pages.
    pub(super) fn keep(&self, extents: &Extents, own: Option<u64>) -> bool {
        self.claims
            .iter()
            .take_while(|claim| Some(claim.number) != own)
            .flat_map(|claim| &claim.freed)
            .any(|freed| extents.iter().any(|e| e.range().intersects(freed)))
    }
}
