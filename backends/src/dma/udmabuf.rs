//! Pages exported by `/dev/udmabuf`.
//!
//! The rule that the `unsafe` blocks here rely on: each opcode takes the structure that it is
//! declared with, and writes nowhere else.
#![expect(unsafe_code, reason = "ioctls with structures of the kernel's")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::ioctl::{Opcode, opcode};
use rustix::param::page_size;

use super::ioctl::checked;
use super::trial::{ExportedPage, Exporter};

const NODE: &str = "/dev/udmabuf";

#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

const CREATE: Opcode = opcode::write::<Create>(b'u', 0x42);
const CLOEXEC: u32 = 1;

const SYNC: Opcode = opcode::write::<u64>(b'b', 0);
/// Read and write; the start of it.
const SYNC_START_RW: u64 = 3;

/// The kernel's exporter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Udmabuf;

impl Exporter for Udmabuf {
    fn source(&self) -> &str {
        NODE
    }

    /// The exporter's device is taken not to snoop where that is what the processor's devices do.
    fn may_drop_lines(&self) -> bool {
        !cfg!(target_arch = "x86_64")
    }

    fn export(&self, filled: u8) -> io::Result<Box<dyn ExportedPage>> {
        let node = OpenOptions::new().read(true).write(true).open(NODE)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("dma-trial", flags)?);
        // The host's, which need not be the manager's.
        let size = page_size();
        file.set_len(size as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK)?;
        file.write_all_at(&vec![filled; size], 0)?;
        let buffer = create(&node, &file, size)?;
        Ok(Box::new(Page { file, buffer, size }))
    }
}

struct Page {
    file: File,
    buffer: OwnedFd,
    size: usize,
}

impl ExportedPage for Page {
    fn begin(&mut self) -> io::Result<()> {
        loop {
            let flags = SYNC_START_RW;
            // SAFETY: the opcode reads flags of eight bytes, which live until the call is over.
            let done = unsafe {
                libc::ioctl(
                    self.buffer.as_raw_fd(),
                    libc::c_ulong::from(SYNC),
                    core::ptr::from_ref(&flags),
                )
            };
            match checked(done) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    fn fill(&mut self, byte: u8) -> io::Result<()> {
        self.file.write_all_at(&vec![byte; self.size], 0)
    }

    fn filled(&mut self) -> io::Result<Option<u8>> {
        let mut bytes = vec![0; self.size];
        self.file.read_exact_at(&mut bytes, 0)?;
        let first = bytes.first().copied();
        Ok(first.filter(|first| bytes.iter().all(|byte| byte == first)))
    }
}

fn create(node: &File, file: &File, size: usize) -> io::Result<OwnedFd> {
    let create = Create {
        memfd: file.as_raw_fd().cast_unsigned(),
        flags: CLOEXEC,
        offset: 0,
        size: size as u64,
    };
    // SAFETY: the opcode reads such a structure, which lives until the call is over.
    let made = unsafe {
        libc::ioctl(
            node.as_raw_fd(),
            libc::c_ulong::from(CREATE),
            core::ptr::from_ref(&create),
        )
    };
    let made = checked(made)?;
    // SAFETY: the kernel has just made the descriptor for the caller, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::trial::is_copied;

    /// Whatever this machine does: it is measured, or there is a reason why not.
    #[test]
    fn this_machine_copies_or_does_not_or_cannot_be_asked() {
        match is_copied(&Udmabuf) {
            Ok(copied) => eprintln!("this machine copies what is mapped: {copied}"),
            Err(missing) => {
                eprintln!("skipped: {missing}");
                let there = std::path::Path::new(NODE).exists();
                assert_eq!(missing.why.starts_with("not there"), !there, "{missing}");
            }
        }
    }
}
