//! Row y: buffers that are copied to where a device reaches them.

use std::hint::black_box;

use anyhow::ensure;
use harness::measure::compare;
use harness::{Bench, Row, Target};
use placement::human_bytes;
use ttm::dma::{BounceBytes, BouncePool, BounceRequest, Direction, DmaAddr, Unmap};

/// Bytes that are copied in all of a repeat.
const COPIED: usize = 16 << 20;

const SETS: usize = 4;

/// Enough to be mapped on its own, so that all begin at the same place in their page, as sets of
/// the pool do: how fast a copy is depends on where both sides are in theirs.
const APART: usize = 1 << 20;

/// Where in that a buffer begins: half a page away from what it is copied to.
const SKEW: usize = 2096;

fn buffer(memory: &mut [u8], bytes: usize) -> &mut [u8] {
    &mut memory[SKEW..SKEW + bytes]
}

/// What plain copies of the same bytes go to.
struct Plain(Vec<u8>);

impl Plain {
    fn new() -> Self {
        Self(vec![0; APART])
    }

    fn copy_in(&mut self, bytes: &[u8]) {
        black_box(&mut self.0[..bytes.len()]).copy_from_slice(black_box(bytes));
    }

    fn copy_out(&mut self, bytes: &mut [u8]) {
        let len = bytes.len();
        black_box(bytes).copy_from_slice(black_box(&self.0[..len]));
    }
}

const REQUEST: BounceRequest = BounceRequest::new(0x1_0000_0000, Direction::Both);

/// An empty pool, a buffer to map through it, and one to copy plainly.
struct Stage {
    pool: BouncePool<BounceBytes>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    plain: Plain,
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let base = DmaAddr::new(0).expect("an address");
        let memory = BounceBytes::new(vec![0; SETS * (256 << 10)]);
        Ok(Self {
            pool: BouncePool::new(memory, base, 1)?,
            ours: vec![1; APART],
            theirs: vec![1; APART],
            plain: Plain::new(),
        })
    }
}

/// Row y, both copies.
pub(crate) fn bounce(bench: &mut Bench, bytes: usize) -> anyhow::Result<()> {
    let size = human_bytes(bytes as u64);
    let name = format!("y: map and unmap {size} through the pool");
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let ops = bench.args.ops(COPIED / bytes);
    let mut stage = Stage::new()?;
    let Stage {
        pool,
        ours,
        theirs,
        plain,
    } = &mut stage;
    let (ours, theirs) = (buffer(ours, bytes), buffer(theirs, bytes));
    let (ours, limit) = compare(
        bench.args.repeats(),
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    let mapping = pool.map(ours, &REQUEST).expect("an empty pool");
                    black_box(pool.unmap(mapping, Unmap::Sync));
                }
            });
        },
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    plain.copy_in(theirs);
                    plain.copy_out(theirs);
                }
            });
        },
    );
    ensure!(pool.stats().used == 0, "slots are lost");
    let row = Row::new(name, ours).limit("two plain copies", limit);
    bench.report.row(row.target(Target::Limit(most(bytes))));
    Ok(())
}

/// Row y, one copy.
pub(crate) fn sync(bench: &mut Bench, bytes: usize) -> anyhow::Result<()> {
    let size = human_bytes(bytes as u64);
    let name = format!("y: sync {size} for the device");
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let ops = bench.args.ops(COPIED / bytes);
    let mut stage = Stage::new()?;
    let Stage {
        pool,
        ours,
        theirs,
        plain,
    } = &mut stage;
    let (ours, theirs) = (buffer(ours, bytes), buffer(theirs, bytes));
    let mut mapping = pool.map(ours, &REQUEST)?;
    let (ours, limit) = compare(
        bench.args.repeats(),
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    let synced = pool.sync_for_device(&mut mapping, 0..bytes);
                    synced.expect("the whole mapping");
                }
            });
        },
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    plain.copy_in(theirs);
                }
            });
        },
    );
    let _ = pool.unmap(mapping, Unmap::SkipSync);
    let row = Row::new(name, ours).limit("a plain copy", limit);
    bench.report.row(row.target(Target::Limit(most(bytes))));
    Ok(())
}

/// The most that a bounce of so many bytes may be of its copies.
fn most(bytes: usize) -> f64 {
    match bytes > 16 << 10 {
        true => 1.2,
        false => 2.0,
    }
}
