//! Row s: what is added to a submission whose objects are all where they should be.

use std::time::Duration;

use anyhow::ensure;
use backends::vulkan::{BufferInfo, UserTimeline, VulkanConfig};
use harness::measure::Stopwatch;
use harness::{Bench, Row};
use placement::MemType;
use ttm::context::OpContext;
use ttm::fence::Usage;

use crate::bare::{Bare, USAGE};
use crate::sides::{Found, Side, per_object};
use crate::stage::{MIB, Object, Stage};

const COUNTS: [usize; 3] = [1, 16, 256];

/// Submissions a repeat.
const SUBMISSIONS: usize = 64;

const WHOLE: &str = "with the submission";
const ADDED: &str = "without it";
const BARE: &str = "empty submission";

fn row_name(count: usize) -> String {
    format!("s: lock, validate, bind, submit, fence {count} objects")
}

pub(crate) fn submissions(bench: &mut Bench) -> anyhow::Result<()> {
    if !COUNTS.iter().any(|n| bench.args.wants(&row_name(*n))) {
        return Ok(());
    }
    let stage = Stage::again(VulkanConfig::new("ttm bench").limit(MemType::VRAM, 256 * MIB))?;
    let bare = Bare::new(&stage)?;
    let info = BufferInfo::new(4 << 10).usage(USAGE);
    let objects: Vec<_> = (0..COUNTS[2])
        .map(|_| {
            let object = stage.make(stage.vulkan.buffer(&info).expect("a buffer"));
            stage.go(&object, &stage.vram);
            object
        })
        .collect();
    for count in COUNTS {
        one(bench, &stage, &bare, &objects[..count])?;
    }
    stage.check()
}

fn one(bench: &mut Bench, stage: &Stage, bare: &Bare, objects: &[Object]) -> anyhow::Result<()> {
    let name = row_name(objects.len());
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let submissions = bench.args.ops(SUBMISSIONS);
    let work = Work {
        stage,
        bare,
        timeline: stage.vulkan.timeline()?,
        objects: objects.iter().collect(),
    };
    work.repeat(1, |_| {});
    let sides = vec![
        Side::new(WHOLE, |watch| {
            watch.time(submissions, || work.repeat(submissions, |_| {}));
            bare.settle(stage, &work.timeline);
        }),
        Side::new(ADDED, |watch| {
            let mut added = Duration::ZERO;
            work.repeat(submissions, |part| added += part);
            watch.add(submissions, added);
            bare.settle(stage, &work.timeline);
        }),
        Side::new(BARE, |watch: &mut Stopwatch| {
            let mut last = bare.next();
            watch.time(submissions, || {
                for _ in 0..submissions {
                    bare.submit_nothing(&[], last);
                    last = bare.next();
                }
            });
            bare.submit_nothing(&[], last);
            bare.wait(&[last]);
        }),
    ];
    let found = Found::of(bench.args.repeats(), sides);
    let arrivals = stage
        .device
        .manager(MemType::VRAM)
        .map(|m| m.counters().arrivals);
    ensure!(arrivals == Some(COUNTS[2] as u64), "something moved");
    let limit = found.get(BARE).expect("measured above");
    for side in [WHOLE, ADDED] {
        let ours = found.get(side).expect("measured above");
        let row = Row::new(format!("{name}, {side}"), ours).limit(BARE, limit);
        bench.report.row(row);
    }
    let each = per_object(found.get(ADDED).expect("measured above"), objects.len());
    bench
        .report
        .row(Row::new(format!("{name}, {ADDED}, an object"), each));
    Ok(())
}

/// Objects, and the work that uses them.
struct Work<'a> {
    stage: &'a Stage,
    bare: &'a Bare,
    timeline: UserTimeline,
    objects: Vec<&'a Object>,
}

impl Work<'_> {
    /// Submits so many times; `added` hears how long each took without the submission itself.
    fn repeat(&self, submissions: usize, mut added: impl FnMut(Duration)) {
        for _ in 0..submissions {
            self.submit(&mut added);
        }
    }

    fn submit(&self, added: &mut impl FnMut(Duration)) {
        let Self { stage, bare, .. } = self;
        let begun = std::time::Instant::now();
        let locked = stage.device.exec(OpContext::new(), |t| {
            self.objects.iter().try_for_each(|object| {
                let reserved = t.lock(object)?;
                reserved.validate(&stage.vram)?;
                reserved.reserve_fences(1)
            })
        });
        let locked = locked.expect("places that are taken");
        let bound = stage.vulkan.bind(&locked, &self.objects, Usage::Read);
        let bound = bound.expect("buffers that go there");
        let (fence, value) = self.timeline.next();
        let before = begun.elapsed();
        bare.submit_nothing(&bound.waits, (self.timeline.semaphore(), value));
        let begun = std::time::Instant::now();
        locked.fence_all(&fence, Usage::Read);
        drop(locked);
        added(before + begun.elapsed());
    }
}
