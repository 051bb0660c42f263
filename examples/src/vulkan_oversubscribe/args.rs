//! The command line.

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use cli::report::Outputs;
use cli::size::ByteSize;
use serde::Serialize;

/// Runs a compute job over more data than a device may hold, and checks every word.
///
/// The objects of a data set are changed by a shader in several passes, a few at a time; the manager
/// brings them to the device's memory and evicts others. The same job then runs with room for
/// everything, for comparison. Without a GPU, lavapipe (mesa-vulkan-drivers) will do.
///
/// Exit status: 0 done and right; 1 a wrong word or a broken invariant; 2 refused: no Vulkan
/// device, bad arguments.
#[derive(Debug, Parser)]
#[command(name = "vulkan_oversubscribe", version)]
pub(crate) struct Args {
    /// The device memory that the manager may allocate
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    pub(crate) limit: ByteSize,

    /// The data set; without this, 4 times the limit
    #[arg(long, value_name = "SIZE")]
    pub(crate) data: Option<ByteSize>,

    /// The size of an object
    #[arg(long, value_name = "SIZE", default_value = "2M")]
    pub(crate) object: ByteSize,

    /// Objects of one submission
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) batch: u32,

    /// Passes over the data set
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) passes: u32,

    /// In which order passes go over the objects
    #[arg(long, value_enum, default_value_t = Order::Alternating)]
    pub(crate) order: Order,

    /// A device whose name has this in it
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,

    /// Who copies
    #[arg(long, value_enum, default_value_t = Copies::Measured)]
    pub(crate) copies: Copies,

    /// Make a new buffer at each place, as on devices without sparse binding
    #[arg(long)]
    pub(crate) no_sparse: bool,

    /// Leave the comparison with everything resident out
    #[arg(long)]
    pub(crate) no_comparison: bool,

    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

/// In which order passes go over the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// There and back: what came last is there first
    Alternating,
    /// Always from the first to the last, which is the worst for whoever evicts what was used least
    /// recently
    Cyclic,
}

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Copies {
    /// Whoever was measured to be sooner
    Measured,
    /// The transfer queue
    Queue,
    /// The CPU
    Cpu,
}

/// What a job is to do, in numbers that fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) limit: u64,
    pub(crate) object: u64,
    pub(crate) objects: u64,
    pub(crate) batch: u32,
    pub(crate) passes: u32,
    pub(crate) order: Order,
}

impl Args {
    /// The job.
    ///
    /// # Errors
    /// What does not fit together.
    pub(crate) fn job(&self) -> Result<Job> {
        let (limit, object) = (self.limit.bytes(), self.object.bytes());
        ensure!(
            object >= 4096 && object.is_multiple_of(4096),
            "--object {} is not a number of whole pages of 4 KiB",
            self.object
        );
        let batch = u64::from(self.batch);
        ensure!(
            batch * object <= limit,
            "a submission of {batch} objects of {} is more than the limit of {}: lower --batch or \
             --object, or raise --limit",
            self.object,
            self.limit
        );
        let data = self.data.map_or(limit.saturating_mul(4), ByteSize::bytes);
        ensure!(data >= object, "--data is less than one object");
        Ok(Job {
            limit,
            object,
            objects: data.div_ceil(object),
            batch: self.batch,
            passes: self.passes,
            order: self.order,
        })
    }
}

impl Job {
    pub(crate) fn data(&self) -> u64 {
        self.objects * self.object
    }

    pub(crate) fn words(&self) -> u64 {
        self.object / 4
    }

    /// The objects in the order of a pass.
    pub(crate) fn pass(&self, pass: u32) -> Vec<usize> {
        let all = 0..self.objects as usize;
        match self.order {
            Order::Alternating if pass % 2 == 1 => all.rev().collect(),
            _ => all.collect(),
        }
    }

    /// All touches.
    pub(crate) fn touches(&self) -> Vec<usize> {
        (0..self.passes).flat_map(|pass| self.pass(pass)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(args: &[&str]) -> Result<Job> {
        let args = ["vulkan_oversubscribe"].iter().chain(args);
        Args::try_parse_from(args).unwrap().job()
    }

    #[test]
    fn the_data_is_four_times_the_limit() {
        let job = job(&[]).unwrap();
        assert_eq!(job.data(), 4 * job.limit);
        assert_eq!(job.touches().len() as u64, 4 * job.objects);
        assert_eq!(job.pass(1)[0] as u64, job.objects - 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            &["--object", "1000"][..],
            &["--limit", "4M", "--batch", "3"],
            &["--data", "4K"],
        ] {
            assert!(job(bad).is_err(), "{bad:?}");
        }
    }
}
