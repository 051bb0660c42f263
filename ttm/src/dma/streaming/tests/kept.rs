//! What a device may still use is not freed.

use super::*;
use crate::dma::{Class, DeviceReset, Ledger};
use crate::fence::FenceError;

fn watched(platform: Platform, late: bool) -> (Machine, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::new(100));
    let machine = Machine::with(platform, 1, |device| {
        let device = device.with_ledger(Arc::clone(&ledger));
        match late {
            true => device.with_late_write_check(),
            false => device,
        }
    });
    (machine, ledger)
}

#[test]
fn a_pending_fence_keeps_the_buffer_from_the_cpu() {
    let machine = Machine::new(Platform::Coherent, 1);
    let timeline = timeline();
    let mut theirs = mapped(&machine, 0..BYTES, dir::Bidi);
    let fence = timeline.issue();
    theirs.attach_fence(fence);
    let (pending, lost) = (1, 0);
    let waits = DmaError::FencePending { pending, lost };
    let (theirs, error) = theirs.to_cpu().unwrap_err();
    assert_eq!(error, waits);
    assert!(error.is_retryable());
    let (theirs, error) = theirs.unmap(Keep::Sync).unwrap_err();
    assert_eq!(error, waits);
    timeline.signal(1);
    let ours = theirs.to_cpu().unwrap();
    // The fences of the last turn do not count for the next.
    ours.to_device().unwrap().unmap(Keep::Sync).unwrap();
}

#[test]
fn what_is_dropped_while_the_device_owns_it_stays_until_its_fences() {
    for platform in Platform::ALL {
        let (machine, ledger) = watched(platform, false);
        let timeline = timeline();
        let mut theirs = mapped(&machine, 0..BYTES, dir::Bidi);
        theirs.attach_fence(timeline.issue());
        let list = Arc::clone(theirs.inner.hold().mapping().list());
        drop(theirs);
        assert_eq!(machine.memory.taken().get(), 3, "{platform:?}");
        assert_eq!(machine.dma.reap_quarantine(), 0);
        // The device reaches it as before.
        machine.device.write(&list, 0, b"late, but in order");
        timeline.signal(1);
        assert_eq!(machine.dma.reap_quarantine(), 1);
        assert_eq!(machine.memory.taken().get(), 0);
        let stats = machine.dma.stats();
        assert_eq!(
            (stats.quarantined, stats.reaped, stats.in_quarantine),
            (1, 1, 0)
        );
        assert_eq!(machine.pool.stats().used, 0);
        assert_eq!(ledger.count(Class::Leak), 1);
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn without_a_fence_or_with_one_that_was_given_up_only_a_reset_frees() {
    let (machine, ledger) = watched(Platform::Coherent, false);
    drop(mapped(&machine, 0..BYTES, dir::To));
    let timeline = timeline();
    for error in [FenceError::DeviceLost, FenceError::Failed] {
        let mut theirs = mapped(&machine, 0..BYTES, dir::To);
        let fence = timeline.issue();
        theirs.attach_fence(fence.clone());
        timeline.fail(fence.seqno(), error);
        if error == FenceError::DeviceLost {
            let (pending, lost) = (0, 1);
            let (back, refused) = theirs.unmap(Keep::Sync).unwrap_err();
            assert_eq!(refused, DmaError::FencePending { pending, lost });
            assert!(!refused.is_retryable());
            theirs = back;
        }
        drop(theirs);
    }
    // Work that failed is over.
    assert_eq!(machine.dma.reap_quarantine(), 1);
    assert_eq!(machine.dma.stats().in_quarantine, 2);
    let reset = DeviceReset::done("a function level reset");
    assert_eq!(machine.dma.release_quarantine(reset), 2);
    assert_eq!(machine.memory.taken().get(), 0);
    assert_eq!(ledger.count(Class::Leak), 3);
}

#[test]
fn what_the_cpu_owns_is_freed_by_its_drop() {
    let (machine, ledger) = watched(Platform::Forced, false);
    drop(mapped(&machine, 0..BYTES, dir::Bidi).to_cpu().unwrap());
    assert_eq!(machine.memory.taken().get(), 0);
    assert_eq!((machine.pool.stats().used, ledger.live()), (0, 0));
    ledger.verdict().unwrap();
}

/// F-28: the device writes after its fence.
#[test]
fn a_device_that_writes_late_is_found_and_its_memory_is_nobodys() {
    for platform in Platform::ALL {
        let (machine, ledger) = watched(platform, true);
        let timeline = timeline();
        let mut lists = Vec::new();
        for _ in 0..2 {
            let mut theirs = mapped(&machine, 10..BYTES, dir::Bidi);
            theirs.attach_fence(timeline.issue());
            lists.push(Arc::clone(theirs.inner.hold().mapping().list()));
            drop(theirs);
        }
        timeline.signal(2);
        // The pattern is written.
        assert_eq!(machine.dma.reap_quarantine(), 0);
        machine.device.write(&lists[1], 5000, b"late");
        machine.memory.tick(100);
        assert_eq!(machine.dma.reap_quarantine(), 1, "{platform:?}");
        assert_eq!(ledger.count(Class::LateWrite), 1);
        let stats = machine.dma.stats();
        assert_eq!((stats.late_writes, stats.in_quarantine), (1, 0));
        assert_eq!(machine.memory.taken().get(), 3, "never anybody's again");
    }
}

#[test]
fn what_is_left_when_its_device_goes_is_lost_and_reported() {
    let (machine, ledger) = watched(Platform::Coherent, false);
    let memory = Arc::clone(&machine.memory);
    drop(mapped(&machine, 0..BYTES, dir::To));
    assert_eq!(ledger.count(Class::Leak), 1);
    drop(machine);
    assert_eq!(ledger.count(Class::Leak), 2);
    assert_eq!((memory.taken().get(), ledger.live()), (3, 0));
}
