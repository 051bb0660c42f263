//! Space that objects hold, and who gives it up when it is short.
//!
//! A [`Manager`] looks after one memory type: which pages are taken (a
//! [`Space`](placement::space::Space)), by whom, in which order they were last used
//! ([`lru`](self)), what is still behind fences, and who has a claim on what is freed next. A
//! [`Resource`] is the space of one object; dropping it gives it back. A walk proposes victims,
//! least recently used first, without knowing what a buffer is: it sees a [`Victim`].
//!
//! The order is exact and costs the users nothing: a transaction stamps its objects when it ends
//! and touches no list. The recorded order is put right by whoever evicts, entry by entry.

mod bulk;
mod claims;
mod grant;
mod group;
mod lru;
mod manager;
mod region;
mod victim;
mod walk;

pub use bulk::Bulk;
pub(crate) use claims::AfterHunt;
pub(crate) use grant::Resource;
pub(crate) use group::Protection;
pub use group::{Group, Limits};
pub(crate) use lru::{Home, NodeId};
pub(crate) use manager::{ClaimGuard, Order, TakeRefused, Taken};
pub use manager::{Manager, MemoryKind, Usage};
pub use region::Region;
pub(crate) use victim::{Ask, Left, Victim};
pub(crate) use walk::{Level, Walk};

/// Eviction priorities: 0 goes first, a walk visits all of one before the next.
pub const PRIORITIES: usize = 4;

/// Levels of the order of eviction: that of objects that nobody needs, and the priorities.
pub(crate) const LEVELS: usize = PRIORITIES + 1;

/// The level of objects whose content nobody needs: they go before all others.
pub(crate) const UNNEEDED: u8 = 0;

/// The level of a priority.
pub(crate) const fn level_of(priority: u8) -> u8 {
    priority + 1
}
