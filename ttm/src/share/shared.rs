//! Exports, and who imports them.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use crate::bo::{Bo, BoCore, BoState, Locked, Reserved, Sharing};
use crate::context::OpContext;
use crate::device::Device;
use crate::dma::{Constraints, DmaError, Explanation, Solver};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Weak};

use super::attach::open;
use super::lender::{Exporter, Lender, ShareCounts, empty};

/// How an object is exported. What the first export says counts for all of them.
///
/// ```
/// use ttm::dma::Constraints;
/// use ttm::share::ExportInfo;
///
/// let framed = Constraints { needs_cpu_pages: true, ..Constraints::ANY };
/// let info = ExportInfo::new().constraints(framed).pins(2);
/// # let _ = info;
/// ```
#[derive(Clone)]
pub struct ExportInfo {
    exporter: Arc<dyn Exporter>,
    constraints: Constraints,
    pins: u32,
}

impl Default for ExportInfo {
    fn default() -> Self {
        Self::new()
    }
}

impl ExportInfo {
    /// An object that anybody may attach to, and that can be in any memory. Attachments may pin it 16
    /// times altogether.
    #[must_use]
    pub fn new() -> Self {
        Self {
            exporter: Arc::new(()),
            constraints: Constraints::ANY,
            pins: 16,
        }
    }

    /// Who says who may attach, and where frames are.
    #[must_use]
    pub fn by(mut self, exporter: Arc<dyn Exporter>) -> Self {
        self.exporter = exporter;
        self
    }

    /// In what memory it can be.
    #[must_use]
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// How often attachments may pin it, altogether.
    #[must_use]
    pub fn pins(mut self, most: u32) -> Self {
        self.pins = most;
        self
    }
}

impl fmt::Debug for ExportInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportInfo")
            .field("constraints", &self.constraints)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

/// A call backs off so often before it gives up. With one lock to take it backs off for victims
/// only, and grows older each time.
const MOST_TRIES: u32 = 1000;

fn count(tries: &mut u32) -> Result<()> {
    *tries += 1;
    match *tries <= MOST_TRIES {
        true => Ok(()),
        false => Err(Error::Busy),
    }
}

/// What all handles of an export are of.
struct Core<D: Driver> {
    me: Weak<Self>,
    lender: Arc<Lender>,
    device: Device<D>,
    // Last: the object outlives the rest.
    bo: Bo<D>,
}

impl<D: Driver> Sharing for Core<D> {
    fn check(&self, state: &BoState) -> core::result::Result<(), String> {
        self.lender.check(&self.bo.core, state)
    }
}

impl<D: Driver> Drop for Core<D> {
    fn drop(&mut self) {
        self.device.core.exports.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exported object. Clones, and further exports of the object, are the same (I-54). Keeps the
/// object alive, as do [`Attachment`](super::Attachment)s.
pub struct Shared<D: Driver> {
    core: Arc<Core<D>>,
}

impl<D: Driver> Device<D> {
    /// Exports an object. While it is exported already this is the same export, and `info` is not
    /// looked at. Takes the reservation for a moment.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an object of another device; [`DmaError::AttachIncompatible`] if no
    /// memory is like the constraints; [`Error::Reentrant`] inside a transaction; [`Error::Busy`]
    /// after a thousand tries.
    pub fn export(&self, bo: &Bo<D>, info: ExportInfo) -> Result<Shared<D>> {
        let solver = Solver::new(info.constraints).map_err(empty)?;
        let (mut exported, mut tries) = (None, 0);
        let locked = self.exec(OpContext::new(), |t| {
            count(&mut tries)?;
            let reserved = t.lock(bo)?;
            let mut state = reserved.bo.state(&reserved.held());
            let before = state.lender().and_then(|lender| as_core::<D>(&lender));
            let core = before.unwrap_or_else(|| {
                let core = self.new_core(bo, &info, solver.clone());
                let sharing: Weak<dyn Sharing> = core.me.clone();
                state.sharing = Some(Box::new(sharing));
                core
            });
            exported = Some(Shared { core });
            Ok(())
        })?;
        drop(locked);
        Ok(exported.expect("the closure ended well"))
    }

    fn new_core(&self, bo: &Bo<D>, info: &ExportInfo, solver: Solver) -> Arc<Core<D>> {
        self.core.exports.fetch_add(1, Ordering::Relaxed);
        let exporter = Arc::clone(&info.exporter);
        Arc::new_cyclic(|me| Core {
            me: me.clone(),
            lender: Lender::new(solver, exporter, info.pins),
            device: self.clone(),
            bo: bo.clone(),
        })
    }

    /// What an export is for this device: its own object, if it is one, which it neither attaches to
    /// nor maps; else something to attach to.
    pub fn import<E: Driver>(&self, shared: &Shared<E>) -> Import<D, E> {
        let theirs = shared.bo_core();
        if !Arc::ptr_eq(&theirs.device, &self.core) {
            shared.lender().with(|inner| inner.imports += 1);
            return Import::Foreign(Imported {
                shared: shared.clone(),
            });
        }
        // The export has a handle, so that there is one more, and the object is not on its way out.
        theirs.handles.fetch_add(1, Ordering::Relaxed);
        Import::SelfImport(Bo {
            core: Arc::clone(theirs),
            driver: PhantomData,
        })
    }

    /// How many of its objects are exported.
    #[must_use]
    pub fn exports(&self) -> u64 {
        self.core.exports.load(Ordering::Relaxed)
    }
}

/// An object's lender as what it is.
fn as_core<D: Driver>(lender: &Arc<dyn Sharing>) -> Option<Arc<Core<D>>> {
    let any: &dyn core::any::Any = &**lender;
    any.downcast_ref::<Core<D>>()?.me.upgrade()
}

/// What an export is for a device.
#[derive(Debug)]
#[must_use]
pub enum Import<D: Driver, E: Driver> {
    /// One of its own objects.
    SelfImport(Bo<D>),
    /// An object of another device.
    Foreign(Imported<E>),
}

/// An imported object of another device, which is counted while this lives.
pub struct Imported<E: Driver> {
    shared: Shared<E>,
}

impl<E: Driver> Deref for Imported<E> {
    type Target = Shared<E>;

    fn deref(&self) -> &Shared<E> {
        &self.shared
    }
}

impl<E: Driver> Drop for Imported<E> {
    fn drop(&mut self) {
        self.shared.lender().with(|inner| inner.imports -= 1);
    }
}

impl<E: Driver> fmt::Debug for Imported<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imported({:?})", self.shared)
    }
}

impl<D: Driver> Shared<D> {
    pub(super) fn lender(&self) -> &Arc<Lender> {
        &self.core.lender
    }

    pub(super) fn bo_core(&self) -> &Arc<BoCore> {
        &self.core.bo.core
    }

    /// The size of what devices find, in bytes: whole pages, and the same for life.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.core.bo.pages().bytes()
    }

    /// The object's number in the exporter's device.
    #[must_use]
    pub fn object(&self) -> u64 {
        self.core.bo.id()
    }

    /// What is done with it at the moment.
    #[must_use]
    pub fn counts(&self) -> ShareCounts {
        self.core.lender.counts()
    }

    /// A name for it that keeps nothing alive.
    #[must_use]
    pub fn name(&self) -> SharedName<D> {
        SharedName {
            core: Arc::downgrade(&self.core),
        }
    }

    /// Reserves the object, in a transaction of the exporter's device: what [`Device::exec`] does
    /// for one object. What it answers is where fences are added.
    ///
    /// # Errors
    /// [`Error::Busy`] after a thousand tries, those of [`Device::exec`], and those of `body`.
    pub fn exec<'o, R>(
        &'o self,
        context: OpContext,
        mut body: impl FnMut(&Reserved<'_, D>) -> Result<R>,
    ) -> Result<Locked<'o, D, R>> {
        let Core { device, bo, .. } = &*self.core;
        let mut tries = 0;
        device.exec(context, |t| {
            count(&mut tries)?;
            body(&t.lock(bo)?)
        })
    }

    /// Which of those attached set each bound of the memory that the object may be in.
    ///
    /// # Errors
    /// [`DmaError::AttachIncompatible`]: they can use it where it is, and together nowhere else.
    pub fn explain_constraints(&self) -> Result<Explanation> {
        let explained = self.core.lender.with(|inner| inner.solver.explain());
        Ok(explained.map_err(empty)?)
    }

    /// Takes the object away from all who have it mapped, as before something happens to it for good.
    /// Each is told; the mappings go once the fences that are pending have signalled.
    ///
    /// # Errors
    /// [`DmaError::NotRevocable`]: somebody has it mapped who may keep it. Nothing has changed. Those
    /// of waiting for the reservation.
    pub fn revoke(&self, context: OpContext) -> Result<()> {
        let locked = self.exec(context, |reserved| {
            let borrowers = self.core.lender.borrowers();
            let keeps =
                |b: &&Arc<super::borrower::Borrower>| !b.revocable && b.in_use().lent.is_some();
            if let Some(by) = borrowers.iter().find(keeps) {
                let by = by.name.clone();
                return Err(DmaError::NotRevocable { by }.into());
            }
            open(reserved, |open| open.bo.take_away(open.held, open.state))
        })?;
        drop(locked);
        Ok(())
    }
}

impl<D: Driver> Clone for Shared<D> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<D: Driver> PartialEq for Shared<D> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl<D: Driver> Eq for Shared<D> {}

impl<D: Driver> fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?})", self.core.bo)
    }
}

/// A name for an export: what a table of handles keeps. The export may be gone, and is found out to
/// be; another one never has its name.
pub struct SharedName<D: Driver> {
    core: Weak<Core<D>>,
}

impl<D: Driver> SharedName<D> {
    /// The export of that name.
    ///
    /// # Errors
    /// [`DmaError::Released`]: it is gone.
    pub fn open(&self) -> Result<Shared<D>> {
        match self.core.upgrade() {
            Some(core) => Ok(Shared { core }),
            None => Err(Error::from(DmaError::Released)),
        }
    }
}

impl<D: Driver> Clone for SharedName<D> {
    fn clone(&self) -> Self {
        Self {
            core: Weak::clone(&self.core),
        }
    }
}

impl<D: Driver> fmt::Debug for SharedName<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedName")
    }
}
