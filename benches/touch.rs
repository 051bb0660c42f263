//! What does it cost to use an object that is already where it should be?
//!
//! Row e: a transaction of one: lock, validate, release, after which the object is the youngest.
//! Expected: no more than the kernel's lock, no-op validate and move to the tail of the list. The
//! kernel takes the list's lock for it; here the release writes a stamp into the object, which
//! whoever evicts compares later. So the price is one uncontended lock and one ticket.
//!
//! And for that reason it scales: two threads at objects of their own share only counters, and do
//! at least 1.8 times the work of one.

use std::process::ExitCode;

use anyhow::ensure;
use harness::kernel;
use harness::measure::{Stopwatch, measure, scaling};
use harness::rig::{Object, Rig};
use harness::xorshift::Xorshift;
use harness::{Bench, Check, Row, Target};

fn main() -> ExitCode {
    harness::run("touch", |bench| {
        in_order(bench, "e: touch, N = 1000, creation order", |_| {})?;
        in_order(bench, "e: touch, N = 1000, random order", |objects| {
            Xorshift::new().shuffle(objects);
        })?;
        on_two_threads(bench)
    })
}

/// Goes round its objects.
struct Round<'r> {
    rig: &'r Rig,
    objects: Vec<Object>,
    next: usize,
}

impl Round<'_> {
    fn run(&mut self, ops: usize) {
        for _ in 0..ops {
            self.rig.validate(&self.objects[self.next], &self.rig.vram);
            self.next += 1;
            if self.next == self.objects.len() {
                self.next = 0;
            }
        }
    }
}

fn in_order(bench: &mut Bench, name: &str, order: fn(&mut [Object])) -> anyhow::Result<()> {
    if !bench.args.wants(name) {
        return Ok(());
    }
    let n = kernel::TOUCH_OBJECTS;
    let rig = Rig::new(n as u64)?;
    let mut objects = rig.fill(n);
    order(&mut objects);
    let mut round = Round {
        rig: &rig,
        objects,
        next: 0,
    };
    let ops = bench.args.ops(kernel::TOUCH_OPS);
    let ours = measure(bench.args.repeats(), |watch| {
        watch.time(ops, || round.run(ops));
    });
    nothing_moved(&rig, n)?;
    bench.report.row(
        Row::new(name, ours)
            .kernel(&kernel::TOUCH)
            .target(Target::Kernel(1.0)),
    );
    Ok(())
}

fn on_two_threads(bench: &mut Bench) -> anyhow::Result<()> {
    let name = "e: touch, two threads over one, objects of their own";
    if !bench.args.wants(name) {
        return Ok(());
    }
    let n = kernel::TOUCH_OBJECTS;
    let rig = Rig::new(2 * n as u64)?;
    let ops = bench.args.ops(kernel::TOUCH_OPS);
    let seen = scaling(bench.args.repeats(), |_| {
        let mut round = Round {
            rig: &rig,
            objects: rig.fill(n),
            next: 0,
        };
        move |watch: &mut Stopwatch| watch.time(ops, || round.run(ops))
    });
    match seen {
        Ok(seen) => {
            let check = Check::new(name, seen.factor, seen.two.samples);
            bench.report.check(check.at_least(1.8));
        }
        Err(error) => println!("{name}: skipped, there is no second CPU: {error}"),
    }
    Ok(())
}

fn nothing_moved(rig: &Rig, n: usize) -> anyhow::Result<()> {
    let seen = rig.counters();
    ensure!(
        seen.arrivals == n as u64 && seen.evictions == 0,
        "touching moved something: {seen:?}"
    );
    rig.check()
}
