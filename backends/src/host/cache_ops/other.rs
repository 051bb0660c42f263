//! Processors on which user mode cannot count on such instructions.

use core::convert::Infallible;
use core::fmt;

use super::Lines;

/// None.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instructions(Infallible);

impl Instructions {
    pub(super) fn probe() -> Result<Self, &'static str> {
        Err(match cfg!(target_arch = "riscv64") {
            true => {
                "that the processor has Zicbom does not let user mode use it; allocate coherent memory"
            }
            false => {
                "user mode has no instructions for it on this processor; allocate coherent memory"
            }
        })
    }

    pub(super) fn step(self) -> usize {
        match self.0 {}
    }

    pub(super) fn shared(self) -> u32 {
        match self.0 {}
    }

    pub(super) fn clean(self, _: Lines<'_>) {
        match self.0 {}
    }

    pub(super) fn flush(self, _: Lines<'_>) {
        match self.0 {}
    }

    pub(super) fn barrier(self) {
        match self.0 {}
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}
