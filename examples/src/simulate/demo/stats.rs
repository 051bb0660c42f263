//! Counts a device's events for the tables of the demo.

use std::collections::BTreeMap;

use anyhow::anyhow;
use ttm::sync::{Arc, Mutex};
use ttm::trace::{Event, How, Reason, Record, Sink};

use crate::exit::{self, Failure};
use cli::report::observer::Observer;

/// The device's sink: counts, and hands on to the observer if there is one.
pub(super) struct Stats {
    counts: Mutex<Counts>,
    observer: Option<Arc<Observer>>,
}

/// What the events say so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Moves by how the content moved.
    pub(super) moves: BTreeMap<&'static str, u64>,
    pub(super) swapped_out_bytes: u64,
    pub(super) swapped_in_bytes: u64,
    /// For each client, from 1.
    pub(super) clients: BTreeMap<u32, OfClient>,
    /// For each object, who made it.
    owners: BTreeMap<u64, u32>,
}

/// What became of one client's objects.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfClient {
    pub(super) evicted_bytes: u64,
    pub(super) swapped_bytes: u64,
}

impl Stats {
    pub(super) fn new(observer: Option<Arc<Observer>>) -> Self {
        let kinds = ["null", "clear", "cpu", "engine"];
        let counts = Counts {
            moves: kinds.map(|kind| (kind, 0)).into(),
            ..Counts::default()
        };
        Self {
            counts: Mutex::new(counts),
            observer,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }
}

impl Counts {
    fn owner(&mut self, object: u64) -> &mut OfClient {
        let owner = self.owners.get(&object).copied().unwrap_or_default();
        self.clients.entry(owner).or_default()
    }
}

impl Sink for Stats {
    fn record(&self, record: &Record) {
        let mut counts = self.counts.lock();
        match record.event {
            Event::Created { object, .. } => {
                counts.owners.insert(object, Observer::client());
            }
            Event::Released { object } => {
                counts.owners.remove(&object);
            }
            // The client that waits there would end in a signal.
            Event::Poisoned { .. } => exit::at_once(&Failure::Refused(anyhow!(
                "{}; with --windows calls that is an error",
                record.event
            ))),
            Event::Moved {
                object,
                bytes,
                how,
                why,
                ..
            } => {
                let kind = match how {
                    How::Null => "null",
                    How::Clear => "clear",
                    How::Cpu => "cpu",
                    How::Engine(_) => "engine",
                };
                *counts.moves.entry(kind).or_default() += 1;
                if matches!(why, Reason::EvictedFor(_)) {
                    counts.owner(object).evicted_bytes += bytes;
                }
            }
            Event::SwappedOut { object, bytes, .. } => {
                counts.swapped_out_bytes += bytes;
                counts.owner(object).swapped_bytes += bytes;
            }
            Event::SwappedIn { bytes, .. } => counts.swapped_in_bytes += bytes,
            _ => {}
        }
        drop(counts);
        if let Some(observer) = &self.observer {
            observer.record(record);
        }
    }
}
