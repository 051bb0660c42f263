//! Which words of an object are used, and by whom.
//!
//! ```text
//! page:  │ 64 words of the caller's │ slots: writer 1, 2, 1, 2, ... with unused words between │
//! ```
//!
//! Small objects have many slots in each page, large ones a few, so that each is written often.
//! Unused words stay zero: who finds something there has found something that is not the object's.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use cli::word::decoded;
use placement::PAGE_SIZE;

use crate::word::Owner;

/// Words in a page.
pub(crate) const WORDS: u64 = PAGE_SIZE / 8;

/// Words at the beginning of each page that are the caller's.
pub(crate) const CALLERS: u64 = 64;

/// How many threads write words.
pub(crate) const WRITERS: u64 = 2;

/// The number of the caller as a writer.
pub(crate) const CALLER: u8 = 3;

/// Slots of each writer in all of an object, about.
const EACH: u64 = 4096;

/// The slots of an object: where they are, and how far their writers are.
pub(crate) struct Slots {
    object: u32,
    generation: u8,
    pages: u64,
    in_page: u64,
    words: Vec<Slot>,
    /// How far the caller is, by page.
    called: Vec<AtomicU32>,
}

/// How far a slot's writer is.
#[derive(Default)]
struct Slot {
    issued: AtomicU32,
    done: AtomicU32,
}

/// What a writer had done to a slot before somebody read it.
#[derive(Clone, Copy)]
pub(crate) struct Before(u32);

impl Slots {
    pub(crate) fn new(object: u32, generation: u8, pages: u64) -> Self {
        let each = (EACH / pages).clamp(2, 64);
        let in_page = each * WRITERS;
        Self {
            object,
            generation,
            pages,
            in_page,
            words: (0..pages * in_page).map(|_| Slot::default()).collect(),
            called: (0..pages).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.words.len() as u64
    }

    /// A slot of `writer`, 0 or 1, chosen by `choice`.
    pub(crate) fn of_writer(&self, writer: u64, choice: u64) -> u64 {
        let each = self.len() / WRITERS;
        choice % each * WRITERS + writer
    }

    /// The word of the object that a slot is.
    pub(crate) fn word_of(&self, slot: u64) -> u64 {
        let (page, nth) = (slot / self.in_page, slot % self.in_page);
        let apart = (WORDS - CALLERS) / self.in_page;
        page * WORDS + CALLERS + nth * apart
    }

    /// The slot that a word of the object is, if it is one.
    pub(crate) fn slot_at(&self, word: u64) -> Option<u64> {
        let (page, nth) = (word / WORDS, (word % WORDS).checked_sub(CALLERS)?);
        let apart = (WORDS - CALLERS) / self.in_page;
        let slot = nth / apart;
        let is_slot = page < self.pages && nth.is_multiple_of(apart) && slot < self.in_page;
        is_slot.then_some(page * self.in_page + slot)
    }

    fn owner(&self, slot: u64) -> Owner {
        self.owned_by((slot % WRITERS) as u8 + 1)
    }

    fn owned_by(&self, writer: u8) -> Owner {
        Owner {
            object: self.object,
            writer,
            generation: self.generation,
        }
    }

    fn slot(&self, slot: u64) -> &Slot {
        &self.words[slot as usize]
    }

    /// What to write into a slot next. Only its writer asks.
    pub(crate) fn issue(&self, slot: u64) -> u64 {
        let issued = &self.slot(slot).issued;
        // Relaxed: only this thread stores it; the fence is before the word is stored.
        let sequence = issued.load(Ordering::Relaxed) + 1;
        issued.store(sequence, Ordering::Relaxed);
        // With the fence in `judge`: who sees the word sees that it was issued.
        fence(Ordering::Release);
        self.owner(slot).word(sequence)
    }

    /// What was issued last has been written.
    pub(crate) fn finish(&self, slot: u64) {
        let slot = self.slot(slot);
        let sequence = slot.issued.load(Ordering::Relaxed);
        // Release with the acquire in `before`: who sees it, sees the word.
        slot.done.store(sequence, Ordering::Release);
    }

    /// What the writer itself must find.
    pub(crate) fn last(&self, slot: u64) -> u64 {
        let sequence = self.slot(slot).issued.load(Ordering::Relaxed);
        self.owner(slot).word(sequence)
    }

    /// What the caller writes into a page next: all its words there are equal. Only it asks.
    pub(crate) fn call(&self, page: u64) -> u64 {
        // Relaxed: nobody else looks before all threads have ended.
        let sequence = self.called[page as usize].load(Ordering::Relaxed) + 1;
        self.called[page as usize].store(sequence, Ordering::Relaxed);
        self.owned_by(CALLER).word(sequence)
    }

    /// What any word of the object is once nobody writes any more.
    pub(crate) fn final_word(&self, word: u64) -> u64 {
        if word % WORDS < CALLERS {
            let called = &self.called[(word / WORDS) as usize];
            return self.owned_by(CALLER).word(called.load(Ordering::Relaxed));
        }
        self.slot_at(word).map_or(0, |slot| self.last(slot))
    }

    /// To be asked before a slot is read.
    pub(crate) fn before(&self, slot: u64) -> Before {
        Before(self.slot(slot).done.load(Ordering::Acquire))
    }

    /// The sequence in a word that was read from a slot.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn judge(&self, slot: u64, before: Before, word: u64) -> Result<u32, String> {
        fence(Ordering::Acquire);
        let issued = self.slot(slot).issued.load(Ordering::Relaxed);
        match self.owner(slot).sequence(word) {
            Some(sequence) if sequence > issued => {
                Err(self.wrong(slot, word, &format!("only {issued} were issued")))
            }
            Some(sequence) if sequence < before.0 => {
                let why = format!("sequence {} had been written before", before.0);
                Err(self.wrong(slot, word, &why))
            }
            Some(sequence) => Ok(sequence),
            None => Err(self.wrong(slot, word, "it is not its writer's")),
        }
    }

    fn wrong(&self, slot: u64, found: u64, why: &str) -> String {
        self.wrong_word(self.word_of(slot), found, why)
    }

    /// A wrong word of the object in words.
    pub(crate) fn wrong_word(&self, word: u64, found: u64, why: &str) -> String {
        format!(
            "object {} of {} pages, byte {:#x}: found {found:#018x} ({}); {why}",
            self.object,
            self.pages,
            word * 8,
            decoded(found)
        )
    }

    /// A word that is not the one that was written there last, in words.
    pub(crate) fn lost_word(&self, word: u64, found: u64, expected: u64) -> String {
        let why = format!("written last was {expected:#018x} ({})", decoded(expected));
        self.wrong_word(word, found, &why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_a_word_of_its_own_beside_the_callers() {
        for pages in [1, 16, 512, 4096] {
            let slots = Slots::new(1, 0, pages);
            let words = (0..slots.len()).map(|slot| slots.word_of(slot));
            let words: Vec<_> = words.collect();
            assert!(words.is_sorted_by(|a, b| a < b));
            assert!(words.iter().all(|word| word % WORDS >= CALLERS));
            assert!(*words.last().unwrap() < pages * WORDS);
            for (slot, word) in (0..).zip(&words) {
                assert_eq!(slots.slot_at(*word), Some(slot));
                assert_eq!(
                    slots.slot_at(*word - 1),
                    words.contains(&(*word - 1)).then(|| slot - 1)
                );
            }
        }
    }

    #[test]
    fn a_word_that_is_stale_foreign_or_from_the_future_is_wrong() {
        let slots = Slots::new(5, 1, 1);
        let slot = slots.of_writer(1, 9);
        let first = slots.issue(slot);
        slots.finish(slot);
        let before = slots.before(slot);
        assert_eq!(slots.judge(slot, before, first), Ok(1));
        let second = slots.issue(slot);
        assert_eq!(slots.judge(slot, before, second), Ok(2));
        slots.finish(slot);
        let after = slots.before(slot);
        let stale = slots.judge(slot, after, first).unwrap_err();
        assert!(
            stale.contains("sequence 2 had been written before"),
            "{stale}"
        );
        let early = slots.judge(slot, after, second + 1).unwrap_err();
        assert!(early.contains("only 2 were issued"), "{early}");
        let foreign = slots
            .judge(slot, after, slots.last(slot) | 1 << 63)
            .unwrap_err();
        assert!(foreign.contains("not its writer's"), "{foreign}");
    }
}
