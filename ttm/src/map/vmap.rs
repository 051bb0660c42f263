//! Mappings for as long as an object is reserved.

use core::fmt;
use core::ops::Range;

use placement::PAGE_SIZE;

use crate::bo::Reserved;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::pages::Mapped;
use crate::residency::Look;

/// Pages of a reserved object as the CPU finds them where they are: what to use while the lock is
/// held, when [windows](super::Window) must not be touched.
///
/// It is one mapping for each piece that adjoins in memory. While it lives the object is pinned:
/// [`Reserved::validate`] elsewhere is refused. Dropping it unmaps and unpins.
pub struct VMap<'r, 't, D: Driver> {
    /// Unmapped before it is unpinned.
    pieces: Vec<Piece<'t>>,
    reserved: &'r Reserved<'t, D>,
    bytes: u64,
}

struct Piece<'t> {
    /// Bytes before it.
    offset: u64,
    look: Look<'t>,
}

impl<'t, D: Driver> Reserved<'t, D> {
    /// Maps pages for the CPU where they are; what it cannot reach comes to where it can. Swaps in,
    /// populates, and waits for moves; for others' jobs only [`Reserved::wait_idle`] does.
    ///
    /// ```
    /// use ttm::{Result, bo::Reserved, driver::Driver};
    ///
    /// fn tell<D: Driver>(ring: &Reserved<'_, D>, tail: u64) -> Result<()> {
    ///     ring.vmap(0..1)?.write(8, &tail.to_le_bytes())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for pages that the object has not, [`Error::Purged`],
    /// [`Error::ContentLost`], [`Error::Pinned`] where the CPU cannot reach, and those of validate.
    pub fn vmap(&self, pages: Range<u64>) -> Result<VMap<'_, 't, D>> {
        if pages.start >= pages.end || pages.end > self.bo.pages.get() {
            return Err(Error::Invalid("a mapping is of pages that the object has"));
        }
        let bytes = (pages.end - pages.start) * PAGE_SIZE;
        let held = self.held();
        let looks = self.with_ask(|ask| self.bo.look_at(&held, pages, ask))?;
        let mut offset = 0;
        let pieces = looks.into_iter().map(|look| {
            let piece = Piece { offset, look };
            offset += piece.look.len() as u64;
            piece
        });
        let pieces = pieces.collect();
        debug_assert_eq!(offset, bytes);
        self.pin();
        Ok(VMap {
            pieces,
            reserved: self,
            bytes,
        })
    }
}

impl<D: Driver> VMap<'_, '_, D> {
    /// How many bytes, whole pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pieces in order, each with the bytes before it.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &Mapped)> {
        self.pieces.iter().map(|piece| (piece.offset, &*piece.look))
    }

    /// Reads bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of it.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.each(offset, out.len(), |mapped, from, at, len| {
            mapped.read(from, &mut out[at..at + len]);
        })
    }

    /// Writes bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of it.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.each(offset, bytes.len(), |mapped, to, at, len| {
            mapped.write(to, &bytes[at..at + len]);
        })
    }

    /// Calls `f` with each piece, the byte in it, the byte of the buffer, and how many.
    fn each(
        &self,
        offset: u64,
        len: usize,
        mut f: impl FnMut(&Mapped, usize, usize, usize),
    ) -> Result<()> {
        let end = offset
            .checked_add(len as u64)
            .filter(|end| *end <= self.bytes)
            .ok_or(Error::Invalid("bytes that are not inside the mapping"))?;
        for (first, mapped) in self.pieces() {
            let begin = first.max(offset);
            let until = (first + mapped.len() as u64).min(end);
            if begin < until {
                f(
                    mapped,
                    (begin - first) as usize,
                    (begin - offset) as usize,
                    (until - begin) as usize,
                );
            }
        }
        Ok(())
    }
}

impl<D: Driver> Drop for VMap<'_, '_, D> {
    fn drop(&mut self) {
        self.pieces.clear();
        // Somebody may have undone the pin by hand; then there is nothing to do.
        let _ = self.reserved.unpin();
    }
}

impl<D: Driver> fmt::Debug for VMap<'_, '_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VMap({} bytes of {:?})", self.bytes, self.reserved)
    }
}
