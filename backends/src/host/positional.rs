//! File I/O straight from and to mapped frames.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Mapped`] keeps its bytes mapped readable
//! and writable while it is borrowed. The safe calls of the standard library want slices, and
//! memory that others may write is never behind a reference; hence the raw calls of `libc`.
#![expect(unsafe_code, reason = "file I/O from and to memory that is no slice")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ttm::pages::Mapped;

/// Writes up to `len` bytes of `from`, from `at` on, to `offset` of the file; answers how many.
pub(super) fn write_at(
    file: &File,
    offset: u64,
    from: &Mapped,
    at: usize,
    len: usize,
) -> io::Result<usize> {
    let (bytes, offset) = checked(from, at, len, offset)?;
    // SAFETY: `len` bytes are mapped at `bytes` (`checked`) while `from` is borrowed; the kernel
    // only reads them.
    let done = unsafe { libc::pwrite(file.as_raw_fd(), bytes.cast_const().cast(), len, offset) };
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
    let (bytes, offset) = checked(into, at, len, offset)?;
    // SAFETY: `len` bytes are mapped writable at `bytes` (`checked`) while `into` is borrowed, and
    // no reference to them exists (contract of `Mapped`).
    let done = unsafe { libc::pread(file.as_raw_fd(), bytes.cast(), len, offset) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

fn checked(memory: &Mapped, at: usize, len: usize, offset: u64) -> io::Result<(*mut u8, i64)> {
    let inside = at.checked_add(len).is_some_and(|end| end <= memory.len());
    assert!(inside, "bytes {at}+{len} of a mapping of {}", memory.len());
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok((memory.as_ptr().wrapping_add(at), offset))
}
