//! Mappings of the process, by bare system calls.
//!
//! The rule that the `unsafe` blocks here rely on: addresses are changed by who owns them. A
//! [`Side`] owns its own until it drops or is moved; the addresses of a window are its
//! [`HostSpace`](super::HostSpace)'s from `reserve` to `release`, which hands only those in. Nobody
//! has references to what is there but to atomics, and what is replaced under these is still
//! readable, waits, or ends the access.
#![expect(
    unsafe_code,
    reason = "mappings are made and replaced at chosen addresses"
)]

use core::ffi::c_void;
use core::ptr;
use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use ttm::map::{Access, Addresses, Piece};

/// Bytes of a huge page.
pub(super) const HUGE: usize = 2 << 20;

fn at(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

/// What a failed call says, with what to do about it.
fn failed(call: &str, addresses: Addresses, error: Errno) -> io::Error {
    let hint = match error {
        Errno::NOMEM => " (too many mappings? see vm.max_map_count)",
        Errno::AGAIN => " (locked memory? see RLIMIT_MEMLOCK)",
        _ => "",
    };
    let Addresses { base, bytes } = addresses;
    io::Error::new(
        io::Error::from(error).kind(),
        format!("{call} of {bytes} bytes at {base:#x}: {error}{hint}"),
    )
}

/// A mapping that is not in its place yet. Dropping it unmaps it.
pub(super) struct Side(Addresses);

impl Side {
    /// Addresses without memory or rights, `phase` bytes above a multiple of `align`. Children inherit
    /// them, unless they are [kept from them](Side::keep_from_children).
    pub(super) fn reserve(bytes: usize, align: usize, phase: usize) -> io::Result<Self> {
        let wider = bytes.checked_add(align).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let none = Addresses {
            base: 0,
            bytes: wider,
        };
        // SAFETY: without an address the kernel chooses free ones.
        let found = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), wider, ProtFlags::empty(), flags)
        };
        let base = found
            .map_err(|error| failed("mmap", none, error))?
            .expose_provenance();
        let lead = (phase + align - base % align) % align;
        let rest = wider - lead - bytes;
        unmap(Addresses { base, bytes: lead });
        unmap(Addresses {
            base: base + lead + bytes,
            bytes: rest,
        });
        Ok(Self(Addresses {
            base: base + lead,
            bytes,
        }))
    }

    /// The memory of a piece, page tables filled if `filled`, aligned as the piece is. A child that
    /// is forked meanwhile may inherit the mapping, without rights.
    pub(super) fn of_file(piece: &Piece, access: Access, filled: bool) -> io::Result<Self> {
        let (bytes, file) = (piece.at.bytes, &piece.file);
        let side = match bytes >= HUGE {
            true => {
                let side = Self::reserve(bytes, HUGE, piece.at.base % HUGE)?;
                show(side.0, &file.file, file.offset, ProtFlags::empty())?;
                side
            }
            false => Self::anywhere(bytes, &file.file, file.offset)?,
        };
        side.keep_from_children()?;
        allow(side.0, access)?;
        if filled {
            // What cannot be filled now is when it is touched.
            // SAFETY: the addresses are this side's, and filling changes no content.
            let _ = unsafe {
                rustix::mm::madvise(at(side.0.base), side.0.bytes, Advice::LinuxPopulateRead)
            };
        }
        Ok(side)
    }

    /// A file, without rights.
    fn anywhere(bytes: usize, file: &File, offset: u64) -> io::Result<Self> {
        let (none, shared) = (ProtFlags::empty(), MapFlags::SHARED);
        // SAFETY: without an address the kernel chooses free ones.
        let found = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, none, shared, file, offset) };
        let base = found
            .map_err(|error| failed("mmap", Addresses { base: 0, bytes }, error))?
            .expose_provenance();
        Ok(Self(Addresses { base, bytes }))
    }

    /// Empty anonymous memory, like what a window waits in.
    pub(super) fn empty(bytes: usize) -> io::Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let none = Addresses { base: 0, bytes };
        // SAFETY: without an address the kernel chooses free ones.
        let found = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, rights, flags) };
        let base = found
            .map_err(|error| failed("mmap", none, error))?
            .expose_provenance();
        let side = Self(Addresses { base, bytes });
        side.keep_from_children()?;
        Ok(side)
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.0
    }

    pub(super) fn keep_from_children(&self) -> io::Result<()> {
        keep_from_children(self.0)
    }

    /// Puts the mapping over `to`, for everybody at once. It must be one mapping.
    pub(super) fn move_to(self, to: Addresses) -> io::Result<()> {
        let from = self.0;
        assert_eq!(from.bytes, to.bytes, "a mapping goes where it fits");
        // SAFETY: both are ours (rule above); nothing of anybody else's is replaced.
        let moved = unsafe {
            rustix::mm::mremap_fixed(
                at(from.base),
                from.bytes,
                to.bytes,
                MremapFlags::MAYMOVE,
                at(to.base),
            )
        };
        moved.map_err(|error| failed("mremap", to, error))?;
        core::mem::forget(self);
        Ok(())
    }

    /// The addresses, which the caller owns from now on.
    pub(super) fn keep(self) -> Addresses {
        let addresses = self.0;
        core::mem::forget(self);
        addresses
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        unmap(self.0);
    }
}

/// A forked child does not inherit what is mapped there.
fn keep_from_children(addresses: Addresses) -> io::Result<()> {
    let Addresses { base, bytes } = addresses;
    // SAFETY: the addresses are ours (rule above), and the advice changes no content.
    let advised = unsafe { rustix::mm::madvise(at(base), bytes, Advice::LinuxDontFork) };
    advised.map_err(|error| failed("madvise(DONTFORK)", addresses, error))
}

/// Maps a file over addresses of ours.
fn show(to: Addresses, file: &File, offset: u64, rights: ProtFlags) -> io::Result<()> {
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: the addresses are ours (rule above).
    let mapped = unsafe { rustix::mm::mmap(at(to.base), to.bytes, rights, flags, file, offset) };
    mapped.map(drop).map_err(|error| failed("mmap", to, error))
}

/// Maps a file that has no bytes: accesses end in `SIGBUS`.
pub(super) fn poison(to: Addresses, empty: &File) -> io::Result<()> {
    show(to, empty, 0, ProtFlags::READ | ProtFlags::WRITE)?;
    keep_from_children(to)
}

/// Maps nothing, without rights.
pub(super) fn forbid(to: Addresses) -> io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: the addresses are ours (rule above).
    let mapped =
        unsafe { rustix::mm::mmap_anonymous(at(to.base), to.bytes, ProtFlags::empty(), flags) };
    mapped.map_err(|error| failed("mmap", to, error))?;
    keep_from_children(to)
}

/// Maps nothing, without rights, where nothing is mapped at all; what is mapped stays.
pub(super) fn fill_hole(to: Addresses) {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: nothing is replaced.
    let mapped =
        unsafe { rustix::mm::mmap_anonymous(at(to.base), to.bytes, ProtFlags::empty(), flags) };
    if mapped.is_ok() {
        let _ = keep_from_children(to);
    }
}

/// Empties the page tables: the next access to a page asks for it again.
pub(super) fn zap(addresses: Addresses) -> io::Result<()> {
    let Addresses { base, bytes } = addresses;
    // SAFETY: the addresses are ours (rule above); files keep the content, and empty memory has
    // none.
    let zapped = unsafe { rustix::mm::madvise(at(base), bytes, Advice::LinuxDontNeed) };
    zapped.map_err(|error| failed("madvise(DONTNEED)", addresses, error))
}

/// Gives addresses back.
pub(super) fn unmap(addresses: Addresses) {
    let Addresses { base, bytes } = addresses;
    if bytes == 0 {
        return;
    }
    // SAFETY: the addresses are ours (rule above), and nobody uses them any more.
    let unmapped = unsafe { rustix::mm::munmap(at(base), bytes) };
    // Fails only where it would make two mappings of one and the process has too many: then some
    // addresses stay taken, and nothing else.
    debug_assert!(
        matches!(unmapped, Ok(()) | Err(Errno::NOMEM)),
        "{unmapped:?}"
    );
}

/// Gives the rights that an access takes to a mapping of ours, which nobody has touched.
pub(super) fn allow(to: Addresses, access: Access) -> io::Result<()> {
    let rights = match access {
        Access::Read => MprotectFlags::READ,
        Access::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
    };
    // SAFETY: the addresses are ours (rule above).
    let allowed = unsafe { rustix::mm::mprotect(at(to.base), to.bytes, rights) };
    allowed.map_err(|error| failed("mprotect", to, error))
}
