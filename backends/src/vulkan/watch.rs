//! Who waits for the device: one thread, for all semaphores at once.

use core::time::Duration;
use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

use ash::vk;
use ttm::fence::Fence;
use ttm::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::error::VulkanError;
use super::raw::{Raw, Semaphore, SharedQueue};

/// The longest sleep; a bell that was not heard costs this much.
const PATIENCE: Duration = Duration::from_millis(100);

/// Timelines of the manager begin with this number here, so that they are no others'.
const FIRST: u64 = 0x5655_4c4b << 16;

/// Something with a timeline of the manager's and a semaphore of the device's behind it.
pub(super) trait Watched: Send + Sync {
    /// The point to wait for next, if there is one.
    fn next(&self) -> Option<(vk::Semaphore, u64)>;

    /// Signals what the semaphore has reached, and goes on. Called by the thread alone.
    fn poll(&self);

    /// Signals everything with an error: the device is gone.
    fn lose(&self);

    /// How far a point of the timeline is, for work of the device that is to wait for it. What brings
    /// the semaphore there is submitted by the time that this says [`Point::At`]: on a queue that waits
    /// for it nothing comes later.
    fn point(&self, seqno: u64) -> Point;
}

/// A point of a timeline as the device sees it.
pub(super) enum Point {
    Reached,
    /// The semaphore comes to the value.
    At(vk::Semaphore, u64),
    /// Nothing was submitted that would bring it there: something else comes first.
    HeldUp,
}

/// The thread, and what it watches.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    raw: Arc<Raw>,
    /// The queues whose work has to be over before a loss is told.
    queues: Vec<Arc<SharedQueue>>,
    wake: Semaphore,
    /// The value of `wake`; changed with it, by one at a time.
    rung: Mutex<u64>,
    watched: Mutex<BTreeMap<u64, Weak<dyn Watched>>>,
    numbers: AtomicU64,
    stop: AtomicBool,
    idle: AtomicBool,
    /// Who is to be told of a loss; each once.
    on_loss: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

/// How far a fence is, as the device sees it.
pub(super) enum Standing {
    /// It is reached.
    Reached,
    /// The device can wait for it; the semaphore stays for as long as its owner is kept.
    Point(vk::Semaphore, u64, Arc<dyn Watched>),
    /// Only the CPU can.
    Foreign,
}

impl Watch {
    pub(super) fn start(
        raw: &Arc<Raw>,
        queues: Vec<Arc<SharedQueue>>,
    ) -> Result<Self, VulkanError> {
        let shared = Arc::new(Shared {
            raw: Arc::clone(raw),
            queues,
            wake: Semaphore::create(raw, false)?,
            rung: Mutex::new(0),
            watched: Mutex::new(BTreeMap::new()),
            numbers: AtomicU64::new(FIRST),
            stop: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            on_loss: Mutex::new(Vec::new()),
        });
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("vulkan fences".into())
            .spawn(move || served.serve())
            .map_err(|error| raw.lacks(format!("a thread that waits for it: {error}")))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A number for a timeline that no other has.
    pub(super) fn number(&self) -> u64 {
        // Relaxed: only that it is given once matters.
        self.shared.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Watches something under the number of its timeline, for as long as it lives.
    pub(super) fn add(&self, number: u64, watched: Weak<dyn Watched>) {
        let mut all = self.shared.watched.lock();
        all.retain(|_, watched| watched.strong_count() > 0);
        all.insert(number, watched);
    }

    /// Has the thread look again: there is something to wait for, or something went wrong.
    pub(super) fn ring(&self) {
        self.shared.ring();
    }

    /// What the device has to do to wait for a fence.
    pub(super) fn standing(&self, fence: &Fence) -> Standing {
        if fence.is_signalled() {
            return Standing::Reached;
        }
        let watched = self.shared.watched.lock().get(&fence.timeline()).cloned();
        match watched.and_then(|watched| watched.upgrade()) {
            None => Standing::Foreign,
            Some(watched) => match watched.point(fence.seqno()) {
                Point::Reached => Standing::Reached,
                Point::At(semaphore, value) => Standing::Point(semaphore, value, watched),
                Point::HeldUp => Standing::Foreign,
            },
        }
    }

    /// Calls `call` once the device is found to be lost, or was.
    pub(super) fn on_loss(&self, call: Box<dyn FnOnce() + Send>) {
        self.shared.on_loss.lock().push(call);
        if self.shared.raw.is_lost() {
            self.ring();
        }
    }
}

impl Shared {
    fn ring(&self) {
        let mut rung = self.rung.lock();
        // On a lost device the thread looks when its patience is over.
        if self.wake.signal(*rung + 1).is_ok() {
            *rung += 1;
        }
    }

    fn serve(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let rung = *self.rung.lock();
            let watched: Vec<_> = {
                let all = self.watched.lock();
                all.values().filter_map(Weak::upgrade).collect()
            };
            watched.iter().for_each(|watched| watched.poll());
            if self.raw.is_lost() {
                self.tell_of_loss(&watched);
                thread::sleep(PATIENCE / 10);
                continue;
            }
            let mut points: Vec<_> = watched.iter().filter_map(|w| w.next()).collect();
            points.push((self.wake.handle(), rung + 1));
            // A loss is seen by the flag; anything else is tried again after a while.
            if Semaphore::wait_any(&self.raw, &points, PATIENCE).is_err() {
                thread::sleep(PATIENCE / 100);
            }
        }
    }

    fn tell_of_loss(&self, watched: &[Arc<dyn Watched>]) {
        // A lost device is idle at once; one that only said so is not, and writes what the fences
        // protect. Relaxed: this thread's alone.
        if !self.idle.swap(true, Ordering::Relaxed) {
            self.queues
                .iter()
                .for_each(|queue| queue.wait_idle(&self.raw));
        }
        watched.iter().for_each(|watched| watched.lose());
        let calls = core::mem::take(&mut *self.on_loss.lock());
        calls.into_iter().for_each(|call| call());
    }
}

impl Watch {
    /// Ends the thread: it calls nothing of the device any more, unless this is called by itself.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.ring();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            let panicked = thread.join().is_err();
            assert!(
                !panicked || thread::panicking(),
                "the thread that waits for the device panicked"
            );
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}
