//! What the kernel says of a thread and of the process.
#![expect(unsafe_code, reason = "getrusage(2) is behind no safe call")]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a thread faulted, and how often it gave its processor away by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Interruptions {
    faults: i64,
    sleeps: i64,
}

impl Interruptions {
    /// Those of this thread so far.
    pub(crate) fn now() -> Self {
        let mut usage = core::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the kernel writes one `rusage` to where there is room for one.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        // SAFETY: it is zeroed at least, and zeroes are a value of it.
        let usage = unsafe { usage.assume_init() };
        Self {
            faults: usage.ru_minflt + usage.ru_majflt,
            sleeps: usage.ru_nvcsw,
        }
    }
}

/// So long at most does the kernel take to let go of a thread that has ended.
const SETTLED: Duration = Duration::from_secs(1);

/// What a process has of the system (O5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Census {
    threads: usize,
    /// Without pipes and sockets, which a sanitizer or a library may have for itself.
    files: usize,
    /// Mappings of memory files, which frames, device memory and windows are.
    mappings: usize,
}

impl Census {
    /// What it has now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn now() -> Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps").context("cannot read /proc/self/maps")?;
        let memory_files = maps.lines().filter(|line| line.contains("/memfd:"));
        Ok(Self {
            threads: entries("/proc/self/task")?.count(),
            files: files()?,
            mappings: memory_files.count(),
        })
    }

    /// What there is that was not there at this census; nothing if there is no more of anything.
    /// Waits for threads that have ended, which the kernel still shows for a moment.
    ///
    /// # Errors
    /// As [`Census::now`].
    pub(crate) fn left(self) -> Result<Option<String>> {
        let start = Instant::now();
        loop {
            let left = Self::now()?.more_than(self);
            if left.is_none() || start.elapsed() > SETTLED {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn more_than(self, before: Self) -> Option<String> {
        let more = |what: &str, now: usize, then: usize| {
            (now > then).then(|| format!("{} {what}", now - then))
        };
        let left = [
            more("threads", self.threads, before.threads),
            more("open files", self.files, before.files),
            more("mappings of memory files", self.mappings, before.mappings),
        ];
        let left: Vec<_> = left.into_iter().flatten().collect();
        (!left.is_empty()).then(|| left.join(", "))
    }
}

fn entries(folder: &str) -> Result<fs::ReadDir> {
    fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))
}

fn files() -> Result<usize> {
    let targets = entries("/proc/self/fd")?.flatten();
    let targets = targets.filter_map(|entry| fs::read_link(entry.path()).ok());
    let other = |target: &str| target.starts_with("pipe:") || target.starts_with("socket:");
    Ok(targets.filter(|t| !other(&t.to_string_lossy())).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_since_is_named() {
        let before = Census::now().unwrap();
        let file = fs::File::open("/proc/self/maps").unwrap();
        let left = Census::now().unwrap().more_than(before);
        assert!(left.unwrap().contains("open files"));
        drop(file);
    }

    #[test]
    fn a_thread_that_sleeps_says_so() {
        let before = Interruptions::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_ne!(Interruptions::now(), before);
    }
}
