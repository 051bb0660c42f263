//! A first driver: what a driver author copies from.
//!
//! It drives a fake card with 1 MiB of memory, on which three buffers of 512 KiB don't fit at the
//! same time. Each is filled and changed by the card; each comes back when it is needed; at the
//! end every word is compared. `cargo run --release --bin first_driver`

use std::error::Error;
use std::process::ExitCode;

use backends::host::FileBackup;
use backends::sim::{Gpu, GpuConfig, Queue, SimClock, VirtualClock, checksum_words};
use placement::{MemType, PageCount, Place, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::{BoFacts, Driver, EngineId, Eviction, MoveFacts, Route, Side};
use ttm::fence::{Fence, Status, Usage};
use ttm::sync::atomic::{AtomicU32, Ordering};

const VRAM: PageCount = PageCount::new(256).expect("1 MiB");
const SYSTEM_LIMIT: PageCount = PageCount::new(256).expect("1 MiB");
const BUFFER_BYTES: u64 = 512 << 10;
const COPY_ENGINE: EngineId = EngineId(0);

/// What this driver keeps for each object. A real one has the GPU's addresses of it here.
struct Buffer {
    name: &'static str,
    moves: AtomicU32,
}

/// The driver's policy. It is asked with the object's facts, under the object's reservation; it
/// answers, and never calls the device.
struct Card;

impl Driver for Card {
    type Object = Buffer;

    /// Where a victim goes: from the card to system memory. From there, the manager swaps it out
    /// by itself when the system limit is reached.
    fn evict_to(&self, bo: &BoFacts, _: &Buffer) -> Eviction {
        match bo.mem_type {
            Some(MemType::VRAM) => Eviction::To(place(MemType::SYSTEM)),
            _ => Eviction::Never,
        }
    }

    /// How the content gets there: the copy engine copies it, or clears what is new. Frames of
    /// system memory are zero when they are taken, so there is nothing to do for new ones.
    fn route(&self, _: &BoFacts, _: &Buffer, job: &MoveFacts) -> Route {
        match (job.has_content, job.to) {
            (true, _) => Route::Engine(COPY_ENGINE),
            (false, MemType::VRAM) => Route::Clear(Some(COPY_ENGINE)),
            (false, _) => Route::Null,
        }
    }

    /// The object has a new place. A real driver points its page tables at it here, behind the
    /// move's fence.
    fn moved(&self, bo: &BoFacts, buffer: &Buffer, job: &MoveFacts) {
        buffer.moves.fetch_add(1, Ordering::Relaxed);
        let from = job.from.map_or("nowhere".into(), |from| from.to_string());
        println!(
            "{:>8}: from {from} to {}, pages {} on, {:?}",
            buffer.name,
            job.to,
            bo.range.start(),
            job.why
        );
    }
}

fn place(mem_type: MemType) -> Placement {
    Placement::of(Place::new(mem_type))
}

/// Puts the parts together: the driver, the clock, system pages, a backup, the card's memory and
/// its copy engine.
fn device(gpu: &Gpu) -> ttm::Result<Device<Card>> {
    let swap = FileBackup::new(std::env::temp_dir(), 16 << 20)?;
    Device::builder(Card, gpu.clock())
        .pages(gpu.pages())
        .system_limit(SYSTEM_LIMIT)
        .backup(ttm::sync::Arc::new(swap))
        .memory(MemType::VRAM, Box::new(Range::new(VRAM)), gpu.region())
        .engine(gpu.engine(0))
        .build()
}

/// Submits one job of the card that writes a buffer, and answers its fence.
///
/// This is the pattern of every submission. The closure locks, validates and reserves; it may run
/// several times and has no other effect. What comes after it happens once, and cannot be refused.
fn submit(
    device: &Device<Card>,
    bo: &Bo<Card>,
    job: impl FnOnce(&Side, Vec<Fence>) -> ttm::Result<Fence>,
) -> ttm::Result<Fence> {
    let locked = device.exec(OpContext::new(), |t| {
        let reserved = t.lock(bo)?;
        reserved.validate(&place(MemType::VRAM))?;
        reserved.reserve_fences(1)
    })?;
    // Where it is, and what must have happened before: its move, and everybody who reads or
    // writes it.
    let reserved = locked.get(bo)?;
    let fence = job(&reserved.side()?, reserved.fences(Usage::Read))?;
    locked.fence(bo, &fence, Usage::Write)?;
    Ok(fence)
}

/// Lets the card sum a buffer and compares with `expected`.
fn verify_by_card(device: &Device<Card>, queue: &Queue, bo: &Bo<Card>, word: u64) -> Checked {
    let mut sum = None;
    let fence = submit(device, bo, |side, after| {
        let (fence, found) = queue.checksum(side, after)?;
        sum = Some(found);
        Ok(fence)
    })?;
    if fence.wait(None)? != Status::Done {
        return Err("the checksum failed".into());
    }
    let expected = checksum_words((0..BUFFER_BYTES / 8).map(|_| word));
    match sum.and_then(|sum| sum.get()) {
        Some(found) if found == expected => Ok(None),
        found => Ok(Some(format!(
            "{}: the card sums {found:x?}, expected {expected:x}",
            bo.object().name
        ))),
    }
}

/// Reads a buffer by the CPU, wherever it is, and compares every word.
fn verify_by_cpu(device: &Device<Card>, bo: &Bo<Card>, word: u64) -> Checked {
    let mut bytes = vec![0; BUFFER_BYTES as usize];
    device.exec(OpContext::new(), |t| t.lock(bo)?.read(0, &mut bytes))?;
    let words = bytes.chunks_exact(8);
    let wrong = words
        .map(|found| u64::from_le_bytes(found.try_into().expect("eight bytes")))
        .enumerate()
        .find(|(_, found)| *found != word);
    Ok(wrong.map(|(index, found)| {
        let (name, offset) = (bo.object().name, index * 8);
        format!("{name}: byte {offset}: expected {word:x}, found {found:x}")
    }))
}

/// What was wrong, if anything; an error if it could not be found out.
type Checked = Result<Option<String>, Box<dyn Error>>;

fn run() -> Checked {
    let gpu = Gpu::new(GpuConfig::new(VRAM), SimClock::Virtual(VirtualClock::new()))?;
    let device = device(&gpu)?;
    let queue = gpu.queue(0);

    let mut buffers = Vec::new();
    for (name, word) in [
        ("vertices", 0x1111),
        ("texture", 0x2222),
        ("target", 0x3333),
    ] {
        let moves = AtomicU32::new(0);
        let bo = device.create(BoInfo::new(BUFFER_BYTES), Buffer { name, moves })?;
        buffers.push((bo, word));
    }
    // The card fills all three. The third has no room: the least recently used leaves for it.
    // Nobody waits here: the fences are on the objects, where the next user finds them.
    for (bo, word) in &buffers {
        drop(submit(&device, bo, |side, after| {
            queue.fill(side, *word, after)
        })?);
    }
    // It adds one to every word: the first comes back, and the next leaves.
    for (bo, _) in &buffers {
        drop(submit(&device, bo, |side, after| {
            queue.add(side, 1, after)
        })?);
    }
    for (bo, word) in &buffers {
        if let Some(wrong) = verify_by_card(&device, &queue, bo, word + 1)? {
            return Ok(Some(wrong));
        }
    }
    // Everything leaves the card, as before it sleeps. System memory is too small for all three,
    // so one of them goes on into the backup; the CPU finds the content all the same.
    let left = device.evict_all(MemType::VRAM, OpContext::new())?;
    let swapped = device.backup_usage().map_or(0, |(used, _)| used.get());
    println!("{left} buffers left the card, {swapped} pages are in the backup");
    for (bo, word) in &buffers {
        if let Some(wrong) = verify_by_cpu(&device, bo, word + 1)? {
            return Ok(Some(wrong));
        }
    }
    if let Err(violation) = device.check() {
        return Ok(Some(violation.to_string()));
    }
    // An object's space is given back behind its fences; a device that closes waits for them.
    drop(buffers);
    match device.close(None) {
        Ok(()) => Ok(None),
        Err(holders) => Ok(Some(format!("the device is still in use: {holders:?}"))),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(None) => println!("verified"),
        Ok(Some(wrong)) => {
            eprintln!("first_driver: wrong: {wrong}");
            return ExitCode::from(1);
        }
        Err(error) => {
            eprintln!("first_driver: refused: {error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
