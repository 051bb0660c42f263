//! Sizes in bytes as a person writes them: `64G`, `2M`, `1.5G`, `4096`.
//!
//! Suffixes are powers of 1024. A size prints in the shortest form that parses back to the same
//! number of bytes; [`ByteSize::human`] rounds instead.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// The suffixes, largest first, with the bytes each stands for.
const UNITS: [(char, u64); 5] = [
    ('P', 1 << 50),
    ('T', 1 << 40),
    ('G', 1 << 30),
    ('M', 1 << 20),
    ('K', 1 << 10),
];

/// The most digits after the point, which keeps the arithmetic far from overflow.
const MAX_DECIMALS: usize = 9;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// One kibibyte.
    pub const KIB: Self = Self(1 << 10);
    /// One mebibyte.
    pub const MIB: Self = Self(1 << 20);

    /// The size as a number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The size rounded to one decimal of its largest unit, for tables: `35.7 GiB`.
    pub fn human(self) -> String {
        match UNITS.iter().find(|(_, unit)| self.0 >= *unit) {
            Some((suffix, unit)) => format!("{:.1} {suffix}iB", self.0 as f64 / *unit as f64),
            None => format!("{} B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// Reads digits, perhaps a decimal fraction, perhaps a suffix (`K`, `KB` or `KiB`, any case).
    ///
    /// A fraction of a byte is dropped.
    ///
    /// # Errors
    /// - [`SizeError::NotASize`]: anything else.
    /// - [`SizeError::TooLarge`]: it doesn't fit in 64 bits.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let not_a_size = || SizeError::NotASize(text.to_owned());
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let unit = unit_of(suffix.trim_start()).ok_or_else(not_a_size)?;
        let (whole, decimals) = match number.split_once('.') {
            Some((whole, decimals)) if unit > 1 && !decimals.is_empty() => (whole, decimals),
            Some(_) => return Err(not_a_size()),
            None => (number, ""),
        };
        if whole.is_empty() || decimals.contains('.') || decimals.len() > MAX_DECIMALS {
            return Err(not_a_size());
        }
        let too_large = || SizeError::TooLarge(text.to_owned());
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let bytes = whole.checked_mul(unit).ok_or_else(too_large)?;
        let part = fraction_of(decimals, unit);
        bytes.checked_add(part).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
        {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Why a text is not a [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// It doesn't read as a size.
    NotASize(String),
    /// It reads as a size of 2^64 bytes or more.
    TooLarge(String),
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASize(found) => write!(
                f,
                "expected a size such as 64G, 1.5G, 2M or 4096 (suffixes K, M, G, T, P), \
                 found {found:?}"
            ),
            Self::TooLarge(found) => write!(f, "expected a size below 2^64 bytes, found {found:?}"),
        }
    }
}

impl std::error::Error for SizeError {}

fn unit_of(suffix: &str) -> Option<u64> {
    let upper = suffix.to_ascii_uppercase();
    if matches!(upper.as_str(), "" | "B") {
        return Some(1);
    }
    let mut letters = upper.chars();
    let first = letters.next()?;
    if !matches!(letters.as_str(), "" | "B" | "IB") {
        return None;
    }
    UNITS
        .iter()
        .find(|(suffix, _)| *suffix == first)
        .map(|(_, unit)| *unit)
}

/// `0.decimals` of `unit`, rounded down. At most [`MAX_DECIMALS`] digits, so nothing overflows.
fn fraction_of(decimals: &str, unit: u64) -> u64 {
    let (mut part, mut scale) = (0u128, 1u128);
    for digit in decimals.bytes() {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    (part * u128::from(unit) / scale) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<u64, SizeError> {
        text.parse::<ByteSize>().map(ByteSize::bytes)
    }

    #[test]
    fn suffixes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("2M", 2 << 20),
            ("2m", 2 << 20),
            ("2MiB", 2 << 20),
            ("2 MB", 2 << 20),
            ("64G", 64 << 30),
            ("1.5G", 3 << 29),
            ("0.5K", 512),
            ("1.0001K", 1024),
            ("1T", 1 << 40),
            ("16383P", 16383 << 50),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_text_found() {
        for text in [
            "",
            "G",
            "-1",
            "1.5",
            "1..5G",
            "1.G",
            ".5G",
            "5X",
            "5GG",
            "5iB",
            "1e3",
            "∞",
            "2Mé",
            "1.0000000001G",
            "0x10",
            "1,000",
        ] {
            assert_eq!(size(text), Err(SizeError::NotASize(text.into())), "{text}");
        }
    }

    #[test]
    fn an_overflow_is_too_large_and_never_wraps() {
        for text in [
            "16384P",
            "18446744073709551616",
            "99999999999999999999999G",
            "16384.5P",
        ] {
            assert_eq!(size(text), Err(SizeError::TooLarge(text.into())), "{text}");
        }
        assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn every_size_prints_to_a_text_that_parses_back() {
        for shift in 0..64 {
            for near in [-1i64, 0, 1, 3] {
                let size = ByteSize((1u64 << shift).wrapping_add_signed(near));
                assert_eq!(size.to_string().parse(), Ok(size), "{size}");
            }
        }
        assert_eq!(ByteSize(64 << 30).to_string(), "64G");
        assert_eq!(ByteSize(3 << 29).to_string(), "1536M");
        assert_eq!(ByteSize(3 << 29).human(), "1.5 GiB");
        assert_eq!(ByteSize(1023).human(), "1023 B");
    }
}
