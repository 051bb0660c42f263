//! The content oracle: every [word](cli::word) says who wrote it where and when.
//!
//! The generation counts the writes of a page; the sequence is another for every page written. All
//! words of a page are equal. So a wrong word tells foreign content from stale from torn.

use std::fmt;
use std::sync::Arc;

use cli::word::{decoded, generation};
use placement::PAGE_SIZE;

/// Words in a page.
pub(super) const WORDS: usize = (PAGE_SIZE / 8) as usize;

/// The most objects that tags tell apart.
pub(super) const MAX_OBJECTS: u64 = 1 << 20;

/// What one object should hold: a word for each page.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    object: u64,
    pages: Arc<[u64]>,
}

/// A word that is not what its writer wrote last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrongWord {
    pub(super) object: u64,
    pub(super) offset: u64,
    pub(super) expected: u64,
    pub(super) found: u64,
    /// How many words are wrong in what was read.
    pub(super) words: u64,
}

impl Expected {
    /// A fresh object: zeroes.
    pub(super) fn fresh(object: u64, pages: usize) -> Self {
        Self {
            object,
            pages: vec![0; pages].into(),
        }
    }

    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Whether every page was written.
    pub(super) fn is_written(&self) -> bool {
        self.pages.iter().all(|word| *word != 0)
    }

    /// The words of all pages, for a kernel that writes them.
    pub(super) fn words(&self) -> Arc<[u64]> {
        Arc::clone(&self.pages)
    }

    /// The same with pages `first` to `end` written anew by `writer`, beginning at `sequence`.
    pub(super) fn written(&self, first: usize, end: usize, writer: u8, sequence: u32) -> Self {
        let mut pages = self.pages.to_vec();
        for (page, word) in pages.iter_mut().enumerate().take(end).skip(first) {
            let generation = generation(*word).wrapping_add(1);
            let sequence = sequence.wrapping_add(page as u32);
            *word = cli::word::word(self.object, writer, generation, sequence);
        }
        Self {
            object: self.object,
            pages: pages.into(),
        }
    }

    /// The same with one added to every word.
    pub(super) fn plus_one(&self) -> Self {
        Self {
            object: self.object,
            pages: self.pages.iter().map(|word| word.wrapping_add(1)).collect(),
        }
    }

    /// The bytes of pages `first` to `end`.
    pub(super) fn fill(&self, first: usize, end: usize, bytes: &mut Vec<u8>) {
        bytes.clear();
        for word in &self.pages[first..end] {
            for _ in 0..WORDS {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Compares what was read from page `first` on, word by word.
    pub(super) fn compare(&self, first: usize, bytes: &[u8]) -> Result<u64, WrongWord> {
        let mut wrong: Option<WrongWord> = None;
        for (page, bytes) in (first..).zip(bytes.chunks(PAGE_SIZE as usize)) {
            let expected = self.pages[page];
            for (n, word) in bytes.chunks_exact(8).enumerate() {
                let found = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                if found == expected {
                    continue;
                }
                let first = wrong.get_or_insert(WrongWord {
                    object: self.object,
                    offset: page as u64 * PAGE_SIZE + n as u64 * 8,
                    expected,
                    found,
                    words: 0,
                });
                first.words += 1;
            }
        }
        match wrong {
            Some(wrong) => Err(wrong),
            None => Ok(bytes.len() as u64 / 8),
        }
    }

    /// What a checksum kernel should find.
    pub(super) fn checksum(&self) -> u64 {
        let words = self.pages.iter();
        backends::sim::checksum_words(words.flat_map(|word| std::iter::repeat_n(*word, WORDS)))
    }
}

impl fmt::Display for WrongWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "object {}, byte offset {}: expected {:#018x} ({}), found {:#018x} ({})",
            self.object,
            self.offset,
            self.expected,
            decoded(self.expected),
            self.found,
            decoded(self.found)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_tells_its_object_writer_generation_and_sequence() {
        let expected = Expected::fresh(7, 2).written(1, 2, 3, 100);
        assert_eq!(expected.pages[0], 0);
        let text = decoded(expected.pages[1]);
        assert_eq!(text, "object 7, writer 3, generation 1, sequence 101");
    }

    #[test]
    fn one_flipped_bit_is_found_with_its_place() {
        let expected = Expected::fresh(7, 2).written(0, 2, 3, 100);
        let mut bytes = Vec::new();
        expected.fill(0, 2, &mut bytes);
        assert_eq!(expected.compare(0, &bytes), Ok(1024));
        bytes[4096 + 16] ^= 4;
        let wrong = expected.compare(0, &bytes).unwrap_err();
        assert_eq!((wrong.offset, wrong.words), (4112, 1));
        assert_eq!(wrong.expected ^ wrong.found, 4);
        assert!(wrong.to_string().contains("object 7, byte offset 4112"));
    }
}
