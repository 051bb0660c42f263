//! The same work with bare system calls: a mapping that is taken away from a running writer and put
//! back elsewhere, and an access that waits for it.
//!
//! The rule that the `unsafe` blocks here rely on: a [`Bare`] owns the addresses of its window and of
//! each mapping that it makes aside until it drops; nobody refers to what is there but by raw
//! volatile accesses, which wait in the kernel while nothing is mapped.
#![expect(unsafe_code, reason = "mappings are replaced by bare system calls")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, UserfaultfdFlags, madvise, mmap, mmap_anonymous,
    mremap_fixed, munmap, userfaultfd,
};

/// Mappings begin at multiples of it.
const HUGE: usize = 2 << 20;

const MISSING: u64 = 1;
const WRITE_PROTECT: u64 = 2;
const MINOR: u64 = 4;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

#[repr(C)]
struct Wake {
    start: u64,
    len: u64,
}

/// What accesses wait for, by the number of the call.
const API: u32 = opcode::read_write::<Api>(0xAA, 0x3F);
const REGISTER: u32 = opcode::read_write::<Register>(0xAA, 0x00);
const WAKE: u32 = opcode::read::<Wake>(0xAA, 0x02);
const PROTECT: u32 = opcode::read_write::<WriteProtect>(0xAA, 0x06);

/// Faults of shared memory: missing, minor, write-protected.
const FEATURES: u64 = 1 << 5 | 1 << 10 | 1 << 12;

/// Makes a call with the structure that it takes.
fn ask<const CALL: u32, T>(descriptor: &OwnedFd, what: &mut T) -> io::Result<()> {
    // SAFETY: each caller hands in the structure that the number of its call was made of.
    let call = unsafe { Updater::<CALL, T>::new(what) };
    // SAFETY: addresses in it are those of a window of the caller's (rule above).
    unsafe { ioctl(descriptor, call) }?;
    Ok(())
}

/// A window over one of two memory files.
pub(crate) struct Bare {
    descriptor: OwnedFd,
    files: [OwnedFd; 2],
    reserved: (*mut c_void, usize),
    window: *mut c_void,
    bytes: usize,
    shown: usize,
    over: bool,
}

// SAFETY: addresses and descriptors belong to no thread.
unsafe impl Send for Bare {}
// SAFETY: through `&Bare` only system calls are made, which the kernel orders.
unsafe impl Sync for Bare {}

/// A populated mapping that waits for being switched to.
pub(crate) struct Side(*mut c_void);

impl Bare {
    /// A window of `bytes` bytes that shows the first file.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh descriptor, with which only the mappings of this file are registered.
        let descriptor = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?;
        let mut api = Api {
            api: 0xAA,
            features: FEATURES,
            ioctls: 0,
        };
        ask::<API, _>(&descriptor, &mut api)?;
        let len = bytes + HUGE;
        // SAFETY: without an address the kernel chooses free ones.
        let at = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)
        }?;
        let file = || {
            let file = memfd_create("bare", MemfdFlags::CLOEXEC)?;
            ftruncate(&file, bytes as u64)?;
            fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
            Ok::<_, io::Error>(file)
        };
        let lead = at.addr().wrapping_neg() % HUGE;
        let mut bare = Self {
            descriptor,
            files: [file()?, file()?],
            reserved: (at, len),
            window: at.wrapping_byte_add(lead),
            bytes,
            shown: 1,
            over: false,
        };
        let side = bare.prepare(true)?;
        bare.switch(side)?;
        Ok(bare)
    }

    /// The first byte of the window.
    pub(crate) fn base(&self) -> usize {
        self.window.addr()
    }

    /// Maps the file that is not shown.
    pub(crate) fn prepare(&self, filled: bool) -> io::Result<Side> {
        let mut flags = MapFlags::SHARED;
        if filled {
            flags |= MapFlags::POPULATE;
        }
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // Room for choosing an address that is aligned like the window.
        // SAFETY: without an address the kernel chooses free ones.
        let room = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            mmap_anonymous(
                ptr::null_mut(),
                self.bytes + HUGE,
                ProtFlags::empty(),
                flags,
            )
        }?;
        let lead = room.addr().wrapping_neg() % HUGE;
        let to = room.wrapping_byte_add(lead);
        // SAFETY: the addresses were just put aside.
        let side = unsafe {
            let file = &self.files[1 - self.shown];
            mmap(to, self.bytes, rights, flags | MapFlags::FIXED, file, 0)
        }?;
        for (at, len) in [
            (room, lead),
            (to.wrapping_byte_add(self.bytes), HUGE - lead),
        ] {
            if len > 0 {
                // SAFETY: these addresses are left over from the room.
                unsafe { munmap(at, len) }?;
            }
        }
        Ok(Side(side))
    }

    fn register(&self, mode: u64) -> io::Result<()> {
        let mut register = Register {
            start: self.base() as u64,
            len: self.bytes as u64,
            mode,
            ioctls: 0,
        };
        ask::<REGISTER, _>(&self.descriptor, &mut register)
    }

    /// Lets the kernel ask before writes.
    pub(crate) fn watch_writes(&self) -> io::Result<()> {
        self.register(WRITE_PROTECT)
    }

    /// Writers wait.
    pub(crate) fn protect(&self) -> io::Result<()> {
        let mut protect = WriteProtect {
            start: self.base() as u64,
            len: self.bytes as u64,
            mode: 1,
        };
        ask::<PROTECT, _>(&self.descriptor, &mut protect)
    }

    /// Every access waits.
    pub(crate) fn revoke(&self) -> io::Result<()> {
        self.register(MISSING | MINOR)?;
        // SAFETY: the addresses are the window's, and the file keeps the content.
        unsafe { madvise(self.window, self.bytes, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    /// Puts the mapping aside over the window and wakes who waits.
    pub(crate) fn switch(&mut self, side: Side) -> io::Result<()> {
        // SAFETY: both ranges are ours, and the side is one mapping.
        unsafe {
            mremap_fixed(
                side.0,
                self.bytes,
                self.bytes,
                MremapFlags::MAYMOVE,
                self.window,
            )
        }?;
        self.shown = 1 - self.shown;
        self.wake()
    }

    fn wake(&self) -> io::Result<()> {
        let mut wake = Wake {
            start: self.base() as u64,
            len: self.bytes as u64,
        };
        ask::<WAKE, _>(&self.descriptor, &mut wake)
    }

    /// The next access that is served is the last.
    pub(crate) fn end(&mut self) {
        self.over = true;
    }

    /// Whether the last access was served.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Waits for an access that waits.
    pub(crate) fn next_fault(descriptor: &File) -> io::Result<()> {
        let mut message = [0_u8; 32];
        loop {
            match rustix::io::read(descriptor, &mut message) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Another handle of the descriptor, for the thread that serves.
    pub(crate) fn source(&self) -> io::Result<File> {
        Ok(File::from(self.descriptor.as_fd().try_clone_to_owned()?))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let (at, len) = self.reserved;
        // SAFETY: the addresses are ours, and the writer has stopped.
        let _ = unsafe { munmap(at, len) };
    }
}
