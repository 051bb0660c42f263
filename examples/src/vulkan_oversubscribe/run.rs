//! One run of the job on a device with a limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use backends::host::{FileBackup, MemfdPages, Threads};
use backends::vulkan::{BufferInfo, Copies, Described, VulkanConfig, VulkanDevice, VulkanDriver};
use cli::report::observer::Observer;
use indicatif::ProgressBar;
use placement::{MemType, PageCount, Place, Placement};
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::fence::Usage;
use ttm::sync::Arc;

use super::args::{Args, Copies as ArgCopies, Job};
use super::compute::Compute;
use super::content::{Wrong, after, bytes, compare, fresh};

/// A wait that a frame would notice.
const STALL: Duration = Duration::from_millis(1);

/// What a run has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) device: String,
    pub(crate) driver: String,
    pub(crate) keeps_handles: bool,
    /// Of the passes alone.
    pub(crate) seconds: f64,
    /// Of the passes: what came to the device's memory, and what left.
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
    pub(crate) evictions: u64,
    pub(crate) rebound: u64,
    pub(crate) submissions: u64,
    pub(crate) copies: u64,
    pub(crate) copy_submissions: u64,
    /// Time in which the submitting thread made objects resident.
    pub(crate) waited: Duration,
    pub(crate) longest: Duration,
    pub(crate) stalls: u64,
    pub(crate) most_allocated: u64,
    pub(crate) words: u64,
    pub(crate) wrong: u64,
    pub(crate) first_wrong: Option<(u64, Wrong)>,
}

/// A device, its threads and the objects.
struct Rig {
    // First: nothing steps any more.
    threads: Option<Threads>,
    compute: Compute,
    objects: Vec<Bo<VulkanDriver>>,
    device: Device<VulkanDriver>,
    vulkan: VulkanDevice,
}

/// Runs the job with so much device memory.
pub(crate) fn run(
    args: &Args,
    job: &Job,
    limit: u64,
    observer: Option<&Arc<Observer>>,
    bar: &ProgressBar,
) -> Result<Outcome> {
    let mut rig = Rig::new(args, job, limit, observer)?;
    let mut outcome = Outcome {
        device: rig.vulkan.facts().name.clone(),
        driver: rig.vulkan.facts().driver.clone(),
        keeps_handles: rig.vulkan.keeps_handles(),
        ..Outcome::default()
    };
    bar.set_message("writing the data");
    for (n, bo) in (0..).zip(&rig.objects) {
        let words = bytes(&fresh(n, job.words()));
        rig.device
            .exec(OpContext::new(), |t| t.lock(bo)?.write(0, &words))?;
        bar.inc(1);
    }
    if limit >= job.data() {
        bar.set_message("bringing everything in");
        rig.bring_in()?;
    }
    rig.passes(job, &mut outcome, bar)?;
    bar.set_message("checking every word");
    rig.check(job, &mut outcome, bar)?;
    // What a service has in hand counts nowhere.
    rig.threads.take();
    let checked = rig.device.check();
    checked.map_err(|violation| anyhow!("a broken invariant: {violation:?}"))?;
    Ok(outcome)
}

impl Rig {
    fn new(args: &Args, job: &Job, limit: u64, observer: Option<&Arc<Observer>>) -> Result<Self> {
        let mut config = VulkanConfig::new("vulkan_oversubscribe")
            .limit(MemType::VRAM, limit)
            .stable(!args.no_sparse)
            .copies(match args.copies {
                ArgCopies::Measured => Copies::Measured,
                ArgCopies::Queue => Copies::Queue,
                ArgCopies::Cpu => Copies::Cpu,
            });
        if let Some(name) = &args.device {
            config = config.device(name);
        }
        let vulkan = VulkanDevice::open(&config)?;
        let system = 2 * job.data() + (64 << 20);
        let swap = FileBackup::new(std::env::temp_dir(), system / 4096).context("the swap file")?;
        let mut builder = vulkan
            .builder(Arc::new(MemfdPages::new().context("system pages")?))
            .system_limit(PageCount::from_bytes_ceil(system).context("the data set is too large")?)
            .backup(Arc::new(swap));
        if let Some(observer) = observer {
            builder = builder.sink(Arc::clone(observer) as _);
        }
        let device = builder.build()?;
        vulkan.tell_of_loss(&device);
        let services = device.services().into_iter().chain(vulkan.services());
        let threads = Threads::start(device.clock(), services).context("threads")?;
        let compute = Compute::new(&vulkan, job.batch)?;
        let objects = (0..job.objects)
            .map(|_| {
                let Described { info, object } = vulkan.buffer(&BufferInfo::new(job.object))?;
                Ok(device.create(info, object)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            threads: Some(threads),
            compute,
            objects,
            device,
            vulkan,
        })
    }

    /// Everything is resident, and its memory there.
    fn bring_in(&self) -> Result<()> {
        let placement = Placement::of(Place::new(MemType::VRAM).contiguous());
        for bo in &self.objects {
            self.device.exec(OpContext::new(), |t| {
                let reserved = t.lock(bo)?;
                reserved.validate(&placement)?;
                reserved.wait_idle(Usage::Write)
            })?;
        }
        Ok(())
    }

    fn passes(&mut self, job: &Job, outcome: &mut Outcome, bar: &ProgressBar) -> Result<()> {
        let vram = self
            .device
            .manager(MemType::VRAM)
            .context("no VRAM")?
            .clone();
        let before = vram.counters();
        let copied = self.vulkan.counts();
        let begun = Instant::now();
        for pass in 0..job.passes {
            bar.set_message(format!("pass {} of {}", pass + 1, job.passes));
            for batch in job.pass(pass).chunks(job.batch as usize) {
                self.submit(batch, job, outcome)?;
                bar.inc(batch.len() as u64);
            }
        }
        self.compute.finish()?;
        outcome.seconds = begun.elapsed().as_secs_f64();
        let after = vram.counters();
        outcome.in_bytes = after.bytes_in - before.bytes_in;
        outcome.out_bytes = after.bytes_out - before.bytes_out;
        outcome.evictions = after.evictions - before.evictions;
        let now = self.vulkan.counts();
        outcome.copies = now.jobs - copied.jobs;
        outcome.copy_submissions = now.submissions - copied.submissions;
        Ok(())
    }

    /// Validates a few objects, and runs the shader over them.
    fn submit(&mut self, batch: &[usize], job: &Job, outcome: &mut Outcome) -> Result<()> {
        let bos: Vec<&Bo<VulkanDriver>> = batch.iter().map(|n| &self.objects[*n]).collect();
        // A buffer that is made anew at each place lies in one run.
        let place = Place::new(MemType::VRAM);
        let placement = Placement::of(match self.vulkan.keeps_handles() {
            true => place,
            false => place.contiguous(),
        });
        let begun = Instant::now();
        let locked = self.device.exec(OpContext::new(), |t| {
            for bo in &bos {
                let reserved = t.lock(bo)?;
                reserved.validate(&placement)?;
                reserved.reserve_fences(1)?;
            }
            Ok(())
        })?;
        let binding = self.vulkan.bind(&locked, &bos, Usage::Write)?;
        let waited = begun.elapsed();
        let fence = self.compute.submit(&binding, job.words())?;
        locked.fence_all(&fence, Usage::Write);
        drop(locked);
        outcome.submissions += 1;
        outcome.rebound += binding.rebound;
        outcome.waited += waited;
        outcome.longest = outcome.longest.max(waited);
        outcome.stalls += u64::from(waited >= STALL);
        let usage = self.vulkan.usage(MemType::VRAM).unwrap_or_default();
        outcome.most_allocated = outcome.most_allocated.max(usage.allocated);
        Ok(())
    }

    /// Compares every word with what the CPU makes of it.
    fn check(&self, job: &Job, outcome: &mut Outcome, bar: &ProgressBar) -> Result<()> {
        let mut found = vec![0; job.object as usize];
        // By the CPU, wherever the object is: where it does not reach, it comes to system memory.
        let place = Placement::of(Place::new(MemType::SYSTEM));
        for (n, bo) in (0..).zip(&self.objects) {
            self.device.exec(OpContext::new(), |t| {
                let reserved = t.lock(bo)?;
                reserved.validate(&place)?;
                reserved.read(0, &mut found)
            })?;
            let expected = after(n, job.words(), job.passes);
            let (wrong, first) = compare(&found, &expected);
            outcome.words += job.words();
            outcome.wrong += wrong;
            if outcome.first_wrong.is_none() {
                outcome.first_wrong = first.map(|wrong| (n, wrong));
            }
            bar.inc(1);
        }
        Ok(())
    }
}
