//! A shared, writable mapping of a part of a file.
//!
//! The rule that the `unsafe` blocks here rely on: a [`FileMap`] maps its bytes readable and
//! writable until it drops, and nobody makes a reference to them; whoever holds a [`Mapped`] of
//! it holds the [`FileMap`] too. Its makers map only bytes that the file has and reserved, and
//! their files never shrink (`F_SEAL_SHRINK`), so an access never meets the end of the file.
#![expect(unsafe_code, reason = "a mapping becomes a Mapped")]

use core::ptr::NonNull;
use std::fs::File;
use std::io;

use memmap2::{Advice, MmapOptions, MmapRaw};
use ttm::pages::Mapped;
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};

/// A mapping, and its place in a count of live ones. A forked child does not inherit it.
pub(crate) struct FileMap {
    map: MmapRaw,
    live: Arc<AtomicU64>,
}

impl FileMap {
    /// Maps `len` bytes of `file` from `offset` on, page tables filled, counted in `live`.
    pub(crate) fn populated(
        file: &File,
        offset: u64,
        len: usize,
        live: &Arc<AtomicU64>,
    ) -> io::Result<Self> {
        Self::counted(
            MmapOptions::new().offset(offset).len(len).populate(),
            file,
            live,
        )
    }

    /// Maps `len` bytes of `file` from its beginning, page by page when touched.
    #[cfg(feature = "sim")]
    pub(crate) fn lazy(file: &File, len: usize, live: &Arc<AtomicU64>) -> io::Result<Self> {
        Self::counted(MmapOptions::new().len(len).no_reserve_swap(), file, live)
    }

    fn counted(options: &MmapOptions, file: &File, live: &Arc<AtomicU64>) -> io::Result<Self> {
        let map = options.map_raw(file)?;
        map.advise(Advice::DontFork)?;
        // Relaxed: the count is read by people and tests, it orders nothing.
        live.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            map,
            live: Arc::clone(live),
        })
    }

    /// All of it, unmapped when the result drops.
    pub(crate) fn into_mapped(self) -> Mapped {
        let len = self.map.len();
        let at = NonNull::new(self.map.as_mut_ptr()).expect("mmap never answers null");
        // SAFETY: `self.map` maps `len` bytes readable and writable at `at` until it drops, it is
        // moved into the owner, and no reference is made (rule above).
        unsafe { Mapped::new(at, len, Box::new(self)) }
    }

    /// `len` bytes from `offset` on, which keep all of it mapped. Costs no system call.
    ///
    /// # Panics
    /// If the part is not inside.
    #[cfg(feature = "sim")]
    pub(crate) fn part(self: &Arc<Self>, offset: usize, len: usize) -> Mapped {
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.map.len());
        assert!(inside, "bytes {offset}+{len} of {}", self.map.len());
        // SAFETY: `offset <= len of the mapping` (asserted), so the result is inside it or at
        // its end.
        let at = unsafe { self.map.as_mut_ptr().add(offset) };
        let at = NonNull::new(at).expect("mmap never answers null");
        // SAFETY: `offset + len` is inside the mapping (asserted), which lives as long as the
        // owner's clone, and no reference is made (rule above).
        unsafe { Mapped::new(at, len, Box::new(Arc::clone(self))) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}
