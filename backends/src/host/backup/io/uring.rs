//! io_uring: several requests in flight without a thread for each.
//!
//! The rule that the `unsafe` block here relies on: a request is in the kernel's hands from its
//! push until its completion was seen, and its [`Flight`], with the window through which its
//! memory is seen, stays in [`InRing::flights`] that long. A crew takes a flight out only for a
//! completion, and its drop waits for all of them, so neither an error nor a panic of the
//! caller's unmaps memory that the kernel still reads or writes.
//!
//! A system that refuses to enter the ring after it was made breaks it: what is in flight
//! completes all the same, as the kernel has it; everything else is done by the calling thread.
#![expect(
    unsafe_code,
    reason = "the kernel is handed addresses of mapped memory"
)]

use core::time::Duration;
use std::io;
use std::thread;

use io_uring::{IoUring, Probe, opcode, types};
use ttm::sync::Mutex;
use ttm::sync::atomic::{AtomicBool, Ordering};
use ttm::tt::{Direction, Transfer};

use super::super::file::SwapFile;
use super::super::stats::add;
use super::caller::finish;
use super::{Crew, DEPTH, Flight, Over, Runs, move_all};

/// How often the kernel may say that it has no room for a request right now, and how long the
/// caller sleeps then.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_micros(100);

/// The ring of one backup.
pub(super) struct Uring {
    ring: Mutex<IoUring>,
    /// The system no longer lets us enter the ring.
    broken: AtomicBool,
}

impl Uring {
    /// Makes a ring.
    ///
    /// # Errors
    /// The system's, if it has none, forbids it, or its ring cannot read and write yet.
    pub(super) fn new(file: &SwapFile) -> io::Result<Self> {
        let ring = IoUring::new(DEPTH as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let known = [opcode::Read::CODE, opcode::Write::CODE].map(|code| probe.is_supported(code));
        if known != [true, true] {
            return Err(io::ErrorKind::Unsupported.into());
        }
        debug_assert!(file.fd() >= 0);
        Ok(Self {
            ring: Mutex::new(ring),
            broken: AtomicBool::new(false),
        })
    }

    /// Whether it is of use.
    pub(super) fn works(&self) -> bool {
        // Relaxed: changed and acted upon under the lock of the ring.
        !self.broken.load(Ordering::Relaxed)
    }

    /// Moves runs; `false`, and nothing done, while another thread has the ring, or if it broke.
    pub(super) fn transfer(
        &self,
        file: &SwapFile,
        direction: Direction,
        runs: &mut dyn Runs,
    ) -> bool {
        let Some(mut ring) = self.ring.try_lock() else {
            return false;
        };
        if !self.works() {
            return false;
        }
        let mut crew = InRing {
            ring: &mut ring,
            broken: &self.broken,
            file,
            direction,
            flights: [const { None }; DEPTH],
            flying: 0,
        };
        move_all(&mut crew, file, runs);
        true
    }
}

impl core::fmt::Debug for Uring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Uring(works: {})", self.works())
    }
}

/// The runs of one caller in the ring.
///
/// # Invariants
/// The kernel holds at most one request for each of `flights`, numbered by its place, and `flying`
/// counts them. While the ring is not broken, its submission queue is empty between calls.
struct InRing<'a> {
    ring: &'a mut IoUring,
    broken: &'a AtomicBool,
    file: &'a SwapFile,
    direction: Direction,
    flights: [Option<Flight>; DEPTH],
    flying: usize,
}

impl Crew for InRing<'_> {
    fn flying(&self) -> usize {
        self.flying
    }

    fn start(&mut self, transfer: Transfer) -> Option<Over> {
        self.hand_over(Flight::new(transfer))
    }

    /// Waits for a completion. Answers the run if it is over; otherwise its next request is on its
    /// way.
    fn finish_one(&mut self) -> Option<Over> {
        let (mut flight, moved) = self.complete();
        match flight.answer(self.file, moved) {
            Some(result) => Some((flight.transfer, result)),
            None => self.hand_over(flight),
        }
    }
}

impl InRing<'_> {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn breaks(&self) {
        add(&self.file.counters.fallbacks, 1);
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Hands the next request of a run to the kernel, or, if the ring is broken, does the run here
    /// and answers it.
    fn hand_over(&mut self, flight: Flight) -> Option<Over> {
        let free = self.flights.iter().position(Option::is_none);
        let n = free.expect("fewer are flying than may");
        self.flights[n] = Some(flight);
        if !self.is_broken() && self.submit(n) {
            self.flying += 1;
            return None;
        }
        let mut flight = self.flights[n].take().expect("put there above");
        let result = finish(self.file, self.direction, &mut flight);
        Some((flight.transfer, result))
    }

    /// Whether the kernel took the next request of flight `n`.
    fn submit(&mut self, n: usize) -> bool {
        let flight = self.flights[n].as_mut().expect("a run to be moved");
        flight.ask(self.file);
        let fd = types::Fd(self.file.fd());
        // In range: the rest of the run begins inside the mapping.
        let bytes = flight.transfer.memory.as_ptr().wrapping_add(flight.at);
        let (len, offset) = (flight.len() as u32, flight.offset());
        let entry = match self.direction {
            Direction::Out => opcode::Write::new(fd, bytes, len).offset(offset).build(),
            Direction::In => opcode::Read::new(fd, bytes, len).offset(offset).build(),
        };
        let entry = entry.user_data(n as u64);
        let mut queue = self.ring.submission();
        // SAFETY: `len` bytes are mapped readable and writable at `bytes` (`Flight::len`) while
        // the flight lives, which is in `flights` and stays there while the kernel has the request
        // (rule above). If the kernel does not take it, the ring is broken below, and the entry is
        // never submitted, as nobody enters a broken ring. The file is open while the crew borrows
        // it.
        let pushed = unsafe { queue.push(&entry) };
        drop(queue);
        // The queue was empty (invariant).
        assert!(pushed.is_ok(), "a ring of {DEPTH} is full");
        for _ in 0..TRIES {
            match self.ring.submit() {
                Ok(1) => {
                    add(&self.file.counters.requests, 1);
                    return true;
                }
                Ok(_) => {}
                Err(error) if is_passing(&error) => thread::sleep(PAUSE),
                Err(_) => break,
            }
        }
        self.breaks();
        false
    }

    /// Waits for a completion and takes its run out.
    fn complete(&mut self) -> (Flight, io::Result<usize>) {
        debug_assert!(self.flying > 0, "nothing would ever complete");
        loop {
            if let Some(entry) = self.ring.completion().next() {
                let n = entry.user_data() as usize;
                let flight = self.flights[n].take().expect("each request completes once");
                self.flying -= 1;
                let moved = usize::try_from(entry.result());
                return (flight, moved.map_err(|_| errno(entry.result())));
            }
            if self.is_broken() {
                // Completions still come, but no call waits for them.
                thread::sleep(PAUSE);
                continue;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(_) => self.breaks(),
            }
        }
    }
}

impl Drop for InRing<'_> {
    fn drop(&mut self) {
        while self.flying > 0 {
            drop(self.complete());
        }
    }
}

/// The error of a completion, which is negative.
fn errno(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}

/// Whether the same call may succeed in a moment.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
    error
        .raw_os_error()
        .is_some_and(|errno| passing.contains(&errno))
}
