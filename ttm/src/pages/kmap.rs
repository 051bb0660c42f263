//! Short mappings of frames, opened when somebody asks and kept a while after.
//!
//! ```text
//!        map: a kept window of the same frames, or a new one        drop
//!   ─────────────────────────────────────────────────────▶ live ────────▶ kept (bounded)
//!                                                                          │ forget, trim, or
//!                                                                          ▼ the oldest, if full
//!                                                                       unmapped
//! ```
//!
//! Windows nest, and two of the same frames are fine: the [`Ledger`] sees to it that they have one
//! mode. Only a live window is a view; a kept one is closed in the ledger and goes as soon as its
//! frames change mode or are given back to the system.

use core::fmt;
use core::ops::Deref;

use placement::{CacheMode, PAGE_SIZE};

use crate::cache::{Ledger, Maintenance, ViewId};
use crate::error::Result;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

use super::{FrameSpan, Mapped, PageSource};

/// Bytes that windows keep mapped without a user: 8 MiB.
const KEPT_BYTES: u64 = 8 << 20;

/// Windows that are kept at most.
const KEPT: usize = 64;

/// The windows of a pool.
pub(crate) struct Kmaps {
    source: Arc<dyn PageSource>,
    ledger: Arc<Ledger>,
    snooped: bool,
    live: AtomicU64,
    live_bytes: AtomicU64,
    kept_bytes: AtomicU64,
    kept: Mutex<Kept>,
}

/// # Invariants
/// The oldest window is the first; `bytes` is the sum of their sizes.
struct Kept {
    windows: Vec<Window>,
    bytes: u64,
}

struct Window {
    span: FrameSpan,
    mode: CacheMode,
    mapped: Mapped,
}

impl Kmaps {
    pub(super) fn new(source: Arc<dyn PageSource>, ledger: Arc<Ledger>) -> Arc<Self> {
        let mut windows = Vec::new();
        windows.reserve_exact(KEPT);
        Arc::new(Self {
            snooped: source.offers().snooped,
            source,
            ledger,
            live: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(KEPT_BYTES),
            kept: Mutex::new(Kept { windows, bytes: 0 }),
        })
    }

    /// Opens a window over `span`.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) while the frames are viewed in another mode, and those
    /// of [`PageSource::map`].
    pub(crate) fn map(self: &Arc<Self>, span: FrameSpan) -> Result<Kmap> {
        let (view, mode) = self.ledger.open(span.area(), CacheMode::Cached)?;
        let mapped = match self.take_kept(span, mode) {
            Some(mapped) => mapped,
            None => match self.source.map(span, mode) {
                Ok(mapped) => mapped,
                Err(error) => {
                    self.ledger.close(view);
                    return Err(error);
                }
            },
        };
        self.before_looks(span, mode);
        // Relaxed: counts for people and tests.
        self.live.fetch_add(1, Ordering::Relaxed);
        self.live_bytes
            .fetch_add(span.pages.bytes(), Ordering::Relaxed);
        Ok(Kmap {
            mapped: Some(mapped),
            view,
            span,
            mode,
            home: Arc::clone(self),
        })
    }

    /// The CPU is about to look at frames: what a device wrote before shows.
    pub(super) fn before_looks(&self, span: FrameSpan, mode: CacheMode) {
        if !self.snooped && mode == CacheMode::Cached {
            // Nobody leaves dirty lines behind (see below).
            self.source.maintain(span, Maintenance::Flush);
            self.ledger.flushed(span.pages);
        }
    }

    /// The CPU looked at frames: what it wrote shows to devices.
    pub(super) fn after_looks(&self, span: FrameSpan, mode: CacheMode) {
        if let Some(what) = Maintenance::of_writes(mode, self.snooped)
            && !planted_skip()
        {
            self.source.maintain(span, what);
            self.ledger.flushed(span.pages);
        }
    }

    /// Whether a window over exactly `span` is kept: mapping it again costs nothing.
    pub(super) fn has_kept(&self, span: FrameSpan) -> bool {
        self.kept.lock().windows.iter().any(|w| w.span == span)
    }

    fn take_kept(&self, span: FrameSpan, mode: CacheMode) -> Option<Mapped> {
        let mut kept = self.kept.lock();
        let wanted = |w: &Window| w.span == span && w.mode == mode;
        // The youngest first: what was used last is likely used next.
        let at = kept.windows.iter().rposition(wanted)?;
        kept.bytes -= span.pages.bytes();
        Some(kept.windows.remove(at).mapped)
    }

    fn keep(&self, window: Window) {
        let most = self.kept_bytes.load(Ordering::Relaxed);
        let bytes = window.span.pages.bytes();
        if bytes > most {
            return;
        }
        loop {
            let mut kept = self.kept.lock();
            if kept.windows.len() < KEPT && kept.bytes + bytes <= most {
                kept.bytes += bytes;
                kept.windows.push(window);
                return;
            }
            let oldest = kept.windows.remove(0);
            kept.bytes -= oldest.span.pages.bytes();
            drop(kept);
            // Unmaps, without the lock.
            drop(oldest);
        }
    }

    /// Unmaps kept windows that show frames of `span`.
    pub(super) fn forget(&self, span: FrameSpan) {
        loop {
            let mut kept = self.kept.lock();
            let Some(at) = kept.windows.iter().position(|w| w.span.overlaps(&span)) else {
                return;
            };
            let window = kept.windows.remove(at);
            kept.bytes -= window.span.pages.bytes();
            drop(kept);
            drop(window);
        }
    }

    /// Unmaps all kept windows.
    pub(super) fn trim(&self) {
        while let Some(window) = {
            let mut kept = self.kept.lock();
            let window = kept.windows.pop();
            if let Some(window) = &window {
                kept.bytes -= window.span.pages.bytes();
            }
            window
        } {
            drop(window);
        }
    }

    pub(super) fn set_kept_bytes(&self, bytes: u64) {
        self.kept_bytes.store(bytes, Ordering::Relaxed);
        self.trim();
    }

    pub(super) fn usage(&self) -> KmapUsage {
        let kept = self.kept.lock();
        KmapUsage {
            live: self.live.load(Ordering::Relaxed),
            live_bytes: self.live_bytes.load(Ordering::Relaxed),
            kept: kept.windows.len() as u64,
            kept_bytes: kept.bytes,
        }
    }
}

/// What of the frames is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KmapUsage {
    /// Windows in somebody's hands.
    pub live: u64,
    /// Bytes of them.
    pub live_bytes: u64,
    /// Windows that are kept for the next who asks.
    pub kept: u64,
    /// Bytes of them.
    pub kept_bytes: u64,
}

/// A window over frames: a [`Mapped`] of them until it drops.
///
/// What was written through a window shows to devices when it is dropped, and a window shows what
/// devices wrote before it was opened, whether they snoop or not.
pub struct Kmap {
    mapped: Option<Mapped>,
    view: ViewId,
    span: FrameSpan,
    mode: CacheMode,
    home: Arc<Kmaps>,
}

impl Kmap {
    /// Which frames.
    #[must_use]
    pub fn span(&self) -> FrameSpan {
        self.span
    }

    /// In which mode they are mapped.
    #[must_use]
    pub fn mode(&self) -> CacheMode {
        self.mode
    }
}

impl Deref for Kmap {
    type Target = Mapped;

    fn deref(&self) -> &Mapped {
        let mapped = self.mapped.as_ref().expect("present until the drop");
        debug_assert_eq!(mapped.len() as u64, self.span.pages.get() * PAGE_SIZE);
        mapped
    }
}

impl Drop for Kmap {
    fn drop(&mut self) {
        let home = &self.home;
        home.after_looks(self.span, self.mode);
        home.live.fetch_sub(1, Ordering::Relaxed);
        home.live_bytes
            .fetch_sub(self.span.pages.bytes(), Ordering::Relaxed);
        if let Some(mapped) = self.mapped.take() {
            home.keep(Window {
                span: self.span,
                mode: self.mode,
                mapped,
            });
        }
        // Last: until then nobody changes the mode, and from then on who does finds the window.
        home.ledger.close(self.view);
    }
}

/// With the defect planted, a window's end cleans nothing.
fn planted_skip() -> bool {
    #[cfg(feature = "plant")]
    if crate::plant::is(crate::plant::Defect::SkippedFlush) {
        return true;
    }
    false
}

impl fmt::Debug for Kmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kmap({:?}, {})", self.span, self.mode)
    }
}
