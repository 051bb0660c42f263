//! The bytes of a pool.

use super::SET;
use crate::sync::{Arc, Mutex};

/// Memory of a bounce pool, as the CPU copies to and from it.
///
/// The device may use it meanwhile. Several threads copy at once, never to the same bytes.
pub trait BounceMemory: Send + Sync {
    /// How many bytes there are. Always the same.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies in. Never past the end; the pool's copies never leave a set of 256 KiB either.
    fn put(&self, at: u64, bytes: &[u8]);

    /// Copies out, likewise.
    fn get(&self, at: u64, bytes: &mut [u8]);
}

impl<M: BounceMemory + ?Sized> BounceMemory for Arc<M> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        (**self).put(at, bytes);
    }

    fn get(&self, at: u64, bytes: &mut [u8]) {
        (**self).get(at, bytes);
    }
}

/// Ordinary memory, with a lock for each set: a leaf.
#[derive(Debug)]
pub struct BounceBytes {
    len: u64,
    sets: Box<[Mutex<Box<[u8]>>]>,
}

impl BounceBytes {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let sets = bytes.chunks(SET as usize);
        Self {
            len: bytes.len() as u64,
            sets: sets.map(|set| Mutex::new(set.into())).collect(),
        }
    }

    /// Calls `f` for each piece of `len` bytes from `at` on: with the piece, and where in `len` it
    /// begins.
    fn each(&self, at: u64, len: usize, mut f: impl FnMut(&mut [u8], usize)) {
        let mut done = 0;
        while done < len {
            let at = at + done as u64;
            let (set, from) = ((at / SET) as usize, (at % SET) as usize);
            let mut set = self.sets[set].lock();
            let piece = (len - done).min(set.len() - from);
            f(&mut set[from..from + piece], done);
            done += piece;
        }
    }
}

impl BounceMemory for BounceBytes {
    fn len(&self) -> u64 {
        self.len
    }

    /// # Panics
    /// If they go past the end.
    fn put(&self, at: u64, bytes: &[u8]) {
        self.each(at, bytes.len(), |piece, done| {
            piece.copy_from_slice(&bytes[done..done + piece.len()]);
        });
    }

    /// # Panics
    /// If they go past the end.
    fn get(&self, at: u64, bytes: &mut [u8]) {
        self.each(at, bytes.len(), |piece, done| {
            bytes[done..done + piece.len()].copy_from_slice(piece);
        });
    }
}
