//! What is in the objects: words that say whose they are, and what a pass makes of them.

use std::fmt;

/// The words of an object before any pass.
pub(crate) fn fresh(object: u64, words: u64) -> Vec<u32> {
    let first = (object as u32).wrapping_mul(0x1656_67b1) ^ 0xdead_beef;
    (0..words as u32)
        .map(|n| first ^ n.wrapping_mul(0x27d4_eb2f))
        .collect()
}

/// What one pass makes of the word at `n`: the same as the shader (`step.wgsl`).
pub(crate) fn step(word: u32, n: u32) -> u32 {
    let word = (word ^ n.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
    let word = word ^ word >> 13;
    word.wrapping_mul(0xc2b2_ae35).wrapping_add(1)
}

/// The words of an object after so many passes, by the CPU.
pub(crate) fn after(object: u64, words: u64, passes: u32) -> Vec<u32> {
    let mut all = fresh(object, words);
    for (n, word) in (0..).zip(&mut all) {
        for _ in 0..passes {
            *word = step(*word, n);
        }
    }
    all
}

/// The bytes of words.
pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A word that is not what the CPU makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong {
    pub(crate) word: u64,
    pub(crate) expected: u32,
    pub(crate) found: u32,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "word {} is {:#x} instead of {:#x}",
            self.word, self.found, self.expected
        )
    }
}

/// How many words differ, and the first of them.
pub(crate) fn compare(found: &[u8], expected: &[u32]) -> (u64, Option<Wrong>) {
    let mut count = 0;
    let mut first = None;
    for (n, (bytes, expected)) in (0..).zip(found.as_chunks().0.iter().zip(expected)) {
        let found = u32::from_le_bytes(*bytes);
        if found != *expected {
            count += 1;
            first.get_or_insert(Wrong {
                word: n,
                expected: *expected,
                found,
            });
        }
    }
    let missing = expected.len().saturating_sub(found.len() / 4) as u64;
    (count + missing, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_changes_every_word_and_depends_on_its_place() {
        let before = fresh(3, 1000);
        let after = after(3, 1000, 1);
        assert!(before.iter().zip(&after).all(|(a, b)| a != b));
        assert_ne!(step(7, 1), step(7, 2));
        assert_ne!(fresh(1, 8), fresh(2, 8));
    }

    #[test]
    fn each_wrong_word_is_counted_and_the_first_named() {
        let right = fresh(1, 100);
        let mut found = bytes(&right);
        assert_eq!(compare(&found, &right).0, 0);
        found[40] ^= 1;
        found[44] ^= 1;
        let (count, first) = compare(&found, &right);
        assert_eq!((count, first.unwrap().word), (2, 10));
        assert_eq!(
            compare(&found[..396], &right).0,
            3,
            "a word that is missing is wrong"
        );
    }
}
