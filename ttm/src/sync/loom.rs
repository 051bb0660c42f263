//! What is loom's own: its atomics, a cell that is made once, thread numbers.

/// Loom's atomics, with what std's have beyond them.
pub mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};

    use core::ops::Deref;

    /// A 64-bit atomic that loom explores.
    #[derive(Debug, Default)]
    pub struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        /// An atomic that holds `value`.
        pub fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        /// Applies `update` until no other thread interferes, or it answers none.
        ///
        /// # Errors
        /// The value for which `update` answered none.
        pub fn try_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            update: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            self.0.fetch_update(set, fetch, update)
        }
    }

    impl Deref for AtomicU64 {
        type Target = loom::sync::atomic::AtomicU64;
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}

/// A value that is made once. Std's cell orders what it holds in a way that loom does not see.
#[derive(Debug)]
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    made: loom::sync::atomic::AtomicBool,
    making: loom::sync::Mutex<()>,
}

impl<T> OnceLock<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            made: loom::sync::atomic::AtomicBool::new(false),
            making: loom::sync::Mutex::new(()),
        }
    }

    /// The value, if it was made.
    pub fn get(&self) -> Option<&T> {
        let made = self.made.load(atomic::Ordering::Acquire);
        if made { self.value.get() } else { None }
    }

    /// The value, made by `make` if it was not.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let _making = self.making.lock().expect("no test poisons a lock");
        let value = self.value.get_or_init(make);
        self.made.store(true, atomic::Ordering::Release);
        value
    }
}

loom::thread_local! {
    static INDEX: u32 = {
        // Loom numbers the threads of each model from 0 on, and says so in this text only.
        let name = format!("{:?}", loom::thread::current().id());
        let digits = name.trim_start_matches("ThreadId(").trim_end_matches(')');
        digits.parse().expect("loom prints its thread numbers")
    };
}

/// The number of the running model thread.
pub(crate) fn thread_index() -> u32 {
    INDEX.with(|index| *index)
}
