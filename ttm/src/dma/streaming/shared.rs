//! One buffer for several devices and the CPU.
//!
//! ```text
//!                   begin_cpu: the devices' fences have signalled
//!   Devices{n} ───────────────────────────────────────────────────▶ Cpu
//!    ▲  │ attach, detach    ◀─────────────────────────────────────
//!    └──┘                   end, or drop of the access: handed to all
//! ```
//!
//! Ownership is the buffer's, not a mapping's: no device ever has a copy of its own, so what would be
//! copied for one is refused. Caches are maintained once for all who need it.

use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;

use super::hold::Hold;
use super::inner::abandon;
use super::map::Ask;
use super::{DeviceOwnedProof, Owner};
use crate::dma::quarantine::Fences;
use crate::dma::words::in_mapping;
use crate::dma::{Backing, Direction, DmaDevice, DmaError, MapAttrs, MappedList, Share};
use crate::fence::Fence;
use crate::sync::{Arc, Mutex};

/// What somebody does to a shared buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only reads: waits for those who write.
    Read,
    /// Writes: waits for everybody.
    Write,
}

/// Who owns a shared buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedState {
    /// The CPU.
    Cpu,
    /// The devices that have it mapped.
    Devices {
        /// How many.
        n: usize,
    },
}

/// The number of a device on a shared buffer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SharedId(u64);

struct Attached {
    device: Arc<DmaDevice>,
    hold: Hold,
    fences: Vec<(Fence, Access)>,
}

struct State {
    cpu: bool,
    next: u64,
    attached: BTreeMap<SharedId, Attached>,
}

/// A range of a backing that several devices have mapped. Its lock is a leaf: nothing is mapped, and
/// no cache maintained, under it.
///
/// ```
/// use ttm::dma::{Access, Backing, Direction, DmaError, MapAttrs, SharedStreaming};
/// use ttm::dma::fixture::{Machine, Platform};
///
/// # fn main() -> Result<(), DmaError> {
/// let camera = Machine::new(Platform::Deaf, 1);
/// let display = Machine::beside(Platform::Deaf, camera.memory.clone(), |dma| dma);
/// let backing = Backing::alloc(&camera.source(), 4096, Default::default())?;
/// let mut shared = SharedStreaming::new(backing, 0..4096).map_err(|(_, error)| error)?;
///
/// let from = shared.attach(&camera.dma, Direction::FromDevice, &MapAttrs::new())?;
/// // The second has no caches to maintain: the first has done it.
/// let attrs = MapAttrs::new().skip_cpu_sync(shared.device_owned_proof()?);
/// let to = shared.attach(&display.dma, Direction::ToDevice, &attrs)?;
/// camera.device.write(&*shared.dma(from)?, 0, b"frame");
/// let mut seen = [0; 5];
/// display.device.read(&*shared.dma(to)?, 0, &mut seen);
/// assert_eq!(&seen, b"frame");
///
/// let access = shared.begin_cpu(Access::Read)?;
/// access.read(0, &mut seen)?;
/// assert_eq!(&seen, b"frame");
/// drop(access);
/// # shared.detach(from)?;
/// # shared.detach(to)?;
/// # Ok(())
/// # }
/// ```
pub struct SharedStreaming {
    /// There until it is taken out.
    backing: Option<Backing>,
    range: Range<u64>,
    state: Mutex<State>,
}

impl SharedStreaming {
    /// A range that no device has yet.
    ///
    /// # Errors
    /// [`DmaError::ZeroLength`], [`DmaError::RangeOutOfBuffer`], with the backing.
    pub fn new(backing: Backing, range: Range<u64>) -> Result<Self, (Backing, DmaError)> {
        let len = range.end.saturating_sub(range.start);
        let checked = match len {
            0 => Err(DmaError::ZeroLength),
            _ => backing.check(range.start, len),
        };
        match checked {
            Ok(()) => Ok(Self {
                backing: Some(backing),
                range,
                state: Mutex::new(State {
                    cpu: false,
                    next: 0,
                    attached: BTreeMap::new(),
                }),
            }),
            Err(error) => Err((backing, error)),
        }
    }

    const fn backing(&self) -> &Backing {
        self.backing.as_ref().expect("there until it is taken out")
    }

    /// Who owns it.
    #[must_use]
    pub fn state(&self) -> SharedState {
        let state = self.state.lock();
        match state.cpu {
            true => SharedState::Cpu,
            false => SharedState::Devices {
                n: state.attached.len(),
            },
        }
    }

    fn wants_devices(state: &State) -> Result<(), DmaError> {
        match state.cpu {
            true => Err(DmaError::WrongOwner {
                have: Owner::Cpu,
                want: Owner::Device,
            }),
            false => Ok(()),
        }
    }

    /// Maps it for one more device.
    ///
    /// # Errors
    /// As [`DmaDevice::map_streaming`], with [`DmaError::WouldBounceShared`] if it would have to be
    /// copied; [`DmaError::WrongOwner`] if an access of the CPU's was forgotten.
    #[track_caller]
    pub fn attach(
        &self,
        device: &Arc<DmaDevice>,
        direction: Direction,
        attrs: &MapAttrs<'_>,
    ) -> Result<SharedId, DmaError> {
        // No access begins meanwhile: that takes the buffer for its own.
        Self::wants_devices(&self.state.lock())?;
        let ask = Ask {
            range: &self.range,
            direction,
            attrs,
            share: Share::Shared,
        };
        let hold = device.hold(self.backing(), ask)?;
        let mut state = self.state.lock();
        state.next += 1;
        let id = SharedId(state.next);
        let attached = Attached {
            device: Arc::clone(device),
            hold,
            fences: Vec::new(),
        };
        state.attached.insert(id, attached);
        Ok(id)
    }

    /// Shows that devices own it, for the next that it is mapped for.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`] if none does.
    pub fn device_owned_proof(&self) -> Result<DeviceOwnedProof<'_>, DmaError> {
        let state = self.state.lock();
        Self::wants_devices(&state)?;
        if state.attached.is_empty() {
            return Err(DmaError::WrongOwner {
                have: Owner::Cpu,
                want: Owner::Device,
            });
        }
        let flushed = state.attached.values().any(|a| a.hold.is_synced());
        Ok(DeviceOwnedProof::new(self.backing(), flushed))
    }

    /// Where a device finds what.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`].
    ///
    /// # Panics
    /// If the device was detached.
    pub fn dma(&self, id: SharedId) -> Result<Arc<MappedList>, DmaError> {
        let state = self.state.lock();
        Self::wants_devices(&state)?;
        Ok(Arc::clone(state.attached[&id].hold.mapping().list()))
    }

    /// Says what a device does to it until `fence`.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`].
    ///
    /// # Panics
    /// If the device was detached.
    pub fn attach_fence(&self, id: SharedId, fence: Fence, access: Access) -> Result<(), DmaError> {
        let mut state = self.state.lock();
        Self::wants_devices(&state)?;
        let attached = state.attached.get_mut(&id).expect("an attached device");
        attached.fences.push((fence, access));
        Ok(())
    }

    /// Unmaps it for a device.
    ///
    /// # Errors
    /// [`DmaError::FencePending`]: the device may still use it. [`DmaError::WrongOwner`].
    ///
    /// # Panics
    /// If the device was detached.
    #[track_caller]
    pub fn detach(&self, id: SharedId) -> Result<(), DmaError> {
        let attached = {
            let mut state = self.state.lock();
            Self::wants_devices(&state)?;
            let fences = &state.attached[&id].fences;
            Fences::of(fences.iter().map(|(fence, _)| fence)).check()?;
            state.attached.remove(&id).expect("just seen")
        };
        let Attached { device, hold, .. } = attached;
        // What it wrote may be in the way of no later sync: its own is gone.
        hold.for_cpu(&device, &**self.backing().memory(), &(0..hold.len()));
        hold.end(&device);
        Ok(())
    }

    /// Hands it to the CPU until the access drops.
    ///
    /// # Errors
    /// [`DmaError::FencePending`]: devices may still write, or for a write, read.
    /// [`DmaError::WrongOwner`] if an earlier access was forgotten.
    pub fn begin_cpu(&mut self, access: Access) -> Result<SharedAccess<'_>, DmaError> {
        let memory = Arc::clone(self.backing().memory());
        let state = self.state.get_mut();
        Self::wants_devices(state)?;
        let fences = state.attached.values().flat_map(|a| &a.fences);
        let in_the_way = fences.filter(|(_, its)| [*its, access].contains(&Access::Write));
        Fences::of(in_the_way.map(|(fence, _)| fence)).check()?;
        let writes =
            |a: &&Attached| a.hold.is_synced() && a.hold.mapping().direction().device_writes();
        if let Some(attached) = state.attached.values().find(writes) {
            let all = 0..attached.hold.len();
            attached.hold.for_cpu(&attached.device, &*memory, &all);
        }
        for attached in state.attached.values_mut() {
            attached
                .fences
                .retain(|(fence, _)| !Fences::of([fence]).settled());
        }
        state.cpu = true;
        Ok(SharedAccess {
            shared: self,
            access,
        })
    }

    /// Hands it to every device that has it mapped.
    fn end_cpu(&mut self) -> Result<(), DmaError> {
        let memory = Arc::clone(self.backing().memory());
        let state = self.state.get_mut();
        state.cpu = false;
        let mut changed = Ok(());
        for attached in state.attached.values_mut() {
            changed = changed.and(attached.hold.decide_again(&attached.device, &memory));
        }
        let synced = state.attached.values().find(|a| a.hold.is_synced());
        if let Some(attached) = synced {
            let all = 0..attached.hold.len();
            attached.hold.for_device(&attached.device, &*memory, &all);
        }
        changed
    }

    /// Takes the backing out.
    ///
    /// # Errors
    /// [`DmaError::StillMapped`], with the buffer.
    ///
    /// # Panics
    /// Never: the backing is there until this.
    pub fn into_backing(mut self) -> Result<Backing, (Self, DmaError)> {
        let devices = self.state.get_mut().attached.len();
        match devices {
            0 => Ok(self.backing.take().expect("there until it is taken out")),
            _ => Err((self, DmaError::StillMapped { devices })),
        }
    }
}

impl Drop for SharedStreaming {
    fn drop(&mut self) {
        let Some(backing) = self.backing.take() else {
            return;
        };
        for attached in core::mem::take(&mut self.state.get_mut().attached).into_values() {
            let Attached {
                device,
                hold,
                fences,
            } = attached;
            let fences = fences.into_iter().map(|(fence, _)| fence).collect();
            abandon(&device, &backing, hold, fences);
        }
    }
}

impl fmt::Debug for SharedStreaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedStreaming({:?}, {:?})", self.range, self.state())
    }
}

/// The CPU's turn on a shared buffer. Dropping it hands the buffer to all devices.
#[must_use = "dropping it hands the buffer back"]
pub struct SharedAccess<'s> {
    shared: &'s mut SharedStreaming,
    access: Access,
}

impl SharedAccess<'_> {
    fn place(&self, offset: u64, len: u64) -> Result<u64, DmaError> {
        let Range { start, end } = self.shared.range;
        in_mapping(offset, len, end - start)?;
        Ok(start + offset)
    }

    /// Copies bytes out, `at` bytes into the range.
    ///
    /// # Errors
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DmaError> {
        let place = self.place(at, out.len() as u64)?;
        self.shared.backing().read(place, out)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`DmaError::WrongOwner`] of an access that only reads: devices may read as well.
    /// [`DmaError::RangeOutOfMapping`], [`DmaError::AddressOverflow`].
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), DmaError> {
        if self.access == Access::Read {
            return Err(DmaError::WrongOwner {
                have: Owner::Device,
                want: Owner::Cpu,
            });
        }
        let place = self.place(at, bytes.len() as u64)?;
        self.shared.backing().write(place, bytes)
    }

    /// Hands the buffer to all devices.
    ///
    /// # Errors
    /// [`DmaError::DecisionChanged`]: a device has another verdict by now, and is to be detached. It
    /// was handed over all the same.
    pub fn end(self) -> Result<(), DmaError> {
        let mut this = core::mem::ManuallyDrop::new(self);
        this.shared.end_cpu()
    }
}

impl Drop for SharedAccess<'_> {
    fn drop(&mut self) {
        // Who wants to know of a changed verdict ends it.
        let _ = self.shared.end_cpu();
    }
}

impl fmt::Debug for SharedAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SharedAccess({:?}, {:?})",
            self.shared.range, self.access
        )
    }
}
