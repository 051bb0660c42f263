//! Who wants to attach.

use core::fmt;

use crate::dma::{Constraints, PeerPath};
use crate::sync::Arc;

use super::borrower::MoveNotice;

/// Who wants to attach, and what for.
///
/// ```
/// use ttm::dma::{Constraints, Mask};
/// use ttm::share::AttachInfo;
///
/// let reach = Constraints { limit: Mask::bits(32), ..Constraints::ANY };
/// let camera = AttachInfo::new("camera").constraints(reach).migrating();
/// let encoder = AttachInfo::new("encoder").dynamic().notice(|n| println!("moved {n} times"));
/// # let _ = (camera, encoder);
/// ```
#[derive(Clone)]
pub struct AttachInfo {
    pub(super) name: String,
    pub(super) constraints: Constraints,
    pub(super) dynamic: bool,
    pub(super) revocable: bool,
    pub(super) migrates: bool,
    pub(super) peer: Option<PeerPath>,
    pub(super) notice: Option<Arc<dyn MoveNotice>>,
}

impl AttachInfo {
    /// Somebody who can use any memory that has frames, and who keeps the object where it is while he
    /// has it mapped. The name is for explanations.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            constraints: Constraints::ANY,
            dynamic: false,
            revocable: false,
            migrates: false,
            peer: None,
            notice: None,
        }
    }

    /// What memory he can use. Who has addresses translated asks for less: see [`Constraints`].
    #[must_use]
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// He maps the object again after moves, and waits for the manager's fences himself.
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    /// His mapping may be taken away, also for good, whether he answers or not.
    #[must_use]
    pub fn revocable(mut self) -> Self {
        self.revocable = true;
        self
    }

    /// The object moves for him if it has to and nobody stands against that; without this he is
    /// refused with
    /// [`DmaError::NeedsMigration`](crate::dma::DmaError::NeedsMigration).
    #[must_use]
    pub fn migrating(mut self) -> Self {
        self.migrates = true;
        self
    }

    /// How he reaches the exporter's device memory. Through a host that translates for him he does
    /// not, unless his IOMMU has been told of that memory: a mapper maps frames alone.
    #[must_use]
    pub fn through(mut self, path: PeerPath) -> Self {
        self.peer = Some(path);
        self
    }

    /// Who is told when his mapping is taken away.
    #[must_use]
    pub fn notice(mut self, notice: impl MoveNotice + 'static) -> Self {
        self.notice = Some(Arc::new(notice));
        self
    }

    /// What he is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What he can use.
    #[must_use]
    pub fn wants(&self) -> &Constraints {
        &self.constraints
    }

    /// Whether he maps the object again after moves.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    /// Whether his mapping may be taken away.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.revocable
    }

    /// How he reaches the exporter's device memory.
    #[must_use]
    pub fn path(&self) -> Option<PeerPath> {
        self.peer
    }
}

impl fmt::Debug for AttachInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachInfo")
            .field("name", &self.name)
            .field("constraints", &self.constraints)
            .field("dynamic", &self.dynamic)
            .field("revocable", &self.revocable)
            .field("migrates", &self.migrates)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
