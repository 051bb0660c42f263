//! A thread that has the kernel copy between windows and a file.
//!
//! It alone writes the words at the beginning of each page, all of them equal, and finds there what
//! it wrote. Where calls wait, none fails.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use backends::host::{read_into_window, write_from_window};
use placement::PAGE_SIZE;

use crate::object::Object;
use crate::random::Random;
use crate::slots::CALLERS;
use crate::stage::{Done, Stage};

/// Bytes of a call.
const BYTES: usize = CALLERS as usize * 8;

/// What it does between calls, so that somebody else gets a processor.
const REST: Duration = Duration::from_micros(200);

/// A file without a name.
pub(crate) fn file(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!(".window_torture.{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Calls until the run ends.
pub(crate) fn call(stage: &Stage<'_>, file: &File, mut random: Random) -> Done {
    let mut done = Done::default();
    while !stage.is_stopped() {
        let n = stage.choose(&mut random);
        let object = &stage.objects()[n];
        let page = random.below(object.bo.pages().get());
        match there_and_back(object, page, file) {
            Ok(calls) => {
                done.calls += calls;
                done.accesses += calls;
            }
            Err(wrong) => stage.wrong(wrong),
        }
        std::thread::sleep(REST);
    }
    done
}

/// Writes a page's words by `pread(2)` and reads them by `pwrite(2)`. Answers how many calls.
fn there_and_back(object: &Object, page: u64, file: &File) -> Result<u64, String> {
    let value = object.slots.call(page);
    let mut bytes = value.to_le_bytes().repeat(CALLERS as usize);
    let failed = |error: io::Error| format!("the file cannot be used: {error}");
    file.write_all_at(&bytes, 0).map_err(failed)?;
    let (window, at) = (object.whole(), (page * PAGE_SIZE) as usize);
    let into = all(|done| read_into_window(file, done as u64, window, at + done, BYTES - done));
    let into = into.map_err(|error| format!("pread(2) to a window failed: {error}"))?;
    let from = all(|done| {
        let offset = PAGE_SIZE + done as u64;
        write_from_window(file, offset, window, at + done, BYTES - done)
    });
    let from = from.map_err(|error| format!("pwrite(2) from a window failed: {error}"))?;
    file.read_exact_at(&mut bytes, PAGE_SIZE).map_err(failed)?;
    for (n, word) in (0..).zip(bytes.chunks_exact(8)) {
        let found = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        if found != value {
            let word = page * crate::slots::WORDS + n;
            return Err(object.slots.lost_word(word, found, value));
        }
    }
    Ok(into + from)
}

/// Calls until all bytes are copied; answers how often.
fn all(mut copy: impl FnMut(usize) -> io::Result<usize>) -> io::Result<u64> {
    let (mut done, mut calls) = (0, 0);
    while done < BYTES {
        match copy(done) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        calls += 1;
    }
    Ok(calls)
}
