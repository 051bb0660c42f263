//! A few threads with positional I/O.
//!
//! A run belongs to a thread while it is on its way, with the window through which its memory is
//! seen, and comes back when it is over.

use std::collections::VecDeque;
use std::io;
use std::thread::{self, JoinHandle};

use ttm::sync::{Arc, Condvar, Mutex};
use ttm::tt::{Direction, Transfer};

use super::super::file::SwapFile;
use super::caller::finish;
use super::{Crew, DEPTH, Flight, Over, Runs, move_all};

/// Threads of one backup: enough for two requests at the disk and one on its way there.
const THREADS: usize = 3;

/// The threads. Dropping them joins them.
#[derive(Debug)]
pub(super) struct Workers {
    desk: Arc<Desk>,
    /// Held by the one who moves runs.
    turn: Mutex<()>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Desk {
    file: Arc<SwapFile>,
    state: Mutex<State>,
    waiting: Condvar,
    finished: Condvar,
}

/// # Invariants
/// Neither list grows beyond its capacity, [`DEPTH`].
#[derive(Debug)]
struct State {
    waiting: VecDeque<(Direction, Transfer)>,
    finished: VecDeque<(Transfer, io::Result<()>)>,
    stop: bool,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// The system's, if there is no thread to be had at all.
    pub(super) fn new(file: &Arc<SwapFile>) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            file: Arc::clone(file),
            state: Mutex::new(State {
                waiting: VecDeque::with_capacity(DEPTH),
                finished: VecDeque::with_capacity(DEPTH),
                stop: false,
            }),
            waiting: Condvar::new(),
            finished: Condvar::new(),
        });
        let mut workers = Self {
            desk,
            turn: Mutex::new(()),
            threads: Vec::with_capacity(THREADS),
        };
        for n in 0..THREADS {
            let desk = Arc::clone(&workers.desk);
            let named = thread::Builder::new().name(format!("ttm backup {n}"));
            match named.spawn(move || desk.work()) {
                Ok(thread) => workers.threads.push(thread),
                Err(error) if n == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(workers)
    }

    /// Moves runs; `false`, and nothing done, while another thread has the workers.
    pub(super) fn transfer(
        &self,
        file: &SwapFile,
        direction: Direction,
        runs: &mut dyn Runs,
    ) -> bool {
        let Some(_turn) = self.turn.try_lock() else {
            return false;
        };
        let mut crew = AtDesk {
            desk: &self.desk,
            direction,
            flying: 0,
        };
        move_all(&mut crew, file, runs);
        true
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.desk.state.lock().stop = true;
        self.desk.waiting.notify_all();
        for thread in self.threads.drain(..) {
            let panicked = thread.join().is_err();
            assert!(
                !panicked || thread::panicking(),
                "a thread of the backup panicked"
            );
        }
    }
}

impl Desk {
    /// What a thread does until it is stopped.
    fn work(&self) {
        let mut state = self.state.lock();
        while !state.stop {
            let Some((direction, transfer)) = state.waiting.pop_front() else {
                self.waiting.wait(&mut state);
                continue;
            };
            drop(state);
            let mut flight = Flight::new(transfer);
            let result = finish(&self.file, direction, &mut flight);
            state = self.state.lock();
            state.finished.push_back((flight.transfer, result));
            self.finished.notify_one();
        }
    }
}

/// The runs of one caller at the desk. Dropping it, as in a panic of the caller's, waits for them,
/// so that the next caller meets none but its own.
struct AtDesk<'a> {
    desk: &'a Desk,
    direction: Direction,
    flying: usize,
}

impl Crew for AtDesk<'_> {
    fn flying(&self) -> usize {
        self.flying
    }

    fn start(&mut self, transfer: Transfer) -> Option<Over> {
        let mut state = self.desk.state.lock();
        state.waiting.push_back((self.direction, transfer));
        self.flying += 1;
        drop(state);
        self.desk.waiting.notify_one();
        None
    }

    fn finish_one(&mut self) -> Option<Over> {
        self.receive().into()
    }
}

impl AtDesk<'_> {
    fn receive(&mut self) -> Over {
        let mut state = self.desk.state.lock();
        loop {
            if let Some(over) = state.finished.pop_front() {
                self.flying -= 1;
                return over;
            }
            self.desk.finished.wait(&mut state);
        }
    }
}

impl Drop for AtDesk<'_> {
    fn drop(&mut self) {
        while self.flying > 0 {
            drop(self.receive());
        }
    }
}
