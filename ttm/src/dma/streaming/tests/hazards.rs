//! What goes wrong where somebody lies or leaves a step out: the model shows it, so that what is
//! right above is right for a reason.

use super::*;
use crate::dma::{BounceMemory, BounceRequest, Direction, Unmap};

/// The verdict says that the device snoops, and so does the source.
#[test]
fn without_syncs_on_a_platform_that_needs_them_bytes_are_old() {
    let machine = Machine::new(Platform::DeafAndDenied, 1);
    let backing = backing(&machine);
    backing.write(0, b"news").unwrap();
    let mapped = machine
        .dma
        .map_streaming(backing, 0..BYTES, dir::Bidi, &MapAttrs::new())
        .unwrap();
    assert!(!mapped.need_sync());
    let mut seen = [0; 4];
    machine.device.read(mapped.dma(), 0, &mut seen);
    assert_eq!(seen, [0; 4], "the line was never cleaned");
    machine.device.write(mapped.dma(), 0, b"mine");
    let ours = mapped.to_cpu().unwrap();
    ours.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"news", "nor invalidated");
    // Worse: it is written back some time, over what the device wrote.
    for _ in 0..100 {
        machine.memory.tick(100);
    }
    let theirs = ours.to_device().unwrap();
    machine.device.read(theirs.dma(), 0, &mut seen);
    assert_eq!(&seen, b"news");
    theirs.unmap(Keep::SkipSync).unwrap();
}

/// A source that knows better than the verdict is believed.
#[test]
fn memory_that_is_not_snooped_is_synced_whatever_the_verdict_says() {
    let deaf = Machine::new(Platform::Deaf, 1);
    let machine = Machine::beside(Platform::Coherent, Arc::clone(&deaf.memory), |dma| dma);
    let backing = backing(&machine);
    backing.write(0, b"news").unwrap();
    let mapped = machine
        .dma
        .map_streaming(backing, 0..BYTES, dir::To, &MapAttrs::new())
        .unwrap();
    assert!(mapped.need_sync());
    let mut seen = [0; 4];
    machine.device.read(mapped.dma(), 0, &mut seen);
    assert_eq!(&seen, b"news");
    mapped.unmap(Keep::Sync).unwrap();
}

/// As kernels can be asked for: the pool by itself does not stop it, the typed mapping does.
#[test]
fn a_sync_that_is_skipped_at_a_copy_loses_what_the_device_wrote() {
    let machine = Machine::new(Platform::Forced, 1);
    let mut buffer = *b"before";
    let request = BounceRequest::new(0, Direction::FromDevice);
    let copy = machine.pool.map(&mut buffer, &request).unwrap();
    machine.pool.memory().put(0, b"device");
    let kept = machine.pool.unmap(copy, Unmap::SkipSync);
    assert_eq!(kept, b"before");

    let shared = SharedStreaming::new(backing(&machine), 0..BYTES).unwrap();
    let refused = shared.attach(&machine.dma, Direction::FromDevice, &bouncing());
    assert!(matches!(refused, Err(DmaError::WouldBounceShared { .. })));
}

/// The window would be refused; what it is refused for.
#[test]
fn a_line_that_both_write_loses_one_of_the_writes() {
    let machine = Machine::new(Platform::Deaf, 3);
    let mut theirs = mapped(&machine, 0..BYTES, dir::Bidi);
    assert!(theirs.to_cpu_range(0..4).is_err());
    let (memory, list) = {
        let inner = &theirs.inner;
        let memory = Arc::clone(inner.backing().memory());
        (memory, Arc::clone(inner.hold().mapping().list()))
    };
    // The CPU writes a part of a line, the device another; the line is written back whole.
    memory.write(0, b"cpu!");
    machine.device.write(&list, 8, b"device");
    memory.maintain(0..4, crate::cache::Maintenance::Clean);
    let mut seen = [0; 6];
    machine.device.read(&list, 8, &mut seen);
    assert_eq!(seen, [0; 6]);
    theirs.unmap(Keep::SkipSync).unwrap();
}
