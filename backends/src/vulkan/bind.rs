//! Objects made ready for work: sparse buffers are bound to where their objects are, others are made
//! anew there, and what the work has to wait for is collected.
//!
//! ```text
//!   where is it now? ── as before ──────────────────────────────▶ the same handle
//!                    ├─ sparse: a queue binds it, behind what used it ─▶ the same handle
//!                    └─ else: a new buffer, the old one behind what uses it ─▶ a new generation
//! ```

use ash::vk;
use smallvec::SmallVec;
use ttm::bo::{Bo, Locked, Reserved};
use ttm::driver::{Driver, Side};
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Usage};
use ttm::residency::Rest;
use ttm::sync::{Arc, Mutex};

use super::core::Core;
use super::images::Images;
use super::line::Line;
use super::objects::{Bound, BufferShape, Shape, VulkanObject};
use super::raw::{Buffer, BufferBind, Raw, Semaphore, SharedQueue, SparseSubmission};
use super::step::{Held, Part, Parts};
use super::watch::{Standing, Watched};

/// Where an object is: which allocation ever made, from which byte on, how many.
pub(super) type Place = SmallVec<[(u64, u64, u64); 2]>;

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

/// Binds that one call collects: who is bound, to what.
struct Fresh {
    object: usize,
    place: Place,
    rest: Option<Rest>,
    parts: Parts,
}

/// Where a buffer is found.
enum Found {
    /// Where its object is, behind something.
    Bound(Bound, Option<Fence>),
    /// A sparse one that is to be bound there.
    Elsewhere(Place, Parts),
}

impl Core {
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
                Shape::Foreign(buffer) => Bound::Buffer {
                    handle: buffer.handle(),
                    address: buffer.address(),
                    generation: 0,
                },
                Shape::Buffer(shape) => match self.find_bound(shape, &reserved)? {
                    Found::Bound(bound, ready) => {
                        if let Some(ready) = ready {
                            self.wait_for(&mut waits, &ready)?;
                        }
                        bound
                    }
                    Found::Elsewhere(place, parts) => {
                        self.check_sparse(shape, &parts)?;
                        fresh.push(Fresh {
                            object: n,
                            place,
                            rest: reserved.rest(),
                            parts,
                        });
                        shape.look()
                    }
                },
            };
            objects.push(bound);
        }
        let rebound = fresh.len() as u64;
        if !fresh.is_empty() {
            self.rebind(locked, bos, &fresh, &mut waits)?;
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

    /// Looks whether a buffer is where its object is. One that does not stay is made there if it is not.
    fn find_bound<D: Driver>(
        &self,
        shape: &BufferShape,
        reserved: &Reserved<'_, D>,
    ) -> Result<Found> {
        if let Some((bound, ready)) = shape.bound_where(reserved.rest()) {
            return Ok(Found::Bound(bound, ready));
        }
        let side = reserved.side()?;
        let parts = self.sides.parts(&side, shape.want.bytes)?;
        let place = place_of(&parts);
        if let Some((bound, ready)) = shape.bound_to(&place, reserved.rest()) {
            return Ok(Found::Bound(bound, ready));
        }
        if shape.sparse.is_some() {
            return Ok(Found::Elsewhere(place, parts));
        }
        self.make_here(shape, &side, parts, place, reserved)?;
        Ok(Found::Bound(shape.look(), None))
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
        parts: Parts,
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
        bound.rest = reserved.rest();
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
                    let mut bound = shape_of(one).bound.lock();
                    (bound.place, bound.rest) = (None, None);
                }
                return Err(error);
            }
        };
        let mut kept: Vec<(Held, Arc<Buffer>)> = Vec::new();
        for one in fresh {
            let shape = shape_of(one);
            let mut bound = shape.bound.lock();
            bound.place = Some(one.place.clone());
            bound.rest = one.rest;
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
    queue: Arc<SharedQueue>,
    line: Arc<Line>,
    /// The last value that was submitted, and its fence; held while one is.
    last: Mutex<(u64, Option<Fence>)>,
}

impl Binder {
    pub(super) fn new(queue: &Arc<SharedQueue>, line: Arc<Line>) -> Self {
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
        raw: &Raw,
        make: impl FnOnce((&'a Semaphore, u64)) -> SparseSubmission<'a>,
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
