//! Ordinary memory of the process, shown by mappings as if it were a device's or a file's.
//!
//! The rule that the `unsafe` blocks here rely on: nobody but a [`Mapped`] looks at the words, which
//! copies without references, and none of them goes before the last mapping.
#![expect(unsafe_code, reason = "mappings of memory that they share")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;

use super::Mapped;
use crate::sync::Arc;

/// Zeroed memory of the process that any number of mappings show at once: what a page source has that
/// keeps frames in no file, a model of a machine above all.
pub struct Heap {
    words: Box<[UnsafeCell<u64>]>,
}

// SAFETY: the words are plain numbers (`Send`).
unsafe impl Send for Heap {}
// SAFETY: the words are reached through `Mapped` alone, which copies without references.
unsafe impl Sync for Heap {}

impl Heap {
    /// That many bytes, rounded up to whole words of eight.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let words = bytes.div_ceil(8);
        Arc::new(Self {
            words: (0..words).map(|_| UnsafeCell::new(0)).collect(),
        })
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.words.len() * 8
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Shows `len` bytes from `offset` on. The memory stays as long as the mapping.
    ///
    /// # Panics
    /// If they are not inside.
    #[must_use]
    pub fn map(self: &Arc<Self>, offset: usize, len: usize) -> Mapped {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len()),
            "bytes {offset}+{len} of {}",
            self.len()
        );
        let at = self
            .words
            .as_ptr()
            .cast::<u8>()
            .cast_mut()
            .wrapping_add(offset);
        let at = NonNull::new(at).expect("inside of memory");
        // SAFETY: `len` bytes from there on are in cells of the box (asserted), which may be written
        // behind a shared reference, and which lives as long as the owner that is handed over.
        unsafe { Mapped::new(at, len, Arc::clone(self)) }
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heap({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_the_same_bytes_show_the_same() {
        let heap = Heap::new(4096);
        let (one, other) = (heap.map(0, 4096), heap.map(64, 64));
        drop(heap);
        one.write(64, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(other.load_u32(0), 0x0403_0201);
        assert_eq!(other.load_u64(0), 0x0807_0605_0403_0201);
        other.store_u32(4, 0xaabb_ccdd);
        other.store_u64(8, u64::MAX);
        let mut seen = [0; 17];
        one.read(64, &mut seen);
        assert_eq!(seen[4..8], [0xdd, 0xcc, 0xbb, 0xaa]);
        assert_eq!(seen[8..], [255, 255, 255, 255, 255, 255, 255, 255, 0]);
    }

    #[test]
    #[should_panic(expected = "lies across two")]
    fn a_word_between_two_is_refused() {
        let _ = Heap::new(64).map(0, 64).load_u64(4);
    }

    #[test]
    #[should_panic(expected = "bytes 60+4 of a mapping of 62")]
    fn a_word_outside_is_refused() {
        Heap::new(64).map(0, 62).store_u32(60, 1);
    }
}
