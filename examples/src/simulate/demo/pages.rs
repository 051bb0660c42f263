//! What became of system pages: the pool's table, and the swap file's.

use anyhow::Result;
use backends::host::FileBackup;
use backends::sim::{Gpu, SimDriver};
use serde::Serialize;
use ttm::device::Device;
use ttm::tt::Backup;

use cli::report::Outputs;
use cli::size::ByteSize;
use cli::table::{Table, thousands};

/// The device's pool, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Pool {
    with_owners_bytes: u64,
    pooled_bytes: u64,
    fresh_bytes: u64,
    released_bytes: u64,
    zeroed_at_once_bytes: u64,
    zeroed_behind_bytes: u64,
    /// Windows that are in somebody's hands; none after a run.
    live_windows: u64,
    kept_window_bytes: u64,
    cache_switches: u64,
    flushes: u64,
    kinds: Vec<Kind>,
}

/// What is pooled of one kind and order.
#[derive(Debug, Serialize)]
struct Kind {
    mode: String,
    zone: String,
    node: u8,
    order: u8,
    zeroed: bool,
    runs: u64,
    bytes: u64,
    huge_runs: u64,
}

/// What the CPU caches before system memory did, in lines of 64 bytes, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Caches {
    cleaned: u64,
    invalidated: u64,
    written_back_by_themselves: u64,
    fetched_by_themselves: u64,
}

/// The swap file, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Swap {
    dir: String,
    limit_bytes: u64,
    used_bytes: u64,
    stored_bytes: u64,
    loaded_bytes: u64,
    requests: u64,
    most_in_flight: u64,
    io: &'static str,
    direct: bool,
}

impl Pool {
    pub(super) fn of(device: &Device<SimDriver>) -> Self {
        const PAGE: u64 = placement::PAGE_SIZE;
        let pool = device.pool();
        let (table, ledger, windows) = (pool.table(), pool.ledger(), pool.kmaps());
        let kinds = table.rows.iter().map(|row| Kind {
            mode: row.kind.mode.to_string(),
            zone: row.kind.zone.to_string(),
            node: row.kind.node,
            order: row.order,
            zeroed: row.zeroed,
            runs: row.runs,
            bytes: row.pages * PAGE,
            huge_runs: row.huge,
        });
        Self {
            with_owners_bytes: table.owned.bytes(),
            pooled_bytes: table.pooled.bytes(),
            fresh_bytes: table.counts.fresh_pages * PAGE,
            released_bytes: table.counts.released_pages * PAGE,
            zeroed_at_once_bytes: table.counts.zeroed_at_once * PAGE,
            zeroed_behind_bytes: table.counts.zeroed_behind * PAGE,
            live_windows: windows.live,
            kept_window_bytes: windows.kept_bytes,
            cache_switches: ledger.switches,
            flushes: ledger.flushes,
            kinds: kinds.collect(),
        }
    }

    pub(super) fn print(&self, outputs: &Outputs) -> Result<()> {
        let mut table = Table::new(["pool", "zone", "node", "order", "", "runs", "size", "huge"]);
        for kind in &self.kinds {
            let zeroed = if kind.zeroed { "zeroed" } else { "dirty" };
            table.row([
                kind.mode.clone().into(),
                kind.zone.clone().into(),
                u64::from(kind.node).into(),
                u64::from(kind.order).into(),
                zeroed.to_owned().into(),
                kind.runs.into(),
                ByteSize(kind.bytes).into(),
                kind.huge_runs.into(),
            ]);
        }
        outputs.say(&format!("{table}\n"))?;
        outputs.say(&format!(
            "{} pooled, {} with owners; {} came fresh, {} went back, {} zeroed on the way; \
             {} kmaps open, {} kept mapped\n",
            ByteSize(self.pooled_bytes).human(),
            ByteSize(self.with_owners_bytes).human(),
            ByteSize(self.fresh_bytes).human(),
            ByteSize(self.released_bytes).human(),
            ByteSize(self.zeroed_at_once_bytes + self.zeroed_behind_bytes).human(),
            self.live_windows,
            ByteSize(self.kept_window_bytes).human()
        ))
    }
}

impl Caches {
    pub(super) fn of(gpu: &Gpu) -> Option<Self> {
        gpu.config().memory.cache?;
        let counts = gpu.memory()?.cache_counts();
        Some(Self {
            cleaned: counts.cleaned,
            invalidated: counts.invalidated,
            written_back_by_themselves: counts.written_back,
            fetched_by_themselves: counts.fetched,
        })
    }

    pub(super) fn print(&self, outputs: &Outputs) -> Result<()> {
        outputs.say(&format!(
            "caches that the card does not see: {} lines cleaned, {} invalidated; {} written back \
             and {} fetched by themselves\n",
            thousands(self.cleaned),
            thousands(self.invalidated),
            thousands(self.written_back_by_themselves),
            thousands(self.fetched_by_themselves)
        ))
    }
}

impl Swap {
    pub(super) fn of(swap: &FileBackup) -> Self {
        let stats = swap.stats();
        Self {
            dir: swap.dir().display().to_string(),
            limit_bytes: swap.limit().bytes(),
            used_bytes: swap.used().bytes(),
            stored_bytes: stats.stored_bytes,
            loaded_bytes: stats.loaded_bytes,
            requests: stats.requests,
            most_in_flight: stats.most_in_flight,
            io: stats.engine,
            direct: swap.is_direct(),
        }
    }

    pub(super) fn print(&self, outputs: &Outputs) -> Result<()> {
        let mut table = Table::new([
            "swap file in",
            "limit",
            "used",
            "stored",
            "loaded",
            "requests",
            "most at once",
            "by",
        ]);
        let direct = if self.direct { "direct" } else { "page cache" };
        table.row([
            self.dir.clone().into(),
            ByteSize(self.limit_bytes).into(),
            ByteSize(self.used_bytes).into(),
            ByteSize(self.stored_bytes).into(),
            ByteSize(self.loaded_bytes).into(),
            self.requests.into(),
            self.most_in_flight.into(),
            format!("{}, {direct}", self.io).into(),
        ]);
        outputs.say(&format!("{table}\n"))
    }
}
