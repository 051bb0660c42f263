//! A thread that writes words, and looks that what it wrote is there (I-15).

use std::time::{Duration, Instant};

use crate::object::View;
use crate::random::Random;
use crate::slots::Slots;
use crate::stage::{Done, Stage};

/// An access by address that takes longer has waited, in nanoseconds.
const SLOW: u64 = 2_000;

/// The same by call, which is never fast.
const SLOW_CALL: u64 = 20_000;

/// Stores to one object in a row.
const BURST: u64 = 256;

/// What the writers beside the first do between bursts, so that somebody else gets a processor.
const REST: Duration = Duration::from_micros(200);

/// Writes as writer number `writer`, counted from 0, until the run ends. The first never rests, so
/// that nothing happens while it does not look.
pub(crate) fn write(stage: &Stage<'_>, writer: u64, mut random: Random) -> Done {
    let mut done = Done::default();
    let views = match stage.views() {
        Ok(views) => views,
        Err(error) => {
            stage.broken(format!("a window gives no address: {error}"));
            return done;
        }
    };
    while !stage.is_stopped() {
        let n = stage.choose(&mut random);
        if let Err(wrong) = burst(stage, n, &views[n], writer, &mut random, &mut done) {
            stage.wrong(wrong);
        }
        if writer > 0 {
            std::thread::sleep(REST);
        }
    }
    done
}

fn burst(
    stage: &Stage<'_>,
    n: usize,
    views: &[View<'_>],
    writer: u64,
    random: &mut Random,
    done: &mut Done,
) -> Result<(), String> {
    let object = &stage.objects()[n];
    let slots = &object.slots;
    let (slow, stores) = match stage.is_by_address() {
        true => (SLOW, BURST),
        false => (SLOW_CALL, BURST / 16),
    };
    done.gaps.begin();
    for _ in 0..stores {
        let slot = slots.of_writer(writer, random.below(u64::MAX));
        let word = slots.word_of(slot);
        let part = &views[1];
        // The last one is for reading.
        let view = match part.has(word) && random.below(2) == 0 {
            true => part,
            false => &views[0],
        };
        let value = slots.issue(slot);
        let start = Instant::now();
        let stored = view.store(word, value);
        let ns = start.elapsed().as_nanos() as u64;
        stored.map_err(|error| format!("a write by call failed: {error}"))?;
        slots.finish(slot);
        if ns > slow {
            done.gaps.note(object.size, object.last_move(), ns);
        }
        done.accesses += 1;
        if random.below(4) == 0 {
            let slot = slots.of_writer(writer, random.below(u64::MAX));
            let view = &views[random.below(views.len() as u64) as usize];
            done.accesses += reread(slots, slot, view)?;
        }
    }
    Ok(())
}

/// A writer's own word is what it wrote last.
fn reread(slots: &Slots, slot: u64, view: &View<'_>) -> Result<u64, String> {
    let word = slots.word_of(slot);
    if !view.has(word) {
        return Ok(0);
    }
    let found = view.load(word);
    let found = found.map_err(|error| format!("a read by call failed: {error}"))?;
    let expected = slots.last(slot);
    match found == expected {
        true => Ok(1),
        false => Err(slots.lost_word(word, found, expected)),
    }
}
