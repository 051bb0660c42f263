//! Who is attached to a buffer, and whether another may be.
//!
//! ```text
//!   attach ──▶ wanted() narrows ──▶ settle(storage) ──▶ map ──▶ attach: held to the storage
//!                                        ▲                         │ misfit, all can move
//!                                        └──── unmap, move ◀───────┘ MigrateFirst
//! ```
//!
//! Before there is storage, attaching only narrows what is wanted. Afterwards a new attachment is
//! held to the storage as it is. Detaching widens what is wanted of the next storage, and moves
//! nothing. Nothing is mapped or moved here: the caller does that, and says so.

mod explain;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{Bound, Constraints, Empty, Field, Misfit, Storage};

pub use explain::{Explanation, Reason};

/// An attachment of one [`Solver`]. Never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttachmentId(u32);

/// A wish to attach.
#[derive(Clone, Copy, Debug)]
pub struct AttachRequest<'a> {
    /// What it is called where bounds are explained.
    pub name: &'a str,
    /// What it can use.
    pub constraints: Constraints,
    /// Whether the storage may move while it is mapped, once it was told.
    pub dynamic: bool,
}

/// What came of a wish to attach.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "only what fits is attached"]
pub enum AttachOutcome {
    /// It is attached.
    Fits(AttachmentId),
    /// It is not, until the storage has moved; nobody stands against that.
    MigrateFirst(Migration),
    /// It is not, and will not be while those are attached that are.
    Incompatible {
        /// What it is about.
        field: Field,
        /// What there is, or what those ask that are attached.
        have: Bound,
        /// What the new one asks, or what stands against it.
        want: Bound,
        /// Those that keep the storage where it is, if it could move otherwise.
        held_by: Vec<AttachmentId>,
    },
}

/// How to make room for a new attachment: unmap, move, settle, attach again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Those to be told, and unmapped.
    pub unmap: Vec<AttachmentId>,
    /// What the new storage has to be like.
    pub to: Constraints,
    /// Why that of now will not do.
    pub because: Misfit,
}

/// Somebody attached.
#[derive(Clone, Debug)]
struct Attachment {
    name: String,
    constraints: Constraints,
    dynamic: bool,
    mapped: u32,
    pinned: u32,
}

impl Attachment {
    /// Whether the storage has to stay where it is for it.
    fn holds(&self) -> bool {
        self.pinned > 0 || (self.mapped > 0 && !self.dynamic)
    }
}

/// The attachments of one buffer, and its storage.
///
/// # Invariants
/// The storage, if there is any, is accepted by everybody attached. Nothing is mapped without it.
///
/// ```
/// use ttm::dma::{AttachOutcome, AttachRequest, BusRange, Constraints, DmaAddr, Mask, Solver};
/// use ttm::dma::{Storage, StorageKind};
///
/// let mut solver = Solver::new(Constraints::ANY).unwrap();
/// let card = AttachRequest { name: "card", constraints: Constraints::ANY, dynamic: true };
/// let AttachOutcome::Fits(card) = solver.attach(&card) else { panic!("the first always fits") };
///
/// let high = BusRange { addr: DmaAddr::new(1 << 40).unwrap(), len: 4096 };
/// solver.settle(Storage::new(StorageKind::Ram, &[high]).unwrap()).unwrap();
/// solver.map(card);
///
/// // A camera that comes late and reaches less: the card may be moved, so it has to be.
/// let constraints = Constraints { limit: Mask::bits(32), ..Constraints::ANY };
/// let camera = AttachRequest { name: "camera", constraints, dynamic: false };
/// let AttachOutcome::MigrateFirst(plan) = solver.attach(&camera) else { panic!("too high") };
/// assert_eq!((plan.unmap, plan.to.limit), (vec![card], Mask::bits(32)));
///
/// solver.unmap(card);
/// let low = BusRange { addr: DmaAddr::new(1 << 20).unwrap(), len: 4096 };
/// solver.settle(Storage::new(StorageKind::Ram, &[low]).unwrap()).unwrap();
/// assert!(matches!(solver.attach(&camera), AttachOutcome::Fits(_)));
/// let why = solver.explain().unwrap().to_string();
/// assert!(why.contains("addresses within a 32-bit mask: camera"), "{why}");
/// ```
#[derive(Clone, Debug)]
pub struct Solver {
    own: Constraints,
    attached: BTreeMap<AttachmentId, Attachment>,
    storage: Option<Storage>,
    next: u32,
}

impl Solver {
    /// A buffer that nobody is attached to, and that can be stored so.
    ///
    /// # Errors
    /// [`Empty`]: it can not.
    pub fn new(own: Constraints) -> Result<Self, Empty> {
        Ok(Self {
            own: own.normal()?,
            attached: BTreeMap::new(),
            storage: None,
            next: 0,
        })
    }

    /// What the next storage has to be like for everybody attached.
    ///
    /// # Errors
    /// [`Empty`]: no storage is wide enough to choose from, though that of now may do.
    pub fn wanted(&self) -> Result<Constraints, Empty> {
        self.wanted_with(None)
    }

    /// The storage, once there is any.
    #[must_use]
    pub const fn storage(&self) -> Option<&Storage> {
        self.storage.as_ref()
    }

    /// Attaches, if what there is or will be fits. Otherwise nothing has changed.
    ///
    /// Two or more share the buffer: then none of them may be served by copies.
    pub fn attach(&mut self, request: &AttachRequest<'_>) -> AttachOutcome {
        let joint = self.wanted_with(Some(&request.constraints));
        let misfit = match &self.storage {
            Some(storage) => self.serves(storage, Some(&request.constraints)).err(),
            None => None,
        };
        match (misfit, joint) {
            (None, Err(empty)) if self.storage.is_none() => incompatible(empty),
            (None, _) => AttachOutcome::Fits(self.enter(request)),
            (Some(_), Err(empty)) => incompatible(empty),
            (Some(because), Ok(to)) => self.migration(because, to),
        }
    }

    fn enter(&mut self, request: &AttachRequest<'_>) -> AttachmentId {
        let id = AttachmentId(self.next);
        self.next += 1;
        let attachment = Attachment {
            name: request.name.to_owned(),
            constraints: request.constraints,
            dynamic: request.dynamic,
            mapped: 0,
            pinned: 0,
        };
        self.attached.insert(id, attachment);
        id
    }

    fn migration(&self, because: Misfit, to: Constraints) -> AttachOutcome {
        let held_by = self.ids(Attachment::holds);
        match held_by.is_empty() {
            true => AttachOutcome::MigrateFirst(Migration {
                unmap: self.ids(|attachment| attachment.mapped > 0),
                to,
                because,
            }),
            false => AttachOutcome::Incompatible {
                field: because.field,
                have: because.have,
                want: because.want,
                held_by,
            },
        }
    }

    /// Says where the buffer is now: for the first time, or after it has moved.
    ///
    /// # Errors
    /// [`Misfit`]: somebody attached cannot use it there; nothing has changed.
    ///
    /// # Panics
    /// If something is mapped or pinned.
    pub fn settle(&mut self, storage: Storage) -> Result<(), Misfit> {
        self.assert_free("moves");
        self.serves(&storage, None)?;
        self.storage = Some(storage);
        Ok(())
    }

    /// Says that the buffer has no storage now: the next is chosen by what is wanted then.
    ///
    /// # Panics
    /// If something is mapped or pinned.
    pub fn vacate(&mut self) {
        self.assert_free("is given up");
        self.storage = None;
    }

    /// Says that somebody has the buffer mapped, once more.
    ///
    /// # Panics
    /// If there is no storage, or no such attachment.
    pub fn map(&mut self, id: AttachmentId) {
        assert!(self.storage.is_some(), "{id:?} is mapped without storage");
        self.attachment(id).mapped += 1;
    }

    /// Says that somebody has it mapped once less.
    ///
    /// # Panics
    /// If it was not mapped, or there is no such attachment.
    pub fn unmap(&mut self, id: AttachmentId) {
        let mapped = &mut self.attachment(id).mapped;
        *mapped = mapped.checked_sub(1).expect("unmapped as often as mapped");
    }

    /// Says that the storage has to stay for somebody, once more.
    ///
    /// # Panics
    /// As [`Solver::map`].
    pub fn pin(&mut self, id: AttachmentId) {
        assert!(self.storage.is_some(), "{id:?} is pinned without storage");
        self.attachment(id).pinned += 1;
    }

    /// Says that it has to stay once less.
    ///
    /// # Panics
    /// If it was not pinned, or there is no such attachment.
    pub fn unpin(&mut self, id: AttachmentId) {
        let pinned = &mut self.attachment(id).pinned;
        *pinned = pinned.checked_sub(1).expect("unpinned as often as pinned");
    }

    /// Detaches. The storage stays as it is; the next may be chosen more freely.
    ///
    /// # Panics
    /// If it is mapped or pinned, or there is no such attachment.
    pub fn detach(&mut self, id: AttachmentId) {
        let attachment = self.attachment(id);
        let uses = (attachment.mapped, attachment.pinned);
        assert_eq!(uses, (0, 0), "{id:?} is detached, and mapped or pinned");
        self.attached.remove(&id);
    }

    /// Whether somebody has it mapped or pinned, so that its storage stays what it is.
    #[must_use]
    pub fn is_used(&self) -> bool {
        let uses = |other: &Attachment| other.mapped > 0 || other.pinned > 0;
        self.attached.values().any(uses)
    }

    /// How often somebody has it mapped, and how often pinned; none if it is not attached.
    #[must_use]
    pub fn uses(&self, id: AttachmentId) -> Option<(u32, u32)> {
        let attachment = self.attached.get(&id)?;
        Some((attachment.mapped, attachment.pinned))
    }

    /// Which attachments set each bound of what is wanted.
    ///
    /// # Errors
    /// As [`Solver::wanted`].
    pub fn explain(&self) -> Result<Explanation, Empty> {
        let wanted = self.wanted()?;
        let own = ("the buffer", &self.own);
        let others = self.attached.values();
        let others = others.map(|other| (other.name.as_str(), &other.constraints));
        let members: Vec<_> = std::iter::once(own).chain(others).collect();
        Ok(Explanation::new(&wanted, &members))
    }

    fn wanted_with(&self, new: Option<&Constraints>) -> Result<Constraints, Empty> {
        let attached = self.attached.values().map(|other| &other.constraints);
        let mut all = self.own;
        for one in attached.chain(new) {
            all = all.intersect(one)?;
        }
        let sharers = self.attached.len() + usize::from(new.is_some());
        match sharers > 1 {
            true => all.intersect(&SHARED),
            false => Ok(all),
        }
    }

    /// Whether everybody, and a new one, can use the storage as it is.
    ///
    /// Each is held to it on its own, since each has a list of its own. What one demands of all,
    /// and what one is for all, counts for everybody.
    fn serves(&self, storage: &Storage, new: Option<&Constraints>) -> Result<(), Misfit> {
        let attached = self.attached.values().map(|other| &other.constraints);
        let members: Vec<_> = std::iter::once(&self.own)
            .chain(attached)
            .chain(new)
            .collect();
        // The buffer itself shares with nobody.
        let shared = members.len() > 2;
        let any = |what: fn(&Constraints) -> bool| members.iter().any(|one| what(one));
        let common = Constraints {
            coherent: any(|one| one.coherent),
            never_snoops: any(|one| one.never_snoops),
            no_bounce: shared || any(|one| one.no_bounce),
            always_bounces: any(|one| one.always_bounces),
            ..Constraints::ANY
        };
        common.accepts(storage)?;
        members.iter().try_for_each(|one| one.accepts(storage))
    }

    fn ids(&self, which: impl Fn(&Attachment) -> bool) -> Vec<AttachmentId> {
        let found = self.attached.iter().filter(|(_, other)| which(other));
        found.map(|(id, _)| *id).collect()
    }

    fn attachment(&mut self, id: AttachmentId) -> &mut Attachment {
        let found = self.attached.get_mut(&id);
        found.unwrap_or_else(|| panic!("{id:?} is not attached"))
    }

    fn assert_free(&self, what: &str) {
        let using = self.ids(|other| other.mapped > 0 || other.pinned > 0);
        assert!(using.is_empty(), "the storage {what}, and {using:?} use it");
    }
}

/// What follows from having two attachments.
const SHARED: Constraints = Constraints {
    no_bounce: true,
    ..Constraints::ANY
};

fn incompatible(empty: Empty) -> AttachOutcome {
    AttachOutcome::Incompatible {
        field: empty.field,
        have: empty.ours,
        want: empty.theirs,
        held_by: Vec::new(),
    }
}
