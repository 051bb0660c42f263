//! What is shuttle's own: its atomics, and task numbers.

pub use shuttle::sync::atomic;

/// The number of the running shuttle task.
pub(crate) fn thread_index() -> u32 {
    u32::try_from(usize::from(shuttle::current::me())).expect("few tasks")
}
