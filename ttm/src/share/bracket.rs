//! Brackets around what the CPU does with an object that devices use.

use core::fmt;

use placement::CacheMode;

use crate::context::OpContext;
use crate::dma::Direction;
use crate::driver::Driver;
use crate::error::Result;
use crate::fence::Usage;
use crate::pages::FrameSpan;

use super::Shared;
use super::attach::open;

/// The CPU may use the object until this ends, by [`CpuAccess::end`] or by drop. The object stays
/// where it is meanwhile.
#[must_use = "dropping it ends the access"]
pub struct CpuAccess<D: Driver> {
    shared: Shared<D>,
    direction: Direction,
    /// The frames, which stay the object's, and their mode.
    frames: Vec<FrameSpan>,
    mode: CacheMode,
}

impl<D: Driver> Shared<D> {
    /// Begins to use the object by the CPU: to read what devices wrote
    /// ([`Direction::FromDevice`]), to write what they read ([`Direction::ToDevice`]), or both. Waits
    /// for those who write before it reads, and for all who use the object before it writes; what
    /// devices wrote then shows to the CPU. Nests.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted),
    /// [`Error::TimedOut`](crate::Error::TimedOut) and [`Error::Busy`](crate::Error::Busy), as the
    /// context has it; [`Error::Purged`](crate::Error::Purged),
    /// [`Error::ContentLost`](crate::Error::ContentLost), and those of populating.
    pub fn begin_cpu(&self, context: OpContext, direction: Direction) -> Result<CpuAccess<D>> {
        let usage = match direction.device_reads() {
            true => Usage::Read,
            false => Usage::Write,
        };
        let mut begun = None;
        let locked = self.exec(context, |reserved| {
            begun = Some(open(reserved, |open| {
                let (bo, state) = (open.bo, open.state);
                bo.ready_to_lend(open.held, state, true, open.ask)?;
                bo.wait_idle(open.held, usage, open.ask)?;
                bo.populate_to_lend(state, open.ask)?;
                if direction.device_reads() {
                    bo.may_be_written(state);
                }
                let mode = state.mode;
                let frames = match state.has_frames() {
                    true => state
                        .tt
                        .iter()
                        .flat_map(|tt| tt.frames())
                        .map(|f| f.1)
                        .collect(),
                    false => Vec::new(),
                };
                for span in &frames {
                    bo.device.pool.before_looks(*span, mode);
                }
                self.lender().with(|inner| inner.brackets += 1);
                state.pin();
                // From here on the drop puts everything right.
                Ok(CpuAccess {
                    shared: self.clone(),
                    direction,
                    frames,
                    mode,
                })
            })?);
            Ok(())
        })?;
        drop(locked);
        Ok(begun.expect("the closure ended well"))
    }
}

impl<D: Driver> CpuAccess<D> {
    /// What the CPU does.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Ends the access: what the CPU wrote shows to devices, and the object may move again when this
    /// returns. Dropping it does the same, and lets the object move again a little later.
    ///
    /// # Errors
    /// Those of waiting for the reservation. The access has ended all the same.
    pub fn end(self, context: OpContext) -> Result<()> {
        let shared = self.shared.clone();
        drop(self);
        let locked = shared.exec(context, |reserved| {
            open(reserved, |open| {
                open.bo.take_back(open.held, open.state);
                Ok(())
            })
        })?;
        drop(locked);
        Ok(())
    }
}

impl<D: Driver> Drop for CpuAccess<D> {
    fn drop(&mut self) {
        let bo = self.shared.bo_core();
        if self.direction.device_reads() {
            for span in &self.frames {
                bo.device.pool.hide(*span, self.mode);
            }
        }
        self.shared.lender().with(|inner| inner.brackets -= 1);
        bo.owe(1);
    }
}

impl<D: Driver> fmt::Debug for CpuAccess<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuAccess({}, {:?})", self.direction, self.shared)
    }
}
