//! A space without addresses.

use alloc::string::String;
use alloc::vec::Vec;

use super::grants::Grants;
use super::{Space, Trim, align_down, align_up};
use crate::{Extent, Extents, PageCount, PageRange, Request, TakeError};

/// System memory: pages are counted, and nothing else.
///
/// Page numbers mean nothing here. An extent begins at the first page of the request's window that
/// is aligned (the last that fits, top-down), whoever else has those numbers. Its size is
/// [`PageCount::MAX`], which no machine fills.
///
/// ```
/// use placement::{PageCount, Request, Space, Unbounded};
///
/// # fn main() -> Result<(), placement::TakeError> {
/// let mut system = Unbounded::new();
/// let mib = PageCount::from_bytes_ceil(1 << 20).expect("small");
/// let first = system.take(&Request::new(mib))?;
/// let second = system.take(&Request::new(mib))?;
/// assert!(first[0].generation() < second[0].generation());
/// assert_eq!(system.free().get(), PageCount::MAX.get() - 512);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Unbounded {
    grants: Grants,
}

impl Unbounded {
    /// Makes a space of which nothing is taken.
    pub const fn new() -> Self {
        Self {
            grants: Grants::new(),
        }
    }
}

impl Default for Unbounded {
    fn default() -> Self {
        Self::new()
    }
}

impl Space for Unbounded {
    fn take(&mut self, request: &Request) -> Result<Extents, TakeError> {
        let window = request.usable_window(PageRange::ALL)?;
        if request.pages > self.free() {
            return Err(TakeError::Full);
        }
        let (pages, align) = (request.pages.get(), request.align.get());
        let start = match request.top_down {
            true => align_down(window.end() - pages, align),
            false => align_up(window.start(), align),
        };
        let range = PageRange::within_max(start, start + pages);
        Ok(Extents::from_buf([self.grants.grant(range, 0)]))
    }

    fn give(&mut self, extent: Extent) {
        self.grants.revoke(&extent);
    }

    fn size(&self) -> PageCount {
        PageCount::MAX
    }

    fn free(&self) -> PageCount {
        PageCount::within_max(PageCount::MAX.get() - self.grants.taken())
    }

    fn largest_hole(&self) -> PageCount {
        self.free()
    }

    fn check(&self) -> Result<(), String> {
        self.grants.check()
    }

    fn taken(&self) -> Vec<PageRange> {
        self.grants
            .sorted()
            .into_iter()
            .map(|(range, _)| range)
            .collect()
    }
}

impl Trim for Unbounded {
    fn trim(&mut self, extent: Extent, keep: PageCount) -> Extent {
        self.grants.shorten(extent, keep).0
    }
}
