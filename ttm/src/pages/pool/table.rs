//! What a pool holds and has done, for people.

use core::fmt;

use placement::PageCount;

use crate::pages::FrameKind;

/// What is pooled of one kind, order and cleanliness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolRow {
    /// Of what kind: mode, zone and node.
    pub kind: FrameKind,
    /// Of what order.
    pub order: u8,
    /// Whether they are zero.
    pub zeroed: bool,
    /// How many runs.
    pub runs: u64,
    /// How many pages.
    pub pages: u64,
    /// How many of the runs are huge pages of the host.
    pub huge: u64,
}

/// What a pool has done since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolCounts {
    /// Single frames that were taken by way of a magazine.
    pub small_takes: u64,
    /// Single frames that were given by way of a magazine.
    pub small_gives: u64,
    /// Pages that came fresh from the source.
    pub fresh_pages: u64,
    /// Pages that went back to the source.
    pub released_pages: u64,
    /// Pages that were zeroed while their taker waited.
    pub zeroed_at_once: u64,
    /// Pages that the refill service zeroed.
    pub zeroed_behind: u64,
    /// Runs that were cut because they were longer than wished for.
    pub cut: u64,
    /// Wishes that source and pool together could not fulfil.
    pub refused: u64,
}

/// A pool at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolTable {
    /// What is pooled.
    pub rows: Vec<PoolRow>,
    /// What it has done.
    pub counts: PoolCounts,
    /// Pages that are with owners.
    pub owned: PageCount,
    /// Pages that are pooled.
    pub pooled: PageCount,
}

impl PoolTable {
    pub(super) fn new(
        rows: Vec<PoolRow>,
        counts: PoolCounts,
        owned: PageCount,
        pooled: PageCount,
    ) -> Self {
        Self {
            rows,
            counts,
            owned,
            pooled,
        }
    }
}

/// Prints one line a row, and the sums.
impl fmt::Display for PoolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(
                f,
                "{:<32} order {:>2} {:<6} {:>6} runs {:>9} pages {:>5} huge",
                row.kind.to_string(),
                row.order,
                if row.zeroed { "zeroed" } else { "dirty" },
                row.runs,
                row.pages,
                row.huge
            )?;
        }
        write!(f, "{} with owners, {} pooled", self.owned, self.pooled)
    }
}
