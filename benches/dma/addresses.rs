//! Row x: threads that take and free I/O addresses.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use harness::measure::{Stopwatch, interleave, unpin};
use harness::xorshift::XorshiftStar;
use harness::{Bench, Row, Target};
use parking_lot::Mutex;
use placement::{Extent, PAGE_SIZE, PageCount, PageRange, Range, Request, Space};
use ttm::clock::Time;
use ttm::dma::{Invalidation, IovaConfig, IovaRange, IovaRequest, IovaSpace, Mask};

/// Operations of a thread in a repeat.
const OPS: usize = 20_000;

/// Ranges that a thread holds.
const HELD: usize = 64;

/// Something that threads take ranges of and give them back to.
trait Source: Sync {
    type Range: Send;

    fn take(&self, pages: u64) -> Self::Range;

    fn give(&self, range: Self::Range);
}

const LIMIT: Mask = Mask::bits(32);

impl Source for IovaSpace {
    type Range = IovaRange;

    fn take(&self, pages: u64) -> IovaRange {
        let request = IovaRequest::new(pages * PAGE_SIZE).limit(LIMIT);
        self.alloc(&request).expect("4 GiB for a few pages")
    }

    fn give(&self, range: IovaRange) {
        self.free(range, Time::ZERO);
    }
}

/// The space below, asked the same under one lock.
struct Bare(Mutex<Range>);

impl Source for Bare {
    type Range = Extent;

    fn take(&self, pages: u64) -> Extent {
        let pages = PageCount::new(pages).expect("few pages");
        let window = PageRange::new(1, 1 << 20).expect("in order");
        let request = Request::new(pages).aligned(pages).within(window).top_down();
        self.0.lock().take(&request).expect("4 GiB for a few pages")[0]
    }

    fn give(&self, extent: Extent) {
        self.0.lock().give(extent);
    }
}

/// Threads at the same work, each with ranges of its own.
struct Crowd<'s, S: Source> {
    source: &'s S,
    held: Vec<(XorshiftStar, Vec<S::Range>)>,
}

impl<'s, S: Source> Crowd<'s, S> {
    fn new(source: &'s S, threads: usize) -> Self {
        let held = (0..threads as u64).map(|thread| {
            let mut draws = XorshiftStar::seeded(thread);
            let ranges = (0..HELD).map(|_| source.take(1 << draws.below(4)));
            let ranges = ranges.collect();
            (draws, ranges)
        });
        Self {
            source,
            held: held.collect(),
        }
    }

    fn repeat(&mut self, watch: &mut Stopwatch, ops: usize) {
        let source = self.source;
        together(watch, ops, &mut self.held, |(draws, ranges)| {
            for op in 0..ops {
                let pages = 1 << draws.below(4);
                // First given, then taken.
                source.give(ranges.swap_remove(op % HELD));
                ranges.push(source.take(pages));
            }
        });
    }

    fn end(self) {
        for (_, ranges) in self.held {
            ranges.into_iter().for_each(|range| self.source.give(range));
        }
    }
}

/// Lets a thread work on each of `states`, all at once: alone it is this one.
fn together<T: Send>(
    watch: &mut Stopwatch,
    ops: usize,
    states: &mut [T],
    work: impl Fn(&mut T) + Sync,
) {
    if let [alone] = states {
        watch.time(ops, || work(alone));
        return;
    }
    let all = ops * states.len();
    let start = Barrier::new(states.len());
    let times: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let threads = states.iter_mut().map(|state| {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                let _ = unpin();
                start.wait();
                let begun = Instant::now();
                work(state);
                (begun, Instant::now())
            })
        });
        let threads: Vec<_> = threads.collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|times| times.expect("no panic")).collect()
    });
    let first = times.iter().map(|times| times.0).min();
    let last = times.iter().map(|times| times.1).max();
    if let (Some(first), Some(last)) = (first, last) {
        watch.add(all, last - first);
    }
}

/// A lock that only one thread takes, on a cache line of its own.
#[repr(align(128))]
struct Own(Mutex<u64>);

/// Row x.
pub(crate) fn addresses(bench: &mut Bench, threads: usize) -> anyhow::Result<()> {
    let name = match threads {
        1 => "x: an I/O address range, 1 thread".to_owned(),
        _ => format!("x: an I/O address range, {threads} threads"),
    };
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let ops = bench.args.ops(OPS);
    let strict = IovaSpace::new(IovaConfig::default(), |_| {})?;
    let config = IovaConfig {
        invalidation: Invalidation::Lazy {
            batch: 256,
            timeout_ns: 10_000_000,
        },
        ..IovaConfig::default()
    };
    let lazy = IovaSpace::new(config, |_| {})?;
    let bare = Bare(Mutex::new(Range::new(
        PageCount::new(1 << 20).expect("few"),
    )));
    let mut ours = Crowd::new(&strict, threads);
    let mut lazily = Crowd::new(&lazy, threads);
    let mut theirs = Crowd::new(&bare, threads);
    let mut locks: Vec<Own> = (0..threads).map(|_| Own(Mutex::new(0))).collect();
    let [strict_ns, lazy_ns, bare_ns, locks_ns] = interleave(
        bench.args.repeats(),
        [
            &mut |watch| ours.repeat(watch, ops),
            &mut |watch| lazily.repeat(watch, ops),
            &mut |watch| theirs.repeat(watch, ops),
            &mut |watch| {
                together(watch, ops, &mut locks, |own| {
                    for _ in 0..2 * ops {
                        *black_box(&own.0).lock() += 1;
                    }
                });
            },
        ],
    );
    ours.end();
    lazily.end();
    theirs.end();
    lazy.flush();
    ensure!(strict.stats().live == 0 && lazy.stats().live == 0, "lost");
    bare.0.lock().check().map_err(anyhow::Error::msg)?;
    let row = Row::new(&name, strict_ns).limit("range space, one lock", bare_ns);
    bench.report.row(row.target(Target::Limit(0.7)));
    let row = Row::new(format!("{name}, beside locks"), strict_ns);
    let row = row.limit("two lock pairs, not shared", locks_ns);
    bench.report.row(row.target(Target::Limit(8.0)));
    let row = Row::new(format!("{name}, lazy"), lazy_ns);
    bench.report.row(row.limit("strict", strict_ns));
    Ok(())
}
