//! An address space made of a table: accesses look their page up, and wait where there is none.
//!
//! Each entry is changed at once, as the kernel does it, but not all of a window together. Whoever
//! finds out that the manager broke a promise panics: an address without an entry is a hole (I-19).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use shuttle::thread;
use ttm::map::{
    Abilities, Access, AddressSpace, Addresses, Aside, Fault, FaultSource, Piece, Revoke,
    WriteTracking,
};
use ttm::pages::FileRange;
use ttm::sync::{Arc, Condvar, Mutex};
use ttm::{Error, Result};

use super::machine::Memory;

const PAGE: usize = 4096;

/// What lies at a page of addresses.
#[derive(Clone)]
enum Entry {
    /// Nothing: accesses wait.
    Waiting,
    /// A file.
    Shown(FileRange),
    /// Accesses end.
    Dead,
}

#[derive(Default)]
struct Table {
    next: usize,
    entries: BTreeMap<usize, Entry>,
    faults: VecDeque<Fault>,
    stopped: bool,
    tracked: BTreeSet<usize>,
    written: BTreeSet<usize>,
    /// What fails, counted down; 0 never.
    fail_in: u32,
}

pub(crate) struct FakeSpace {
    memories: Vec<Arc<Memory>>,
    tracks: bool,
    table: Mutex<Table>,
    changed: Condvar,
}

impl FakeSpace {
    pub(crate) fn new(memories: Vec<Arc<Memory>>, tracks: bool) -> Arc<Self> {
        Arc::new(Self {
            memories,
            tracks,
            table: Mutex::new(Table {
                next: 1 << 30,
                ..Table::default()
            }),
            changed: Condvar::new(),
        })
    }

    /// Makes the `nth` call from now on fail that may.
    pub(crate) fn fail(&self, nth: u32) {
        self.table.lock().fail_in = nth;
    }

    fn fails(&self) -> Result<()> {
        let mut table = self.table.lock();
        if table.fail_in == 0 {
            return Ok(());
        }
        table.fail_in -= 1;
        match table.fail_in {
            0 => Err(Error::Backend("told to".into())),
            _ => Ok(()),
        }
    }

    /// Runs `access` on the word at `address` as soon as there is one; `None` if it ended in a
    /// signal.
    fn access<T>(
        &self,
        address: usize,
        write: bool,
        access: impl Fn(&mut [u8; 8]) -> T,
    ) -> Option<T> {
        let page = address & !(PAGE - 1);
        let mut asked = false;
        let mut table = self.table.lock();
        loop {
            let entry = table.entries.get(&page).cloned();
            match entry.expect("an address of a window has no entry") {
                Entry::Shown(file) => {
                    if write && table.tracked.contains(&page) {
                        table.written.insert(page);
                    }
                    let memory = self.memories.iter().find_map(|m| m.find(&file));
                    let memory = memory.expect("a file of this machine");
                    let mut word = [0; 8];
                    memory.read(address - page, &mut word);
                    let result = access(&mut word);
                    if write {
                        memory.write(address - page, &word);
                    }
                    return Some(result);
                }
                Entry::Dead => return None,
                Entry::Waiting => {}
            }
            if !core::mem::replace(&mut asked, true) {
                table.faults.push_back(Fault {
                    address,
                    write,
                    thread: 0,
                });
                self.changed.notify_all();
            }
            self.changed.wait(&mut table);
            // Woken: it tries again, and asks again.
            asked = matches!(table.entries.get(&page), Some(Entry::Waiting))
                && table.faults.iter().any(|f| f.address == address);
        }
    }

    pub(crate) fn load(&self, address: usize) -> Option<u64> {
        thread::yield_now();
        self.access(address, false, |word| u64::from_le_bytes(*word))
    }

    pub(crate) fn store(&self, address: usize, value: u64) -> Option<()> {
        thread::yield_now();
        self.access(address, true, |word| *word = value.to_le_bytes())
    }

    fn set(&self, at: Addresses, entry: impl Fn(usize) -> Entry) {
        let mut table = self.table.lock();
        for page in (at.base..at.end()).step_by(PAGE) {
            let before = table.entries.insert(page, entry(page - at.base));
            assert!(before.is_some(), "addresses that are not a window's");
        }
        self.changed.notify_all();
    }
}

impl AddressSpace for FakeSpace {
    fn abilities(&self) -> Abilities {
        Abilities {
            loads_wait: true,
            calls_wait: true,
            tracks_writes: self.tracks,
            thread: None,
        }
    }

    fn reserve(&self, bytes: usize, _: usize, _: usize) -> Result<Addresses> {
        let mut table = self.table.lock();
        let at = Addresses {
            base: table.next,
            bytes,
        };
        table.next += bytes + PAGE;
        for page in (at.base..at.end()).step_by(PAGE) {
            table.entries.insert(page, Entry::Waiting);
        }
        Ok(at)
    }

    fn prepare(&self, pieces: &[Piece], _: Access, _: bool) -> Result<Aside> {
        self.fails()?;
        Ok(Aside::new(pieces.to_vec()))
    }

    fn switch(&self, aside: Aside) -> Result<()> {
        let pieces = aside.into_inner::<Vec<Piece>>().expect("made here");
        for piece in *pieces {
            self.fails()?;
            thread::yield_now();
            self.set(piece.at, |offset| {
                Entry::Shown(piece.file.later(offset as u64))
            });
        }
        Ok(())
    }

    fn revoke(&self, at: Addresses, _: Revoke) -> Result<()> {
        self.fails()?;
        // Page by page, as page tables are emptied.
        for offset in (0..at.bytes).step_by(PAGE) {
            self.set(at.part(offset, PAGE), |_| Entry::Waiting);
            if at.bytes < 16 * PAGE {
                thread::yield_now();
            }
        }
        Ok(())
    }

    fn wake(&self, _: Addresses) {
        self.changed.notify_all();
    }

    fn poison(&self, at: Addresses) -> Result<()> {
        self.set(at, |_| Entry::Dead);
        Ok(())
    }

    fn release(&self, at: Addresses) {
        let mut table = self.table.lock();
        for page in (at.base..at.end()).step_by(PAGE) {
            table.entries.remove(&page);
        }
    }

    fn tracking(&self) -> Option<&dyn WriteTracking> {
        self.tracks.then_some(self)
    }
}

impl WriteTracking for FakeSpace {
    fn track(&self, at: Addresses) -> Result<()> {
        let mut table = self.table.lock();
        table.tracked.extend((at.base..at.end()).step_by(PAGE));
        table.written.clear();
        Ok(())
    }

    fn written(&self, at: Addresses, each: &mut dyn FnMut(Range<usize>)) -> Result<()> {
        let mut table = self.table.lock();
        table.tracked.clear();
        for page in core::mem::take(&mut table.written) {
            if at.contains(page) {
                each(page - at.base..page - at.base + PAGE);
            }
        }
        Ok(())
    }
}

impl FaultSource for FakeSpace {
    fn next(&self) -> Option<Fault> {
        let mut table = self.table.lock();
        loop {
            if table.stopped {
                return None;
            }
            if let Some(fault) = table.faults.pop_front() {
                return Some(fault);
            }
            self.changed.wait(&mut table);
        }
    }

    fn stop(&self) {
        self.table.lock().stopped = true;
        self.changed.notify_all();
    }
}
