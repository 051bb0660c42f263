//! Who waits for the device: one thread, for all semaphores at once.

use core::time::Duration;
use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

use ash::vk;
use ttm::fence::Fence;
use ttm::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, Weak};

use super::error::VulkanError;
use super::raw::{Raw, Semaphore};

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

    /// How far a point of the timeline is.
    fn standing(&self, seqno: u64) -> Standing;
}

/// The thread, and what it watches.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    raw: Arc<Raw>,
    wake: Semaphore,
    /// The value of `wake`; changed with it, by one at a time.
    rung: Mutex<u64>,
    watched: Mutex<BTreeMap<u64, Weak<dyn Watched>>>,
    numbers: AtomicU64,
    stop: AtomicBool,
    told: AtomicBool,
    on_loss: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

/// How far a fence is, as the device sees it.
pub(super) enum Standing {
    /// It is reached.
    Reached,
    /// The device can wait for it.
    Point(vk::Semaphore, u64),
    /// Only the CPU can: it is of no semaphore of this device, or nothing that reaches it was submitted
    /// yet. What waited for that in front of it, in the same queue, would wait for ever.
    Unseen,
}

impl Watch {
    pub(super) fn start(raw: &Arc<Raw>) -> Result<Self, VulkanError> {
        let shared = Arc::new(Shared {
            raw: Arc::clone(raw),
            wake: Semaphore::create(raw, false)?,
            rung: Mutex::new(0),
            watched: Mutex::new(BTreeMap::new()),
            numbers: AtomicU64::new(FIRST),
            stop: AtomicBool::new(false),
            told: AtomicBool::new(false),
            on_loss: Mutex::new(Vec::new()),
        });
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("vulkan fences".into())
            .spawn(move || served.serve())
            .map_err(|error| VulkanError::Unsuitable {
                device: raw.facts.name.clone(),
                lacks: format!("a thread that waits for it: {error}"),
            })?;
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
            None => Standing::Unseen,
            Some(watched) => watched.standing(fence.seqno()),
        }
    }

    /// Calls `call` once the device is found to be lost.
    pub(super) fn on_loss(&self, call: Box<dyn Fn() + Send + Sync>) {
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
        watched.iter().for_each(|watched| watched.lose());
        if !self.told.swap(true, Ordering::AcqRel) {
            self.on_loss.lock().iter().for_each(|call| call());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
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
