//! Cache lines, told apart by what three files hold.
//!
//! ```text
//!   view   what the CPU sees: its cached and write-combined mappings are of this file
//!   base   what the line held when it was last read from or written to memory
//!   dram   memory: what goes around the CPU's caches sees this file
//!
//!   view ≠ base: the line is dirty, or a write is gathered
//!   view = base, view ≠ dram: the line is stale
//! ```
//!
//! Nobody is told when a mapping is written to, so lines are compared whenever something happens;
//! that holds for raw pointers too. What it cannot see is a write of the bytes that the line holds
//! already. Only lines that change are written, so a CPU that writes to others meanwhile loses
//! nothing.

use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use placement::{PAGE_SIZE, PageRange};
use ttm::sync::Arc;

use crate::host::{discard, memfd, reserve, write_zeroes};

/// Bytes of a line.
pub(super) const LINE: usize = 64;

/// Bytes that are compared at once.
const CHUNK: usize = 16 << 12;

/// What the base of a line is set to when it is known to be written: nobody's content.
const NEVER: [u8; 8] = 0x9e37_79b9_7f4a_7c15_u64.to_le_bytes();

/// How a line is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// The CPU has written to it and memory does not know.
    pub(super) dirty: bool,
    /// Memory holds something else.
    pub(super) differs: bool,
}

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    /// Nothing.
    Keep,
    /// Memory gets what the CPU sees.
    WriteBack,
    /// The CPU sees memory.
    Fetch,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Done {
    /// Lines written back.
    pub(super) written: u64,
    /// Lines fetched that were not dirty.
    pub(super) fetched: u64,
    /// Dirty lines whose content is gone.
    pub(super) lost: u64,
}

/// The three files.
pub(super) struct Lines {
    view: Arc<File>,
    base: File,
    dram: Arc<File>,
}

impl Lines {
    /// Lines over `view`, all clean and current: nothing was written yet.
    pub(super) fn new(view: Arc<File>, bytes: u64) -> io::Result<Self> {
        let sized = |name| {
            let file = memfd(name)?;
            rustix::fs::ftruncate(&file, bytes)?;
            Ok::<_, io::Error>(file)
        };
        Ok(Self {
            view,
            base: sized("sim cache base")?,
            dram: Arc::new(sized("sim dram")?),
        })
    }

    /// The file that is memory.
    pub(super) const fn dram(&self) -> &Arc<File> {
        &self.dram
    }

    /// Puts memory behind pages of both files that the CPU does not see.
    pub(super) fn reserve(&self, pages: PageRange) -> Result<(), rustix::io::Errno> {
        reserve(&self.base, pages)?;
        reserve(&self.dram, pages)
    }

    /// They are zero from now on, and the memory behind them is the host's.
    /// False if some may not be.
    pub(super) fn discard(&self, pages: PageRange) -> bool {
        [&self.base, &self.dram].map(|file| discard(file, pages)) == [true; 2]
    }

    /// The CPU writes zeroes: every line is dirty, whatever it held.
    pub(super) fn zero(&self, pages: PageRange) -> io::Result<()> {
        write_zeroes(&self.view, pages)?;
        fill(&self.base, pages, NEVER)
    }

    /// Memory is overwritten with zeroes, around the caches.
    pub(super) fn zero_dram(&self, pages: PageRange) -> io::Result<()> {
        write_zeroes(&self.dram, pages)
    }

    /// Asks `decide` about every line that is dirty or differs, and does it.
    pub(super) fn visit(
        &self,
        pages: PageRange,
        mut decide: impl FnMut(Seen) -> Deed,
    ) -> io::Result<Done> {
        let mut done = Done::default();
        let [mut view, mut base, mut dram] = [const { Vec::new() }; 3];
        let (mut at, end) = (pages.start() * PAGE_SIZE, pages.end() * PAGE_SIZE);
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            // The base first: what the CPU writes between the reads looks dirty.
            for (bytes, file) in [
                (&mut base, &self.base),
                (&mut dram, &self.dram),
                (&mut view, &*self.view),
            ] {
                bytes.resize(len, 0);
                file.read_exact_at(bytes, at)?;
            }
            let mut decide_line = |n: usize| {
                let line = n..n + LINE;
                let seen = Seen {
                    dirty: view[line.clone()] != base[line.clone()],
                    differs: view[line.clone()] != dram[line],
                };
                let deed = match seen.dirty || seen.differs {
                    true => decide(seen),
                    false => Deed::Keep,
                };
                done.note(seen, deed);
                deed
            };
            // Lines that adjoin and meet the same are written together.
            let (mut first, mut deed) = (0, Deed::Keep);
            for n in (0..len).step_by(LINE) {
                let next = decide_line(n);
                if next != deed {
                    self.carry_out(deed, at, first..n, &view, &dram)?;
                    (first, deed) = (n, next);
                }
            }
            self.carry_out(deed, at, first..len, &view, &dram)?;
            at += len as u64;
        }
        Ok(done)
    }

    /// Does `deed` to the bytes `part` of the chunk that begins at byte `at` of the files.
    fn carry_out(
        &self,
        deed: Deed,
        at: u64,
        part: Range<usize>,
        view: &[u8],
        dram: &[u8],
    ) -> io::Result<()> {
        let offset = at + part.start as u64;
        match deed {
            Deed::Keep => Ok(()),
            Deed::WriteBack => {
                self.dram.write_all_at(&view[part.clone()], offset)?;
                self.base.write_all_at(&view[part], offset)
            }
            Deed::Fetch => {
                self.base.write_all_at(&dram[part.clone()], offset)?;
                self.view.write_all_at(&dram[part], offset)
            }
        }
    }
}

impl Done {
    const fn note(&mut self, seen: Seen, deed: Deed) {
        match deed {
            Deed::Keep => {}
            Deed::WriteBack => self.written += 1,
            Deed::Fetch if seen.dirty => self.lost += 1,
            Deed::Fetch => self.fetched += 1,
        }
    }
}

/// Overwrites pages of a file with one word.
fn fill(file: &File, pages: PageRange, word: [u8; 8]) -> io::Result<()> {
    let bytes = word.repeat(CHUNK / word.len());
    let (mut at, end) = (pages.start() * PAGE_SIZE, pages.end() * PAGE_SIZE);
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        file.write_all_at(&bytes[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
