//! The manager itself under a trace: the policy `lru`.
//!
//! The device is a fake card without contents. Its moves copy nothing; instead, each lets the
//! device's clock go on by the time that the copy would take on the [`Link`]. All objects are made
//! before the clock of the machine is read; they are nowhere until their first touch.

use std::time::Instant;

use anyhow::Context;
use backends::sim::{EngineConfig, Gpu, GpuConfig, SimClock, VirtualClock};
use placement::{MemType, PAGE_SIZE, PageCount, Place, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::clock::{Blocking, Clock, Time};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::{BoFacts, Driver, Eviction, MoveFacts, Route};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};

use super::Row;
use super::exact::Counts;
use super::trace::{Request, Trace};
use crate::args::{Order, Policy};
use crate::exit::Failure;
use cli::report::observer::Observer;
use cli::size::ByteSize;

/// What copies would go over: the default engine of the fake card, one copy after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    latency_ns: u64,
    ns_per_page: u64,
}

impl Default for Link {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            latency_ns: engine.latency_ns,
            ns_per_page: engine.duration_ns(PAGE_SIZE) - engine.latency_ns,
        }
    }
}

impl Link {
    /// How long one copy takes.
    pub(crate) fn copy_ns(&self, bytes: u64) -> u64 {
        self.latency_ns + bytes.div_ceil(PAGE_SIZE) * self.ns_per_page
    }

    /// How long all copies of a replay take.
    pub(crate) fn seconds(&self, counts: &Counts) -> f64 {
        let copies = counts.misses + counts.evictions;
        let pages = (counts.bytes_in + counts.bytes_out) / PAGE_SIZE;
        (copies as f64 * self.latency_ns as f64 + pages as f64 * self.ns_per_page as f64) / 1e9
    }
}

/// Replays a trace whose every group fits.
///
/// # Errors
/// Refused: the card cannot be that large. Wrong: the manager refused what fits, or broke an
/// invariant.
pub(super) fn run(
    trace: &Trace,
    room: ByteSize,
    order: Order,
    observer: Option<Arc<Observer>>,
) -> Result<Row, Failure> {
    let time = Arc::new(AtomicU64::new(0));
    let device = device(room, &time, observer)?;
    let replay = Replay {
        device: &device,
        trace,
        objects: make(&device, trace)?,
        vram: Placement::of(Place::new(MemType::VRAM)),
    };
    let start = Instant::now();
    match order {
        Order::Touch => replay.touches()?,
        Order::Request => replay.requests()?,
    }
    let wall_seconds = start.elapsed().as_secs_f64();
    let counters = device
        .manager(MemType::VRAM)
        .expect("the device was built with it")
        .counters();
    let row = Row {
        policy: Policy::Lru,
        counts: Counts {
            touches: trace.touches().len() as u64,
            misses: counters.arrivals,
            evictions: counters.evictions,
            bytes_in: counters.bytes_in,
            bytes_out: counters.evicted_bytes,
        },
        virtual_seconds: time.load(Ordering::Relaxed) as f64 / 1e9,
        wall_seconds,
    };
    device
        .check()
        .map_err(|violation| Failure::Wrong(violation.to_string()))?;
    drop(replay);
    device
        .close(None)
        .map_err(|holders| Failure::Wrong(format!("the device cannot be closed: {holders:?}")))?;
    Ok(row)
}

fn device(
    room: ByteSize,
    time: &Arc<AtomicU64>,
    observer: Option<Arc<Observer>>,
) -> anyhow::Result<Device<Replayed>> {
    let vram = PageCount::new(room.bytes() / PAGE_SIZE).context("a card of that size")?;
    let config = GpuConfig {
        contents: false,
        ..GpuConfig::new(vram)
    };
    let gpu = Gpu::new(config, SimClock::Virtual(VirtualClock::new()))?;
    let source = Arc::clone(time);
    // Relaxed: one thread replays.
    let clock = Blocking::new(move || Time::from_nanos(source.load(Ordering::Relaxed)));
    let driver = Replayed {
        time: Arc::clone(time),
        link: Link::default(),
        system: Placement::of(Place::new(MemType::SYSTEM)),
    };
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let builder = Device::builder(driver, clock).pages(gpu.pages()).memory(
        MemType::VRAM,
        Box::new(Range::new(vram)),
        gpu.region(),
    );
    let builder = match observer {
        Some(observer) => builder.sink(observer),
        None => builder,
    };
    Ok(builder.build()?)
}

/// A driver whose moves cost time and nothing else.
struct Replayed {
    time: Arc<AtomicU64>,
    link: Link,
    system: Placement,
}

impl Driver for Replayed {
    type Object = ();

    fn evict_to(&self, _: &BoFacts, (): &()) -> Eviction {
        Eviction::To(self.system.clone())
    }

    fn route(&self, _: &BoFacts, (): &(), _: &MoveFacts) -> Route {
        Route::Null
    }

    fn moved(&self, bo: &BoFacts, (): &(), _: &MoveFacts) {
        let ns = self.link.copy_ns(bo.pages.bytes());
        // Relaxed: one thread replays.
        self.time.fetch_add(ns, Ordering::Relaxed);
    }
}

/// A replay under way.
struct Replay<'a> {
    device: &'a Device<Replayed>,
    trace: &'a Trace,
    /// In the order of the trace's.
    objects: Vec<Bo<Replayed>>,
    vram: Placement,
}

impl Replay<'_> {
    /// Validates each touched object on its own.
    fn touches(&self) -> Result<(), Failure> {
        for request in self.trace.requests() {
            for &object in request.ids {
                self.touch(object)
                    .map_err(|error| self.wrong(request, object, &error))?;
            }
        }
        Ok(())
    }

    fn touch(&self, object: u32) -> ttm::Result<()> {
        let (bo, vram) = (&self.objects[object as usize], &self.vram);
        self.device
            .exec(OpContext::new(), |t| t.lock(bo)?.validate(vram))?;
        Ok(())
    }

    /// Locks all objects of a request, then validates them, so that none makes room for another.
    fn requests(&self) -> Result<(), Failure> {
        let mut seen = vec![0; self.trace.objects().len()];
        let mut distinct = Vec::new();
        for (n, request) in (1..).zip(self.trace.requests()) {
            distinct.clear();
            // Locking is what makes recent, and the last touch of an object is what counts.
            for &object in request.ids.iter().rev() {
                if std::mem::replace(&mut seen[object as usize], n) != n {
                    distinct.push(object);
                }
            }
            distinct.reverse();
            self.together(&distinct)
                .map_err(|error| self.wrong(request, distinct[0], &error))?;
        }
        Ok(())
    }

    fn together(&self, objects: &[u32]) -> ttm::Result<()> {
        let vram = &self.vram;
        self.device.exec(OpContext::new(), |t| {
            let mut locked = Vec::with_capacity(objects.len());
            for object in objects {
                locked.push(t.lock(&self.objects[*object as usize])?);
            }
            locked.iter().try_for_each(|bo| bo.validate(vram))
        })?;
        Ok(())
    }

    fn wrong(&self, request: Request<'_>, object: u32, error: &ttm::Error) -> Failure {
        let name = self.trace.name(object);
        Failure::Wrong(format!(
            "line {}, at object {name}: the manager refused what fits: {error}",
            request.line
        ))
    }
}

/// All objects of a trace, in its order.
fn make(device: &Device<Replayed>, trace: &Trace) -> anyhow::Result<Vec<Bo<Replayed>>> {
    let sizes = trace.objects().iter().map(|object| object.size.bytes());
    let made = sizes.map(|bytes| device.create(BoInfo::new(bytes), ()));
    Ok(made.collect::<ttm::Result<_>>()?)
}

#[cfg(test)]
mod tests;
