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
//! into system memory lie ready, clean: what taking and cleaning them costs is row c's question.
//! The rows of 2 MiB stand beside, as does the copy routine without a manager around it.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use backends::host::wall_clock;
use backends::sim::{RouteMode, SimDriver};
use harness::copy::{self, Frames, Method, Side};
use harness::kernel::{self, Figure};
use harness::measure::{Stopwatch, compare};
use harness::{Bench, Row, Target};
use placement::{MemType, PageCount, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::BoKind;
use ttm::fixture;

use memory::{ReadyFrames, Window, span};

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
        counts: true,
    },
    Size {
        name: "2 MiB",
        bytes: 2 << 20,
        out: kernel::MOVE_2M_TO_SYSTEM,
        into: kernel::MOVE_2M_TO_VRAM,
        moves: 8,
        counts: false,
    },
];

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
    frames: Arc<ReadyFrames>,
    window: Arc<Window>,
    object: Bo<SimDriver>,
    vram: Placement,
    system: Placement,
}

impl Mover {
    /// Begins in system memory with a pattern. `warm` frames stay mapped between their owners.
    fn new(bytes: usize, warm: bool) -> anyhow::Result<Self> {
        let pages = PageCount::from_bytes_ceil(bytes as u64).expect("a size");
        let frames = Arc::new(ReadyFrames::new(warm)?);
        let window = Arc::new(Window::new(pages)?);
        let device = Device::builder(
            SimDriver::new().routes(RouteMode::Cpu),
            wall_clock(),
        )
        .pages(frames.clone())
        .memory(MemType::VRAM, Box::new(Range::new(pages)), window.clone())
        .build()?;
        let info = BoInfo::new(bytes as u64).kind(BoKind::Kernel);
        let mover = Self {
            object: device.create(info, ())?,
            device,
            frames,
            window,
            vram: fixture::vram(),
            system: fixture::system(),
        };
        mover.go(&mover.system);
        mover.write_pattern()?;
        for _ in 0..2 {
            mover.go(&mover.vram);
            mover.frames.clean()?;
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
            self.frames.clean().expect("frames that are ours");
            match way {
                Way::In => out(),
                Way::Out => watch.time(1, out),
            }
        }
    }

    fn write_pattern(&self) -> anyhow::Result<()> {
        let bytes: Vec<u8> = (0..self.object.bytes()).map(pattern).collect();
        self.device
            .exec(OpContext::new(), |t| t.lock(&self.object)?.write(0, &bytes))?;
        Ok(())
    }

    /// Whether the content came through all moves.
    fn has_pattern(&self) -> anyhow::Result<bool> {
        let mut bytes = vec![0; self.object.bytes() as usize];
        self.device.exec(OpContext::new(), |t| {
            t.lock(&self.object)?.read(0, &mut bytes)
        })?;
        Ok((0..).zip(&bytes).all(|(at, &byte)| byte == pattern(at)))
    }
}

/// The byte at an offset: none of its repetitions is a page.
fn pattern(at: u64) -> u8 {
    (at % 251) as u8 ^ (at >> 12) as u8
}

/// Row g.
fn warm(bench: &mut Bench, size: &Size, way: Way) -> anyhow::Result<()> {
    let name = format!("g: {}, {}, warm mappings", way.name(), size.name);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mover = Mover::new(size.bytes, true)?;
    let (repeats, moves) = (bench.args.repeats(), bench.args.ops_at_most(size.moves));
    // The manager takes its frames in runs, which need not adjoin; the plain copy gets one run of
    // the same kind.
    let (mine, window) = (Window::new(mover.object.pages())?, &mover.window);
    let (system, vram) = (span(mine.all()), span(window.all()));
    let (from, to) = match way {
        Way::Out => (vram, system),
        Way::In => (system, vram),
    };
    let (method, _) = copy::fastest(5.min(repeats), from, to);
    let (ours, limit) = compare(
        repeats,
        |watch| mover.repeat(watch, way, moves),
        |watch| {
            for _ in 0..moves {
                // Each direction as often as in ours.
                if way == Way::Out {
                    method.copy(to, from);
                }
                watch.time(1, || method.copy(from, to));
                if way == Way::In {
                    method.copy(to, from);
                }
            }
        },
    );
    ensure!(mover.has_pattern()?, "{name}: the content changed");
    let row = Row::new(name, ours)
        .limit(method.name(), limit)
        .kernel(match way {
            Way::Out => &size.out,
            Way::In => &size.into,
        });
    bench.report.row(if size.counts {
        row.target(Target::Limit(1.0 / 0.95))
    } else {
        row
    });
    Ok(())
}

/// Row g0.
fn unmapped(bench: &mut Bench, size: &Size, way: Way) -> anyhow::Result<()> {
    let name = format!("g0: {}, {}, unmapped frames", way.name(), size.name);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let mover = Mover::new(size.bytes, false)?;
    let mut bare = Frames::allocate(size.bytes)?;
    let window = span(mover.window.all());
    let (repeats, moves) = (bench.args.repeats(), bench.args.ops_at_most(size.moves));
    let method = fastest_bare(&mut bare, window, way, repeats)?;
    let (ours, limit) = compare(
        repeats,
        |watch| mover.repeat(watch, way, moves),
        |watch| {
            for _ in 0..moves {
                let moved = bare_repeat(watch, &mut bare, window, way, method);
                moved.expect("mapping worked before");
            }
        },
    );
    ensure!(mover.has_pattern()?, "{name}: the content changed");
    let limit_name = format!("mmap, populate, {}, munmap", method.name());
    let row = Row::new(name, ours).limit(limit_name, limit);
    bench.report.row(if size.counts {
        row.target(Target::Limit(1.05))
    } else {
        row
    });
    Ok(())
}

/// One timed move with bare system calls one way, and one back that is not timed.
fn bare_repeat(
    watch: &mut Stopwatch,
    frames: &mut Frames,
    window: copy::Span<'_>,
    way: Way,
    method: Method,
) -> std::io::Result<()> {
    let mut go = |way| match way {
        Way::Out => copy::bare_move(Side::Mapped(window), Side::Frames(frames), method),
        Way::In => copy::bare_move(Side::Frames(frames), Side::Mapped(window), method),
    };
    match way {
        Way::In => {
            watch.time(1, || go(Way::In))?;
            go(Way::Out)
        }
        Way::Out => {
            go(Way::In)?;
            watch.time(1, || go(Way::Out))
        }
    }
}

/// The way to copy with which the bare move is fastest.
fn fastest_bare(
    frames: &mut Frames,
    window: copy::Span<'_>,
    way: Way,
    repeats: usize,
) -> std::io::Result<Method> {
    let mut best = (Method::Memcpy, f64::INFINITY);
    for method in Method::available() {
        let mut outcome = Ok(());
        let spread = harness::measure::measure(5.min(repeats), |watch| {
            let moved = bare_repeat(watch, frames, window, way, method);
            outcome = std::mem::replace(&mut outcome, Ok(())).and(moved);
        });
        outcome?;
        if spread.median < best.1 {
            best = (method, spread.median);
        }
    }
    Ok(best.0)
}

/// The copy routine alone, beside the fastest plain copy between the same mappings.
fn routine(bench: &mut Bench, size: &Size) -> anyhow::Result<()> {
    let name = format!("g: the copy routine alone, {}", size.name);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let pages = PageCount::from_bytes_ceil(size.bytes as u64).expect("a size");
    let (here, there) = (Window::new(pages)?, Window::new(pages)?);
    let (repeats, copies) = (bench.args.repeats(), bench.args.ops_at_most(size.moves));
    let (from, to) = (span(here.all()), span(there.all()));
    let (method, _) = copy::fastest(5.min(repeats), from, to);
    let (ours, limit) = compare(
        repeats,
        |watch| {
            watch.time(copies, || {
                for _ in 0..copies {
                    here.all().copy_to(0, there.all(), 0, size.bytes);
                }
            });
        },
        |watch| {
            watch.time(copies, || {
                for _ in 0..copies {
                    method.copy(from, to);
                }
            });
        },
    );
    bench
        .report
        .row(Row::new(name, ours).limit(method.name(), limit));
    Ok(())
}
