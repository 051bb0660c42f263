//! Runs on their way between memory and the file, several at once.
//!
//! An engine pulls runs until [`DEPTH`] are on their way, waits for one, hands it back and pulls
//! the next. While the disk moves some, the caller maps the next and computes its checksums, so
//! that the disk need not wait for the processor. A run is asked for in requests of up to
//! [`REQUEST`] bytes; a request that was done in part, or interrupted, goes on with the rest.
//!
//! Which engine [`IoEngine::Auto`] means is decided once, when the backup is first prepared:
//! io_uring where the system allows it, threads otherwise. An engine works for one thread at a
//! time; who comes meanwhile moves its runs itself.

mod caller;
mod threads;
mod uring;

use std::io;

use placement::PAGE_SIZE;
use ttm::sync::atomic::Ordering;
use ttm::sync::{Arc, OnceLock};
use ttm::tt::{Direction, Transfer};

use super::file::SwapFile;
use super::stats::add;
use threads::Workers;
use uring::Uring;

/// Runs on their way at once, at most.
const DEPTH: usize = 8;

/// The longest request to the disk, as long as the longest run.
const REQUEST: usize = 2 << 20;

/// Who moves bytes between memory and the file of a [`FileBackup`](super::FileBackup).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoEngine {
    /// The quickest that the system allows: io_uring, or else threads.
    #[default]
    Auto,
    /// io_uring, or the calling thread where the system refuses it.
    Uring,
    /// A few threads with positional I/O, or the calling thread where there are no more threads.
    Threads,
    /// The calling thread, one request at a time.
    Caller,
}

/// A run that is over.
type Over = (Transfer, io::Result<()>);

/// The runs that one caller has on their way, with those who move them.
trait Crew {
    /// How many there are.
    fn flying(&self) -> usize;

    /// One more. Answers it if it is over already.
    fn start(&mut self, transfer: Transfer) -> Option<Over>;

    /// Waits until something has come. Answers a run if that ended it.
    fn finish_one(&mut self) -> Option<Over>;
}

/// Keeps a crew busy until there are no more runs and all are over.
fn move_all(crew: &mut impl Crew, file: &SwapFile, runs: &mut dyn Runs) {
    loop {
        while crew.flying() < DEPTH
            && let Some(transfer) = runs.next()
        {
            let over = crew.start(transfer);
            note_flying(file, crew.flying().max(1));
            if let Some((transfer, result)) = over {
                runs.done(transfer, result);
            }
        }
        if crew.flying() == 0 {
            return;
        }
        if let Some((transfer, result)) = crew.finish_one() {
            runs.done(transfer, result);
        }
    }
}

/// Where runs come from and go back to.
pub(super) trait Runs {
    /// The next run; `None` if there is none now.
    fn next(&mut self) -> Option<Transfer>;

    /// A run is over.
    fn done(&mut self, transfer: Transfer, result: io::Result<()>);
}

/// A run on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) transfer: Transfer,
    /// Bytes that are done.
    pub(super) at: usize,
    /// Its latest request was to go around the page cache. Others may have ended that meanwhile.
    direct: bool,
}

impl Flight {
    fn new(transfer: Transfer) -> Self {
        Self {
            transfer,
            at: 0,
            direct: false,
        }
    }

    /// Notes that a request is about to be made.
    fn ask(&mut self, file: &SwapFile) {
        self.direct = file.is_direct();
    }

    /// Bytes of the next request.
    pub(super) fn len(&self) -> usize {
        (self.transfer.memory.len() - self.at).min(REQUEST)
    }

    /// Where in the file it is.
    pub(super) fn offset(&self) -> u64 {
        self.transfer.first * PAGE_SIZE + self.at as u64
    }

    /// Takes in what became of a request: `None` if the run needs another.
    fn answer(&mut self, file: &SwapFile, moved: io::Result<usize>) -> Option<io::Result<()>> {
        match moved {
            Ok(0) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(bytes) => {
                self.at += bytes;
                (self.at == self.transfer.memory.len()).then(|| {
                    file.forget(self);
                    Ok(())
                })
            }
            Err(error) => match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock, _) => None,
                (_, Some(libc::EINVAL)) if self.direct => file.go_indirect().err().map(Err),
                _ => Some(Err(error)),
            },
        }
    }
}

/// The engine of one backup, made when it is first prepared.
#[derive(Debug)]
pub(super) struct Io {
    wish: IoEngine,
    engine: OnceLock<Engine>,
}

#[derive(Debug)]
enum Engine {
    Uring(Box<Uring>),
    Threads(Workers),
    Caller,
}

impl Io {
    pub(super) fn new(wish: IoEngine) -> Self {
        Self {
            wish,
            engine: OnceLock::new(),
        }
    }

    /// Makes the engine, so that moving runs needs nothing more.
    pub(super) fn prepare(&self, file: &Arc<SwapFile>) {
        self.engine.get_or_init(|| {
            let uring = || Uring::new(file).map(|ring| Engine::Uring(Box::new(ring)));
            let threads = || Workers::new(file).map(Engine::Threads);
            let refused = |_| add(&file.counters.fallbacks, 1);
            let made = match self.wish {
                IoEngine::Auto => uring().map_err(refused).or_else(|()| threads()),
                IoEngine::Uring => uring(),
                IoEngine::Threads => threads(),
                IoEngine::Caller => Ok(Engine::Caller),
            };
            made.map_err(refused).unwrap_or(Engine::Caller)
        });
    }

    /// Who moves runs.
    pub(super) fn name(&self) -> &'static str {
        match self.engine.get() {
            Some(Engine::Uring(uring)) if uring.works() => "io_uring",
            Some(Engine::Threads(_)) => "threads",
            _ => "calling thread",
        }
    }

    /// Moves `runs` until there are no more and all are over.
    pub(super) fn transfer(&self, file: &SwapFile, direction: Direction, runs: &mut dyn Runs) {
        let moved = match self.engine.get() {
            Some(Engine::Uring(uring)) => uring.transfer(file, direction, runs),
            Some(Engine::Threads(workers)) => workers.transfer(file, direction, runs),
            Some(Engine::Caller) | None => return caller::transfer(file, direction, runs),
        };
        if !moved {
            add(&file.counters.fallbacks, 1);
            caller::transfer(file, direction, runs);
        }
    }
}

/// Notes that `flying` runs are on their way at once.
fn note_flying(file: &SwapFile, flying: usize) {
    let most = &file.counters.most_in_flight;
    most.fetch_max(flying as u64, Ordering::Relaxed);
}
