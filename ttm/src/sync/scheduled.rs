//! Locks that an engine of schedule tests drives, in parking_lot's shape.

use core::ops::{Deref, DerefMut};
use core::time::Duration;

#[cfg(loom)]
use ::loom as engine;
#[cfg(shuttle)]
use ::shuttle as engine;

/// A lock that the engine schedules.
#[derive(Debug)]
pub struct Mutex<T>(engine::sync::Mutex<T>);

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(engine::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect("no test poisons a lock")))
    }

    /// What is guarded: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("no test poisons a lock")
    }
}

/// The proof that the lock is held.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(Option<engine::sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("present outside a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("present outside a wait")
    }
}

/// A condition variable that the engine schedules.
#[derive(Debug)]
pub struct Condvar(engine::sync::Condvar);

/// Whether a wait ended because of its time.
#[derive(Clone, Copy, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was up.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    /// A new condition variable.
    pub fn new() -> Self {
        Self(engine::sync::Condvar::new())
    }

    /// Waits, giving the lock up meanwhile.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.0.take().expect("present outside a wait");
        guard.0 = Some(self.0.wait(inner).expect("no test poisons a lock"));
    }

    /// Waits; time stands still in a model, so this never times out.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult(false)
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
