//! Planted defects: wrong on purpose, one at a time, to see that the checks find them.
//!
//! Compiled only with the feature `plant`, which no product build has.

use crate::sync::atomic::{AtomicU8, Ordering};

/// A defect that can be planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Defect {
    /// None: everything works.
    None,
    /// The fence of a move is not added to the object.
    DroppedFence,
    /// Retired space is handed on before its fence.
    EarlyReuse,
    /// A moved object stays on the list of its old place.
    StaleResource,
    /// Giving space back does not lower the usage.
    LostUncharge,
    /// Frames are handed to a new owner with the old content.
    SkippedZeroing,
    /// A copy leaves out the last page.
    OffByOneExtent,
    /// A transaction does not go back when an older one wants its locks.
    NoBackOff,
    /// What was written through a window stays in the CPU's caches.
    SkippedFlush,
    /// Frames get another mode that the ledger is not told.
    UntoldMode,
    /// What comes back from the backup is not compared with its checksums.
    UnverifiedLoad,
    /// A move does not keep the CPU out.
    NoRevoke,
    /// What was written while a copy was under way is not copied again.
    NoDirtyRecopy,
    /// A device loses what it is still at work on.
    EarlyUnmap,
    /// A device goes on finding frames that are given away.
    NoUnmap,
}

static ACTIVE: AtomicU8 = AtomicU8::new(Defect::None as u8);

/// Plants `defect`, in the whole process, in place of the one before.
pub fn set(defect: Defect) {
    ACTIVE.store(defect as u8, Ordering::SeqCst);
}

/// Whether `defect` is planted.
#[must_use]
pub fn is(defect: Defect) -> bool {
    ACTIVE.load(Ordering::Relaxed) == defect as u8
}
