//! How clients reach their objects through windows.
//!
//! Where accesses can wait, a client just touches its window, wherever the object is; some accesses
//! are system calls that copy. Where something is made to fail, it has the content brought in by
//! call first, so that it gets an error and not a signal.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use backends::host::{FaultThreads, HostSpace, read_into_window, write_from_window};
use backends::sim::{FailingSpace, Inject, SimClock, SimDriver};
use serde::Serialize;
use ttm::bo::Bo;
use ttm::device::Device;
use ttm::error::Error;
use ttm::map::{MapInfo, Window, WindowCounts, Windows};
use ttm::sync::Arc;

use crate::args::{DemoArgs, Windows as HowToUse};
use cli::report::Outputs;
use cli::table::Table;
use cli::tracer::is_traced;

/// A system call copies so much at most.
const CALL: usize = 64 << 10;

/// How a window is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// By touching it.
    Touch,
    /// By touching it once its content is there.
    Populated,
    /// By call.
    Calls,
}

/// What the clients need for windows.
pub(super) struct Reach {
    windows: Windows<SimDriver>,
    space: Arc<HostSpace>,
    way: Way,
    /// Some accesses are system calls.
    calls: bool,
}

/// What one client has for that.
pub(super) struct Accesses<'a> {
    reach: &'a Reach,
    /// System calls copy to and from here; without it there are none.
    scratch: Option<File>,
}

impl Reach {
    pub(super) fn new(
        args: &DemoArgs,
        device: &Device<SimDriver>,
        time: &SimClock,
        inject: &Arc<Inject>,
    ) -> Result<Self> {
        let space = Arc::new(HostSpace::probe());
        let failing = FailingSpace::new(Arc::clone(&space) as _, Arc::clone(inject));
        let windows = Windows::new(device, Arc::new(failing));
        let abilities = windows.abilities();
        let turns = matches!(time, SimClock::Virtual(_));
        let way = match args.windows {
            HowToUse::Auto if !abilities.loads_wait => Way::Calls,
            HowToUse::Auto if !args.may_fail() => Way::Touch,
            // Others take turns: nobody moves what was just brought in.
            HowToUse::Auto if turns => Way::Populated,
            HowToUse::Auto | HowToUse::Calls => Way::Calls,
            HowToUse::Touch | HowToUse::Populate if !abilities.loads_wait => bail!(
                "--windows: accesses cannot wait here ({}); use --windows calls",
                space.describe()
            ),
            HowToUse::Touch => Way::Touch,
            HowToUse::Populate if turns => Way::Populated,
            HowToUse::Populate => bail!(
                "--windows populate: on the wall clock others move what was brought in; use \
                 --windows calls"
            ),
        };
        let calls = way == Way::Touch && abilities.calls_wait && !is_traced();
        Ok(Self {
            windows,
            space,
            way,
            calls,
        })
    }

    /// Threads for accesses that wait: each client may have one, and somebody else listens.
    pub(super) fn serve(&self, clients: u32) -> Result<FaultThreads> {
        let threads = clients as usize + 1;
        FaultThreads::start(
            self.windows.handler(),
            Arc::clone(&self.space) as _,
            threads,
        )
        .context("threads for accesses that wait")
    }

    /// What client `number` uses.
    pub(super) fn client(&self, number: u32) -> Result<Accesses<'_>> {
        let scratch = self.calls.then(|| nameless(&std::env::temp_dir(), number));
        Ok(Accesses {
            reach: self,
            scratch: scratch.transpose().context("a file for system calls")?,
        })
    }

    pub(super) fn seen(&self) -> Seen {
        let WindowCounts {
            faults,
            coalesced,
            poisoned,
            shown,
            revoked,
            ..
        } = self.windows.counts();
        Seen {
            strategy: self.space.strategy().to_string(),
            used_by: self.way,
            system_calls: self.calls,
            faults,
            coalesced,
            poisoned,
            shown,
            revoked,
        }
    }
}

impl Accesses<'_> {
    /// A window over all of an object; `None` if there are too many.
    pub(super) fn open(&self, bo: &Bo<SimDriver>) -> Option<Window<SimDriver>> {
        self.reach.windows.map(bo, MapInfo::whole()).ok()
    }

    /// Reads bytes through a window. `by_call` asks for a system call, where those wait.
    pub(super) fn read(
        &self,
        window: &Window<SimDriver>,
        offset: u64,
        bytes: &mut [u8],
        by_call: bool,
    ) -> Result<(), Error> {
        match self.reach.way {
            Way::Calls => return window.read_at(offset, bytes),
            Way::Populated => window.populate()?,
            Way::Touch => {}
        }
        if let Some(scratch) = self.scratch.as_ref().filter(|_| by_call) {
            for (n, part) in bytes.chunks_mut(CALL).enumerate() {
                let at = offset as usize + n * CALL;
                let done = write_from_window(scratch, offset, window, at, part.len())?;
                whole(done, part.len())?;
                scratch.read_exact_at(part, offset)?;
            }
            return Ok(());
        }
        let words = &window.words()?[offset as usize / 8..];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.load().to_le_bytes());
        }
        Ok(())
    }

    /// Writes bytes through a window; see [`Accesses::read`].
    pub(super) fn write(
        &self,
        window: &Window<SimDriver>,
        offset: u64,
        bytes: &[u8],
        by_call: bool,
    ) -> Result<(), Error> {
        match self.reach.way {
            Way::Calls => return window.write_at(offset, bytes),
            Way::Populated => window.populate()?,
            Way::Touch => {}
        }
        if let Some(scratch) = self.scratch.as_ref().filter(|_| by_call) {
            for (n, part) in bytes.chunks(CALL).enumerate() {
                let at = offset as usize + n * CALL;
                scratch.write_all_at(part, offset)?;
                let done = read_into_window(scratch, offset, window, at, part.len())?;
                whole(done, part.len())?;
            }
            return Ok(());
        }
        let words = &window.words_mut()?[offset as usize / 8..];
        for (bytes, word) in bytes.chunks_exact(8).zip(words) {
            word.store(u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        }
        Ok(())
    }
}

/// A call that copied less than it was asked for met something that it could not.
fn whole(done: usize, wanted: usize) -> Result<(), Error> {
    if done != wanted {
        return Err(Error::Backend(
            format!("a system call copied {done} bytes of {wanted}").into(),
        ));
    }
    Ok(())
}

/// A file that nobody else finds and that goes with its last handle.
fn nameless(folder: &Path, number: u32) -> std::io::Result<File> {
    let path = folder.join(format!("simulate-{}-client-{number}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// What windows did, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    strategy: String,
    used_by: Way,
    system_calls: bool,
    faults: u64,
    coalesced: u64,
    poisoned: u64,
    shown: u64,
    revoked: u64,
}

impl Seen {
    pub(super) fn print(&self, outputs: &Outputs) -> Result<()> {
        let mut table = Table::new(["windows", "faults", "coalesced", "shown", "revoked"]);
        table.row([
            self.strategy.clone().into(),
            self.faults.into(),
            self.coalesced.into(),
            self.shown.into(),
            self.revoked.into(),
        ]);
        outputs.say(&format!("{table}\n"))
    }
}
