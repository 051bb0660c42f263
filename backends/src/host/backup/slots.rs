//! Which slots of the file are whose, and behind which there is disk.
//!
//! ```text
//!                 take                       stored
//!   free ───────────────────▶ taken ──────────────────▶ written
//!    │ ▲  (on disk or not)      │                         │
//!    │ │                        └─────────────┬───────────┘
//!    │ │ punched                              │ free: the disk blocks are kept
//!    │ └────────── being punched ◀────────────┤ retire: they are not
//!    └──────────────────▲─────────────────────┘
//!            a kept piece
//! ```
//!
//! Slots come in chunks of 512, and a run lies inside one. A chunk that holds nothing has room
//! for any run, so with a chunk for each run that the backup is prepared for, and one for the
//! piece that is being punched, a run always finds a place: a full table cannot happen, however
//! the free slots lie. The room for all these chunks is allocated by [`Slots::prepare`] and
//! touched when it is used; nothing else here allocates.

mod bits;
mod tree;

use std::collections::TryReserveError;

use bits::{BITS, Bits};
use tree::Tree;

/// Slots of a chunk, and so of a run at most.
pub(super) const CHUNK: u64 = BITS as u64;

/// Chunks at most: 8 TiB, below the longest file of every usual file system.
const CHUNKS: usize = 1 << 22;

/// Adjoining slots of one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) pages: u64,
}

impl Run {
    /// Its chunk, and the bits there.
    fn place(self) -> (usize, usize, usize) {
        let (chunk, from) = (self.first / CHUNK, self.first % CHUNK);
        (chunk as usize, from as usize, self.pages as usize)
    }

    fn at(chunk: usize, from: usize, len: usize) -> Self {
        Self {
            first: chunk as u64 * CHUNK + from as u64,
            pages: len as u64,
        }
    }
}

/// # Invariants
/// `starts` and `written` are bits of slots that are taken; each run that is taken begins with a
/// bit of `starts` and has no other.
#[derive(Clone, Debug)]
struct Chunk {
    taken: Bits,
    starts: Bits,
    written: Bits,
    backed: Bits,
}

/// The slots.
///
/// # Invariants
/// `used + punching` bits are set in `taken`, and `kept` in `backed` and not in `taken`. `free`
/// has the longest run of each chunk that is not taken, `spare` the longest that is backed as
/// well. There is room for `prepared + 1` chunks, or for all there may be.
#[derive(Debug)]
pub(super) struct Slots {
    chunks: Vec<Chunk>,
    free: Tree,
    spare: Tree,
    prepared: usize,
    used: u64,
    kept: u64,
    punching: u64,
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Tree::new(),
            spare: Tree::new(),
            prepared: 0,
            used: 0,
            kept: 0,
            punching: 0,
        }
    }

    /// Slots that somebody holds.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Slots that hold nothing and have disk blocks.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Makes sure that `runs` more runs find a place.
    ///
    /// # Errors
    /// Without memory for the table; nothing has changed.
    pub(super) fn prepare(&mut self, runs: usize) -> Result<(), TryReserveError> {
        let prepared = self.prepared.saturating_add(runs);
        let chunks = prepared.saturating_add(1).min(CHUNKS);
        if chunks > self.free.leaves() {
            let leaves = chunks.next_power_of_two();
            let (free, spare) = (self.free.grown(leaves)?, self.spare.grown(leaves)?);
            self.chunks.try_reserve_exact(leaves - self.chunks.len())?;
            (self.free, self.spare) = (free, spare);
        }
        self.prepared = prepared;
        Ok(())
    }

    /// Undoes as much of [`Slots::prepare`]. The table keeps its size.
    pub(super) fn unprepare(&mut self, runs: usize) {
        self.prepared = self.prepared.saturating_sub(runs);
    }

    /// Takes adjoining slots: those of the lowest chunk in which they are free and backed, or
    /// else free. Says whether they have disk blocks; from now on they count as having some.
    ///
    /// `None` if the table is full, which does not happen to runs that it was prepared for.
    pub(super) fn take(&mut self, pages: u64) -> Option<(Run, bool)> {
        let len = pages as usize;
        debug_assert!((1..=BITS).contains(&len), "a run of {pages} slots");
        let backed = self.spare.first(len);
        let n = match backed.or_else(|| self.free.first(len)) {
            Some(n) => n,
            None => self.add_chunk()?,
        };
        let chunk = &mut self.chunks[n];
        let among = match backed {
            Some(_) => chunk.backed.without(&chunk.taken),
            None => chunk.taken.complement(),
        };
        let from = among.best_fit(len).expect("the trees know what fits");
        self.kept -= chunk.backed.count(from, len) as u64;
        chunk.taken.put(from, len, true);
        chunk.backed.put(from, len, true);
        chunk.starts.put(from, 1, true);
        self.used += pages;
        self.note(n);
        Some((Run::at(n, from, len), backed.is_some()))
    }

    fn add_chunk(&mut self) -> Option<usize> {
        let n = self.chunks.len();
        if n == self.free.leaves().min(CHUNKS) {
            return None;
        }
        self.chunks.push(Chunk {
            taken: Bits::NONE,
            starts: Bits::NONE,
            written: Bits::NONE,
            backed: Bits::NONE,
        });
        Some(n)
    }

    /// Whether `run` is exactly one that was taken.
    pub(super) fn is_run(&self, run: Run) -> bool {
        if !self.is_taken(run) {
            return false;
        }
        let (n, from, len) = run.place();
        let chunk = &self.chunks[n];
        let ends = from + len == BITS
            || !chunk.taken.all(from + len, 1)
            || chunk.starts.all(from + len, 1);
        chunk.starts.all(from, 1) && chunk.starts.count(from, len) == 1 && ends
    }

    /// Whether all slots of `run` are somebody's.
    pub(super) fn is_taken(&self, run: Run) -> bool {
        let (n, from, len) = run.place();
        let inside = len > 0 && from + len <= BITS;
        inside && self.chunks.get(n).is_some_and(|c| c.taken.all(from, len))
    }

    /// Whether all slots of `run` were written since they were taken.
    pub(super) fn is_written(&self, run: Run) -> bool {
        let (n, from, len) = run.place();
        self.is_taken(run) && self.chunks[n].written.all(from, len)
    }

    /// Notes that the slots of `run` were written.
    pub(super) fn wrote(&mut self, run: Run) {
        let (n, from, len) = run.place();
        self.chunks[n].written.put(from, len, true);
    }

    /// Frees a run that was taken and keeps its disk blocks for the next who takes slots.
    pub(super) fn free(&mut self, run: Run) {
        self.used -= run.pages;
        self.kept += run.pages;
        self.put_free(run);
    }

    /// Begins to give the disk blocks of a run back that was taken. Its slots are nobody's, and
    /// not free, until [`Slots::punched`].
    pub(super) fn retire(&mut self, run: Run) {
        self.used -= run.pages;
        self.punching += run.pages;
    }

    /// Begins to give kept disk blocks back, `most` slots at most; `None` if none are kept.
    pub(super) fn retire_kept(&mut self, most: u64) -> Option<Run> {
        let n = self.spare.last(1)?;
        let chunk = &mut self.chunks[n];
        let spare = chunk.backed.without(&chunk.taken);
        let (from, len) = spare.runs().last().expect("the trees know what is spare");
        let part = len.min(usize::try_from(most).unwrap_or(len)).max(1);
        let run = Run::at(n, from + len - part, part);
        let (n, from, len) = run.place();
        self.chunks[n].taken.put(from, len, true);
        self.chunks[n].starts.put(from, 1, true);
        self.kept -= run.pages;
        self.punching += run.pages;
        self.note(n);
        Some(run)
    }

    /// Frees a retired run, whose disk blocks are gone.
    pub(super) fn punched(&mut self, run: Run) {
        let (n, from, len) = run.place();
        self.chunks[n].backed.put(from, len, false);
        self.punching -= run.pages;
        self.put_free(run);
    }

    fn put_free(&mut self, run: Run) {
        let (n, from, len) = run.place();
        let chunk = &mut self.chunks[n];
        chunk.taken.put(from, len, false);
        chunk.starts.put(from, len, false);
        chunk.written.put(from, len, false);
        self.note(n);
    }

    fn note(&mut self, n: usize) {
        let chunk = &self.chunks[n];
        self.free.set(n, chunk.taken.complement().longest());
        let spare = chunk.backed.without(&chunk.taken);
        self.spare.set(n, spare.longest());
    }

    /// Compares the counters and the trees with the bits.
    ///
    /// # Errors
    /// What does not agree.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut taken, mut kept) = (0, 0);
        for (n, chunk) in self.chunks.iter().enumerate() {
            let spare = chunk.backed.without(&chunk.taken);
            taken += chunk.taken.count(0, BITS) as u64;
            kept += spare.count(0, BITS) as u64;
            let trees = (self.free.get(n), self.spare.get(n));
            let found = (chunk.taken.complement().longest(), spare.longest());
            if trees != found {
                return Err(format!(
                    "chunk {n}: the trees say {trees:?}, it has {found:?}"
                ));
            }
            let stray = chunk.starts.without(&chunk.taken).count(0, BITS)
                + chunk.written.without(&chunk.taken).count(0, BITS)
                + chunk.taken.without(&chunk.backed).count(0, BITS);
            if stray > 0 {
                return Err(format!(
                    "chunk {n}: {stray} bits of slots that are not taken"
                ));
            }
        }
        let (counted, found) = ((self.used + self.punching, self.kept), (taken, kept));
        match counted == found {
            true => Ok(()),
            false => Err(format!(
                "I-59: (taken, kept) counted {counted:?}, found {found:?}"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
