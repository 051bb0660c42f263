//! The words that programs fill objects with, which say whose they are.
//!
//! ```text
//! 63        44 43     36 35        32 31             0
//! │ object   │ writer   │ generation │ sequence       │
//! ```
//!
//! A word that nobody has written yet is zero. So a wrong word tells foreign content from stale,
//! from lost, from torn.

/// A word. Of the generation the lowest four bits count.
///
/// ```
/// assert_eq!(cli::word::word(7, 2, 3, 100), 0x0000_7023_0000_0064);
/// ```
#[must_use]
pub fn word(object: u64, writer: u8, generation: u8, sequence: u32) -> u64 {
    object << 44 | u64::from(writer) << 36 | u64::from(generation & 0xf) << 32 | u64::from(sequence)
}

/// The generation in a word.
#[must_use]
pub fn generation(word: u64) -> u8 {
    (word >> 32) as u8 & 0xf
}

/// A word in words.
///
/// ```
/// let word = cli::word::word(7, 2, 3, 100);
/// assert_eq!(cli::word::decoded(word), "object 7, writer 2, generation 3, sequence 100");
/// assert_eq!(cli::word::decoded(0), "never written");
/// ```
#[must_use]
pub fn decoded(word: u64) -> String {
    if word == 0 {
        return "never written".into();
    }
    format!(
        "object {}, writer {}, generation {}, sequence {}",
        word >> 44,
        word >> 36 & 0xff,
        generation(word),
        word & 0xffff_ffff
    )
}
