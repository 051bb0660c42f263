//! A second device on a buffer that the first owns.

use core::fmt;
use core::marker::PhantomData;

use super::hold::Hold;
use super::inner::{Inner, abandon};
use super::map::Ask;
use crate::dma::quarantine::Fences;
use crate::dma::{
    Backing, Direction, DmaDevice, DmaError, MapAttrs, MappedList, NotCoherent, Share,
};
use crate::fence::Fence;
use crate::sync::Arc;

/// What a [`Streaming`](super::Streaming) mapping shows another device meanwhile. The first cannot be
/// handed to the CPU before this is unmapped.
#[must_use = "what the device owns is not freed by a drop; unmap it"]
pub struct Guest<'m> {
    device: Arc<DmaDevice>,
    backing: &'m Backing,
    hold: Option<Box<Hold>>,
    fences: Vec<Fence>,
    first: PhantomData<&'m Inner>,
}

impl<'m> Guest<'m> {
    #[track_caller]
    pub(super) fn map(
        first: &'m Inner,
        device: &Arc<DmaDevice>,
        direction: Direction,
        attrs: &MapAttrs<'_>,
    ) -> Result<Self, DmaError> {
        let (backing, own) = (first.backing(), first.hold());
        own.may_be_shared(first.device(), backing.memory())?;
        let range = own.first()..own.first() + own.len();
        let ask = Ask {
            range: &range,
            direction,
            attrs,
            share: Share::Shared,
        };
        Ok(Self {
            hold: Some(Box::new(device.hold(backing, ask)?)),
            device: Arc::clone(device),
            backing,
            fences: Vec::new(),
            first: PhantomData,
        })
    }

    fn hold(&self) -> &Hold {
        self.hold.as_ref().expect("there until it is unmapped")
    }

    /// Where the device finds what.
    #[must_use]
    pub fn dma(&self) -> &MappedList {
        self.hold().mapping().list()
    }

    /// Says that the device uses it until `fence`.
    pub fn attach_fence(&mut self, fence: Fence) {
        self.fences.push(fence);
    }

    /// Ends the mapping.
    ///
    /// # Errors
    /// [`DmaError::FencePending`], with the mapping: the device may still use it.
    #[track_caller]
    pub fn unmap(mut self) -> Result<(), (Self, DmaError)> {
        if let Err(error) = Fences::of(&self.fences).check() {
            return Err((self, error));
        }
        if let Some(hold) = self.hold.take() {
            // The first may snoop and do nothing when the CPU has it.
            let memory = &**self.backing.memory();
            hold.for_cpu(&self.device, memory, &(0..hold.len()));
            hold.end(&self.device);
        }
        Ok(())
    }
}

impl Hold {
    /// Whether another device would see the same.
    ///
    /// # Errors
    /// [`DmaError::WouldBounceShared`].
    fn may_be_shared(
        &self,
        device: &DmaDevice,
        memory: &Arc<dyn crate::dma::OwnedMemory>,
    ) -> Result<(), DmaError> {
        if self.is_in_place() {
            return Ok(());
        }
        match self.refusal_if_shared(device, memory) {
            Some(error) => Err(error),
            None => Err(DmaError::WouldBounceShared {
                cause: NotCoherent::Unknown,
            }),
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            let fences = core::mem::take(&mut self.fences);
            abandon(&self.device, self.backing, *hold, fences);
        }
    }
}

impl fmt::Debug for Guest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guest({:?})", self.hold().mapping())
    }
}
