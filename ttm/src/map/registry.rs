//! All windows of a device in one address space: by address, and what they may cost.

use std::collections::BTreeMap;

use placement::PageCount;

use crate::device::DeviceCore;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, Weak};

use super::space::{Abilities, AddressSpace};
use super::window::WindowCore;

/// When a window that was in the way of a move is put over the new place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Follow {
    /// At once if it was used lately, by the next access otherwise.
    #[default]
    Auto,
    /// At once.
    AtOnce,
    /// By the next access.
    OnFault,
}

/// What windows may cost, and when they follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowConfig {
    /// Mappings of the process that all windows together may have. The kernel's limit for a process
    /// is `vm.max_map_count`, 65,530 unless somebody has changed it. Each window counts for three
    /// at least.
    pub mappings: usize,
    /// An access that waits has so many adjoining pages shown, at a multiple of them: 16 to 512, a
    /// power of two.
    pub run: PageCount,
    /// When windows follow.
    pub follow: Follow,
    /// A window of more pages follows without having its page tables filled before: the kernel fills
    /// them as they are touched.
    pub filled_most: PageCount,
    /// How long an access waits for content at most, in nanoseconds; then it ends in a signal.
    /// `None` is as long as it takes.
    pub patience_ns: Option<u64>,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            mappings: 48_000,
            run: PageCount::new(512).expect("2 MiB"),
            follow: Follow::Auto,
            filled_most: PageCount::new(1 << 16).expect("256 MiB"),
            patience_ns: None,
        }
    }
}

/// What the windows of a device did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowCounts {
    /// Windows that are open.
    pub windows: u64,
    /// Mappings that they pay for.
    pub mappings: u64,
    /// Accesses that waited for content and went on.
    pub faults: u64,
    /// Accesses whose pages were there when they were looked at: another one had asked before.
    pub coalesced: u64,
    /// Accesses that ended in a signal.
    pub poisoned: u64,
    /// Times that something was put over addresses of a window.
    pub shown: u64,
    /// Times that a window was put out of the way.
    pub revoked: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) faults: AtomicU64,
    pub(super) coalesced: AtomicU64,
    pub(super) poisoned: AtomicU64,
    pub(super) shown: AtomicU64,
    pub(super) revoked: AtomicU64,
}

pub(super) struct Registry {
    pub(super) device: Arc<DeviceCore>,
    pub(super) space: Arc<dyn AddressSpace>,
    pub(super) abilities: Abilities,
    pub(super) config: WindowConfig,
    pub(super) counters: Counters,
    mappings: AtomicUsize,
    /// By their first addresses.
    windows: Mutex<BTreeMap<usize, Weak<WindowCore>>>,
}

impl Registry {
    pub(super) fn new(
        device: &Arc<DeviceCore>,
        space: Arc<dyn AddressSpace>,
        config: WindowConfig,
    ) -> Arc<Self> {
        let abilities = space.abilities();
        if let Some(thread) = abilities.thread {
            device.domain.note_threads(thread);
        }
        Arc::new(Self {
            device: Arc::clone(device),
            space,
            abilities,
            config,
            counters: Counters::default(),
            mappings: AtomicUsize::new(0),
            windows: Mutex::new(BTreeMap::new()),
        })
    }

    /// Pays for `needed` mappings instead of `paid`.
    ///
    /// # Errors
    /// [`Error::NoMappings`]; nothing has changed.
    pub(super) fn recharge(&self, paid: &mut usize, needed: usize) -> Result<()> {
        // Relaxed: the count guards nothing but itself.
        if needed > *paid {
            let more = needed - *paid;
            let limit = self.config.mappings;
            let charge = |used: usize| used.checked_add(more).filter(|sum| *sum <= limit);
            self.mappings
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge)
                .map_err(|_| Error::NoMappings {
                    wanted: more,
                    limit,
                })?;
        } else {
            self.uncharge(*paid - needed);
        }
        *paid = needed;
        Ok(())
    }

    pub(super) fn uncharge(&self, mappings: usize) {
        self.mappings.fetch_sub(mappings, Ordering::Relaxed);
    }

    /// Whether a window with that credit follows a move at once.
    pub(super) fn follows_at_once(&self, credit: u32) -> bool {
        match self.config.follow {
            _ if !self.abilities.loads_wait => true,
            Follow::AtOnce => true,
            Follow::OnFault => false,
            Follow::Auto => credit > 0,
        }
    }

    pub(super) fn enter(&self, window: &Arc<WindowCore>) {
        let window_weak = Arc::downgrade(window);
        self.windows.lock().insert(window.at.base, window_weak);
    }

    pub(super) fn remove(&self, base: usize) {
        self.windows.lock().remove(&base);
    }

    /// The window that has `address`.
    pub(super) fn find(&self, address: usize) -> Option<Arc<WindowCore>> {
        let windows = self.windows.lock();
        let (_, window) = windows.range(..=address).next_back()?;
        window.upgrade().filter(|w| w.at.contains(address))
    }

    pub(super) fn counts(&self) -> WindowCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counters = &self.counters;
        WindowCounts {
            windows: self.windows.lock().len() as u64,
            mappings: self.mappings.load(Ordering::Relaxed) as u64,
            faults: of(&counters.faults),
            coalesced: of(&counters.coalesced),
            poisoned: of(&counters.poisoned),
            shown: of(&counters.shown),
            revoked: of(&counters.revoked),
        }
    }
}
