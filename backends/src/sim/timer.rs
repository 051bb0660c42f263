//! Making something happen later, on either clock.

use std::collections::BTreeMap;
use std::io;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ttm::clock::{Clock, Time};
use ttm::sync::Arc;

use super::clock::{Call, VirtualClock};

/// Calls something at a moment. One lane's calls never overlap.
pub(super) enum Timer {
    /// By events of the virtual clock.
    Virtual(Arc<VirtualClock>),
    /// By a thread of the lane's own, which ends when the timer drops.
    Wall(Sender<(Time, Call)>),
}

impl Timer {
    /// A timer over the wall clock, and its thread.
    pub(super) fn wall(name: &str, clock: Arc<dyn Clock>) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = unbounded();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&receiver, &*clock))?;
        Ok((Self::Wall(sender), thread))
    }

    /// Makes `call` happen at `at`, or soon if that is past.
    pub(super) fn schedule(&self, at: Time, call: Call) {
        match self {
            Self::Virtual(clock) => clock.schedule(at, call),
            // The thread ends only with the timer, so the channel is open.
            Self::Wall(sender) => drop(sender.send((at, call))),
        }
    }
}

fn run(receiver: &Receiver<(Time, Call)>, clock: &dyn Clock) {
    let mut waiting: BTreeMap<(Time, u64), Call> = BTreeMap::new();
    let mut sequence = 0;
    loop {
        let now = clock.now();
        let next = waiting.keys().next().copied();
        let received = match next {
            Some(due) if due.0 <= now => {
                let call = waiting.remove(&due).expect("its key was just seen");
                call(now);
                continue;
            }
            Some((at, _)) => receiver.recv_timeout(at.since(now)),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok((at, call)) => {
                sequence += 1;
                waiting.insert((at, sequence), call);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
