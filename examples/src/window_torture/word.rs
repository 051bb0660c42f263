//! Whose a [word](cli::word) of an object is.
//!
//! Each word has one writer, whose sequence there goes up by one. The generation is that of the run:
//! what an earlier one has left behind is told too.

use cli::word::word;

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
        word(self.object.into(), self.writer, self.generation, sequence)
    }

    /// The sequence of a word; `None` if it is not one of this owner's.
    pub(crate) fn sequence(self, word: u64) -> Option<u32> {
        let sequence = word as u32;
        (self.word(sequence) == word).then_some(sequence)
    }
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
    }
}
