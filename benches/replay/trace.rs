//! Traces: which object each touch is of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context;
use harness::xorshift::XorshiftStar;
use serde::Deserialize;

/// Touches of objects that are numbered from 0 in the order of their first touch.
pub(crate) struct Trace {
    pub(crate) touches: Vec<u32>,
    pub(crate) objects: usize,
}

/// Objects of a synthetic trace.
const OBJECTS: usize = 182_790;

/// Touches of it that are not the first of their object.
const AGAIN: usize = 105_710;

/// Conversations that may go on.
const OPEN: usize = 12_000;

/// What matters of a line.
#[derive(Deserialize)]
struct Request {
    hash_ids: Vec<u64>,
}

impl Trace {
    /// Reads JSON lines.
    ///
    /// # Errors
    /// What the system says, or the first line that is malformed.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut numbers: BTreeMap<u64, u32> = BTreeMap::new();
        let mut touches = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let request: Request = serde_json::from_str(line)
                .with_context(|| format!("{}, line {number}", path.display()))?;
            for id in request.hash_ids {
                let next = numbers.len() as u32;
                touches.push(*numbers.entry(id).or_insert(next));
            }
        }
        Ok(Self {
            touches,
            objects: numbers.len(),
        })
    }

    /// Draws a trace, always the same.
    ///
    /// A request of a conversation that goes on touches all blocks of it, first to last, and then
    /// 1 to 30 new ones; a new conversation begins with the block that all share. Which of both
    /// comes is chosen so that the numbers of first and later touches grow in proportion.
    pub(crate) fn synthetic() -> Self {
        let mut generator = XorshiftStar::seeded(0);
        let mut touches: Vec<u32> = vec![0];
        let mut objects = 1;
        let mut conversations: Vec<Vec<u32>> = Vec::new();
        while touches.len() < OBJECTS + AGAIN {
            let again = touches.len() - objects;
            let goes_on = !conversations.is_empty() && again * OBJECTS <= objects * AGAIN;
            let mut blocks = if goes_on {
                let back = likely_recent(&mut generator, conversations.len());
                conversations.remove(conversations.len() - 1 - back)
            } else {
                vec![0]
            };
            touches.extend(blocks.iter().take(AGAIN - again));
            let new = (1 + generator.below(30)).min(OBJECTS - objects);
            let added = objects as u32..(objects + new) as u32;
            touches.extend(added.clone());
            blocks.extend(added);
            objects += new;
            conversations.push(blocks);
            if conversations.len() > OPEN {
                conversations.remove(0);
            }
        }
        Self { touches, objects }
    }

    /// Keeps the first `touches`.
    pub(crate) fn shorten(&mut self, touches: usize) {
        self.touches.truncate(touches);
        self.objects = self
            .touches
            .iter()
            .max()
            .map_or(0, |&last| last as usize + 1);
    }

    /// How often an exact least-recently-used order with room for so many objects misses.
    pub(crate) fn misses_of_exact_lru(&self, room: usize) -> u64 {
        let mut touched: Vec<Option<usize>> = vec![None; self.objects];
        let mut inside: BTreeSet<(usize, u32)> = BTreeSet::new();
        let mut misses = 0;
        for (now, &object) in self.touches.iter().enumerate() {
            let last = touched[object as usize].replace(now);
            let hit = last.is_some_and(|last| inside.remove(&(last, object)));
            if !hit {
                misses += 1;
                if inside.len() == room {
                    inside.pop_first();
                }
            }
            inside.insert((now, object));
        }
        misses
    }
}

/// A number below `bound`: each power of two of them is as likely as the next.
fn likely_recent(generator: &mut XorshiftStar, bound: usize) -> usize {
    let below = (generator.unit() * (bound as f64).ln()).exp() as usize;
    below.saturating_sub(1).min(bound - 1)
}
