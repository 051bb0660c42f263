//! What the disk can do: plain direct I/O between a file that has its blocks and mapped memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// What direct I/O wants of addresses.
const PAGE: usize = 4096;

/// A way to use the disk.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    /// Bytes of a request.
    request: usize,
    /// Requests at once.
    depth: usize,
}

impl Method {
    /// Those that make sense for so many bytes.
    pub(crate) fn all(bytes: usize) -> Vec<Self> {
        let requests = [1 << 20, 2 << 20, 4 << 20, 8 << 20];
        let all = requests
            .into_iter()
            .flat_map(|request| [1, 2, 4, 8].map(|depth| Self { request, depth }));
        all.filter(|method| method.request * method.depth <= bytes)
            .collect()
    }

    /// What the report calls it.
    pub(crate) fn name(self) -> String {
        format!("direct I/O, {} x {} MiB", self.depth, self.request >> 20)
    }
}

/// A file without a name, and as much memory.
pub(crate) struct Disk {
    file: File,
    /// A page longer than `bytes`, which begin at the first whole page.
    memory: Vec<u8>,
    bytes: usize,
}

impl Disk {
    /// Makes and fills the file.
    pub(crate) fn new(dir: &Path, bytes: usize) -> io::Result<Self> {
        let mut memory = vec![0; bytes + PAGE];
        for (at, byte) in memory.iter_mut().enumerate() {
            *byte = (at >> 12) as u8 ^ at as u8;
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = match openat(CWD, dir, flags | OFlags::DIRECT, mode) {
            // Then the page cache is the best there is.
            Err(Errno::INVAL) => openat(CWD, dir, flags, mode)?,
            other => other?,
        };
        let mut disk = Self {
            file: File::from(fd),
            memory,
            bytes,
        };
        disk.go(
            true,
            Method {
                request: 1 << 20,
                depth: 1,
            },
        )?;
        Ok(disk)
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the whole file, or reads it.
    pub(crate) fn go(&mut self, write: bool, method: Method) -> io::Result<()> {
        let start = self.memory.as_ptr().align_offset(PAGE);
        let memory = &mut self.memory[start..start + self.bytes];
        let file = &self.file;
        let offsets = (0..).step_by(method.request);
        let mut hands: Vec<Vec<(u64, &mut [u8])>> = Vec::new();
        hands.resize_with(method.depth, Vec::new);
        // In turn, so that what is on its way at once adjoins in the file.
        for (n, part) in offsets.zip(memory.chunks_mut(method.request)).enumerate() {
            hands[n % method.depth].push(part);
        }
        let work = move |parts: Vec<(u64, &mut [u8])>| {
            parts.into_iter().try_for_each(|(at, part)| match write {
                true => file.write_all_at(part, at),
                false => file.read_exact_at(part, at),
            })
        };
        thread::scope(|scope| {
            let mine = hands.pop().expect("at least one at once");
            let others: Vec<_> = hands
                .into_iter()
                .map(|parts| scope.spawn(move || work(parts)))
                .collect();
            let ended = others
                .into_iter()
                .map(|other| other.join().expect("no panic"));
            work(mine).and(ended.collect())
        })
    }
}
