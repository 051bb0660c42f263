//! The command line of `simulate`, as clap reads it.
//!
//! Nothing here acts: values are parsed, checked one by one and given their defaults. What depends
//! on the device (the names of sites and card layouts) is checked by those who use it.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use cli::report::Outputs;
use cli::size::ByteSize;

const ABOUT: &str = "\
Simulates GPU memory management on a fake card: buffer objects that don't all fit are moved, \
evicted, swapped out and brought back, and every word is checked.

No GPU and no root needed. Without a subcommand, `demo` runs.";

const AFTER: &str = "\
Examples:
  simulate                                   several clients on twice the card's memory
  simulate demo --seconds 5 --json -         the same for 5 seconds, figures as JSON
  simulate demo --inject copy.flip-bit:1     spoil the first copy and watch it being found
  simulate replay FILE --vram 16G            how often would this trace miss on a 16 GiB card?
  simulate replay FILE --vram 18279 --block 2M --policy lru,optimal

Exit status:
  0  done and right
  1  a wrong byte or a broken invariant; the object, offset, expected and found are printed
  2  refused: bad input or arguments, or no device; nothing lost";

const AFTER_REPLAY: &str = "\
The policies:
  lru      the memory manager itself, on a fake card without contents; the counters are its own.
           Objects begin outside of the card, and system memory is unlimited
  optimal  what knowing the future would give (Belady; every touched object is brought in):
           computed, not managed. A bound where all objects have one size, else an estimate

Virtual seconds are the time that the copies would take one after the other on a link of 16 GB/s
with 2 us for each copy. Wall seconds are those of the touches alone: the file has been read and
the objects have been made before. With --trace or --plot they include writing.

Examples:
  simulate replay FILE --format mooncake --vram 18279 --block 2M --order touch --json out.json
  simulate replay examples/traces/frames.residency --vram 384M --order request --plot out.svg

Exit status: 0 done, 1 a broken invariant, 2 refused (bad input, a line that cannot fit)";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "simulate", version, about = ABOUT, long_about = ABOUT, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// The subcommand asked for, or the demo with its defaults.
    pub(crate) fn into_command(self) -> Command {
        self.command
            .or_else(|| Self::parse_from(["simulate", "demo"]).command)
            .expect("`demo` has a default for every argument")
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Several clients write and check objects that don't all fit (the default)
    #[command(after_help = AFTER)]
    Demo(DemoArgs),
    /// Replay a recorded trace of object touches and count misses and evictions
    #[command(after_help = AFTER, after_long_help = AFTER_REPLAY)]
    Replay(ReplayArgs),
}

/// The arguments of `simulate demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long the clients work, on the device's clock
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,

    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Size of the card's memory
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_some)]
    pub(crate) vram: ByteSize,

    /// How much system memory objects may use; more is swapped out [default: working set / 1.3]
    #[arg(long, value_name = "SIZE", value_parser = parse_some)]
    system_limit: Option<ByteSize>,

    /// Total size of all objects [default: twice the card's memory]
    #[arg(long, value_name = "SIZE", value_parser = parse_some)]
    working_set: Option<ByteSize>,

    /// Folder for the swap file, which is removed at the end [default: the system's folder for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    swap_dir: Option<PathBuf>,

    /// How much may be swapped out [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub(crate) swap_limit: Option<ByteSize>,

    /// Number of clients, each in a thread of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) clients: u32,

    /// Which clock the device runs on
    #[arg(long, value_enum, default_value_t = ClockKind::Virtual)]
    pub(crate) clock: ClockKind,

    /// How clients use their windows
    #[arg(long, value_enum, default_value_t = Windows::Auto)]
    pub(crate) windows: Windows,

    /// Put a CPU cache in front of system memory that the card does not see: without the manager's
    /// cleaning and invalidating, words would be wrong
    #[arg(long)]
    pub(crate) no_snoop: bool,

    /// Put the card into a platform that does to its accesses what such platforms do (`list` prints
    /// the names); system pages are then taken as a probe of it says
    #[arg(long, value_name = "NAME", conflicts_with = "no_snoop")]
    pub(crate) platform: Option<String>,

    /// Whatever the probe says, take pages as if the platform were coherent: no syncs, no limits
    #[arg(long, requires = "platform")]
    pub(crate) unsafe_ignore_probe: bool,

    /// Lay the memory out like a real card (`list` prints the names)
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,

    /// Fail a named site at its NTH visit, or from then on; may be repeated (`list` prints the
    /// sites)
    #[arg(long, value_name = "SITE[:NTH[:forever]]")]
    pub(crate) inject: Vec<Inject>,

    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

impl DemoArgs {
    /// Total size of all objects.
    pub(crate) fn working_set(&self) -> ByteSize {
        self.working_set
            .unwrap_or(ByteSize(self.vram.bytes().saturating_mul(2)))
    }

    /// How much system memory objects may use.
    pub(crate) fn system_limit(&self) -> ByteSize {
        let default = || ByteSize((self.working_set().bytes() / 13).saturating_mul(10));
        self.system_limit.unwrap_or_else(default)
    }

    /// Whether operations may fail because they are made to, or because swap is short.
    pub(crate) fn may_fail(&self) -> bool {
        !self.inject.is_empty() || self.swap_limit.is_some() || self.swap_dir.is_some()
    }

    /// The folder for the swap file.
    pub(crate) fn swap_dir(&self) -> PathBuf {
        self.swap_dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// The arguments of `simulate replay`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The trace to replay
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Format of FILE [default: told by its name or its first line]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Size of the card's memory: a bare number counts blocks, one with a suffix (K, M, G, T) is
    /// bytes
    #[arg(long, value_name = "N|SIZE", default_value = "16G")]
    pub(crate) vram: Vram,

    /// Size of a block, which is the size of every object of a mooncake trace
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = parse_pages)]
    pub(crate) block: ByteSize,

    /// Who chooses what leaves the card; a list with commas between
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "lru,optimal"
    )]
    pub(crate) policy: Vec<Policy>,

    /// What must be on the card at the same time
    #[arg(long, value_enum, default_value_t = Order::Touch)]
    pub(crate) order: Order,

    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

impl ReplayArgs {
    /// The card's memory in bytes.
    ///
    /// # Errors
    /// The blocks don't fit in 64 bits of bytes.
    pub(crate) fn vram(&self) -> Result<ByteSize> {
        match self.vram {
            Vram::Bytes(size) => Ok(size),
            Vram::Blocks(blocks) => blocks
                .checked_mul(self.block.bytes())
                .map(ByteSize)
                .with_context(|| format!("--vram: {blocks} blocks of {} overflow", self.block)),
        }
    }
}

/// How clients use their windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Windows {
    /// Touch them where accesses can wait and nothing is made to fail; else the surest way that the
    /// clock allows
    Auto,
    /// Touch them, wherever the content is; what cannot be had ends the run
    Touch,
    /// Bring the content in by call, then touch them; on the virtual clock only
    Populate,
    /// Read and write by call
    Calls,
}

/// Which clock the device runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockKind {
    /// Waiting advances time; the same seed gives the same run
    Virtual,
    /// Real time
    Wall,
}

/// The format of a trace file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON lines with `hash_ids`, one object per id
    Mooncake,
    /// The project's own text format, described in examples/traces/README.md
    Residency,
}

/// Who chooses what leaves the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// The memory manager: the least recently used leaves
    Lru,
    /// The offline optimum, computed: what is needed again last leaves
    Optimal,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lru => "lru",
            Self::Optimal => "optimal",
        })
    }
}

/// What must be on the card at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// One object at a time, in the order of the trace
    Touch,
    /// All objects of a request (a line) together
    Request,
}

/// The card's memory as written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vram {
    /// A bare number: blocks.
    Blocks(u64),
    /// A number with a suffix: bytes.
    Bytes(ByteSize),
}

impl FromStr for Vram {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let size = parse_some(text)?;
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Blocks(size.bytes()));
        }
        Ok(Self::Bytes(size))
    }
}

/// A wish to see something fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inject {
    /// Print the names of all sites and end.
    List,
    /// Fail a site.
    Site {
        /// The site's name, not checked yet.
        name: String,
        /// The visit that fails, from 1.
        nth: NonZeroU64,
        /// Whether every later visit fails too.
        forever: bool,
    },
}

impl FromStr for Inject {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "list" {
            return Ok(Self::List);
        }
        let expected = || format!("expected SITE[:NTH[:forever]] or list, found {text:?}");
        let mut parts = text.split(':');
        let name = parts.next().filter(|name| !name.is_empty());
        let nth = parts.next().unwrap_or("1").parse();
        let forever = match (parts.next(), parts.next()) {
            (None, _) => Some(false),
            (Some("forever"), None) => Some(true),
            _ => None,
        };
        Ok(Self::Site {
            name: name.with_context(expected)?.to_owned(),
            nth: nth.with_context(expected)?,
            forever: forever.with_context(expected)?,
        })
    }
}

/// A size that isn't zero.
fn parse_some(text: &str) -> Result<ByteSize> {
    let size: ByteSize = text.parse()?;
    anyhow::ensure!(
        size.bytes() > 0,
        "expected more than nothing, found {text:?}"
    );
    Ok(size)
}

/// A size of whole pages, and not zero.
fn parse_pages(text: &str) -> Result<ByteSize> {
    let size = parse_some(text)?;
    let page = 4 * ByteSize::KIB.bytes();
    anyhow::ensure!(
        size.bytes().is_multiple_of(page),
        "expected a multiple of 4K, found {text:?}"
    );
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn replay(args: &[&str]) -> ReplayArgs {
        let args = ["simulate", "replay", "FILE"].iter().chain(args);
        match Cli::try_parse_from(args).unwrap().into_command() {
            Command::Replay(args) => args,
            Command::Demo(_) => panic!("a replay was asked for"),
        }
    }

    fn refuses(args: &[&str]) {
        let error = Cli::try_parse_from([&["simulate"], args].concat()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_bare_call_is_the_demo_at_twice_the_card_and_1_3_times_the_system() {
        let Command::Demo(demo) = Cli::try_parse_from(["simulate"]).unwrap().into_command() else {
            panic!("the demo is the default");
        };
        assert_eq!(demo.working_set().bytes(), 2 * demo.vram.bytes());
        let ratio = demo.working_set().bytes() as f64 / demo.system_limit().bytes() as f64;
        assert!((ratio - 1.3).abs() < 0.001, "{ratio}");
    }

    #[test]
    fn a_bare_vram_counts_blocks_and_a_suffix_makes_it_bytes() {
        assert_eq!(replay(&["--vram", "3"]).vram().unwrap(), ByteSize(6 << 20));
        assert_eq!(
            replay(&["--vram", "3", "--block", "64K"]).vram().unwrap(),
            ByteSize(3 << 16)
        );
        assert_eq!(
            replay(&["--vram", "64G"]).vram().unwrap(),
            ByteSize(64 << 30)
        );
        assert!(replay(&["--vram", "18446744073709551615"]).vram().is_err());
    }

    #[test]
    fn policies_are_a_list_and_default_to_all() {
        assert_eq!(replay(&[]).policy, [Policy::Lru, Policy::Optimal]);
        assert_eq!(replay(&["--policy", "optimal"]).policy, [Policy::Optimal]);
    }

    #[test]
    fn injections_read_as_site_nth_and_forever() {
        let site = |nth, forever| Inject::Site {
            name: "copy.flip-bit".into(),
            nth: NonZeroU64::new(nth).unwrap(),
            forever,
        };
        assert_eq!("list".parse::<Inject>().unwrap(), Inject::List);
        assert_eq!("copy.flip-bit".parse::<Inject>().unwrap(), site(1, false));
        assert_eq!("copy.flip-bit:7".parse::<Inject>().unwrap(), site(7, false));
        assert_eq!(
            "copy.flip-bit:7:forever".parse::<Inject>().unwrap(),
            site(7, true)
        );
    }

    #[test]
    fn bad_usage_is_refused_with_status_two() {
        refuses(&["replay"]);
        refuses(&["replay", "FILE", "--vram", "0"]);
        refuses(&["replay", "FILE", "--vram", "many"]);
        refuses(&["replay", "FILE", "--block", "1000"]);
        refuses(&["replay", "FILE", "--policy", "best"]);
        refuses(&["demo", "--clients", "0"]);
        for inject in ["", ":1", "a:0", "a:x", "a:1:once", "a:1:forever:2"] {
            refuses(&["demo", "--inject", inject]);
        }
    }
}
