//! A short mapping of memory that a device, or another process, may use at the same time.
//!
//! The rule that the `unsafe` blocks here rely on: `len` bytes at `at` stay mapped, readable and
//! writable, until `owner` drops (the contract of [`Mapped::new`]), and every access goes by
//! [`copy_memory`], a fill or an atomic word, never by a reference that outlives the access.
#![expect(unsafe_code, reason = "memory that others write is never a reference")]

use core::fmt;
use core::ptr::NonNull;

use super::copy::{copy_memory, copy_piece};
use super::owner::Owner;
use crate::sync::foreign::{AtomicU32, AtomicU64, Ordering};

/// Mapped memory. Dropping it unmaps.
pub struct Mapped {
    at: NonNull<u8>,
    len: usize,
    _owner: Owner,
}

// SAFETY: the memory belongs to no thread, and the owner is `Send`.
unsafe impl Send for Mapped {}
// SAFETY: all access through `&Mapped` is by raw copies that tolerate concurrent writers, and the
// owner is `Sync`.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Wraps a mapping that `owner` keeps alive. An owner of up to six words is kept in place: then
    /// this allocates nothing.
    ///
    /// # Safety
    /// `len` bytes at `at` are mapped readable and writable until `owner` drops, and no Rust
    /// reference to them exists meanwhile.
    pub unsafe fn new<O: Send + Sync + 'static>(at: NonNull<u8>, len: usize, owner: O) -> Self {
        Self {
            at,
            len,
            _owner: Owner::new(owner),
        }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first byte. Valid while the mapping lives; others may write behind it.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    fn checked(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "bytes {offset}+{len} of a mapping of {}",
            self.len
        );
        // SAFETY: `offset <= self.len` (asserted), so the result is inside the mapping or one
        // past its end.
        unsafe { self.at.as_ptr().add(offset) }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let from = self.checked(offset, out.len());
        // SAFETY: `out.len()` bytes are mapped at `from` (`checked`), and `out` is ours.
        unsafe { copy_memory(from, out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.checked(offset, bytes.len());
        // SAFETY: `bytes.len()` bytes are mapped at `to` (`checked`), and `bytes` is ours.
        unsafe { copy_memory(bytes.as_ptr(), to, bytes.len()) }
    }

    /// The address of an aligned word of `len` bytes, which is a power of two.
    fn word(&self, offset: usize, len: usize) -> *mut u8 {
        let at = self.checked(offset, len);
        assert!(
            at.addr().is_multiple_of(len),
            "a word of {len} bytes at {offset} of a mapping lies across two"
        );
        at
    }

    /// Reads the word at `offset` by one access, relaxed: it orders nothing.
    ///
    /// # Panics
    /// If it is not inside, or its address is no multiple of 4.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> u32 {
        let at = self.word(offset, 4).cast::<u32>();
        // SAFETY: four bytes are mapped there (`word`), aligned (asserted), and all Rust accesses to
        // them are raw copies or atomics (rule above).
        unsafe { AtomicU32::from_ptr(at) }.load(Ordering::Relaxed)
    }

    /// Writes the word at `offset` by one access, relaxed.
    ///
    /// # Panics
    /// As [`Mapped::load_u32`].
    pub fn store_u32(&self, offset: usize, value: u32) {
        let at = self.word(offset, 4).cast::<u32>();
        // SAFETY: as in `load_u32`, and the mapping is writable.
        unsafe { AtomicU32::from_ptr(at) }.store(value, Ordering::Relaxed);
    }

    /// Reads the word at `offset` by one access, relaxed.
    ///
    /// # Panics
    /// If it is not inside, or its address is no multiple of 8.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        let at = self.word(offset, 8).cast::<u64>();
        // SAFETY: eight bytes are mapped there (`word`), aligned (asserted), and all Rust accesses to
        // them are raw copies or atomics (rule above).
        unsafe { AtomicU64::from_ptr(at) }.load(Ordering::Relaxed)
    }

    /// Writes the word at `offset` by one access, relaxed.
    ///
    /// # Panics
    /// As [`Mapped::load_u64`].
    pub fn store_u64(&self, offset: usize, value: u64) {
        let at = self.word(offset, 8).cast::<u64>();
        // SAFETY: as in `load_u64`, and the mapping is writable.
        unsafe { AtomicU64::from_ptr(at) }.store(value, Ordering::Relaxed);
    }

    /// Sets `len` bytes to zero.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn zero(&self, offset: usize, len: usize) {
        let to = self.checked(offset, len);
        // SAFETY: `len` bytes are mapped writable at `to` (`checked`).
        unsafe { to.write_bytes(0, len) }
    }

    /// Copies `len` bytes from here to `other`.
    ///
    /// # Panics
    /// If either range is not inside.
    pub fn copy_to(&self, offset: usize, other: &Self, other_offset: usize, len: usize) {
        self.copy_piece_to(offset, other, other_offset, len, len as u64);
    }

    /// The same as a piece of a copy of `whole` bytes.
    pub(crate) fn copy_piece_to(
        &self,
        offset: usize,
        other: &Self,
        other_offset: usize,
        len: usize,
        whole: u64,
    ) {
        let from = self.checked(offset, len);
        let to = other.checked(other_offset, len);
        // SAFETY: `len` bytes are mapped at both (`checked`).
        unsafe { copy_piece(from, to, len, whole) }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} bytes)", self.len)
    }
}
