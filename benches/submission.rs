//! What does the manager add to a submission whose objects are all where they should be?
//!
//! Row k: 1, 16 or 256 objects are locked, validated, given a slot for the fence to come, and
//! released as the youngest. Expected at 256: at most 0.7 of the kernel's, which crosses its
//! objects once for each step and takes the lock of the order of eviction for each of them; here
//! one crossing does the first three, and the release stamps without a lock. At 1 and 16 the
//! objects stay in the first cache anyway, and what counts is the price of a transaction.

use std::process::ExitCode;

use anyhow::ensure;
use harness::measure::measure;
use harness::rig::{Object, Rig};
use harness::{Bench, Row, Target, kernel};
use ttm::context::OpContext;

/// How many objects there are to submit.
const OBJECTS: usize = 256;

fn main() -> ExitCode {
    harness::run("submission", |bench| {
        let rig = Rig::new(OBJECTS as u64)?;
        let objects = rig.fill(OBJECTS);
        for (n, figure) in kernel::SUBMISSION {
            submission(bench, &rig, &objects[..n], &figure)?;
        }
        ensure!(rig.device.back_offs() == 0, "somebody else took part");
        ensure!(rig.counters().arrivals == OBJECTS as u64, "something moved");
        rig.check()
    })
}

fn submission(
    bench: &mut Bench,
    rig: &Rig,
    objects: &[Object],
    figure: &kernel::Figure,
) -> anyhow::Result<()> {
    let n = objects.len();
    let name = format!("k: lock, validate, fence slot, release, {n} objects");
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let transactions = bench.args.ops(kernel::transactions(n));
    let ours = measure(bench.args.repeats(), |watch| {
        watch.time(transactions, || {
            for _ in 0..transactions {
                transaction(rig, objects);
            }
        });
    });
    let row = Row::new(name, ours).kernel(figure);
    let most = if n == OBJECTS { 0.7 } else { 1.0 };
    bench.report.row(row.target(Target::Kernel(most)));
    Ok(())
}

fn transaction(rig: &Rig, objects: &[Object]) {
    let locked = rig.device.exec(OpContext::new(), |t| {
        for object in objects {
            let reserved = t.lock(object)?;
            reserved.validate(&rig.vram)?;
            reserved.reserve_fences(1)?;
        }
        Ok(())
    });
    drop(locked.expect("locks that nobody holds, places that are taken"));
}
