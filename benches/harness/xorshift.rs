//! The two generators that workloads are drawn from, so that a row does the same operations on
//! every machine and beside every opponent.

/// Marsaglia's xorshift of 64 bits, shifts 13, 7, 17, as the kernel's rows draw.
#[derive(Clone, Debug)]
pub struct Xorshift {
    state: u64,
}

impl Xorshift {
    /// The state that every row of the kernel's starts from.
    pub const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

    /// Starts at [`Self::SEED`].
    pub fn new() -> Self {
        Self { state: Self::SEED }
    }

    /// Draws 31 bits: the state after a step, less its 33 low bits.
    pub fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 33
    }

    /// Draws a number below `bound` by the remainder, as the kernel's rows do.
    pub fn below(&mut self, bound: usize) -> usize {
        self.draw() as usize % bound
    }

    /// Puts `items` in random order: from the last down, each changes places with one at or
    /// before it.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

impl Default for Xorshift {
    fn default() -> Self {
        Self::new()
    }
}

/// Vigna's xorshift64*, as the allocator mixes draw.
#[derive(Clone, Debug)]
pub struct XorshiftStar {
    state: u64,
}

impl XorshiftStar {
    /// The `index`-th of a family of starting points, spread by SplitMix64.
    pub fn seeded(index: u64) -> Self {
        let mut mixed = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // Zero is the one state that stays where it is.
        Self {
            state: (mixed ^ (mixed >> 31)).max(1),
        }
    }

    /// Draws 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Draws a number below `bound`, without a division.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }

    /// Draws from [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_draws_are_the_published_steps() {
        let mut state = Xorshift::SEED;
        let mut generator = Xorshift::new();
        for _ in 0..1000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            assert_eq!(generator.draw(), state >> 33);
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_repeats_itself() {
        let mut once: Vec<u32> = (0..1000).collect();
        let mut again = once.clone();
        Xorshift::new().shuffle(&mut once);
        Xorshift::new().shuffle(&mut again);
        assert_eq!(once, again);
        assert!(!once.is_sorted());
        once.sort_unstable();
        assert!(once.iter().copied().eq(0..1000));
    }

    #[test]
    fn units_and_bounds_are_kept_and_filled() {
        let mut generator = XorshiftStar::seeded(0);
        let mut seen = [0_u32; 10];
        let mut sum = 0.0;
        for _ in 0..10_000 {
            seen[generator.below(10)] += 1;
            let unit = generator.unit();
            assert!((0.0..1.0).contains(&unit));
            sum += unit;
        }
        assert!(
            seen.iter().all(|&times| (800..1200).contains(&times)),
            "{seen:?}"
        );
        assert!((4800.0..5200.0).contains(&sum), "{sum}");
    }
}
