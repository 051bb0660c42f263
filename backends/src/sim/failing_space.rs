//! An address space that fails when it is told to.

use ttm::error::{Error, Result};
use ttm::map::{Abilities, Access, AddressSpace, Addresses, Aside, Piece, Revoke, WriteTracking};
use ttm::sync::Arc;

use super::inject::{At, Inject};

/// An address space with the sites `space.reserve`, `space.prepare`, `space.switch`,
/// `space.torn-switch` (what is mapped there goes, and nothing comes), `space.revoke`,
/// `space.poison` and `space.track`, all [`Error::Backend`].
pub struct FailingSpace {
    inner: Arc<dyn AddressSpace>,
    inject: Arc<Inject>,
}

impl FailingSpace {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn AddressSpace>, inject: Arc<Inject>) -> Self {
        Self { inner, inject }
    }

    fn pass(&self, at: At, what: &'static str) -> Result<()> {
        match self.inject.fails(at) {
            true => Err(Error::Backend(what.into())),
            false => Ok(()),
        }
    }
}

/// What was prepared, with where it goes.
struct Prepared {
    aside: Aside,
    pieces: Vec<Addresses>,
}

impl AddressSpace for FailingSpace {
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn reserve(&self, bytes: usize, align: usize, phase: usize) -> Result<Addresses> {
        self.pass(At::SPACE_RESERVE, "no addresses (space.reserve)")?;
        self.inner.reserve(bytes, align, phase)
    }

    fn prepare(&self, pieces: &[Piece], access: Access, filled: bool) -> Result<Aside> {
        self.pass(At::SPACE_PREPARE, "cannot map (space.prepare)")?;
        let aside = self.inner.prepare(pieces, access, filled)?;
        let pieces = pieces.iter().map(|piece| piece.at).collect();
        Ok(Aside::new(Prepared { aside, pieces }))
    }

    fn switch(&self, aside: Aside) -> Result<()> {
        let prepared = aside.into_inner::<Prepared>();
        let prepared = prepared.ok_or(Error::Invalid("prepared by another address space"))?;
        self.pass(At::SPACE_SWITCH, "cannot move a mapping (space.switch)")?;
        let torn = self.pass(
            At::SPACE_TORN_SWITCH,
            "a mapping is gone, and another did not come (space.torn-switch)",
        );
        if let Err(error) = torn {
            for at in prepared.pieces {
                self.inner.revoke(at, Revoke::Cover)?;
            }
            return Err(error);
        }
        self.inner.switch(prepared.aside)
    }

    fn revoke(&self, at: Addresses, how: Revoke) -> Result<()> {
        self.pass(At::SPACE_REVOKE, "cannot revoke (space.revoke)")?;
        self.inner.revoke(at, how)
    }

    fn wake(&self, at: Addresses) {
        self.inner.wake(at);
    }

    fn poison(&self, at: Addresses) -> Result<()> {
        self.pass(At::SPACE_POISON, "cannot poison (space.poison)")?;
        self.inner.poison(at)
    }

    fn release(&self, at: Addresses) {
        self.inner.release(at);
    }

    fn tracking(&self) -> Option<&dyn WriteTracking> {
        self.inner.tracking().is_some().then_some(self)
    }
}

impl WriteTracking for FailingSpace {
    fn track(&self, at: Addresses) -> Result<()> {
        self.pass(At::SPACE_TRACK, "cannot note writes (space.track)")?;
        let tracking = self.inner.tracking();
        tracking.map_or(Ok(()), |tracking| tracking.track(at))
    }

    fn written(&self, at: Addresses, each: &mut dyn FnMut(core::ops::Range<usize>)) -> Result<()> {
        self.pass(At::SPACE_TRACK, "cannot tell writes (space.track)")?;
        let tracking = self.inner.tracking();
        tracking.map_or(Ok(()), |tracking| tracking.written(at, each))
    }
}
