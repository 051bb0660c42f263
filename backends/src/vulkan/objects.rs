//! Buffers and images over objects of the manager, wherever these are.
//!
//! A sparse buffer keeps its handle and its address for as long as its object lives: before work uses
//! it, a queue binds the memory in which the object is now. Without, a new buffer is made at each new
//! place, with a new generation, which is how its user notices.

use ash::vk;
use placement::{PAGE_SIZE, PageCount};
use smallvec::SmallVec;
use ttm::bo::{Bo, BoInfo, Locked, Reserved};
use ttm::driver::{Driver, Side};
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Usage};
use ttm::sync::{Arc, Mutex};

use super::core::Core;
use super::images::Images;
use super::known::Fit;
use super::raw::{Buffer, BufferBind, BufferWant, ImageWant, SparseSubmission};
use super::step::{Held, Part};
use super::watch::{Standing, Watched};

/// What buffer an object is to be.
///
/// ```
/// use ash::vk;
/// use backends::vulkan::BufferInfo;
///
/// let vertices = BufferInfo::new(1 << 20).usage(vk::BufferUsageFlags::VERTEX_BUFFER);
/// # let _ = vertices;
/// ```
#[derive(Clone, Debug)]
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
    shape: Shape,
}

enum Shape {
    /// Bytes that the device copies, and nothing more.
    Memory,
    Buffer(BufferShape),
    Image(Arc<Images>),
}

struct BufferShape {
    want: BufferWant,
    needs: Fit,
    /// The buffer that stays.
    sparse: Option<Arc<Buffer>>,
    bound: Mutex<BoundState>,
}

#[derive(Default)]
struct BoundState {
    /// Where the buffer is bound; nothing if that is not known.
    place: Option<Place>,
    /// Without sparse binding: the buffer there.
    buffer: Option<Arc<Buffer>>,
    /// What was bound last is bound after this.
    ready: Option<Fence>,
    generation: u64,
}

/// Where an object is: which allocation ever made, from which byte on, how many.
type Place = SmallVec<[(u64, u64, u64); 2]>;

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

/// Objects that are ready for work: what they are, and what the work waits for.
#[derive(Clone, Debug)]
pub struct Binding {
    /// In the order in which the objects were named.
    pub objects: Vec<Bound>,
    /// Timeline semaphores and their values that the submission waits for.
    pub waits: Vec<(vk::Semaphore, u64)>,
    /// Buffers that were bound anew.
    pub rebound: u64,
}

impl VulkanObject {
    pub(super) fn memory(core: &Arc<Core>, bytes: u64) -> Described {
        Described {
            info: BoInfo::new(bytes),
            object: Self {
                core: Arc::clone(core),
                shape: Shape::Memory,
            },
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
            object: Self {
                core: Arc::clone(core),
                shape: Shape::Buffer(BufferShape {
                    want,
                    needs,
                    sparse,
                    bound: Mutex::new(BoundState::default()),
                }),
            },
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
            object: Self {
                core: Arc::clone(core),
                shape: Shape::Image(images),
            },
        })
    }

    /// Whether the object is an image.
    pub(super) fn images(&self) -> Option<&Arc<Images>> {
        match &self.shape {
            Shape::Image(images) => Some(images),
            _ => None,
        }
    }

    /// Whether its handle stays when it moves.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        matches!(&self.shape, Shape::Buffer(shape) if shape.sparse.is_some())
    }

    /// The buffer that stays, if it is such a one: for descriptors that are written once.
    #[must_use]
    pub fn stable_buffer(&self) -> Option<vk::Buffer> {
        match &self.shape {
            Shape::Buffer(shape) => shape.sparse.as_ref().map(|buffer| buffer.handle()),
            _ => None,
        }
    }

    /// Where shaders find it for as long as it lives, if it is stable and was made for that.
    #[must_use]
    pub fn stable_address(&self) -> Option<u64> {
        match &self.shape {
            Shape::Buffer(shape) => shape.sparse.as_ref()?.address(),
            _ => None,
        }
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

/// Binds that one call collects: who is bound, to what.
struct Fresh {
    object: usize,
    place: Place,
    parts: Vec<Part>,
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

    /// Makes objects of one transaction ready for work of class `usage`.
    pub(super) fn bind<D, R>(
        &self,
        locked: &Locked<'_, D, R>,
        bos: &[&Bo<D>],
        usage: Usage,
    ) -> Result<Binding>
    where
        D: Driver,
        D::Object: AsRef<VulkanObject>,
    {
        if self.raw.is_lost() {
            return Err(Error::DeviceLost);
        }
        self.sweep_lines();
        self.trash.reap_some(bos.len());
        let mut waits = Waits::default();
        // What copies wrote is seen by who waits for them, however long ago they ended.
        if let Some((semaphore, value)) = self.engine.seen() {
            waits.add(semaphore, value, Arc::clone(&self.engine) as _);
        }
        let mut fresh = Vec::new();
        let mut objects = Vec::with_capacity(bos.len());
        for (n, bo) in bos.iter().enumerate() {
            let reserved = locked.get(bo)?;
            let object: &VulkanObject = bo.object().as_ref();
            for fence in reserved.fences(usage) {
                self.wait_for(&mut waits, &fence)?;
            }
            let bound = match &object.shape {
                Shape::Memory => Bound::Memory,
                Shape::Image(images) => self.place_image(images, &reserved)?,
                Shape::Buffer(shape) => {
                    let side = reserved.side()?;
                    let parts = self.sides.parts(&side, shape.want.bytes)?;
                    let place = place_of(&parts);
                    let current = shape.bound.lock().place.as_ref() == Some(&place);
                    if !current && shape.sparse.is_some() {
                        self.check_sparse(shape, &parts)?;
                        fresh.push(Fresh {
                            object: n,
                            place,
                            parts,
                        });
                    } else if !current {
                        self.make_here(shape, &side, parts, place, &reserved)?;
                    }
                    shape.look()
                }
            };
            objects.push(bound);
        }
        let rebound = fresh.len() as u64;
        if !fresh.is_empty() {
            self.rebind(locked, bos, &fresh, &mut waits)?;
        }
        for bo in bos {
            if let Shape::Buffer(shape) = &AsRef::<VulkanObject>::as_ref(bo.object()).shape {
                let ready = shape.bound.lock().ready.clone();
                if let Some(ready) = ready {
                    self.wait_for(&mut waits, &ready)?;
                }
            }
        }
        Ok(Binding {
            objects,
            waits: waits.points.into_vec(),
            rebound,
        })
    }

    fn place_image<D: Driver>(
        &self,
        images: &Arc<Images>,
        reserved: &Reserved<'_, D>,
    ) -> Result<Bound> {
        let Side::Device { mem_type, ranges } = reserved.side()? else {
            return Err(Error::Unsupported(
                "an image is used in device memory only; validate it there first",
            ));
        };
        let region = self.sides.region(mem_type);
        let region = region.ok_or(Error::Invalid("a memory that is not of this device"))?;
        let (handle, generation, others) = images.settle_at(region, &ranges)?;
        if !others.is_empty() {
            self.trash.put(reserved.fences(Usage::Bookkeep), others);
        }
        Ok(Bound::Image { handle, generation })
    }

    fn check_sparse(&self, shape: &BufferShape, parts: &[Part]) -> Result<()> {
        let align = shape.needs.align;
        let last = parts.len().saturating_sub(1);
        for (n, part) in parts.iter().enumerate() {
            let imported = matches!(part.held, Held::Import(_));
            if imported && !self.trials.sparse_import {
                return Err(Error::Unsupported(
                    "this device does not bind imported pages to buffers that stay; validate them \
                     into device memory, or into GART, or make them with `stable(false)`",
                ));
            }
            let cut = part.offset.is_multiple_of(align)
                && (n == last || part.bytes.is_multiple_of(align));
            if !cut || !imported && !self.is_allowed(shape, &part.held) {
                return Err(Error::Unsupported(
                    "the buffer cannot be bound to where the object is: another memory type, or an \
                     alignment that it lacks",
                ));
            }
        }
        Ok(())
    }

    fn is_allowed(&self, shape: &BufferShape, held: &Held) -> bool {
        match held {
            Held::Chunk(chunk) => shape.needs.types & 1 << chunk.type_index != 0,
            Held::Import(_) => true,
        }
    }

    /// Makes a new buffer where the object is.
    fn make_here<D: Driver>(
        &self,
        shape: &BufferShape,
        side: &Side,
        parts: Vec<Part>,
        place: Place,
        reserved: &Reserved<'_, D>,
    ) -> Result<()> {
        let [part] = &parts[..] else {
            return Err(Error::Unsupported(
                "a buffer that does not stay lies in one run, which these system pages are not; \
                 validate it into device memory",
            ));
        };
        let mut want = shape.want.clone();
        let (memory, type_index) = (part.held.memory(), type_of(&part.held));
        want.external = match (side, &part.held) {
            (_, Held::Import(_)) => vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
            (Side::Device { mem_type, .. }, _) => self.exported_as(*mem_type),
            _ => vk::ExternalMemoryHandleTypeFlags::empty(),
        };
        let buffer = Buffer::within(&self.raw, &want, memory, type_index, part.offset)?;
        let mut bound = shape.bound.lock();
        let old = bound.buffer.replace(Arc::new(buffer));
        bound.place = Some(place);
        bound.generation += 1;
        drop(bound);
        // Others still use the old one.
        self.trash.put(reserved.fences(Usage::Bookkeep), old);
        Ok(())
    }

    /// Has the queue bind sparse buffers to where their objects are, behind what used them before.
    fn rebind<D, R>(
        &self,
        locked: &Locked<'_, D, R>,
        bos: &[&Bo<D>],
        fresh: &[Fresh],
        waits: &mut Waits,
    ) -> Result<()>
    where
        D: Driver,
        D::Object: AsRef<VulkanObject>,
    {
        let shape_of = |fresh: &Fresh| match &bos[fresh.object].object().as_ref().shape {
            Shape::Buffer(shape) => shape,
            _ => unreachable!("only buffers are bound anew"),
        };
        let mut behind = Waits::default();
        for one in fresh {
            let reserved = locked.get(bos[one.object])?;
            for fence in reserved.fences(Usage::Bookkeep) {
                self.wait_for(&mut behind, &fence)?;
            }
        }
        let mut binds = Vec::new();
        for one in fresh {
            let buffer = shape_of(one).sparse.as_ref().expect("sparse ones only");
            let mut at = 0;
            for part in &one.parts {
                binds.push(BufferBind {
                    buffer,
                    at,
                    bytes: part.bytes,
                    memory: part.held.memory(),
                    offset: part.offset,
                });
                at += part.bytes;
            }
        }
        let fence = self.binder.submit(&self.raw, |signal| SparseSubmission {
            binds: &binds,
            waits: &behind.points,
            signal,
        });
        let fence = match fence {
            Ok(fence) => fence,
            Err(error) => {
                // What they are bound to now, nobody knows.
                for one in fresh {
                    shape_of(one).bound.lock().place = None;
                }
                return Err(error);
            }
        };
        let mut kept: Vec<(Held, Arc<Buffer>)> = Vec::new();
        for one in fresh {
            let shape = shape_of(one);
            let mut bound = shape.bound.lock();
            bound.place = Some(one.place.clone());
            bound.ready = Some(fence.clone());
            let buffer = shape.sparse.as_ref().expect("sparse ones only");
            kept.extend(
                one.parts
                    .iter()
                    .map(|p| (p.held.clone(), Arc::clone(buffer))),
            );
        }
        // The queue has them until it has bound them.
        self.trash.put(vec![fence.clone()], (kept, behind.kept));
        self.wait_for(waits, &fence)
    }

    /// Has the device wait for a fence, or, if it cannot, waits here.
    fn wait_for(&self, waits: &mut Waits, fence: &Fence) -> Result<()> {
        match self.watch.standing(fence) {
            Standing::Reached => {}
            Standing::Point(semaphore, value, whose) => waits.add(semaphore, value, whose),
            Standing::Foreign => {
                fence.wait(None)?;
            }
        }
        Ok(())
    }
}

fn place_of(parts: &[Part]) -> Place {
    let place = |part: &Part| (part.held.memory().number(), part.offset, part.bytes);
    parts.iter().map(place).collect()
}

fn type_of(held: &Held) -> Option<u32> {
    match held {
        Held::Chunk(chunk) => Some(chunk.type_index),
        Held::Import(_) => None,
    }
}

impl BufferShape {
    fn look(&self) -> Bound {
        let bound = self.bound.lock();
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

/// Points of semaphores, the last of each, and whose they are.
#[derive(Default)]
struct Waits {
    points: SmallVec<[(vk::Semaphore, u64); 8]>,
    kept: Vec<Arc<dyn Watched>>,
}

impl Waits {
    fn add(&mut self, semaphore: vk::Semaphore, value: u64, whose: Arc<dyn Watched>) {
        match self.points.iter_mut().find(|point| point.0 == semaphore) {
            Some(point) => point.1 = point.1.max(value),
            None => {
                self.points.push((semaphore, value));
                self.kept.push(whose);
            }
        }
    }
}

/// The queue that binds, and the semaphore that says how far it is.
pub(super) struct Binder {
    queue: Arc<super::raw::SharedQueue>,
    line: Arc<super::line::Line>,
    /// The last value that was submitted, and its fence; held while one is.
    last: Mutex<(u64, Option<Fence>)>,
}

impl Binder {
    pub(super) fn new(queue: &Arc<super::raw::SharedQueue>, line: Arc<super::line::Line>) -> Self {
        Self {
            queue: Arc::clone(queue),
            line,
            last: Mutex::new((0, None)),
        }
    }

    /// The fence of what was bound last.
    pub(super) fn last(&self) -> Option<Fence> {
        self.last.lock().1.clone()
    }

    fn submit<'a>(
        &'a self,
        raw: &super::raw::Raw,
        make: impl FnOnce((&'a super::raw::Semaphore, u64)) -> SparseSubmission<'a>,
    ) -> Result<Fence, Error> {
        let mut last = self.last.lock();
        let value = last.0 + 1;
        self.queue
            .bind_sparse(raw, &make((self.line.semaphore(), value)))
            .map_err(Error::from)?;
        last.0 = value;
        let fence = self.line.fence_at(value);
        last.1.clone_from(&fence);
        fence.ok_or(Error::Invalid("a point of a semaphore that went back"))
    }
}
