//! How fast the spaces are, and how full a memory gets before they fail.
//!
//! - *pairs*: 1,000 or 10,000 live extents of 4 KiB << 0..10; an op frees a random one and takes a
//!   new one. Expected: half a hundred nanoseconds for a buddy, less than twice that for a range; more
//!   for 10,000 because caches are small: a tree of holes is a level deeper, if at all.
//! - *buffers*: a mix of buffer sizes held at 80 % of 256 MiB; an op takes or gives. Expected: a
//!   range costs a little more than four times the bare loop; afterwards it fills up further than plain best
//!   fit and address-ordered first fit do on the same operations.
//!
//! Run with `cargo run --release -p gpu-ttm-placement --example churn [seeds]`.

use std::hint::black_box;
use std::time::Instant;

use placement::{Buddy, Extents, PageCount, Range, Request, Space};

fn main() {
    let seeds = std::env::args()
        .nth(1)
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(100);
    for (live, gib) in [(1_000, 1), (10_000, 8)] {
        let size = pages(gib << 18);
        pairs("range", Box::new(Range::new(size)), live);
        pairs("buddy", Box::new(Buddy::new(size)), live);
    }
    let null = buffers("null", || Null, 400_000, 7, 0.0);
    buffers(
        "range",
        || by_trait(Range::new(pages(BUFFER_PAGES))),
        400_000,
        7,
        null,
    );
    buffers(
        "buddy",
        || by_trait(Buddy::new(pages(BUFFER_PAGES))),
        400_000,
        7,
        null,
    );
    fullness("range", || by_trait(Range::new(pages(BUFFER_PAGES))), seeds);
    fullness("best fit", || Naive::new(true), seeds);
    fullness("first fit", || Naive::new(false), seeds);
}

fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("a size in range")
}

/// Prints nanoseconds per give and take: the median of 51 repeats of 2,000.
fn pairs(name: &str, mut space: Box<dyn Space>, live: usize) {
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut size = move |slots: u64| {
        let slot = (random.next() % slots) as usize;
        (slot, Request::new(pages(1 << (random.next() % 10))))
    };
    let mut held: Vec<Extents> = (0..live)
        .filter_map(|_| space.take(&size(1).1).ok())
        .collect();
    let mut times = Vec::new();
    for repeat in 0..71 {
        let ops: Vec<_> = (0..2000).map(|_| size(held.len() as u64)).collect();
        let start = Instant::now();
        for (slot, request) in &ops {
            for extent in std::mem::take(&mut held[*slot]) {
                space.give(extent);
            }
            held[*slot] = space.take(request).unwrap_or_default();
        }
        if repeat >= 20 {
            times.push(start.elapsed().as_nanos() as f64 / 2000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "pairs    {name:9} {live:6} live: {:6.1} ns",
        times[times.len() / 2]
    );
}

const BUFFER_PAGES: u64 = 65_536;
const TARGET: u64 = BUFFER_PAGES * 8 / 10;

/// What the buffer mix runs on.
trait Allocator {
    type Held;
    fn take(&mut self, pages: u64) -> Option<Self::Held>;
    fn give(&mut self, held: Self::Held);
}

/// A run of the buffer mix.
struct Mix<A: Allocator> {
    allocator: A,
    random: XorShiftStar,
    held: Vec<(A::Held, u64)>,
    used: u64,
}

impl<A: Allocator> Mix<A> {
    fn new(allocator: A, seed: u64) -> Self {
        let random = XorShiftStar(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self {
            allocator,
            random,
            held: Vec::with_capacity(BUFFER_PAGES as usize),
            used: 0,
        }
    }

    fn step(&mut self) {
        if self.used > TARGET || !self.take() {
            self.give();
        }
    }

    fn take(&mut self) -> bool {
        let pages = self.random.buffer_pages();
        let Some(held) = self.allocator.take(pages) else {
            return false;
        };
        self.held.push((held, pages));
        self.used += pages;
        true
    }

    fn give(&mut self) {
        if !self.held.is_empty() {
            let victim = (self.random.next() % self.held.len() as u64) as usize;
            let (held, pages) = self.held.swap_remove(victim);
            self.allocator.give(held);
            self.used -= pages;
        }
    }
}

/// Prints nanoseconds per op (median over the seeds), and how that compares with `null`.
fn buffers<A: Allocator>(
    name: &str,
    make: impl Fn() -> A,
    steps: u32,
    seeds: u64,
    null: f64,
) -> f64 {
    let mut times: Vec<f64> = (1..=seeds)
        .map(|seed| {
            let mut mix = Mix::new(make(), seed);
            (0..steps / 2).for_each(|_| mix.step());
            let start = Instant::now();
            (0..steps).for_each(|_| mix.step());
            black_box(mix.used);
            start.elapsed().as_nanos() as f64 / f64::from(steps)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let ratio = if null > 0.0 { median / null } else { 1.0 };
    println!("buffers  {name:9}: {median:6.1} ns an op, {ratio:.2} times the empty loop");
    median
}

/// Prints the share of the memory in use at the first failure after 100,000 steps.
fn fullness<A: Allocator>(name: &str, make: impl Fn() -> A, seeds: u64) {
    let full = |seed| {
        let mut mix = Mix::new(make(), seed);
        (0..100_000).for_each(|_| mix.step());
        while mix.take() {}
        mix.used as f64 / BUFFER_PAGES as f64
    };
    let mean = (1..=seeds).map(full).sum::<f64>() / seeds as f64;
    println!("fullness {name:9}: {mean:.4} in use at the first failure, {seeds} seeds");
}

/// Counts only: what the loop itself costs.
struct Null;

impl Allocator for Null {
    type Held = u64;

    fn take(&mut self, pages: u64) -> Option<u64> {
        Some(black_box(pages))
    }

    fn give(&mut self, held: u64) {
        black_box(held);
    }
}

struct ByTrait(Box<dyn Space>);

fn by_trait(space: impl Space + 'static) -> ByTrait {
    ByTrait(Box::new(space))
}

impl Allocator for ByTrait {
    type Held = placement::Extent;

    fn take(&mut self, n: u64) -> Option<placement::Extent> {
        let align = pages(1);
        let extents = self.0.take(&Request::new(pages(n)).aligned(align)).ok()?;
        Some(extents[0])
    }

    fn give(&mut self, held: placement::Extent) {
        self.0.give(held);
    }
}

/// Plain best fit, or first fit in address order: a sorted list of holes.
struct Naive {
    best: bool,
    holes: Vec<(u64, u64)>,
}

impl Naive {
    fn new(best: bool) -> Self {
        Self {
            best,
            holes: vec![(0, BUFFER_PAGES)],
        }
    }
}

impl Allocator for Naive {
    type Held = (u64, u64);

    fn take(&mut self, pages: u64) -> Option<(u64, u64)> {
        let mut fits = self
            .holes
            .iter_mut()
            .enumerate()
            .filter(|(_, hole)| hole.1 >= pages);
        let (index, hole) = match self.best {
            true => fits.min_by_key(|(_, hole)| hole.1)?,
            false => fits.next()?,
        };
        let start = hole.0;
        *hole = (start + pages, hole.1 - pages);
        if hole.1 == 0 {
            self.holes.remove(index);
        }
        Some((start, pages))
    }

    fn give(&mut self, (start, pages): (u64, u64)) {
        let index = self.holes.partition_point(|hole| hole.0 < start);
        self.holes.insert(index, (start, pages));
        for left in [index, index.wrapping_sub(1)] {
            if let Some(&[(start, pages), (next, more)]) = self
                .holes
                .get(left..left.wrapping_add(2))
                .and_then(|two| two.first_chunk())
                && start + pages == next
            {
                self.holes[left].1 += more;
                self.holes.remove(left + 1);
            }
        }
    }
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

struct XorShiftStar(u64);

impl XorShiftStar {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 4, 16, 64, 256, 1024 or 4096 KiB (40, 20, 20, 12, 6, 2 %) times 0.5 to 1, in pages.
    fn buffer_pages(&mut self) -> u64 {
        let kib = match self.next() % 100 {
            0..40 => 4,
            40..60 => 16,
            60..80 => 64,
            80..92 => 256,
            92..98 => 1024,
            _ => 4096,
        };
        let bytes = kib * 1024;
        (bytes - self.next() % (bytes / 2)).div_ceil(4096)
    }
}
