//! Pressure by what the machine has left.

use std::path::Path;

use ttm::error::Result;
use ttm::pages::{Level, Pressure};

use super::tree::{Tree, figure, level_of, senseless};

/// Where the kernel says it.
const MEMINFO: &str = "/proc/meminfo";

/// Hundredths of the memory that are in use from which on it is short, and very short.
const SHARES: (u64, u64) = (90, 96);

/// Memory that could be used without swapping (`MemAvailable`), as a share of all: below a tenth is
/// [`Level::Some`], below four hundredths [`Level::Full`].
#[derive(Debug)]
pub struct AvailablePressure {
    tree: Tree,
}

impl AvailablePressure {
    /// What this machine has left.
    ///
    /// # Errors
    /// [`Error::Backend`](ttm::Error::Backend) if the kernel does not say.
    pub fn of_host() -> Result<Self> {
        Self::of_tree("/")
    }

    /// The same, of a copy of a kernel's files below `root`.
    ///
    /// # Errors
    /// Those of [`AvailablePressure::of_host`].
    pub fn of_tree(root: impl AsRef<Path>) -> Result<Self> {
        let tree = Tree::new(root.as_ref());
        match shares(&tree.read(MEMINFO)?) {
            Some(_) => Ok(Self { tree }),
            None => Err(senseless(MEMINFO)),
        }
    }

    fn read(&self) -> Option<(u64, u64)> {
        shares(&self.tree.read(MEMINFO).ok()?)
    }
}

/// What is available, and of how much.
fn shares(text: &str) -> Option<(u64, u64)> {
    let total = figure(text, "MemTotal").filter(|total| *total > 0)?;
    Some((figure(text, "MemAvailable")?, total))
}

impl Pressure for AvailablePressure {
    fn level(&self) -> Level {
        let Some((available, total)) = self.read() else {
            return Level::None;
        };
        // One more in use than those: what is left is below the share, not equal to it.
        let used = total.saturating_sub(available).saturating_sub(1);
        level_of(used, total, SHARES.0, SHARES.1)
    }

    fn describe(&self) -> String {
        match self.read() {
            Some((available, total)) => {
                let share = u128::from(available) * 100 / u128::from(total);
                format!("available memory, {share} % of all now")
            }
            None => "available memory, which cannot be read now".into(),
        }
    }
}
