//! A run of addresses that is filled piece by piece.

use std::collections::BTreeMap;

use super::{IovaRange, IovaRequest, IovaSpace, IovaSpan};
use crate::clock::Time;
use crate::dma::{DmaAddr, DmaError};

/// Addresses for memory that is linked to them in pieces, made visible at once, and taken away at
/// once.
///
/// It keeps what is linked where and refuses what does not fit; the device's tables are written by
/// the caller, as [`IovaLink`] says. The memory may begin and end within a granule, its pieces meet
/// at granules: only the first piece may start unaligned, only the last may end so.
///
/// ```text
///   granules   |       |       |       |       |
///   bytes          [ 0 · · · · · · · · · len )
///   links          [first )[   any    )[ last)
/// ```
///
/// It goes back by [`IovaState::destroy`], for the reasons of [`IovaRange`].
///
/// ```
/// use ttm::clock::Time;
/// use ttm::dma::{DmaError, IovaConfig, IovaRequest, IovaSpace, IovaState, Mask};
///
/// # fn main() -> Result<(), DmaError> {
/// let space = IovaSpace::new(IovaConfig::default(), |_| {})?;
/// let mut state = IovaState::try_alloc(&space, &IovaRequest::new(8192), 0x7200)?;
/// let first = state.link(0, 0x7200, 0x0e00)?;
/// assert_eq!((first.physical, first.span.len()), (0x7000, 4096));
/// assert!(state.link(0x0e00, 0x9100, 0x100).is_err());
/// state.link(0x0e00, 0x9000, 0x1200)?;
/// let visible = state.sync().expect("two links");
/// assert_eq!(visible.len(), 12288);
/// state.destroy(&space, Time::ZERO, |_gone| { /* clear the tables */ });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "addresses that are dropped are lost; destroy them"]
pub struct IovaState {
    range: IovaRange,
    granule: u64,
    /// Where in the first granule the memory begins.
    head: u64,
    len: u64,
    /// How many bytes are linked, by offset.
    links: BTreeMap<u64, u64>,
    /// The bounds of what was linked since the last sync.
    unsynced: Option<(u64, u64)>,
}

/// What the device's tables are to show: whole granules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IovaLink {
    /// At which addresses.
    pub span: IovaSpan,
    /// The first byte of memory.
    pub physical: u64,
}

impl IovaState {
    /// Takes addresses for memory whose first byte is at `physical`. Only that byte's place in its
    /// granule matters.
    ///
    /// # Errors
    /// Those of [`IovaSpace::alloc`], and [`DmaError::AddressOverflow`].
    pub fn try_alloc(
        space: &IovaSpace,
        request: &IovaRequest,
        physical: u64,
    ) -> Result<Self, DmaError> {
        let len = match request.len {
            0 => return Err(DmaError::ZeroLength),
            len => len,
        };
        let granule = space.granule();
        let head = physical & (granule - 1);
        let whole = head.checked_add(len).ok_or(DmaError::AddressOverflow)?;
        let range = space.alloc(&IovaRequest {
            len: whole,
            ..*request
        })?;
        Ok(Self {
            range,
            granule,
            head,
            len,
            links: BTreeMap::new(),
            unsynced: None,
        })
    }

    /// Where the device finds byte 0.
    ///
    /// # Panics
    /// Never: the range has a byte there.
    #[must_use]
    pub fn address(&self) -> DmaAddr {
        let first = self.range.first().get() + self.head;
        DmaAddr::new(first).expect("no range ends at the last address")
    }

    /// How many bytes the addresses are for.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.len
    }

    /// Whether something was linked that was not synced.
    #[must_use]
    pub const fn needs_sync(&self) -> bool {
        self.unsynced.is_some()
    }

    /// Notes that `len` bytes from `offset` on are at `physical`, and says what the tables are to
    /// show for it.
    ///
    /// # Errors
    /// Nothing has changed:
    /// - [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`], [`DmaError::RangeOutOfMapping`];
    /// - [`DmaError::MisalignedAddress`]: a piece other than the first starts within a granule, one other
    ///   than the last ends within one, or the memory begins elsewhere in its granule;
    /// - [`DmaError::IovaInUse`]: some of it is linked.
    pub fn link(&mut self, offset: u64, physical: u64, len: u64) -> Result<IovaLink, DmaError> {
        let end = self.checked(offset, len)?;
        let align = self.granule;
        let at = self.head + offset;
        let starts = offset == 0 || at.is_multiple_of(align);
        let in_step = at & (align - 1) == physical & (align - 1);
        if !starts || !in_step {
            let address = if starts { physical } else { at };
            return Err(DmaError::MisalignedAddress { address, align });
        }
        if end != self.len && !(self.head + end).is_multiple_of(align) {
            let address = self.head + end;
            return Err(DmaError::MisalignedAddress { address, align });
        }
        physical
            .checked_add(len - 1)
            .ok_or(DmaError::AddressOverflow)?;
        if self.linked_from(offset, end).is_some() {
            let first = self.address().get() + offset;
            return Err(DmaError::IovaInUse { first, len });
        }
        self.links.insert(offset, len);
        let (from, to) = self.unsynced.unwrap_or((offset, end));
        self.unsynced = Some((from.min(offset), to.max(end)));
        Ok(IovaLink {
            span: self.span(offset, end),
            physical: physical & !(align - 1),
        })
    }

    /// Answers what the device has to be shown: all that was linked since the last time, and what
    /// lies between. `None` if that is nothing.
    pub fn sync(&mut self) -> Option<IovaSpan> {
        let (from, to) = self.unsynced.take()?;
        Some(self.span(from, to))
    }

    /// Forgets the links that make up `len` bytes from `offset` on, and says what the tables no
    /// longer are to show.
    ///
    /// # Errors
    /// Nothing has changed:
    /// - [`DmaError::ZeroLength`], [`DmaError::AddressOverflow`], [`DmaError::RangeOutOfMapping`];
    /// - [`DmaError::NotMapped`]: some of it is not linked;
    /// - [`DmaError::PartialUnmap`]: it begins or ends within a link.
    pub fn unlink(&mut self, offset: u64, len: u64) -> Result<IovaSpan, DmaError> {
        let end = self.checked(offset, len)?;
        let mut at = offset;
        while at < end {
            let link = self.linked_from(at, at + 1);
            let (first, link_len) = link.ok_or(DmaError::NotMapped { offset: at })?;
            if first < at || first + link_len > end {
                let link = first;
                return Err(DmaError::PartialUnmap { offset, len, link });
            }
            at = first + link_len;
        }
        self.links
            .retain(|first, _| *first < offset || *first >= end);
        Ok(self.span(offset, end))
    }

    /// Gives the addresses back. First `unmap` clears the tables of whatever is linked, once for
    /// each run of links that adjoin.
    ///
    /// # Panics
    /// As [`IovaSpace::free`].
    pub fn destroy(self, space: &IovaSpace, now: Time, mut unmap: impl FnMut(IovaSpan)) {
        let mut run: Option<(u64, u64)> = None;
        for (&first, &len) in &self.links {
            match &mut run {
                Some((_, end)) if *end == first => *end += len,
                _ => {
                    if let Some((from, to)) = run.replace((first, first + len)) {
                        unmap(self.span(from, to));
                    }
                }
            }
        }
        if let Some((from, to)) = run {
            unmap(self.span(from, to));
        }
        space.free(self.range, now);
    }

    /// The end of `len` bytes from `offset` on.
    fn checked(&self, offset: u64, len: u64) -> Result<u64, DmaError> {
        if len == 0 {
            return Err(DmaError::ZeroLength);
        }
        match offset.checked_add(len) {
            None => Err(DmaError::AddressOverflow),
            Some(end) if end <= self.len => Ok(end),
            Some(_) => Err(DmaError::RangeOutOfMapping {
                offset,
                len,
                mapped: self.len,
            }),
        }
    }

    /// The last link that has a byte of `from..to`.
    fn linked_from(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let (&first, &len) = self.links.range(..to).next_back()?;
        (first + len > from).then_some((first, len))
    }

    /// The granules of bytes `from..to`.
    fn span(&self, from: u64, to: u64) -> IovaSpan {
        let first = (self.head + from) & !(self.granule - 1);
        let end = (self.head + to).next_multiple_of(self.granule);
        IovaSpan::within(self.range.first().get() + first, end - first)
    }
}
