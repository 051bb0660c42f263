//! What a walk sees of an object.

use core::any::Any;
use core::cell::Cell;

use placement::{MemType, PageCount, PageRange};

use crate::context::OpContext;
use crate::error::Result;
use crate::reservation::{Held, Lockable, Ticket};
use crate::sync::Arc;

use super::group::Group;
use super::walk::Level;

/// Something that holds a resource and can be asked to leave. Implemented far above this module;
/// a manager knows no more of its objects than this.
pub(crate) trait Victim: Lockable + Any {
    /// The object's number.
    fn object(&self) -> u64;

    /// The stamp of the last transaction that held it.
    fn stamp(&self) -> u64;

    /// The client that it is charged to.
    fn group(&self) -> Option<&Arc<Group>>;

    /// Whether its last handle is gone.
    fn is_released(&self) -> bool;

    /// Whether a transaction has locked this very object, not only its reservation. The caller
    /// holds the reservation.
    fn is_locked_by_name(&self) -> bool;

    /// Leaves `mem_type`, or says why not. The caller holds the reservation.
    ///
    /// # Errors
    /// Those of a validate; the object is where it was.
    fn leave(self: Arc<Self>, held: &Held<'_>, mem_type: MemType, ask: &Ask<'_>) -> Result<Left>;

    /// Gives up space and pages, because the last handle is gone. Answers false, and does
    /// nothing, if somebody holds the reservation.
    fn take_down(&self) -> bool;

    /// Looks whether the object's move has ended. Answers false if it has not, or somebody holds
    /// the reservation.
    fn try_settle(&self) -> bool;
}

/// Who asks a victim to leave, and on which terms.
pub(crate) struct Ask<'a> {
    /// The asking transaction.
    pub(crate) ticket: Ticket<'a>,
    /// Its terms.
    pub(crate) context: &'a OpContext,
    /// The object that wants room, 0 if the memory is cleared.
    pub(crate) wanted_by: u64,
    /// Pages that would help it.
    pub(crate) window: PageRange,
    /// Its client.
    pub(crate) group: Option<&'a Group>,
    /// The memory types that are being evicted from, as bits: an eviction may not push others
    /// out of a type that the chain came through.
    pub(crate) chain: u16,
    /// Only victims that no fence holds up are wanted: others would have to be waited for.
    pub(crate) idle_only: bool,
    /// Only objects of clients are wanted that have more than their share of system memory.
    pub(crate) fairly: bool,
    /// System pages in use at which a swap-out has given enough.
    pub(crate) until: Option<PageCount>,
    /// System pages in use when a reclaim for this hunt freed nothing, if one did.
    pub(crate) dry: Option<&'a Cell<Option<PageCount>>>,
    /// Whether it may use what was put by for a suspend.
    pub(crate) stash: bool,
    /// The evictions that led to this one.
    pub(crate) level: Option<&'a Level<'a>>,
    /// The lock that made a nested step fail with `Deadlock`.
    pub(crate) lost: &'a dyn Fn(Option<Arc<dyn Lockable>>),
}

/// How a victim answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// It is gone from the memory type.
    Gone,
    /// It stays, for that reason; ask another.
    Stays(&'static str),
}
