//! The one door to locks, atomics and queues.
//!
//! Nothing else in this crate names `parking_lot`, `crossbeam` or `std::sync`'s locks, so that
//! the schedule tests can put in others: `--cfg shuttle` and `--cfg loom` each choose their own.
//!
//! # Lock order
//!
//! ticket domain → reservation → window → manager → pool → group → trace. A manager's lock is
//! never held while a reservation is taken, a fence waited for, or anything foreign (driver,
//! backend, a user's `Drop`) called; the ticket domain's inner lock is a leaf.
//!
//! parking_lot does not poison: whoever changes guarded state in several steps either cannot
//! panic between them or undoes them in a drop guard.

#[cfg(loom)]
mod loom;
#[cfg(any(shuttle, loom))]
mod scheduled;
#[cfg(shuttle)]
mod shuttle;

#[cfg(not(any(shuttle, loom)))]
mod real {
    pub use core::sync::atomic;
    pub use parking_lot::{Condvar, Mutex, MutexGuard};

    use core::cell::Cell;
    use std::collections::BinaryHeap;

    use core::cmp::Reverse;

    /// Numbers of threads that have ended, smallest first, and the first number never given.
    static INDICES: Mutex<(BinaryHeap<Reverse<u32>>, u32)> = Mutex::new((BinaryHeap::new(), 0));

    struct Index(u32);

    impl Drop for Index {
        fn drop(&mut self) {
            INDICES.lock().0.push(Reverse(self.0));
        }
    }

    thread_local! {
        static CACHED: Cell<u32> = const { Cell::new(u32::MAX) };
        static OWNED: Index = Index({
            let mut indices = INDICES.lock();
            match indices.0.pop() {
                Some(Reverse(index)) => index,
                None => {
                    indices.1 += 1;
                    indices.1 - 1
                }
            }
        });
    }

    /// A small number that no other live thread has. It is the only process-wide state of this
    /// crate, and it names threads, not memory.
    #[inline]
    pub(crate) fn thread_index() -> u32 {
        let cached = CACHED.with(Cell::get);
        if cached != u32::MAX {
            return cached;
        }
        first_use()
    }

    #[cold]
    fn first_use() -> u32 {
        let index = OWNED.with(|owned| owned.0);
        CACHED.with(|cached| cached.set(index));
        index
    }

    thread_local! {
        static LANE: Cell<u32> = const { Cell::new(u32::MAX) };
    }

    /// The number by which this thread has things of its own that others may share: its index,
    /// unless [`in_lane`] says otherwise.
    #[inline]
    pub(crate) fn lane() -> u32 {
        match LANE.get() {
            u32::MAX => first_lane(),
            lane => lane,
        }
    }

    #[cold]
    fn first_lane() -> u32 {
        LANE.set(thread_index());
        LANE.get()
    }

    /// Runs `f` in lane `lane`.
    pub(crate) fn in_lane(lane: u32, f: impl FnOnce()) {
        struct Back(u32);
        impl Drop for Back {
            fn drop(&mut self) {
                LANE.set(self.0);
            }
        }
        let _back = Back(LANE.replace(lane));
        f();
    }
}

#[cfg(any(shuttle, loom))]
mod lane {
    pub(crate) fn lane() -> u32 {
        super::thread_index()
    }

    pub(crate) fn in_lane(_: u32, f: impl FnOnce()) {
        f();
    }
}

#[cfg(any(shuttle, loom))]
pub(crate) use lane::{in_lane, lane};
#[cfg(loom)]
pub(crate) use loom::thread_index;
#[cfg(loom)]
pub use loom::{OnceLock, atomic};
#[cfg(not(any(shuttle, loom)))]
pub use real::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(any(shuttle, loom)))]
pub(crate) use real::{in_lane, lane, thread_index};
#[cfg(any(shuttle, loom))]
pub use scheduled::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub use shuttle::atomic;
#[cfg(shuttle)]
pub(crate) use shuttle::thread_index;

pub use crossbeam::queue::SegQueue as Queue;
#[cfg(not(loom))]
pub use std::sync::OnceLock;
pub use std::sync::{Arc, Weak};

/// Keeps what two threads write often on cache lines of their own.
pub use crossbeam::utils::CachePadded;

/// Atomics over memory that is not this crate's: no schedule test may put others in.
pub(crate) mod foreign {
    pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}
