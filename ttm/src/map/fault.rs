//! An access that waits: from its address to its content.
//!
//! 1. The window is looked up by address; its lock is not held beyond that.
//! 2. The object is reserved, as any transaction does it: older ones go first.
//! 3. Its content comes to where the CPU reaches it: populated, swapped in, moved, waited for.
//! 4. The run around the page is mapped over the window, and who waits there is woken.
//!
//! What cannot be had ends the access in a signal and is an event. So does an access by a thread
//! that has the object reserved itself: it would wait for itself.

use crate::bo::BoCore;
use crate::context::OpContext;
use crate::error::{Error, Result};
use crate::reservation::{Guard, Lockable, wait_lock};
use crate::residency::with_ask;
use crate::resource::Ask;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::in_lane;
use crate::trace::Event;

use super::registry::Registry;
use super::space::{Access, Addresses, Fault, FaultHandler};
use super::window::WindowCore;

/// Why an access ends in a signal.
const SELF: &str = "its own thread has the object reserved; use reads and writes by call there";

impl FaultHandler for Registry {
    fn serve(&self, fault: &Fault) {
        let Some(window) = self.find(fault.address) else {
            // It was closed meanwhile, and whoever touches it still is told so by the kernel.
            let page = placement::PAGE_SIZE as usize;
            return self.space.wake(Addresses {
                base: fault.address & !(page - 1),
                bytes: page,
            });
        };
        let page = window.page_at(fault.address);
        let clock = &self.device.clock;
        let work = || {
            self.serve_here(&window, page, fault);
            // If it was released meanwhile, it was locked and left to us.
            self.device.release_batch();
        };
        clock.on_behalf(&mut || match clock.takes_turns() {
            // Which thread serves is chance, and runs are to be the same again.
            true => in_lane(0, work),
            false => work(),
        });
        // Last: whoever waited finds nothing of this under way any more.
        let run = window.run_at(page);
        drop(window);
        self.space.wake(run);
    }
}

impl Registry {
    fn serve_here(&self, window: &WindowCore, page: u64, fault: &Fault) {
        // Relaxed: counts for people.
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        if window.is_settled(page) {
            return count(&self.counters.coalesced);
        }
        let since = self.device.clock.now();
        let mut context = OpContext::new();
        if let Some(patience) = self.config.patience_ns {
            context = context.until(since.after_nanos(patience));
        }
        let served = with_ask(&self.device, context, |ask| {
            window.serve(page, fault.thread, ask)
        });
        let object = window.bo.id;
        match served {
            Ok(0) => count(&self.counters.coalesced),
            Ok(pages) => {
                count(&self.counters.faults);
                let write = fault.write;
                self.device.emit(Event::Faulted {
                    object,
                    page,
                    pages,
                    write,
                    since,
                });
            }
            Err(error) => {
                count(&self.counters.poisoned);
                let because = reason(&error);
                // First: the signal may be the end of the process.
                self.device.emit(Event::Poisoned {
                    object,
                    page,
                    because,
                });
                window.poison(page);
            }
        }
    }
}

impl WindowCore {
    fn serve(&self, page: u64, thread: u64, ask: &Ask<'_>) -> Result<u64> {
        let bo: &BoCore = &self.bo;
        let ask = &Ask {
            wanted_by: bo.id,
            group: bo.group.as_deref(),
            ..*ask
        };
        let reservation = bo.reservation();
        let guard = match Guard::try_take(reservation, ask.ticket) {
            Some(guard) => guard,
            None => {
                if thread != 0 && bo.device.domain.is_held_by(reservation, thread) {
                    // This may be of an access that was let go on meanwhile, by a thread that has
                    // locked the object since. One that does wait is woken and comes again.
                    return match self.comes_again(thread) {
                        true => Err(Error::Unsupported(SELF)),
                        false => Ok(0),
                    };
                }
                wait_lock(&ask.ticket, ask.context, reservation, false)?;
                Guard::of(reservation, ask.ticket, true)
            }
        };
        let held = guard.held();
        let mut state = bo.state(&held);
        let writes = self.access == Access::ReadWrite;
        // Somebody may have shown it while we waited.
        if self.is_settled(page) {
            return Ok(0);
        }
        let shown = bo.reach(&held, &mut state, self.run_of(page), writes, ask)?;
        self.show_run(page, &shown)
    }
}

fn reason(error: &Error) -> &'static str {
    match error {
        Error::Unsupported(why) | Error::Invalid(why) => why,
        Error::Purged => "the content was thrown away with its owner's consent",
        Error::ContentLost => "the content was in memory that is gone",
        Error::DeviceLost => "the device is lost",
        Error::Pinned => "the object is pinned where the CPU cannot reach it",
        Error::NoMemory { .. } => "system memory ran out",
        Error::NoSpace(_) | Error::TooBig { .. } | Error::OverLimit { .. } => {
            "no place that the CPU reaches has room"
        }
        Error::NoMappings { .. } => "the budget of mappings is used up",
        Error::Corrupt(_) => "the backup gave back something else than it was given",
        Error::Backup(_) => "the backup could not be read",
        Error::TimedOut => "the content did not come in time",
        Error::Stalled(_) => "the content can never come: nobody is left who could signal",
        _ => "the backend failed",
    }
}
