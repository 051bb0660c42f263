//! A thread that reads words that others write: never foreign ones, never older ones than before
//! (I-22), never such as nobody has written.

use std::time::Duration;

use crate::object::View;
use crate::random::Random;
use crate::stage::{Done, Stage};

/// Loads from one object in a row.
const BURST: u64 = 128;

/// What it does between bursts, so that somebody else gets a processor.
const REST: Duration = Duration::from_micros(150);

/// Reads until the run ends.
pub(crate) fn read(stage: &Stage<'_>, mut random: Random) -> Done {
    let mut done = Done::default();
    let views = match stage.views() {
        Ok(views) => views,
        Err(error) => {
            stage.broken(format!("a window gives no address: {error}"));
            return done;
        }
    };
    let seen = stage
        .objects()
        .iter()
        .map(|o| vec![0; o.slots.len() as usize]);
    let mut seen: Vec<Vec<u32>> = seen.collect();
    while !stage.is_stopped() {
        let n = stage.choose(&mut random);
        let burst = burst(stage, n, &views[n], &mut seen[n], &mut random);
        match burst {
            Ok(accesses) => done.accesses += accesses,
            Err(wrong) => stage.wrong(wrong),
        }
        std::thread::sleep(REST);
    }
    done
}

fn burst(
    stage: &Stage<'_>,
    n: usize,
    views: &[View<'_>],
    seen: &mut [u32],
    random: &mut Random,
) -> Result<u64, String> {
    let slots = &stage.objects()[n].slots;
    let loads = if stage.is_by_address() {
        BURST
    } else {
        BURST / 16
    };
    let mut accesses = 0;
    for _ in 0..loads {
        let slot = random.below(slots.len());
        let word = slots.word_of(slot);
        let view = &views[random.below(views.len() as u64) as usize];
        if !view.has(word) {
            continue;
        }
        let before = slots.before(slot);
        let found = view.load(word);
        let found = found.map_err(|error| format!("a read by call failed: {error}"))?;
        let sequence = slots.judge(slot, before, found)?;
        let last = core::mem::replace(&mut seen[slot as usize], sequence);
        if sequence < last {
            let why = format!("this reader has seen sequence {last} there");
            return Err(slots.wrong_word(word, found, &why));
        }
        accesses += 1;
    }
    Ok(accesses)
}
