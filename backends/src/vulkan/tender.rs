//! Background work of a device: budgets, chunks that are empty for long, what nobody uses any more.

use ttm::clock::{Progress, Service, WaitCell};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Weak};

use super::core::Core;

/// How often budgets are asked for, in nanoseconds.
const ASK_EVERY: u64 = 250_000_000;

/// The service.
pub(super) struct Tender {
    core: Weak<Core>,
    bell: Arc<WaitCell>,
    asked: AtomicU64,
}

impl Tender {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::downgrade(core),
            bell: WaitCell::new(),
            asked: AtomicU64::new(0),
        }
    }
}

impl Service for Tender {
    fn name(&self) -> &'static str {
        "vulkan memory"
    }

    fn step(&self) -> Progress {
        let Some(core) = self.core.upgrade() else {
            return Progress::Idle;
        };
        let mut did = core.sweep_lines();
        did |= core.trash.reap();
        let now = core.clock.now();
        // Relaxed: only this service's thread has it.
        if now.nanos() >= self.asked.load(Ordering::Relaxed) + ASK_EVERY {
            self.asked.store(now.nanos(), Ordering::Relaxed);
            core.budgets.ask();
            for (_, region) in core.sides.regions() {
                did |= region.tend(now, core.idle);
            }
        }
        match did {
            true => Progress::Did,
            false => Progress::Idle,
        }
    }

    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}
