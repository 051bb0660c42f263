//! `vulkan_info`: which memories the manager would have on each Vulkan device of a machine, and why.
//!
//! For every device it prints the memories, what each is made of, and what was left out. It asks
//! devices and allocates nothing, but with `--try`. Layouts of devices that are not here can be looked at too: those
//! of real drivers, captured.
//!
//! `cargo run --release --features vulkan --bin vulkan_info`

mod tried;

use std::process::ExitCode;

use anyhow::{Result, bail};
use backends::vulkan::{Facts, Instance, Layout, MadeOf, Memory, fixtures};
use clap::Parser;
use cli::json::Target;
use cli::size::ByteSize;
use cli::table::{Cell, Table};
use serde::Serialize;

use tried::Tried;

/// Which memories the manager would have on each Vulkan device, and why.
///
/// Exit status: 0 done; 2 refused: no Vulkan loader, no device, no such fixture.
#[derive(Debug, Parser)]
#[command(name = "vulkan_info", version)]
struct Args {
    /// Look at a captured device instead of those of this machine; `list` lists them
    #[arg(long, value_name = "NAME")]
    fixture: Option<String>,

    /// Open each device and try what it says; takes some memory for a moment
    #[arg(long = "try", conflicts_with = "fixture")]
    tries: bool,

    /// Print all heaps, types and limits too
    #[arg(long)]
    all_types: bool,

    /// Write the devices as JSON to FILE, or to standard output for `-`
    #[arg(long, value_name = "FILE|-")]
    json: Option<Target>,
}

/// A device, as `--json` writes it.
#[derive(Debug, Serialize)]
struct DeviceRow {
    device: String,
    driver: String,
    kind: String,
    api: String,
    unified: bool,
    /// Why the manager cannot use it; nothing if it can.
    lacks: Option<String>,
    memories: Vec<MemoryRow>,
    notes: Vec<String>,
    heaps: Vec<HeapRow>,
    types: Vec<TypeRow>,
    limits: LimitsRow,
    can: Vec<&'static str>,
    /// Only with `--try`.
    tried: Option<Tried>,
}

#[derive(Debug, Serialize)]
struct MemoryRow {
    memory: String,
    made_of: &'static str,
    /// The Vulkan memory type; nothing for frames.
    #[serde(rename = "type")]
    type_index: Option<u32>,
    heap: Option<u32>,
    bytes: Option<u64>,
    budget: Option<u64>,
    cpu: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct HeapRow {
    bytes: u64,
    budget: Option<u64>,
    device_local: bool,
}

#[derive(Debug, Serialize)]
struct TypeRow {
    heap: u32,
    flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LimitsRow {
    allocation_bytes: u64,
    allocations: u32,
    buffer_image_granularity: u64,
    non_coherent_atom: u64,
    import_align: u64,
}

impl DeviceRow {
    fn new(facts: &Facts) -> Self {
        let (layout, lacks) = match Layout::of(facts) {
            Ok(layout) => (Some(layout), None),
            Err(lacks) => (None, Some(lacks)),
        };
        let memories = layout.iter().flat_map(|layout| &layout.memories);
        Self {
            device: facts.name.clone(),
            driver: facts.driver.clone(),
            kind: words(&format!("{:?}", facts.device_type)),
            api: version(facts.api_version),
            unified: facts.is_unified(),
            lacks,
            memories: memories
                .map(|memory| MemoryRow::new(memory, facts))
                .collect(),
            notes: layout
                .as_ref()
                .map_or(Vec::new(), |layout| layout.notes.clone()),
            heaps: heaps(facts),
            types: types(facts),
            limits: limits(facts),
            can: abilities(facts),
            tried: None,
        }
    }
}

impl MemoryRow {
    fn new(memory: &Memory, facts: &Facts) -> Self {
        let chunked = memory.chunked();
        let heap = chunked.and_then(|chunked| facts.heaps.get(chunked.heap as usize));
        let (made_of, cpu) = match memory.made_of {
            MadeOf::Frames { imported: true } => ("frames, importable", "cached"),
            MadeOf::Frames { imported: false } => ("frames", "cached"),
            MadeOf::Chunks(chunked) if !chunked.visible => ("chunks", "none"),
            MadeOf::Chunks(chunked) if chunked.cached => ("chunks", "cached"),
            MadeOf::Chunks(_) => ("chunks", "not cached"),
        };
        Self {
            memory: memory.name(),
            made_of,
            type_index: chunked.map(|chunked| chunked.type_index),
            heap: chunked.map(|chunked| chunked.heap),
            bytes: chunked.map(|chunked| chunked.bytes),
            budget: heap.and_then(|heap| heap.budget),
            cpu,
            why: memory.why.clone(),
        }
    }
}

fn main() -> ExitCode {
    match info(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vulkan_info: refused: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn info(args: &Args) -> Result<()> {
    if args.fixture.as_deref() == Some("list") {
        return list();
    }
    let found = match &args.fixture {
        Some(name) => match fixtures::fixture(name) {
            Some(facts) => vec![facts],
            None => bail!("there is no fixture {name}; `--fixture list` lists them"),
        },
        None => {
            let instance = Instance::open("vulkan_info")?;
            let devices = instance.devices().into_iter();
            devices.map(|(_, facts)| facts).collect()
        }
    };
    let mut rows: Vec<_> = found.iter().map(DeviceRow::new).collect();
    if args.tries {
        for (row, facts) in rows.iter_mut().zip(&found) {
            row.tried = Some(Tried::of(facts));
        }
    }
    let mut text = rows.iter().map(summary).collect::<Vec<_>>().join("\n");
    if args.all_types {
        text += &rows.iter().map(details).collect::<String>();
    }
    match &args.json {
        Some(Target::Stdout) => eprint!("{text}"),
        _ => cli::table::to_stdout(text.as_bytes())?,
    }
    match &args.json {
        Some(target) => target.write(&rows),
        None => Ok(()),
    }
}

fn list() -> Result<()> {
    let mut table = Table::new(["fixture", "device", "driver"]);
    for name in fixtures::fixture_names() {
        let facts = fixtures::fixture(name).expect("it is listed");
        table.row([name.into(), facts.name.into(), facts.driver.into()]);
    }
    cli::table::to_stdout(format!("{table}\n").as_bytes())
}

/// What the manager would do with a device.
fn summary(row: &DeviceRow) -> String {
    let mut text = format!(
        "{} ({}, Vulkan {}; {})\n",
        row.device, row.kind, row.api, row.driver
    );
    if let Some(lacks) = &row.lacks {
        return text + &format!("cannot be used: {lacks}\n");
    }
    let mut table = Table::new([
        "memory",
        "made of",
        "type",
        "heap",
        "size",
        "budget",
        "CPU access",
    ]);
    for memory in &row.memories {
        table.row([
            memory.memory.clone().into(),
            memory.made_of.into(),
            number(memory.type_index),
            number(memory.heap),
            bytes(memory.bytes),
            bytes(memory.budget),
            memory.cpu.into(),
        ]);
    }
    text += &format!("{table}\n");
    for memory in &row.memories {
        text += &format!("{}: {}\n", memory.memory, memory.why);
    }
    for note in &row.notes {
        text += &format!("note: {note}\n");
    }
    text += &row.tried.as_ref().map(Tried::text).unwrap_or_default();
    text
}

/// All that a device says.
fn details(row: &DeviceRow) -> String {
    let mut heaps = Table::new(["heap", "size", "budget", "of"]);
    for (index, heap) in row.heaps.iter().enumerate() {
        heaps.row([
            Cell::Number(index.to_string()),
            bytes(Some(heap.bytes)),
            bytes(heap.budget),
            if heap.device_local {
                "the device"
            } else {
                "the host"
            }
            .into(),
        ]);
    }
    let mut types = Table::new(["type", "heap", "properties"]);
    for (index, kind) in row.types.iter().enumerate() {
        types.row([
            Cell::Number(index.to_string()),
            Cell::Number(kind.heap.to_string()),
            kind.flags.join(", ").into(),
        ]);
    }
    let limits = &row.limits;
    format!(
        "\n{}: all that it says\n{heaps}\n{types}\n\
         one allocation: at most {}; allocations: at most {}; imported memory: multiples of {} B\n\
         buffers and images: granules of {} B; flushes: multiples of {} B\n\
         can: {}\n",
        row.device,
        ByteSize(limits.allocation_bytes).human(),
        limits.allocations,
        limits.import_align,
        limits.buffer_image_granularity,
        limits.non_coherent_atom,
        row.can.join(", "),
    )
}

fn heaps(facts: &Facts) -> Vec<HeapRow> {
    let heaps = facts.heaps.iter().map(|heap| HeapRow {
        bytes: heap.bytes,
        budget: heap.budget,
        device_local: heap.device_local,
    });
    heaps.collect()
}

fn types(facts: &Facts) -> Vec<TypeRow> {
    let types = facts.types.iter().map(|kind| TypeRow {
        heap: kind.heap,
        flags: match format!("{:?}", kind.flags) {
            none if none.is_empty() => Vec::new(),
            flags => flags.split(" | ").map(words).collect(),
        },
    });
    types.collect()
}

fn limits(facts: &Facts) -> LimitsRow {
    let limits = facts.limits;
    LimitsRow {
        allocation_bytes: limits.allocation_bytes,
        allocations: limits.allocations,
        buffer_image_granularity: limits.buffer_image_granularity,
        non_coherent_atom: limits.non_coherent_atom,
        import_align: limits.import_align,
    }
}

/// What a device can do, by name.
fn abilities(facts: &Facts) -> Vec<&'static str> {
    let can = &facts.can;
    let all = [
        (can.timeline, "timeline semaphores"),
        (can.host_import, "host import"),
        (can.sparse_buffers, "sparse buffers"),
        (can.sparse_host_import, "sparse host import"),
        (can.dma_buf, "dma-buf"),
        (can.opaque_fd, "opaque fd"),
        (can.semaphore_fd, "timeline semaphore fd"),
        (can.budget, "budget"),
        (can.priority, "priority"),
        (can.pageable, "pageable"),
        (can.placed_map, "placed map"),
        (can.buffer_address, "buffer address"),
    ];
    let yes = all
        .into_iter()
        .filter_map(|(can, name)| can.then_some(name));
    yes.collect()
}

fn number(number: Option<u32>) -> Cell {
    Cell::Number(number.map_or("-".into(), |number| number.to_string()))
}

fn bytes(bytes: Option<u64>) -> Cell {
    match bytes {
        Some(bytes) => ByteSize(bytes).into(),
        None => Cell::Number("-".into()),
    }
}

/// A name of Vulkan's in words: `INTEGRATED_GPU` is `integrated gpu`.
fn words(name: &str) -> String {
    name.to_lowercase().replace('_', " ")
}

/// A version of Vulkan, as people write it.
fn version(api: u32) -> String {
    format!(
        "{}.{}.{}",
        (api >> 22) & 0x7f,
        (api >> 12) & 0x3ff,
        api & 0xfff
    )
}
