//! A device that is all bookkeeping: its memory and frames are only counted, its moves copy
//! nothing, and what is left is what the manager itself costs.
//!
//! The clock is the host's, events are kept, as they are in a program; no fence is ever attached,
//! so nothing waits.

use backends::host::wall_clock;
use placement::{MemType, PageCount, Placement, Range};
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::BoKind;
use ttm::fixture::{self, Counting, Nothing};
use ttm::trace::Counters;

/// The bytes of one page.
pub const PAGE: u64 = 4096;

/// An object of a [`Rig`].
pub type Object = Bo<Counting>;

/// The device, and the two places that its objects go to.
pub struct Rig {
    /// The device.
    pub device: Device<Counting>,
    /// Its own memory, a [`Range`].
    pub vram: Placement,
    /// System memory, without limit and without pages.
    pub system: Placement,
}

impl Rig {
    /// A device with `pages` pages of memory.
    ///
    /// # Errors
    /// Those of building a device.
    ///
    /// # Panics
    /// If that is beyond all memory.
    pub fn new(pages: u64) -> ttm::Result<Self> {
        let pages = PageCount::new(pages).expect("a size");
        let device = Device::builder(Counting, wall_clock())
            .pages(Nothing::new(pages))
            .memory(
                MemType::VRAM,
                Box::new(Range::new(pages)),
                Nothing::new(pages),
            )
            .build()?;
        Ok(Self {
            device,
            vram: fixture::vram(),
            system: fixture::system(),
        })
    }

    /// Makes an object of the driver's own, nowhere yet.
    ///
    /// # Panics
    /// When it is refused, which no workload expects.
    #[inline]
    pub fn create(&self, bytes: u64) -> Object {
        let info = BoInfo::new(bytes).kind(BoKind::Kernel);
        self.device.create(info, ()).expect("an object")
    }

    /// Locks an object, makes it resident in `placement`, releases it as the youngest.
    ///
    /// # Panics
    /// When it is refused, which no workload expects.
    #[inline]
    pub fn validate(&self, object: &Object, placement: &Placement) {
        let locked = self
            .device
            .exec(OpContext::new(), |t| t.lock(object)?.validate(placement));
        drop(locked.expect("a place"));
    }

    /// Makes `count` objects of one page, resident in VRAM, the first the next to be evicted.
    ///
    /// # Panics
    /// When one is refused.
    pub fn fill(&self, count: usize) -> Vec<Object> {
        let made = || {
            let object = self.create(PAGE);
            self.validate(&object, &self.vram);
            object
        };
        (0..count).map(|_| made()).collect()
    }

    /// Whether an object is in VRAM.
    ///
    /// # Panics
    /// When it can't be locked.
    pub fn is_in_vram(&self, object: &Object) -> bool {
        let locked = self
            .device
            .exec(OpContext::new(), |t| Ok(t.lock(object)?.mem_type()));
        *locked.expect("a lock that nobody holds").value() == Some(MemType::VRAM)
    }

    /// What VRAM has seen.
    pub fn counters(&self) -> Counters {
        self.manager().counters()
    }

    /// How many pages of VRAM are with objects.
    pub fn pages_used(&self) -> u64 {
        self.manager().usage().used.get()
    }

    /// Holds the device to its invariants.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.device.check() {
            Ok(_) => Ok(()),
            Err(violation) => anyhow::bail!("{violation:?}"),
        }
    }

    fn manager(&self) -> &ttm::resource::Manager {
        self.device.manager(MemType::VRAM).expect("a rig has VRAM")
    }
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rig({:?})", self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_pushes_the_oldest_out() -> anyhow::Result<()> {
        let rig = Rig::new(3)?;
        let objects = rig.fill(4);
        let inside: Vec<bool> = objects.iter().map(|o| rig.is_in_vram(o)).collect();
        assert_eq!(inside, [false, true, true, true]);
        assert_eq!(rig.counters().evictions, 1);
        assert_eq!(rig.pages_used(), 3);
        rig.check()
    }
}
