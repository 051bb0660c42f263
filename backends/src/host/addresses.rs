//! Addresses of this process that are put aside for mappings which begin at multiples of 2 MiB.
//!
//! A huge page is mapped by one entry of the page table only where its address is a multiple of
//! its size, and `mmap` promises none. So addresses are put aside first, as a mapping without
//! memory and without rights, and a file is mapped over them.
//!
//! The rule that the `unsafe` blocks here rely on: an [`Addresses`] owns the `len` bytes of address
//! space at `at` from its making until it drops. Nobody else maps or unmaps anything there, and
//! nobody has a reference to anything there. Should a kernel refuse a mapping over them halfway,
//! somebody else's might come to lie there: then they are given up for good, neither used nor
//! unmapped.
#![expect(unsafe_code, reason = "mapping files at chosen addresses")]

use core::ffi::c_void;
use core::ptr::NonNull;
use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use ttm::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a huge page.
pub(crate) const HUGE: usize = 2 << 20;

/// Asks the kernel to make one huge page of what is mapped. Since Linux 6.1.
const MADV_COLLAPSE: libc::c_int = 25;

/// Addresses, a multiple of 2 MiB in place and length.
pub(crate) struct Addresses {
    at: NonNull<c_void>,
    len: usize,
    given_up: AtomicBool,
}

// SAFETY: addresses belong to no thread.
unsafe impl Send for Addresses {}
// SAFETY: through `&Addresses` only system calls are made, which the kernel orders.
unsafe impl Sync for Addresses {}

impl Addresses {
    /// Puts `len` bytes aside.
    ///
    /// # Panics
    /// If `len` is no multiple of 2 MiB, or zero.
    pub(crate) fn reserve(len: usize) -> io::Result<Self> {
        assert!(len > 0 && len.is_multiple_of(HUGE), "{len} bytes");
        let found = Self::anywhere(len)?;
        if found.lead() == 0 {
            return Ok(found);
        }
        drop(found);
        let mut wider = Self::anywhere(len.checked_add(HUGE).ok_or(Errno::NOMEM)?)?;
        let mut aligned = wider.split_off(wider.lead());
        drop(aligned.split_off(len));
        Ok(aligned)
    }

    fn anywhere(len: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without an address the kernel chooses free ones.
        let at = unsafe {
            rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, ProtFlags::empty(), flags)
        }?;
        Ok(Self {
            at: NonNull::new(at).expect("mmap never answers null"),
            len,
            given_up: AtomicBool::new(false),
        })
    }

    /// Bytes up to the next multiple of 2 MiB.
    fn lead(&self) -> usize {
        self.at.addr().get().wrapping_neg() % HUGE
    }

    /// Cuts off all but the first `keep` bytes.
    fn split_off(&mut self, keep: usize) -> Self {
        let rest = self.len - keep;
        self.len = keep;
        Self {
            at: self.place(keep),
            len: rest,
            given_up: AtomicBool::new(false),
        }
    }

    fn place(&self, offset: usize) -> NonNull<c_void> {
        let at = self.at.as_ptr().wrapping_byte_add(offset);
        NonNull::new(at).expect("inside a mapping, or at its end")
    }

    /// How many bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The first.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr().cast()
    }

    /// Maps `file` from `offset` on over all of them, readable and writable, page tables filled.
    /// A forked child does not inherit it.
    pub(crate) fn show(&self, file: &File, offset: u64) -> io::Result<()> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        self.cover(0, self.len, Some((file, offset)), rights)?;
        // SAFETY: these addresses are ours (rule above), and the advice changes no content.
        unsafe { rustix::mm::madvise(self.at.as_ptr(), self.len, Advice::LinuxDontFork) }?;
        Ok(())
    }

    /// Makes one huge page of the 2 MiB of `file` from `offset` on, whose first page is there. What
    /// was missing is zero. The bytes from `at` on serve as its address meanwhile, without rights,
    /// so that a child which is forked just then inherits nothing that it could read.
    ///
    /// # Errors
    /// What the kernel says; the pages that were there still are.
    pub(crate) fn collapse(&self, at: usize, file: &File, offset: u64) -> Result<(), Errno> {
        self.cover(at, HUGE, Some((file, offset)), ProtFlags::empty())?;
        // SAFETY: `cover` has asserted that these addresses are ours, and the advice changes which
        // memory holds the content, not the content.
        let answer = unsafe { libc::madvise(self.place(at).as_ptr(), HUGE, MADV_COLLAPSE) };
        let error = Errno::from_io_error(&io::Error::last_os_error());
        self.cover(at, HUGE, None, ProtFlags::empty())?;
        match answer {
            0 => Ok(()),
            _ => Err(error.unwrap_or(Errno::INVAL)),
        }
    }

    /// Puts a mapping of a file, or of nothing, in place of what is mapped at `at`.
    fn cover(
        &self,
        at: usize,
        len: usize,
        what: Option<(&File, u64)>,
        rights: ProtFlags,
    ) -> Result<(), Errno> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside && at.is_multiple_of(HUGE),
            "{at}+{len} of {}",
            self.len
        );
        // Relaxed: whoever maps here finds a foreign mapping only after his own call failed, or
        // after he was told by whoever's did.
        if self.given_up.load(Ordering::Relaxed) {
            return Err(Errno::NOMEM);
        }
        let to = self.place(at).as_ptr();
        let result = match what {
            Some((file, offset)) => {
                let mut flags = MapFlags::SHARED | MapFlags::FIXED;
                if !rights.is_empty() {
                    flags |= MapFlags::POPULATE;
                }
                // SAFETY: these addresses are ours (asserted, and rule above), so nothing of
                // anybody else's is replaced.
                unsafe { rustix::mm::mmap(to, len, rights, flags, file, offset) }
            }
            None => {
                let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
                // SAFETY: as above.
                unsafe { rustix::mm::mmap_anonymous(to, len, rights, flags) }
            }
        };
        if result.is_err() {
            self.given_up.store(true, Ordering::Relaxed);
        }
        result.map(|_| ())
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if self.len == 0 || self.given_up.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: these addresses are ours (rule above), and nobody has a reference to them.
        let unmapped = unsafe { rustix::mm::munmap(self.at.as_ptr(), self.len) };
        // Fails only where it would make two mappings of one and the process has too many: then
        // some addresses stay taken, and nothing else.
        debug_assert!(
            matches!(unmapped, Ok(()) | Err(Errno::NOMEM)),
            "{unmapped:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_aligned_whatever_lies_between() {
        let mut held = Vec::new();
        for n in 1..20 {
            let filler = memmap2::MmapOptions::new()
                .len(n * 4096)
                .map_anon()
                .unwrap();
            let addresses = Addresses::reserve((n % 3 + 1) * HUGE).unwrap();
            assert_eq!((addresses.lead(), addresses.len()), (0, (n % 3 + 1) * HUGE));
            held.push((filler, addresses));
        }
    }

    #[test]
    fn addresses_that_are_too_many_are_refused() {
        assert!(Addresses::reserve(1 << 50).is_err());
        assert!(Addresses::reserve(usize::MAX - HUGE + 1).is_err());
    }

    #[test]
    fn the_middle_of_wider_addresses_is_kept() {
        let mut wider = Addresses::anywhere(4 * HUGE).unwrap();
        let at = wider.as_ptr().addr();
        let mut middle = wider.split_off(4096);
        let tail = middle.split_off(2 * HUGE);
        assert_eq!((wider.len(), middle.as_ptr().addr()), (4096, at + 4096));
        assert_eq!(tail.len(), 2 * HUGE - 4096);
        drop((wider, tail));
        let rights = rustix::mm::MprotectFlags::READ;
        // SAFETY: the addresses are `middle`'s, and nobody refers to what is there.
        unsafe { rustix::mm::mprotect(middle.at.as_ptr(), middle.len, rights) }.unwrap();
    }
}
