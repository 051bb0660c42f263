//! The object that an operation is about, lent to another address space of the card.

use backends::sim::{Gpu, IoSpace, SimDriver, checksum_words};
use ttm::bo::{Bo, Reserved};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::dma::{Direction, DmaDevice, DmaError, Mapper, Mask, Path, Verdict};
use ttm::driver::Side;
use ttm::error::{Error, Result};
use ttm::fence::{Status, Usage};
use ttm::share::{AttachInfo, Attachment, ExportInfo, Shared};
use ttm::sync::Arc;

/// An exported object, and a context that is attached to it.
pub(crate) struct Lent {
    pub(crate) shared: Shared<SimDriver>,
    pub(crate) attached: Attachment<SimDriver>,
    gpu: Gpu,
    io: Arc<IoSpace>,
    card: Arc<DmaDevice>,
}

impl Lent {
    pub(crate) fn new(
        device: &Device<SimDriver>,
        gpu: &Gpu,
        bo: &Bo<SimDriver>,
        info: AttachInfo,
    ) -> Result<Self> {
        let io = IoSpace::new(Mask::ALL, Arc::clone(gpu.inject()));
        let verdict = Verdict::for_tests(Path::Translated { strict: true });
        let card = gpu.mapper_in(verdict, Some(&io))?;
        let shared = device.export(bo, ExportInfo::new())?;
        let mapper = Arc::clone(&card) as Arc<dyn Mapper>;
        let attached = shared.attach(OpContext::new(), mapper, info)?;
        Ok(Self {
            shared,
            attached,
            gpu: gpu.clone(),
            io,
            card,
        })
    }

    /// Maps it, if it is not.
    pub(crate) fn map(&self) -> Result<()> {
        self.with(|bo| self.side(bo).map(drop))
    }

    fn side(&self, bo: &Reserved<'_, SimDriver>) -> Result<Side> {
        let list = match self.attached.list() {
            Err(DmaError::NotLent | DmaError::Revoked { .. }) => {
                self.attached.map(bo, Direction::Both)?
            }
            list => list?,
        };
        Ok(Side::Mapped(list))
    }

    /// Ends the mapping, if there is one.
    pub(crate) fn unmap(&self) -> Result<()> {
        match self.with(|bo| self.attached.unmap(bo)) {
            Err(Error::Dma { retry: false, .. }) => Ok(()),
            result => result,
        }
    }

    pub(crate) fn with(&self, f: impl FnMut(&Reserved<'_, SimDriver>) -> Result<()>) -> Result<()> {
        self.shared.exec(OpContext::new(), f).map(drop)
    }

    /// The context reads all of it, mapped if it is not, and finds the words.
    pub(crate) fn reads(&self, words: &[u8]) -> Result<()> {
        let locked = self.shared.exec(OpContext::new(), |bo| {
            bo.reserve_fences(1)?;
            Ok((self.side(bo)?, bo.fences(Usage::Write)))
        })?;
        let (side, after) = locked.value();
        let queue = self.gpu.queue(0).through(&self.io);
        let (fence, sum) = queue.checksum(side, after.clone())?;
        locked.fence_all(&fence, Usage::Read);
        drop(locked);
        match fence.wait(None)? {
            Status::Done => {}
            // Those of a lost device, or of a copy that failed.
            Status::Failed(_) if self.gpu.is_lost() => return Err(Error::DeviceLost),
            Status::Failed(error) => return Err(Error::Backend(Box::new(error))),
            Status::Pending => unreachable!("it was waited for"),
        }
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight"));
        let expected = checksum_words(words.chunks(8).map(word));
        match sum.get() == Some(expected) {
            true => Ok(()),
            false => panic!("I-12: the borrower reads other words than were written"),
        }
    }

    /// Nothing is left of it, and it never went where nothing was mapped.
    pub(crate) fn end(self, device: &Device<SimDriver>) {
        let Self {
            shared,
            attached,
            io,
            card,
            ..
        } = self;
        drop(attached);
        let idle = shared.exec(OpContext::new(), |bo| bo.wait_idle(Usage::Bookkeep));
        drop(idle.expect("nothing fails any more"));
        drop(shared);
        device.reap();
        assert_eq!(card.live(), 0, "I-50: {card:?}");
        assert_eq!(io.faults(), [], "the borrower went where nothing is mapped");
        assert!(io.shown().is_zero() && io.stale_uses() == 0, "I-50: {io:?}");
    }
}
