//! Mooncake traces: JSON lines of an LLM service, each with the ids of the cache blocks it needs.
//!
//! ```text
//! {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
//! ```
//!
//! Every id is one object of one block. Other fields must be JSON and are ignored, blank lines
//! too.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::trace::{ObjectInfo, Parts, RequestEnd};
use super::trace_file::{Fault, Line, lines, quote};
use cli::size::ByteSize;

/// The one field that matters, unread: its numbers are read in place, to name the column of a
/// bad one.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    hash_ids: &'a RawValue,
}

/// Reads a mooncake trace; every object has the size `block`.
///
/// # Errors
/// The first place where it is malformed.
pub(super) fn parse(text: &str, block: ByteSize) -> Result<Parts, Fault> {
    let mut touched: Vec<u64> = Vec::new();
    let mut ends = Vec::new();
    for line in lines(text) {
        let line = line?;
        read_line(line, &mut touched)?;
        let end = u32::try_from(touched.len());
        let end = end.map_err(|_| line.fault(0, "at most 2^32 touches", "more"))?;
        ends.push(RequestEnd {
            line: line.number as u32,
            end,
        });
    }
    let mut ids = touched.clone();
    ids.sort_unstable();
    ids.dedup();
    // Below 2^32, for there are no more ids than touches.
    let index = |id: &u64| ids.binary_search(id).expect("every id touched is listed") as u32;
    Ok(Parts {
        touches: touched.iter().map(index).collect(),
        objects: ids
            .iter()
            .map(|&id| ObjectInfo { id, size: block })
            .collect(),
        names: Vec::new(),
        ends,
    })
}

/// Appends the ids of one line.
fn read_line(line: Line<'_>, touched: &mut Vec<u64>) -> Result<(), Fault> {
    let start = line.text.len() - line.text.trim_ascii_start().len();
    if !line.text[start..].starts_with('{') {
        return Err(line.fault(start, "a JSON object", found_at(line.text, start)));
    }
    let fields: Fields<'_> =
        serde_json::from_str(line.text).map_err(|error| json_fault(line, &error))?;
    let array = fields.hash_ids.get();
    // Borrowed from the line, so the distance is the column.
    let offset = array.as_ptr().addr() - line.text.as_ptr().addr();
    read_ids(line, offset, array, touched)
}

/// Appends the numbers of `array`, which is valid JSON and stands at `offset` of the line.
fn read_ids(
    line: Line<'_>,
    offset: usize,
    array: &str,
    touched: &mut Vec<u64>,
) -> Result<(), Fault> {
    let Some(inside) = array
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return Err(line.fault(offset, "an array of object ids", quote(array)));
    };
    if inside.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut at = offset + 1;
    for piece in inside.split(',') {
        let id = piece.trim_ascii();
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            let before = piece.len() - piece.trim_ascii_start().len();
            return Err(line.fault(
                at + before,
                "an object id (an integer, not negative)",
                quote(id),
            ));
        }
        // Valid JSON, so there is at least one digit and no sign: only the size can be wrong.
        let number = id.parse();
        touched.push(number.map_err(|_| {
            let before = piece.len() - piece.trim_ascii_start().len();
            line.fault(at + before, "an object id below 2^64", quote(id))
        })?);
        at += piece.len() + 1;
    }
    Ok(())
}

/// Says in our words what serde_json found.
fn json_fault(line: Line<'_>, error: &serde_json::Error) -> Fault {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    // Their columns count bytes from 1, and 0 stands before the first.
    let offset = error.column().saturating_sub(1);
    match error.classify() {
        serde_json::error::Category::Eof => line.fault(
            line.text.len(),
            format!("valid JSON ({what})"),
            "the end of the line",
        ),
        serde_json::error::Category::Data if what.starts_with("missing field") => line.fault(
            offset,
            "a field \"hash_ids\" with an array of object ids",
            "an object without it",
        ),
        serde_json::error::Category::Data => {
            line.fault(offset, "one field \"hash_ids\"", format!("a {what}"))
        }
        _ => match what.strip_prefix("expected ") {
            Some(expected) => line.fault(offset, expected, found_at(line.text, offset)),
            None => line.fault(
                offset,
                format!("valid JSON ({what})"),
                found_at(line.text, offset),
            ),
        },
    }
}

fn found_at(text: &str, offset: usize) -> String {
    let offset = text.floor_char_boundary(offset);
    match text[offset..].chars().next() {
        Some(found) => format!("{found:?}"),
        None => "the end of the line".into(),
    }
}
