//! What users do with a window.
//!
//! The rule that the `unsafe` blocks here rely on: the addresses of a window stay reserved, for it
//! alone, until it drops; they are at a multiple of the page size; and while an access has to wait,
//! the address space sees to it that it does, or the object is pinned.
#![expect(unsafe_code, reason = "a window's addresses become words")]

use core::fmt;
use core::ops::Range;

use placement::PAGE_SIZE;

use crate::bo::{Bo, Pin, Reserved};
use crate::context::OpContext;
use crate::device::Device;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

use super::cells::{Word, WordMut, words, words_mut};
use super::space::{Access, Addresses};
use super::window::WindowCore;

/// A call backs off so often before it gives up. With one lock to take it backs off for victims
/// only, and grows older each time.
const MOST_TRIES: u32 = 1000;

/// A CPU mapping of an object, or of a part of it, that keeps its addresses while the object moves.
///
/// Loads and stores through it may be delayed while the content is on its way, and are never lost
/// or misled. What cannot be had (content that was purged or lost, memory that ran out) ends them
/// in a signal, `SIGBUS`, as with a file that is too short; [`Window::read_at`] and
/// [`Window::write_at`] answer with an error instead, and work everywhere.
///
/// Where loads cannot be made to wait ([`Abilities::loads_wait`](super::Abilities)), whoever asks
/// for an address pins the object until the window drops; the calls never do.
///
/// While a thread has the object reserved it must not touch the window: that ends in a signal too.
/// Nor, inside any transaction, a window of an object that another one may have reserved: it would
/// wait with locks in hand.
///
/// Dropping it unmaps. A forked child does not inherit it.
pub struct Window<D: Driver> {
    core: Arc<WindowCore>,
    device: Device<D>,
    /// Keeps the object where it is, if an address was given out that cannot wait.
    still: Mutex<Option<Pin>>,
    // Last: the object outlives its mapping.
    bo: Bo<D>,
}

/// Calls `f` with the object reserved, which it is no more on return.
///
/// # Errors
/// [`Error::Busy`] after [`MOST_TRIES`], [`Error::Reentrant`], and those of `f`.
pub(super) fn reserved<D: Driver, T>(
    device: &Device<D>,
    bo: &Bo<D>,
    mut f: impl FnMut(&Reserved<'_, D>) -> Result<T>,
) -> Result<T> {
    let (mut done, mut tries) = (None, 0);
    let locked = device.exec(OpContext::new(), |t| {
        tries += 1;
        if tries > MOST_TRIES {
            return Err(Error::Busy);
        }
        done = Some(f(&t.lock(bo)?)?);
        Ok(())
    })?;
    drop(locked);
    Ok(done.expect("the closure ended well"))
}

impl<D: Driver> Window<D> {
    pub(super) fn new(core: Arc<WindowCore>, device: Device<D>, bo: Bo<D>) -> Self {
        Self {
            core,
            device,
            still: Mutex::new(None),
            bo,
        }
    }

    /// The object.
    #[must_use]
    pub fn bo(&self) -> &Bo<D> {
        &self.bo
    }

    /// Its addresses. They never change.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.core.at
    }

    /// How many bytes, whole pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.at.bytes
    }

    /// Whether it has no bytes: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.core.at.bytes == 0
    }

    /// What may be done through it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.core.access
    }

    /// The first byte, for raw accesses until the window drops. Where loads cannot wait this pins
    /// the object first.
    ///
    /// # Errors
    /// Those of [`Window::pin`], where it has to pin.
    pub fn as_ptr(&self) -> Result<*mut u8> {
        self.stand_still()?;
        Ok(core::ptr::with_exposed_provenance_mut(self.core.at.base))
    }

    /// Its words, for reading.
    ///
    /// # Errors
    /// As [`Window::as_ptr`].
    pub fn words(&self) -> Result<&[Word]> {
        let base = self.as_ptr()?;
        // SAFETY: the addresses are the window's, readable, until it drops, which the lifetime of
        // the result ends before; a page is a multiple of 8 (rule above).
        Ok(unsafe { words(base, self.len()) })
    }

    /// Its words, for reading and writing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is a window for reading; else as [`Window::as_ptr`].
    pub fn words_mut(&self) -> Result<&[WordMut]> {
        if self.core.access == Access::Read {
            return Err(Error::Invalid("the window is for reading only"));
        }
        let base = self.as_ptr()?;
        // SAFETY: as in `words`, and the window is writable (seen above).
        Ok(unsafe { words_mut(base, self.len()) })
    }

    fn stand_still(&self) -> Result<()> {
        if self.core.waits() {
            return Ok(());
        }
        let mut still = self.still.lock();
        if still.is_none() {
            *still = Some(self.pin()?.pin);
        }
        Ok(())
    }

    /// Reads bytes from `offset` on, after the writes that are pending. Takes the reservation; never
    /// ends in a signal.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside the window or the object's bytes, [`Error::Purged`],
    /// [`Error::ContentLost`], [`Error::Reentrant`] inside a transaction, [`Error::Busy`] after a
    /// thousand tries to have all locks, and those of validate.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let at = self.checked(offset, out.len())?;
        self.reserved(|reserved| {
            let read = reserved.read(at, out);
            if self.must_come(&read) {
                self.come(reserved)?;
                return reserved.read(at, out);
            }
            read
        })
    }

    /// Writes bytes from `offset` on, after everything that uses the object.
    ///
    /// # Errors
    /// As [`Window::read_at`], and [`Error::Invalid`] if it is a window for reading.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.core.access == Access::Read {
            return Err(Error::Invalid("the window is for reading only"));
        }
        let at = self.checked(offset, bytes.len())?;
        self.reserved(|reserved| {
            let written = reserved.write(at, bytes);
            if self.must_come(&written) {
                self.come(reserved)?;
                return reserved.write(at, bytes);
            }
            written
        })
    }

    fn must_come(&self, result: &Result<()>) -> bool {
        matches!(result, Err(Error::Unsupported(_)))
    }

    fn come(&self, reserved: &Reserved<'_, D>) -> Result<()> {
        reserved.with_ask(|ask| {
            let held = reserved.held();
            let mut state = reserved.bo.state(&held);
            let writes = self.core.access == Access::ReadWrite;
            let pages = self.core.pages.clone();
            reserved
                .bo
                .reach(&held, &mut state, pages.start..pages.start + 1, writes, ask)
                .map(drop)
        })
    }

    /// Brings all of the window to where the CPU reaches it, and maps it: accesses go on without
    /// waiting until the object is moved.
    ///
    /// # Errors
    /// Those of validate, and of mapping.
    pub fn populate(&self) -> Result<()> {
        self.reserved(|reserved| self.show_all(reserved))
    }

    fn show_all(&self, reserved: &Reserved<'_, D>) -> Result<()> {
        reserved.with_ask(|ask| {
            let held = reserved.held();
            let mut state = reserved.bo.state(&held);
            let writes = self.core.access == Access::ReadWrite;
            let pages: Range<u64> = self.core.pages.clone();
            let shown = reserved.bo.reach(&held, &mut state, pages, writes, ask)?;
            self.core.show_all(&shown)
        })
    }

    /// Keeps the object where it is, all of the window mapped, until the result drops: for kernel
    /// interfaces that hold on to the pages themselves (`O_DIRECT` under way, fixed buffers of
    /// io_uring, `vmsplice`). Those do not notice a move: what they write after one is lost.
    ///
    /// # Errors
    /// Those of validate, and of mapping.
    pub fn pin(&self) -> Result<WindowPin> {
        self.reserved(|reserved| {
            self.show_all(reserved)?;
            Ok(WindowPin {
                pin: reserved.pin_guard(),
            })
        })
    }

    /// Lets accesses that ended in a signal try again, once the cause is gone.
    ///
    /// # Errors
    /// What the address space says.
    pub fn mend(&self) -> Result<()> {
        self.core.mend()
    }

    /// How many of its pages are mapped now; accesses to the others wait first.
    #[must_use]
    pub fn shown_pages(&self) -> u64 {
        self.core.shown_pages()
    }

    fn reserved<T>(&self, f: impl FnMut(&Reserved<'_, D>) -> Result<T>) -> Result<T> {
        reserved(&self.device, &self.bo, f)
    }

    /// The byte of the object at which `len` bytes from `offset` begin.
    fn checked(&self, offset: u64, len: usize) -> Result<u64> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len() as u64) {
            return Err(Error::Invalid("bytes that are not inside the window"));
        }
        Ok(self.core.pages.start * PAGE_SIZE + offset)
    }
}

impl<D: Driver> Drop for Window<D> {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl<D: Driver> fmt::Debug for Window<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Window({:#x}, {} bytes of {:?})",
            self.core.at.base, self.core.at.bytes, self.bo
        )
    }
}

/// Keeps a window's object where it is, and mapped. Dropping it lets it go, waiting for the
/// reservation if it must.
#[derive(Debug)]
#[must_use = "dropping it lets the object move again"]
pub struct WindowPin {
    pin: Pin,
}
