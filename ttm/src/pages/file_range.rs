//! Where memory lies in a file of the host, for mappings that last.

use core::fmt;
use std::fs::File;
use std::io;

use crate::error::Error;
use crate::sync::Arc;

/// The beginning of some memory in a file that a process can map.
///
/// Short looks go through [`Mapped`](super::Mapped); a window, which keeps an address and follows
/// what it shows, maps the file itself.
#[derive(Clone)]
pub struct FileRange {
    /// The file.
    pub file: Arc<File>,
    /// The byte at which the memory begins.
    pub offset: u64,
    /// Addresses, offsets and lengths of mappings are multiples of so many bytes: the size of the
    /// file's pages.
    pub granule: u64,
    /// Whether the kernel lets a process watch mappings of the file: memory files, not devices'.
    pub watchable: bool,
}

impl FileRange {
    /// Memory in a file of small pages that can be watched.
    #[must_use]
    pub fn new(file: Arc<File>, offset: u64) -> Self {
        Self {
            file,
            offset,
            granule: placement::PAGE_SIZE,
            watchable: true,
        }
    }

    /// Some file.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let file = File::open("/dev/null").expect("every system has one");
        Self::new(Arc::new(file), 0)
    }

    /// The memory that begins `bytes` later.
    #[must_use]
    pub fn later(&self, bytes: u64) -> Self {
        Self {
            file: Arc::clone(&self.file),
            offset: self.offset + bytes,
            ..*self
        }
    }

    /// Whether `next` is the memory `bytes` after this.
    #[must_use]
    pub fn is_followed_by(&self, next: &Self, bytes: u64) -> bool {
        Arc::ptr_eq(&self.file, &next.file)
            && self.offset + bytes == next.offset
            && self.watchable == next.watchable
    }
}

impl PartialEq for FileRange {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.offset == other.offset
    }
}

impl Eq for FileRange {}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileRange({:?} from byte {})", self.file, self.offset)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Backend(Box::new(error))
    }
}
