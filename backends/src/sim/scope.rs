//! Clients of a virtual clock.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use ttm::clock::{Clock, WaitCell};
use ttm::sync::{Arc, Mutex};

use super::clock::{SCOPE, VirtualClock};

/// Where clients are spawned; see [`VirtualClock::scope`]. Clones are the same scope.
#[derive(Clone)]
pub struct Scope<'scope, 'env: 'scope> {
    threads: &'scope thread::Scope<'scope, 'env>,
    clock: &'env Arc<VirtualClock>,
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Unparked when the last client is over.
    done: Arc<WaitCell>,
}

#[derive(Default)]
struct Inner {
    alive: usize,
    panic: Option<Box<dyn Any + Send>>,
}

impl VirtualClock {
    /// Runs clients, each a thread with a name, and returns when all are over.
    ///
    /// The clients begin when `body` has returned, in the order in which they were spawned, and
    /// take turns from then on.
    ///
    /// # Panics
    /// With the panic of `body`, or else of the first client that panicked; the others have then
    /// run to their ends all the same.
    pub fn scope<'env, R>(
        self: &'env Arc<Self>,
        body: impl for<'scope> FnOnce(&Scope<'scope, 'env>) -> R,
    ) -> R {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner::default()),
            done: WaitCell::new(),
        });
        let result = thread::scope(|threads| {
            let scope = Scope {
                threads,
                clock: self,
                shared: Arc::clone(&shared),
            };
            let result = catch_unwind(AssertUnwindSafe(|| body(&scope)));
            while shared.inner.lock().alive > 0 {
                self.park(&shared.done, None, SCOPE);
            }
            result
        });
        let panic = shared.inner.lock().panic.take();
        match (result, panic) {
            (Ok(result), None) => result,
            (Err(panic), _) | (Ok(_), Some(panic)) => resume_unwind(panic),
        }
    }
}

impl<'scope> Scope<'scope, '_> {
    /// A new client. It is ready at once and runs when its turn comes.
    pub fn spawn(&self, name: &str, client: impl FnOnce() + Send + 'scope) {
        let id = self.clock.add_client(name);
        self.shared.inner.lock().alive += 1;
        let over = Over {
            clock: Arc::clone(self.clock),
            shared: Arc::clone(&self.shared),
            id,
        };
        let spawned =
            thread::Builder::new()
                .name(name.into())
                .spawn_scoped(self.threads, move || {
                    over.clock.enter(id);
                    let result = catch_unwind(AssertUnwindSafe(client));
                    if let Err(panic) = result {
                        over.shared.inner.lock().panic.get_or_insert(panic);
                    }
                });
        // The guard went back with the error, so the client is over already.
        spawned.expect("the host gives a thread for each client");
    }
}

/// Ends a client when it drops, however that comes about.
struct Over {
    clock: Arc<VirtualClock>,
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Over {
    fn drop(&mut self) {
        let alive = {
            let mut inner = self.shared.inner.lock();
            inner.alive -= 1;
            inner.alive
        };
        if alive == 0 {
            self.clock.unpark(&self.shared.done);
        }
        self.clock.leave(self.id);
    }
}
