//! How short memory is: each source on copies of a kernel's files, on this machine, and a memory
//! cgroup that fills up; and a reclaimer that gives a real pool's memory back.

#[path = "support/host.rs"]
mod support;

use std::path::{Path, PathBuf};

use backends::host::{
    AvailablePressure, CgroupPressure, InjectedPressure, MemfdPages, PsiPressure, SystemPressure,
    wall_clock,
};
use support::*;
use ttm::pages::{Level, PageSource, Pool, PoolConfig, Pressure, Reclaimer, Want};
use ttm::sync::Arc;

/// A copy of a kernel's files, gone with its drop.
struct FakeTree(PathBuf);

impl FakeTree {
    fn new(name: &str) -> Self {
        Self(temp_dir(name))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.0.join(path)).unwrap();
    }
}

impl Drop for FakeTree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Texts that are not what anybody expects.
const SENSELESS: [&str; 6] = [
    "",
    "\0\0\0",
    "some full\nhigh\nMemTotal:\n::::\n",
    "some avg10=inf\nMemTotal: 0 kB\nMemAvailable: 0 kB\n0:memory\n",
    "max max max\nMemTotal: -1 kB\n",
    "99999999999999999999999\nMemTotal: 99999999999999999999999 kB\n",
];

#[test]
fn available_memory_is_short_below_a_tenth() {
    let tree = FakeTree::new("available");
    assert!(AvailablePressure::of_tree(&tree.0).is_err(), "no such file");
    let write = |available: u64| {
        let text = format!("MemTotal:     1000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n");
        tree.write("proc/meminfo", &text);
    };
    write(500);
    let pressure = AvailablePressure::of_tree(&tree.0).unwrap();
    for (available, level) in [
        (2000, Level::None),
        (1000, Level::None),
        (100, Level::None),
        (99, Level::Some),
        (40, Level::Some),
        (39, Level::Full),
        (0, Level::Full),
    ] {
        write(available);
        assert_eq!(pressure.level(), level, "{available} of 1000");
    }
    for text in SENSELESS {
        tree.write("proc/meminfo", text);
        assert_eq!(pressure.level(), Level::None, "{text:?}");
        assert!(AvailablePressure::of_tree(&tree.0).is_err(), "{text:?}");
        assert!(pressure.describe().contains("cannot be read"));
    }
}

#[test]
fn stalls_of_a_copy_are_read_as_averages_and_the_copy_is_not_written_to() {
    let tree = FakeTree::new("psi");
    assert!(PsiPressure::of_tree(&tree.0).is_err(), "no such file");
    let write = |some: &str, full: &str| {
        let text = format!(
            "some avg10={some} avg60=99.00 avg300=99.00 total=5\n\
             full avg10={full} avg60=99.00 avg300=99.00 total=5\n"
        );
        tree.write("proc/pressure/memory", &text);
        text
    };
    let text = write("0.00", "0.00");
    let pressure = PsiPressure::of_tree(&tree.0).unwrap();
    assert!(!pressure.has_triggers());
    assert!(pressure.describe().contains("averages"));
    let file = tree.0.join("proc/pressure/memory");
    assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    for (some, full, level) in [
        ("7.49", "4.99", Level::None),
        ("7.50", "4.99", Level::Some),
        ("100.00", "0.00", Level::Some),
        ("7.50", "5.00", Level::Full),
    ] {
        write(some, full);
        assert_eq!(pressure.level(), level, "{some} {full}");
    }
    for text in SENSELESS {
        tree.write("proc/pressure/memory", text);
        assert_eq!(pressure.level(), Level::None, "{text:?}");
        assert!(PsiPressure::of_tree(&tree.0).is_err(), "{text:?}");
    }
}

#[test]
fn a_cgroup_of_version_2_is_short_near_its_limits_and_when_it_met_one() {
    let tree = FakeTree::new("cgroup2");
    assert!(CgroupPressure::of_tree(&tree.0).is_err(), "no such file");
    tree.write("proc/self/cgroup", "0::/drivers/render\n");
    assert!(CgroupPressure::of_tree(&tree.0).is_err(), "no such group");
    let write = |file: &str, text: &str| tree.write(&format!("sys/fs/cgroup/drivers/{file}"), text);
    write("memory.current", "1\n");
    write("memory.max", "2000\n");
    write("render/memory.current", "100\n");
    write("render/memory.max", "max\n");
    write("render/memory.high", "max\n");
    write(
        "render/memory.events",
        "low 0\nhigh 7\nmax 0\noom 0\noom_kill 0\n",
    );
    let pressure = CgroupPressure::of_tree(&tree.0).unwrap();
    assert_eq!(pressure.limit(), Some(2000), "of the group around it");
    assert_eq!(
        pressure.level(),
        Level::None,
        "what happened before is over"
    );
    write("render/memory.max", "1000\n");
    assert_eq!(pressure.limit(), Some(1000));
    assert!(pressure.describe().contains("/drivers/render (version 2)"));

    let used = |current: &str, files: &str| {
        write("render/memory.current", current);
        write(
            "render/memory.stat",
            &format!("anon 3\ninactive_file {files}\n"),
        );
        pressure.level()
    };
    assert_eq!(used("899", "0"), Level::None);
    assert_eq!(used("900", "0"), Level::Some);
    assert_eq!(used("970", "0"), Level::Full);
    assert_eq!(
        used("1000", "500"),
        Level::None,
        "the kernel drops files first"
    );
    assert_eq!(used("100", "500"), Level::None);
    write("render/memory.high", "100\n");
    assert_eq!(used("100", "0"), Level::Some, "slowed down only");
    write("render/memory.high", "max\n");
    write("memory.current", "1990\n");
    assert_eq!(pressure.level(), Level::Full, "of the group around it");
    write("memory.current", "1\n");

    for (events, level) in [
        ("high 7\nmax 0\noom 0\noom_kill 0\n", Level::None),
        ("high 8\nmax 0\noom 0\noom_kill 0\n", Level::Some),
        ("high 8\nmax 0\noom 0\noom_kill 0\n", Level::None),
        ("high 8\nmax 2\noom 0\noom_kill 0\n", Level::Some),
        ("high 8\nmax 3\noom 1\noom_kill 0\n", Level::Full),
        ("high 8\nmax 3\noom 1\noom_kill 1\n", Level::Full),
        ("high 8\nmax 3\noom 1\noom_kill 1\n", Level::None),
    ] {
        write("render/memory.events", events);
        assert_eq!(pressure.level(), level, "{events}");
    }
    tree.remove("sys/fs/cgroup/drivers/render/memory.events");
    assert_eq!(pressure.level(), Level::None);
    for text in SENSELESS {
        for file in ["current", "max", "high", "stat", "events"] {
            write(&format!("render/memory.{file}"), text);
            let _ = (pressure.level(), pressure.describe());
        }
        assert_eq!(pressure.level(), Level::None, "{text:?}");
    }
}

#[test]
fn a_cgroup_of_version_1_is_short_near_its_limit() {
    let tree = FakeTree::new("cgroup1");
    // A container sees its own group as the root of the hierarchy.
    let names = "12:cpu,cpuacct:/\n4:hugetlb,memory:/outside/of/here\n0::/\n";
    tree.write("proc/self/cgroup", names);
    let write = |file: &str, n: u64| {
        tree.write(
            &format!("sys/fs/cgroup/memory/memory.{file}"),
            &format!("{n}\n"),
        );
    };
    write("usage_in_bytes", 0);
    write("limit_in_bytes", 9_223_372_036_854_771_712);
    let pressure = CgroupPressure::of_tree(&tree.0).unwrap();
    assert_eq!(pressure.limit(), None);
    assert!(pressure.describe().ends_with("without a limit"));
    write("usage_in_bytes", 1 << 50);
    assert_eq!(pressure.level(), Level::None, "without a limit");
    write("limit_in_bytes", 1000);
    for (used, level) in [
        (0, Level::None),
        (899, Level::None),
        (900, Level::Some),
        (969, Level::Some),
        (970, Level::Full),
        (u64::MAX, Level::Full),
    ] {
        write("usage_in_bytes", used);
        assert_eq!(pressure.level(), level, "{used} of 1000");
    }
    tree.write(
        "sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file 900\n",
    );
    write("usage_in_bytes", 1000);
    assert_eq!(
        pressure.level(),
        Level::None,
        "the kernel drops files first"
    );
    write("limit_in_bytes", 0);
    assert_eq!(pressure.level(), Level::Full, "nothing is allowed");
}

#[test]
fn names_of_cgroups_that_make_no_sense_are_refused_or_mean_the_root() {
    let tree = FakeTree::new("names");
    for text in SENSELESS {
        tree.write("proc/self/cgroup", text);
        assert!(CgroupPressure::of_tree(&tree.0).is_err(), "{text:?}");
    }
    tree.write("sys/fs/cgroup/memory.current", "990\n");
    tree.write("sys/fs/cgroup/memory.max", "1000\n");
    for name in ["/", "", "/..", "/../../else", "/gone", "/gone/with:colons"] {
        tree.write("proc/self/cgroup", &format!("0::{name}\n"));
        let pressure = CgroupPressure::of_tree(&tree.0).unwrap();
        assert_eq!(
            (pressure.level(), pressure.limit()),
            (Level::Full, Some(1000)),
            "{name:?}"
        );
    }
}

#[test]
fn the_worst_of_what_exists_counts_and_the_rest_is_named() {
    let tree = FakeTree::new("system");
    let nothing = SystemPressure::probe_tree(&tree.0);
    assert_eq!((nothing.level(), nothing.missing().len()), (Level::None, 3));
    assert!(nothing.describe().contains("without memory cgroup ("));

    tree.write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 50 kB\n");
    let psi = |full: u32| {
        let text = format!("some avg10=0.00 total=0\nfull avg10={full}.00 total=0\n");
        tree.write("proc/pressure/memory", &text);
    };
    psi(0);
    let pressure = SystemPressure::probe_tree(&tree.0);
    assert_eq!(pressure.missing().len(), 1, "{pressure:?}");
    assert!(pressure.describe().contains("available memory, 5 %"));
    assert_eq!(pressure.level(), Level::Some);
    psi(50);
    assert_eq!(pressure.level(), Level::Full);
    psi(0);
    tree.write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 999 kB\n");
    assert_eq!(pressure.level(), Level::None);
}

#[test]
fn this_machine_says_how_short_of_memory_it_is() {
    let _left = NothingLeft::expected();
    let pressure = SystemPressure::probe();
    println!("{}: {}", pressure.describe(), pressure.level());
    for missing in pressure.missing() {
        println!("SKIPPED: {missing}");
    }
    match PsiPressure::of_host() {
        Ok(psi) => {
            for _ in 0..3 {
                println!("{}: {}", psi.describe(), psi.level());
            }
            if !psi.has_triggers() {
                println!("SKIPPED: {}", psi.describe());
            }
        }
        Err(error) => println!("SKIPPED: no stall information: {error}"),
    }
    let available = AvailablePressure::of_host().unwrap();
    println!("{}: {}", available.describe(), available.level());
}

#[test]
fn a_reclaimer_gives_a_pools_memory_back_under_pressure_and_stays_wary_for_a_while() {
    let _left = NothingLeft::expected();
    let source = Arc::new(MemfdPages::new().unwrap());
    let config = PoolConfig {
        reserve: pages(1024),
        ..PoolConfig::default()
    };
    let clock = wall_clock();
    let pool = Pool::new(
        Arc::clone(&source) as Arc<dyn PageSource>,
        clock.clone(),
        config,
    );
    let pressure = Arc::new(InjectedPressure::new());
    let felt: Arc<dyn Pressure> = pressure.clone();
    let reclaimer = Reclaimer::new(Arc::clone(&pool), felt, clock);
    let fill = || {
        let runs: Vec<_> = [512, 512, 1, 1, 1, 7]
            .into_iter()
            .map(|n| pool.take(&Want::new(pages(n))).unwrap())
            .collect();
        runs.into_iter().for_each(|run| pool.give(run.dirtied()));
    };
    let refill = || {
        let service = pool.service();
        for _ in 0..64 {
            service.step();
        }
        source.resident().unwrap()
    };

    fill();
    assert_eq!(reclaimer.look(), pages(0), "no pressure");
    assert!(source.resident().unwrap() >= 4 << 20);

    pressure.set(Level::Some);
    let pooled = pool.count();
    assert_eq!(reclaimer.look(), pooled);
    let left = (source.resident().unwrap(), source.taken(), pool.count());
    assert_eq!(left, (0, pages(0), pages(0)));
    assert_eq!(refill(), 0, "nothing is fetched while memory is short");

    pressure.set(Level::None);
    for reading in 1..4 {
        reclaimer.look();
        assert!(reclaimer.counts().squeezing, "calm reading {reading}");
        assert_eq!(refill(), 0, "calm reading {reading}");
    }
    reclaimer.look();
    assert!(!reclaimer.counts().squeezing);
    assert!(refill() > 0, "fetched again");

    fill();
    pressure.set(Level::Full);
    reclaimer.look();
    assert_eq!(source.resident().unwrap(), 0);
    let counts = reclaimer.counts();
    assert_eq!((counts.squeezes, counts.readings), (2, pressure.readings()));
    assert!(counts.from_pool > pooled.get());
    pool.check().unwrap();
}

/// A memory cgroup, gone with its drop.
struct Group(PathBuf);

impl Group {
    /// One with a limit, if this process may make any.
    fn with_limit(bytes: u64) -> Option<Self> {
        const KINDS: [(&str, &str); 3] = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ];
        KINDS.iter().find_map(|(base, limit)| {
            let dir = Path::new(base).join(format!("ttm-host-test-{}", std::process::id()));
            let known = Path::new(base).join("cgroup.procs").exists();
            if !known || std::fs::create_dir(&dir).is_err() {
                return None;
            }
            let group = Self(dir);
            // A file that is not there must not be made: no controller, no limit.
            let file = group.0.join(limit);
            let limited = file.exists() && std::fs::write(file, bytes.to_string()).is_ok();
            limited.then_some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be busy with the process that has just ended.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        println!("could not remove {}", self.0.display());
    }
}

#[test]
fn a_memory_cgroup_that_fills_up_is_noticed_and_emptied_again() {
    const LIMIT: u64 = 64 << 20;
    let name = "a_memory_cgroup_that_fills_up_is_noticed_and_emptied_again";
    let names = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if !names.contains("ttm-host-test-") {
        let Some(group) = Group::with_limit(LIMIT) else {
            println!("SKIPPED: this process may make no memory cgroup");
            return;
        };
        let procs = group.0.join("cgroup.procs");
        assert!(!in_child(name, &format!("echo $$ > {}", procs.display())));
        return;
    }
    let pressure = CgroupPressure::of_host().unwrap();
    assert_eq!(pressure.limit(), Some(LIMIT), "{pressure:?}");
    assert_eq!(pressure.level(), Level::None);
    let source = MemfdPages::new().unwrap();
    let mut runs = Vec::new();
    let mut fill_to = |level| {
        while pressure.level() < level {
            let run = source.take(&Want::new(pages(32))).unwrap();
            assert!(source.taken().bytes() < LIMIT, "never noticed");
            runs.push(run);
        }
        source.taken().bytes()
    };
    let some = fill_to(Level::Some);
    let full = fill_to(Level::Full);
    println!(
        "{}: some at {some} bytes, full at {full}",
        pressure.describe()
    );
    assert!(some < full && full < LIMIT);
    let all = SystemPressure::probe();
    assert_eq!(all.level(), Level::Full, "{}", all.describe());
    runs.into_iter().for_each(|run| source.give(run.dirtied()));
    assert_eq!(source.resident().unwrap(), 0);
    assert_eq!(pressure.level(), Level::None);
}
