//! What does it cost to make room, and does that depend on who else is there?
//!
//! Row d: VRAM is full of N objects of one page, one more is outside; each step brings in the one
//! that the step before pushed out. Expected: no more than the kernel's, and flat, N = 100,000 at
//! most twice N = 100. The victim is the head of a queue, so nothing on the way depends on N but
//! whether it still lies in the caches.
//!
//! Row d': another transaction holds 1,000 objects at the head. Expected: a tenth of the
//! kernel's. The kernel tries all of them again at each step; here a victim that was found locked
//! is put aside until it is released.
//!
//! Beside them, 2 MiB into a full VRAM of 8,192 single pages: 512 evictions, after each of which
//! a run of 512 pages is looked for.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::ensure;
use harness::kernel::{self, Figure};
use harness::measure::{Spread, measure};
use harness::rig::{Object, PAGE, Rig};
use harness::xorshift::Xorshift;
use harness::{Bench, Check, Row, Target};
use placement::{MemType, Place, Placement};
use ttm::context::OpContext;

fn main() -> ExitCode {
    harness::run("eviction", |bench| {
        for order in [Order::Fifo, Order::Shuffled] {
            by_number(bench, order)?;
        }
        past_locked(bench)?;
        large_into_small(bench)
    })
}

/// Which objects follow each other in the ring.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// In the order of creation, and so of addresses.
    Fifo,
    /// In random order.
    Shuffled,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Shuffled => "shuffled",
        }
    }

    fn figures(self) -> [(usize, Figure); 4] {
        match self {
            Self::Fifo => kernel::EVICTION_FIFO,
            Self::Shuffled => kernel::EVICTION_SHUFFLED,
        }
    }
}

/// `n` objects in VRAM of just that size, in the order of eviction, and one outside, which comes
/// last.
fn ring(rig: &Rig, n: usize, order: Order) -> Vec<Object> {
    let mut objects = rig.fill(n);
    if order == Order::Shuffled {
        Xorshift::new().shuffle(&mut objects);
    }
    for object in &objects {
        rig.validate(object, &rig.vram);
    }
    let outside = rig.create(PAGE);
    rig.validate(&outside, &rig.system);
    objects.push(outside);
    objects
}

/// Goes round a ring that is the order of eviction.
struct Steps<'r> {
    rig: &'r Rig,
    ring: &'r [Object],
    /// The one outside.
    next: usize,
    done: u64,
}

impl<'r> Steps<'r> {
    /// Begins at the last of `ring`, and goes round once.
    fn warmed_up(rig: &'r Rig, ring: &'r [Object]) -> Self {
        let next = ring.len() - 1;
        let mut steps = Self {
            rig,
            ring,
            next,
            done: 0,
        };
        steps.run(ring.len());
        steps
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.rig.validate(&self.ring[self.next], &self.rig.vram);
            self.next += 1;
            if self.next == self.ring.len() {
                self.next = 0;
            }
        }
        self.done += steps as u64;
    }

    /// Each step evicted one object: that which the ring says.
    fn ended_well(&self, pages: usize) -> anyhow::Result<()> {
        let (evictions, used) = (self.rig.counters().evictions, self.rig.pages_used());
        ensure!(
            evictions == self.done,
            "{evictions} evictions in {} steps",
            self.done
        );
        ensure!(used == pages as u64, "{used} of {pages} pages are used");
        for (index, object) in self.ring.iter().enumerate() {
            let inside = self.rig.is_in_vram(object);
            ensure!(
                inside != (index == self.next),
                "of the ring, {} is outside, and {index} is {}",
                self.next,
                if inside { "inside" } else { "outside" }
            );
        }
        Ok(())
    }
}

fn by_number(bench: &mut Bench, order: Order) -> anyhow::Result<()> {
    let mut spreads: Vec<(usize, Spread)> = Vec::new();
    for (n, figure) in order.figures() {
        let name = format!("d: eviction, N = {n}, {}", order.name());
        if !bench.args.wants(&name) {
            continue;
        }
        let rig = Rig::new(n as u64)?;
        let ring = ring(&rig, n, order);
        let mut steps = Steps::warmed_up(&rig, &ring);
        let ops = bench.args.ops(kernel::EVICTION_OPS);
        let ours = measure(bench.args.repeats(), |watch| {
            watch.time(ops, || steps.run(ops));
        });
        steps.ended_well(n)?;
        rig.check()?;
        bench.report.row(
            Row::new(name, ours)
                .kernel(&figure)
                .target(Target::Kernel(1.0)),
        );
        spreads.push((n, ours));
    }
    if let [(100, least), .., (100_000, most)] = spreads[..] {
        let name = format!("d: N = 100000 over N = 100, {}", order.name());
        let flat = Check::new(name, most.median / least.median, most.samples);
        bench.report.check(flat.at_most(2.0));
    }
    Ok(())
}

fn past_locked(bench: &mut Bench) -> anyhow::Result<()> {
    let name = "d': N = 10000, fifo, 1000 locked at the head";
    if !bench.args.wants(name) {
        return Ok(());
    }
    let n = kernel::EVICTION_LOCKED_DOMAIN;
    let rig = Rig::new(n as u64)?;
    let ring = ring(&rig, n, Order::Fifo);
    let (locked, moving) = ring.split_at(kernel::EVICTION_LOCKED_COUNT);
    let ops = bench.args.ops(kernel::EVICTION_LOCKED_OPS);
    let ours = while_locked(&rig, locked, || -> anyhow::Result<Spread> {
        let mut steps = Steps::warmed_up(&rig, moving);
        let ours = measure(bench.args.repeats(), |watch| {
            watch.time(ops, || steps.run(ops));
        });
        steps.ended_well(n)?;
        Ok(ours)
    })?;
    let stayed = locked.iter().filter(|object| rig.is_in_vram(object));
    ensure!(
        stayed.count() == locked.len(),
        "a locked object was evicted"
    );
    rig.check()?;
    bench.report.row(
        Row::new(name, ours)
            .kernel(&kernel::EVICTION_LOCKED)
            .target(Target::Kernel(0.1)),
    );
    Ok(())
}

/// Runs `work` while a transaction of another thread holds `objects`.
fn while_locked<R>(rig: &Rig, objects: &[Object], work: impl FnOnce() -> R) -> R {
    let (held, holding) = mpsc::channel();
    let (done, finished) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let locked = rig.device.exec(OpContext::new(), |t| {
                objects
                    .iter()
                    .try_for_each(|object| t.lock(object).map(drop))
            });
            held.send(locked.is_ok()).expect("somebody waits for it");
            // An error once the other end is dropped, be it by a panic.
            let _ = finished.recv();
        });
        let done = done;
        assert_eq!(holding.recv(), Ok(true), "nobody else locks these");
        let result = work();
        drop(done);
        result
    })
}

fn large_into_small(bench: &mut Bench) -> anyhow::Result<()> {
    let name = "d: 2 MiB into 8192 x 4 KiB, 512 evictions";
    if !bench.args.wants(name) {
        return Ok(());
    }
    let rig = Rig::new(kernel::EVICTION_LARGE_DOMAIN as u64)?;
    let small = rig.fill(kernel::EVICTION_LARGE_DOMAIN);
    let large = rig.create(512 * PAGE);
    rig.validate(&large, &rig.system);
    let contiguous = Placement::of(Place::new(MemType::VRAM).contiguous());
    let mut oldest = 0;
    let mut round = |timed: &mut dyn FnMut(&mut dyn FnMut())| {
        timed(&mut || rig.validate(&large, &contiguous));
        rig.validate(&large, &rig.system);
        for object in &small[oldest..oldest + 512] {
            rig.validate(object, &rig.vram);
        }
        oldest = (oldest + 512) % small.len();
    };
    for _ in 0..16 {
        round(&mut |work| work());
    }
    let before = rig.counters().evictions;
    let mut rounds = 0;
    let ours = measure(bench.args.repeats(), |watch| {
        rounds += 1;
        round(&mut |work| watch.time(1, work));
    });
    let evicted = rig.counters().evictions - before;
    ensure!(
        evicted == rounds * 512,
        "{evicted} evictions in {rounds} rounds of 512"
    );
    rig.check()?;
    bench
        .report
        .row(Row::new(name, ours).kernel(&kernel::EVICTION_LARGE));
    Ok(())
}
