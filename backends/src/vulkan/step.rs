//! What a copy job is for the queue: regions of buffers, and images.

use ash::vk;
use placement::{MemType, PAGE_SIZE};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use ttm::driver::{CopyJob, Side};
use ttm::error::{Error, Result};
use ttm::fence::Fence;
use ttm::sync::{Arc, Mutex, OnceLock};

use super::images::{Form, ImageStep, Images};
use super::import::{HostImport, Imported};
use super::raw::{Buffer, Commands, Memory};
use super::region::{ChunkMemory, ChunkRegion};

/// Where the parts of the device's memories are.
pub(super) struct Sides {
    regions: [Option<Arc<ChunkRegion>>; MemType::COUNT],
    import: OnceLock<Arc<HostImport>>,
    /// Images by the number of their object.
    images: Mutex<BTreeMap<u64, Arc<Images>>>,
}

/// Memory that a step uses, which stays until the step is done.
#[derive(Clone)]
pub(super) enum Held {
    Chunk(Arc<ChunkMemory>),
    Import(Arc<Imported>),
}

impl Held {
    pub(super) fn buffer(&self) -> &Buffer {
        match self {
            Self::Chunk(chunk) => &chunk.buffer,
            Self::Import(piece) => &piece.buffer,
        }
    }

    pub(super) fn memory(&self) -> &Memory {
        match self {
            Self::Chunk(chunk) => &chunk.memory,
            Self::Import(piece) => &piece.memory,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.buffer().handle() == other.buffer().handle()
    }
}

/// Adjoining bytes of one side.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) held: Held,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A side in the order of its bytes: mostly one run of one allocation.
pub(super) type Parts = SmallVec<[Part; 1]>;

/// A part of a job.
pub(super) enum Step {
    Copy {
        from: Held,
        to: Held,
        regions: Vec<vk::BufferCopy>,
    },
    Clear(Part),
    Image(Box<ImageStep>),
}

impl Step {
    pub(super) fn record(&self, commands: &Commands) {
        match self {
            Self::Copy { from, to, regions } => commands.copy(from.buffer(), to.buffer(), regions),
            Self::Clear(part) => commands.clear(part.held.buffer(), part.offset, part.bytes),
            Self::Image(step) => step.record(commands),
        }
    }

    /// Says which fence the step ends before.
    pub(super) fn belongs_to(&self, fence: &Fence) {
        if let Self::Image(step) = self {
            step.belongs_to(fence);
        }
    }
}

impl Sides {
    pub(super) fn new(regions: [Option<Arc<ChunkRegion>>; MemType::COUNT]) -> Arc<Self> {
        Arc::new(Self {
            regions,
            import: OnceLock::new(),
            images: Mutex::new(BTreeMap::new()),
        })
    }

    /// Says by whom system pages are found.
    pub(super) fn set_import(&self, import: Arc<HostImport>) {
        let _ = self.import.set(import);
    }

    pub(super) fn import(&self) -> Option<&Arc<HostImport>> {
        self.import.get()
    }

    pub(super) fn region(&self, mem_type: MemType) -> Option<&Arc<ChunkRegion>> {
        self.regions[mem_type.index()].as_ref()
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = (MemType, &Arc<ChunkRegion>)> {
        let of = |mem_type: MemType| Some((mem_type, self.region(mem_type)?));
        MemType::all().filter_map(of)
    }

    /// The object's content in device memory is that of images.
    pub(super) fn enter_images(&self, object: u64, images: &Arc<Images>) {
        self.images
            .lock()
            .entry(object)
            .or_insert_with(|| Arc::clone(images));
    }

    pub(super) fn forget_images(&self, images: &Arc<Images>) {
        self.images
            .lock()
            .retain(|_, other| !Arc::ptr_eq(other, images));
    }

    /// What the queue does for a job.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`], and those of making images.
    pub(super) fn steps(&self, job: &CopyJob) -> Result<Vec<Step>> {
        let images = self.images.lock().get(&job.object).cloned();
        if let Some(images) = images {
            return self.image_step(&images, job).map(|step| vec![step]);
        }
        let bytes = job.pages.bytes();
        let to = self.parts(&job.dst, bytes)?;
        if job.src == Side::Zero {
            return Ok(to.into_iter().map(Step::Clear).collect());
        }
        Ok(copies(&self.parts(&job.src, bytes)?, &to))
    }

    fn image_step(&self, images: &Arc<Images>, job: &CopyJob) -> Result<Step> {
        let bytes = images.linear_bytes();
        let form = |side: &Side, new: bool| match side {
            Side::Zero => Ok(Form::Zero),
            Side::Device { mem_type, ranges } => {
                let region = self.region(*mem_type).ok_or(NO_REGION)?;
                images.form_at(region, ranges, new)
            }
            pages => self.parts(pages, bytes).map(Form::Linear),
        };
        let (from, to) = (form(&job.src, false)?, form(&job.dst, true)?);
        let step = images.step(from, to)?;
        Ok(Step::Image(Box::new(step)))
    }

    /// The first `bytes` bytes of a side.
    pub(super) fn parts(&self, side: &Side, bytes: u64) -> Result<Parts> {
        let mut left = bytes;
        let mut parts = Parts::new();
        let mut push = |held: Held, offset: u64, len: u64| {
            let bytes = len.min(left);
            left -= bytes;
            if bytes > 0 {
                parts.push(Part {
                    held,
                    offset,
                    bytes,
                });
            }
        };
        match side {
            Side::Zero => return Err(Error::Invalid("zeroes are only a source")),
            Side::Frames(_) => {
                return Err(Error::Unsupported(
                    "the device does not find these pages; a route by the CPU, or through a memory of chunks, does",
                ));
            }
            Side::Mapped(list) => {
                let import = self.import().ok_or(NO_REGION)?;
                for segment in list.dma_segments() {
                    let piece = import.piece_at(segment.addr.get());
                    let (piece, at) =
                        piece.ok_or(Error::Invalid("an address of another device"))?;
                    push(Held::Import(piece), at, segment.len);
                }
            }
            Side::Device { mem_type, ranges } => {
                let region = self.region(*mem_type).ok_or(NO_REGION)?;
                for range in ranges {
                    let chunk = region.chunk_at(range.start()).ok_or(NO_MEMORY)?;
                    let offset = chunk.offset_of(range.start());
                    push(Held::Chunk(chunk), offset, range.len().bytes());
                }
            }
        }
        match left {
            0 => Ok(parts),
            _ => Err(Error::Invalid("a side of the copy is shorter than the job")),
        }
    }
}

const NO_REGION: Error = Error::Invalid("a side names a memory that is not of this device");
const NO_MEMORY: Error = Error::Invalid("a side names pages that nobody was given");

/// Copies of one list of parts to another of the same bytes, cut differently.
pub(super) fn copies(from: &[Part], to: &[Part]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut source = from.iter();
    let mut rest: Option<Part> = None;
    for target in to {
        let mut done = 0;
        while done < target.bytes {
            let Some(mut part) = rest.take().or_else(|| source.next().cloned()) else {
                return steps;
            };
            let size = part.bytes.min(target.bytes - done);
            let region = vk::BufferCopy {
                src_offset: part.offset,
                dst_offset: target.offset + done,
                size,
            };
            match steps.last_mut() {
                Some(Step::Copy { from, to, regions })
                    if from.is(&part.held) && to.is(&target.held) =>
                {
                    regions.push(region);
                }
                _ => steps.push(Step::Copy {
                    from: part.held.clone(),
                    to: target.held.clone(),
                    regions: vec![region],
                }),
            }
            done += size;
            part.offset += size;
            part.bytes -= size;
            if part.bytes > 0 {
                rest = Some(part);
            }
        }
    }
    steps
}

const _: () = assert!(PAGE_SIZE.is_multiple_of(4));
