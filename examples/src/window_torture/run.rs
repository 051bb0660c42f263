//! One run: a strategy, one way of moving content, some time.
//!
//! 1. A rig is made, and objects of all sizes with windows.
//! 2. Writers, readers and the caller use them in threads of their own; the mover moves them.
//! 3. Everybody stops. Each word is compared with what was written there last, through
//!    [`Window::read_at`](ttm::map::Window::read_at) and through each window.
//! 4. All is taken down, and nothing may be left.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use backends::sim::RouteMode;
use ttm::sync::Arc;

use crate::caller;
use crate::kernel::Census;
use crate::mover::Mover;
use crate::object::Object;
use crate::random::Random;
use crate::reader;
use crate::rig::{Rig, how_many};
use crate::row::Row;
use crate::slots::WRITERS;
use crate::stage::{Done, Stage};
use crate::writer;

/// How many threads read.
const READERS: u64 = 2;

/// Bytes that are read at once when all is compared.
const PIECE: usize = 1 << 20;

/// Once so much of a run is told, words that are wrong in the end are only counted.
const TOLD: usize = 3;

/// What is to be run.
pub(crate) struct Run<'a> {
    pub(crate) row: Row,
    pub(crate) routes: RouteMode,
    pub(crate) sizes: &'a [u64],
    pub(crate) time: Duration,
    /// Of the words.
    pub(crate) generation: u8,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) done: Done,
    pub(crate) moves: BTreeMap<&'static str, u64>,
    pub(crate) refused: BTreeMap<String, u64>,
    /// Words that were compared at the end.
    pub(crate) compared: u64,
    pub(crate) wrong_words: u64,
    /// What is wrong, in words.
    pub(crate) wrong: Vec<String>,
    pub(crate) faults: u64,
    pub(crate) shown: u64,
}

impl Outcome {
    /// Adds what came of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.done.add(other.done);
        for (name, count) in other.moves {
            *self.moves.entry(name).or_default() += count;
        }
        for (why, count) in other.refused {
            *self.refused.entry(why).or_default() += count;
        }
        self.compared += other.compared;
        self.wrong_words += other.wrong_words;
        self.wrong.extend(other.wrong);
        self.faults += other.faults;
        self.shown += other.shown;
    }
}

impl Run<'_> {
    /// Runs; calls `tick` now and then.
    ///
    /// # Errors
    /// Something could not be made. What is wrong is in the outcome.
    pub(crate) fn run(&self, tick: impl Fn()) -> Result<Outcome> {
        let before = Census::now()?;
        let space = self.row.space().map_err(anyhow::Error::msg)?;
        let bytes = self.sizes.iter().map(|size| size * how_many(*size)).sum();
        let mut rig = Rig::new(
            &Arc::new(space),
            self.routes,
            self.row.is_watchable(),
            bytes,
        )?;
        let objects = rig.objects(self.sizes, self.generation)?;
        let mut outcome = Outcome::default();
        self.torture(&rig, &objects, &mut outcome, tick)?;
        for object in &objects {
            compare(object, rig.abilities().loads_wait, &mut outcome);
        }
        if let Err(violation) = rig.device().check() {
            outcome.wrong.push(violation.to_string());
        }
        drop(objects);
        let counts = rig.windows().counts();
        (outcome.faults, outcome.shown) = (counts.faults, counts.shown);
        outcome.wrong.extend(rig.take_down());
        drop(rig);
        if let Some(left) = before.left()? {
            outcome.wrong.push(format!("left behind: {left}"));
        }
        Ok(outcome)
    }

    fn torture(
        &self,
        rig: &Rig,
        objects: &[Object],
        outcome: &mut Outcome,
        tick: impl Fn(),
    ) -> Result<()> {
        let abilities = rig.abilities();
        let stage = Stage::new(objects, abilities.loads_wait);
        let file = caller::file(&env::temp_dir()).context("a file for system calls")?;
        let random = |n: u64| Random::new(self.seed << 8 | n);
        let mut mover = Mover::new(&stage, rig, random(0));
        let done = std::thread::scope(|scope| {
            let stage = &stage;
            let mut threads = Vec::new();
            for n in 0..WRITERS {
                threads.push(scope.spawn(move || writer::write(stage, n, random(1 + n))));
            }
            for n in 0..READERS {
                threads.push(scope.spawn(move || reader::read(stage, random(16 + n))));
            }
            if abilities.calls_wait && !cli::tracer::is_traced() {
                threads.push(scope.spawn(|| caller::call(stage, &file, random(32))));
            }
            mover.run(Instant::now() + self.time, tick);
            stage.stop();
            let mut all = Done::default();
            for thread in threads {
                all.add(thread.join().expect("the threads do not panic"));
            }
            all
        });
        outcome.done.add(done);
        (outcome.moves, outcome.refused) = (mover.moves, mover.refused);
        let (wrong_words, told) = stage.found();
        outcome.wrong_words += wrong_words;
        outcome.wrong.extend(told);
        Ok(())
    }
}

/// Compares every word of an object with what was written there last.
fn compare(object: &Object, by_address: bool, outcome: &mut Outcome) {
    let window = object.whole();
    let mut bytes = vec![0; PIECE.min(window.len())];
    let mut at = 0;
    while at < window.len() {
        let piece = bytes.len().min(window.len() - at);
        if let Err(error) = window.read_at(at as u64, &mut bytes[..piece]) {
            outcome.wrong.push(format!("the last read failed: {error}"));
            return;
        }
        for (n, word) in (at as u64 / 8..).zip(bytes[..piece].chunks_exact(8)) {
            let found = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            compare_word(object, n, found, "read by call", outcome);
        }
        at += piece;
    }
    if !by_address {
        return;
    }
    for view in object.views(true).into_iter().flatten() {
        for word in view.words() {
            if let Ok(found) = view.load(word) {
                compare_word(object, word, found, "in a window", outcome);
            }
        }
    }
}

fn compare_word(object: &Object, word: u64, found: u64, how: &str, outcome: &mut Outcome) {
    outcome.compared += 1;
    let expected = object.slots.final_word(word);
    if found == expected {
        return;
    }
    outcome.wrong_words += 1;
    if outcome.wrong.len() < TOLD {
        let lost = object.slots.lost_word(word, found, expected);
        outcome.wrong.push(format!("in the end, {how}: {lost}"));
    }
}
