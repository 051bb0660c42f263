//! userfaultfd: the kernel asks before it fills page tables.
//!
//! The rule that the `unsafe` blocks here rely on: each opcode takes the structure that it is
//! declared with, and the addresses in it are those of windows of the caller's.
#![expect(unsafe_code, reason = "ioctls with structures of the kernel's")]

use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use ttm::map::{Addresses, Fault};

const VERSION: u64 = 0xAA;

/// What a descriptor can be asked for, by the bit of its feature.
pub(super) mod feature {
    pub(in super::super) const EVENT_REMAP: u64 = 1 << 2;
    pub(in super::super) const MISSING_SHMEM: u64 = 1 << 5;
    pub(in super::super) const THREAD_ID: u64 = 1 << 8;
    pub(in super::super) const MINOR_SHMEM: u64 = 1 << 10;
    pub(in super::super) const WP_SHMEM: u64 = 1 << 12;
    pub(in super::super) const WP_ASYNC: u64 = 1 << 15;
    /// Those of Linux 6.1, which has none above.
    pub(in super::super) const OF_6_1: u64 = (1 << 13) - 1;
}

/// Without these nothing works.
const NEEDED: u64 =
    feature::EVENT_REMAP | feature::MISSING_SHMEM | feature::THREAD_ID | feature::MINOR_SHMEM;

const USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);

const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;
const MODE_MINOR: u64 = 4;

const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1;

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

#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const UFFDIO_API: Opcode = opcode::read_write::<Api>(0xAA, 0x3F);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<Register>(0xAA, 0x00);
const UFFDIO_WAKE: Opcode = opcode::read::<Wake>(0xAA, 0x02);
const UFFDIO_WRITEPROTECT: Opcode = opcode::read_write::<WriteProtect>(0xAA, 0x06);
const PAGEMAP_SCAN: Opcode = opcode::read_write::<Scan>(b'f', 16);
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xAA00;

/// A page without a page-table entry that says anything is not "swapped", and one with a marker is.
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// Regions that one scan answers.
const REGIONS: usize = 128;

/// A descriptor, and a bell that ends whoever waits for it.
pub(super) struct Uffd {
    descriptor: OwnedFd,
    stop: OwnedFd,
    pagemap: Option<File>,
    features: u64,
    user_mode_only: bool,
}

impl Uffd {
    /// A descriptor with those of the kernel's features that are in `mask`.
    ///
    /// # Errors
    /// What the kernel says, with what to do about it.
    pub(super) fn open(user_mode_only: bool, mask: u64) -> io::Result<Self> {
        let offered = {
            let probe = descriptor(user_mode_only)?;
            handshake(&probe, 0)?
        };
        let features = offered & mask & (NEEDED | feature::WP_SHMEM | feature::WP_ASYNC);
        if features & NEEDED != NEEDED {
            return Err(io::Error::other(format!(
                "this kernel's userfaultfd has features {offered:#x}, and {NEEDED:#x} are needed; \
                 Linux 5.14 has them"
            )));
        }
        let descriptor = descriptor(user_mode_only)?;
        handshake(&descriptor, features)?;
        let pagemap = (features & feature::WP_ASYNC != 0 && features & feature::WP_SHMEM != 0)
            .then(|| File::open("/proc/self/pagemap").ok())
            .flatten();
        let mut uffd = Self {
            descriptor,
            stop: eventfd(0, EventfdFlags::CLOEXEC)?,
            pagemap,
            features,
            user_mode_only,
        };
        if uffd
            .scan(
                Addresses {
                    base: 4096,
                    bytes: 0,
                },
                &mut |_| {},
            )
            .is_err()
        {
            uffd.pagemap = None;
        }
        Ok(uffd)
    }

    pub(super) fn features(&self) -> u64 {
        self.features
    }

    pub(super) fn is_user_mode_only(&self) -> bool {
        self.user_mode_only
    }

    /// Whether writes can be noted while they go on.
    pub(super) fn tracks(&self) -> bool {
        self.pagemap.is_some()
    }

    fn register(&self, at: Addresses, mode: u64) -> Result<(), Errno> {
        let mut register = Register {
            start: at.base as u64,
            len: at.bytes as u64,
            mode,
            ioctls: 0,
        };
        patiently(|| {
            // SAFETY: the structure is the opcode's.
            let call = unsafe { Updater::<UFFDIO_REGISTER, Register>::new(&mut register) };
            // SAFETY: registering changes no content (rule above).
            unsafe { ioctl(&self.descriptor, call) }
        })
    }

    /// Accesses to pages that are not there wait.
    pub(super) fn watch_missing(&self, at: Addresses) -> Result<(), Errno> {
        self.register(at, MODE_MISSING)
    }

    /// Accesses to pages that have no page-table entry wait, whether the file has them or not.
    pub(super) fn watch(&self, at: Addresses) -> Result<(), Errno> {
        self.register(at, MODE_MISSING | MODE_MINOR)
    }

    /// Writes are noted from now on. What has no page-table entry is filled by the kernel as ever.
    pub(super) fn watch_writes(&self, at: Addresses) -> Result<(), Errno> {
        self.register(at, MODE_MISSING | MODE_WP)?;
        let mut protect = WriteProtect {
            start: at.base as u64,
            len: at.bytes as u64,
            mode: 1,
        };
        patiently(|| {
            // SAFETY: the structure is the opcode's.
            let call = unsafe { Updater::<UFFDIO_WRITEPROTECT, WriteProtect>::new(&mut protect) };
            // SAFETY: protecting changes no content (rule above).
            unsafe { ioctl(&self.descriptor, call) }
        })
    }

    /// The same for addresses that were watched for writes and are zapped now: the marks stay.
    pub(super) fn keep_watching_writes(&self, at: Addresses) -> Result<(), Errno> {
        self.register(at, MODE_MISSING | MODE_MINOR | MODE_WP)
    }

    /// Wakes who waits at `at`.
    pub(super) fn wake(&self, at: Addresses) {
        let mut wake = Wake {
            start: at.base as u64,
            len: at.bytes as u64,
        };
        // SAFETY: the structure is the opcode's.
        let call = unsafe { Updater::<UFFDIO_WAKE, Wake>::new(&mut wake) };
        // SAFETY: waking changes no content.
        let woken = unsafe { ioctl(&self.descriptor, call) };
        debug_assert!(woken.is_ok(), "{woken:?}");
    }

    /// The pages of `at` that were zapped and have no mark: they were written since they were
    /// watched.
    pub(super) fn scan(&self, at: Addresses, each: &mut dyn FnMut(Range<usize>)) -> io::Result<()> {
        let Some(pagemap) = &self.pagemap else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut regions = [Region::default(); REGIONS];
        let mut start = at.base as u64;
        let end = at.end() as u64;
        loop {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start,
                end,
                vec: regions.as_mut_ptr().expose_provenance() as u64,
                vec_len: REGIONS as u64,
                category_inverted: PAGE_IS_SWAPPED,
                category_mask: PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_SWAPPED,
                ..Scan::default()
            };
            let found = scan_once(pagemap.as_fd(), &mut scan)?;
            for region in &regions[..found] {
                let byte = |address: u64| (address - at.base as u64) as usize;
                each(byte(region.start)..byte(region.end));
            }
            start = scan.walk_end;
            if start >= end {
                return Ok(());
            }
        }
    }

    /// Waits for the next access that waits. `None` once it was stopped.
    pub(super) fn next(&self) -> Option<Fault> {
        loop {
            let mut watched = [
                PollFd::new(&self.descriptor, PollFlags::IN),
                PollFd::new(&self.stop, PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => unreachable!("poll of two descriptors of ours: {error}"),
            }
            if !watched[1].revents().is_empty() {
                return None;
            }
            if !watched[0].revents().is_empty()
                && let Some(fault) = self.read()
            {
                return Some(fault);
            }
        }
    }

    /// A fault, if the next message is one; others only want to be read.
    fn read(&self) -> Option<Fault> {
        let mut message = [0_u8; 32];
        let read = rustix::io::read(&self.descriptor, &mut message);
        if read != Ok(32) || message[0] != EVENT_PAGEFAULT {
            return None;
        }
        let word = |at: usize| {
            let bytes = message[at..at + 8].try_into();
            u64::from_ne_bytes(bytes.expect("eight bytes"))
        };
        Some(Fault {
            address: word(16) as usize,
            write: word(8) & FLAG_WRITE != 0,
            thread: word(24) & u64::from(u32::MAX),
        })
    }

    pub(super) fn stop(&self) {
        let rung = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        debug_assert!(rung.is_ok(), "{rung:?}");
    }
}

/// Calls again while somebody's mappings are being moved.
fn patiently(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(Errno::AGAIN) => std::thread::yield_now(),
            result => return result,
        }
    }
}

fn scan_once(pagemap: BorrowedFd<'_>, scan: &mut Scan) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: the structure is the opcode's, and its vector has room for as many regions as it
    // says, which live until the call is over.
    let found = unsafe {
        libc::ioctl(
            pagemap.as_raw_fd(),
            libc::c_ulong::from(PAGEMAP_SCAN),
            core::ptr::from_mut(scan),
        )
    };
    usize::try_from(found).map_err(|_| io::Error::last_os_error())
}

fn handshake(descriptor: &OwnedFd, features: u64) -> io::Result<u64> {
    let mut api = Api {
        api: VERSION,
        features,
        ioctls: 0,
    };
    // SAFETY: the structure is the opcode's.
    let call = unsafe { Updater::<UFFDIO_API, Api>::new(&mut api) };
    // SAFETY: the handshake touches nothing but the structure.
    unsafe { ioctl(descriptor, call) }?;
    Ok(api.features)
}

fn descriptor(user_mode_only: bool) -> io::Result<OwnedFd> {
    let mut flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    if user_mode_only {
        flags |= USER_MODE_ONLY;
    }
    // SAFETY: a descriptor alone changes nothing; what is registered with it is ours (rule above).
    let opened = unsafe { userfaultfd(flags) };
    match opened {
        // Root is refused by a policy for system calls only, which is not to be got around.
        Err(Errno::PERM) if !user_mode_only && !rustix::process::geteuid().is_root() => {
            from_device()
        }
        Err(Errno::PERM) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "userfaultfd is not allowed in this process; a policy for system calls (seccomp) may \
             forbid it",
        )),
        other => Ok(other?),
    }
}

/// A descriptor by way of the device, which an administrator may have opened to others.
fn from_device() -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let refused = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "userfaultfd is not allowed, nor is /dev/userfaultfd ({error}); it takes \
                 CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1, or rights to that device"
            ),
        )
    };
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
        .map_err(refused)?;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the opcode takes flags and makes a descriptor.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
    if made < 0 {
        return Err(refused(io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}
