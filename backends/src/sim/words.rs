//! Memory as a device's kernel sees it: words of eight bytes.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Mapped`] keeps its bytes mapped readable and
//! writable while it is borrowed, and begins at a page, so its words are aligned. Others may write
//! meanwhile, hence volatile accesses and no reference.
#![expect(unsafe_code, reason = "volatile access to memory that others write")]

use ttm::pages::Mapped;

/// Bytes in a word.
const WORD: usize = 8;

/// The words of a mapping.
pub(super) struct Words<'a> {
    memory: &'a Mapped,
}

impl<'a> Words<'a> {
    /// # Panics
    /// If the mapping does not begin at a word.
    pub(super) fn new(memory: &'a Mapped) -> Self {
        assert!(memory.as_ptr().cast::<u64>().is_aligned(), "{memory:?}");
        Self { memory }
    }

    pub(super) fn len(&self) -> usize {
        self.memory.len() / WORD
    }

    fn word(&self, n: usize) -> *mut u64 {
        assert!(n < self.len(), "word {n} of {}", self.len());
        self.memory.as_ptr().cast::<u64>().wrapping_add(n)
    }

    pub(super) fn read(&self, n: usize) -> u64 {
        let at = self.word(n);
        // SAFETY: word `n` is inside the mapping (`word`) and aligned (`new`).
        unsafe { at.read_volatile() }
    }

    pub(super) fn write(&self, n: usize, value: u64) {
        let at = self.word(n);
        // SAFETY: word `n` is inside the mapping (`word`), writable, and aligned (`new`).
        unsafe { at.write_volatile(value) }
    }
}

/// What [`Queue::checksum`](super::Queue::checksum) answers for memory that holds `words`. Their
/// order counts.
#[must_use]
pub fn checksum_words(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0, fold_word)
}

/// One step of the checksum.
pub(super) const fn fold_word(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(7) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
