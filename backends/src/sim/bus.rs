//! The bus: where cards find each other's memory.

use placement::{PAGE_SIZE, PageCount, PageRange};
use ttm::error::{Error, Result};
use ttm::pages::Mapped;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::gpu::Core;

/// So far apart the memories of cards begin, above all that is system memory.
const APART: u64 = 1 << 44;

/// The cards of a machine, by where their memory is.
#[derive(Default)]
pub(super) struct Bus {
    placed: AtomicU64,
    cards: Mutex<Vec<Weak<Core>>>,
}

impl Bus {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Addresses for the memory of one more card.
    pub(super) fn place(&self) -> u64 {
        (self.placed.fetch_add(1, Ordering::Relaxed) + 1) * APART
    }

    pub(super) fn enter(&self, card: &Arc<Core>) {
        self.cards.lock().push(Arc::downgrade(card));
    }

    /// The memory at `len` bytes from `address` on, whole pages; none if no card that is there has
    /// it.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host has no memory for it.
    pub(super) fn find(&self, address: u64, len: u64) -> Result<Option<Mapped>> {
        let cards: Vec<_> = self.cards.lock().iter().filter_map(Weak::upgrade).collect();
        let card = cards
            .iter()
            .find(|card| card.bar() == address / APART * APART);
        let Some(card) = card.filter(|card| !card.is_lost()) else {
            return Ok(None);
        };
        let pages = PageCount::new(len / PAGE_SIZE);
        let range = pages.and_then(|pages| PageRange::at(address % APART / PAGE_SIZE, pages));
        match (card.vram(), range) {
            (Some(vram), Some(range)) if range.end() <= card.config().vram.get() => {
                let view = vram.view(range);
                view.map(Some).map_err(|error| Error::Backend(error.into()))
            }
            _ => Ok(None),
        }
    }
}
