//! Windows: CPU mappings of objects that keep their address and follow the content.
//!
//! ```text
//!   a load or store ──▶ page table ──▶ content                       shown: nobody is asked
//!                          │ empty
//!                          ▼
//!   FaultSource ──▶ FaultHandler: reserve, bring the content, map the run, wake     (fault)
//!
//!   a move: revoke ──▶ copy ──▶ switch: the new place is mapped over the old one    (window)
//! ```
//!
//! A window's addresses are reserved once and never given up before it drops. What lies there is
//! either the object's content where it is now, or a mapping at which accesses wait. A move makes
//! them wait, copies, and puts the new place over them; large copies by the CPU begin before, while
//! writers go on, and what these wrote is copied again. Everything else is found out by who touches
//! the window: content that is nowhere yet, swapped out, on its way, outside the aperture, gone.
//!
//! The process's part is behind the seams [`AddressSpace`] and [`FaultSource`]; `backends::host` has
//! them for Linux.
//!
//! # What is promised
//!
//! Loads, stores and, where [`Abilities::calls_wait`], system calls that copy to and from a window:
//! delayed perhaps, never lost, never shown something that is not the object's. Not for who makes
//! the kernel hold on to pages; that takes [`Window::pin`].
//!
//! # Locks
//!
//! A window's lock comes after the reservation of its object, and is held across every call that
//! changes its addresses. Looking a window up takes neither.

mod access;
mod cells;
mod fault;
mod layout;
mod registry;
mod space;
mod vmap;
mod window;

pub use access::{Window, WindowPin};
pub use cells::{Word, WordMut};
pub use registry::{Follow, WindowConfig, WindowCounts};
pub use space::{
    Abilities, Access, AddressSpace, Addresses, Aside, Fault, FaultHandler, FaultSource, Piece,
    Revoke, WriteTracking,
};
pub use vmap::VMap;

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use placement::PAGE_SIZE;

use crate::bo::{Bo, View};
use crate::device::Device;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::sync::{Arc, Weak};

use layout::LEAST_MAPPINGS;
use registry::Registry;
use window::WindowCore;

/// Addresses of windows begin where huge pages can be mapped as such, from this size on.
const HUGE: usize = 2 << 20;

/// What part of an object a window is of, and what may be done through it.
///
/// ```
/// use ttm::map::{Access, MapInfo};
/// let header = MapInfo::whole().pages(0..1).access(Access::Read);
/// # let _ = header;
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MapInfo {
    pages: Option<Range<u64>>,
    access: Access,
}

impl MapInfo {
    /// All of the object, for reading and writing.
    #[must_use]
    pub fn whole() -> Self {
        Self::default()
    }

    /// Only these pages.
    #[must_use]
    pub fn pages(mut self, pages: Range<u64>) -> Self {
        self.pages = Some(pages);
        self
    }

    /// For reading only, say.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
}

/// The windows of a device in this process. Clones are the same.
///
/// Somebody has to serve accesses that wait: hand [`Windows::handler`] and the address space's
/// [`FaultSource`] to threads, as `backends::host::FaultThreads` does. A [`Window`] keeps the
/// device, not the threads: end those after the windows, and before
/// [`Device::close`], for they may look at an object a moment longer than whoever touched it waits.
pub struct Windows<D: Driver> {
    registry: Arc<Registry>,
    device: Device<D>,
    driver: PhantomData<fn() -> D>,
}

impl<D: Driver> Windows<D> {
    /// Windows of `device` in `space`.
    #[must_use]
    pub fn new(device: &Device<D>, space: Arc<dyn AddressSpace>) -> Self {
        Self::with_config(device, space, WindowConfig::default())
    }

    /// The same with other costs.
    ///
    /// # Panics
    /// If `config.run` is no power of two from 16 to 512.
    #[must_use]
    pub fn with_config(
        device: &Device<D>,
        space: Arc<dyn AddressSpace>,
        config: WindowConfig,
    ) -> Self {
        let run = config.run.get();
        assert!(
            run.is_power_of_two() && (16..=512).contains(&run),
            "a run of {run} pages"
        );
        Self {
            registry: Registry::new(&device.core, space, config),
            device: device.clone(),
            driver: PhantomData,
        }
    }

    /// Who serves accesses that wait.
    #[must_use]
    pub fn handler(&self) -> Arc<dyn FaultHandler> {
        Arc::clone(&self.registry) as Arc<dyn FaultHandler>
    }

    /// What accesses do while content is on its way.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.registry.abilities
    }

    /// What the windows did so far.
    #[must_use]
    pub fn counts(&self) -> WindowCounts {
        self.registry.counts()
    }

    /// Opens a window over an object, wherever that is. Takes its reservation for a moment; brings
    /// nothing in: the first access does.
    ///
    /// # Errors
    /// [`Error::Invalid`] for pages that the object has not, or an object of another device;
    /// [`Error::NoMappings`]; [`Error::Backend`] if the host gives no addresses;
    /// [`Error::Reentrant`] inside a transaction; [`Error::Busy`] after a thousand tries.
    pub fn map(&self, bo: &Bo<D>, info: MapInfo) -> Result<Window<D>> {
        let pages = info.pages.unwrap_or(0..bo.pages().get());
        if pages.start >= pages.end || pages.end > bo.pages().get() {
            return Err(Error::Invalid("a window is of pages that the object has"));
        }
        let bytes = usize::try_from((pages.end - pages.start) * PAGE_SIZE)
            .map_err(|_| Error::Invalid("a window is no larger than the address space"))?;
        let (align, phase) = match bytes >= HUGE {
            true => (HUGE, (pages.start * PAGE_SIZE) as usize % HUGE),
            false => (PAGE_SIZE as usize, 0),
        };
        let registry = &self.registry;
        let mut paid = 0;
        registry.recharge(&mut paid, LEAST_MAPPINGS)?;
        let reserved = registry.space.reserve(bytes, align, phase);
        let at = reserved.inspect_err(|_| registry.uncharge(paid))?;
        let core = WindowCore::new(registry, &bo.core, pages, info.access, at);
        let core = Arc::new(core);
        registry.enter(&core);
        // From here on the drop puts everything right.
        let window = Window::new(Arc::clone(&core), self.device.clone(), bo.clone());
        let view: Weak<dyn View> = Arc::downgrade(&core) as Weak<dyn View>;
        access::reserved(&self.device, bo, |reserved| {
            let mut state = reserved.bo.state(&reserved.held());
            state.views.get_or_insert_default().add(Weak::clone(&view));
            Ok(())
        })?;
        Ok(window)
    }
}

impl<D: Driver> Clone for Windows<D> {
    fn clone(&self) -> Self {
        Self {
            registry: Arc::clone(&self.registry),
            device: self.device.clone(),
            driver: PhantomData,
        }
    }
}

impl<D: Driver> fmt::Debug for Windows<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Windows({:?})", self.counts())
    }
}
