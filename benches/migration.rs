//! How fast does content move by the CPU?
//!
//! Row g: a validate that moves 64 MiB between system memory and device memory, both mapped
//! beforehand, beside the fastest plain copy between the same mappings. Expected: at least 0.95 of
//! its bandwidth, since all else that a move costs is microseconds beside its milliseconds.
//!
//! Row g0: the same while system memory is mapped nowhere, as the manager keeps it: each run of
//! frames is mapped for the copy and unmapped after it. Expected: at most 1.05 of mapping,
//! populating, copying and unmapping with bare system calls.
//!
//! In both rows device memory is a window that stays mapped, as a BAR is, and the frames of a move
//! into system memory lie ready in the pool; a move by the CPU overwrites them, so nobody cleans
//! them before. Warm ones stay mapped because the pool may keep as many windows as it likes.
//! The rows of 2 MiB stand beside, as does the copy routine without a manager around it.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use backends::host::{MemfdPages, wall_clock};
use backends::sim::{RouteMode, SimDriver};
use harness::copy::{self, Frames, Method, Side};
use harness::kernel::{self, Figure};
use harness::measure::{Stopwatch, compare, measure};
use harness::{Bench, Row, Target, content};
use placement::{MemType, PageCount, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::BoKind;
use ttm::fixture;
use ttm::pages::PoolConfig;

use memory::{Window, span};

#[path = "migration/memory.rs"]
mod memory;

fn main() -> ExitCode {
    harness::run("migration", |bench| {
        for size in &SIZES {
            for way in [Way::Out, Way::In] {
                warm(bench, size, way)?;
                unmapped(bench, size, way)?;
            }
            routine(bench, size)?;
        }
        Ok(())
    })
}

/// How much is moved, and what the kernel needs for it.
struct Size {
    name: &'static str,
    bytes: usize,
    out: Figure,
    into: Figure,
    /// Moves a repeat.
    moves: usize,
    /// Samples a row.
    repeats: usize,
    /// Whether the targets are for this size, or it only stands beside them.
    counts: bool,
}

const SIZES: [Size; 2] = [
    Size {
        name: "64 MiB",
        bytes: 64 << 20,
        out: kernel::MOVE_64M_TO_SYSTEM,
        into: kernel::MOVE_64M_TO_VRAM,
        moves: 1,
        repeats: 15,
        counts: true,
    },
    Size {
        name: "2 MiB",
        bytes: 2 << 20,
        out: kernel::MOVE_2M_TO_SYSTEM,
        into: kernel::MOVE_2M_TO_VRAM,
        moves: 4,
        repeats: 31,
        counts: false,
    },
];

impl Size {
    fn target(&self, row: Row, most: f64) -> Row {
        if self.counts {
            row.target(Target::Limit(most))
        } else {
            row
        }
    }
}

/// Samples by which the fastest way to copy is found.
const TRIALS: usize = 5;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// From device memory into system memory.
    Out,
    /// Into device memory.
    In,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "VRAM to SYSTEM",
            Self::In => "SYSTEM to VRAM",
        }
    }
}

/// A device with content, and one object that fills its memory.
struct Mover {
    device: Device<SimDriver>,
    window: Arc<Window>,
    object: Bo<SimDriver>,
    vram: Placement,
    system: Placement,
}

impl Mover {
    /// Begins in system memory with a pattern. `warm` frames stay mapped between their owners.
    fn new(bytes: usize, warm: bool) -> anyhow::Result<Self> {
        let pages = PageCount::from_bytes_ceil(bytes as u64).expect("a size");
        let source = Arc::new(MemfdPages::new()?);
        let window = Arc::new(Window::new(pages)?);
        let device = Device::builder(SimDriver::new().routes(RouteMode::Cpu), wall_clock())
            .pages(source)
            .pool_config(PoolConfig {
                limit: PageCount::MAX,
                ..PoolConfig::default()
            })
            .memory(MemType::VRAM, Box::new(Range::new(pages)), window.clone())
            .build()?;
        let info = BoInfo::new(bytes as u64).kind(BoKind::Kernel);
        let mover = Self {
            object: device.create(info, ())?,
            device,
            window,
            vram: fixture::vram(),
            system: fixture::system(),
        };
        let kept = if warm { u64::MAX } else { 0 };
        mover.device.pool().set_kept_windows(kept);
        mover.go(&mover.system);
        content::write(&mover.device, &mover.object)?;
        for _ in 0..2 {
            mover.go(&mover.vram);
            mover.go(&mover.system);
        }
        Ok(mover)
    }

    fn go(&self, to: &Placement) {
        let locked = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.object)?.validate(to));
        drop(locked.expect("room for the only object"));
    }

    /// Times `moves` moves one way; the moves back are not timed. Begins and ends in system
    /// memory.
    fn repeat(&self, watch: &mut Stopwatch, way: Way, moves: usize) {
        for _ in 0..moves {
            let into = || self.go(&self.vram);
            let out = || self.go(&self.system);
            match way {
                Way::In => watch.time(1, into),
                Way::Out => into(),
            }
            match way {
                Way::In => out(),
                Way::Out => watch.time(1, out),
            }
        }
    }
}

/// Row g.
fn warm(bench: &mut Bench, size: &Size, way: Way) -> anyhow::Result<()> {
    let name = format!("g: {}, {}, warm mappings", way.name(), size.name);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mover = Mover::new(size.bytes, true)?;
    // Between moves the object is in system memory, so the window is free for plain copies.
    let frames = Window::new(mover.object.pages())?;
    let (system, vram) = (span(frames.all()), span(mover.window.all()));
    let plain = |watch: &mut Stopwatch, method: Method| match way {
        Way::In => {
            watch.time(1, || method.copy(system, vram));
            method.copy(vram, system);
        }
        Way::Out => {
            method.copy(system, vram);
            watch.time(1, || method.copy(vram, system));
        }
    };
    let method = fastest(plain);
    let moves = bench.args.ops_at_most(size.moves);
    let (ours, limit) = compare(
        bench.args.repeats_or(size.repeats),
        |watch| mover.repeat(watch, way, moves),
        |watch| (0..moves).for_each(|_| plain(watch, method)),
    );
    let whole = content::is_whole(&mover.device, &mover.object)?;
    ensure!(whole, "{name}: the content changed");
    let row = Row::new(name, ours).limit(method.name(), limit);
    let row = row.kernel(match way {
        Way::Out => &size.out,
        Way::In => &size.into,
    });
    // 0.95 of the bandwidth.
    bench.report.row(size.target(row, 1.0 / 0.95));
    Ok(())
}

/// Row g0.
fn unmapped(bench: &mut Bench, size: &Size, way: Way) -> anyhow::Result<()> {
    let name = format!("g0: {}, {}, unmapped frames", way.name(), size.name);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mover = Mover::new(size.bytes, false)?;
    let window = span(mover.window.all());
    let mut frames = Frames::allocate(size.bytes)?;
    let mut bare = |watch: &mut Stopwatch, method: Method| {
        let mut go = |way| {
            let (window, frames) = (Side::Mapped(window), Side::Frames(&mut frames));
            let moved = match way {
                Way::Out => copy::bare_move(window, frames, method),
                Way::In => copy::bare_move(frames, window, method),
            };
            moved.expect("address space for a mapping");
        };
        match way {
            Way::In => {
                watch.time(1, || go(Way::In));
                go(Way::Out);
            }
            Way::Out => {
                go(Way::In);
                watch.time(1, || go(Way::Out));
            }
        }
    };
    let method = fastest(&mut bare);
    let moves = bench.args.ops_at_most(size.moves);
    let (ours, limit) = compare(
        bench.args.repeats_or(size.repeats),
        |watch| mover.repeat(watch, way, moves),
        |watch| (0..moves).for_each(|_| bare(watch, method)),
    );
    let whole = content::is_whole(&mover.device, &mover.object)?;
    ensure!(whole, "{name}: the content changed");
    let limit_name = format!("mmap, populate, {}, munmap", method.name());
    let row = Row::new(name, ours).limit(limit_name, limit);
    bench.report.row(size.target(row, 1.05));
    Ok(())
}

/// The copy routine alone, beside the fastest plain copy between the same mappings.
fn routine(bench: &mut Bench, size: &Size) -> anyhow::Result<()> {
    let name = format!("g: the copy routine alone, {}", size.name);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let pages = PageCount::from_bytes_ceil(size.bytes as u64).expect("a size");
    let (here, there) = (Window::new(pages)?, Window::new(pages)?);
    let (from, to) = (span(here.all()), span(there.all()));
    let plain = |watch: &mut Stopwatch, method: Method| watch.time(1, || method.copy(from, to));
    let method = fastest(plain);
    let copies = bench.args.ops_at_most(size.moves);
    let ours = |watch: &mut Stopwatch| {
        watch.time(1, || here.all().copy_to(0, there.all(), 0, size.bytes));
    };
    let (ours, limit) = compare(
        bench.args.repeats_or(size.repeats),
        |watch| (0..copies).for_each(|_| ours(watch)),
        |watch| (0..copies).for_each(|_| plain(watch, method)),
    );
    let row = Row::new(name, ours).limit(method.name(), limit);
    bench.report.row(row);
    Ok(())
}

/// The method with which `repeat` is fastest.
fn fastest(mut repeat: impl FnMut(&mut Stopwatch, Method)) -> Method {
    let medians = Method::available().into_iter().map(|method| {
        let spread = measure(TRIALS, |watch| repeat(watch, method));
        (method, spread.median)
    });
    let (method, _) = medians
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .expect("memcpy is always there");
    method
}
