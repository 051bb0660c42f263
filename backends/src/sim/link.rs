//! What lies between devices and memory, and does to accesses what platforms do.
//!
//! ```text
//!   CPU ──▶ view ◀── frames that were allocated for devices ◀── device
//!             ╎                                                   │
//!             ╎ copied once        encrypted, per page            │ all others
//!             ▼                                                   ▼
//!           shadow ◀──────────────────────────────────────────────┘
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use placement::{PAGE_SIZE, PageRange};
use ttm::pages::Mapped;
use ttm::sync::{Arc, Mutex};

use crate::host::{discard, memfd};

use super::words::Words;

/// What happens to a device's accesses on their way to frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Link {
    /// Nothing.
    #[default]
    Plain,
    /// Frames that were not allocated for devices are copied when a device first sees them, and
    /// never copied back: what forced bouncing is to who never syncs.
    Copied,
    /// The device has so many address lines. Of a higher address it uses the lower bits, and tells
    /// nobody.
    Narrow(u32),
    /// Frames that were not allocated for devices are encrypted, each with another key, which the
    /// device has not.
    Encrypted,
}

/// Where a device finds frames.
pub(super) enum Found {
    /// Where the CPU does, or, out of reach, where the CPU finds others.
    View(PageRange),
    /// In the shadow.
    Shadow,
}

pub(super) struct LinkState {
    link: Link,
    shadow: Arc<File>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    for_devices: BTreeSet<u64>,
    copied: BTreeSet<u64>,
}

impl Inner {
    /// Whether all of these were allocated for devices.
    fn are_for_devices(&self, pages: PageRange) -> bool {
        let mut pages = pages.start()..pages.end();
        pages.all(|page| self.for_devices.contains(&page))
    }
}

impl LinkState {
    pub(super) fn new(link: Link, bytes: u64) -> io::Result<Self> {
        let shadow = memfd("sim shadow")?;
        rustix::fs::ftruncate(&shadow, bytes)?;
        Ok(Self {
            link,
            shadow: Arc::new(shadow),
            inner: Mutex::new(Inner::default()),
        })
    }

    pub(super) fn shadow(&self) -> &Arc<File> {
        &self.shadow
    }

    /// Frames were allocated for devices.
    pub(super) fn allocated(&self, pages: PageRange) {
        let pages = pages.start()..pages.end();
        self.inner.lock().for_devices.extend(pages);
    }

    /// Nobody has the frames any more. False if the host lets nobody discard what the device saw.
    pub(super) fn forget(&self, pages: PageRange) -> bool {
        let mut inner = self.inner.lock();
        let Inner {
            for_devices,
            copied,
        } = &mut *inner;
        for page in pages.start()..pages.end() {
            for_devices.remove(&page);
            copied.remove(&page);
        }
        matches!(self.link, Link::Plain | Link::Narrow(_)) || discard(&self.shadow, pages)
    }

    /// A device looks at frames: `map` maps them in the view and in the shadow.
    pub(super) fn begins<E>(
        &self,
        pages: PageRange,
        map: impl Fn() -> Result<(Mapped, Mapped), E>,
    ) -> Result<Found, E> {
        let mut inner = self.inner.lock();
        let is_ours = inner.are_for_devices(pages);
        match self.link {
            Link::Narrow(bits) => Ok(Found::View(aliased(pages, bits))),
            Link::Copied if !is_ours => {
                let (view, shadow) = map()?;
                for page in pages.start()..pages.end() {
                    if inner.copied.insert(page) {
                        let at = ((page - pages.start()) * PAGE_SIZE) as usize;
                        view.copy_to(at, &shadow, at, PAGE_SIZE as usize);
                    }
                }
                Ok(Found::Shadow)
            }
            Link::Encrypted if !is_ours => {
                let (view, shadow) = map()?;
                cross(pages, &view, &shadow);
                Ok(Found::Shadow)
            }
            _ => Ok(Found::View(pages)),
        }
    }

    /// It is done with them.
    pub(super) fn ends<E>(&self, pages: PageRange, map: impl Fn() -> Result<(Mapped, Mapped), E>) {
        if self.link == Link::Encrypted
            && !self.inner.lock().are_for_devices(pages)
            && let Ok((view, shadow)) = map()
        {
            cross(pages, &shadow, &view);
        }
    }
}

/// Where addresses of more than `bits` bits end up.
fn aliased(pages: PageRange, bits: u32) -> PageRange {
    let reach = 1_u64 << bits.saturating_sub(PAGE_SIZE.ilog2());
    if pages.end() <= reach {
        return pages;
    }
    let len = pages.len().get();
    let first = (pages.start() % reach).min(reach.saturating_sub(len));
    PageRange::new(first, first + len).expect("inside what is reached")
}

/// Encrypts or decrypts: page by page, with a key that depends on the page.
fn cross(pages: PageRange, from: &Mapped, to: &Mapped) {
    let (from, to) = (Words::new(from), Words::new(to));
    let in_page = (PAGE_SIZE / 8) as usize;
    for n in 0..from.len() {
        let page = pages.start() + (n / in_page) as u64;
        let key = (page ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        to.write(n, from.read(n) ^ key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_reach_is_somewhere_else() {
        let pages = |first, end| PageRange::new(first, end).unwrap();
        assert_eq!(aliased(pages(256, 260), 28), pages(256, 260));
        assert_eq!(aliased(pages(65_536, 65_540), 28), pages(0, 4));
        assert_eq!(aliased(pages(1 << 20, (1 << 20) + 2), 32), pages(0, 2));
        // What would go round the end stops there.
        assert_eq!(aliased(pages(65_534, 65_538), 28), pages(65_532, 65_536));
    }
}
