//! The nodes in `/dev/vfio`.
//!
//! The rule that the `unsafe` blocks here rely on: each opcode takes the number, or the structure,
//! that its call gives it; what it writes is as long as the structure says that there is room.
#![expect(
    unsafe_code,
    reason = "ioctls with numbers and structures of the kernel's"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use super::{Container, Vfio};
use crate::dma::ioctl::checked;

const fn opcode(number: libc::c_ulong) -> libc::c_ulong {
    0x3b << 8 | (100 + number)
}

const CHECK_EXTENSION: libc::c_ulong = opcode(1);
const SET_IOMMU: libc::c_ulong = opcode(2);
const GROUP_GET_STATUS: libc::c_ulong = opcode(3);
const GROUP_SET_CONTAINER: libc::c_ulong = opcode(4);
const GROUP_UNSET_CONTAINER: libc::c_ulong = opcode(5);
const IOMMU_GET_INFO: libc::c_ulong = opcode(12);

const VIABLE: u32 = 1;

/// Room for a head and its capabilities.
const ROOM: usize = 4096;

#[repr(C)]
struct Status {
    length: u32,
    flags: u32,
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
pub(in crate::dma) struct Nodes;

impl Vfio for Nodes {
    fn container(&self) -> io::Result<Box<dyn Container>> {
        Ok(Box::new(Opened {
            container: node("vfio")?,
            group: None,
        }))
    }
}

fn node(name: &str) -> io::Result<File> {
    let path = format!("/dev/vfio/{name}");
    OpenOptions::new().read(true).write(true).open(path)
}

struct Opened {
    container: File,
    /// Dropped after the container: no group is left in it then.
    group: Option<File>,
}

impl Opened {
    fn group(&self) -> io::Result<&File> {
        self.group
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Container for Opened {
    fn open(&mut self, group: &str) -> io::Result<()> {
        self.group = Some(node(group)?);
        Ok(())
    }

    fn is_viable(&mut self) -> io::Result<bool> {
        let mut status = Status {
            length: size_of::<Status>() as u32,
            flags: 0,
        };
        let group = self.group()?.as_raw_fd();
        // SAFETY: the opcode fills such a structure, which says its length and lives until the call
        // is over.
        let done =
            unsafe { libc::ioctl(group, GROUP_GET_STATUS, core::ptr::from_mut(&mut status)) };
        checked(done)?;
        Ok(status.flags & VIABLE != 0)
    }

    fn attach(&mut self) -> io::Result<()> {
        let container = self.container.as_raw_fd();
        let group = self.group()?.as_raw_fd();
        // SAFETY: the opcode reads a descriptor, which lives until the call is over.
        let done =
            unsafe { libc::ioctl(group, GROUP_SET_CONTAINER, core::ptr::from_ref(&container)) };
        checked(done).map(drop)
    }

    fn detach(&mut self) -> io::Result<()> {
        let group = self.group()?.as_raw_fd();
        // SAFETY: the opcode takes nothing.
        checked(unsafe { libc::ioctl(group, GROUP_UNSET_CONTAINER) }).map(drop)
    }

    fn set_iommu(&mut self, kind: u32) -> io::Result<()> {
        let container = self.container.as_raw_fd();
        // SAFETY: the opcode takes a number.
        checked(unsafe { libc::ioctl(container, SET_IOMMU, libc::c_ulong::from(kind)) }).map(drop)
    }

    fn has(&mut self, extension: u32) -> io::Result<bool> {
        let container = self.container.as_raw_fd();
        // SAFETY: the opcode takes a number.
        let answer =
            unsafe { libc::ioctl(container, CHECK_EXTENSION, libc::c_ulong::from(extension)) };
        Ok(checked(answer)? > 0)
    }

    fn info(&mut self) -> io::Result<Vec<u8>> {
        let mut room = ROOM;
        loop {
            // Words, so that the structure's fields are aligned.
            let mut words = vec![0_u64; room.div_ceil(8)];
            let length = u32::try_from(8 * words.len()).map_err(io::Error::other)?;
            words[0] = first_word(length);
            let container = self.container.as_raw_fd();
            // SAFETY: the opcode fills a structure that says its length, in words that live until
            // the call is over.
            let done = unsafe { libc::ioctl(container, IOMMU_GET_INFO, words.as_mut_ptr()) };
            checked(done)?;
            let bytes: Vec<_> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let needed = bytes
                .first_chunk()
                .map_or(0, |length| u32::from_ne_bytes(*length));
            match needed as usize {
                needed if needed > bytes.len() && room == ROOM => room = needed,
                _ => return Ok(bytes),
            }
        }
    }
}

/// A length, and no flags.
fn first_word(length: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}
