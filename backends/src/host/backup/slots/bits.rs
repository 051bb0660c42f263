//! A bit for each slot of a chunk.

/// Slots of a chunk: 2 MiB, as much as the longest run.
pub(super) const BITS: usize = 512;

const WORD: usize = u64::BITS as usize;

/// One bit a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bits([u64; BITS / WORD]);

impl Bits {
    pub(super) const NONE: Self = Self([0; BITS / WORD]);

    /// Sets the bits `from..from + len`, or clears them.
    pub(super) fn put(&mut self, from: usize, len: usize, on: bool) {
        for (word, mask) in masks(from, len) {
            match on {
                true => self.0[word] |= mask,
                false => self.0[word] &= !mask,
            }
        }
    }

    /// How many of the bits `from..from + len` are set.
    pub(super) fn count(&self, from: usize, len: usize) -> usize {
        let ones = masks(from, len).map(|(word, mask)| (self.0[word] & mask).count_ones());
        ones.sum::<u32>() as usize
    }

    /// Whether all of the bits `from..from + len` are set.
    pub(super) fn all(&self, from: usize, len: usize) -> bool {
        masks(from, len).all(|(word, mask)| self.0[word] & mask == mask)
    }

    /// The bits that are set here and not in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|n| self.0[n] & !other.0[n]))
    }

    /// The bits that are not set.
    pub(super) fn complement(&self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// The first bit at or after `from` that is set; [`BITS`] if none is.
    fn next(&self, from: usize) -> usize {
        if from >= BITS {
            return BITS;
        }
        let first = from / WORD;
        let mut word = self.0[first] & (!0 << (from % WORD));
        for n in first..self.0.len() {
            if n > first {
                word = self.0[n];
            }
            if word != 0 {
                return n * WORD + word.trailing_zeros() as usize;
            }
        }
        BITS
    }

    /// The runs of set bits, each as long as it gets: where it begins and how long it is.
    pub(super) fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let zeroes = self.complement();
        let mut at = 0;
        core::iter::from_fn(move || {
            let from = self.next(at);
            at = zeroes.next(from);
            (from < BITS).then_some((from, at - from))
        })
    }

    /// The length of the longest run.
    pub(super) fn longest(&self) -> usize {
        self.runs().map(|(_, len)| len).max().unwrap_or(0)
    }

    /// Where the shortest run begins that has `len` bits; the first of several.
    pub(super) fn best_fit(&self, len: usize) -> Option<usize> {
        let fitting = self.runs().filter(|(_, have)| *have >= len);
        fitting.min_by_key(|(_, have)| *have).map(|(from, _)| from)
    }
}

/// The words that hold the bits `from..from + len`, each with those bits set.
fn masks(from: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = from + len;
    (from / WORD..end.div_ceil(WORD)).map(move |word| {
        let low = from.max(word * WORD) - word * WORD;
        let high = end.min((word + 1) * WORD) - word * WORD;
        let ones = !0 >> (WORD - (high - low));
        (word, ones << low)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_put_counted_found_and_cleared() {
        for from in 0..BITS {
            for len in [1, 2, 63, 64, 65, 128, 511, 512] {
                if from + len > BITS {
                    continue;
                }
                let mut bits = Bits::NONE;
                bits.put(from, len, true);
                assert_eq!(bits.runs().collect::<Vec<_>>(), [(from, len)]);
                assert!(bits.all(from, len));
                assert_eq!(bits.count(0, BITS), len);
                assert_eq!(bits.complement().count(0, BITS), BITS - len);
                assert_eq!(bits.best_fit(len), Some(from));
                assert_eq!(bits.best_fit(len + 1), None);
                bits.put(from, len, false);
                assert_eq!(bits, Bits::NONE);
            }
        }
    }

    #[test]
    fn the_shortest_run_that_fits_is_the_best() {
        let mut bits = Bits::NONE;
        for (from, len) in [(0, 100), (110, 5), (120, 7), (130, 5), (200, 312)] {
            bits.put(from, len, true);
        }
        assert_eq!(bits.longest(), 312);
        let found = [1, 5, 6, 8, 101, 313].map(|len| bits.best_fit(len));
        assert_eq!(
            found,
            [Some(110), Some(110), Some(120), Some(0), Some(200), None]
        );
    }
}
