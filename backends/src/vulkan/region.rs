//! Device memory in chunks: a space that says which there are, and a region that has them allocated.
//!
//! ```text
//!   take (manager's lock)      provide (no lock)            give ... idle
//!   Chunks: a run of a chunk ─▶ its memory, if it has none ─▶ empty ─▶ freed
//!                                  │ there is none
//!                                  └─ refused: somebody leaves, and it is tried again
//! ```

use std::collections::BTreeMap;
use std::fs::File;

use ash::vk;
use placement::{
    CacheMode, Chunks, Extent, Extents, PAGE_SIZE, PageCount, PageRange, Request, Space, TakeError,
};
use ttm::cache::Modes;
use ttm::clock::Time;
use ttm::error::{Error, Result};
use ttm::pages::{FileRange, Mapped};
use ttm::resource::Region;
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::sync::{Arc, Mutex, MutexGuard};

use super::budget::Budgets;
use super::error::VulkanError;
use super::layout::Chunked;
use super::raw::{Buffer, BufferWant, Memory, MemoryWant, Raw};

/// What the memory of chunks is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkKind {
    pub(super) of: Chunked,
    pub(super) priority: f32,
    /// How chunks go out, so that windows map them, and at which byte of what goes out they begin.
    pub(super) export: Option<(vk::ExternalMemoryHandleTypeFlags, u64)>,
}

/// One allocation, and a buffer over all of it, for copies.
pub(super) struct ChunkMemory {
    pub(super) buffer: Buffer,
    pub(super) memory: Arc<Memory>,
    pub(super) type_index: u32,
    /// What goes out of it, for windows.
    file: Option<Arc<File>>,
    /// The first of its page numbers.
    first: u64,
    /// Whether the driver was told that nobody needs it near.
    cold: AtomicBool,
}

impl ChunkMemory {
    /// The byte of the allocation at which a page lies.
    pub(super) fn offset_of(&self, page: u64) -> u64 {
        (page - self.first) * PAGE_SIZE
    }
}

struct Table {
    space: Chunks,
    /// By their first page.
    memory: BTreeMap<u64, Arc<ChunkMemory>>,
    /// Since when some chunk has been empty.
    empty_since: Option<Time>,
}

/// The memory of one type.
pub(super) struct ChunkRegion {
    raw: Arc<Raw>,
    kind: ChunkKind,
    budgets: Arc<Budgets>,
    families: Vec<u32>,
    table: Mutex<Table>,
    /// Held by whoever allocates, so that a chunk is allocated once.
    growing: Mutex<()>,
}

/// What a memory of chunks holds at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChunkUsage {
    /// Allocations.
    pub chunks: usize,
    /// Their bytes.
    pub allocated: u64,
    /// Bytes of objects.
    pub taken: u64,
    /// Bytes of chunks that nobody has anything of.
    pub idle: u64,
    /// The most that may be allocated, in bytes.
    pub limit: u64,
}

impl ChunkRegion {
    pub(super) fn new(
        raw: &Arc<Raw>,
        kind: ChunkKind,
        space: Chunks,
        budgets: &Arc<Budgets>,
        families: Vec<u32>,
    ) -> Arc<Self> {
        Arc::new(Self {
            raw: Arc::clone(raw),
            kind,
            budgets: Arc::clone(budgets),
            families,
            table: Mutex::new(Table {
                space,
                memory: BTreeMap::new(),
                empty_since: None,
            }),
            growing: Mutex::new(()),
        })
    }

    pub(super) fn kind(&self) -> &ChunkKind {
        &self.kind
    }

    /// The chunk that has a page.
    pub(super) fn chunk_at(&self, page: u64) -> Option<Arc<ChunkMemory>> {
        let table = self.table.lock();
        let (_, chunk) = table.memory.range(..=page).next_back()?;
        let inside = chunk.offset_of(page) < chunk.memory.bytes();
        inside.then(|| Arc::clone(chunk))
    }

    pub(super) fn usage(&self) -> ChunkUsage {
        let table = self.table.lock();
        ChunkUsage {
            chunks: table.memory.len(),
            allocated: table.memory.values().map(|c| c.memory.bytes()).sum(),
            taken: table.space.size().bytes() - table.space.free().bytes(),
            idle: table.space.empties().bytes(),
            limit: table.space.limit().bytes(),
        }
    }

    /// Changes how much there may be.
    pub(super) fn set_limit(&self, limit: PageCount) {
        let mut table = self.table.lock();
        let limit = limit.min(pages_of(self.kind.of.bytes));
        table.space.set_limit(limit);
        table.space.allow_growth();
    }

    /// Frees chunks that were empty for long enough, and lets the memory grow again. Answers whether
    /// anything was freed.
    pub(super) fn tend(&self, now: Time, idle: core::time::Duration) -> bool {
        let mut freed = Vec::new();
        {
            let mut table = self.table.lock();
            // The driver may have more by now.
            table.space.allow_growth();
            let table = &mut *table;
            if table.space.empties().is_zero() {
                table.empty_since = None;
            } else if now.since(*table.empty_since.get_or_insert(now)) >= idle {
                let closed = table.space.close_empty(PageCount::ZERO);
                freed.extend(
                    closed
                        .iter()
                        .filter_map(|r| table.memory.remove(&r.start())),
                );
                table.empty_since = None;
            }
            table.free_closed(&mut freed);
        }
        self.hint();
        // Outside the lock: these are calls of the driver.
        !freed.is_empty()
    }

    /// Tells the driver which chunks nobody has anything of, where it listens.
    fn hint(&self) {
        let chunks: Vec<_> = {
            let table = self.table.lock();
            let all = table.space.chunks();
            all.filter_map(|c| {
                Some((
                    c.taken.is_zero(),
                    table.memory.get(&c.range.start())?.clone(),
                ))
            })
            .collect()
        };
        for (empty, chunk) in chunks {
            self.set_cold(&chunk, empty);
        }
    }

    fn set_cold(&self, chunk: &ChunkMemory, cold: bool) {
        // Relaxed: a hint.
        if chunk.cold.swap(cold, Ordering::Relaxed) != cold {
            let priority = if cold { 0.0 } else { self.kind.priority };
            chunk.memory.set_priority(priority);
        }
    }

    /// Frees all empty chunks.
    pub(super) fn trim(&self) {
        let mut freed = Vec::new();
        let mut table = self.table.lock();
        let closed = table.space.close_empty(PageCount::ZERO);
        freed.extend(
            closed
                .iter()
                .filter_map(|r| table.memory.remove(&r.start())),
        );
        table.free_closed(&mut freed);
        drop(table);
    }

    fn allocate(&self, range: PageRange) -> core::result::Result<ChunkMemory, VulkanError> {
        let Chunked {
            type_index,
            heap,
            visible,
            coherent,
            ..
        } = self.kind.of;
        let bytes = range.len().bytes();
        if !self.budgets.allows(heap, bytes) {
            return Err(VulkanError::Call {
                what: "the heap's budget",
                result: vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
            });
        }
        let want = MemoryWant {
            type_index,
            bytes,
            priority: self.kind.priority,
            mapped: visible && coherent,
            export: self.kind.export.map(|(how, _)| how).unwrap_or_default(),
        };
        let memory = Arc::new(Memory::allocate(&self.raw, &want)?);
        let buffer = BufferWant {
            external: want.export,
            ..BufferWant::for_copies(bytes, &self.families)
        };
        let buffer = Buffer::within(&self.raw, &buffer, &memory, Some(type_index), 0)?;
        let file = match self.kind.export {
            Some((how, _)) => Some(Arc::new(File::from(memory.export(how)?))),
            None => None,
        };
        self.budgets.grew(heap, bytes);
        Ok(ChunkMemory {
            buffer,
            memory,
            type_index,
            file,
            first: range.start(),
            cold: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    fn view(&self, pages: PageRange) -> Result<Mapped> {
        if self.raw.is_lost() {
            return Err(Error::DeviceLost);
        }
        let chunk = self.chunk_at(pages.start()).ok_or(NOT_THERE)?;
        let offset = chunk.offset_of(pages.start());
        chunk
            .memory
            .view(offset, pages.len().bytes())
            .ok_or(NOT_SEEN)
    }
}

const NOT_THERE: Error = Error::Invalid("pages of a memory that nobody was given");
const NOT_SEEN: Error = Error::Unsupported(
    "the CPU does not reach this memory of the device; validate the object into TT or SYSTEM",
);

pub(super) fn pages_of(bytes: u64) -> PageCount {
    PageCount::new(bytes / PAGE_SIZE).unwrap_or(PageCount::MAX)
}

impl Table {
    /// Takes the memory of chunks that the space closed out of the table.
    fn free_closed(&mut self, freed: &mut Vec<Arc<ChunkMemory>>) {
        let memory = &mut self.memory;
        freed.extend(
            self.space
                .drain_closed()
                .filter_map(|range| memory.remove(&range.start())),
        );
    }
}

impl Region for ChunkRegion {
    fn size(&self) -> PageCount {
        pages_of(self.kind.of.bytes)
    }

    fn provide(&self, pages: PageRange) -> Result<()> {
        let mut freed = Vec::new();
        let range = {
            let mut table = self.lock();
            table.free_closed(&mut freed);
            let chunk = table.space.chunk_of(pages.start()).ok_or(NOT_THERE)?;
            if chunk.refused {
                return Err(Error::no_memory(pages.len()));
            }
            if let Some(memory) = table.memory.get(&chunk.range.start())
                && freed.is_empty()
            {
                self.set_cold(memory, false);
                return Ok(());
            }
            chunk.range
        };
        // Room for what comes now.
        drop(freed);
        let _growing = self.growing.lock();
        if self.lock().memory.contains_key(&range.start()) {
            return Ok(());
        }
        if self.raw.is_lost() {
            return Err(Error::DeviceLost);
        }
        match self.allocate(range) {
            Ok(chunk) => {
                let chunk = Arc::new(chunk);
                self.lock().memory.insert(range.start(), chunk);
                Ok(())
            }
            Err(error) => {
                self.lock().space.refuse(range.start());
                Err(error.wanting(pages.len()))
            }
        }
    }

    fn goes_on_at(&self, page: u64) -> bool {
        let chunk = self.lock().space.chunk_of(page);
        chunk.is_none_or(|chunk| chunk.range.start() != page)
    }

    fn aperture(&self) -> PageRange {
        match self.kind.of.visible && self.kind.of.coherent {
            true => PageRange::ALL,
            false => PageRange::EMPTY,
        }
    }

    fn modes(&self) -> Modes {
        Modes::of(self.own_mode())
    }

    fn own_mode(&self) -> CacheMode {
        match self.kind.of.cached {
            true => CacheMode::Cached,
            false => CacheMode::WriteCombined,
        }
    }

    fn map(&self, pages: PageRange, _: CacheMode) -> Result<Mapped> {
        self.view(pages)
    }

    fn file(&self, pages: PageRange, _: CacheMode) -> Result<FileRange> {
        let Some((_, base)) = self.kind.export else {
            return Err(Error::Unsupported(
                "memory of this device is in no file that could be mapped; windows show its objects \
                 in TT or SYSTEM",
            ));
        };
        let chunk = self.chunk_at(pages.start()).ok_or(NOT_THERE)?;
        let file = chunk.file.as_ref().ok_or(NOT_SEEN)?;
        Ok(FileRange {
            watchable: false,
            ..FileRange::new(Arc::clone(file), base + chunk.offset_of(pages.start()))
        })
    }
}

/// The space of a region, for its manager.
pub(super) struct ChunkSpace(pub(super) Arc<ChunkRegion>);

impl Space for ChunkSpace {
    fn take(&mut self, request: &Request) -> core::result::Result<Extents, TakeError> {
        self.0.lock().space.take(request)
    }

    fn give(&mut self, extent: Extent) {
        self.0.lock().space.give(extent);
    }

    fn size(&self) -> PageCount {
        self.0.lock().space.size()
    }

    fn free(&self) -> PageCount {
        self.0.lock().space.free()
    }

    fn largest_hole(&self) -> PageCount {
        self.0.lock().space.largest_hole()
    }

    /// Also: what is taken of a chunk that was not refused, and is not being allocated, has memory.
    fn check(&self) -> core::result::Result<(), String> {
        let table = self.0.lock();
        table.space.check()?;
        let growing = self.0.growing.try_lock().is_none();
        for chunk in table.space.chunks() {
            let has = table.memory.get(&chunk.range.start());
            match has {
                Some(memory) if memory.memory.bytes() != chunk.range.len().bytes() => {
                    return Err(format!("chunk {} has memory of another size", chunk.range));
                }
                None if !chunk.refused && !chunk.taken.is_zero() && !growing => {
                    return Err(format!("chunk {} has no memory", chunk.range));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn taken(&self) -> Vec<PageRange> {
        self.0.lock().space.taken()
    }
}
