//! Accesses that wait in a signal handler, for processes without userfaultfd.
//!
//! ```text
//!   a thread ──access──▶ SIGSEGV ──▶ handler: is it an address of ours?
//!                                      │ no: the handler that was there before
//!                                      ▼ yes
//!                          tell the pipe, sleep on the bell, return: the access is tried again
//! ```
//!
//! All windows of this kind lie in one range of addresses, so that the handler knows its own without
//! a lock. A system call that meets such an address fails instead: the kernel runs no handler.
//!
//! The rule that the `unsafe` blocks here rely on: between [`Arena::get`] and the end of the process
//! the arena's range stays reserved; the handler touches atomics and makes system calls that are
//! safe in handlers, and nothing else; the handler before ours is called as the kernel would have.
#![expect(unsafe_code, reason = "a signal handler")]

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

use placement::{Extent, PAGE_SIZE, PageCount, Range, Request, Space};
use ttm::map::{Addresses, Fault};
use ttm::sync::{Arc, Mutex, OnceLock};

use super::mapping::{HUGE, Side};

/// Addresses for windows: 64 GiB, of which only what is used costs anything.
const ARENA: usize = 64 << 30;

/// A sleep in the handler is over after this at the latest, should a bell be missed.
const NAP: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// What the handler reads.
static BASE: AtomicUsize = AtomicUsize::new(0);
static PIPE: AtomicI32 = AtomicI32::new(-1);
static BELL: AtomicU32 = AtomicU32::new(0);
/// A bit for each page of the arena that belongs to a window.
static LIVE: OnceLock<Box<[AtomicU64]>> = OnceLock::new();

/// The handler that was there before ours.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

static THE_ARENA: OnceLock<Result<Arc<Arena>, String>> = OnceLock::new();

/// The range of addresses, and the end of the pipe that is read.
pub(super) struct Arena {
    base: usize,
    inner: Mutex<Inner>,
    faults: File,
    told: File,
}

struct Inner {
    space: Range,
    taken: BTreeMap<usize, Extent>,
}

/// As the handler writes it and as it is read.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    address: usize,
    thread: u32,
    write: u32,
}

const MESSAGE: usize = size_of::<Message>();

impl Arena {
    /// The arena of the process; the first call installs the handler, for good.
    pub(super) fn get() -> io::Result<Arc<Self>> {
        let arena = THE_ARENA.get_or_init(|| {
            let arena = Self::new().map_err(|error| error.to_string())?;
            install(&arena).map_err(|error| error.to_string())?;
            Ok(Arc::new(arena))
        });
        arena.clone().map_err(io::Error::other)
    }

    /// The arena, if nobody else has it: there is one pipe.
    pub(super) fn alone(self: Arc<Self>) -> io::Result<Arc<Self>> {
        // The other one is the process's own.
        if Arc::strong_count(&self) > 2 {
            return Err(io::Error::other(
                "a process has one address space with a signal handler at a time",
            ));
        }
        Ok(self)
    }

    fn new() -> io::Result<Self> {
        let (faults, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let side = Side::reserve(ARENA, HUGE, 0)?;
        side.keep_from_children()?;
        let base = side.keep().base;
        let pages = PageCount::from_bytes_ceil(ARENA as u64).expect("below the greatest");
        Ok(Self {
            base,
            inner: Mutex::new(Inner {
                space: Range::new(pages),
                taken: BTreeMap::new(),
            }),
            faults: File::from(faults),
            told: File::from(told),
        })
    }

    /// Addresses out of the arena. They begin at a multiple of `align`, plus `phase`.
    pub(super) fn take(&self, bytes: usize, align: usize, phase: usize) -> io::Result<Addresses> {
        let lead = phase % align;
        let pages = |bytes: usize| PageCount::new(bytes as u64 / PAGE_SIZE).expect("of the arena");
        let request = Request {
            contiguous: true,
            ..Request::new(pages(lead + bytes)).aligned(pages(align))
        };
        let mut inner = self.inner.lock();
        let extents = inner.space.take(&request);
        let extent = extents.map_err(|_| io::ErrorKind::OutOfMemory)?[0];
        let base = self.base + (extent.start() * PAGE_SIZE) as usize + lead;
        inner.taken.insert(base, extent);
        let at = Addresses { base, bytes };
        self.mark(at, true);
        Ok(at)
    }

    /// Takes addresses back, which nothing is mapped at that anybody could read.
    pub(super) fn give(&self, at: Addresses) {
        self.mark(at, false);
        let mut inner = self.inner.lock();
        let extent = inner.taken.remove(&at.base);
        let extent = extent.expect("addresses that were taken");
        inner.space.give(extent);
    }

    fn mark(&self, at: Addresses, live: bool) {
        let bits = LIVE.get().expect("made with the arena");
        for page in pages_of(self.base, at) {
            let (word, bit) = (&bits[page / 64], 1 << (page % 64));
            match live {
                true => word.fetch_or(bit, Ordering::SeqCst),
                false => word.fetch_and(!bit, Ordering::SeqCst),
            };
        }
    }

    /// Lets those who wait try again.
    pub(super) fn wake(&self) {
        BELL.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the word is a static; waking touches no memory.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                BELL.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                c_int::MAX,
            )
        };
    }

    /// Waits for the next access that waits. `None` for a message that means nothing: whoever asks
    /// looks whether it was stopped.
    pub(super) fn next(&self) -> Option<Fault> {
        let mut bytes = [0; MESSAGE];
        (&self.faults).read_exact(&mut bytes).ok()?;
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let rest = word(8);
        let fault = Fault {
            address: word(0) as usize,
            thread: rest & u64::from(u32::MAX),
            write: rest >> 32 != 0,
        };
        (fault.address != 0).then_some(fault)
    }

    /// Makes [`Arena::next`] answer `None` once.
    pub(super) fn nudge(&self) {
        tell(
            self.told.as_raw_fd(),
            Message {
                address: 0,
                thread: 0,
                write: 0,
            },
        );
    }
}

fn pages_of(arena: usize, at: Addresses) -> core::ops::Range<usize> {
    let page = PAGE_SIZE as usize;
    (at.base - arena) / page..(at.end() - arena).div_ceil(page)
}

fn install(arena: &Arena) -> io::Result<()> {
    let words = ARENA / PAGE_SIZE as usize / 64;
    LIVE.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
    BASE.store(arena.base, Ordering::SeqCst);
    PIPE.store(arena.told.as_raw_fd(), Ordering::SeqCst);
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bytes zero are a valid action.
    let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    ours.sa_sigaction = handle as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
    // SAFETY: both point to actions, and the handler keeps to the rule above.
    if unsafe { libc::sigaction(libc::SIGSEGV, &ours, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled it.
    let before = unsafe { before.assume_init() };
    BEFORE.get_or_init(|| before);
    Ok(())
}

fn tell(pipe: c_int, message: Message) {
    // SAFETY: the message lives until the call is over. A pipe takes so few bytes whole.
    unsafe { libc::write(pipe, core::ptr::from_ref(&message).cast(), MESSAGE) };
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a handler its information.
    let info_ref = unsafe { &*info };
    // SAFETY: for this signal the information has an address.
    let address = unsafe { info_ref.si_addr() } as usize;
    let base = BASE.load(Ordering::Relaxed);
    let ours = base != 0 && address >= base && address < base + ARENA;
    if !ours || is_sent(info) || !is_live(address - base) || is_forbidden_store(context) {
        return pass_on(signal, info, context);
    }
    // SAFETY: it is the calling thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    let bell = BELL.load(Ordering::SeqCst);
    let message = Message {
        address,
        // SAFETY: a system call without arguments.
        thread: unsafe { libc::syscall(libc::SYS_gettid) } as u32,
        write: u32::from(is_write(context)),
    };
    tell(PIPE.load(Ordering::Relaxed), message);
    // SAFETY: the word is a static; the call sleeps while it has not changed.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            BELL.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            bell,
            &NAP,
        )
    };
    // SAFETY: as above.
    unsafe { *errno = kept };
}

fn is_live(offset: usize) -> bool {
    let page = offset / PAGE_SIZE as usize;
    let word = LIVE
        .get()
        .map(|bits| bits[page / 64].load(Ordering::SeqCst));
    word.is_some_and(|word| word & 1 << (page % 64) != 0)
}

/// Whether the access is a store, where the processor says so.
fn is_write(context: *mut c_void) -> bool {
    error_code(context).is_none_or(|code| code & 2 != 0)
}

/// Whether it is a store to a page that is there and may only be read: waiting would not help.
fn is_forbidden_store(context: *mut c_void) -> bool {
    error_code(context).is_some_and(|code| code & 3 == 3)
}

/// The error code of a page fault, among the registers.
#[cfg(target_arch = "x86_64")]
fn error_code(context: *mut c_void) -> Option<i64> {
    const ERROR: usize = libc::REG_ERR as usize;
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel hands a handler its context.
    Some(unsafe { (*context).uc_mcontext.gregs[ERROR] })
}

#[cfg(not(target_arch = "x86_64"))]
fn error_code(_: *mut c_void) -> Option<i64> {
    None
}

/// Whether somebody sent the signal, and no access made it.
fn is_sent(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: the kernel hands a handler its information.
    unsafe { (*info).si_code <= 0 }
}

/// Does what would have happened without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(before) = BEFORE.get() else {
        return;
    };
    match before.sa_sigaction {
        // An access that faults is not ignored, whatever the process wished for.
        libc::SIG_IGN if is_sent(info) => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The access is tried again, and ends the process as it would have.
            // SAFETY: all bytes zero are the default action.
            let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            // SAFETY: the pointer is to an action.
            unsafe { libc::sigaction(signal, &default, core::ptr::null_mut()) };
            if is_sent(info) {
                // SAFETY: the signal has its default action now.
                unsafe { libc::raise(signal) };
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: with that flag it is a function of this type, which was installed for this.
            let handler: Handler = unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without the flag it is a function of this type.
            let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(handler) };
            handler(signal);
        }
    }
}
