//! A buffer that is mapped through a pool.

use super::held::Held;
use crate::dma::{Direction, DmaAddr};

/// Whether the end of a mapping shows the CPU what the device wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unmap {
    /// It does.
    #[default]
    Sync,
    /// It does not: the buffer keeps what the last sync left there. For who has synced what matters.
    SkipSync,
}

/// A buffer of one owner, mapped through a [`BouncePool`](super::BouncePool).
///
/// The device does not see the buffer but slots of the pool. It ends by
/// [`BouncePool::unmap`](super::BouncePool::unmap) and not by drop: whoever unwinds may have left
/// the device at work, and slots that a device still writes must rather be lost than be somebody
/// else's.
#[derive(Debug)]
#[must_use = "slots of a mapping that is dropped are lost; unmap it"]
pub struct Bounced<'b> {
    pub(super) buffer: &'b mut [u8],
    pub(super) direction: Direction,
    pub(super) held: Held,
}

impl Bounced<'_> {
    /// Where the device finds the first byte.
    #[must_use]
    pub fn address(&self) -> DmaAddr {
        self.held.address()
    }

    /// Who writes and who reads.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// The CPU's side, as the last sync left it.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        self.buffer
    }

    /// The CPU's side, to be written: the device sees it after the next sync for it.
    #[must_use]
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer
    }
}
