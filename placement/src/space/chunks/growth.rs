//! How large a new chunk is, and whether there may be one.

use crate::PageCount;

/// How large the chunks of [`Chunks`](crate::Chunks) are.
///
/// A new chunk holds the request that opens it, and is about a quarter of what is open already,
/// within `least` and `most`: few chunks in the end, and little in vain at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSizes {
    /// The size of the first chunks; later ones are this long times a power of two.
    pub least: PageCount,
    /// The size that no chunk exceeds but one that is opened for a larger request.
    pub most: PageCount,
    /// What sizes are rounded up to, where the limit allows it.
    pub granule: PageCount,
}

impl ChunkSizes {
    /// The size wished for while `open` pages are open.
    fn next(&self, open: u64) -> u64 {
        let (least, most) = (self.least.get(), self.most.get());
        let doublings = (open / 4).checked_div(least).and_then(u64::checked_ilog2);
        // At most a quarter of what is open, so the shift drops no bits.
        (least << doublings.unwrap_or(0)).min(most)
    }
}

/// Whether chunks may be opened, and their sizes.
///
/// A memory that has refused a chunk has less than that left, and what it was given back since: from
/// then on a new chunk is as small as its request, and chunks may have half of what was refused, and
/// the pages of those that were closed. So a caller that asks, is refused and asks again comes to an
/// end, as each refusal uses up pages that are gone then.
#[derive(Debug)]
pub(super) struct Growth {
    sizes: ChunkSizes,
    // How many pages may be opened since a chunk was refused; `None` while none is.
    allowance: Option<u64>,
}

impl Growth {
    pub(super) fn new(sizes: ChunkSizes) -> Self {
        assert!(!sizes.granule.is_zero(), "chunks have a granule of no page");
        assert!(
            sizes.least <= sizes.most,
            "the least chunk is above the most"
        );
        Self {
            sizes,
            allowance: None,
        }
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.allowance.is_some()
    }

    /// Forgets that a chunk was refused.
    pub(super) fn allow(&mut self) {
        self.allowance = None;
    }

    /// Notes that a chunk of `pages` pages was refused.
    pub(super) fn stop(&mut self, pages: u64) {
        self.allowance = Some(pages / 2);
    }

    /// How much of `room` pages may be opened, once `closing` pages more are closed.
    pub(super) fn cap(&self, room: u64, closing: u64) -> u64 {
        self.allowance
            .map_or(room, |allowance| room.min(allowance + closing))
    }

    /// Notes that chunks of `pages` pages were closed, whose memory is there again.
    pub(super) fn closed(&mut self, pages: u64) {
        self.allowance = self.allowance.map(|allowance| allowance + pages);
    }

    /// Notes that a chunk of `pages` pages was opened.
    pub(super) fn opened(&mut self, pages: u64) {
        self.allowance = self.allowance.map(|allowance| allowance - pages);
    }

    /// The size of a chunk for a request of `pages` pages while `open` are open and `room` more may
    /// be, at least `pages`.
    pub(super) fn size(&self, pages: u64, open: u64, room: u64) -> u64 {
        let granule = self.sizes.granule.get();
        let wish = match self.allowance {
            None => pages.max(self.sizes.next(open)),
            Some(_) => pages,
        };
        let size = wish.div_ceil(granule) * granule;
        let whole = room - room % granule;
        match (size <= room, whole >= pages) {
            (true, _) => size,
            (false, true) => whole,
            (false, false) => room,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(least: u64, most: u64, granule: u64) -> Growth {
        let [least, most, granule] = [least, most, granule].map(PageCount::within_max);
        Growth::new(ChunkSizes {
            least,
            most,
            granule,
        })
    }

    #[test]
    fn sizes_double_with_what_is_open() {
        let growth = growth(16, 100, 4);
        let cases = [
            (0, 16),
            (63, 16),
            (64, 16),
            (127, 16),
            (128, 32),
            (255, 32),
            (256, 64),
            (511, 64),
            (512, 100),
            (1 << 51, 100),
        ];
        for (open, size) in cases {
            assert_eq!(growth.size(1, open, 1 << 40), size, "{open} open");
        }
        assert_eq!(growth.size(101, 0, 1 << 40), 104);
    }

    #[test]
    fn a_size_holds_the_request_and_stays_in_the_room() {
        let mut growth = growth(16, 64, 8);
        for stopped in [false, true] {
            for (pages, room) in (1..80).flat_map(|pages| (pages..100).map(move |r| (pages, r))) {
                let size = growth.size(pages, 0, room);
                assert!(pages <= size && size <= room, "{pages} in {room}: {size}");
                // Only where no multiple of the granule is in between.
                assert!(size.is_multiple_of(8) || room - room % 8 < pages);
                assert!(!stopped || size < pages + 8);
            }
            growth.stop(0);
        }
    }

    #[test]
    fn no_size_wraps() {
        let max = PageCount::MAX.get();
        for (least, granule) in [(0, 1), (1, max), (max, 3), (max, max)] {
            let growth = growth(least, max, granule);
            for open in [0, 1, max] {
                assert_eq!(growth.size(max, open, max), max);
                assert!(growth.size(1, open, max) <= max);
            }
        }
    }
}
