//! How something is mapped, and how it is allocated: two types, as no attribute is for both.

use core::fmt;

use super::{CpuUse, DeviceOwnedProof, DmaError};

/// The name of an attribute, for errors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Attr {
    /// [`MapAttrs::require_coherent`].
    RequireCoherent,
    /// [`MapAttrs::allow_bounce`].
    AllowBounce,
    /// [`MapAttrs::skip_cpu_sync`].
    SkipCpuSync,
    /// [`MapAttrs::persistent`].
    Persistent,
    /// [`AllocAttrs::contiguous`].
    ForceContiguous,
    /// [`AllocAttrs::single_pages`].
    SinglePages,
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RequireCoherent => "require coherent",
            Self::AllowBounce => "allow bounce",
            Self::SkipCpuSync => "skip CPU sync",
            Self::Persistent => "persistent",
            Self::ForceContiguous => "contiguous",
            Self::SinglePages => "single pages",
        })
    }
}

/// How a buffer is to be mapped.
///
/// ```
/// use ttm::dma::{Attr, DmaError, MapAttrs};
///
/// assert!(MapAttrs::new().allow_bounce().validate().is_ok());
/// // What fails rather than bounces cannot bounce.
/// let refused = MapAttrs::new().require_coherent().allow_bounce().validate();
/// let (a, b) = (Attr::RequireCoherent, Attr::AllowBounce);
/// assert_eq!(refused, Err(DmaError::AttrConflict { a, b }));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MapAttrs<'p> {
    pub(super) coherent: bool,
    pub(super) allow_bounce: bool,
    pub(super) decrypted: bool,
    pub(super) ignore_lines: bool,
    pub(super) persistent: bool,
    pub(super) skip: Option<DeviceOwnedProof<'p>>,
}

impl<'p> MapAttrs<'p> {
    /// None: it is synced where that is needed, and never copied.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            coherent: false,
            allow_bounce: false,
            decrypted: false,
            ignore_lines: false,
            persistent: false,
            skip: None,
        }
    }

    /// Fail rather than sync or copy.
    #[must_use]
    pub const fn require_coherent(mut self) -> Self {
        self.coherent = true;
        self
    }

    /// It may be copied on its way, if one device has it alone.
    #[must_use]
    pub const fn allow_bounce(mut self) -> Self {
        self.allow_bounce = true;
        self
    }

    /// The caller has seen to it that the memory is not encrypted.
    #[must_use]
    pub const fn decrypted(mut self) -> Self {
        self.decrypted = true;
        self
    }

    /// The caller promises that the CPU leaves alone what of its cache lines belongs to others. The
    /// [`Ledger`](super::Ledger) does not look for overlaps then; all who share a line have to say
    /// so.
    #[must_use]
    pub const fn ignore_lines(mut self) -> Self {
        self.ignore_lines = true;
        self
    }

    /// The CPU uses it without sync points meanwhile, by mappings of users: it has to be seen alike
    /// by both, or is refused.
    #[must_use]
    pub const fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Leave the maintenance of caches out, since a device owns the buffer already. What the proof
    /// is of has to be what is mapped.
    #[must_use]
    pub const fn skip_cpu_sync(mut self, proof: DeviceOwnedProof<'p>) -> Self {
        self.skip = Some(proof);
        self
    }

    pub(super) const fn cpu_use(&self) -> CpuUse {
        match self.persistent {
            true => CpuUse::Persistent,
            false => CpuUse::Bracketed,
        }
    }

    /// Whether they go together.
    ///
    /// # Errors
    /// [`DmaError::AttrConflict`].
    pub const fn validate(&self) -> Result<(), DmaError> {
        let b = Attr::AllowBounce;
        let a = match self {
            Self {
                allow_bounce: false,
                ..
            } => return Ok(()),
            Self { coherent: true, .. } => Attr::RequireCoherent,
            Self { skip: Some(_), .. } => Attr::SkipCpuSync,
            Self {
                persistent: true, ..
            } => Attr::Persistent,
            _ => return Ok(()),
        };
        Err(DmaError::AttrConflict { a, b })
    }
}

/// How memory is to be allocated for a device. The cache mode is asked for by itself, and so is a
/// buffer without a view for the CPU, which is another type.
///
/// ```
/// use ttm::dma::{Attr, AllocAttrs, DmaError};
///
/// let refused = AllocAttrs::new().contiguous().single_pages().validate();
/// let (a, b) = (Attr::ForceContiguous, Attr::SinglePages);
/// assert_eq!(refused, Err(DmaError::AttrConflict { a, b }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllocAttrs {
    pub(super) contiguous: bool,
    pub(super) single_pages: bool,
    pub(super) decrypted: bool,
    pub(super) pool: Option<&'static str>,
}

impl AllocAttrs {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            contiguous: false,
            single_pages: false,
            decrypted: false,
            pool: None,
        }
    }

    /// In one run of frames or not at all, whatever translates.
    #[must_use]
    pub const fn contiguous(mut self) -> Self {
        self.contiguous = true;
        self
    }

    /// Page by page: long runs are not worth their price.
    #[must_use]
    pub const fn single_pages(mut self) -> Self {
        self.single_pages = true;
        self
    }

    /// The source gives memory that is not encrypted.
    #[must_use]
    pub const fn decrypted(mut self) -> Self {
        self.decrypted = true;
        self
    }

    /// The source is a pool of the device's own, of that name.
    #[must_use]
    pub const fn pool(mut self, name: &'static str) -> Self {
        self.pool = Some(name);
        self
    }

    /// Whether they go together.
    ///
    /// # Errors
    /// [`DmaError::AttrConflict`].
    pub const fn validate(&self) -> Result<(), DmaError> {
        match self.contiguous && self.single_pages {
            true => Err(DmaError::AttrConflict {
                a: Attr::ForceContiguous,
                b: Attr::SinglePages,
            }),
            false => Ok(()),
        }
    }
}
