//! A recorded trace in memory: objects, and requests that touch them.
//!
//! ```text
//! touches   a b c | a d | b b e | …      object indices, all requests end to end
//! ends            3     5       8        where each request ends, and its line in the file
//! ```

use std::borrow::Cow;

use cli::size::ByteSize;

/// Objects and the order in which they are touched. Checked when made, read-only after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    objects: Vec<ObjectInfo>,
    /// One for each object, or none where objects have no name but their id.
    names: Vec<String>,
    touches: Vec<u32>,
    ends: Vec<RequestEnd>,
}

/// One object of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectInfo {
    /// The object's number in the file.
    pub(crate) id: u64,
    /// Its size: whole pages, not zero.
    pub(crate) size: ByteSize,
}

/// One line of a trace: objects touched in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// The line in the file, from 1.
    pub(crate) line: usize,
    /// Indices into [`Trace::objects`]; one may stand more than once.
    pub(crate) ids: &'a [u32],
}

/// Where a request ends in the list of touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestEnd {
    /// The line in the file, from 1.
    pub(crate) line: u32,
    /// The index after its last touch.
    pub(crate) end: u32,
}

/// The parts a format's reader hands over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) objects: Vec<ObjectInfo>,
    pub(crate) names: Vec<String>,
    pub(crate) touches: Vec<u32>,
    pub(crate) ends: Vec<RequestEnd>,
}

impl Trace {
    /// A trace of these parts, or nothing where the bytes of all touches together overflow, so
    /// that no count of bytes ever does.
    ///
    /// # Panics
    /// A touch names no object, or the requests don't rise to the end of the touches.
    pub(crate) fn new(parts: Parts) -> Option<Self> {
        let Parts {
            objects,
            names,
            touches,
            ends,
        } = parts;
        assert!(names.is_empty() || names.len() == objects.len());
        assert!(ends.is_sorted_by_key(|request| (request.end, request.line)));
        assert_eq!(
            ends.last().map_or(0, |last| last.end as usize),
            touches.len()
        );
        let size = |index: &u32| objects[*index as usize].size.bytes();
        touches.iter().map(size).try_fold(0u64, u64::checked_add)?;
        Some(Self {
            objects,
            names,
            touches,
            ends,
        })
    }

    /// All objects; the touches are indices into them.
    pub(crate) fn objects(&self) -> &[ObjectInfo] {
        &self.objects
    }

    /// All touches in order, as indices into [`Trace::objects`].
    pub(crate) fn touches(&self) -> &[u32] {
        &self.touches
    }

    /// All requests in order.
    pub(crate) fn requests(&self) -> impl ExactSizeIterator<Item = Request<'_>> + Clone {
        self.ends.iter().enumerate().map(|(index, request)| {
            let start = index
                .checked_sub(1)
                .map_or(0, |before| self.ends[before].end);
            Request {
                line: request.line as usize,
                ids: &self.touches[start as usize..request.end as usize],
            }
        })
    }

    /// What the file calls an object.
    pub(crate) fn name(&self, object: u32) -> Cow<'_, str> {
        match self.names.get(object as usize) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(self.objects[object as usize].id.to_string()),
        }
    }

    /// The size of all objects together; saturates.
    pub(crate) fn total_size(&self) -> ByteSize {
        let sizes = self.objects.iter().map(|object| object.size.bytes());
        ByteSize(sizes.fold(0, u64::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(size: u64) -> Parts {
        Parts {
            objects: vec![ObjectInfo {
                id: 7,
                size: ByteSize(size),
            }],
            touches: vec![0, 0, 0],
            ends: vec![
                RequestEnd { line: 1, end: 2 },
                RequestEnd { line: 4, end: 3 },
            ],
            ..Parts::default()
        }
    }

    #[test]
    fn requests_cut_the_touches_and_keep_their_lines() {
        let trace = Trace::new(parts(4096)).unwrap();
        let requests: Vec<_> = trace.requests().map(|r| (r.line, r.ids.len())).collect();
        assert_eq!(requests, [(1, 2), (4, 1)]);
        assert_eq!(trace.name(0), "7");
    }

    #[test]
    fn a_trace_whose_bytes_overflow_is_no_trace() {
        assert!(Trace::new(parts(u64::MAX / 3)).is_some());
        assert!(Trace::new(parts(u64::MAX / 3 + 1)).is_none());
    }
}
