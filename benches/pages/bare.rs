//! The bare system calls beside which pages are measured.
//!
//! The rule that the `unsafe` blocks here rely on: a mapping is this module's own, from the `mmap`
//! that made it to the `munmap` that ends it, and nobody refers to its bytes.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memory file of holes.
pub(crate) struct Holes {
    file: File,
    len: u64,
}

impl Holes {
    /// `len` bytes of nothing.
    pub(crate) fn new(len: u64) -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create(
            "bench holes",
            MemfdFlags::CLOEXEC,
        )?);
        file.set_len(len)?;
        Ok(Self { file, len })
    }

    /// Puts memory behind `bytes` and maps it for a moment, page tables filled.
    pub(crate) fn fill(&self, bytes: Range<u64>) -> io::Result<()> {
        let len = bytes.end - bytes.start;
        rustix::fs::fallocate(&self.file, FallocateFlags::empty(), bytes.start, len)?;
        let len = len as usize;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let at = unsafe {
            mmap(
                core::ptr::null_mut(),
                len,
                prot,
                flags,
                &self.file,
                bytes.start,
            )
        }?;
        // SAFETY: mapped just now, with that length, and nobody refers to it (rule above).
        unsafe { munmap(at, len) }?;
        Ok(())
    }

    /// Puts memory behind all of it.
    pub(crate) fn fill_all(&self) -> io::Result<()> {
        rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, self.len)?;
        Ok(())
    }

    /// Gives all memory back, in one call.
    pub(crate) fn punch(&self) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, how, 0, self.len)?;
        Ok(())
    }
}

/// Memory of a file, mapped and touched.
pub(crate) struct Memory {
    at: *mut core::ffi::c_void,
    len: usize,
}

impl Memory {
    /// `bytes` bytes, with memory behind all of them.
    pub(crate) fn new(bytes: u64) -> io::Result<Self> {
        let holes = Holes::new(bytes)?;
        holes.fill_all()?;
        let len = bytes as usize;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let at = unsafe { mmap(core::ptr::null_mut(), len, prot, flags, &holes.file, 0) }?;
        let memory = Self { at, len };
        memory.zero();
        Ok(memory)
    }

    /// Sets all of it to zero.
    pub(crate) fn zero(&self) {
        // SAFETY: `len` bytes are mapped writable at `at` until the drop (rule above).
        unsafe { self.at.write_bytes(0, self.len) }
        std::hint::black_box(self.at);
    }
}

impl Memory {
    /// Writes every line back to memory and drops it from the caches.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn flush(&self) {
        const LINE: usize = 64;
        for offset in (0..self.len).step_by(LINE) {
            let line = self.at.cast::<u8>().wrapping_add(offset);
            // SAFETY: the line is inside the mapping (rule above), and flushing changes no content.
            unsafe { core::arch::x86_64::_mm_clflush(line) }
        }
        // SAFETY: every x86-64 has SSE2, and a fence touches no memory.
        unsafe { core::arch::x86_64::_mm_mfence() }
    }

    /// Elsewhere the flush is not measured.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn flush(&self) {}
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with that length, and nobody refers to it (rule above).
        let unmapped = unsafe { munmap(self.at, self.len) };
        unmapped.expect("a mapping of our own");
    }
}
