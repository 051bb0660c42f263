//! Pressure by the limits of this process's memory cgroup.
//!
//! 1. `/proc/self/cgroup` names the group. It, and each group around it that can be seen, may have
//!    a limit; the worst counts.
//! 2. What a group uses is what it is charged for, less the file pages that the kernel would drop
//!    first: whoever reads large files is always at his limit, and in no need.
//! 3. Version 2 also counts how often its limits were met; a count that rose since the last reading
//!    is pressure, too.

use std::path::{Component, Path};

use placement::human_bytes;
use ttm::error::{Error, Result};
use ttm::pages::{Level, Pressure};
use ttm::sync::Mutex;

use super::tree::{Tree, figure, level_of};

/// Hundredths of a limit from which on memory is short, and very short.
const SHARES: (u64, u64) = (90, 97);

/// Limits from here on are none. Version 1 knows no other way to say so.
const NO_LIMIT: u64 = 1 << 60;

/// How near this process's memory cgroup is to its limit: 90 % is [`Level::Some`], 97 % is
/// [`Level::Full`]. Both versions of cgroups.
///
/// Version 2's `memory.high` only slows work down, so that being near it is [`Level::Some`]. Having
/// met `memory.high` or `memory.max` since the last reading is [`Level::Some`], having run out of
/// memory [`Level::Full`].
#[derive(Debug)]
pub struct CgroupPressure {
    tree: Tree,
    version: Version,
    /// The group's name, as the kernel tells it.
    name: String,
    /// Directories, the group's own first.
    groups: Vec<String>,
    events: Mutex<Events>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

/// How often limits were met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Events {
    limits: u64,
    out_of_memory: u64,
}

impl CgroupPressure {
    /// The group of this process.
    ///
    /// # Errors
    /// [`Error::Backend`] if the kernel names none, [`Error::Unsupported`] if none that it names
    /// counts memory.
    pub fn of_host() -> Result<Self> {
        Self::of_tree("/")
    }

    /// The same, of a copy of a kernel's files below `root`.
    ///
    /// # Errors
    /// Those of [`CgroupPressure::of_host`].
    pub fn of_tree(root: impl AsRef<Path>) -> Result<Self> {
        let tree = Tree::new(root.as_ref());
        let names = tree.read("/proc/self/cgroup")?;
        let found = candidates(&names).find_map(|(version, base, name)| {
            let groups = groups(&tree, version, base, name);
            (!groups.is_empty()).then(|| (version, name.to_owned(), groups))
        });
        let Some((version, name, groups)) = found else {
            return Err(Error::Unsupported(
                "no cgroup of this process counts memory; a container or service with a limit has \
                 one",
            ));
        };
        let found = Self {
            tree,
            version,
            name,
            groups,
            events: Mutex::new(Events::default()),
        };
        *found.events.lock() = found.read_events().unwrap_or_default();
        Ok(found)
    }

    /// The least hard limit on this process, in bytes, if it has any.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        let limits = self.groups.iter();
        limits
            .filter_map(|group| self.limit_of(group, self.version.limit()))
            .min()
    }

    fn limit_of(&self, group: &str, file: &str) -> Option<u64> {
        let limit = self.tree.number(&format!("{group}/{file}"));
        limit.filter(|limit| *limit < NO_LIMIT)
    }

    /// Bytes that a group is charged for and could not simply drop.
    fn used(&self, group: &str) -> Option<u64> {
        let charged = self
            .tree
            .number(&format!("{group}/{}", self.version.usage()))?;
        let statistics = self.tree.read(&format!("{group}/memory.stat"));
        let files = statistics
            .ok()
            .and_then(|text| figure(&text, self.version.inactive_files()));
        Some(charged.saturating_sub(files.unwrap_or(0)))
    }

    fn level_of(&self, group: &str) -> Level {
        let Some(used) = self.used(group) else {
            return Level::None;
        };
        let of = |limit: Option<u64>| {
            limit.map_or(Level::None, |limit| {
                level_of(used, limit, SHARES.0, SHARES.1)
            })
        };
        let hard = of(self.limit_of(group, self.version.limit()));
        match self.version {
            Version::One => hard,
            Version::Two => hard.max(of(self.limit_of(group, "memory.high")).min(Level::Some)),
        }
    }

    fn read_events(&self) -> Option<Events> {
        if self.version == Version::One {
            return None;
        }
        let text = self.tree.read(&format!("{}/memory.events", self.groups[0]));
        let text = text.ok()?;
        let count = |key| figure(&text, key).unwrap_or(0);
        Some(Events {
            limits: count("high").saturating_add(count("max")),
            out_of_memory: count("oom").saturating_add(count("oom_kill")),
        })
    }

    /// What happened since the last reading.
    fn level_of_events(&self) -> Level {
        let Some(now) = self.read_events() else {
            return Level::None;
        };
        let before = core::mem::replace(&mut *self.events.lock(), now);
        match () {
            () if now.out_of_memory > before.out_of_memory => Level::Full,
            () if now.limits > before.limits => Level::Some,
            () => Level::None,
        }
    }
}

impl Version {
    const fn usage(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }

    const fn limit(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    const fn inactive_files(self) -> &'static str {
        match self {
            Self::One => "total_inactive_file",
            Self::Two => "inactive_file",
        }
    }
}

/// Groups that may count memory, and where they would be: version, hierarchy, name.
fn candidates(text: &str) -> impl Iterator<Item = (Version, &'static str, &str)> {
    text.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, name) = (fields.next(), fields.next().unwrap_or("/"));
        let places: &[_] = match controllers {
            Some("") => &[
                (Version::Two, "/sys/fs/cgroup"),
                (Version::Two, "/sys/fs/cgroup/unified"),
            ],
            Some(list) if list.split(',').any(|c| c == "memory") => {
                &[(Version::One, "/sys/fs/cgroup/memory")]
            }
            _ => &[],
        };
        places
            .iter()
            .map(move |(version, base)| (*version, *base, name))
    })
}

/// The directories of a group and of those around it, its own first, as far as they count memory.
/// In a container the group's own may be the hierarchy's root.
fn groups(tree: &Tree, version: Version, base: &str, name: &str) -> Vec<String> {
    let parts = Path::new(name.trim_start_matches('/')).components();
    let parts: Vec<_> = parts.collect();
    // A name that leads out of the hierarchy is of a group that cannot be seen.
    let inside = parts
        .iter()
        .all(|part| matches!(part, Component::Normal(_)));
    let depth = if inside { parts.len() } else { 0 };
    let mut dirs = vec![base.to_owned()];
    for part in &parts[..depth] {
        let above = dirs.last().expect("the root");
        dirs.push(format!("{above}/{}", part.as_os_str().display()));
    }
    dirs.reverse();
    dirs.retain(|dir| tree.number(&format!("{dir}/{}", version.usage())).is_some());
    dirs
}

impl Pressure for CgroupPressure {
    fn level(&self) -> Level {
        let met = self.level_of_events();
        let near = self.groups.iter().map(|group| self.level_of(group)).max();
        met.max(near.unwrap_or_default())
    }

    fn describe(&self) -> String {
        let version = match self.version {
            Version::One => 1,
            Version::Two => 2,
        };
        let name = &self.name;
        match self.limit() {
            Some(limit) => {
                let limit = human_bytes(limit);
                format!("memory cgroup {name} (version {version}), limit {limit}")
            }
            None => format!("memory cgroup {name} (version {version}), without a limit"),
        }
    }
}
