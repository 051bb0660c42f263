//! Images of optimal tiling that move.
//!
//! In device memory an image's bytes are in an order that only the driver knows, and another image of
//! the same make at another place may have another. So an image moves by commands on images: from the
//! old one to a new one at the new place, or to plain rows of texels in system pages and back.

use ash::vk;
use placement::PageRange;
use ttm::error::{Error, Result};
use ttm::fence::Fence;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::error::VulkanError;
use super::raw::{
    Buffer, BufferWant, Commands, Image, ImageWant, Memory, MemoryWant, Raw, Requirements,
};
use super::region::{ChunkMemory, ChunkRegion};
use super::step::{Part, Parts};

/// An image object's images: one where it is, and those that are on their way.
pub(super) struct Images {
    raw: Arc<Raw>,
    want: ImageWant,
    /// The layout in which users have it.
    rest: vk::ImageLayout,
    /// Where levels lie in plain rows.
    rows: Vec<vk::BufferImageCopy>,
    linear_bytes: u64,
    needs: Requirements,
    generation: AtomicU64,
    placed: Mutex<Vec<Placed>>,
}

/// An image at a place.
struct Placed {
    /// Not kept: memory that nobody is in goes, whether or not the image was forgotten.
    chunk: Weak<ChunkMemory>,
    page: u64,
    image: Arc<Image>,
    generation: u64,
    /// Of the jobs that read or write it.
    until: Vec<Fence>,
}

/// An image that nobody finds any more, and the fences of the jobs that use it.
pub(super) type Old = (Arc<Image>, Vec<Fence>);

/// What content is in.
#[derive(Clone)]
pub(super) enum Form {
    /// Nothing: zeroes.
    Zero,
    /// An image, and the memory that it is in.
    Image(Arc<Image>, Arc<ChunkMemory>),
    /// Rows of texels.
    Linear(Parts),
}

/// The move of an image.
pub(super) struct ImageStep {
    images: Arc<Images>,
    from: Form,
    to: Form,
    /// Rows in one piece, where they are not so already.
    staging: Option<Staging>,
    /// Images of earlier places. Work that the job is behind may still use them.
    _forgotten: Vec<Arc<Image>>,
}

/// A buffer that lives as long as a job.
struct Staging {
    buffer: Buffer,
    _memory: Memory,
}

impl Images {
    pub(super) fn new(
        raw: &Arc<Raw>,
        want: ImageWant,
        rest: vk::ImageLayout,
    ) -> Result<Arc<Self>, VulkanError> {
        let Some(block) = Block::of(want.format) else {
            return Err(raw.lacks(format!("moves of images of the format {:?}", want.format)));
        };
        let needs = Image::create(raw, &want)?.requirements();
        let (rows, linear_bytes) = block.rows(&want);
        Ok(Arc::new(Self {
            raw: Arc::clone(raw),
            want,
            rest,
            rows,
            linear_bytes,
            needs,
            generation: AtomicU64::new(0),
            placed: Mutex::new(Vec::new()),
        }))
    }

    pub(super) fn needs(&self) -> Requirements {
        self.needs
    }

    /// Bytes of all its rows.
    pub(super) fn linear_bytes(&self) -> u64 {
        self.linear_bytes
    }

    /// The image at a place of device memory; a new one if there is none and `new` says so.
    pub(super) fn form_at(
        self: &Arc<Self>,
        region: &Arc<ChunkRegion>,
        ranges: &[PageRange],
        new: bool,
    ) -> Result<Form> {
        let [range] = ranges else {
            return Err(Error::Invalid("an image lies in one run"));
        };
        let page = range.start();
        let chunk = region
            .chunk_at(page)
            .ok_or(Error::Invalid("an image at pages that nobody was given"))?;
        let mut placed = self.placed.lock();
        let weak = Arc::downgrade(&chunk);
        let here = |p: &&Placed| p.page == page && Weak::ptr_eq(&p.chunk, &weak);
        if let Some(found) = placed.iter().find(here) {
            return Ok(Form::Image(Arc::clone(&found.image), chunk));
        }
        if !new {
            return Err(Error::Invalid("there is no image at an image's place"));
        }
        let image = Arc::new(Image::create(&self.raw, &self.want)?);
        image.bind(&chunk.memory, chunk.type_index, chunk.offset_of(page))?;
        placed.push(Placed {
            chunk: weak,
            page,
            image: Arc::clone(&image),
            // Relaxed: made under the lock.
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
            until: Vec::new(),
        });
        Ok(Form::Image(image, chunk))
    }

    /// The image at a place, its generation, and others that no job uses any more: these go after the
    /// work of the object's users.
    pub(super) fn settle_at(
        self: &Arc<Self>,
        region: &Arc<ChunkRegion>,
        ranges: &[PageRange],
    ) -> Result<(vk::Image, u64, Vec<Arc<Image>>)> {
        let Form::Image(image, _) = self.form_at(region, ranges, true)? else {
            return Err(Error::Invalid("an image that is none"));
        };
        let others = self.forget_others(|other| Arc::ptr_eq(other, &image));
        let placed = self.placed.lock();
        let here = placed.iter().find(|p| Arc::ptr_eq(&p.image, &image));
        let generation = here.map_or(0, |p| p.generation);
        Ok((image.handle(), generation, others))
    }

    /// Forgets the images that are not `needed` and that no job uses any more, and gives them out: its
    /// users' work may.
    fn forget_others(&self, needed: impl Fn(&Arc<Image>) -> bool) -> Vec<Arc<Image>> {
        let over = |p: &mut Placed| {
            let pending = p.until.iter().any(|fence| !fence.is_signalled());
            !pending && !needed(&p.image)
        };
        let mut placed = self.placed.lock();
        placed.extract_if(.., over).map(|p| p.image).collect()
    }

    /// All images, for whoever destroys them.
    pub(super) fn take_all(&self) -> Vec<Old> {
        let all = core::mem::take(&mut *self.placed.lock());
        all.into_iter().map(|p| (p.image, p.until)).collect()
    }

    pub(super) fn step(self: &Arc<Self>, from: Form, to: Form) -> Result<ImageStep> {
        let scattered = |form: &Form| matches!(form, Form::Linear(parts) if parts.len() != 1);
        let staged = matches!(from, Form::Zero) || scattered(&from) || scattered(&to);
        let chunk = match (&from, &to) {
            (Form::Image(_, chunk), _) | (_, Form::Image(_, chunk)) => chunk,
            _ => {
                return Err(Error::Invalid(
                    "rows of an image go to an image, or come from one",
                ));
            }
        };
        let staging = match staged {
            true => Some(self.staging(chunk.type_index)?),
            false => None,
        };
        let ends = |image: &Arc<Image>| {
            let is = |form: &Form| matches!(form, Form::Image(one, _) if Arc::ptr_eq(one, image));
            is(&from) || is(&to)
        };
        let forgotten = self.forget_others(ends);
        Ok(ImageStep {
            images: Arc::clone(self),
            from,
            to,
            staging,
            _forgotten: forgotten,
        })
    }

    fn staging(&self, type_index: u32) -> Result<Staging, VulkanError> {
        let bytes = self.linear_bytes.next_multiple_of(4);
        let want = BufferWant::for_copies(bytes, &[]);
        let needs = Buffer::create(&self.raw, &want)?.requirements();
        let memory = MemoryWant {
            type_index,
            bytes: needs.bytes,
            priority: 0.5,
            mapped: false,
            export: vk::ExternalMemoryHandleTypeFlags::empty(),
        };
        let memory = Memory::allocate(&self.raw, &memory)?;
        let buffer = Buffer::within(&self.raw, &want, &memory, Some(type_index), 0)?;
        Ok(Staging {
            buffer,
            _memory: memory,
        })
    }

    fn used_until(&self, image: &Arc<Image>, fence: &Fence) {
        let mut placed = self.placed.lock();
        if let Some(placed) = placed.iter_mut().find(|p| Arc::ptr_eq(&p.image, image)) {
            placed.until.retain(|fence| !fence.is_signalled());
            placed.until.push(fence.clone());
        }
    }
}

impl ImageStep {
    pub(super) fn belongs_to(&self, fence: &Fence) {
        for form in [&self.from, &self.to] {
            if let Form::Image(image, _) = form {
                self.images.used_until(image, fence);
            }
        }
    }

    pub(super) fn record(&self, commands: &Commands) {
        let rest = self.images.rest;
        match (&self.from, &self.to) {
            (Form::Image(from, _), Form::Image(to, _)) => {
                commands.transition(from, rest, vk::ImageLayout::TRANSFER_SRC_OPTIMAL);
                self.begin(commands, to);
                commands.copy_image(from, to);
                commands.transition(to, vk::ImageLayout::TRANSFER_DST_OPTIMAL, rest);
                commands.transition(from, vk::ImageLayout::TRANSFER_SRC_OPTIMAL, rest);
            }
            (Form::Image(from, _), Form::Linear(parts)) => {
                commands.transition(from, rest, vk::ImageLayout::TRANSFER_SRC_OPTIMAL);
                let (rows, buffer) = self.rows(parts);
                commands.copy_image_out(from, buffer, &rows);
                self.scatter(commands, parts);
                commands.transition(from, vk::ImageLayout::TRANSFER_SRC_OPTIMAL, rest);
            }
            (Form::Linear(parts), Form::Image(to, _)) => {
                self.gather(commands, parts);
                self.fill(commands, parts, to);
            }
            (Form::Zero, Form::Image(to, _)) => {
                if let Some(staging) = &self.staging {
                    commands.clear(&staging.buffer, 0, staging.buffer.bytes());
                    commands.barrier();
                    self.fill(commands, &[], to);
                }
            }
            // `Images::step` makes no others.
            _ => {}
        }
    }

    fn begin(&self, commands: &Commands, to: &Image) {
        commands.transition(
            to,
            vk::ImageLayout::UNDEFINED,
            vk::ImageLayout::TRANSFER_DST_OPTIMAL,
        );
    }

    fn fill(&self, commands: &Commands, parts: &[Part], to: &Image) {
        self.begin(commands, to);
        let (rows, buffer) = self.rows(parts);
        commands.copy_image_in(buffer, to, &rows);
        let rest = self.images.rest;
        commands.transition(to, vk::ImageLayout::TRANSFER_DST_OPTIMAL, rest);
    }

    /// The buffer that has the rows in one piece, and where they lie in it.
    fn rows<'a>(&'a self, parts: &'a [Part]) -> (Vec<vk::BufferImageCopy>, &'a Buffer) {
        let (first, buffer) = match (&self.staging, parts) {
            (None, [part]) => (part.offset, part.held.buffer()),
            (Some(staging), _) => (0, &staging.buffer),
            _ => unreachable!("rows in several pieces are staged"),
        };
        let mut rows = self.images.rows.clone();
        rows.iter_mut().for_each(|row| row.buffer_offset += first);
        (rows, buffer)
    }

    fn scatter(&self, commands: &Commands, parts: &[Part]) {
        let Some(staging) = &self.staging else {
            return;
        };
        commands.barrier();
        let mut at = 0;
        for part in parts {
            let region = vk::BufferCopy {
                src_offset: at,
                dst_offset: part.offset,
                size: part.bytes,
            };
            commands.copy(&staging.buffer, part.held.buffer(), &[region]);
            at += part.bytes;
        }
    }

    fn gather(&self, commands: &Commands, parts: &[Part]) {
        let Some(staging) = &self.staging else {
            return;
        };
        let mut at = 0;
        for part in parts {
            let region = vk::BufferCopy {
                src_offset: part.offset,
                dst_offset: at,
                size: part.bytes,
            };
            commands.copy(part.held.buffer(), &staging.buffer, &[region]);
            at += part.bytes;
        }
        commands.barrier();
    }
}

/// The texels that a format packs together.
struct Block {
    width: u32,
    height: u32,
    bytes: u64,
}

impl Block {
    /// Of the formats that move: color, one plane, one sample.
    fn of(format: vk::Format) -> Option<Self> {
        use vk::Format as F;
        let (size, bytes) = match format {
            F::R8_UNORM | F::R8_SNORM | F::R8_UINT | F::R8_SINT | F::R8_SRGB => (1, 1),
            F::R8G8_UNORM
            | F::R8G8_SNORM
            | F::R8G8_UINT
            | F::R8G8_SINT
            | F::R16_UNORM
            | F::R16_SNORM
            | F::R16_UINT
            | F::R16_SINT
            | F::R16_SFLOAT
            | F::R5G6B5_UNORM_PACK16 => (1, 2),
            F::R8G8B8A8_UNORM
            | F::R8G8B8A8_SNORM
            | F::R8G8B8A8_UINT
            | F::R8G8B8A8_SINT
            | F::R8G8B8A8_SRGB
            | F::B8G8R8A8_UNORM
            | F::B8G8R8A8_SRGB
            | F::A2B10G10R10_UNORM_PACK32
            | F::A2R10G10B10_UNORM_PACK32
            | F::B10G11R11_UFLOAT_PACK32
            | F::E5B9G9R9_UFLOAT_PACK32
            | F::R16G16_UNORM
            | F::R16G16_SNORM
            | F::R16G16_UINT
            | F::R16G16_SINT
            | F::R16G16_SFLOAT
            | F::R32_UINT
            | F::R32_SINT
            | F::R32_SFLOAT => (1, 4),
            F::R16G16B16A16_UNORM
            | F::R16G16B16A16_SNORM
            | F::R16G16B16A16_UINT
            | F::R16G16B16A16_SINT
            | F::R16G16B16A16_SFLOAT
            | F::R32G32_UINT
            | F::R32G32_SINT
            | F::R32G32_SFLOAT => (1, 8),
            F::R32G32B32A32_UINT | F::R32G32B32A32_SINT | F::R32G32B32A32_SFLOAT => (1, 16),
            F::BC1_RGB_UNORM_BLOCK
            | F::BC1_RGB_SRGB_BLOCK
            | F::BC1_RGBA_UNORM_BLOCK
            | F::BC1_RGBA_SRGB_BLOCK
            | F::BC4_UNORM_BLOCK
            | F::BC4_SNORM_BLOCK => (4, 8),
            F::BC2_UNORM_BLOCK
            | F::BC2_SRGB_BLOCK
            | F::BC3_UNORM_BLOCK
            | F::BC3_SRGB_BLOCK
            | F::BC5_UNORM_BLOCK
            | F::BC5_SNORM_BLOCK
            | F::BC6H_UFLOAT_BLOCK
            | F::BC6H_SFLOAT_BLOCK
            | F::BC7_UNORM_BLOCK
            | F::BC7_SRGB_BLOCK => (4, 16),
            _ => return None,
        };
        Some(Self {
            width: size,
            height: size,
            bytes,
        })
    }

    /// Where the levels of an image lie in plain rows, and how many bytes that are.
    fn rows(&self, want: &ImageWant) -> (Vec<vk::BufferImageCopy>, u64) {
        let mut at = 0;
        let mut rows = Vec::new();
        for level in 0..want.levels {
            let extent = want.extent_of(level);
            rows.push(
                vk::BufferImageCopy::default()
                    .buffer_offset(at)
                    .image_subresource(want.layers_of(level))
                    .image_extent(extent),
            );
            let across = u64::from(extent.width.div_ceil(self.width));
            let down = u64::from(extent.height.div_ceil(self.height));
            let texels = across * down * u64::from(extent.depth) * u64::from(want.layers);
            // Offsets are multiples of a block, and of four.
            at = (at + texels * self.bytes).next_multiple_of(self.bytes.max(4));
        }
        (rows, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(format: vk::Format, width: u32, height: u32, levels: u32, layers: u32) -> ImageWant {
        ImageWant {
            kind: vk::ImageType::TYPE_2D,
            format,
            extent: vk::Extent3D {
                width,
                height,
                depth: 1,
            },
            levels,
            layers,
            usage: vk::ImageUsageFlags::empty(),
            flags: vk::ImageCreateFlags::empty(),
            families: Vec::new(),
            external: vk::ExternalMemoryHandleTypeFlags::empty(),
        }
    }

    #[test]
    fn levels_lie_one_after_the_other() {
        let block = Block::of(vk::Format::R8_UNORM).unwrap();
        let (rows, bytes) = block.rows(&want(vk::Format::R8_UNORM, 5, 3, 3, 2));
        let offsets: Vec<u64> = rows.iter().map(|row| row.buffer_offset).collect();
        // 5x3x2 = 30, then 2x1x2 = 4, then 1x1x2 = 2, each to a multiple of four.
        assert_eq!((offsets, bytes), (vec![0, 32, 36], 40));
        let block = Block::of(vk::Format::BC7_SRGB_BLOCK).unwrap();
        let (_, bytes) = block.rows(&want(vk::Format::BC7_SRGB_BLOCK, 9, 4, 1, 1));
        assert_eq!(bytes, 3 * 16);
    }

    #[test]
    fn formats_whose_rows_are_not_known_do_not_move() {
        for format in [
            vk::Format::D32_SFLOAT,
            vk::Format::G8_B8_R8_3PLANE_420_UNORM,
            vk::Format::UNDEFINED,
        ] {
            assert!(Block::of(format).is_none(), "{format:?}");
        }
    }
}
