//! The flight recorder: the last events, for asking afterwards.

use core::fmt;

use crate::sync::Mutex;

use super::Record;

/// How many events are kept.
const KEPT: usize = 1024;

/// A ring of the last events.
#[derive(Default)]
pub struct Recorder {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    records: Vec<Record>,
    next: usize,
    total: u64,
}

impl Recorder {
    /// Keeps `record`, forgetting the oldest if there are many.
    #[inline]
    pub fn push(&self, record: Record) {
        let mut ring = self.ring.lock();
        ring.total += 1;
        let next = ring.next;
        ring.next = if next + 1 == KEPT { 0 } else { next + 1 };
        if let Some(slot) = ring.records.get_mut(next) {
            *slot = record;
        } else {
            if ring.records.is_empty() {
                ring.records.reserve_exact(KEPT);
            }
            ring.records.push(record);
        }
    }

    /// How many events there have been.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ring.lock().total
    }

    /// The kept events, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let ring = self.ring.lock();
        let (newer, older) = ring.records.split_at(ring.next.min(ring.records.len()));
        older.iter().chain(newer).copied().collect()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} events)", self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::trace::Event;

    #[test]
    fn the_last_events_are_kept_in_order() {
        let recorder = Recorder::default();
        for n in 0..(KEPT as u64 + 5) {
            recorder.push(Record {
                at: Time::from_nanos(n),
                event: Event::Released { object: n },
            });
        }
        let kept = recorder.records();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].event.object(), 5);
        assert!(kept.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert_eq!(recorder.total(), KEPT as u64 + 5);
    }
}
