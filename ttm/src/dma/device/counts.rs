//! How much was done, and what there is to do.

use super::super::{DmaMapping, Path};
use super::DmaDevice;
use super::live::Live;
use crate::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(in crate::dma) struct Counts {
    pub(in crate::dma) mapped: AtomicU64,
    pub(in crate::dma) unmapped: AtomicU64,
    pub(in crate::dma) bounced: AtomicU64,
    pub(in crate::dma) for_device: AtomicU64,
    pub(in crate::dma) for_cpu: AtomicU64,
    pub(in crate::dma) maintained: AtomicU64,
    pub(in crate::dma) quarantined: AtomicU64,
    pub(in crate::dma) reaped: AtomicU64,
    pub(in crate::dma) late_writes: AtomicU64,
}

/// What was done for a device so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DmaStats {
    /// Mappings and allocations that were made.
    pub mapped: u64,
    /// Those that were ended.
    pub unmapped: u64,
    /// Bytes that were mapped as copies.
    pub bounced_bytes: u64,
    /// Hand-overs to the device, of wholes and of parts, mapping included.
    pub syncs_for_device: u64,
    /// Hand-overs to the CPU, of wholes and of parts.
    pub syncs_for_cpu: u64,
    /// Bytes of which caches were maintained, as asked for.
    pub maintained_bytes: u64,
    /// Buffers that came into the quarantine.
    pub quarantined: u64,
    /// Buffers that left it, to be freed.
    pub reaped: u64,
    /// Buffers that the device wrote to after its fence, which are never freed.
    pub late_writes: u64,
    /// Buffers that are in the quarantine now.
    pub in_quarantine: u64,
}

/// What is mapped for a device, when that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveMappings {
    /// How many mappings and allocations there are.
    pub count: u64,
    /// Whether unmapping has nothing to do but to count.
    idle: bool,
}

impl LiveMappings {
    /// Whether unmapping them does anything but count: tables to change, copies to bring back.
    ///
    /// Asked of what is mapped, since before nobody knows what will be copied. Each is unmapped in
    /// any case: the masks are committed to it.
    #[must_use]
    pub const fn need_unmap(&self) -> bool {
        !self.idle
    }
}

impl DmaDevice {
    /// What was done so far; approximate while others do more.
    #[must_use]
    pub fn stats(&self) -> DmaStats {
        let counts = &self.counts;
        // Relaxed: they only count.
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DmaStats {
            mapped: of(&counts.mapped),
            unmapped: of(&counts.unmapped),
            bounced_bytes: of(&counts.bounced),
            syncs_for_device: of(&counts.for_device),
            syncs_for_cpu: of(&counts.for_cpu),
            maintained_bytes: of(&counts.maintained),
            quarantined: of(&counts.quarantined),
            reaped: of(&counts.reaped),
            late_writes: of(&counts.late_writes),
            in_quarantine: self.quarantine.len() as u64,
        }
    }

    /// What is mapped now.
    #[must_use]
    pub fn live_mappings(&self) -> LiveMappings {
        let state = self.state.lock();
        let direct = matches!(state.verdict.path, Path::Direct | Path::Identity);
        LiveMappings {
            count: state.masks.live(),
            idle: direct && !state.has_bounced,
        }
    }

    /// Whether some mapping of the device may need syncs.
    ///
    /// True once something was mapped as a copy, whatever happens to masks since, until there is
    /// another verdict while no copy is mapped.
    #[must_use]
    pub fn device_need_sync(&self) -> bool {
        self.state.lock().need_sync()
    }

    /// Whether what is mapped needs syncs. A mapping that is not this kind of device's is taken to.
    #[must_use]
    pub fn need_sync(&self, mapping: &DmaMapping) -> bool {
        let live: Option<&Live> = mapping.handle();
        live.is_none_or(|live| live.synced)
    }
}
