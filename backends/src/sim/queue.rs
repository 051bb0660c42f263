//! Queues: kernels that read and write an object through the device's own view.

use core::fmt;

use placement::PageCount;
use ttm::driver::Side;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, FenceError};
use ttm::pages::Mapped;
use ttm::sync::{Arc, OnceLock};

use super::engine::{Access, pages_of, views};
use super::gpu::{Core, Inner};
use super::inject::At;
use super::io_space::IoSpace;
use super::lane::Lane;
use super::words::{Words, fold_word};

/// Runs kernels in the order of submission, each over all words of a [`Side`] in the object's
/// order. Words have eight bytes and are numbered from the beginning of the side.
///
/// A kernel reaches all of the device's memory, also what the CPU does not see, and any frames. It
/// takes the queue's latency plus the side's bytes over the queue's bandwidth, once, whether it
/// reads, writes or both. Without contents it only takes its time.
#[derive(Clone)]
pub struct Queue {
    // Before `gpu`: the last handle of the device joins the lane's thread, which ends once
    // nobody holds the lane.
    lane: Arc<Lane>,
    gpu: Arc<Inner>,
    /// What its kernels' accesses are translated by, if not by the device's own.
    io: Option<Arc<IoSpace>>,
}

/// What a checksum kernel found, once its fence has signalled without an error.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    sum: Arc<OnceLock<u64>>,
}

impl Checksum {
    /// The sum; `None` before the fence, after a failure, and on a device without contents.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        self.sum.get().copied()
    }
}

impl Queue {
    pub(super) fn new(gpu: Arc<Inner>, lane: Arc<Lane>) -> Self {
        let io = None;
        Self { gpu, lane, io }
    }

    /// The same queue for kernels of another context: their addresses are those of `io`.
    #[must_use]
    pub fn through(&self, io: &Arc<IoSpace>) -> Self {
        Self {
            io: Some(Arc::clone(io)),
            ..self.clone()
        }
    }

    /// The number of the timeline that its fences are on.
    #[must_use]
    pub fn timeline_id(&self) -> u64 {
        self.lane.timeline_id()
    }

    /// Writes `value` to every word of `target`, after all of `after`.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Invalid`] if `target` is nothing that can be written or is
    /// outside the device; [`Error::Backend`] when made to fail. Nothing was queued.
    pub fn fill(
        &self,
        target: &Side,
        value: u64,
        after: impl IntoIterator<Item = Fence>,
    ) -> Result<Fence> {
        self.fill_with(target, move |_| value, after)
    }

    /// Writes `pattern(n)` to word `n` of `target`, for every word, after all of `after`.
    ///
    /// # Errors
    /// Those of [`Queue::fill`].
    pub fn fill_with(
        &self,
        target: &Side,
        pattern: impl Fn(u64) -> u64 + Send + 'static,
        after: impl IntoIterator<Item = Fence>,
    ) -> Result<Fence> {
        writable(target)?;
        self.submit(target, Access::WRITE, after, move |words, first| {
            for n in 0..words.len() {
                words.write(n, pattern(first + n as u64));
            }
        })
    }

    /// Adds `addend`, wrapping, to every word of `target`, after all of `after`.
    ///
    /// # Errors
    /// Those of [`Queue::fill`].
    pub fn add(
        &self,
        target: &Side,
        addend: u64,
        after: impl IntoIterator<Item = Fence>,
    ) -> Result<Fence> {
        writable(target)?;
        self.submit(target, Access::BOTH, after, move |words, _| {
            for n in 0..words.len() {
                words.write(n, words.read(n).wrapping_add(addend));
            }
        })
    }

    /// Sums all words of `src` as [`checksum_words`](super::checksum_words) does, after all of
    /// `after`.
    ///
    /// # Errors
    /// Those of [`Queue::fill`].
    pub fn checksum(
        &self,
        src: &Side,
        after: impl IntoIterator<Item = Fence>,
    ) -> Result<(Fence, Checksum)> {
        let result = Checksum::default();
        let found = result.clone();
        let after = after.into_iter().collect();
        let src = src.clone();
        let fence = self.queue(src, Access::READ, after, move |views| {
            let mut sum = 0;
            for view in views {
                let words = Words::new(view);
                sum = (0..words.len()).fold(sum, |sum, n| fold_word(sum, words.read(n)));
            }
            let _ = found.sum.set(sum);
        })?;
        Ok((fence, result))
    }

    /// Queues a kernel that looks at one piece of the side after the other; it is told the number
    /// of the piece's first word.
    fn submit(
        &self,
        target: &Side,
        access: Access,
        after: impl IntoIterator<Item = Fence>,
        kernel: impl Fn(&Words<'_>, u64) + Send + 'static,
    ) -> Result<Fence> {
        let after = after.into_iter().collect();
        self.queue(target.clone(), access, after, move |views| {
            let mut first = 0;
            for view in views {
                let words = Words::new(view);
                kernel(&words, first);
                first += words.len() as u64;
            }
        })
    }

    fn queue(
        &self,
        side: Side,
        access: Access,
        after: Vec<Fence>,
        kernel: impl FnOnce(&[Mapped]) + Send + 'static,
    ) -> Result<Fence> {
        let core = &self.gpu.core;
        let pages = pages_of(core, &side)?.and_then(PageCount::new);
        let pages = pages.ok_or(Error::Invalid("a kernel works on frames or device memory"))?;
        if core.inject().fails(At::KERNEL_SUBMIT) {
            return Err(Error::Backend(
                "a kernel was made to fail (kernel.submit)".into(),
            ));
        }
        let io = self.io.clone();
        let run = move |core: &Core| {
            if !core.config().contents {
                return Ok(());
            }
            let io = io.as_ref().or(core.io());
            let views = views(core, &side, pages, io, access).map_err(|_| FenceError::Failed)?;
            if let Some(views) = views {
                kernel(&views);
            }
            Ok(())
        };
        self.lane
            .submit(pages.bytes(), after, Vec::new(), Box::new(run))
    }
}

fn writable(target: &Side) -> Result<()> {
    match target {
        Side::Zero => Err(Error::Invalid("zeroes are only a source")),
        _ => Ok(()),
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({:?})", self.lane)
    }
}
