//! System pages as the device's memory: the pages themselves, where the driver takes them.
//!
//! Each run of adjoining frames is mapped once, for as long as the device finds it, and becomes an
//! allocation and a buffer. Its address for the device is the address of that mapping: the driver
//! knows others, but none that anybody else could use.

use std::collections::BTreeMap;

use ash::vk;
use placement::{CacheMode, PageCount};
use ttm::dma::{
    Direction, DmaError, DmaMapping, FrameBytes, MappedList, Mapper, PageList, Path, SegmentParms,
    Tri,
};
use ttm::pages::{FrameSpan, PageSource};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

use crate::host::FileMap;

use super::error::VulkanError;
use super::raw::{Buffer, BufferWant, Memory, Raw};

/// Of the allocations that a device allows, so many are left to others: an eighth.
const LEFT_TO_OTHERS: u32 = 8;

/// A run of frames that the device has.
pub(super) struct Imported {
    pub(super) buffer: Buffer,
    pub(super) memory: Arc<Memory>,
    /// The address of the mapping.
    pub(super) address: u64,
}

/// The mapper that imports.
pub(super) struct HostImport {
    raw: Arc<Raw>,
    source: Arc<dyn PageSource>,
    families: Vec<u32>,
    /// By the address of the mapping.
    pieces: Mutex<BTreeMap<u64, Arc<Imported>>>,
    live: AtomicU64,
    /// Mappings of the process for them.
    mapped: Arc<AtomicU64>,
}

impl HostImport {
    pub(super) fn new(
        raw: &Arc<Raw>,
        source: &Arc<dyn PageSource>,
        families: Vec<u32>,
    ) -> Arc<Self> {
        Arc::new(Self {
            raw: Arc::clone(raw),
            source: Arc::clone(source),
            families,
            pieces: Mutex::new(BTreeMap::new()),
            live: AtomicU64::new(0),
            mapped: Arc::default(),
        })
    }

    /// The piece that has an address, and how far into it that is.
    pub(super) fn piece_at(&self, address: u64) -> Option<(Arc<Imported>, u64)> {
        let pieces = self.pieces.lock();
        let (first, piece) = pieces.range(..=address).next_back()?;
        let at = address - first;
        (at < piece.memory.bytes()).then(|| (Arc::clone(piece), at))
    }

    fn import(&self, span: FrameSpan) -> Result<Arc<Imported>, DmaError> {
        let limit = self.raw.facts.limits.allocations;
        if self.raw.allocations() >= limit - limit / LEFT_TO_OTHERS {
            return Err(EXHAUSTED);
        }
        let mapped = self.map_file(span).map_err(source)?;
        let address = mapped.as_ptr() as u64;
        let piece = self.piece(mapped).map_err(says)?;
        Ok(Arc::new(Imported { address, ..piece }))
    }

    /// Maps frames that adjoin in their file, of one run or of several.
    fn map_file(&self, span: FrameSpan) -> ttm::Result<ttm::pages::Mapped> {
        let first = span.part(0, PageCount::ONE);
        let file = self.source.file(first, CacheMode::Cached)?;
        let bytes =
            usize::try_from(span.pages.bytes()).map_err(|_| ttm::Error::no_memory(span.pages))?;
        let map = FileMap::populated(&file.file, file.offset, bytes, &self.mapped)?;
        Ok(map.into_mapped())
    }

    fn piece(&self, mapped: ttm::pages::Mapped) -> Result<Imported, VulkanError> {
        let memory = Arc::new(Memory::import(&self.raw, mapped)?);
        let want = BufferWant {
            external: vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
            ..BufferWant::for_copies(memory.bytes(), &self.families)
        };
        let buffer = Buffer::within(&self.raw, &want, &memory, None, 0)?;
        Ok(Imported {
            buffer,
            memory,
            address: 0,
        })
    }
}

/// Others have to let go first.
const EXHAUSTED: DmaError = DmaError::PoolExhausted {
    pool: "allocations of the Vulkan device",
};

fn source(error: ttm::Error) -> DmaError {
    DmaError::Source {
        says: error.to_string().into(),
    }
}

/// Memory that ran out comes back when others let go of theirs.
fn says(error: VulkanError) -> DmaError {
    use vk::Result as R;
    match error {
        VulkanError::Call {
            result:
                R::ERROR_OUT_OF_DEVICE_MEMORY | R::ERROR_OUT_OF_HOST_MEMORY | R::ERROR_TOO_MANY_OBJECTS,
            ..
        } => EXHAUSTED,
        error => DmaError::Source {
            says: error.to_string().into(),
        },
    }
}

/// The pieces of one mapping.
type Handle = Vec<Arc<Imported>>;

impl Mapper for HostImport {
    fn map(&self, bytes: FrameBytes<'_>, direction: Direction) -> Result<DmaMapping, DmaError> {
        let list = PageList::build(&SegmentParms::WIDEST, bytes)?;
        let mut pieces: Handle = Vec::new();
        let mut spans: Vec<(FrameSpan, u64)> = Vec::new();
        for segment in list.cpu_segments() {
            let piece = self.import(segment.span)?;
            spans.push((segment.span, piece.address));
            pieces.push(piece);
        }
        let address = |span: FrameSpan| {
            let of = |(whole, _): &&(FrameSpan, u64)| {
                whole.file == span.file && whole.first <= span.first && span.end() <= whole.end()
            };
            let (whole, address) = spans.iter().find(of)?;
            Some(address + (span.first - whole.first) * placement::PAGE_SIZE)
        };
        let list: MappedList = list.direct(&SegmentParms::WIDEST, address)?;
        let mut known = self.pieces.lock();
        for piece in &pieces {
            known.insert(piece.address, Arc::clone(piece));
        }
        drop(known);
        // Relaxed: a count, which orders nothing.
        self.live.fetch_add(1, Ordering::Relaxed);
        let path = Path::Owned {
            forces_snoop: Tri::Unknown,
        };
        Ok(DmaMapping::new(list, direction, path, pieces))
    }

    fn unmap(&self, mapping: DmaMapping) {
        let pieces: Handle = mapping.into_handle();
        let mut known = self.pieces.lock();
        for piece in &pieces {
            known.remove(&piece.address);
        }
        drop(known);
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}
