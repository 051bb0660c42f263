//! Whoever keeps a mapping alive, held in place.
//!
//! The rule that the `unsafe` blocks here rely on: from its making to its drop, `room` holds a value
//! of the type that `drop` is for, and nobody but `drop` looks at it.
#![expect(unsafe_code, reason = "a value whose type is put aside")]

use core::mem::MaybeUninit;

/// What fits is kept here; the largest owner of the backends has five words.
type Room = [usize; 6];

/// A value of any type that only waits to be dropped. A small one needs no memory of its own, so
/// that mapping something while memory is short allocates nothing.
pub(super) struct Owner {
    room: MaybeUninit<Room>,
    drop: unsafe fn(*mut Room),
}

// SAFETY: it was made of a value that is `Send` (bound of `new`).
unsafe impl Send for Owner {}
// SAFETY: through `&Owner` nobody reaches the value.
unsafe impl Sync for Owner {}

impl Owner {
    pub(super) fn new<O: Send + Sync + 'static>(owner: O) -> Self {
        if size_of::<O>() <= size_of::<Room>() && align_of::<O>() <= align_of::<Room>() {
            Self::in_place(owner)
        } else {
            Self::in_place(Box::new(owner))
        }
    }

    /// # Panics
    /// If it does not fit.
    fn in_place<O: Send + Sync + 'static>(owner: O) -> Self {
        /// # Safety
        /// `room` holds an `O`, which is not used again.
        unsafe fn end<O>(room: *mut Room) {
            // SAFETY: as the caller promises; `in_place` has put it there, aligned.
            unsafe { room.cast::<O>().drop_in_place() }
        }
        assert!(size_of::<O>() <= size_of::<Room>() && align_of::<O>() <= align_of::<Room>());
        let mut room = MaybeUninit::<Room>::uninit();
        // SAFETY: the room is large enough and aligned for an `O` (asserted), and is ours.
        unsafe { room.as_mut_ptr().cast::<O>().write(owner) }
        Self {
            room,
            drop: end::<O>,
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the room holds a value of the type that `drop` is for (rule above), and is not
        // looked at again.
        unsafe { (self.drop)(self.room.as_mut_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;

    /// Drops once, wherever it was kept, and however often it was moved.
    #[test]
    fn small_and_large_owners_are_dropped_once() {
        #[repr(align(64))]
        struct Aligned(Arc<()>);
        let counted = Arc::new(());
        let one = || Arc::clone(&counted);
        let owners = [
            Owner::new(one()),
            Owner::new((one(), [0_u64; 5])),
            Owner::new((one(), [0_u64; 20])),
            Owner::new(Aligned(one())),
            Owner::new(()),
        ];
        let moved: Vec<Owner> = owners.into();
        assert_eq!(Arc::strong_count(&counted), 5);
        drop(moved);
        assert_eq!(Arc::strong_count(&counted), 1);
        let aligned = Aligned(one());
        assert_eq!(Arc::strong_count(&aligned.0), 2);
    }
}
