//! Threads that serve accesses that wait.
//!
//! ```text
//!            reads a fault, and somebody is idle: hands reading over
//!   reader ───────────────────────────────────────────────────────────▶ serves ──▶ idle
//!      │ nobody is idle                                                     ▲
//!      └──▶ puts it on the backlog, and reads on ──────── whoever is done ──┘
//! ```
//!
//! The thread that heard of an access also serves it, because waking another one costs more than all
//! the rest. But serving may wait for locks and for the device, and somebody has to listen all the
//! while: whoever moves a mapping waits until that was heard.

use std::collections::VecDeque;
use std::io;
use std::thread::{self, JoinHandle};

use placement::PAGE_SIZE;
use ttm::map::{Fault, FaultHandler, FaultSource};
use ttm::sync::{Arc, Mutex};

/// Threads between a [`FaultSource`] and a [`FaultHandler`]. Dropping it stops the source and joins
/// them; close the windows before, for nobody serves them afterwards.
///
/// All that windows take:
///
/// ```
/// use backends::host::{FaultThreads, HostSpace};
/// use backends::sim::{Gpu, GpuConfig, SimClock, SimDriver};
/// use placement::{MemType, PageCount, Place, Placement, Range};
/// use ttm::bo::BoInfo;
/// use ttm::context::OpContext;
/// use ttm::device::Device;
/// use ttm::map::{MapInfo, Windows};
/// use ttm::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let vram = PageCount::new(256).expect("1 MiB");
/// let gpu = Gpu::new(GpuConfig::new(vram), SimClock::Wall)?;
/// let device = Device::builder(SimDriver::new(), gpu.clock())
///     .pages(gpu.pages())
///     .memory(MemType::VRAM, Box::new(Range::new(vram)), gpu.region())
///     .engine(gpu.engine(0))
///     .build()?;
///
/// let space = Arc::new(HostSpace::probe());
/// let windows = Windows::new(&device, Arc::clone(&space) as _);
/// let threads = FaultThreads::start(windows.handler(), space, 2)?;
///
/// let bo = device.create(BoInfo::new(16 << 10), ())?;
/// let window = windows.map(&bo, MapInfo::whole())?;
/// let words = window.words_mut()?;
/// words[0].store(7);
/// # let words = match windows.abilities().loads_wait {
/// #     true => words,
/// #     false => return Ok(()),
/// # };
/// // The object goes to the card; the address stays, and so does what it shows.
/// let to_vram = Placement::of(Place::new(MemType::VRAM));
/// device.exec(OpContext::new(), |t| t.lock(&bo)?.validate(&to_vram))?;
/// assert_eq!(words[0].load(), 7);
///
/// drop(window);
/// drop(threads);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it stops the threads"]
pub struct FaultThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    source: Arc<dyn FaultSource>,
    handler: Arc<dyn FaultHandler>,
    /// Held by the one who reads.
    reading: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Threads that wait for their turn to read.
    idle: usize,
    /// What nobody has time for yet, one for each page and thread.
    backlog: VecDeque<Fault>,
}

impl FaultThreads {
    /// Starts `threads` threads, two at least. More serve more objects at the same time; on a clock
    /// whose threads take turns there has to be one more than there are clients.
    ///
    /// # Errors
    /// The host's, if it gives no more threads; those that were started are stopped again.
    pub fn start(
        handler: Arc<dyn FaultHandler>,
        source: Arc<dyn FaultSource>,
        threads: usize,
    ) -> io::Result<Self> {
        let mut started = Self {
            shared: Arc::new(Shared {
                source,
                handler,
                reading: Mutex::new(()),
                state: Mutex::new(State::default()),
            }),
            threads: Vec::new(),
        };
        for _ in 0..threads.max(2) {
            let shared = Arc::clone(&started.shared);
            let thread = thread::Builder::new().name("ttm faults".into());
            started.threads.push(thread.spawn(move || shared.run())?);
        }
        Ok(started)
    }
}

impl Drop for FaultThreads {
    fn drop(&mut self) {
        self.shared.source.stop();
        for thread in self.threads.drain(..) {
            let panicked = thread.join().is_err();
            assert!(
                !panicked || thread::panicking(),
                "serving an access panicked; its own message is above"
            );
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            if let Some(fault) = self.take_or_idle() {
                self.handler.serve(&fault);
                continue;
            }
            let reading = self.reading.lock();
            self.state.lock().idle -= 1;
            let Some(fault) = self.read() else {
                return;
            };
            drop(reading);
            self.handler.serve(&fault);
        }
    }

    /// A fault of the backlog; without one the thread counts as idle from now on.
    fn take_or_idle(&self) -> Option<Fault> {
        let mut state = self.state.lock();
        let fault = state.backlog.pop_front();
        state.idle += usize::from(fault.is_none());
        fault
    }

    /// Reads until there is a fault that this thread can serve, because another one is there to
    /// read on.
    fn read(&self) -> Option<Fault> {
        loop {
            let fault = self.source.next()?;
            let mut state = self.state.lock();
            if state.idle > 0 {
                return Some(fault);
            }
            let key = |f: &Fault| (f.address / PAGE_SIZE as usize, f.thread);
            if !state.backlog.iter().any(|f| key(f) == key(&fault)) {
                state.backlog.push_back(fault);
            }
        }
    }
}
