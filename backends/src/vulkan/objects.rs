//! Buffers and images over objects of the manager, wherever these are.
//!
//! A sparse buffer keeps its handle and its address for as long as its object lives: before work uses
//! it, a queue binds the memory in which the object is now. Without, a new buffer is made at each new
//! place, with a new generation, which is how its user notices.

use ash::vk;
use placement::{PAGE_SIZE, PageCount};
use ttm::bo::BoInfo;
use ttm::error::{Error, Result};
use ttm::fence::Fence;
use ttm::residency::Rest;
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::sync::{Arc, Mutex};

use super::bind::Place;
use super::core::Core;
use super::foreign::ForeignBuffer;
use super::images::Images;
use super::known::Fit;
use super::raw::{Buffer, BufferWant, ImageWant};

/// What buffer an object is to be.
///
/// ```
/// use ash::vk;
/// use backends::vulkan::BufferInfo;
///
/// let vertices = BufferInfo::new(1 << 20).usage(vk::BufferUsageFlags::VERTEX_BUFFER);
/// # let _ = vertices;
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BufferInfo {
    pub(super) bytes: u64,
    pub(super) usage: vk::BufferUsageFlags,
    pub(super) align: u64,
    pub(super) families: Vec<u32>,
    pub(super) stable: Option<bool>,
}

impl BufferInfo {
    /// A storage buffer of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            usage: vk::BufferUsageFlags::STORAGE_BUFFER,
            align: 1,
            families: Vec::new(),
            stable: None,
        }
    }

    /// What it is used for; copies by the manager need nothing of that.
    #[must_use]
    pub fn usage(mut self, usage: vk::BufferUsageFlags) -> Self {
        self.usage = usage;
        self
    }

    /// What its place is a multiple of, in bytes: a power of two.
    #[must_use]
    pub fn align(mut self, align: u64) -> Self {
        self.align = align;
        self
    }

    /// Queue families that use it at the same time; without this, those of the device's queues.
    #[must_use]
    pub fn shared_by(mut self, families: &[u32]) -> Self {
        self.families = families.to_vec();
        self
    }

    /// Whether handle and address stay when it moves; without this, where the device can do that.
    #[must_use]
    pub fn stable(mut self, stable: bool) -> Self {
        self.stable = Some(stable);
        self
    }
}

/// What image an object is to be: of optimal tiling, one sample, a color format.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    pub(super) want: ImageWant,
    pub(super) rest: vk::ImageLayout,
}

impl ImageInfo {
    /// An image of two dimensions, one level and one layer, that is sampled.
    #[must_use]
    pub fn new(format: vk::Format, width: u32, height: u32) -> Self {
        Self {
            want: ImageWant {
                kind: vk::ImageType::TYPE_2D,
                format,
                extent: vk::Extent3D {
                    width,
                    height,
                    depth: 1,
                },
                levels: 1,
                layers: 1,
                usage: vk::ImageUsageFlags::SAMPLED,
                flags: vk::ImageCreateFlags::empty(),
                families: Vec::new(),
                external: vk::ExternalMemoryHandleTypeFlags::empty(),
            },
            rest: vk::ImageLayout::GENERAL,
        }
    }

    /// One of three dimensions, so deep.
    #[must_use]
    pub fn depth(mut self, depth: u32) -> Self {
        self.want.kind = vk::ImageType::TYPE_3D;
        self.want.extent.depth = depth;
        self
    }

    /// So many levels.
    #[must_use]
    pub fn levels(mut self, levels: u32) -> Self {
        self.want.levels = levels;
        self
    }

    /// So many layers.
    #[must_use]
    pub fn layers(mut self, layers: u32) -> Self {
        self.want.layers = layers;
        self
    }

    /// What it is used for; copies by the manager are added.
    #[must_use]
    pub fn usage(mut self, usage: vk::ImageUsageFlags) -> Self {
        self.want.usage = usage;
        self
    }

    /// Flags of its making, such as for views of other formats. Sparse ones are refused.
    #[must_use]
    pub fn flags(mut self, flags: vk::ImageCreateFlags) -> Self {
        self.want.flags = flags;
        self
    }

    /// The layout in which it is whenever no work of its user runs: he brings it there, and finds it
    /// so. GENERAL without this.
    #[must_use]
    pub fn layout(mut self, layout: vk::ImageLayout) -> Self {
        self.rest = layout;
        self
    }

    /// Queue families that use it at the same time; without this, those of the device's queues.
    #[must_use]
    pub fn shared_by(mut self, families: &[u32]) -> Self {
        self.want.families = families.to_vec();
        self
    }
}

/// What is kept for each object: its buffer or its images.
pub struct VulkanObject {
    core: Arc<Core>,
    pub(super) shape: Shape,
    /// Whether somebody else was ever handed its memory.
    went_out: AtomicBool,
}

pub(super) enum Shape {
    /// Bytes that the device copies, and nothing more.
    Memory,
    Buffer(BufferShape),
    Image(Arc<Images>),
    /// A buffer over memory of somebody else's.
    Foreign(Arc<ForeignBuffer>),
}

pub(super) struct BufferShape {
    pub(super) want: BufferWant,
    pub(super) needs: Fit,
    /// The buffer that stays.
    pub(super) sparse: Option<Arc<Buffer>>,
    pub(super) bound: Mutex<BoundState>,
}

#[derive(Default)]
pub(super) struct BoundState {
    /// Where the buffer is bound; nothing if that is not known.
    pub(super) place: Option<Place>,
    /// The same, as the manager numbers it, if the object rests there.
    pub(super) rest: Option<Rest>,
    /// Without sparse binding: the buffer there.
    pub(super) buffer: Option<Arc<Buffer>>,
    /// What was bound last is bound after this.
    pub(super) ready: Option<Fence>,
    pub(super) generation: u64,
}

/// An object and its description, for [`Device::create`](ttm::device::Device::create).
pub struct Described {
    /// The size and alignment that it needs of the manager.
    pub info: BoInfo,
    /// What the driver keeps for it.
    pub object: VulkanObject,
}

/// What an object is for work that is submitted now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// No buffer and no image.
    Memory,
    /// A buffer.
    Buffer {
        /// Its handle: the same for ever if the object is stable, else of this generation.
        handle: vk::Buffer,
        /// Where shaders find it, if it was made for that.
        address: Option<u64>,
        /// Changes with the handle.
        generation: u64,
    },
    /// An image, in its layout of rest.
    Image {
        /// Its handle, of this generation.
        handle: vk::Image,
        /// Changes with the handle.
        generation: u64,
    },
}

impl VulkanObject {
    fn of(core: &Arc<Core>, shape: Shape) -> Self {
        Self {
            core: Arc::clone(core),
            shape,
            went_out: AtomicBool::new(false),
        }
    }

    pub(super) fn memory(core: &Arc<Core>, bytes: u64) -> Described {
        Described {
            info: BoInfo::new(bytes),
            object: Self::of(core, Shape::Memory),
        }
    }

    pub(super) fn foreign(core: &Arc<Core>, buffer: ForeignBuffer) -> Described {
        Described {
            info: BoInfo::new(buffer.bytes()).foreign(),
            object: Self::of(core, Shape::Foreign(Arc::new(buffer))),
        }
    }

    pub(super) fn buffer(core: &Arc<Core>, info: &BufferInfo) -> Result<Described> {
        core.check_buffer(info)?;
        let able = core.can_be_stable();
        let stable = info.stable.unwrap_or(able);
        if stable && !able {
            return Err(Error::Unsupported(
                "this device does not keep a buffer's handle when its memory changes; leave `stable` \
                 out, and look at the generation",
            ));
        }
        let mut want = BufferWant {
            bytes: info.bytes.next_multiple_of(PAGE_SIZE),
            usage: info.usage,
            flags: vk::BufferCreateFlags::empty(),
            families: core.families_of(&info.families),
            external: vk::ExternalMemoryHandleTypeFlags::empty(),
        };
        if stable {
            want.flags |= vk::BufferCreateFlags::SPARSE_BINDING;
            // It is bound to all kinds of memory in its time.
            want.external = core.exported();
            if core.trials.sparse_import && core.imports {
                want.external |= vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
            }
        }
        let sparse = match stable {
            true => Some(Arc::new(Buffer::create(&core.raw, &want)?)),
            false => None,
        };
        let needs = match &sparse {
            Some(buffer) => core.known.learn(&want, buffer),
            None => core.known.fit_of(&core.raw, &want)?,
        };
        let align = needs.align.max(info.align).next_multiple_of(PAGE_SIZE);
        let info = BoInfo::new(info.bytes).align(pages(align));
        let info = if stable { info } else { info.contiguous() };
        Ok(Described {
            info,
            object: Self::of(
                core,
                Shape::Buffer(BufferShape {
                    want,
                    needs,
                    sparse,
                    bound: Mutex::new(BoundState::default()),
                }),
            ),
        })
    }

    pub(super) fn image(core: &Arc<Core>, info: &ImageInfo) -> Result<Described> {
        let sparse = vk::ImageCreateFlags::SPARSE_BINDING
            | vk::ImageCreateFlags::SPARSE_RESIDENCY
            | vk::ImageCreateFlags::SPARSE_ALIASED;
        if info.want.flags.intersects(sparse) {
            return Err(Error::Unsupported(
                "an image's memory is the manager's; leave the sparse flags out",
            ));
        }
        core.check_families(&info.want.families)?;
        let mut want = info.want.clone();
        want.usage |= vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST;
        want.families = core.families_of(&want.families).into_vec();
        want.external = core.exported();
        core.raw.allows_image(&want)?;
        let images = Images::new(&core.raw, want, info.rest)?;
        let needs = images.needs();
        // Buffers next to it are in other granules.
        let granule = core.raw.facts.limits.buffer_image_granularity.max(1);
        let bytes = needs.bytes.next_multiple_of(granule);
        let bytes = bytes.max(images.linear_bytes());
        let align = needs.align.max(granule).next_multiple_of(PAGE_SIZE);
        Ok(Described {
            info: BoInfo::new(bytes).align(pages(align)).opaque().contiguous(),
            object: Self::of(core, Shape::Image(images)),
        })
    }

    /// Whether the object is an image.
    pub(super) fn images(&self) -> Option<&Arc<Images>> {
        match &self.shape {
            Shape::Image(images) => Some(images),
            _ => None,
        }
    }

    /// Whether it is a buffer whose handle stays for as long as it lives.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        self.stable_buffer().is_some()
    }

    /// The buffer that stays, if it is such a one: for descriptors that are written once.
    #[must_use]
    pub fn stable_buffer(&self) -> Option<vk::Buffer> {
        match &self.shape {
            Shape::Buffer(shape) => shape.sparse.as_ref().map(|buffer| buffer.handle()),
            Shape::Foreign(buffer) => Some(buffer.handle()),
            _ => None,
        }
    }

    /// Where shaders find it for as long as it lives, if it is stable and was made for that.
    #[must_use]
    pub fn stable_address(&self) -> Option<u64> {
        match &self.shape {
            Shape::Buffer(shape) => shape.sparse.as_ref()?.address(),
            Shape::Foreign(buffer) => buffer.address(),
            _ => None,
        }
    }

    /// Whether a descriptor of its memory was ever handed out, by which others reach it.
    #[must_use]
    pub fn went_out(&self) -> bool {
        // Relaxed: written and read under the object's reservation.
        self.went_out.load(Ordering::Relaxed)
    }

    pub(super) fn goes_out(&self) {
        self.went_out.store(true, Ordering::Relaxed);
    }

    /// Its user has let go of it; `pending` may still use what it has.
    pub(super) fn released(&self, pending: &[Fence]) {
        let trash = &self.core.trash;
        match &self.shape {
            Shape::Memory => {}
            Shape::Buffer(shape) => {
                let bound = core::mem::take(&mut *shape.bound.lock());
                let mut fences = pending.to_vec();
                fences.extend(bound.ready);
                trash.put(fences, (bound.buffer, shape.sparse.clone()));
            }
            Shape::Foreign(buffer) => trash.put(pending.to_vec(), Arc::clone(buffer)),
            Shape::Image(images) => {
                self.core.sides.forget_images(images);
                for (image, mut until) in images.take_all() {
                    until.extend(pending.iter().cloned());
                    trash.put(until, image);
                }
            }
        }
    }
}

impl AsRef<Self> for VulkanObject {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl core::fmt::Debug for VulkanObject {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match &self.shape {
            Shape::Memory => "VulkanObject(memory)",
            Shape::Buffer(shape) if shape.sparse.is_some() => "VulkanObject(stable buffer)",
            Shape::Buffer(_) => "VulkanObject(buffer)",
            Shape::Image(_) => "VulkanObject(image)",
            Shape::Foreign(_) => "VulkanObject(buffer of somebody else's)",
        })
    }
}

impl core::fmt::Debug for Described {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Described({:?}, {:?})", self.info, self.object)
    }
}

/// More than any memory has, and little enough to count with.
const MOST_BYTES: u64 = 1 << 56;

fn pages(bytes: u64) -> PageCount {
    PageCount::new(bytes.div_ceil(PAGE_SIZE)).unwrap_or(PageCount::MAX)
}

impl Core {
    /// Whether such a buffer can be asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`].
    fn check_buffer(&self, info: &BufferInfo) -> Result<()> {
        if info.bytes == 0 || !info.align.is_power_of_two() {
            return Err(Error::Invalid(
                "a buffer has at least one byte, and an alignment that is a power of two",
            ));
        }
        if info.bytes > MOST_BYTES {
            return Err(Error::Invalid("no memory has so many bytes as the buffer"));
        }
        if info.usage.is_empty() {
            return Err(Error::Invalid(
                "a buffer is used for something; say for what",
            ));
        }
        let addressed = vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        if info.usage.contains(addressed) && !self.raw.facts.can.buffer_address {
            return Err(Error::Unsupported(
                "buffers of this device have no addresses, or the feature is not on",
            ));
        }
        self.check_families(&info.families)
    }

    /// Whether there are such queue families.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    fn check_families(&self, named: &[u32]) -> Result<()> {
        match named
            .iter()
            .all(|family| *family < self.raw.queue_families())
        {
            true => Ok(()),
            false => Err(Error::Invalid("the device has no such queue family")),
        }
    }
}

impl BufferShape {
    /// The buffer, and what it was bound behind, if it is bound to where its object rests.
    pub(super) fn bound_where(&self, rest: Option<Rest>) -> Option<(Bound, Option<Fence>)> {
        self.bound_if(|bound| rest.is_some() && bound.rest == rest)
    }

    /// The same if it is bound to `place`, where the object rests.
    pub(super) fn bound_to(
        &self,
        place: &Place,
        rest: Option<Rest>,
    ) -> Option<(Bound, Option<Fence>)> {
        self.bound_if(|bound| {
            let there = bound.place.as_ref() == Some(place);
            if there {
                bound.rest = rest;
            }
            there
        })
    }

    fn bound_if(
        &self,
        there: impl FnOnce(&mut BoundState) -> bool,
    ) -> Option<(Bound, Option<Fence>)> {
        let mut bound = self.bound.lock();
        if !there(&mut bound) {
            return None;
        }
        if bound.ready.as_ref().is_some_and(Fence::is_signalled) {
            bound.ready = None;
        }
        Some((self.look_at(&bound), bound.ready.clone()))
    }

    pub(super) fn look(&self) -> Bound {
        self.look_at(&self.bound.lock())
    }

    fn look_at(&self, bound: &BoundState) -> Bound {
        let buffer = self.sparse.as_ref().or(bound.buffer.as_ref());
        match buffer {
            Some(buffer) => Bound::Buffer {
                handle: buffer.handle(),
                address: buffer.address(),
                generation: bound.generation,
            },
            None => Bound::Memory,
        }
    }
}
