//! A trace of a run in the Chrome trace event format, which ui.perfetto.dev and chrome://tracing
//! open.
//!
//! Events are streamed, so a trace may be larger than memory. A process is a row group (memory
//! types, engines, clients), a thread is a row in it. Times come in nanoseconds and are written as
//! the format wants them, in microseconds with a fraction.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::atomic_file::AtomicFile;

/// Writes one trace file, which appears under its name in [`TraceWriter::finish`].
#[derive(Debug)]
pub struct TraceWriter {
    out: AtomicFile,
    events: u64,
}

/// Where an event is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The row group.
    pub pid: u32,
    /// The row in it.
    pub tid: u32,
}

/// What an event is about, to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// An object changes its place.
    Move,
    /// A fence is made or signals.
    Fence,
    /// A client waits.
    Wait,
    /// Anything else.
    Other,
}

/// Something that lasts.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// What is written on it.
    pub name: &'a str,
    /// What it is about.
    pub category: Category,
    /// When it begins, in nanoseconds since the run began.
    pub start_ns: u64,
    /// How long it lasts, in nanoseconds.
    pub duration_ns: u64,
}

/// Something that happens at once.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// What is written beside it.
    pub name: &'a str,
    /// What it is about.
    pub category: Category,
    /// When it happens, in nanoseconds since the run began.
    pub at_ns: u64,
}

/// No arguments for an event.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NoArgs {}

/// One event as the format wants it; `None` is left out.
#[derive(Serialize)]
struct Event<'a, A> {
    ph: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<Category>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    /// The scope of a mark: `t`, its row.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    args: &'a A,
}

impl TraceWriter {
    /// Begins a trace to be known as `path`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn create(path: &Path) -> Result<Self> {
        let mut out = AtomicFile::create(path)?;
        out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")
            .context("cannot write the trace")?;
        Ok(Self { out, events: 0 })
    }

    /// Names a row group.
    ///
    /// # Errors
    /// Here and below: the file can't be written.
    pub fn process(&mut self, pid: u32, name: &str) -> Result<()> {
        let args = json!({ "name": name });
        self.put(&Event::new(
            "M",
            "process_name",
            Lane { pid, tid: 0 },
            &args,
        ))
    }

    /// Names a row.
    pub fn thread(&mut self, lane: Lane, name: &str) -> Result<()> {
        let args = json!({ "name": name });
        self.put(&Event::new("M", "thread_name", lane, &args))
    }

    /// Draws a span; `args` must serialise as an object.
    pub fn complete(&mut self, lane: Lane, span: Span<'_>, args: &impl Serialize) -> Result<()> {
        self.put(&Event {
            cat: Some(span.category),
            ts: Some(micros(span.start_ns)),
            dur: Some(micros(span.duration_ns)),
            ..Event::new("X", span.name, lane, args)
        })
    }

    /// Draws a mark; `args` must serialise as an object.
    pub fn instant(&mut self, lane: Lane, mark: Mark<'_>, args: &impl Serialize) -> Result<()> {
        self.put(&Event {
            s: Some("t"),
            ..Event::mark("i", lane, mark, args)
        })
    }

    /// Draws a point of a curve for each value, stacked: for example bytes per memory type.
    pub fn counter(
        &mut self,
        pid: u32,
        name: &str,
        at_ns: u64,
        values: &[(&str, u64)],
    ) -> Result<()> {
        let args: serde_json::Map<_, _> = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        self.put(&Event {
            ts: Some(micros(at_ns)),
            ..Event::new("C", name, Lane { pid, tid: 0 }, &args)
        })
    }

    /// Ends the trace and makes the file appear; returns the number of events in it.
    ///
    /// # Errors
    /// The file can't be written; it is then as it was before.
    pub fn finish(mut self) -> Result<u64> {
        self.out
            .write_all(b"\n]}\n")
            .context("cannot write the trace")?;
        self.out.commit()?;
        Ok(self.events)
    }

    fn put(&mut self, event: &Event<'_, impl Serialize>) -> Result<()> {
        let before: &[u8] = if self.events == 0 { b"\n" } else { b",\n" };
        self.out
            .write_all(before)
            .context("cannot write the trace")?;
        serde_json::to_writer(&mut self.out, event).context("cannot write the trace")?;
        self.events += 1;
        Ok(())
    }
}

impl<'a, A> Event<'a, A> {
    fn new(ph: &'static str, name: &'a str, lane: Lane, args: &'a A) -> Self {
        Self {
            ph,
            name,
            cat: None,
            ts: None,
            dur: None,
            pid: lane.pid,
            tid: lane.tid,
            s: None,
            args,
        }
    }

    fn mark(ph: &'static str, lane: Lane, mark: Mark<'a>, args: &'a A) -> Self {
        Self {
            cat: Some(mark.category),
            ts: Some(micros(mark.at_ns)),
            ..Self::new(ph, mark.name, lane, args)
        }
    }
}

/// Nanoseconds as microseconds; exact to the nanosecond for the first 104 days of a run.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use serde_json::Value;

    const LANE: Lane = Lane { pid: 1, tid: 2 };

    fn written(folder: &Folder, fill: impl FnOnce(&mut TraceWriter)) -> Vec<Value> {
        let path = folder.file("trace.json");
        let mut trace = TraceWriter::create(&path).unwrap();
        fill(&mut trace);
        let events = trace.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let list = value["traceEvents"].as_array().unwrap().clone();
        assert_eq!(list.len() as u64, events);
        list
    }

    #[test]
    fn an_empty_trace_is_valid_json() {
        assert!(written(&Folder::new("perfetto-empty"), |_| {}).is_empty());
    }

    #[test]
    fn a_span_keeps_its_nanoseconds_and_arguments() {
        let events = written(&Folder::new("perfetto-span"), |trace| {
            let span = Span {
                name: "evict \"a\\b\"\n",
                category: Category::Move,
                start_ns: 1_234_567_891,
                duration_ns: 1,
            };
            trace.complete(LANE, span, &json!({ "object": 7 })).unwrap();
        });
        let expected = json!({
            "ph": "X", "name": "evict \"a\\b\"\n", "cat": "move", "ts": 1234567.891, "dur": 0.001,
            "pid": 1, "tid": 2, "args": { "object": 7 },
        });
        assert_eq!(events, [expected]);
    }

    #[test]
    fn every_kind_of_event_carries_what_the_format_asks_for() {
        let mark = Mark {
            name: "fence 3",
            category: Category::Fence,
            at_ns: 2000,
        };
        let events = written(&Folder::new("perfetto-kinds"), |trace| {
            trace.process(1, "engines").unwrap();
            trace.thread(LANE, "copy 0").unwrap();
            trace.instant(LANE, mark, &NoArgs {}).unwrap();
            trace
                .counter(1, "resident", 2000, &[("vram", 5), ("system", 6)])
                .unwrap();
        });
        let phases: Vec<_> = events
            .iter()
            .map(|event| event["ph"].as_str().unwrap())
            .collect();
        assert_eq!(phases, ["M", "M", "i", "C"]);
        assert_eq!(events[0]["args"], json!({ "name": "engines" }));
        assert_eq!(events[1]["name"], "thread_name");
        assert_eq!(events[2]["s"], "t");
        assert_eq!(events[3]["args"], json!({ "vram": 5, "system": 6 }));
        assert!(events[2..].iter().all(|event| event["ts"] == json!(2.0)));
    }

    #[test]
    fn an_unfinished_trace_leaves_no_file() {
        let folder = Folder::new("perfetto-unfinished");
        let mut trace = TraceWriter::create(&folder.file("trace.json")).unwrap();
        trace.process(1, "engines").unwrap();
        drop(trace);
        assert!(folder.names().is_empty());
    }
}
