//! The project's own trace format: objects of any size, and which of them each step needs.
//!
//! A text file, read line by line; words are separated by blanks or tabs.
//!
//! ```text
//! residency 1               # the format and its version, before everything else
//! object depth 8M           # a name and a size
//! object albedo 21M
//! touch depth albedo        # a request: these objects, in this order
//! ```
//!
//! - A name is up to 255 characters without blanks, and means one object throughout. An object is
//!   declared once, before its first touch; it lives to the end and starts outside the card.
//! - A size is a number of bytes, perhaps with a suffix `K`, `M`, `G` or `T` (powers of 1024). It
//!   is rounded up to whole pages of 4 KiB, and is not zero.
//! - A word that begins with `#` begins a comment, to the end of the line. Blank lines are ignored.

use std::collections::BTreeMap;

use super::trace::{ObjectInfo, Parts, RequestEnd};
use super::trace_file::{Fault, Line, lines, quote};
use cli::size::ByteSize;

/// The word a file begins with.
pub(super) const HEADER: &str = "residency";

const VERSION: &str = "1";
const MAX_NAME: usize = 255;
const PAGE_BYTES: u64 = 4096;

/// Reads a residency trace.
///
/// # Errors
/// The first place where it is malformed.
pub(super) fn parse(text: &str) -> Result<Parts, Fault> {
    let mut reader = Reader::default();
    for line in lines(text) {
        reader.line(line?)?;
    }
    Ok(reader.parts)
}

/// What is known so far.
#[derive(Default)]
struct Reader<'a> {
    has_header: bool,
    index: BTreeMap<&'a str, u32>,
    parts: Parts,
}

/// A word and the byte of the line at which it begins.
#[derive(Clone, Copy)]
struct Word<'a> {
    offset: usize,
    text: &'a str,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: Line<'a>) -> Result<(), Fault> {
        let mut words = words(line)?;
        let Some(verb) = words.next() else {
            return Ok(());
        };
        match verb.text {
            HEADER if !self.has_header => self.header(line, &mut words)?,
            _ if !self.has_header => {
                let expected = format!("the header `{HEADER} {VERSION}`");
                return Err(line.fault(verb.offset, expected, quote(verb.text)));
            }
            "object" => self.object(line, &mut words)?,
            "touch" => self.touch(line, &mut words)?,
            _ => return Err(line.fault(verb.offset, "`object` or `touch`", quote(verb.text))),
        }
        match words.next() {
            Some(word) => Err(line.fault(word.offset, "the end of the line", quote(word.text))),
            None => Ok(()),
        }
    }

    fn header(
        &mut self,
        line: Line<'a>,
        words: &mut impl Iterator<Item = Word<'a>>,
    ) -> Result<(), Fault> {
        let version = next(line, words, "the version of the format")?;
        if version.text != VERSION {
            let expected = format!("version {VERSION} of the format");
            return Err(line.fault(version.offset, expected, quote(version.text)));
        }
        self.has_header = true;
        Ok(())
    }

    fn object(
        &mut self,
        line: Line<'a>,
        words: &mut impl Iterator<Item = Word<'a>>,
    ) -> Result<(), Fault> {
        let name = next(line, words, "the name of an object")?;
        let size = next(line, words, "the size of the object")?;
        let bytes = size.text.parse::<ByteSize>();
        let bytes = bytes.map_err(|_| {
            line.fault(
                size.offset,
                "a size such as 2M, below 2^64",
                quote(size.text),
            )
        })?;
        let pages = bytes.bytes().checked_next_multiple_of(PAGE_BYTES);
        let Some(bytes) = pages.filter(|bytes| *bytes > 0) else {
            let expected = "a size of at least one byte, below 2^64";
            return Err(line.fault(size.offset, expected, quote(size.text)));
        };
        if name.text.chars().count() > MAX_NAME {
            let expected = format!("a name of at most {MAX_NAME} characters");
            return Err(line.fault(name.offset, expected, quote(name.text)));
        }
        let index = u32::try_from(self.parts.objects.len());
        let index = index.map_err(|_| line.fault(0, "at most 2^32 objects", "more"))?;
        if self.index.insert(name.text, index).is_some() {
            let found = format!("{} again", quote(name.text));
            return Err(line.fault(name.offset, "a name not declared before", found));
        }
        self.parts.names.push(name.text.to_owned());
        self.parts.objects.push(ObjectInfo {
            id: index.into(),
            size: ByteSize(bytes),
        });
        Ok(())
    }

    fn touch(
        &mut self,
        line: Line<'a>,
        words: &mut impl Iterator<Item = Word<'a>>,
    ) -> Result<(), Fault> {
        let mut name = next(line, words, "the name of an object")?;
        loop {
            let Some(&index) = self.index.get(name.text) else {
                return Err(line.fault(name.offset, "an object declared before", quote(name.text)));
            };
            self.parts.touches.push(index);
            match words.next() {
                Some(next) => name = next,
                None => break,
            }
        }
        let end = u32::try_from(self.parts.touches.len());
        let end = end.map_err(|_| line.fault(0, "at most 2^32 touches", "more"))?;
        self.parts.ends.push(RequestEnd {
            line: line.number as u32,
            end,
        });
        Ok(())
    }
}

/// The words of a line before its comment.
fn words(line: Line<'_>) -> Result<impl Iterator<Item = Word<'_>>, Fault> {
    let text = line.text;
    let is_control = |c: char| c.is_control() && c != '\t';
    if let Some((offset, found)) = text.char_indices().find(|(_, c)| is_control(*c)) {
        return Err(line.fault(offset, "text", format!("the control character {found:?}")));
    }
    let words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let words = words.take_while(|word| !word.starts_with('#'));
    Ok(words.map(move |word| Word {
        offset: word.as_ptr().addr() - text.as_ptr().addr(),
        text: word,
    }))
}

/// The next word, or a fault at the end of the line.
fn next<'a>(
    line: Line<'a>,
    words: &mut impl Iterator<Item = Word<'a>>,
    expected: &str,
) -> Result<Word<'a>, Fault> {
    let end = || line.fault(line.text.len(), expected, "the end of the line");
    words.next().ok_or_else(end)
}
