//! Somebody attached, without types: what he has, and how he is told of moves.

use core::ops::Range;

use crate::bo::{Shown, View};
use crate::dma::{AttachmentId, DmaError, MappedList, Mapper, PeerPath, SegmentParms};
use crate::error::Result;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::tt::Lease;

use super::lender::Lender;

/// Is told that an object is about to move.
pub trait MoveNotice: Send + Sync {
    /// The mapping is taken away: jobs that are queued may still use the list, new ones may not. It
    /// happened `generation` times to this attachment so far.
    ///
    /// Called under the object's reservation. May not wait, and may not call the exporter's device:
    /// that is refused with [`Error::Reentrant`](crate::Error::Reentrant). Mapping again is for
    /// whoever needs the object next.
    fn moved(&self, generation: u64);
}

impl<F: Fn(u64) + Send + Sync> MoveNotice for F {
    fn moved(&self, generation: u64) {
        self(generation);
    }
}

pub(super) struct Borrower {
    pub(super) lender: Arc<Lender>,
    pub(super) id: AttachmentId,
    pub(super) name: String,
    pub(super) mapper: Arc<dyn Mapper>,
    pub(super) dynamic: bool,
    pub(super) revocable: bool,
    pub(super) peer: Option<PeerPath>,
    /// How lists of device memory are cut for him.
    pub(super) parms: SegmentParms,
    pub(super) notice: Option<Arc<dyn MoveNotice>>,
    state: Mutex<InUse>,
}

/// What an attachment has.
#[derive(Clone, Debug, Default)]
pub(super) struct InUse {
    pub(super) lent: Option<(Arc<MappedList>, Arc<Lease>)>,
    /// Whether its mapping keeps the object where it is.
    pub(super) keeps: bool,
    /// Its pins.
    pub(super) pinned: u32,
    /// How often its mapping was taken away.
    pub(super) generation: u64,
    /// The last one was.
    revoked: bool,
}

impl Borrower {
    pub(super) fn new(
        lender: &Arc<Lender>,
        id: AttachmentId,
        mapper: Arc<dyn Mapper>,
        info: &super::AttachInfo,
    ) -> Self {
        Self {
            lender: Arc::clone(lender),
            id,
            name: info.name.clone(),
            mapper,
            dynamic: info.dynamic,
            revocable: info.revocable,
            peer: info.peer,
            parms: info.constraints.parms(),
            notice: info.notice.clone(),
            state: Mutex::new(InUse::default()),
        }
    }

    pub(super) fn in_use(&self) -> InUse {
        self.state.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, InUse> {
        self.state.lock()
    }

    /// Whether a mapping of his keeps the object where it is.
    pub(super) fn stays(&self) -> bool {
        !self.dynamic && !self.revocable
    }

    /// Where his device finds the object now.
    pub(super) fn list(&self) -> core::result::Result<Arc<MappedList>, DmaError> {
        let state = self.state.lock();
        match &state.lent {
            Some((list, lease)) if !lease.has_ended() => Ok(Arc::clone(list)),
            None if !state.revoked => Err(DmaError::NotLent),
            _ => Err(DmaError::Revoked {
                generation: state.generation,
            }),
        }
    }

    /// He has that mapped.
    pub(super) fn enter(&self, list: &Arc<MappedList>, lease: Arc<Lease>) {
        let mut state = self.state.lock();
        state.lent = Some((Arc::clone(list), lease));
        state.revoked = false;
        state.keeps = self.stays();
        self.lender.with(|inner| inner.solver.map(self.id));
    }

    /// He has it mapped no more. Answers whether he had, and whether that keeps the object no more.
    pub(super) fn leave(&self) -> (bool, bool) {
        let mut state = self.state.lock();
        let had = self.end(&mut state);
        let kept = core::mem::take(&mut state.keeps);
        state.revoked = false;
        (had, kept)
    }

    /// Ends the mapping, if there is one.
    fn end(&self, state: &mut InUse) -> bool {
        let Some((_, lease)) = state.lent.take() else {
            return false;
        };
        lease.end();
        self.lender.with(|inner| inner.solver.unmap(self.id));
        true
    }

    /// He is gone. Answers the pins that he leaves.
    pub(super) fn detach(&self) -> u32 {
        let mut state = self.state.lock();
        self.end(&mut state);
        let pinned = core::mem::take(&mut state.pinned);
        let kept = core::mem::take(&mut state.keeps);
        self.lender.with(|inner| {
            for _ in 0..pinned {
                inner.solver.unpin(self.id);
            }
            inner.pins -= pinned;
            inner.solver.detach(self.id);
            inner.attached.remove(&self.id);
        });
        pinned + u32::from(kept)
    }
}

impl View for Borrower {
    /// What a device finds is mapped when it asks.
    fn prepare(&self, _: &Shown) {}

    /// Devices write behind fences alone, and a copy by the CPU comes after those.
    fn track(&self) -> bool {
        true
    }

    /// What the device was handed counts no more. The CPU saw nothing through it.
    fn revoke(&self) -> Result<bool> {
        let generation = {
            let mut state = self.state.lock();
            if !self.end(&mut state) {
                return Ok(false);
            }
            state.generation += 1;
            state.revoked = true;
            state.generation
        };
        if let Some(notice) = &self.notice {
            notice.moved(generation);
        }
        Ok(false)
    }

    fn written(&self, _: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        Ok(())
    }

    /// It is mapped again when its owner reserves the object the next time.
    fn follow(&self, _: &Shown) {}

    /// [`Sharing`](crate::bo::Sharing) checks it, who knows where the object is.
    fn check(&self, _: &Shown) -> core::result::Result<(), String> {
        Ok(())
    }
}
