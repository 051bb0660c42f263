//! Writes a device's events down: the Perfetto trace and the samples of the plot.
//!
//! An [`Observer`] is the device's sink. It streams, so that a run may be longer than memory: the
//! trace goes to its file at once, and of the samples only so many are kept as a picture shows.
//!
//! ```text
//! process    rows
//! memory     a curve of the bytes resident in each memory type
//! moves      a row for each pair of places; an event for each move
//! engines    a row for each copy engine; a span for each copy, from its submission to its fence
//! clients    a row for each client; a span for each wait
//! windows    a row for each thread that serves them; a span for each access that waited
//! ```

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;
use placement::MemType;
use serde_json::json;
use ttm::clock::{Clock, Time};
use ttm::driver::{CopyEngine, CopyJob};
use ttm::fence::{Fence, Status};
use ttm::sync::{Arc, Mutex};
use ttm::trace::{Event, Record, Sink};

use super::Outputs;
use super::perfetto::{Category, Lane, Mark, Span, TraceWriter};
use super::plot::Residency;

const MEMORY: u32 = 1;
const MOVES: u32 = 2;
const ENGINES: u32 = 3;
const CLIENTS: u32 = 4;
const WINDOWS: u32 = 5;

/// The row of what the main thread waits for.
const MAIN: u32 = 0;

/// What a swapped object counts under, behind the memory types.
const SWAP: usize = MemType::COUNT;

/// At most so often a point is added to the curves of the trace.
const CURVE_NS: u64 = 100_000;

/// Every second sample is forgotten when there are so many.
const MAX_SAMPLES: usize = 1 << 14;

const GIB: f64 = (1u64 << 30) as f64;

thread_local! {
    static CLIENT: Cell<u32> = const { Cell::new(MAIN) };
    /// The row of a thread that serves accesses, 0 if it has none yet.
    static SERVER: Cell<u32> = const { Cell::new(0) };
}

/// Receives every event of one run.
pub struct Observer {
    inner: Mutex<Inner>,
    duration: Option<Box<dyn Fn(u64) -> u64 + Send + Sync>>,
}

#[derive(Default)]
struct Inner {
    trace: Option<TraceWriter>,
    /// The first write that failed; nothing is written after it.
    error: Option<anyhow::Error>,
    /// Rows that have their names.
    named: BTreeSet<(u32, u32)>,
    /// Threads that have served accesses.
    servers: u32,
    /// For each object, by number.
    objects: Vec<Whereabouts>,
    /// Bytes in each memory type, and in the backup.
    resident: [u64; SWAP + 1],
    curve_at: Option<u64>,
    samples: Samples,
}

/// Where the bytes of one object are.
#[derive(Clone, Copy, Default)]
struct Whereabouts {
    mem_type: Option<MemType>,
    bytes: u64,
    swapped: u64,
}

/// Evenly thinned samples of all curves.
#[derive(Default)]
struct Samples {
    kept: Vec<(u64, [u64; SWAP + 1])>,
    every: usize,
    skipped: usize,
}

impl Observer {
    /// An observer for the outputs that are asked for.
    ///
    /// # Errors
    /// The trace file can't be written.
    pub fn create(outputs: &Outputs) -> Result<Self> {
        let mut inner = Inner::default();
        if let Some(path) = &outputs.trace {
            let mut trace = TraceWriter::create(path)?;
            for (process, name) in [
                (MEMORY, "memory"),
                (MOVES, "moves"),
                (ENGINES, "engines"),
                (CLIENTS, "clients"),
                (WINDOWS, "windows"),
            ] {
                trace.process(process, name)?;
            }
            inner.trace = Some(trace);
        }
        Ok(Self {
            inner: Mutex::new(inner),
            duration: None,
        })
    }

    /// Draws moves as spans: `duration` says how many nanoseconds the move of so many bytes takes.
    pub fn with_duration(mut self, duration: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        self.duration = Some(Box::new(duration));
        self
    }

    /// The calling thread is the client of that number, from 1, from now on.
    pub fn this_is_client(number: u32) {
        CLIENT.set(number);
    }

    /// The calling thread's client, 0 if it is none.
    pub fn client() -> u32 {
        CLIENT.get()
    }

    /// Completes the files.
    ///
    /// # Errors
    /// One can't be written, and is as it was.
    pub fn finish(&self, title: &str, outputs: &Outputs) -> Result<()> {
        let inner = std::mem::take(&mut *self.inner.lock());
        if let Some(error) = inner.error {
            return Err(error);
        }
        if let Some(trace) = inner.trace {
            trace.finish()?;
        }
        match &outputs.plot {
            Some(path) => inner.samples.residency(title).write(path),
            None => Ok(()),
        }
    }

    fn copied(&self, engine: u32, job: &Copy, now: Time, status: Status) {
        let mut inner = self.inner.lock();
        let lane = Lane {
            pid: ENGINES,
            tid: engine,
        };
        inner.name(lane, || format!("engine {engine}"));
        let name = format!("copy object {}", job.object);
        let span = Span {
            name: &name,
            category: Category::Fence,
            start_ns: job.since.nanos(),
            duration_ns: now.nanos().saturating_sub(job.since.nanos()),
        };
        let args = json!({
            "bytes": job.bytes,
            "timeline": job.fence.0,
            "point": job.fence.1,
            "status": format!("{status:?}"),
        });
        inner.write(|trace| trace.complete(lane, span, &args));
    }
}

impl Sink for Observer {
    fn record(&self, record: &Record) {
        let mut inner = self.inner.lock();
        let at = record.at.nanos();
        match record.event {
            Event::Moved {
                object, to, bytes, ..
            } => {
                let duration = self.duration.as_ref().map(|duration| duration(bytes));
                inner.moved(record, duration);
                inner.place(object, Some(to), bytes);
            }
            Event::Discarded { object, .. } | Event::Released { object } => {
                inner.place(object, None, 0);
            }
            Event::SwappedOut { object, bytes, .. } => inner.swap(object, i128::from(bytes)),
            Event::SwappedIn { object, bytes, .. } => inner.swap(object, -i128::from(bytes)),
            Event::Waited { what, since, .. } => return inner.waited(at, what, since),
            Event::Faulted { since, .. } => return inner.faulted(at, &record.event, since),
            Event::Created { .. } | Event::PassedOver { .. } => return,
            event => return inner.other(at, &event),
        }
        inner.sample(at);
    }
}

impl Inner {
    fn write(&mut self, put: impl FnOnce(&mut TraceWriter) -> Result<()>) {
        let Some(trace) = &mut self.trace else {
            return;
        };
        if let Err(error) = put(trace) {
            self.error.get_or_insert(error);
            self.trace = None;
        }
    }

    fn name(&mut self, lane: Lane, name: impl FnOnce() -> String) {
        if self.trace.is_some() && self.named.insert((lane.pid, lane.tid)) {
            self.write(|trace| trace.thread(lane, &name()));
        }
    }

    fn moved(&mut self, record: &Record, duration: Option<u64>) {
        let Event::Moved {
            object,
            from,
            to,
            bytes,
            how,
            why,
            fence,
            ..
        } = record.event
        else {
            return;
        };
        if self.trace.is_none() {
            return;
        }
        let tid = (from.map_or(0, |from| from.index() + 1) * 16 + to.index()) as u32;
        let lane = Lane { pid: MOVES, tid };
        self.name(lane, || match from {
            Some(from) => format!("{from} to {to}"),
            None => format!("new in {to}"),
        });
        let name = format!("object {object}");
        let args = json!({
            "bytes": bytes,
            "how": format!("{how:?}"),
            "why": format!("{why:?}"),
            "fence": fence.map(|(timeline, point)| format!("{timeline}:{point}")),
        });
        let start_ns = record.at.nanos();
        self.write(|trace| match duration {
            Some(duration_ns) => {
                let span = Span {
                    name: &name,
                    category: Category::Move,
                    start_ns,
                    duration_ns,
                };
                trace.complete(lane, span, &args)
            }
            None => {
                let mark = Mark {
                    name: &name,
                    category: Category::Move,
                    at_ns: start_ns,
                };
                trace.instant(lane, mark, &args)
            }
        });
    }

    fn waited(&mut self, at: u64, what: &str, since: Time) {
        let client = CLIENT.get();
        let lane = Lane {
            pid: CLIENTS,
            tid: client,
        };
        self.name(lane, || match client {
            MAIN => "main".into(),
            n => format!("client {n}"),
        });
        self.wait(lane, what, since, at);
    }

    fn wait(&mut self, lane: Lane, name: &str, since: Time, at: u64) {
        let span = Span {
            name,
            category: Category::Wait,
            start_ns: since.nanos(),
            duration_ns: at.saturating_sub(since.nanos()),
        };
        self.write(|trace| trace.complete(lane, span, &super::perfetto::NoArgs {}));
    }

    /// From the moment that the access was heard of until its page was there.
    fn faulted(&mut self, at: u64, event: &Event, since: Time) {
        if SERVER.get() == 0 {
            self.servers += 1;
            SERVER.set(self.servers);
        }
        let lane = Lane {
            pid: WINDOWS,
            tid: SERVER.get(),
        };
        self.name(lane, || format!("server {}", lane.tid));
        self.wait(lane, &event.to_string(), since, at);
    }

    fn other(&mut self, at_ns: u64, event: &Event) {
        let lane = Lane {
            pid: CLIENTS,
            tid: CLIENT.get(),
        };
        let name = event.to_string();
        let mark = Mark {
            name: &name,
            category: Category::Other,
            at_ns,
        };
        self.write(|trace| trace.instant(lane, mark, &super::perfetto::NoArgs {}));
    }

    fn object(&mut self, object: u64) -> &mut Whereabouts {
        let index = object as usize;
        if index >= self.objects.len() {
            self.objects.resize(index + 1, Whereabouts::default());
        }
        &mut self.objects[index]
    }

    /// The object is there now, with all its bytes in memory; or nowhere.
    fn place(&mut self, object: u64, mem_type: Option<MemType>, bytes: u64) {
        let now = Whereabouts {
            mem_type,
            bytes,
            swapped: 0,
        };
        let before = std::mem::replace(self.object(object), now);
        self.count(before, false);
        self.count(now, true);
    }

    /// So many of the object's bytes went to the backup, or came from it.
    fn swap(&mut self, object: u64, bytes: i128) {
        let before = *self.object(object);
        let swapped = (i128::from(before.swapped) + bytes).clamp(0, i128::from(before.bytes));
        let now = Whereabouts {
            swapped: swapped as u64,
            ..before
        };
        *self.object(object) = now;
        self.count(before, false);
        self.count(now, true);
    }

    fn count(&mut self, place: Whereabouts, more: bool) {
        let Some(mem_type) = place.mem_type else {
            return;
        };
        let here = place.bytes - place.swapped;
        for (index, bytes) in [(mem_type.index(), here), (SWAP, place.swapped)] {
            let resident = &mut self.resident[index];
            *resident = if more {
                *resident + bytes
            } else {
                *resident - bytes
            };
        }
    }

    fn sample(&mut self, at: u64) {
        self.samples.push(at, self.resident);
        let due = self.curve_at.is_none_or(|last| at >= last + CURVE_NS);
        if due && self.trace.is_some() {
            self.curve_at = Some(at);
            let values = curves().map(|(index, name)| (name, self.resident[index]));
            self.write(|trace| trace.counter(MEMORY, "resident", at, &values));
        }
    }
}

/// The memory types that the programs use, from the bottom of the picture up.
fn curves() -> [(usize, &'static str); 4] {
    [
        (MemType::VRAM.index(), "vram"),
        (MemType::TT.index(), "tt"),
        (MemType::SYSTEM.index(), "system"),
        (SWAP, "swapped out"),
    ]
}

impl Samples {
    fn push(&mut self, at: u64, resident: [u64; SWAP + 1]) {
        if self.kept.len() == MAX_SAMPLES {
            let mut odd = false;
            self.kept.retain(|_| {
                odd = !odd;
                odd
            });
            self.every = self.every.max(1) * 2;
        }
        // The last is always there, so that the end of the run is drawn.
        if self.skipped > 0 {
            self.kept.pop();
        }
        self.kept.push((at, resident));
        self.skipped = (self.skipped + 1) % self.every.max(1);
    }

    fn residency(mut self, title: &str) -> Residency {
        // Threads may hand their events over a little out of order.
        self.kept.sort_by_key(|(at, _)| *at);
        let used = |index: usize| self.kept.iter().any(|(_, resident)| resident[index] > 0);
        let drawn: Vec<_> = curves().into_iter().filter(|(n, _)| used(*n)).collect();
        let sample = |(at, resident): &(u64, [u64; SWAP + 1])| {
            let bytes = drawn.iter().map(|(n, _)| resident[*n] as f64 / GIB);
            (*at as f64 / 1e9, bytes.collect())
        };
        Residency {
            title: title.to_owned(),
            samples: self.kept.iter().map(sample).collect(),
            names: drawn.iter().map(|(_, name)| (*name).to_owned()).collect(),
        }
    }
}

/// What is remembered of a copy until its fence.
struct Copy {
    object: u64,
    bytes: u64,
    since: Time,
    fence: (u64, u64),
}

/// A copy engine whose copies are written down.
pub struct Observed {
    /// The engine.
    pub engine: Arc<dyn CopyEngine>,
    /// Its number.
    pub number: u32,
    /// The clock of the run.
    pub clock: Arc<dyn Clock>,
    /// Who writes them down.
    pub observer: Arc<Observer>,
}

impl CopyEngine for Observed {
    fn submit(&self, job: CopyJob) -> ttm::Result<Fence> {
        let (object, bytes, since) = (job.object, job.pages.bytes(), self.clock.now());
        let fence = self.engine.submit(job)?;
        let copy = Copy {
            object,
            bytes,
            since,
            fence: (fence.timeline(), fence.seqno()),
        };
        let (observer, clock) = (Arc::clone(&self.observer), Arc::clone(&self.clock));
        let number = self.number;
        fence.on_signal(move |status| observer.copied(number, &copy, clock.now(), status));
        Ok(fence)
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_an_object_through_memory_swap_and_out() {
        let mut inner = Inner::default();
        let system = MemType::SYSTEM.index();
        inner.place(3, Some(MemType::VRAM), 8192);
        inner.place(3, Some(MemType::SYSTEM), 8192);
        assert_eq!(inner.resident[MemType::VRAM.index()], 0);
        inner.swap(3, 4096);
        assert_eq!((inner.resident[system], inner.resident[SWAP]), (4096, 4096));
        inner.swap(3, -4096);
        assert_eq!((inner.resident[system], inner.resident[SWAP]), (8192, 0));
        inner.swap(3, 8192);
        inner.place(3, None, 0);
        assert_eq!(inner.resident, [0; SWAP + 1]);
    }

    #[test]
    fn samples_are_thinned_evenly_and_keep_the_last() {
        let mut samples = Samples::default();
        for at in 0..1_000_000 {
            samples.push(at, [at; SWAP + 1]);
        }
        assert!(samples.kept.len() <= MAX_SAMPLES);
        assert_eq!(samples.kept.last().unwrap().0, 999_999);
        let gaps = samples.kept.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.max().unwrap() <= 2 * samples.every as u64);
        let residency = samples.residency("a title");
        assert_eq!(residency.names, ["vram", "tt", "system", "swapped out"]);
    }
}
