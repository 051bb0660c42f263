//! What do the locks of a transaction cost?
//!
//! Row f: 1, 16 or 256 objects are locked, and all are released. Expected: no more than the
//! kernel's, whose wound/wait locks do the same dance: one compare-and-swap to take, one to
//! release, and remembering what is held. The kernel also counts a reference for each object;
//! here the borrow does. A transaction of one pays for its ticket alone, which is why it is the
//! hardest of the three.

use std::process::ExitCode;

use anyhow::ensure;
use harness::measure::measure;
use harness::rig::{Object, Rig};
use harness::{Bench, Row, Target, kernel};
use ttm::context::OpContext;

/// How many objects there are to lock.
const OBJECTS: usize = 256;

fn main() -> ExitCode {
    harness::run("locking", |bench| {
        let rig = Rig::new(OBJECTS as u64)?;
        let objects = rig.fill(OBJECTS);
        for (n, figure) in kernel::LOCKING {
            locking(bench, &rig, &objects[..n], &figure)?;
        }
        rig.check()
    })
}

fn locking(
    bench: &mut Bench,
    rig: &Rig,
    objects: &[Object],
    figure: &kernel::Figure,
) -> anyhow::Result<()> {
    let name = format!("f: lock and unlock {} in a transaction", objects.len());
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let transactions = bench.args.ops(kernel::transactions(objects.len()));
    let ours = measure(bench.args.repeats(), |watch| {
        watch.time(transactions, || {
            for _ in 0..transactions {
                transaction(rig, objects);
            }
        });
    });
    ensure!(rig.device.back_offs() == 0, "somebody else took part");
    bench.report.row(
        Row::new(name, ours)
            .kernel(figure)
            .target(Target::Kernel(1.0)),
    );
    Ok(())
}

fn transaction(rig: &Rig, objects: &[Object]) {
    let locked = rig.device.exec(OpContext::new(), |t| {
        for object in objects {
            t.lock(object)?;
        }
        Ok(())
    });
    drop(locked.expect("locks that nobody holds"));
}
