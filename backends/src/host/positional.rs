//! File I/O straight from and to mapped frames, and windows.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Mapped`] keeps its bytes mapped readable
//! and writable while it is borrowed, a [`Window`] its addresses; there the kernel waits for the
//! content, or answers `EFAULT`. The safe calls of the standard library want slices, and memory
//! that others may write is never behind a reference; hence the raw calls of `libc`.
#![expect(unsafe_code, reason = "file I/O from and to memory that is no slice")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ttm::driver::Driver;
use ttm::map::{Access, Window};
use ttm::pages::Mapped;

/// Writes up to `len` bytes of `from`, from `at` on, to `offset` of the file; answers how many.
pub(super) fn write_at(
    file: &File,
    offset: u64,
    from: &Mapped,
    at: usize,
    len: usize,
) -> io::Result<usize> {
    let offset = checked(from.len(), at, len, offset)?;
    let bytes = from.as_ptr().wrapping_add(at).cast_const();
    // SAFETY: `len` bytes are mapped at `bytes` (`checked`) while `from` is borrowed; the kernel
    // only reads them.
    let done = unsafe { libc::pwrite(file.as_raw_fd(), bytes.cast(), len, offset) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Reads up to `len` bytes at `offset` of the file to `into`, from `at` on; answers how many.
pub(super) fn read_at(
    file: &File,
    offset: u64,
    into: &Mapped,
    at: usize,
    len: usize,
) -> io::Result<usize> {
    let offset = checked(into.len(), at, len, offset)?;
    let bytes = into.as_ptr().wrapping_add(at);
    // SAFETY: `len` bytes are mapped writable at `bytes` (`checked`) while `into` is borrowed, and
    // no reference to them exists (contract of `Mapped`).
    let done = unsafe { libc::pread(file.as_raw_fd(), bytes.cast(), len, offset) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Writes up to `len` bytes of a window, from `at` on, to `offset` of a file, by `pwrite(2)`; answers
/// how many. The kernel copies: it waits for the content where
/// [`calls_wait`](ttm::map::Abilities::calls_wait).
///
/// # Errors
/// The system's; `EFAULT` where the content is on its way and calls do not wait, or where it cannot
/// be had. What [`Window::as_ptr`] says.
///
/// # Panics
/// If the bytes are not inside the window.
pub fn write_from_window<D: Driver>(
    file: &File,
    offset: u64,
    from: &Window<D>,
    at: usize,
    len: usize,
) -> io::Result<usize> {
    let offset = checked(from.len(), at, len, offset)?;
    let bytes = from.as_ptr().map_err(io::Error::other)?.wrapping_add(at);
    // SAFETY: the addresses are the window's (`checked`) while it is borrowed; the kernel only
    // reads them, and copes with what it cannot read.
    let done = unsafe { libc::pwrite(file.as_raw_fd(), bytes.cast_const().cast(), len, offset) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Reads up to `len` bytes at `offset` of a file to a window, from `at` on, by `pread(2)`; answers
/// how many. The kernel copies: see [`write_from_window`].
///
/// # Errors
/// As [`write_from_window`], and `EFAULT` for a window for reading only.
///
/// # Panics
/// If the bytes are not inside the window.
pub fn read_into_window<D: Driver>(
    file: &File,
    offset: u64,
    into: &Window<D>,
    at: usize,
    len: usize,
) -> io::Result<usize> {
    if into.access() == Access::Read {
        return Err(rustix::io::Errno::FAULT.into());
    }
    let offset = checked(into.len(), at, len, offset)?;
    let bytes = into.as_ptr().map_err(io::Error::other)?.wrapping_add(at);
    // SAFETY: the addresses are the window's (`checked`), writable, while it is borrowed; nobody
    // has references to what is there but to atomics (contract of `Window`).
    let done = unsafe { libc::pread(file.as_raw_fd(), bytes.cast(), len, offset) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

fn checked(memory: usize, at: usize, len: usize, offset: u64) -> io::Result<i64> {
    let inside = at.checked_add(len).is_some_and(|end| end <= memory);
    assert!(inside, "bytes {at}+{len} of {memory} that are mapped");
    i64::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
