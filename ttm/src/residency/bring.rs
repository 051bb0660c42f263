//! Objects over memory that a user brings.

use core::fmt;

use crate::bo::{Bo, BoInfo, Content};
use crate::device::Device;
use crate::driver::{BoKind, Driver};
use crate::error::Error;
use crate::pages::{Dirty, FrameRun};
use crate::tt::Tt;

/// Frames that no object was made of, and why.
pub struct NotBrought {
    /// What its user brought, theirs again.
    pub frames: FrameRun<Dirty>,
    /// Why.
    pub error: Error,
}

impl fmt::Debug for NotBrought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotBrought({:?}, {})", self.frames.span(), self.error)
    }
}

impl fmt::Display for NotBrought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for NotBrought {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<D: Driver> Device<D> {
    /// Makes an object of frames that its user brings, with what is in them. They come from the
    /// device's own page source, which says how it takes memory in; the object has their size.
    ///
    /// It is in system memory, [imported](BoKind::Imported), and stays in these frames: it is mapped
    /// for the device in TT, and is never swapped, thrown away, given another cache mode, or moved
    /// to device memory. Its pages are not counted against the system limit. When it is gone, and
    /// nothing uses it any more, the frames go back to the page source.
    ///
    /// ```
    /// use ttm::context::OpContext;
    /// use ttm::bo::BoInfo;
    /// use ttm::fixture;
    /// use ttm::pages::{PageSource, Want};
    /// use ttm::placement::{MemType, PageCount, Place, Placement};
    ///
    /// # fn main() -> ttm::Result<()> {
    /// let source = fixture::Nothing::new(PageCount::new(64).unwrap());
    /// let device = fixture::builder_on(source.clone(), 16).build()?;
    /// let mine = source.borrow(PageCount::new(2).unwrap());
    ///
    /// let bo = device.bring(BoInfo::new(1), mine, ()).map_err(|refused| refused.error)?;
    /// assert_eq!(bo.pages().get(), 2);
    /// let tt = Placement::of(Place::new(MemType::TT));
    /// drop(device.exec(OpContext::new(), |t| t.lock(&bo)?.validate(&tt))?);
    /// let vram = Placement::of(Place::new(MemType::VRAM));
    /// assert!(device.exec(OpContext::new(), |t| t.lock(&bo)?.validate(&vram)).is_err());
    /// drop(bo);
    /// device.reap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Device::create`], and [`Error::Reentrant`] from inside a driver's answer. The
    /// frames come back with it.
    pub fn bring(
        &self,
        info: BoInfo,
        frames: FrameRun<Dirty>,
        object: D::Object,
    ) -> Result<Bo<D>, NotBrought> {
        let info = BoInfo {
            bytes: frames.pages().bytes(),
            ..info.kind(BoKind::Imported)
        };
        let bo = match self.create(info, object) {
            Ok(bo) => bo,
            Err(error) => return Err(NotBrought { frames, error }),
        };
        let mut frames = Some(frames);
        let made = bo.core.with_free(|held| {
            let mut state = bo.core.state(held);
            state.resource = Some(bo.core.system_resource(&state)?);
            let run = frames.take().expect("given once");
            state.mode = run.kind().mode;
            state.tt = Some(Box::new(Tt::brought(bo.core.id, run)));
            state.content = Content::Kept;
            state.update_home();
            Ok(())
        });
        let error = match made {
            Some(Ok(())) => return Ok(bo),
            Some(Err(error)) => error,
            None => Error::Reentrant,
        };
        let frames = frames.expect("taken last");
        Err(NotBrought { frames, error })
    }
}
