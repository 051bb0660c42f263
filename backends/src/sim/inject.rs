//! Failures on command.
//!
//! A *site* is a named step that can be made to fail. Every passage is counted; what fails, and
//! when, is set by name. The sites of the manager ([`ttm::fault::Site`]) are among them.

use core::fmt;

use ttm::fault::{Faults, Site};
use ttm::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

/// Late fences come so much later unless somebody asks for another time: 50 ms.
const LATE_NS: u64 = 50_000_000;

/// What a failure at a site is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The step fails, and somebody is told: counted by [`Inject::fail_nth_probe`].
    Told,
    /// Nobody is told, or nothing fails but time, or everything fails.
    Apart,
}

struct Row {
    name: &'static str,
    what: &'static str,
    kind: Kind,
}

const fn told(name: &'static str, what: &'static str) -> Row {
    Row {
        name,
        what,
        kind: Kind::Told,
    }
}

const fn apart(name: &'static str, what: &'static str) -> Row {
    Row {
        name,
        what,
        kind: Kind::Apart,
    }
}

/// The sites of the sim. Those of the manager come behind them, in the order of [`Site::ALL`].
const OWN: [Row; 31] = [
    told("copy.submit", "an engine refuses a job; nothing is queued"),
    told("copy.start", "a copy fails before it touches anything"),
    told("copy.middle", "a copy fails with half of its pages written"),
    told("copy.late-error", "a copy writes everything and then fails"),
    apart(
        "copy.flip-bit",
        "a copy silently flips one bit of what it wrote",
    ),
    told(
        "kernel.submit",
        "a queue refuses a kernel; nothing is queued",
    ),
    apart(
        "fence.late",
        "the work is done in time and its fence signals later",
    ),
    apart(
        "fence.never",
        "the work is done and its fence never signals: the engine hangs",
    ),
    told(
        "fence.error",
        "the work is done and its fence says that it failed",
    ),
    apart("device.lost", "the device is lost when the job would begin"),
    told("pages.take", "frames run out"),
    told("pages.map", "the host refuses to map frames"),
    told("pages.zero", "frames cannot be overwritten with zeroes"),
    told("pages.switch", "frames keep their cache mode"),
    told("region.map", "the host refuses to map device memory"),
    told("backup.prepare", "the backup has no memory for its tables"),
    told("backup.full", "the backup has no slots"),
    told("backup.store", "the backup cannot write"),
    told("backup.load", "the backup cannot read"),
    apart(
        "backup.flip",
        "the backup returns data with one bit flipped",
    ),
    apart(
        "cache.skip-clean",
        "what the CPU wrote is silently not cleaned out of its caches",
    ),
    apart(
        "cache.skip-invalidate",
        "old lines silently stay in the CPU's caches",
    ),
    told("space.reserve", "the host gives no addresses for a window"),
    told(
        "space.prepare",
        "the host refuses to map what a window is to show",
    ),
    told("space.switch", "a mapping cannot be moved over a window"),
    told(
        "space.torn-switch",
        "a window loses its mapping, and the other does not come",
    ),
    told(
        "space.revoke",
        "accesses through a window cannot be made to wait",
    ),
    told("space.poison", "accesses through a window cannot be ended"),
    told("space.track", "writes through a window cannot be noted"),
    told("iommu.map", "the IOMMU's tables take no more"),
    apart(
        "iommu.skip-invalidate",
        "the device silently remembers what was unmapped",
    ),
];

/// The number of a site of the sim.
#[derive(Clone, Copy)]
pub(super) struct At(usize);

impl At {
    pub(super) const COPY_SUBMIT: Self = Self(0);
    pub(super) const COPY_START: Self = Self(1);
    pub(super) const COPY_MIDDLE: Self = Self(2);
    pub(super) const COPY_LATE_ERROR: Self = Self(3);
    pub(super) const COPY_FLIP_BIT: Self = Self(4);
    pub(super) const KERNEL_SUBMIT: Self = Self(5);
    pub(super) const FENCE_LATE: Self = Self(6);
    pub(super) const FENCE_NEVER: Self = Self(7);
    pub(super) const FENCE_ERROR: Self = Self(8);
    pub(super) const DEVICE_LOST: Self = Self(9);
    pub(super) const PAGES_TAKE: Self = Self(10);
    pub(super) const PAGES_MAP: Self = Self(11);
    pub(super) const PAGES_ZERO: Self = Self(12);
    pub(super) const PAGES_SWITCH: Self = Self(13);
    pub(super) const REGION_MAP: Self = Self(14);
    pub(super) const BACKUP_PREPARE: Self = Self(15);
    pub(super) const BACKUP_FULL: Self = Self(16);
    pub(super) const BACKUP_STORE: Self = Self(17);
    pub(super) const BACKUP_LOAD: Self = Self(18);
    pub(super) const BACKUP_FLIP: Self = Self(19);
    pub(super) const CACHE_SKIP_CLEAN: Self = Self(20);
    pub(super) const CACHE_SKIP_INVALIDATE: Self = Self(21);
    pub(super) const SPACE_RESERVE: Self = Self(22);
    pub(super) const SPACE_PREPARE: Self = Self(23);
    pub(super) const SPACE_SWITCH: Self = Self(24);
    pub(super) const SPACE_TORN_SWITCH: Self = Self(25);
    pub(super) const SPACE_REVOKE: Self = Self(26);
    pub(super) const SPACE_POISON: Self = Self(27);
    pub(super) const SPACE_TRACK: Self = Self(28);
    pub(super) const IOMMU_MAP: Self = Self(29);
    pub(super) const IOMMU_SKIP_INVALIDATE: Self = Self(30);
}

const SITES: usize = OWN.len() + Site::ALL.len();

/// Which steps fail. Shared by a [`Gpu`](super::Gpu), its wrappers and the manager's device.
///
/// ```
/// use backends::sim::Inject;
///
/// let inject = Inject::new();
/// inject.parse_and_set("copy.flip-bit:2").unwrap();
/// assert_eq!(inject.count("copy.flip-bit"), 0);
///
/// let error = inject.parse_and_set("copy.flop-bit").unwrap_err();
/// assert!(error.to_string().contains("copy.flip-bit"), "it lists the sites");
/// ```
pub struct Inject {
    sites: [Counts; SITES],
    /// Whether a rule or a countdown is set. Relaxed: setting one between the steps of another
    /// thread has no order to keep.
    armed: AtomicBool,
    /// Probes passed since counting was started.
    total: AtomicU64,
    late_ns: AtomicU64,
    rules: Mutex<Rules>,
}

#[derive(Default)]
struct Counts {
    passed: AtomicU64,
    hits: AtomicU64,
}

struct Rules {
    sites: [Option<Rule>; SITES],
    /// Fails a probe whatever its site; counts from the beginning of counting.
    any: Option<Rule>,
    last: Option<&'static str>,
}

/// Fails the passage after `before` more, and those after it if `forever`.
#[derive(Clone, Copy)]
struct Rule {
    before: u64,
    forever: bool,
}

impl Rule {
    /// Whether this passage fails, and the rule for those after it.
    fn pass(self) -> (bool, Option<Self>) {
        match self.before {
            0 => (true, self.forever.then_some(self)),
            n => (
                false,
                Some(Self {
                    before: n - 1,
                    ..self
                }),
            ),
        }
    }
}

impl Inject {
    /// Nothing fails.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            sites: core::array::from_fn(|_| Counts::default()),
            armed: AtomicBool::new(false),
            total: AtomicU64::new(0),
            late_ns: AtomicU64::new(LATE_NS),
            rules: Mutex::new(Rules {
                sites: [None; SITES],
                any: None,
                last: None,
            }),
        })
    }

    /// Every site and what its failure does, in the order in which they are listed to people.
    #[must_use]
    pub fn sites(&self) -> Vec<(&'static str, &'static str)> {
        (0..SITES).map(|n| (name(n), what(n))).collect()
    }

    /// Makes the `nth` passage of `site` from now on fail (1: the next), and all after it if
    /// `forever`. Replaces what was set for the site.
    ///
    /// # Panics
    /// If there is no such site, or `nth` is 0; [`Inject::parse_and_set`] tells instead.
    pub fn fail(&self, site: &str, nth: u64, forever: bool) {
        let set = self.set(site, nth, forever);
        set.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Sets what a person wrote: `SITE`, `SITE:NTH` or `SITE:NTH:forever`.
    ///
    /// # Errors
    /// [`InjectError`], whose text says what was expected; nothing was set.
    pub fn parse_and_set(&self, text: &str) -> Result<(), InjectError> {
        let mut parts = text.split(':');
        let site = parts.next().unwrap_or_default();
        let nth = match parts.next() {
            None => 1,
            Some(nth) => nth.parse().map_err(|_| InjectError::Nth(nth.into()))?,
        };
        let forever = match parts.next() {
            None => false,
            Some("forever") => true,
            Some(other) => return Err(InjectError::Tail(other.into())),
        };
        if let Some(rest) = parts.next() {
            return Err(InjectError::Tail(rest.into()));
        }
        self.set(site, nth, forever)
    }

    fn set(&self, site: &str, nth: u64, forever: bool) -> Result<(), InjectError> {
        let n = number(site).ok_or_else(|| InjectError::Site(site.into()))?;
        let before = nth
            .checked_sub(1)
            .ok_or_else(|| InjectError::Nth("0".into()))?;
        self.rules.lock().sites[n] = Some(Rule { before, forever });
        self.armed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Nothing fails any more. Counts stay.
    pub fn clear(&self) {
        let mut rules = self.rules.lock();
        rules.sites = [None; SITES];
        rules.any = None;
        self.armed.store(false, Ordering::Relaxed);
    }

    /// How often `site` was passed, failing or not.
    ///
    /// # Panics
    /// If there is no such site.
    #[must_use]
    pub fn count(&self, site: &str) -> u64 {
        self.counts(site).passed.load(Ordering::Relaxed)
    }

    /// How often `site` failed.
    ///
    /// # Panics
    /// If there is no such site.
    #[must_use]
    pub fn hits(&self, site: &str) -> u64 {
        self.counts(site).hits.load(Ordering::Relaxed)
    }

    fn counts(&self, site: &str) -> &Counts {
        let n = number(site).unwrap_or_else(|| panic!("{}", InjectError::Site(site.into())));
        &self.sites[n]
    }

    /// Begins to count probes at 0: passages of any site whose failure somebody is told. Also
    /// forgets [`Inject::last_failed`].
    pub fn start_counting(&self) {
        let mut rules = self.rules.lock();
        rules.last = None;
        self.total.store(0, Ordering::Relaxed);
    }

    /// Probes passed since counting was started.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Makes the `nth` probe from now on fail (1: the next), whatever its site, and all after it
    /// if `forever`. Sites whose failure nobody is told (a flipped bit), that only change time (a
    /// late fence) or that end the device do not count.
    ///
    /// ```
    /// # use backends::sim::Inject;
    /// # use ttm::fault::{Faults, Site};
    /// # let inject = Inject::new();
    /// # let operation = || !inject.hit(Site::Create) && !inject.hit(Site::Take);
    /// inject.start_counting();
    /// assert!(operation());
    /// for nth in 1..=inject.total() {
    ///     inject.fail_nth_probe(nth, false);
    ///     assert!(!operation(), "{:?} failed and nobody noticed", inject.last_failed());
    ///     inject.clear();
    /// }
    /// ```
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn fail_nth_probe(&self, nth: u64, forever: bool) {
        let before = nth.checked_sub(1).expect("the first probe is number 1");
        self.rules.lock().any = Some(Rule { before, forever });
        self.armed.store(true, Ordering::Relaxed);
    }

    /// The site that failed last, since counting was started.
    #[must_use]
    pub fn last_failed(&self) -> Option<&'static str> {
        self.rules.lock().last
    }

    /// How much later a late fence signals, in nanoseconds.
    pub fn set_late_ns(&self, ns: u64) {
        self.late_ns.store(ns, Ordering::Relaxed);
    }

    pub(super) fn late_ns(&self) -> u64 {
        self.late_ns.load(Ordering::Relaxed)
    }

    /// Counts a site of the sim; true makes its step fail.
    pub(super) fn fails(&self, at: At) -> bool {
        self.pass(at.0)
    }

    fn pass(&self, n: usize) -> bool {
        // Relaxed: statistics.
        self.sites[n].passed.fetch_add(1, Ordering::Relaxed);
        let counted = kind(n) == Kind::Told;
        if counted {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        self.armed.load(Ordering::Relaxed) && self.decide(n, counted)
    }

    #[cold]
    fn decide(&self, n: usize, counted: bool) -> bool {
        let mut rules = self.rules.lock();
        let mut fails = false;
        if let Some(rule) = rules.sites[n] {
            let (now, next) = rule.pass();
            rules.sites[n] = next;
            fails |= now;
        }
        if let Some(rule) = rules.any.filter(|_| counted) {
            let (now, next) = rule.pass();
            rules.any = next;
            fails |= now;
        }
        if fails {
            rules.last = Some(name(n));
            self.sites[n].hits.fetch_add(1, Ordering::Relaxed);
        }
        fails
    }
}

impl Faults for Inject {
    fn hit(&self, site: Site) -> bool {
        let n = Site::ALL.iter().position(|s| *s == site);
        n.is_some_and(|n| self.pass(OWN.len() + n))
    }
}

impl fmt::Debug for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inject(last: {:?})", self.last_failed())
    }
}

fn name(n: usize) -> &'static str {
    match OWN.get(n) {
        Some(row) => row.name,
        None => Site::ALL[n - OWN.len()].name(),
    }
}

fn kind(n: usize) -> Kind {
    OWN.get(n).map_or(Kind::Told, |row| row.kind)
}

fn what(n: usize) -> &'static str {
    let Some(site) = n.checked_sub(OWN.len()) else {
        return OWN[n].what;
    };
    match Site::ALL[site] {
        Site::Lock => "locking an object answers that an older transaction goes first",
        Site::FenceSlots => "reserving fence slots runs out of memory",
        Site::Create => "making an object runs out of memory",
        Site::Take => "a manager says that it is full",
        Site::Frames => "the manager gets no frames",
        Site::Records => "the records for a swap-out cannot be allocated",
        Site::MoveStart => "a move fails before anything was copied",
        Site::MoveCommit => "a move fails just before its point of no return",
        Site::BackupStore => "the manager's store to the backup fails",
        Site::BackupLoad => "the manager's load from the backup fails",
        _ => "a step of the manager fails",
    }
}

fn number(site: &str) -> Option<usize> {
    (0..SITES).find(|n| name(*n) == site)
}

/// Why a failure could not be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InjectError {
    /// There is no such site.
    Site(Box<str>),
    /// The number is not one, or is 0.
    Nth(Box<str>),
    /// Something other than `forever` follows the number.
    Tail(Box<str>),
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => {
                write!(f, "there is no site \"{site}\"; the sites are")?;
                for n in 0..SITES {
                    write!(f, "{} {}", if n == 0 { "" } else { "," }, name(n))?;
                }
                Ok(())
            }
            Self::Nth(nth) => write!(
                f,
                "\"{nth}\" is not a passage; write SITE:NTH with NTH from 1 on"
            ),
            Self::Tail(tail) => write!(
                f,
                "\"{tail}\" follows the number; write SITE[:NTH[:forever]]"
            ),
        }
    }
}

impl std::error::Error for InjectError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_has_a_name_of_its_own_and_its_number() {
        let inject = Inject::new();
        let sites = inject.sites();
        for (n, (site, what)) in sites.iter().enumerate() {
            assert_eq!(number(site), Some(n), "{site}");
            assert!(!what.is_empty());
        }
        let numbers = [
            (At::COPY_SUBMIT, "copy.submit"),
            (At::COPY_START, "copy.start"),
            (At::COPY_MIDDLE, "copy.middle"),
            (At::COPY_LATE_ERROR, "copy.late-error"),
            (At::COPY_FLIP_BIT, "copy.flip-bit"),
            (At::KERNEL_SUBMIT, "kernel.submit"),
            (At::FENCE_LATE, "fence.late"),
            (At::FENCE_NEVER, "fence.never"),
            (At::FENCE_ERROR, "fence.error"),
            (At::DEVICE_LOST, "device.lost"),
            (At::PAGES_TAKE, "pages.take"),
            (At::PAGES_MAP, "pages.map"),
            (At::PAGES_ZERO, "pages.zero"),
            (At::PAGES_SWITCH, "pages.switch"),
            (At::REGION_MAP, "region.map"),
            (At::BACKUP_PREPARE, "backup.prepare"),
            (At::BACKUP_FULL, "backup.full"),
            (At::BACKUP_STORE, "backup.store"),
            (At::BACKUP_LOAD, "backup.load"),
            (At::BACKUP_FLIP, "backup.flip"),
            (At::CACHE_SKIP_CLEAN, "cache.skip-clean"),
            (At::CACHE_SKIP_INVALIDATE, "cache.skip-invalidate"),
            (At::SPACE_RESERVE, "space.reserve"),
            (At::SPACE_PREPARE, "space.prepare"),
            (At::SPACE_SWITCH, "space.switch"),
            (At::SPACE_TORN_SWITCH, "space.torn-switch"),
            (At::SPACE_REVOKE, "space.revoke"),
            (At::SPACE_POISON, "space.poison"),
            (At::SPACE_TRACK, "space.track"),
            (At::IOMMU_MAP, "iommu.map"),
            (At::IOMMU_SKIP_INVALIDATE, "iommu.skip-invalidate"),
        ];
        assert_eq!(numbers.len(), OWN.len());
        for (at, site) in numbers {
            assert_eq!(number(site), Some(at.0), "{site}");
        }
    }

    #[test]
    fn the_nth_passage_fails_once_or_for_ever() {
        let inject = Inject::new();
        let pass = || inject.fails(At::PAGES_TAKE);
        inject.fail("pages.take", 2, false);
        assert_eq!([pass(), pass(), pass()], [false, true, false]);
        inject.fail("pages.take", 2, true);
        assert_eq!([pass(), pass(), pass()], [false, true, true]);
        assert_eq!(
            (inject.count("pages.take"), inject.hits("pages.take")),
            (6, 3)
        );
        assert_eq!(inject.last_failed(), Some("pages.take"));
        inject.clear();
        assert!(!pass());
    }

    #[test]
    fn a_probe_is_counted_whatever_its_site_but_not_if_it_is_silent() {
        let inject = Inject::new();
        let all = || {
            [
                inject.fails(At::COPY_SUBMIT),
                inject.fails(At::COPY_FLIP_BIT),
                inject.hit(Site::Take),
                inject.fails(At::FENCE_LATE),
                inject.fails(At::PAGES_MAP),
            ]
        };
        inject.start_counting();
        assert_eq!(all(), [false; 5]);
        assert_eq!(inject.total(), 3);
        inject.fail_nth_probe(2, false);
        assert_eq!(all(), [false, false, true, false, false]);
        assert_eq!(inject.last_failed(), Some("ttm.take"));
        inject.fail_nth_probe(2, true);
        assert_eq!(all(), [false, false, true, false, true]);
        inject.start_counting();
        assert_eq!(inject.last_failed(), None);
    }

    #[test]
    fn what_a_person_writes_is_understood_or_refused_with_a_hint() {
        let inject = Inject::new();
        for good in ["copy.start", "copy.start:3", "ttm.take:1:forever"] {
            assert_eq!(inject.parse_and_set(good), Ok(()), "{good}");
        }
        let bad = [
            ("", "there is no site"),
            ("list", "copy.flip-bit"),
            ("copy.start:0", "from 1 on"),
            ("copy.start:x", "SITE:NTH"),
            ("copy.start:1:always", "forever"),
            ("copy.start:1:forever:", "forever"),
        ];
        for (text, hint) in bad {
            let error = inject.parse_and_set(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
