//! Repeats, medians, and what keeps them honest.
//!
//! A row is some repeats of many operations each, after one untimed warm-up repeat. A repeat's
//! value is its timed part divided by its operations; the clock is read once before a timed part
//! and once after it. A repeat during which the thread was preempted is dropped and taken again,
//! up to [`ATTEMPTS`] times the wanted number in all. Two sides that are to be compared take
//! turns, repeat by repeat, so that a slow minute of the machine slows both.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// How many samples a row takes unless it says otherwise.
pub const REPEATS: usize = 61;

/// How many repeats are tried for each sample that is wanted.
pub const ATTEMPTS: usize = 4;

/// With fewer undisturbed samples than this, the disturbed ones count too.
const FEWEST: usize = 5;

/// Times the part of a repeat that is to be timed.
#[derive(Debug, Default)]
pub struct Stopwatch {
    elapsed: Duration,
    ops: usize,
}

impl Stopwatch {
    /// Times `work`, which does `ops` operations. Called again in the same repeat, it adds up;
    /// what a repeat does outside is not timed.
    pub fn time<R>(&mut self, ops: usize, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self.elapsed += start.elapsed();
        self.ops += ops;
        result
    }

    /// Adds a time taken elsewhere, as by a device's own clock.
    pub fn add(&mut self, ops: usize, elapsed: Duration) {
        self.elapsed += elapsed;
        self.ops += ops;
    }

    fn ns_per_op(&self) -> f64 {
        assert!(self.ops > 0, "a repeat that timed no operation");
        self.elapsed.as_nanos() as f64 / self.ops as f64
    }
}

/// What the samples of one row say, in nanoseconds an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there are.
    pub samples: usize,
    /// How many more were dropped because the thread was preempted.
    pub dropped: usize,
    /// Whether preempted samples had to be counted, for want of others.
    pub disturbed: bool,
}

impl Spread {
    /// Sums up `samples`, none of them disturbed.
    ///
    /// # Panics
    /// When there are none.
    pub fn of(samples: &[f64]) -> Self {
        let (min, max) = samples
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &x| {
                (min.min(x), max.max(x))
            });
        let median = median(samples);
        Self {
            median,
            min,
            max,
            samples: samples.len(),
            dropped: 0,
            disturbed: false,
        }
    }

    /// Sums up several runs of the same row: the median of medians, the least, the largest.
    ///
    /// # Panics
    /// When there are none.
    pub fn across(runs: &[Self]) -> Self {
        let medians: Vec<f64> = runs.iter().map(|run| run.median).collect();
        Self {
            median: median(&medians),
            min: runs.iter().map(|run| run.min).fold(f64::INFINITY, f64::min),
            max: runs
                .iter()
                .map(|run| run.max)
                .fold(f64::NEG_INFINITY, f64::max),
            samples: runs.iter().map(|run| run.samples).sum(),
            dropped: runs.iter().map(|run| run.dropped).sum(),
            disturbed: runs.iter().any(|run| run.disturbed),
        }
    }
}

/// The middle of `samples`, or the mean of the middle two.
///
/// # Panics
/// When there are none.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// What a share `q` of `samples` stays at or below, between two neighbours in proportion.
///
/// # Panics
/// When there are none, or `q` lies outside 0 to 1.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    assert!(!samples.is_empty(), "a quantile of no samples");
    assert!((0.0..=1.0).contains(&q), "quantile {q}");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// What the system says when there is no such CPU for us.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

/// Lets the calling thread, and those that it starts from now on, run on every CPU again.
///
/// # Errors
/// What the system says.
pub fn unpin() -> io::Result<()> {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    Ok(sched_setaffinity(None, &all)?)
}

/// Measures one row on this thread: each call of `repeat` is one repeat.
pub fn measure(repeats: usize, mut repeat: impl FnMut(&mut Stopwatch)) -> Spread {
    let [spread] = interleave(repeats, [&mut repeat as &mut dyn FnMut(&mut Stopwatch)]);
    spread
}

/// Measures two rows in turn, repeat by repeat: ours and its limit.
pub fn compare(
    repeats: usize,
    mut ours: impl FnMut(&mut Stopwatch),
    mut limit: impl FnMut(&mut Stopwatch),
) -> (Spread, Spread) {
    let sides: [&mut dyn FnMut(&mut Stopwatch); 2] = [&mut ours, &mut limit];
    let [ours, limit] = interleave(repeats, sides);
    (ours, limit)
}

/// Measures a fixed number of rows in turn, repeat by repeat.
pub fn interleave<const SIDES: usize>(
    repeats: usize,
    mut sides: [&mut dyn FnMut(&mut Stopwatch); SIDES],
) -> [Spread; SIDES] {
    let spreads = in_turn(repeats, &mut sides);
    std::array::from_fn(|side| spreads[side])
}

/// Measures any number of rows in turn, repeat by repeat.
pub fn in_turn(repeats: usize, sides: &mut [&mut dyn FnMut(&mut Stopwatch)]) -> Vec<Spread> {
    let mut interruptions = Interruptions::of_this_thread();
    for side in sides.iter_mut() {
        side(&mut Stopwatch::default());
    }
    let mut collected: Vec<Samples> = sides.iter().map(|_| Samples::new()).collect();
    for _ in 0..repeats * ATTEMPTS {
        if collected
            .iter()
            .all(|samples| samples.kept.len() >= repeats)
        {
            break;
        }
        for (side, samples) in sides.iter_mut().zip(&mut collected) {
            let mut watch = Stopwatch::default();
            interruptions.look();
            side(&mut watch);
            samples.add(watch.ns_per_op(), interruptions.look());
        }
    }
    collected.iter().map(Samples::spread).collect()
}

/// One thread beside two at the same work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// One thread alone, on CPU 0.
    pub one: Spread,
    /// Two threads, on CPUs 0 and 1: the time of the slower, over the operations of both.
    pub two: Spread,
    /// How many times the work of one thread two threads do in the same time.
    pub factor: f64,
}

/// Measures the same work on one thread and on two that start together, in turn.
///
/// `make` is called in each thread with 0 or 1 and returns its repeat; state that should be
/// disjoint is made there, state that should be shared is borrowed. A repeat should time one
/// piece only, since the threads wait for each other before it and not inside.
///
/// # Errors
/// What the system says when there is no second CPU for us.
pub fn scaling<W>(repeats: usize, make: impl Fn(usize) -> W + Sync) -> io::Result<Scaling>
where
    W: FnMut(&mut Stopwatch),
{
    let meeting = Meeting::new(repeats);
    let (first, second) = thread::scope(|scope| {
        let [first, second] = [0, 1].map(|index| {
            let (meeting, make) = (&meeting, &make);
            scope.spawn(move || meeting.attend(index, || make(index)))
        });
        (first.join(), second.join())
    });
    let resume = |panic| -> Attended { std::panic::resume_unwind(panic) };
    let (first, second) = (
        first.unwrap_or_else(resume)?,
        second.unwrap_or_else(resume)?,
    );

    let mut alone = Samples::new();
    for &(ns, preempted) in &first.alone {
        alone.add(ns, preempted);
    }
    let mut together = Samples::new();
    for (a, b) in first.together.iter().zip(&second.together) {
        let slower = a.elapsed.max(b.elapsed).as_nanos() as f64;
        together.add(slower / (a.ops + b.ops) as f64, a.preempted || b.preempted);
    }
    let (one, two) = (
        alone.first(repeats).spread(),
        together.first(repeats).spread(),
    );
    Ok(Scaling {
        one,
        two,
        factor: one.median / two.median,
    })
}

type Attended = io::Result<Attendance>;

/// What one thread of [`scaling`] saw.
#[derive(Debug, Default)]
struct Attendance {
    alone: Vec<(f64, bool)>,
    together: Vec<Timed>,
}

#[derive(Debug)]
struct Timed {
    elapsed: Duration,
    ops: usize,
    preempted: bool,
}

/// Where the two threads of [`scaling`] wait for each other.
#[derive(Debug)]
struct Meeting {
    rounds: usize,
    asleep: Barrier,
    arrivals: AtomicUsize,
    refusals: AtomicUsize,
}

impl Meeting {
    fn new(repeats: usize) -> Self {
        Self {
            // Preempted rounds cannot be taken again by one thread, so there are spare ones.
            rounds: repeats * 2,
            asleep: Barrier::new(2),
            arrivals: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
        }
    }

    fn attend<W>(&self, index: usize, make: impl FnOnce() -> W) -> Attended
    where
        W: FnMut(&mut Stopwatch),
    {
        let pinned = pin(index);
        if pinned.is_err() {
            // The barrier below publishes this to the other thread, which leaves too.
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        self.asleep.wait();
        pinned?;
        if self.refusals.load(Ordering::Relaxed) > 0 {
            return Ok(Attendance::default());
        }
        let _alone = NeverAlone;
        let mut repeat = make();
        let mut interruptions = Interruptions::of_this_thread();
        let mut seen = Attendance::default();
        repeat(&mut Stopwatch::default());
        for round in 1..=self.rounds {
            self.asleep.wait();
            if index == 0 {
                let mut watch = Stopwatch::default();
                interruptions.look();
                repeat(&mut watch);
                seen.alone.push((watch.ns_per_op(), interruptions.look()));
            }
            self.asleep.wait();
            interruptions.look();
            self.start_together(round);
            let mut watch = Stopwatch::default();
            repeat(&mut watch);
            let preempted = interruptions.look();
            seen.together.push(Timed {
                elapsed: watch.elapsed,
                ops: watch.ops,
                preempted,
            });
        }
        Ok(seen)
    }

    /// Spins until both threads are here: waking from sleep would take one of them far longer.
    fn start_together(&self, round: usize) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        while self.arrivals.load(Ordering::Acquire) < 2 * round {
            std::hint::spin_loop();
        }
    }
}

/// Ends the process when its thread panics: the other would wait for ever.
#[derive(Debug)]
struct NeverAlone;

impl Drop for NeverAlone {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// The samples of one row, those of preempted repeats apart.
#[derive(Debug)]
struct Samples {
    kept: Vec<f64>,
    preempted: Vec<f64>,
}

impl Samples {
    const fn new() -> Self {
        Self {
            kept: Vec::new(),
            preempted: Vec::new(),
        }
    }

    fn add(&mut self, ns: f64, preempted: bool) {
        if preempted {
            &mut self.preempted
        } else {
            &mut self.kept
        }
        .push(ns);
    }

    /// Forgets the undisturbed samples after the first `count`.
    fn first(mut self, count: usize) -> Self {
        self.kept.truncate(count);
        self
    }

    fn spread(&self) -> Spread {
        if self.kept.len() >= FEWEST || self.preempted.is_empty() {
            return Spread {
                dropped: self.preempted.len(),
                ..Spread::of(&self.kept)
            };
        }
        let all = [&self.kept[..], &self.preempted[..]].concat();
        Spread {
            disturbed: true,
            ..Spread::of(&all)
        }
    }
}

/// Tells whether the thread was put off its CPU, by the system's count of switches that it did
/// not ask for. Where the system does not count, it never was.
#[derive(Debug)]
struct Interruptions {
    status: Option<File>,
    seen: u64,
}

impl Interruptions {
    fn of_this_thread() -> Self {
        Self {
            status: File::open("/proc/thread-self/status").ok(),
            seen: 0,
        }
    }

    /// Whether there was one since the last look.
    fn look(&mut self) -> bool {
        let count = self.count().unwrap_or(0);
        let before = std::mem::replace(&mut self.seen, count);
        count > before
    }

    fn count(&self) -> Option<u64> {
        let mut text = [0_u8; 4096];
        let length = self.status.as_ref()?.read_at(&mut text, 0).ok()?;
        involuntary_switches(std::str::from_utf8(&text[..length]).ok()?)
    }
}

fn involuntary_switches(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 1.0), 5.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), 2.0);
    }

    #[test]
    fn runs_join_as_median_of_medians_least_and_largest() {
        let runs = [
            Spread::of(&[1.0, 2.0, 3.0]),
            Spread::of(&[4.0, 5.0, 60.0]),
            Spread::of(&[7.0]),
        ];
        let all = Spread::across(&runs);
        assert_eq!(
            (all.median, all.min, all.max, all.samples),
            (5.0, 1.0, 60.0, 7)
        );
    }

    #[test]
    fn preempted_samples_count_only_for_want_of_others() {
        let mut samples = Samples::new();
        samples.add(100.0, true);
        for _ in 0..FEWEST {
            samples.add(1.0, false);
        }
        let spread = samples.spread();
        assert_eq!(
            (spread.max, spread.samples, spread.dropped),
            (1.0, FEWEST, 1)
        );
        assert!(!spread.disturbed);

        let mut samples = Samples::new();
        samples.add(100.0, true);
        samples.add(2.0, false);
        let spread = samples.spread();
        assert_eq!(
            (spread.median, spread.samples, spread.dropped),
            (51.0, 2, 0)
        );
        assert!(spread.disturbed);
    }

    #[test]
    fn a_repeat_is_its_timed_part_over_its_operations() {
        let mut watch = Stopwatch::default();
        watch.add(3, Duration::from_nanos(30));
        watch.add(1, Duration::from_nanos(10));
        assert_eq!(watch.ns_per_op(), 10.0);
    }

    #[test]
    fn both_sides_take_as_many_samples_and_a_warm_up() {
        let (mut ours, mut limit) = (0, 0);
        let (a, b) = compare(
            7,
            |watch| watch.time(1, || ours += 1),
            |watch| watch.time(1, || limit += 1),
        );
        assert_eq!(ours, limit);
        assert_eq!(ours, 1 + a.samples + a.dropped);
        assert_eq!(limit, 1 + b.samples + b.dropped);
    }

    #[test]
    fn two_threads_do_twice_the_work_in_the_same_time_or_it_says_so() {
        let spin = |_| {
            |watch: &mut Stopwatch| {
                watch.time(10, || {
                    (0..1000).for_each(|n| {
                        std::hint::black_box(n);
                    })
                })
            }
        };
        match scaling(5, spin) {
            Ok(seen) => assert!(seen.factor > 0.0 && seen.one.samples <= 10, "{seen:?}"),
            Err(error) => println!("skipped, there is no second CPU: {error}"),
        }
    }

    #[test]
    fn the_count_of_switches_is_found_in_the_status() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t12\n";
        assert_eq!(involuntary_switches(status), Some(12));
        assert_eq!(involuntary_switches("Name:\tx\n"), None);
    }
}
