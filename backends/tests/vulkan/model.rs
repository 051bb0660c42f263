//! Random operations through Vulkan against a small reference, which knows of each object its bytes
//! and its pins. Real threads, real time.
//!
//! The operations are those of the model of the simulator. Whatever an operation answers, the bytes of
//! every object stay what the reference says; refusals are those that memory which is too small may
//! answer. A failure prints its seed; `MODEL_SEED` replays one.

#[path = "../model/ops.rs"]
#[allow(dead_code, reason = "the simulator's model has more of them")]
mod ops;

use ash::vk;
use backends::vulkan::{BufferInfo, Copies, VulkanDriver};
use placement::{MemType, Place, Placement};
use ttm::bo::Bo;
use ttm::context::{CancelToken, OpContext};
use ttm::error::Error;

use super::gpu::Gpu;
use super::stage::{Setup, Stage, in_type};
use ops::{Op, Random, Terms, To, draw};

const PAGE: u64 = 4096;
const VRAM: u64 = 64 * PAGE;
const STEPS: usize = 60;

/// How a device is used.
#[derive(Clone, Copy, Debug)]
struct Layout {
    copies: Copies,
    stable: bool,
    import: bool,
    /// Bytes of system memory.
    system: u64,
}

fn layouts() -> Vec<Layout> {
    let mut all = Vec::new();
    for copies in [Copies::Queue, Copies::Cpu, Copies::Measured] {
        for stable in [true, false] {
            for import in [true, false] {
                let system = match stable ^ import {
                    true => 96 * PAGE,
                    false => 4096 * PAGE,
                };
                all.push(Layout {
                    copies,
                    stable,
                    import,
                    system,
                });
            }
        }
    }
    all
}

impl Layout {
    fn stage(&self) -> Option<Stage> {
        let mut setup = Setup::with_vram(VRAM).config(|c| {
            c.copies(self.copies)
                .stable(self.stable)
                .import(self.import)
                .limit(MemType::TT, VRAM)
                .chunks(64 << 10, 128 << 10)
        });
        setup.system_limit = Some(self.system);
        setup.swap = 512 * PAGE;
        setup.stage()
    }
}

struct Object {
    bo: Bo<VulkanDriver>,
    bytes: Vec<u8>,
    pins: u32,
    has_handle: bool,
}

struct Client<'s> {
    stage: &'s Stage,
    gpu: Gpu<'s>,
    random: Random,
    alone: bool,
    objects: Vec<Object>,
    /// What was done, and what was refused.
    counts: [u64; 2],
    /// What happened last, for people.
    said: Vec<String>,
}

type Outcome = Result<(), String>;

impl<'s> Client<'s> {
    fn new(stage: &'s Stage, seed: u64, alone: bool) -> Self {
        Self {
            stage,
            gpu: Gpu::new(stage),
            random: Random::new(seed ^ 0xc11e),
            alone,
            objects: Vec::new(),
            counts: [0; 2],
            said: Vec::new(),
        }
    }

    fn step(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Create {
                pages, short, how, ..
            } => self.create(pages * PAGE - short, *how),
            Op::Failing { op, .. } => self.step(op),
            Op::EvictAll { tt } => {
                let mem_type = if *tt { MemType::TT } else { MemType::VRAM };
                let evicted = self.stage.device.evict_all(mem_type, OpContext::new());
                self.judge(evicted.map(drop))
            }
            Op::Suspend if self.alone => self.suspend(),
            Op::Shrink { pages } => {
                self.stage.device.pool().scan(count(*pages));
                Ok(())
            }
            Op::Reclaim { pages } => {
                self.stage.device.reclaim().reclaim(count(*pages), false);
                Ok(())
            }
            Op::Limit { pages, .. } if self.alone => {
                // A fourth and more of what there is.
                let bytes = VRAM - pages.min(&31) * PAGE;
                self.judge(self.stage.vulkan.set_limit(MemType::VRAM, bytes))
            }
            Op::Prepare | Op::Sleep { .. } => {
                self.stage.vulkan.trim();
                Ok(())
            }
            Op::Both { a, b } => self.copy(*a, *b),
            Op::Drop { object } => self.drop_object(*object),
            Op::Validate { object, to, terms } => self.validate(*object, *to, *terms),
            Op::Throw { object } => self.throw(*object),
            Op::Write { object, part } => self.write(*object, *part),
            Op::Read { object, part } => self.read(*object, *part),
            Op::Fill { object, to } => self.fill(*object, *to),
            Op::Add { object, addend, .. } => self.copy(*object, *addend),
            Op::SwapOut { object } => {
                let Some(at) = self.pick(*object) else {
                    return Ok(());
                };
                let bo = &self.objects[at].bo;
                let swapped =
                    (self.stage.device).exec(OpContext::new(), |t| t.lock(bo)?.swap_out());
                match swapped.map(drop) {
                    // In device memory, or nowhere.
                    Err(Error::Invalid(_)) => Ok(()),
                    other => self.judge(other),
                }
            }
            Op::Pin { object } => self.pin(*object),
            Op::Unpin { object } => self.unpin(*object),
            Op::Checksum { object } => self.read(*object, 0),
            _ => Ok(()),
        }
    }

    fn pick(&self, number: u64) -> Option<usize> {
        let count = self.objects.len() as u64;
        (count > 0).then(|| (number % count) as usize)
    }

    /// Memory that is too small refuses, and what is pinned stays; nothing else goes wrong.
    fn judge(&mut self, result: ttm::Result<()>) -> Outcome {
        match result {
            Ok(()) => self.counts[0] += 1,
            Err(
                error @ (Error::NoSpace(_)
                | Error::NoMemory { .. }
                | Error::Shortfall(_)
                | Error::Pinned
                | Error::TooBig { .. }
                | Error::Busy
                | Error::Interrupted
                | Error::TimedOut
                | Error::Unsupported(_)
                | Error::Backup(_)
                | Error::Dma { retry: true, .. }),
            ) => {
                self.counts[1] += 1;
                self.said.push(error.to_string());
            }
            Err(error) => return Err(format!("{error:?}: {error}")),
        }
        Ok(())
    }

    fn create(&mut self, bytes: u64, how: u64) -> Outcome {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let info = BufferInfo::new(bytes).usage(usage);
        let described = match how {
            0 => self.stage.vulkan.memory(bytes),
            1 => self
                .stage
                .vulkan
                .buffer(&info.stable(false))
                .map_err(told)?,
            _ => self.stage.vulkan.buffer(&info).map_err(told)?,
        };
        let bo = self.stage.make(described);
        self.objects.push(Object {
            bo,
            bytes: vec![0; bytes as usize],
            pins: 0,
            has_handle: how != 0,
        });
        Ok(())
    }

    fn drop_object(&mut self, number: u64) -> Outcome {
        let Some(at) = self.pick(number) else {
            return Ok(());
        };
        // Compared before it goes, wherever it is.
        self.compare(at)?;
        let object = self.objects.swap_remove(at);
        let unpinned = self.stage.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&object.bo)?;
            (0..object.pins).try_for_each(|_| reserved.unpin())
        });
        unpinned.map(drop).map_err(told)
    }

    fn validate(&mut self, number: u64, to: To, terms: Terms) -> Outcome {
        let Some(at) = self.pick(number) else {
            return Ok(());
        };
        let token = CancelToken::new();
        let context = match terms {
            Terms::Patient => OpContext::new(),
            Terms::Hasty => OpContext::new().without_waiting(),
            Terms::Cancelled => OpContext::new().cancelled_by(&token),
            Terms::Late => OpContext::new().until(self.stage.device.clock().now()),
        };
        if matches!(terms, Terms::Cancelled) {
            token.cancel();
        }
        let (bo, to) = (&self.objects[at].bo, placement(to));
        let moved = (self.stage.device).exec(context, |t| t.lock(bo)?.validate(&to));
        let is_there = moved.is_ok() && self.alone;
        let result = moved.map(drop);
        let now = self.stage.place_of(bo);
        if is_there && !to.places().iter().any(|place| Some(place.mem_type) == now) {
            return Err(format!("validated, and in {now:?}"));
        }
        self.judge(result)
    }

    fn throw(&mut self, number: u64) -> Outcome {
        let Some(at) = self.pick(number) else {
            return Ok(());
        };
        let thrown = self.stage.validate(&self.objects[at].bo, &Placement::new());
        if thrown.is_ok() {
            self.objects[at].bytes.fill(0);
        }
        self.judge(thrown)
    }

    fn part(&self, at: usize, part: u64) -> (usize, usize) {
        let len = self.objects[at].bytes.len();
        if part.is_multiple_of(5) {
            return (0, len);
        }
        let first = part as usize % len;
        (first, 1 + (part >> 32) as usize % (len - first))
    }

    fn write(&mut self, number: u64, part: u64) -> Outcome {
        let Some(at) = self.pick(number) else {
            return Ok(());
        };
        let (first, count) = self.part(at, part);
        let new: Vec<u8> = (0..count.div_ceil(8))
            .flat_map(|_| self.random.next().to_le_bytes())
            .take(count)
            .collect();
        let bo = &self.objects[at].bo;
        let written =
            (self.stage.device).exec(OpContext::new(), |t| t.lock(bo)?.write(first as u64, &new));
        let written = written.map(drop);
        if written.is_ok() {
            self.objects[at].bytes[first..first + count].copy_from_slice(&new);
        }
        self.judge(written)
    }

    fn read(&mut self, number: u64, part: u64) -> Outcome {
        let Some(at) = self.pick(number) else {
            return Ok(());
        };
        let (first, count) = self.part(at, part);
        let mut found = vec![0xa5; count];
        let bo = &self.objects[at].bo;
        let read = (self.stage.device).exec(OpContext::new(), |t| {
            t.lock(bo)?.read(first as u64, &mut found)
        });
        let read = read.map(drop);
        if read.is_ok() {
            self.same(at, first, &found)?;
        }
        self.judge(read)
    }

    fn compare(&mut self, at: usize) -> Outcome {
        self.read(at as u64, 0)
    }

    fn same(&self, at: usize, first: usize, found: &[u8]) -> Outcome {
        let object = &self.objects[at];
        let expected = &object.bytes[first..first + found.len()];
        let Some(n) = found.iter().zip(expected).position(|(a, b)| a != b) else {
            return Ok(());
        };
        let wrong = found.iter().zip(expected).filter(|(a, b)| a != b).count();
        Err(format!(
            "object {} of {} bytes, byte {}: {:#x} instead of {:#x}, {wrong} wrong\n{}",
            object.bo.id(),
            object.bytes.len(),
            first + n,
            found[n],
            expected[n],
            self.stage.device.explain(object.bo.id())
        ))
    }

    fn fill(&mut self, number: u64, to: Option<To>) -> Outcome {
        let Some(at) = self.pick(number).filter(|at| self.objects[*at].has_handle) else {
            return Ok(());
        };
        let word = self.random.next() as u32;
        let to = to.map(placement);
        let filled = self.gpu.fill(&self.objects[at].bo, to.as_ref(), word);
        if filled.is_ok() {
            let whole = self.objects[at].bytes.len() / 4 * 4;
            for chunk in self.objects[at].bytes[..whole].chunks_exact_mut(4) {
                chunk.copy_from_slice(&word.to_le_bytes());
            }
        }
        self.judge(filled.map(drop))
    }

    /// Copies between two objects of device memory.
    fn copy(&mut self, from: u64, to: u64) -> Outcome {
        let (Some(from), Some(to)) = (self.pick(from), self.pick(to)) else {
            return Ok(());
        };
        if from == to || !self.objects[from].has_handle || !self.objects[to].has_handle {
            return Ok(());
        }
        let bytes = (self.objects[from].bytes.len()).min(self.objects[to].bytes.len());
        let (a, b) = (&self.objects[from].bo, &self.objects[to].bo);
        let vram = in_type(MemType::VRAM);
        let copied = self.gpu.copy(a, b, Some(&vram), bytes as u64);
        if copied.is_ok() {
            let new = self.objects[from].bytes[..bytes].to_vec();
            self.objects[to].bytes[..bytes].copy_from_slice(&new);
        }
        self.judge(copied.map(drop))
    }

    fn pin(&mut self, number: u64) -> Outcome {
        let pinned = self.objects.iter().filter(|o| o.pins > 0).count();
        let Some(at) = self.pick(number).filter(|_| pinned < 2) else {
            return Ok(());
        };
        let bo = &self.objects[at].bo;
        let locked = self
            .stage
            .device
            .exec(OpContext::new(), |t| t.lock(bo).map(drop));
        locked.map_err(told)?.get(bo).map_err(told)?.pin();
        self.objects[at].pins += 1;
        Ok(())
    }

    fn unpin(&mut self, number: u64) -> Outcome {
        let Some(at) = self.pick(number).filter(|at| self.objects[*at].pins > 0) else {
            return Ok(());
        };
        let bo = &self.objects[at].bo;
        let locked = self
            .stage
            .device
            .exec(OpContext::new(), |t| t.lock(bo).map(drop));
        let unpinned = locked.map_err(told)?.get(bo).map_err(told)?.unpin();
        self.objects[at].pins -= 1;
        unpinned.map_err(told)
    }

    fn suspend(&mut self) -> Outcome {
        let suspended = self.stage.device.suspend(OpContext::new());
        let result = suspended.map(drop);
        self.judge(result)?;
        let resumed = (0..2).find_map(|_| self.stage.device.resume(OpContext::new()).ok());
        resumed.map(drop).ok_or_else(|| "it does not wake".into())
    }

    /// Compares everything, and goes.
    fn leave(mut self) -> Result<[u64; 2], String> {
        for at in 0..self.objects.len() {
            self.compare(at)?;
        }
        while !self.objects.is_empty() {
            self.drop_object(0)?;
        }
        Ok(self.counts)
    }
}

fn count(pages: u64) -> placement::PageCount {
    placement::PageCount::new(pages).expect("few")
}

fn told(error: Error) -> String {
    format!("{error:?}: {error}")
}

fn placement(to: To) -> Placement {
    let vram = Place::new(MemType::VRAM);
    match to {
        To::Vram => Placement::of(vram.contiguous()),
        To::Tt | To::Combined => in_type(MemType::TT),
        To::System | To::Uncached => in_type(MemType::SYSTEM),
        To::VramOrSystem => Placement::of(vram).with(Place::new(MemType::SYSTEM)),
        To::DesiredVram => {
            Placement::of(vram.desired()).with(Place::new(MemType::SYSTEM).fallback())
        }
        To::VramTopDown => Placement::of(vram.top_down()),
        To::VramUncached => Placement::of(vram),
    }
}

fn seeds(count: u64) -> std::ops::RangeInclusive<u64> {
    let asked = std::env::var("MODEL_SEED");
    match asked.ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None => 1..=count,
    }
}

fn run(client: &mut Client<'_>, seed: u64, check: bool) -> Outcome {
    for (n, op) in draw(seed, STEPS).iter().enumerate() {
        let done = client.step(op);
        done.map_err(|e| format!("step {n}, {op:?}: {e}\n{}", client.said.join("\n")))?;
        if check && n % 8 == 7 {
            client.stage.check();
        }
    }
    Ok(())
}

#[test]
fn a_client_alone_finds_what_the_reference_says() {
    let mut total = [0; 2];
    for seed in seeds(if cfg!(debug_assertions) { 240 } else { 600 }) {
        let layouts = layouts();
        let layout = layouts[seed as usize % layouts.len()];
        let Some(stage) = layout.stage() else {
            return;
        };
        let mut client = Client::new(&stage, seed, true);
        let result = run(&mut client, seed, seed % 4 == 0).and_then(|()| {
            let _ = stage.vulkan.set_limit(MemType::VRAM, VRAM);
            client.leave()
        });
        let counts = result.unwrap_or_else(|why| panic!("MODEL_SEED={seed} {layout:?}: {why}"));
        total[0] += counts[0];
        total[1] += counts[1];
        stage.assert_empty();
    }
    println!("done, refused: {total:?}");
    assert!(total[0] > total[1] * 2, "{total:?}");
}

#[test]
fn clients_beside_each_other_find_what_the_reference_says() {
    for seed in seeds(if cfg!(debug_assertions) { 60 } else { 160 }) {
        let layouts = layouts();
        let layout = layouts[seed as usize % layouts.len()];
        let Some(stage) = layout.stage() else {
            return;
        };
        let results: Vec<Result<[u64; 2], String>> = std::thread::scope(|scope| {
            let clients = [1, 2, 3].map(|n| {
                let stage = &stage;
                scope.spawn(move || {
                    let seed = seed ^ n << 32;
                    let mut client = Client::new(stage, seed, false);
                    run(&mut client, seed, false).and_then(|()| client.leave())
                })
            });
            clients.map(|c| c.join().expect("no panic")).into()
        });
        for (n, result) in results.into_iter().enumerate() {
            result.unwrap_or_else(|why| panic!("MODEL_SEED={seed} {layout:?}, client {n}: {why}"));
        }
        stage.assert_empty();
    }
}
