//! Which memories the manager has on a device: its heaps and types, sorted into memory types.
//!
//! | memory type | made of | which Vulkan memory |
//! |---|---|---|
//! | SYSTEM | frames | none: pages of the process, swapped out when short |
//! | TT | frames that are imported, or chunks | the host's memory as the device reaches it |
//! | VRAM | chunks | the device's own |
//! | [`BAR`] | chunks | the part of the device's own that the CPU reaches, where that is a heap apart |
//! | [`GART`] | chunks | memory of the host that is not imported, where TT is frames |

use std::cmp::Reverse;

use ash::vk::MemoryPropertyFlags as Flags;
use placement::MemType;

use super::facts::{Facts, Type};

/// The part of the device's memory that the CPU reaches, where it is apart from the rest.
pub const BAR: MemType = MemType::private(0).expect("there are six");

/// Memory of the host in chunks of the driver's: for buffers that imported frames cannot be bound to.
pub const GART: MemType = MemType::private(1).expect("there are six");

/// The memories of a device.
#[derive(Clone, PartialEq, Debug)]
pub struct Layout {
    /// Whether the device's memory is the host's.
    pub unified: bool,
    /// The memories, the device's own first.
    pub memories: Vec<Memory>,
    /// What else there is to say of the device: what was left out, and why.
    pub notes: Vec<String>,
}

/// One memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Memory {
    /// Its name in the manager.
    pub mem_type: MemType,
    /// What it is made of.
    pub made_of: MadeOf,
    /// Why it is that.
    pub why: String,
}

/// What a memory is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadeOf {
    /// System pages; `imported` says whether the device reaches them where they are.
    Frames {
        /// Whether they become the device's memory as they are.
        imported: bool,
    },
    /// Allocations of a Vulkan memory type, of which objects have parts.
    Chunks(Chunked),
}

/// The Vulkan memory type of a memory of chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunked {
    /// Its number.
    pub type_index: u32,
    /// Its heap's number.
    pub heap: u32,
    /// How much there is at most, in bytes.
    pub bytes: u64,
    /// Whether the CPU reaches it.
    pub visible: bool,
    /// Whether the CPU's reads are cached.
    pub cached: bool,
    /// Whether what the CPU writes is seen without a flush. Memory that is visible and is not is
    /// taken for memory that the CPU does not reach.
    pub coherent: bool,
}

impl Layout {
    /// Sorts a device's heaps and types.
    ///
    /// # Errors
    /// What the device lacks: timeline semaphores, memory of its own, or a way for content to get
    /// there.
    pub fn of(facts: &Facts) -> Result<Self, String> {
        if !facts.can.timeline {
            return Err("it has no timeline semaphores, which Vulkan 1.2 brings".into());
        }
        let sorted = Sorter { facts };
        let vram = (sorted.vram()).ok_or("it has no memory of its own that buffers can have")?;
        let imported = sorted.imports();
        let tt = match imported {
            true => sorted.imported_tt(),
            false => sorted.chunked_tt().ok_or(
                "it neither imports memory of the process nor has any that the CPU sees without \
                 flushes, so no content can get there",
            )?,
        };
        let bar = sorted.bar(&vram);
        let gart = sorted.gart().filter(|_| imported);
        let memories: Vec<_> = [Some(vram), bar, Some(tt), gart, Some(sorted.system())]
            .into_iter()
            .flatten()
            .collect();
        Ok(Self {
            unified: facts.is_unified(),
            notes: sorted.notes(&memories),
            memories,
        })
    }

    /// The memory of that name.
    #[must_use]
    pub fn memory(&self, mem_type: MemType) -> Option<&Memory> {
        self.memories.iter().find(|m| m.mem_type == mem_type)
    }
}

impl Memory {
    /// What people call it: `vram`, `bar`, `tt`, `gart`, `system`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.mem_type {
            BAR => "bar".into(),
            GART => "gart".into(),
            other => other.to_string(),
        }
    }

    /// The Vulkan memory that its chunks are of; `None` where it is frames.
    #[must_use]
    pub fn chunked(&self) -> Option<Chunked> {
        match self.made_of {
            MadeOf::Chunks(chunked) => Some(chunked),
            MadeOf::Frames { .. } => None,
        }
    }

    fn chunks(mem_type: MemType, chunked: Chunked, why: impl Into<String>) -> Self {
        Self {
            mem_type,
            made_of: MadeOf::Chunks(chunked),
            why: why.into(),
        }
    }

    fn frames(mem_type: MemType, imported: bool, why: &str) -> Self {
        Self {
            mem_type,
            made_of: MadeOf::Frames { imported },
            why: why.into(),
        }
    }
}

/// The size of a frame, which imported memory comes in.
const FRAME_BYTES: u64 = 4096;

/// What buffers of the manager's can never have: memory without content of its own, and memory that
/// only protected queues reach.
const NEVER: Flags = Flags::from_raw(Flags::LAZILY_ALLOCATED.as_raw() | Flags::PROTECTED.as_raw());

/// What is taken only where there is nothing else: slower for the device, and behind a feature.
const LAST: Flags = Flags::from_raw(
    Flags::DEVICE_COHERENT_AMD.as_raw()
        | Flags::DEVICE_UNCACHED_AMD.as_raw()
        | Flags::RDMA_CAPABLE_NV.as_raw(),
);

/// Visible to the CPU, and without flushes.
const SEEN: Flags = Flags::from_raw(Flags::HOST_VISIBLE.as_raw() | Flags::HOST_COHERENT.as_raw());

/// The sorting: each method finds one memory.
struct Sorter<'a> {
    facts: &'a Facts,
}

impl Sorter<'_> {
    /// The largest heap of the device's own. On that heap a type that the CPU sees, if there is one.
    fn vram(&self) -> Option<Memory> {
        let own = |kind: &Type| kind.flags.contains(Flags::DEVICE_LOCAL);
        let heap = (self.usable())
            .filter(|(_, kind)| own(kind))
            .map(|(_, kind)| kind.heap)
            .max_by_key(|&heap| (self.bytes(heap), Reverse(heap)))?;
        let here = |kind: &Type| own(kind) && kind.heap == heap;
        let chunked = self.best(here, |kind| {
            // Types that the CPU sees only with flushes come last: nothing is had from them.
            (!seen(kind), kind.flags.contains(Flags::HOST_VISIBLE))
        })?;
        let why = match (chunked.visible, self.facts.is_unified()) {
            (true, true) => "the largest heap of the device's own, which it shares with the CPU",
            (true, false) => "the largest heap of the device's own; the CPU reaches all of it",
            (false, _) => "the largest heap of the device's own; the CPU does not reach it",
        };
        Some(Memory::chunks(MemType::VRAM, chunked, why))
    }

    /// The device's own memory that the CPU reaches, on a heap other than VRAM's.
    fn bar(&self, vram: &Memory) -> Option<Memory> {
        let vram = vram.chunked()?.heap;
        let apart = |kind: &Type| {
            seen(kind) && kind.flags.contains(Flags::DEVICE_LOCAL) && kind.heap != vram
        };
        let chunked = self.best(apart, |kind| Reverse(self.bytes(kind.heap)))?;
        let why = "the part of the device's own that the CPU reaches, a heap apart";
        Some(Memory::chunks(BAR, chunked, why))
    }

    fn imported_tt(&self) -> Memory {
        let why = "the device imports frames of the process where they are";
        Memory::frames(MemType::TT, true, why)
    }

    /// The host's memory as the driver allocates it, for a device that imports none: on a unified
    /// device that of any heap.
    fn chunked_tt(&self) -> Option<Memory> {
        if let Some(chunked) = self.host_chunks() {
            let why = "the device imports no frames: the driver allocates the host's memory";
            return Some(Memory::chunks(MemType::TT, chunked, why));
        }
        let chunked = self.best(seen, |kind| (!cached(kind), Reverse(self.bytes(kind.heap))))?;
        let why = match self.facts.is_unified() {
            true => "the device imports no frames, and all of its memory is the host's",
            false => "the device imports no frames; of its own memory the CPU reaches this",
        };
        Some(Memory::chunks(MemType::TT, chunked, why))
    }

    fn gart(&self) -> Option<Memory> {
        let why = "the host's memory as the driver allocates it, for buffers that imported frames \
                   cannot be bound to";
        Some(Memory::chunks(GART, self.host_chunks()?, why))
    }

    fn system(&self) -> Memory {
        let why = match self.imports() {
            true => "pages of the process, which can be swapped out; the device could import them",
            false => "pages of the process, which can be swapped out; the device sees copies only",
        };
        Memory::frames(MemType::SYSTEM, self.imports(), why)
    }

    /// The best of the types that the CPU sees and that are not the device's own.
    fn host_chunks(&self) -> Option<Chunked> {
        let host = |kind: &Type| seen(kind) && !kind.flags.contains(Flags::DEVICE_LOCAL);
        self.best(host, |kind| (!cached(kind), Reverse(self.bytes(kind.heap))))
    }

    /// Whether single frames can be imported.
    fn imports(&self) -> bool {
        let align = self.facts.limits.import_align;
        self.facts.can.host_import && align != 0 && FRAME_BYTES.is_multiple_of(align)
    }

    /// The types that buffers can have, with their numbers.
    fn usable(&self) -> impl Iterator<Item = (usize, &Type)> {
        let types = self.facts.types.iter().enumerate();
        types.filter(|(_, kind)| !kind.flags.intersects(NEVER) && self.bytes(kind.heap) > 0)
    }

    /// Of the types that are `wanted` the one with the least `rank`; of equals the driver's first.
    fn best<R: Ord>(
        &self,
        wanted: impl Fn(&Type) -> bool,
        rank: impl Fn(&Type) -> R,
    ) -> Option<Chunked> {
        let (index, kind) = (self.usable())
            .filter(|(_, kind)| wanted(kind))
            .min_by_key(|(_, kind)| (kind.flags.intersects(LAST), rank(kind)))?;
        Some(Chunked {
            type_index: u32::try_from(index).expect("Vulkan has 32 types at most"),
            heap: kind.heap,
            bytes: self.bytes(kind.heap),
            visible: seen(kind),
            cached: cached(kind),
            coherent: kind.flags.contains(Flags::HOST_COHERENT),
        })
    }

    /// The size of a heap; none if there is no such heap.
    fn bytes(&self, heap: u32) -> u64 {
        let heap = self.facts.heaps.get(heap as usize);
        heap.map_or(0, |heap| heap.bytes)
    }

    /// What was left out, and what is not what it seems.
    fn notes(&self, memories: &[Memory]) -> Vec<String> {
        let mut notes = Vec::new();
        let align = self.facts.limits.import_align;
        if self.facts.can.host_import && !self.imports() {
            notes.push(format!(
                "frames are not imported: imported memory comes in multiples of {align} bytes, and \
                 a frame has {FRAME_BYTES}"
            ));
        }
        if self.facts.is_unified() {
            notes.push("all memory is the host's: no move makes anything faster".into());
        }
        for (index, kind) in self.usable() {
            if kind.flags.contains(Flags::HOST_VISIBLE) && !seen(kind) {
                notes.push(format!(
                    "type {index} would need flushes and is taken for memory that the CPU does not \
                     reach"
                ));
            }
        }
        notes.extend(shared_heaps(memories));
        notes
    }
}

/// A note for each two memories of one heap.
fn shared_heaps(memories: &[Memory]) -> Vec<String> {
    let chunked: Vec<_> = memories
        .iter()
        .filter_map(|memory| Some((memory, memory.chunked()?)))
        .collect();
    let mut notes = Vec::new();
    for (at, (one, first)) in chunked.iter().enumerate() {
        for (other, second) in &chunked[at + 1..] {
            if first.heap == second.heap {
                let (one, other, heap) = (one.name(), other.name(), first.heap);
                notes.push(format!(
                    "{one} and {other} are of one heap, {heap}: what one has the other lacks"
                ));
            }
        }
    }
    notes
}

/// Whether the CPU sees it, and without flushes.
fn seen(kind: &Type) -> bool {
    kind.flags.contains(SEEN)
}

/// Whether the CPU's reads are cached, and it sees it without flushes.
fn cached(kind: &Type) -> bool {
    seen(kind) && kind.flags.contains(Flags::HOST_CACHED)
}
