//! Words of memory that others write at the same time.
//!
//! The rule that the `unsafe` blocks here rely on: the caller of [`words`] and [`words_mut`] has
//! addresses that stay mapped for the lifetime that it asks for, readable, and writable for
//! [`words_mut`], at a multiple of 8. All Rust accesses to them go through these cells or by raw
//! copies, never by other references, so that atomics are the only references there are.
#![expect(
    unsafe_code,
    reason = "memory that others write is seen through atomics only"
)]

use crate::sync::foreign::{AtomicU64, Ordering};

/// A word that can be read. Whoever else writes it, a device or another thread, does no harm: each
/// load gives some value that was there.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU64);

impl Word {
    /// The value, relaxed: it orders nothing.
    #[inline]
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A word that can be read and written.
#[repr(transparent)]
#[derive(Debug)]
pub struct WordMut(AtomicU64);

impl WordMut {
    /// The value, relaxed: it orders nothing.
    #[inline]
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Writes the value, relaxed.
    #[inline]
    pub fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The words of `bytes` bytes at `base`.
///
/// # Safety
/// The bytes stay mapped and readable for `'a`, `base` is a multiple of 8, and no reference of
/// another type than atomics is made to them meanwhile.
pub(super) unsafe fn words<'a>(base: *const u8, bytes: usize) -> &'a [Word] {
    // SAFETY: as the caller promises; `Word` is a transparent atomic, for which any bytes are valid.
    unsafe { core::slice::from_raw_parts(base.cast(), bytes / 8) }
}

/// The same, writable.
///
/// # Safety
/// As [`words`], and the bytes are writable.
pub(super) unsafe fn words_mut<'a>(base: *const u8, bytes: usize) -> &'a [WordMut] {
    // SAFETY: as the caller promises; `WordMut` is a transparent atomic, for which any bytes are
    // valid.
    unsafe { core::slice::from_raw_parts(base.cast(), bytes / 8) }
}
