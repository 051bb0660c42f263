//! How short the machine is of memory.
//!
//! Four who know, each a [`Pressure`] for a [`Reclaimer`](ttm::pages::Reclaimer):
//!
//! - [`PsiPressure`]: how long work has waited for memory, as the kernel measures it.
//! - [`CgroupPressure`]: how near this process's group is to its limit.
//! - [`AvailablePressure`]: how much the machine has left.
//! - [`InjectedPressure`]: what somebody says, for tests and simulations.
//!
//! [`SystemPressure`] is the worst of the first three, as far as they exist on this machine. Each
//! can read a copy of a kernel's files below another directory instead of the kernel's own. A
//! figure that is missing, or that makes no sense, later on is no pressure.

mod available;
mod cgroup;
mod injected;
mod psi;
mod tree;

pub use available::AvailablePressure;
pub use cgroup::CgroupPressure;
pub use injected::InjectedPressure;
pub use psi::PsiPressure;

use core::fmt;
use std::path::Path;

use ttm::error::Result;
use ttm::pages::{Level, Pressure};

/// The worst that is known about this machine.
///
/// ```
/// use backends::host::SystemPressure;
/// use ttm::pages::Pressure;
///
/// let pressure = SystemPressure::probe();
/// println!("{}: {}", pressure.describe(), pressure.level());
/// ```
///
/// What it is for: pooled pages, then those of idle objects, go back to the system while it is
/// short of memory.
///
/// ```
/// use backends::host::{SystemPressure, Threads, wall_clock};
/// use ttm::clock::Service;
/// use ttm::pages::Reclaimer;
/// use ttm::sync::Arc;
///
/// # fn main() -> std::io::Result<()> {
/// # let (device, _) = ttm::fixture::device();
/// let clock = wall_clock();
/// let pressure = Arc::new(SystemPressure::probe());
/// let reclaimer = Reclaimer::new(Arc::clone(device.pool()), pressure, Arc::clone(&clock))
///     .with(device.reclaim());
/// let mut services = device.services();
/// services.push(Arc::new(reclaimer) as Arc<dyn Service>);
/// let threads = Threads::start(&clock, services)?;
/// # drop(threads);
/// # Ok(())
/// # }
/// ```
pub struct SystemPressure {
    watched: Vec<Box<dyn Pressure>>,
    missing: Vec<String>,
}

impl SystemPressure {
    /// Whatever can be watched on this machine.
    #[must_use]
    pub fn probe() -> Self {
        Self::probe_tree("/")
    }

    /// The same, of a copy of a kernel's files below `root`.
    #[must_use]
    pub fn probe_tree(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        let mut found = Self {
            watched: Vec::new(),
            missing: Vec::new(),
        };
        found.add("stall information", PsiPressure::of_tree(root));
        found.add("memory cgroup", CgroupPressure::of_tree(root));
        found.add("available memory", AvailablePressure::of_tree(root));
        found
    }

    fn add(&mut self, name: &str, pressure: Result<impl Pressure + 'static>) {
        match pressure {
            Ok(pressure) => self.watched.push(Box::new(pressure)),
            Err(error) => self.missing.push(format!("{name} ({error})")),
        }
    }

    /// Who is not watched, and why.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }
}

impl Pressure for SystemPressure {
    fn level(&self) -> Level {
        // All are asked: some remember what they see.
        let levels = self.watched.iter().map(|pressure| pressure.level());
        levels.max().unwrap_or_default()
    }

    fn describe(&self) -> String {
        let mut parts: Vec<_> = self.watched.iter().map(|p| p.describe()).collect();
        parts.extend(self.missing.iter().map(|name| format!("without {name}")));
        parts.join("; ")
    }
}

impl fmt::Debug for SystemPressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemPressure({})", self.describe())
    }
}
