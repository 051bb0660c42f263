//! Reads a trace file whole, in one of the formats, before anything is replayed.
//!
//! The format is told by the file's name, else by its first line. What is malformed is reported as
//! `FILE:LINE:COLUMN: expected …, found …`; columns count characters.
//!
//! # Unsafe
//! One block maps the file. The rule it relies on: a mapping is private, read-only, of a regular
//! file, and lives only while [`load`] runs. That nobody rewrites the file meanwhile is the
//! caller's part, as for every reader that maps files.
#![expect(
    unsafe_code,
    reason = "maps the file to be read; the head states the rule"
)]

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, Result, bail};
use memmap2::{Mmap, MmapOptions};

use super::trace::{Parts, Trace};
use super::{mooncake, residency};
use crate::args::Format;
use cli::size::ByteSize;

/// The longest line that is still taken for text somebody meant.
const MAX_LINE_BYTES: usize = 64 << 20;

/// The longest piece of a file quoted in a message, in characters.
const MAX_QUOTE: usize = 40;

/// Reads the trace in `path`; `block` is the size of an object where the format gives none.
///
/// # Errors
/// The file can't be read, its format can't be told, or it is malformed.
pub(crate) fn load(path: &Path, format: Option<Format>, block: ByteSize) -> Result<Trace> {
    let name = || path.display().to_string();
    let bytes = Bytes::open(path).with_context(name)?;
    let Some(format) = format.or_else(|| guess(path, &bytes)) else {
        bail!(
            "{}: cannot tell the format; name it with --format mooncake|residency",
            name()
        );
    };
    parse(&bytes, format, block).map_err(|fault| anyhow::anyhow!("{}:{fault}", name()))
}

/// Reads a trace from memory.
///
/// # Errors
/// The first place where it is malformed.
pub(crate) fn parse(bytes: &[u8], format: Format, block: ByteSize) -> Result<Trace, Fault> {
    let text = text(bytes)?;
    let parts = match format {
        Format::Mooncake => mooncake::parse(text, block)?,
        Format::Residency => residency::parse(text)?,
    };
    let end = Line {
        number: text.lines().count().max(1),
        text: "",
    };
    if parts.touches.is_empty() {
        return Err(end.fault(
            0,
            "at least one touch of an object",
            "none in the whole file",
        ));
    }
    whole(parts).ok_or_else(|| end.fault(0, "touches of less than 2^64 bytes in all", "more"))
}

/// A place where a file is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// What should stand there.
    pub(crate) expected: String,
    /// What stands there.
    pub(crate) found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            expected,
            found,
        } = self;
        write!(f, "{line}:{column}: expected {expected}, found {found}")
    }
}

/// One line of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: usize,
    /// Without its end.
    pub(crate) text: &'a str,
}

impl Line<'_> {
    /// A fault at the byte `offset` of the line; inside a character, it is that character's.
    pub(crate) fn fault(
        self,
        offset: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Fault {
        let offset = self.text.floor_char_boundary(offset);
        Fault {
            line: self.number,
            column: self.text[..offset].chars().count() + 1,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// The lines of `text` that aren't blank.
///
/// # Errors
/// Inside: a line too long, or after more lines than 32 bits count.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Result<Line<'_>, Fault>> {
    let numbered = text
        .lines()
        .zip(1..)
        .map(|(text, number)| Line { number, text });
    let filled = numbered.filter(|line| !line.text.trim_ascii().is_empty());
    filled.map(|line| {
        if line.text.len() > MAX_LINE_BYTES {
            return Err(line.fault(MAX_LINE_BYTES, "a line of at most 64 MiB", "a longer one"));
        }
        if line.number > u32::MAX as usize {
            return Err(line.fault(0, "at most 2^32 lines", "more"));
        }
        Ok(line)
    })
}

/// A piece of a file as it stands in a message: in quotes, escaped, shortened.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The parts as a trace, with memory for no more than they hold.
fn whole(mut parts: Parts) -> Option<Trace> {
    parts.touches.shrink_to_fit();
    parts.ends.shrink_to_fit();
    Trace::new(parts)
}

/// A file's content, mapped where it can be.
enum Bytes {
    Mapped(Mmap),
    /// From a pipe, or another file that can't be mapped.
    Read(Vec<u8>),
}

impl Bytes {
    fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_file() {
            // SAFETY: a private, read-only mapping of a regular file; that nobody rewrites it
            // while it is read is the rule in this module's head.
            let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }?;
            return Ok(Self::Mapped(map));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self::Read(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Read(bytes) => bytes,
        }
    }
}

/// The bytes as text.
fn text(bytes: &[u8]) -> Result<&str, Fault> {
    if bytes.is_empty() {
        let line = Line {
            number: 1,
            text: "",
        };
        return Err(line.fault(0, "a trace", "an empty file"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        let valid = std::str::from_utf8(valid).expect("valid up to here");
        let start = valid.rfind('\n').map_or(0, |end| end + 1);
        let line = Line {
            number: valid.matches('\n').count() + 1,
            text: &valid[start..],
        };
        line.fault(
            line.text.len(),
            "UTF-8 text",
            format!("the byte {:#04x}", rest[0]),
        )
    })
}

/// The format by the file's name, else by its first line.
fn guess(path: &Path, bytes: &[u8]) -> Option<Format> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("jsonl" | "ndjson") => return Some(Format::Mooncake),
        Some("residency") => return Some(Format::Residency),
        _ => {}
    }
    let first = bytes.trim_ascii_start();
    match first.first()? {
        b'{' => Some(Format::Mooncake),
        b'#' => Some(Format::Residency),
        _ if first.starts_with(residency::HEADER.as_bytes()) => Some(Format::Residency),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
