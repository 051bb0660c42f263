//! What is destroyed once nothing uses it.

use core::any::Any;

use ttm::fence::Fence;
use ttm::sync::Mutex;

/// Things, with the fences of what may still use them.
#[derive(Default)]
pub(super) struct Trash {
    things: Mutex<Vec<Thing>>,
}

type Thing = (Vec<Fence>, Box<dyn Any + Send>);

impl Trash {
    /// Drops `thing` after the fences: now, or at a later [`Trash::reap`].
    pub(super) fn put(&self, fences: Vec<Fence>, thing: impl Any + Send) {
        if fences.iter().any(|fence| !fence.is_signalled()) {
            self.things.lock().push((fences, Box::new(thing)));
        }
    }

    /// Drops what nothing uses any more. Answers whether there was something.
    pub(super) fn reap(&self) -> bool {
        let done: Vec<_> = {
            let mut things = self.things.lock();
            let idle = |thing: &mut Thing| thing.0.iter().all(Fence::is_signalled);
            things.extract_if(.., idle).collect()
        };
        !done.is_empty()
    }

    /// Drops everything: the device is idle, or gone.
    pub(super) fn empty(&self) {
        let all = core::mem::take(&mut *self.things.lock());
        drop(all);
    }
}
