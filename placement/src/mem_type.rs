//! Kinds of memory.

use core::fmt;

/// A kind of memory that an object can be in.
///
/// There are [`COUNT`](Self::COUNT) of them, so that a table by type is a small array. What a
/// private type is (an on-chip scratch memory, a second VRAM) only its driver knows.
///
/// ```
/// use placement::MemType;
///
/// assert_eq!(MemType::VRAM.to_string(), "vram");
/// assert_eq!(MemType::private(5).map(MemType::index), Some(8));
/// assert_eq!(MemType::private(6), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemType(u8);

impl MemType {
    /// System memory that no device can reach as it is.
    pub const SYSTEM: Self = Self(0);

    /// System memory that the device reaches through its translation table.
    pub const TT: Self = Self(1);

    /// The device's own memory.
    pub const VRAM: Self = Self(2);

    /// How many types there are, private ones included.
    pub const COUNT: usize = 9;

    /// The `n`th type private to a driver; there are six.
    pub const fn private(n: u8) -> Option<Self> {
        if n < 6 { Some(Self(3 + n)) } else { None }
    }

    /// The position in a table of [`COUNT`](Self::COUNT) entries.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The type at `index` of such a table.
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < Self::COUNT {
            Some(Self(index as u8))
        } else {
            None
        }
    }

    /// All types, in order of their index.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).filter_map(Self::from_index)
    }
}

impl fmt::Display for MemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SYSTEM => f.pad("system"),
            Self::TT => f.pad("tt"),
            Self::VRAM => f.pad("vram"),
            Self(n) => write!(f, "private{}", n - 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn every_type_has_its_own_index_and_name() {
        let names: Vec<_> = MemType::all().map(|t| t.to_string()).collect();
        assert_eq!(
            names,
            [
                "system", "tt", "vram", "private0", "private1", "private2", "private3", "private4",
                "private5"
            ]
        );
        for (index, mem_type) in MemType::all().enumerate() {
            assert_eq!(mem_type.index(), index);
        }
        assert_eq!(MemType::from_index(MemType::COUNT), None);
        assert_eq!(MemType::private(0).map(MemType::index), Some(3));
    }
}
