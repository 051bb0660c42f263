//! Rows z and l: what it takes to have a device find an object's pages.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use harness::measure::{Stopwatch, compare, interleave};
use harness::{Bench, Row, Target};
use parking_lot::Mutex;
use placement::{PAGE_SIZE, PageCount, human_bytes};
use ttm::clock::{Blocking, Time};
use ttm::dma::{
    CpuSegment, Direction, DmaAddr, DmaDevice, DmaError, DmaSegment, FrameBytes, Invalidation,
    IoRun, IovaConfig, IovaSpan, Mapper, Mask, PageList, Path, SegmentParms, Translation, Tri,
    Verdict,
};
use ttm::pages::FrameSpan;

/// Pages of a run, as an object has them.
const RUN: u64 = 512;

/// The tables of 4 GiB of addresses: an entry a page.
struct Tables(Box<[AtomicU64]>);

impl Tables {
    fn new() -> Self {
        Self((0..1 << 20).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, page: u64, pages: u64, frame: impl Fn(u64) -> u64) {
        let entries = &self.0[page as usize..(page + pages) as usize];
        for (n, entry) in (0..).zip(entries) {
            entry.store(frame(n), Ordering::Relaxed);
        }
    }
}

impl Translation for Tables {
    fn map(&self, at: DmaAddr, run: &IoRun, _: Direction) -> Result<(), DmaError> {
        let first = run.span.first + run.offset / PAGE_SIZE;
        self.set(at.get() / PAGE_SIZE, run.len / PAGE_SIZE, |n| {
            ((first + n) * PAGE_SIZE) | 3
        });
        Ok(())
    }

    fn unmap(&self, gone: IovaSpan) {
        self.set(
            gone.first().get() / PAGE_SIZE,
            gone.len() / PAGE_SIZE,
            |_| 0,
        );
    }

    fn invalidate(&self, gone: &[IovaSpan]) {
        black_box(gone);
    }
}

fn verdict(path: Path) -> Verdict {
    Verdict {
        path,
        snoop: Tri::Yes,
        mask: Mask::bits(32),
        ..Verdict::unknown("card")
    }
}

fn translated(tables: &Arc<Tables>, strict: bool) -> anyhow::Result<DmaDevice> {
    let space = IovaConfig {
        invalidation: match strict {
            true => Invalidation::Strict,
            false => Invalidation::Lazy {
                batch: 64,
                timeout_ns: 10_000_000,
            },
        },
        ..IovaConfig::default()
    };
    let verdict = verdict(Path::Translated { strict });
    let clock = Arc::new(Blocking::new(|| Time::ZERO));
    let tables = Arc::clone(tables) as Arc<dyn Translation>;
    Ok(DmaDevice::translated(
        verdict,
        SegmentParms::WIDEST,
        space,
        tables,
        clock,
    )?)
}

/// An object's pages: runs that do not adjoin.
fn runs(bytes: u64) -> Vec<FrameSpan> {
    let pages = bytes / PAGE_SIZE;
    let runs = pages.div_ceil(RUN);
    let span = |n: u64| FrameSpan {
        file: 0,
        first: (n * 2 + 1) * RUN,
        pages: PageCount::new((pages - n * RUN).min(RUN)).expect("a run"),
    };
    (0..runs).map(span).collect()
}

fn repeat(watch: &mut Stopwatch, ops: usize, device: &DmaDevice, spans: &[FrameSpan], len: u64) {
    watch.time(ops, || {
        for _ in 0..ops {
            let offset = 0;
            let bytes = FrameBytes { spans, offset, len };
            let mapping = device.map(bytes, Direction::Both);
            device.unmap(black_box(mapping.expect("room")));
        }
    });
}

/// Row z.
pub(crate) fn mapping(bench: &mut Bench, bytes: u64) -> anyhow::Result<()> {
    let name = |path: &str| format!("z: map and unmap {}, {path}", human_bytes(bytes));
    let paths = ["direct", "translated", "translated, lazy"].map(name);
    if !paths.iter().any(|name| bench.args.wants(name)) {
        return Ok(());
    }
    let ops = bench
        .args
        .ops(((64 << 20) / bytes).clamp(4, 2_000) as usize);
    let spans = runs(bytes);
    let tables = Arc::new(Tables::new());
    let direct = DmaDevice::direct(
        verdict(Path::Direct),
        SegmentParms::WIDEST,
        |span: FrameSpan| Some(span.first * PAGE_SIZE),
    )?;
    let (strict, lazy) = (translated(&tables, true)?, translated(&tables, false)?);
    let bare = Tables::new();
    let lock = Mutex::new(0_u64);
    let [direct_ns, strict_ns, lazy_ns, list_ns, tables_ns] = interleave(
        bench.args.repeats(),
        [
            &mut |watch| repeat(watch, ops, &direct, &spans, bytes),
            &mut |watch| repeat(watch, ops, &strict, &spans, bytes),
            &mut |watch| repeat(watch, ops, &lazy, &spans, bytes),
            &mut |watch| {
                watch.time(ops, || {
                    for _ in 0..ops {
                        must(&lock, 3, &spans, 0);
                    }
                });
            },
            &mut |watch| {
                watch.time(ops, || {
                    for _ in 0..ops {
                        must(&lock, 5, &spans, 1);
                        let mut at = 1;
                        for span in &spans {
                            let pages = span.pages.get();
                            bare.set(at, pages, |n| ((span.first + n) * PAGE_SIZE) | 3);
                            at += pages;
                        }
                        bare.set(1, at - 1, |_| 0);
                    }
                });
            },
        ],
    );
    lazy.flush();
    let devices = [&direct, &strict, &lazy];
    ensure!(devices.iter().all(|device| device.live() == 0), "lost");
    let [direct_name, strict_name, lazy_name] = paths;
    let rows = [
        (direct_name, direct_ns, "lists and locks alone", list_ns),
        (
            strict_name,
            strict_ns,
            "with the tables' entries",
            tables_ns,
        ),
        (lazy_name, lazy_ns, "with the tables' entries", tables_ns),
    ];
    for (name, ours, what, limit) in rows {
        let many = spans.len() > 1 && name.ends_with("direct");
        let most = if many { 5.0 } else { 2.0 };
        let row = Row::new(name, ours).limit(what, limit);
        bench.report.row(row.target(Target::Limit(most)));
    }
    Ok(())
}

/// What no mapping does without: its frames and its addresses in a list each, a handle and a count of
/// who has the list, `more` lists of numbers, and so many lock pairs.
fn must(lock: &Mutex<u64>, pairs: u32, spans: &[FrameSpan], more: usize) {
    let cpu = spans.iter().map(|span| CpuSegment {
        span: *span,
        offset: 0,
        len: span.pages.bytes(),
    });
    let dma = spans.iter().map(|span| DmaSegment {
        addr: DmaAddr::new(span.first * PAGE_SIZE).expect("an address"),
        len: span.pages.bytes(),
        bus: false,
    });
    let (cpu, dma): (Vec<_>, Vec<_>) = (cpu.collect(), dma.collect());
    let numbers = vec![vec![0_u64; spans.len()]; more];
    black_box((Arc::new(cpu), Arc::new(dma), Box::new([0_u64; 4]), numbers));
    for _ in 0..pairs {
        *black_box(lock).lock() += 1;
    }
}

/// Row l.
pub(crate) fn list(bench: &mut Bench) -> anyhow::Result<()> {
    let name = "l: the list of 1 GiB of single frames";
    if !bench.args.wants(name) {
        return Ok(());
    }
    let frames: Vec<FrameSpan> = (0..1 << 18)
        .map(|n| FrameSpan {
            file: 0,
            first: 2 * n + 1,
            pages: PageCount::ONE,
        })
        .collect();
    let bytes = FrameBytes {
        spans: &frames,
        offset: 0,
        len: 1 << 30,
    };
    let ops = bench.args.ops(4).min(4);
    let (ours, limit) = compare(
        bench.args.repeats(),
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    let list = PageList::build(&SegmentParms::DEFAULT, black_box(bytes));
                    black_box(list.expect("frames of a file"));
                }
            });
        },
        |watch| {
            watch.time(ops, || {
                for _ in 0..ops {
                    let segment = |span: &FrameSpan| CpuSegment {
                        span: *span,
                        offset: 0,
                        len: PAGE_SIZE,
                    };
                    black_box(black_box(&frames).iter().map(segment).collect::<Vec<_>>());
                }
            });
        },
    );
    let row = Row::new(name, ours).limit("a loop that fills as long a list", limit);
    bench.report.row(row.target(Target::Limit(4.0)));
    Ok(())
}
