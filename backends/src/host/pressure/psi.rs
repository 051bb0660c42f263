//! Pressure by stall information: the time for which work waited for memory.
//!
//! 1. Two triggers are registered, one for some work that waits and one for all of it. The kernel
//!    watches them, and a poll that does not wait says whether one was hit.
//! 2. A hit counts for as long as the window that it was measured over.
//! 3. Where triggers are refused, or there is only a copy of the kernel's files, its averages over
//!    ten seconds are compared with the same shares.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use ttm::error::Result;
use ttm::pages::{Level, Pressure};
use ttm::sync::Mutex;

use super::tree::{Tree, senseless};

/// Where the kernel says it.
const FILE: &str = "/proc/pressure/memory";

/// Over which stalls are summed. Who is not privileged may choose multiples of two seconds.
const WINDOW: Duration = Duration::from_secs(2);

/// Microseconds of a window for which some work, or all, has to wait.
const STALLS: (u64, u64) = (150_000, 100_000);

/// How long work waited for memory, on the whole machine: 7.5 % of the time for some of it is
/// [`Level::Some`], 5 % for all of it is [`Level::Full`].
#[derive(Debug)]
pub struct PsiPressure {
    tree: Tree,
    triggers: std::result::Result<Triggers, String>,
    hits: Mutex<Hits>,
}

#[derive(Debug)]
struct Triggers {
    some: File,
    full: File,
}

/// When each trigger was hit last.
#[derive(Debug, Default)]
struct Hits {
    some: Option<Instant>,
    full: Option<Instant>,
}

impl PsiPressure {
    /// The stalls of this machine.
    ///
    /// # Errors
    /// [`Error::Backend`](ttm::Error::Backend) if the kernel does not measure them.
    pub fn of_host() -> Result<Self> {
        Self::of_tree("/")
    }

    /// The same, of a copy of a kernel's files below `root`, which has averages only.
    ///
    /// # Errors
    /// Those of [`PsiPressure::of_host`].
    pub fn of_tree(root: impl AsRef<Path>) -> Result<Self> {
        let tree = Tree::new(root.as_ref());
        if averages(&tree.read(FILE)?).is_none() {
            return Err(senseless(FILE));
        }
        let triggers = Triggers::register(&tree.path(FILE)).map_err(|error| error.to_string());
        Ok(Self {
            tree,
            triggers,
            hits: Mutex::new(Hits::default()),
        })
    }

    /// Whether the kernel watches triggers; if not, averages are read.
    #[must_use]
    pub fn has_triggers(&self) -> bool {
        self.triggers.is_ok()
    }

    fn by_averages(&self) -> Level {
        let text = self.tree.read(FILE).ok();
        let Some((some, full)) = text.as_deref().and_then(averages) else {
            return Level::None;
        };
        let share = |stall: u64| stall as f64 * 100.0 / WINDOW.as_micros() as f64;
        match () {
            () if full >= share(STALLS.1) => Level::Full,
            () if some >= share(STALLS.0) => Level::Some,
            () => Level::None,
        }
    }
}

impl Triggers {
    fn register(path: &Path) -> io::Result<Self> {
        // A trigger is registered by writing, which would spoil a copy.
        let kind = rustix::fs::statfs(path)?.f_type;
        if i128::from(kind) != i128::from(rustix::fs::PROC_SUPER_MAGIC) {
            return Err(io::Error::other("not a file of the kernel's"));
        }
        let trigger = |line: String| {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            file.write_all(line.as_bytes())?;
            Ok::<_, io::Error>(file)
        };
        let window = WINDOW.as_micros();
        Ok(Self {
            some: trigger(format!("some {} {window}\0", STALLS.0))?,
            full: trigger(format!("full {} {window}\0", STALLS.1))?,
        })
    }

    /// Whether each was hit since it was asked last; `None` if the kernel watches them no longer.
    fn poll(&self) -> Option<(bool, bool)> {
        let mut fds = [
            PollFd::new(&self.some, PollFlags::PRI),
            PollFd::new(&self.full, PollFlags::PRI),
        ];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if rustix::event::poll(&mut fds, Some(&at_once)).is_err() {
            return Some((false, false));
        }
        let [some, full] = fds.map(|fd| fd.revents());
        let gone = (some | full).intersects(PollFlags::ERR | PollFlags::NVAL);
        (!gone).then(|| (some.contains(PollFlags::PRI), full.contains(PollFlags::PRI)))
    }
}

impl Hits {
    fn note(&mut self, (some, full): (bool, bool), now: Instant) -> Level {
        if some {
            self.some = Some(now);
        }
        if full {
            self.full = Some(now);
        }
        let recent = |hit: Option<Instant>| {
            hit.is_some_and(|then| now.saturating_duration_since(then) < WINDOW)
        };
        match () {
            () if recent(self.full) => Level::Full,
            () if recent(self.some) => Level::Some,
            () => Level::None,
        }
    }
}

/// The averages over ten seconds, in hundredths: for some work, and for all.
fn averages(text: &str) -> Option<(f64, f64)> {
    let of = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let word = line
            .split_whitespace()
            .find_map(|w| w.strip_prefix("avg10="))?;
        word.parse().ok().filter(|n: &f64| n.is_finite())
    };
    // Kernels before 5.13 have no second line for some resources.
    Some((of("some ")?, of("full ").unwrap_or(0.0)))
}

impl Pressure for PsiPressure {
    fn level(&self) -> Level {
        match self.triggers.as_ref().ok().and_then(Triggers::poll) {
            Some(hit) => self.hits.lock().note(hit, Instant::now()),
            None => self.by_averages(),
        }
    }

    fn describe(&self) -> String {
        match &self.triggers {
            Ok(_) => "stall information, by triggers".into(),
            Err(why) => format!("stall information, by averages (no triggers: {why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_counts_for_one_window() {
        let mut hits = Hits::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(hits.note((false, false), at(0)), Level::None);
        assert_eq!(hits.note((true, false), at(100)), Level::Some);
        assert_eq!(hits.note((false, false), at(2000)), Level::Some);
        assert_eq!(hits.note((false, true), at(2050)), Level::Full);
        assert_eq!(hits.note((true, false), at(3900)), Level::Full);
        assert_eq!(hits.note((false, false), at(4100)), Level::Some);
        assert_eq!(hits.note((false, false), at(5900)), Level::None);
    }

    #[test]
    fn averages_that_make_no_sense_are_none() {
        let good = "some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=0.25 avg60=0\n";
        assert_eq!(averages(good), Some((1.5, 0.25)));
        assert_eq!(averages("some avg10=3 total=0"), Some((3.0, 0.0)));
        for bad in [
            "",
            "some",
            "some ",
            "some avg10=",
            "some avg10=NaN",
            "full avg10=1",
        ] {
            assert_eq!(averages(bad), None, "{bad}");
        }
    }
}
