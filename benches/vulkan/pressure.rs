//! Row o: a device writes more than its memory holds.

use anyhow::ensure;
use backends::vulkan::VulkanConfig;
use harness::{Bench, Check};
use placement::MemType;
use ttm::context::OpContext;
use ttm::fence::Usage;

use crate::bare::Bare;
use crate::stage::{MIB, Object, Stage};

/// The most bytes of VRAM.
const LIMIT: u64 = 32 * MIB;

/// Bytes of an object.
const BYTES: u64 = 2 * MIB;

/// Objects that fit.
const ROOM: usize = (LIMIT / BYTES) as usize;

/// How often all of them are written.
const PASSES: usize = 8;

/// How much there is to write, in halves of the memory.
const HALVES: [usize; 6] = [1, 2, 3, 4, 6, 8];

#[derive(Clone, Copy, PartialEq)]
enum Order {
    ToAndFro,
    Round,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::ToAndFro => "to and fro",
            Self::Round => "round and round",
        }
    }

    /// Who is written, in order.
    fn touches(self, objects: usize, passes: usize) -> Vec<usize> {
        let pass = |n: usize| -> Box<dyn Iterator<Item = usize>> {
            match self == Self::ToAndFro && n % 2 == 1 {
                true => Box::new((0..objects).rev()),
                false => Box::new(0..objects),
            }
        };
        (0..passes).flat_map(pass).collect()
    }
}

fn check_name(halves: usize, order: Order) -> String {
    let times = halves as f64 / 2.0;
    format!(
        "o: {times}x of VRAM written {}, bytes moved over the least",
        order.name()
    )
}

pub(crate) fn pressure(bench: &mut Bench) -> anyhow::Result<()> {
    for order in [Order::ToAndFro, Order::Round] {
        for halves in HALVES {
            one(bench, halves, order)?;
        }
    }
    Ok(())
}

fn one(bench: &mut Bench, halves: usize, order: Order) -> anyhow::Result<()> {
    let name = check_name(halves, order);
    if !bench.args.wants(&name) {
        return Ok(());
    }
    let passes = bench.args.ops_at_most(PASSES);
    let count = ROOM * halves / 2;
    let touches = order.touches(count, passes);
    let moved = moved(count, &touches)?;
    let least = least(&touches) * BYTES;
    let check = Check::new(name, moved as f64 / least as f64, touches.len());
    bench.report.check(match order {
        Order::ToAndFro => check.at_most(1.25),
        Order::Round => check,
    });
    Ok(())
}

/// Writes objects in order, from SYSTEM on; the bytes that came and went.
fn moved(count: usize, touches: &[usize]) -> anyhow::Result<u64> {
    let stage = Stage::again(VulkanConfig::new("ttm bench").limit(MemType::VRAM, LIMIT))?;
    let bare = Bare::new(&stage)?;
    let timeline = stage.vulkan.timeline()?;
    let content: Vec<u8> = vec![1; BYTES as usize];
    let objects = (0..count)
        .map(|_| {
            let object = stage.make(stage.vulkan.memory(BYTES));
            stage.go(&object, &stage.system);
            stage
                .device
                .exec(OpContext::new(), |t| t.lock(&object)?.write(0, &content))?;
            Ok(object)
        })
        .collect::<anyhow::Result<Vec<Object>>>()?;
    for touch in touches {
        let object = &objects[*touch];
        let locked = stage.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(object)?;
            reserved.validate(&stage.vram)?;
            reserved.reserve_fences(1)
        })?;
        let bound = stage.vulkan.bind(&locked, &[object], Usage::Write)?;
        let (fence, value) = timeline.next();
        bare.submit_nothing(&bound.waits, (timeline.semaphore(), value));
        locked.fence_all(&fence, Usage::Write);
        drop(locked);
        stage.reap();
    }
    bare.settle(&stage, &timeline);
    let counters = stage.device.manager(MemType::VRAM).map(|m| m.counters());
    let counters = counters.expect("every device has VRAM");
    let usage = stage.vulkan.usage(MemType::VRAM).unwrap_or_default();
    ensure!(usage.allocated <= LIMIT, "{usage:?}");
    stage.check()?;
    Ok(counters.bytes_in + counters.bytes_out)
}

/// The fewest objects that come and go, by evicting whoever is needed last (Belady). Every object is
/// written, so that whoever goes is a move too.
fn least(touches: &[usize]) -> u64 {
    let next_use = |object: usize, from: usize| {
        let later = touches[from..].iter().position(|touch| *touch == object);
        later.unwrap_or(usize::MAX)
    };
    let mut inside: Vec<usize> = Vec::new();
    let mut moves = 0;
    for (at, touch) in touches.iter().enumerate() {
        if inside.contains(touch) {
            continue;
        }
        if inside.len() == ROOM {
            let last = (0..ROOM).max_by_key(|n| next_use(inside[*n], at + 1));
            inside.swap_remove(last.expect("there is room for some"));
            moves += 1;
        }
        inside.push(*touch);
        moves += 1;
    }
    moves
}
