//! A Vulkan device put together.

use core::time::Duration;

use ash::vk;
use placement::MemType;
use ttm::clock::Clock;
use ttm::driver::{CopyEngine, CopyJob};
use ttm::fence::Fence;
use ttm::sync::atomic::{AtomicUsize, Ordering};
use ttm::sync::{Arc, Mutex};

use super::bind::Binder;
use super::budget::Budgets;
use super::costs::Costs;
use super::engine::Engine;
use super::known::Known;
use super::layout::Layout;
use super::line::Line;
use super::raw::{FamilyNumbers, Raw, SharedQueue};
use super::step::Sides;
use super::trash::Trash;
use super::trials::Trials;
use super::watch::{Watch, Watched};

/// What everything of a device shares. Lives until the last object, engine and handle is gone.
pub(super) struct Core {
    pub(super) watch: Arc<Watch>,
    pub(super) engine: Arc<Engine>,
    pub(super) binder: Binder,
    /// Timelines of users.
    pub(super) lines: Mutex<Vec<Arc<Line>>>,
    /// How many of them have lost their user.
    pub(super) leaving: AtomicUsize,
    pub(super) trash: Trash,
    pub(super) known: Known,
    pub(super) sides: Arc<Sides>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) raw: Arc<Raw>,
    pub(super) layout: Layout,
    pub(super) trials: Trials,
    pub(super) costs: Costs,
    pub(super) transfer: Arc<SharedQueue>,
    pub(super) sparse: Option<Arc<SharedQueue>>,
    pub(super) general: Arc<SharedQueue>,
    /// Queue families of all that use objects, each once.
    pub(super) families: Vec<u32>,
    pub(super) clock: Arc<dyn Clock>,
    /// How long an empty chunk is kept.
    pub(super) idle: Duration,
    /// Whether buffers may be stable.
    pub(super) stable: bool,
    /// Whether system pages are imported.
    pub(super) imports: bool,
}

impl Core {
    /// Whether a buffer's handle can stay when its memory changes.
    pub(super) fn can_be_stable(&self) -> bool {
        self.stable && self.trials.sparse && self.sparse.is_some()
    }

    /// The families that share an object: those that its user names, and those of the manager.
    pub(super) fn families_of(&self, named: &[u32]) -> FamilyNumbers {
        if named.is_empty() {
            return FamilyNumbers::from_slice(&self.families);
        }
        let mut families = FamilyNumbers::from_slice(named);
        families.push(self.transfer.family());
        families.sort_unstable();
        families.dedup();
        families
    }

    /// The user of a timeline has let go of it: it stays until nothing waits for it.
    pub(super) fn forget_line(&self, line: &Arc<Line>) {
        self.leaving.fetch_add(1, Ordering::Relaxed);
        line.leave();
        self.sweep_lines();
    }

    /// Takes timelines that nobody has, and whose points are reached, out of the list: they go after what
    /// was submitted before that, which may wait for them. Answers whether there were some.
    pub(super) fn sweep_lines(&self) -> bool {
        // Relaxed, here and above: whoever sees it later looks again.
        if self.leaving.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let done: Vec<_> = {
            let mut lines = self.lines.lock();
            lines.extract_if(.., |line| line.is_over()).collect()
        };
        let any = !done.is_empty();
        self.leaving.fetch_sub(done.len(), Ordering::Relaxed);
        for line in done {
            let after: Vec<Fence> = [self.engine.last(), self.binder.last()]
                .into_iter()
                .flatten()
                .collect();
            self.trash.put(after, line);
        }
        any
    }

    /// As what chunks of any memory go out.
    pub(super) fn exported(&self) -> vk::ExternalMemoryHandleTypeFlags {
        let kinds = self.sides.regions().filter_map(|(_, r)| r.kind().export);
        kinds
            .map(|(how, _)| how)
            .fold(Default::default(), |a, b| a | b)
    }

    /// As what chunks of a memory go out.
    pub(super) fn exported_as(&self, mem_type: MemType) -> vk::ExternalMemoryHandleTypeFlags {
        let region = self.sides.region(mem_type);
        let export = region.and_then(|region| region.kind().export);
        export.map(|(how, _)| how).unwrap_or_default()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // First, or the watching thread would submit what has been waiting.
        self.engine.stop();
        self.transfer.wait_idle(&self.raw);
        if let Some(sparse) = &self.sparse {
            sparse.wait_idle(&self.raw);
        }
        // Not by the drop of `watch`: somebody who rings just now may have it a moment longer, and the
        // device may be gone by then.
        self.watch.stop();
        // What was done is reported so.
        self.engine.poll();
        self.trash.empty();
    }
}

/// The engine as the manager has it: it keeps everything that its fences need.
pub(super) struct KeptEngine(pub(super) Arc<Core>);

impl CopyEngine for KeptEngine {
    fn submit(&self, job: CopyJob) -> ttm::Result<Fence> {
        self.0.engine.submit(job)
    }
}
