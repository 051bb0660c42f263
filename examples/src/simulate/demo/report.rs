//! What the demo found, as tables, a line and JSON.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use anyhow::Result;
use backends::sim::SimDriver;
use placement::MemType;
use serde::Serialize;
use ttm::device::Device;

use super::client::Done;
use super::pages::{Caches, Pool, Swap};
use super::platform;
use super::windows::Seen;
use super::{Rig, Shared};
use crate::args::DemoArgs;
use cli::report::Outputs;
use cli::size::ByteSize;
use cli::table::{Table, thousands};

/// The figures of a run, as `--json` writes them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) words_checked: u64,
    pub(super) wrong_words: u64,
    evictions: u64,
    swapped_out_bytes: u64,
    swapped_in_bytes: u64,
    /// By how the content moved: null, clear, cpu, engine.
    moves: BTreeMap<&'static str, u64>,
    pub(super) wall_seconds: f64,
    /// Time on the device's clock.
    device_seconds: f64,
    operations: u64,
    /// Operations that failed with an error and were given up.
    skipped: u64,
    /// Objects whose content the manager said to be lost.
    lost_objects: u64,
    back_offs: u64,
    seed: u64,
    memory: Vec<Memory>,
    pool: Pool,
    swap: Swap,
    windows: Seen,
    /// Only with `--platform`.
    platform: Option<platform::Seen>,
    /// Only where there are some in front of memory.
    caches: Option<Caches>,
    clients: Vec<OneClient>,
    /// What failed and was survived, and how often.
    failures: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Memory {
    name: String,
    objects: u64,
    used_bytes: u64,
    in_bytes: u64,
    out_bytes: u64,
    evictions: u64,
    evicted_bytes: u64,
    full: u64,
}

#[derive(Debug, Serialize)]
struct OneClient {
    client: u32,
    operations: u64,
    moved_bytes: u64,
    evicted_bytes: u64,
    swapped_out_bytes: u64,
    waited_seconds: f64,
}

impl Report {
    pub(super) fn new(args: &DemoArgs, rig: &Rig, done: &[Done], shared: &Shared) -> Self {
        let counts = rig.stats.counts();
        let memory = memory(&rig.device);
        let of_clients = (1..).zip(done).map(|(client, done)| {
            let seen = counts.clients.get(&client).copied().unwrap_or_default();
            OneClient {
                client,
                operations: done.operations,
                moved_bytes: done.moved_bytes,
                evicted_bytes: seen.evicted_bytes,
                swapped_out_bytes: seen.swapped_bytes,
                waited_seconds: done.waited_ns as f64 / 1e9,
            }
        });
        Self {
            words_checked: done.iter().map(|done| done.words).sum(),
            wrong_words: shared.wrong_words.load(Ordering::Relaxed),
            evictions: memory.iter().map(|memory| memory.evictions).sum(),
            swapped_out_bytes: counts.swapped_out_bytes,
            swapped_in_bytes: counts.swapped_in_bytes,
            moves: counts.moves.clone(),
            wall_seconds: 0.0,
            device_seconds: shared.now() as f64 / 1e9,
            operations: done.iter().map(|done| done.operations).sum(),
            skipped: done.iter().map(|done| done.skipped).sum(),
            lost_objects: done.iter().map(|done| done.lost).sum(),
            back_offs: rig.device.back_offs(),
            seed: args.seed,
            clients: of_clients.collect(),
            memory,
            pool: Pool::of(&rig.device),
            swap: Swap::of(&rig.swap),
            windows: rig.reach.seen(),
            platform: rig.platform.as_ref().map(|p| p.seen(rig.card.as_deref())),
            caches: Caches::of(&rig.gpu),
            failures: shared.failures.lock().clone(),
        }
    }

    pub(super) fn print(&self, outputs: &Outputs) -> Result<()> {
        let mut memory = Table::new([
            "memory",
            "objects",
            "used",
            "in",
            "out",
            "evictions",
            "evicted",
            "full",
        ]);
        for row in &self.memory {
            memory.row([
                row.name.clone().into(),
                row.objects.into(),
                ByteSize(row.used_bytes).into(),
                ByteSize(row.in_bytes).into(),
                ByteSize(row.out_bytes).into(),
                row.evictions.into(),
                ByteSize(row.evicted_bytes).into(),
                row.full.into(),
            ]);
        }
        if let Some(platform) = &self.platform {
            platform.print(outputs)?;
        }
        outputs.say(&format!("{memory}\n"))?;
        self.pool.print(outputs)?;
        self.swap.print(outputs)?;
        self.windows.print(outputs)?;
        if let Some(caches) = &self.caches {
            caches.print(outputs)?;
        }
        let mut clients = Table::new([
            "client",
            "operations",
            "moved",
            "evicted",
            "swapped out",
            "waited s",
        ]);
        for row in &self.clients {
            clients.row([
                u64::from(row.client).into(),
                row.operations.into(),
                ByteSize(row.moved_bytes).into(),
                ByteSize(row.evicted_bytes).into(),
                ByteSize(row.swapped_out_bytes).into(),
                row.waited_seconds.into(),
            ]);
        }
        outputs.say(&format!("{clients}\n"))?;
        for (what, times) in &self.failures {
            outputs.say(&format!("survived {times} times: {what}\n"))?;
        }
        Ok(())
    }

    /// One line, the last.
    pub(super) fn verdict(&self) -> String {
        format!(
            "verified: {} words, {} wrong; {} evictions, {} swapped out, {} swapped in, {:.1} s\n",
            thousands(self.words_checked),
            self.wrong_words,
            thousands(self.evictions),
            ByteSize(self.swapped_out_bytes).human(),
            ByteSize(self.swapped_in_bytes).human(),
            self.wall_seconds
        )
    }
}

fn memory(device: &Device<SimDriver>) -> Vec<Memory> {
    let managers = MemType::all().filter_map(|mem_type| device.manager(mem_type));
    let seen = managers.filter(|manager| manager.counters().arrivals > 0);
    seen.map(|manager| {
        let (usage, counters) = (manager.usage(), manager.counters());
        Memory {
            name: manager.mem_type().to_string(),
            objects: usage.objects as u64,
            used_bytes: usage.used.bytes(),
            in_bytes: counters.bytes_in,
            out_bytes: counters.bytes_out,
            evictions: counters.evictions,
            evicted_bytes: counters.evicted_bytes,
            full: counters.full,
        }
    })
    .collect()
}
