//! A shared, writable mapping of a part of a file.
//!
//! The rule that the `unsafe` blocks here rely on: a [`FileMap`] maps its bytes readable and
//! writable until it drops, and nobody makes a reference to them; whoever holds a [`Mapped`] of
//! it holds the [`FileMap`] too. A mapping that was somebody's is taken by value, so that nobody has
//! a reference to it any more. Its makers map only bytes that the file has and reserved, and
//! their files never shrink (`F_SEAL_SHRINK`), so an access never meets the end of the file.
#![expect(unsafe_code, reason = "a mapping becomes a Mapped")]

use core::ptr::NonNull;
use std::fs::File;
use std::io;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use ttm::pages::Mapped;
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};

use super::addresses::{Addresses, HUGE};

/// A mapping, and its place in a count of live ones. A forked child does not inherit it.
pub(crate) struct FileMap {
    map: Place,
    live: Arc<AtomicU64>,
}

/// Where the kernel was asked to map.
enum Place {
    Anywhere(MmapRaw),
    /// Where huge pages are mapped as such.
    Aligned(Addresses),
}

impl FileMap {
    /// Maps `len` bytes of `file` from `offset` on, page tables filled, counted in `live`. What
    /// could consist of huge pages, going by its offset and length, is mapped where they can be
    /// mapped as such.
    pub(crate) fn populated(
        file: &File,
        offset: u64,
        len: usize,
        live: &Arc<AtomicU64>,
    ) -> io::Result<Self> {
        if len > 0 && len.is_multiple_of(HUGE) && offset.is_multiple_of(HUGE as u64) {
            let addresses = Addresses::reserve(len)?;
            addresses.show(file, offset)?;
            return Ok(Self::counted(Place::Aligned(addresses), live));
        }
        Self::anywhere(
            MmapOptions::new().offset(offset).len(len).populate(),
            file,
            live,
        )
    }

    /// Takes a mapping over, from whoever owned it.
    pub(crate) fn owned(memory: MmapMut, live: &Arc<AtomicU64>) -> io::Result<Self> {
        let map = MmapRaw::from(memory);
        map.advise(Advice::DontFork)?;
        Ok(Self::counted(Place::Anywhere(map), live))
    }

    /// Maps `len` bytes of `file` from its beginning, page by page when touched.
    #[cfg(feature = "sim")]
    pub(crate) fn lazy(file: &File, len: usize, live: &Arc<AtomicU64>) -> io::Result<Self> {
        Self::anywhere(MmapOptions::new().len(len).no_reserve_swap(), file, live)
    }

    fn anywhere(options: &MmapOptions, file: &File, live: &Arc<AtomicU64>) -> io::Result<Self> {
        let map = options.map_raw(file)?;
        map.advise(Advice::DontFork)?;
        Ok(Self::counted(Place::Anywhere(map), live))
    }

    fn counted(map: Place, live: &Arc<AtomicU64>) -> Self {
        // Relaxed: the count is read by people and tests, it orders nothing.
        live.fetch_add(1, Ordering::Relaxed);
        Self {
            map,
            live: Arc::clone(live),
        }
    }

    fn len(&self) -> usize {
        match &self.map {
            Place::Anywhere(map) => map.len(),
            Place::Aligned(addresses) => addresses.len(),
        }
    }

    fn as_mut_ptr(&self) -> *mut u8 {
        match &self.map {
            Place::Anywhere(map) => map.as_mut_ptr(),
            Place::Aligned(addresses) => addresses.as_ptr(),
        }
    }

    /// All of it, unmapped when the result drops.
    pub(crate) fn into_mapped(self) -> Mapped {
        let len = self.len();
        let at = NonNull::new(self.as_mut_ptr()).expect("mmap never answers null");
        // SAFETY: `self.map` maps `len` bytes readable and writable at `at` until it drops, it is
        // moved into the owner, and no reference is made (rule above).
        unsafe { Mapped::new(at, len, self) }
    }

    /// `len` bytes from `offset` on, which keep all of it mapped. Costs no system call.
    ///
    /// # Panics
    /// If the part is not inside.
    pub(crate) fn part(self: &Arc<Self>, offset: usize, len: usize) -> Mapped {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        assert!(inside, "bytes {offset}+{len} of {}", self.len());
        // SAFETY: `offset <= len of the mapping` (asserted), so the result is inside it or at
        // its end.
        let at = unsafe { self.as_mut_ptr().add(offset) };
        let at = NonNull::new(at).expect("mmap never answers null");
        // SAFETY: `offset + len` is inside the mapping (asserted), which lives as long as the
        // owner's clone, and no reference is made (rule above).
        unsafe { Mapped::new(at, len, Arc::clone(self)) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}
