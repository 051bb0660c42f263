//! What happened and why: events, the flight recorder, sinks, counters.
//!
//! Every decision is an [`Event`]. A device keeps the last thousand in its flight [`Recorder`],
//! which `Device::explain` reads, and hands each to the [`Sink`] that its builder was given.
//! [`Counters`] are exact, kept per memory type under the lock that is held there anyway.

mod event;
mod recorder;

pub use event::{Event, How, Reason, Record};
pub use recorder::Recorder;

use crate::clock::Time;
use crate::sync::Arc;

/// Receives every event of a device, in the order in which they are decided.
///
/// Called under reservations, never under a manager's lock; must not call the device.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn record(&self, record: &Record);
}

/// What one memory type has seen since the device was made. Bytes and counts never run backwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Objects that came to be here.
    pub arrivals: u64,
    /// Bytes that came to be here.
    pub bytes_in: u64,
    /// Objects that left for another place, were discarded, or were released.
    pub departures: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Objects that were pushed out to make room.
    pub evictions: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
    /// Requests that found no room at first.
    pub full: u64,
    /// Victims that were passed over because they were locked.
    pub busy_victims: u64,
}

/// A device's event stream: its flight recorder and its sink.
pub(crate) struct Trace {
    recorder: Recorder,
    sink: Option<Arc<dyn Sink>>,
}

impl Trace {
    pub(crate) fn new(sink: Option<Arc<dyn Sink>>) -> Self {
        Self {
            recorder: Recorder::default(),
            sink,
        }
    }

    #[inline]
    pub(crate) fn emit(&self, at: Time, event: Event) {
        let record = Record { at, event };
        self.recorder.push(record);
        if let Some(sink) = &self.sink {
            sink.record(&record);
        }
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}
