//! What calls of the kernel's answer.

use std::io;

/// The number that an `ioctl` answered, if it did what it was asked.
pub(super) fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    match answer {
        0.. => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}
