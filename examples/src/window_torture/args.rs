//! The command line of `window_torture`.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use cli::json::Target;
use cli::size::ByteSize;
use placement::PAGE_SIZE;

use crate::row::Row;

const AFTER: &str = "\
Strategies:
  userfaultfd       accesses wait by userfaultfd, as a privileged process may use it
  userfaultfd-user  the same as an ordinary one may: page faults of user code only
  userfaultfd-6.1   the same with what Linux 6.1 has of it
  device-file       as `userfaultfd`, with device memory that the kernel lets nobody watch
  signal            accesses wait in a signal handler
  pinned            nothing waits: accesses by call, and whoever has an address pins the object
Those that cannot run here are listed with the reason; the others share the time.

Exit status: 0 done and right; 1 a wrong word, a broken invariant or something left behind;
2 refused: bad arguments, or nothing can run";

/// Accesses through windows while their objects are moved: every word is checked, and how long
/// accesses wait is measured
#[derive(Debug, Parser)]
#[command(name = "window_torture", version, after_help = AFTER)]
pub(crate) struct Args {
    /// How long to go on, all strategies together
    #[arg(long, value_name = "N", default_value = "20", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// Only these strategies
    #[arg(long, value_name = "NAME,...", value_enum, value_delimiter = ',')]
    strategy: Vec<Row>,

    /// How large the objects are [default: 4K,64K,2M, and 16M if there is time]
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',')]
    sizes: Vec<ByteSize>,

    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Do it wrong on purpose: it must end in exit status 1
    #[arg(long = "break", value_name = "WHAT", value_enum)]
    pub(crate) broken: Option<Break>,

    /// Write the figures as JSON to FILE, or to standard output for `-`
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<Target>,
}

/// What can be done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Break {
    /// Moves do not keep the CPU out
    NoRevoke,
    /// What is written while a copy is under way is not copied again
    NoDirtyRecopy,
}

/// The largest objects, so that they fit beside others.
const LARGEST: u64 = 16 << 20;

/// With so much time for each strategy there is time for large objects.
const TIME_FOR_LARGE: Duration = Duration::from_secs(2);

impl Args {
    /// The strategies that were asked for, each once, in their order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let asked = |row: &Row| self.strategy.is_empty() || self.strategy.contains(row);
        Row::ALL.into_iter().filter(asked).collect()
    }

    /// The sizes of objects in bytes, if each strategy has `time`.
    ///
    /// # Errors
    /// One that is no number of pages, or too large.
    pub(crate) fn sizes(&self, time: Duration) -> Result<Vec<u64>> {
        if self.sizes.is_empty() {
            let large = (time >= TIME_FOR_LARGE).then_some(LARGEST);
            return Ok([4 << 10, 64 << 10, 2 << 20]
                .into_iter()
                .chain(large)
                .collect());
        }
        let mut sizes: Vec<_> = self.sizes.iter().map(|size| size.bytes()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for size in &sizes {
            let fits = (PAGE_SIZE..=LARGEST).contains(size) && size.is_multiple_of(PAGE_SIZE);
            ensure!(
                fits,
                "--sizes: expected whole pages of 4K, at most 16M, found {}",
                ByteSize(*size)
            );
        }
        ensure!(sizes.len() <= 8, "--sizes: expected at most 8");
        Ok(sizes)
    }

    /// Does what was asked for wrong, from now on.
    ///
    /// # Errors
    /// The program was built without that.
    pub(crate) fn plant(&self) -> Result<()> {
        self.broken.map_or(Ok(()), plant)
    }
}

#[cfg(feature = "plant")]
fn plant(what: Break) -> Result<()> {
    ttm::plant::set(match what {
        Break::NoRevoke => ttm::plant::Defect::NoRevoke,
        Break::NoDirtyRecopy => ttm::plant::Defect::NoDirtyRecopy,
    });
    Ok(())
}

#[cfg(not(feature = "plant"))]
fn plant(_: Break) -> Result<()> {
    Err(anyhow!(
        "--break: this program was built without defects to plant; build it with `cargo run \
         --release -p examples --features plant --bin window_torture`"
    ))
}

/// Some seconds, perhaps with a fraction.
fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.parse().map_err(|_| anyhow!("expected seconds"))?;
    ensure!(
        (0.1..=1e6).contains(&seconds),
        "expected from 0.1 to 1000000 seconds"
    );
    Ok(Duration::from_secs_f64(seconds))
}
