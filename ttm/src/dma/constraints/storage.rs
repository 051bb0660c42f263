//! A buffer's storage as it is.

use core::fmt;

use placement::CacheMode;

use super::{Bound, Field, StorageKind};
use crate::dma::words::last_byte;
use crate::dma::{BusRange, DmaError};

/// Where a buffer is: in what memory, at which addresses.
///
/// # Invariants
/// There is at least one run, none is empty, and none begins where the one before ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storage {
    kind: StorageKind,
    cache: CacheMode,
    encrypted: bool,
    runs: Vec<Span>,
}

/// Addresses from the first to the last, inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Storage {
    /// Cached memory that is not encrypted, at those addresses, in the buffer's order.
    ///
    /// # Errors
    /// [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`].
    pub fn new(kind: StorageKind, ranges: &[BusRange]) -> Result<Self, DmaError> {
        let mut runs: Vec<Span> = Vec::new();
        for range in ranges {
            let first = range.addr.get();
            let last = last_byte(first, range.len)?;
            if last == u64::MAX {
                return Err(DmaError::AddressOverflow);
            }
            match runs.last_mut() {
                Some(run) if run.last + 1 == first => run.last = last,
                _ => runs.push(Span { first, last }),
            }
        }
        match runs.is_empty() {
            true => Err(DmaError::ZeroLength),
            false => Ok(Self {
                kind,
                cache: CacheMode::Cached,
                encrypted: false,
                runs,
            }),
        }
    }

    /// The same, cached so by the CPU.
    #[must_use]
    pub fn cached(mut self, mode: CacheMode) -> Self {
        self.cache = mode;
        self
    }

    /// The same, encrypted.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    /// In what memory it is.
    #[must_use]
    pub const fn kind(&self) -> StorageKind {
        self.kind
    }

    /// How the CPU caches it.
    #[must_use]
    pub const fn cache(&self) -> CacheMode {
        self.cache
    }

    /// Whether it is encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the host has frames for it.
    #[must_use]
    pub const fn has_cpu_pages(&self) -> bool {
        !matches!(self.kind, StorageKind::DeviceMemory)
    }

    pub(super) fn runs(&self) -> &[Span] {
        &self.runs
    }
}

/// Why storage will not do for somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misfit {
    /// What it is about.
    pub field: Field,
    /// What there is.
    pub have: Bound,
    /// What is wanted.
    pub want: Bound,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { have, want, .. } = self;
        write!(f, "have {have}, want {want}")
    }
}

impl core::error::Error for Misfit {}
