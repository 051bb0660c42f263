//! What a word of an object says: whose it is, who wrote it, and as the how-manieth.
//!
//! ```text
//! 63        44 43     36 35        32 31             0
//! │ object   │ writer   │ generation │ sequence       │
//! ```
//!
//! Each word has one writer, whose sequence there goes up by one. So a wrong word tells foreign
//! content from stale, from lost, from torn. The generation is that of the run: what an earlier one
//! has left behind is told too. A word that nobody has written yet is zero.

/// Whose word it is: all but its sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) object: u32,
    pub(crate) writer: u8,
    pub(crate) generation: u8,
}

impl Owner {
    /// The word with that sequence; without one, nobody has written it.
    pub(crate) fn word(self, sequence: u32) -> u64 {
        if sequence == 0 {
            return 0;
        }
        u64::from(self.object) << 44
            | u64::from(self.writer) << 36
            | u64::from(self.generation & 0xf) << 32
            | u64::from(sequence)
    }

    /// The sequence of a word; `None` if it is not one of this owner's.
    pub(crate) fn sequence(self, word: u64) -> Option<u32> {
        let sequence = word as u32;
        (self.word(sequence) == word).then_some(sequence)
    }
}

/// A word in words.
pub(crate) fn decoded(word: u64) -> String {
    if word == 0 {
        return "never written".into();
    }
    format!(
        "object {}, writer {}, generation {}, sequence {}",
        word >> 44,
        word >> 36 & 0xff,
        word >> 32 & 0xf,
        word & 0xffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_finds_a_sequence_in_a_word() {
        let owner = Owner {
            object: 7,
            writer: 2,
            generation: 3,
        };
        let word = owner.word(100);
        assert_eq!(owner.sequence(word), Some(100));
        assert_eq!(owner.sequence(0), Some(0));
        assert_eq!(Owner { object: 8, ..owner }.sequence(word), None);
        assert_eq!(Owner { writer: 1, ..owner }.sequence(word), None);
        let earlier = Owner {
            generation: 2,
            ..owner
        };
        assert_eq!(earlier.sequence(word), None);
        // Half a word: the sequence without its owner.
        assert_eq!(owner.sequence(word & 0xffff_ffff), None);
        assert!(decoded(word).contains("object 7, writer 2, generation 3, sequence 100"));
    }
}
