//! `simulate demo`: several clients on objects that don't all fit, and every word checked.
//!
//! 1. The card, its device and a backup in `--swap-dir` are made ([`Rig`]).
//! 2. Each client works in a thread of its own ([`client`]): on the virtual clock they take turns,
//!    on the wall clock they run at the same time. What they read is held against the [`oracle`].
//! 3. Everything is given back, the device closed, and nothing may be left.
//! 4. The [`report`] is printed and written.

mod client;
mod oracle;
mod pages;
mod platform;
mod report;
mod stats;
mod windows;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use backends::host::{FileBackup, SystemPressure, Threads};
use backends::sim::{
    CacheModel, FailingBackup, Gpu, GpuConfig, Inject as Sites, SimClock, SimDriver, VirtualClock,
    preset, preset_names,
};
use indicatif::{ProgressBar, ProgressStyle};
use placement::{MemType, PAGE_SIZE, PageCount, Range};
use ttm::clock::{Clock, Service};
use ttm::device::Device;
use ttm::dma::{DmaDevice, Mapper};
use ttm::driver::EngineId;
use ttm::pages::Reclaimer;
use ttm::resource::Group;
use ttm::sync::{Arc, Mutex};

use crate::args::{ClockKind, DemoArgs, Inject};
use crate::exit::Failure;
use cli::report::observer::{Observed, Observer};
use cli::table::to_stdout;
use client::{Client, Done, Ended, Random};
use platform::Chosen;
use stats::Stats;
use windows::Reach;

/// A client on the virtual clock computes up to so long between two operations.
const THINK_NS: u64 = 6_000_000;

/// What all clients share.
struct Shared {
    clock: Arc<dyn Clock>,
    time: SimClock,
    end_ns: u64,
    think_ns: u64,
    stop: AtomicBool,
    progress: ProgressBar,
    sizes: Sizes,
    /// What failed and was survived, and how often.
    failures: Mutex<BTreeMap<String, u64>>,
    wrong_words: AtomicU64,
}

/// How large the objects of each client are.
#[derive(Clone, Copy)]
struct Sizes {
    pages: u64,
    largest: u64,
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.now().nanos()
    }

    fn is_over(&self) -> bool {
        self.progress
            .set_position(self.now().min(self.end_ns) / 1_000_000);
        self.is_stopped() || self.now() >= self.end_ns
    }

    /// Whether a client has found something that ends the run.
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Lets others run: on the virtual clock by computing, on the wall clock by itself.
    fn think(&self, ns: u64) {
        if let SimClock::Virtual(clock) = &self.time {
            clock.advance(ns);
        }
    }

    /// Sizes in pages of one client's objects: mostly small, together its share.
    fn sizes(&self, random: &mut Random) -> Vec<u64> {
        let mut left = self.sizes.pages;
        let mut sizes = Vec::new();
        while left > 0 {
            let most = 1 << random.below(u64::from(self.sizes.largest.ilog2()) + 1);
            let pages = (most + random.below(most))
                .min(self.sizes.largest)
                .min(left);
            sizes.push(pages);
            left -= pages;
        }
        sizes
    }

    fn note(&self, error: &ttm::Error) {
        *self.failures.lock().entry(summary(error)).or_default() += 1;
    }

    /// The device's own invariants; on the wall clock only when nobody is at work.
    fn check(&self, device: &Device<SimDriver>) -> Result<(), Ended> {
        if matches!(self.time, SimClock::Wall) {
            return Ok(());
        }
        let checked = device.check().map(|_| ());
        checked.map_err(|violation| Ended::Broken(violation.to_string()))
    }
}

/// An error without the figures in which one occurrence differs from the next.
fn summary(error: &ttm::Error) -> String {
    match error {
        ttm::Error::NoMemory { why: Some(why), .. } => match &why.refusal {
            Some(refusal) => format!(
                "out of system memory: the system limit is {}, and {refusal}",
                why.limit
            ),
            None => format!("out of system memory: the system limit is {}", why.limit),
        },
        ttm::Error::NoMemory { why: None, .. } => "out of system memory".into(),
        ttm::Error::NoSpace(detail) => {
            let tried = detail.tried.iter().map(|t| t.mem_type.to_string());
            format!("no space in {}", tried.collect::<Vec<_>>().join(", "))
        }
        error => error.to_string(),
    }
}

/// The card, and what manages it.
struct Rig {
    device: Device<SimDriver>,
    gpu: Gpu,
    time: SimClock,
    stats: Arc<Stats>,
    swap: Arc<FileBackup>,
    reach: Reach,
    platform: Option<Chosen>,
    /// What maps system pages for the card, in a platform.
    card: Option<Arc<DmaDevice>>,
    observer: Option<Arc<Observer>>,
}

/// Runs the demo.
///
/// # Errors
/// Wrong: a word or an invariant. Refused: bad arguments, or the device was lost.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if args.inject.contains(&Inject::List) {
        return Ok(list_sites()?);
    }
    if args.preset.as_deref() == Some("list") {
        return Ok(to_stdout(
            format!("{}\n", preset_names().join("\n")).as_bytes(),
        )?);
    }
    if args.platform.as_deref() == Some("list") {
        return Ok(to_stdout(platform::list().as_bytes())?);
    }
    let chosen = Chosen::of(args)?;
    let mut config = config(args)?;
    if let Some(chosen) = &chosen {
        chosen.put(&mut config, args.seed);
    }
    let rig = Rig::new(args, config, chosen)?;
    let start = Instant::now();
    let (outcome, done, shared) = work(args, &rig);
    let mut report = report::Report::new(args, &rig, &done, &shared);
    let outcome = outcome.and_then(|()| take_down(&rig));
    report.wall_seconds = start.elapsed().as_secs_f64();
    report.print(&args.outputs)?;
    if let Some(observer) = &rig.observer {
        observer.finish("Residency of the demo", &args.outputs)?;
    }
    if let Some(target) = &args.outputs.json {
        target.write(&report)?;
    }
    outcome?;
    Ok(args.outputs.say(&report.verdict())?)
}

fn list_sites() -> Result<()> {
    let sites = Sites::new().sites();
    let width = sites.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = sites
        .iter()
        .map(|(name, what)| format!("{name:width$}  {what}\n"));
    to_stdout(lines.collect::<String>().as_bytes())
}

/// The card as asked for: a real card's layout is scaled to `--vram`.
fn config(args: &DemoArgs) -> Result<GpuConfig> {
    let pages = |size: cli::size::ByteSize| {
        PageCount::from_bytes_ceil(size.bytes()).context("a size beyond all memory")
    };
    let vram = pages(args.vram)?;
    ensure!(
        vram.get() >= 64,
        "--vram: expected at least 256K, found {}",
        args.vram
    );
    let objects = args.working_set().bytes() / PAGE_SIZE;
    ensure!(
        objects >= u64::from(args.clients) && objects < oracle::MAX_OBJECTS * 256,
        "--working-set: expected between a page for each client and 1T, found {}",
        args.working_set()
    );
    let least = 2 * client::largest(vram).min(objects) * PAGE_SIZE;
    ensure!(
        args.system_limit().bytes() >= least,
        "--system-limit: expected at least {}, twice the largest object, found {}",
        cli::size::ByteSize(least),
        args.system_limit()
    );
    let mut config = match &args.preset {
        None => GpuConfig::new(vram),
        Some(name) => preset(name).with_context(|| {
            let names = preset_names().join(", ");
            format!("--preset: expected one of {names}, found {name:?}")
        })?,
    };
    let aperture = config.aperture.get() as f64 / config.vram.get() as f64;
    config.aperture = PageCount::new((vram.get() as f64 * aperture) as u64).unwrap_or(vram);
    config.vram = vram;
    config.seed = args.seed;
    if args.no_snoop {
        config.memory = config.memory.cache(CacheModel::seeded(args.seed));
    }
    Ok(config)
}

impl Rig {
    fn new(args: &DemoArgs, config: GpuConfig, platform: Option<Chosen>) -> Result<Self> {
        let inject = Sites::new();
        for wish in &args.inject {
            let Inject::Site { name, nth, forever } = wish else {
                continue;
            };
            let known = inject.sites().iter().any(|(site, _)| site == name);
            ensure!(
                known,
                "--inject: no site {name:?}; `--inject list` prints all"
            );
            inject.fail(name, nth.get(), *forever);
        }
        let time = match args.clock {
            ClockKind::Virtual => SimClock::Virtual(VirtualClock::seeded(args.seed)),
            ClockKind::Wall => SimClock::Wall,
        };
        let limit = args.swap_limit.map_or(1 << 40, |limit| limit.bytes());
        let swap = FileBackup::new(args.swap_dir(), limit).context("--swap-dir")?;
        let swap = Arc::new(swap);
        let backup = FailingBackup::new(Arc::clone(&swap) as _, Arc::clone(&inject));
        let wanted = args.outputs.trace.is_some() || args.outputs.plot.is_some();
        let observer = match wanted {
            true => Some(Arc::new(Observer::create(&args.outputs)?)),
            false => None,
        };
        let stats = Arc::new(Stats::new(observer.clone()));
        let gpu = Gpu::with_inject(config.clone(), time.clone(), Arc::clone(&inject))?;
        let out = EngineId(u8::from(config.engines.len() > 1));
        let limit = PageCount::new(args.system_limit().bytes() / PAGE_SIZE);
        let mut builder = Device::builder(SimDriver::new().engines(EngineId(0), out), gpu.clock())
            .pages(match &platform {
                None => gpu.pages(),
                Some(chosen) => chosen.pages(&gpu)?,
            })
            .backup(Arc::new(backup))
            .system_limit(limit.context("--system-limit")?)
            .memory(
                MemType::VRAM,
                Box::new(Range::new(config.vram)),
                gpu.region(),
            )
            .faults(inject)
            .sink(Arc::clone(&stats) as Arc<dyn ttm::trace::Sink>);
        for (number, engine) in (0..).zip(gpu.engines()) {
            builder = builder.engine(match &observer {
                None => engine,
                Some(observer) => Arc::new(Observed {
                    engine,
                    number,
                    clock: gpu.clock(),
                    observer: Arc::clone(observer),
                }),
            });
        }
        let card = platform.as_ref().map(|chosen| chosen.mapper(&gpu));
        let card = card.transpose()?;
        if let Some(card) = &card {
            builder = builder.mapper(Arc::clone(card) as Arc<dyn Mapper>);
        }
        if let Some(verdict) = platform.as_ref().and_then(Chosen::told) {
            builder = builder.reaches(verdict);
        }
        let device = builder.build()?;
        let reach = Reach::new(args, &device, &time, gpu.inject())?;
        Ok(Self {
            device,
            gpu,
            time,
            reach,
            stats,
            swap,
            platform,
            card,
            observer,
        })
    }

    /// What goes on in the background of real threads; it gives memory back when the machine is
    /// short of it.
    fn services(&self) -> Vec<Arc<dyn Service>> {
        let pressure = Arc::new(SystemPressure::probe());
        let pool = Arc::clone(self.device.pool());
        let reclaimer = Reclaimer::new(pool, pressure, self.gpu.clock());
        let mut services = self.device.services();
        services.push(Arc::new(reclaimer.with(self.device.reclaim())));
        services
    }
}

/// Lets the clients work. Answers how it ended and what each did.
fn work(args: &DemoArgs, rig: &Rig) -> (Result<(), Failure>, Vec<Done>, Shared) {
    let end_ms = args.seconds.saturating_mul(1000);
    let pages = args.working_set().bytes() / PAGE_SIZE / u64::from(args.clients);
    let shared = Shared {
        clock: rig.gpu.clock(),
        time: rig.time.clone(),
        end_ns: end_ms.saturating_mul(1_000_000),
        think_ns: THINK_NS,
        stop: AtomicBool::new(false),
        progress: progress(end_ms),
        sizes: Sizes {
            pages,
            largest: client::largest(rig.gpu.config().vram),
        },
        failures: Mutex::new(BTreeMap::new()),
        wrong_words: AtomicU64::new(0),
    };
    let results = Mutex::new(BTreeMap::new());
    let accesses = (1..=args.clients).map(|number| rig.reach.client(number));
    let ready = rig.reach.serve(args.clients);
    let ready = ready.and_then(|served| Ok((served, accesses.collect::<Result<Vec<_>>>()?)));
    let (served, accesses) = match ready {
        Ok(ready) => ready,
        Err(error) => return (Err(Failure::Refused(error)), Vec::new(), shared),
    };
    let one = |number: u32, accesses| {
        let group = Group::new(&format!("client {number}"), None);
        let queue = rig.gpu.queue(number as usize);
        let mut client = Client::new(number, &shared, rig, accesses, queue, group, args.seed);
        let ended = client.run();
        if ended.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let done = client.done;
        drop(client);
        results.lock().insert(number, (done, ended));
    };
    match &rig.time {
        SimClock::Virtual(clock) => clock.scope(|scope| {
            for (number, accesses) in (1..).zip(accesses) {
                let one = &one;
                let name = format!("client {number}");
                scope.spawn(&name, move || one(number, accesses));
            }
        }),
        SimClock::Wall => {
            // Without them, clients do what they need themselves.
            let threads = Threads::start(&rig.gpu.clock(), rig.services());
            std::thread::scope(|scope| {
                for (number, accesses) in (1..).zip(accesses) {
                    let one = &one;
                    scope.spawn(move || one(number, accesses));
                }
            });
            drop(threads);
        }
    }
    drop(served);
    shared.progress.finish_and_clear();
    let (mut all, mut outcome) = (Vec::new(), Ok(()));
    for (done, ended) in std::mem::take(&mut *results.lock()).into_values() {
        all.push(done);
        let failure = match ended {
            Ok(()) => continue,
            Err(Ended::Wrong(wrong)) => {
                shared.wrong_words.fetch_add(wrong.words, Ordering::Relaxed);
                Failure::Wrong(wrong.to_string())
            }
            Err(Ended::Broken(what)) => Failure::Wrong(what),
            Err(Ended::Refused(why)) => Failure::Refused(anyhow!(why)),
        };
        // What is wrong goes before what was refused.
        match &outcome {
            Err(Failure::Wrong(_)) => {}
            Err(Failure::Refused(_)) if matches!(failure, Failure::Refused(_)) => {}
            _ => outcome = Err(failure),
        }
    }
    (outcome, all, shared)
}

fn progress(end_ms: u64) -> ProgressBar {
    let bar = ProgressBar::new(end_ms);
    let style =
        ProgressStyle::with_template("{bar:40} {percent:>3} % of the run, {elapsed} so far");
    bar.set_style(style.expect("a template that is right"));
    bar
}

/// Closes the device, which all objects have left, and looks that nothing is left.
fn take_down(rig: &Rig) -> Result<(), Failure> {
    let device = &rig.device;
    let wrong = |what: String| Failure::Wrong(what);
    device
        .check()
        .map_err(|violation| wrong(violation.to_string()))?;
    device
        .close(None)
        .map_err(|holders| wrong(format!("the device cannot be closed: {holders:?}")))?;
    let frames = device.system_budget().used().get();
    let slots = device.backup_usage().map_or(0, |(used, _)| used.get());
    let used = device
        .manager(MemType::VRAM)
        .map_or(0, |m| m.usage().used.get());
    let mapped = rig.card.as_ref().map_or(0, |card| card.live());
    if (frames, slots, used, mapped) != (0, 0, 0, 0) {
        return Err(wrong(format!(
            "left behind: {frames} system pages, {slots} pages in the backup, {used} of the card, \
             {mapped} mappings"
        )));
    }
    Ok(())
}
