//! Memory that is taken, used by bytes, and given back.

use super::*;
use crate::dma::fixture::{Machine, Platform};

fn machine() -> Machine {
    Machine::new(Platform::Coherent, 1)
}

#[test]
fn it_is_zero_at_first_and_given_back_at_the_end() {
    let machine = machine();
    let backing = Backing::alloc(&machine.source(), 10_000, Zone::Normal).unwrap();
    assert_eq!((backing.bytes(), machine.memory.taken().get()), (10_000, 3));
    let mut seen = [1; 10_000];
    backing.read(0, &mut seen).unwrap();
    assert!(seen.iter().all(|byte| *byte == 0));
    drop(backing);
    assert_eq!(machine.memory.taken().get(), 0);
}

#[test]
fn what_has_no_run_is_taken_in_several_and_read_and_written_across_them() {
    let machine = machine();
    machine.memory.fragment();
    let before = machine.memory.taken();
    let backing = Backing::alloc(&machine.source(), 5 * 4096, Zone::Dma32).unwrap();
    assert_eq!(backing.frames().len(), 5);
    let bytes: Vec<u8> = (0..9000).map(|n| (n % 251) as u8).collect();
    backing.write(3000, &bytes).unwrap();
    let mut seen = vec![0; 9000];
    backing.read(3000, &mut seen).unwrap();
    assert_eq!(seen, bytes);
    // Each page is maintained for itself, and only those that were touched.
    backing.memory().maintain(3000..12_000, Maintenance::Clean);
    assert_eq!(machine.memory.maintained(), 3);
    backing.memory().maintain(4096..4096, Maintenance::Clean);
    assert_eq!(machine.memory.maintained(), 3);
    drop(backing);
    assert_eq!(machine.memory.taken(), before);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_stays_taken() {
    let machine = machine();
    let source = machine.source();
    let refused = |bytes| Backing::alloc(&source, bytes, Zone::Normal).unwrap_err();
    let bytes = 513 * 4096;
    assert_eq!(refused(bytes), DmaError::OutOfMemory { bytes });
    assert!(refused(bytes).is_retryable());
    assert_eq!(refused(0), DmaError::ZeroLength);
    assert_eq!(refused(u64::MAX), DmaError::AddressOverflow);
    let refused = Backing::alloc(&source, 257 * 4096, Zone::Dma32).unwrap_err();
    assert!(refused.is_retryable());
    assert_eq!(machine.memory.taken().get(), 0);
}

#[test]
fn bytes_outside_are_refused() {
    let machine = machine();
    let backing = Backing::alloc(&machine.source(), 100, Zone::Normal).unwrap();
    let (offset, len, buffer) = (99, 2, 100);
    let refused = DmaError::RangeOutOfBuffer {
        offset,
        len,
        buffer,
    };
    assert_eq!(backing.read(99, &mut [0; 2]), Err(refused.clone()));
    assert_eq!(backing.write(99, &[0; 2]), Err(refused));
    let refused = backing.write(u64::MAX, &[0]);
    assert_eq!(refused, Err(DmaError::AddressOverflow));
}

/// Memory of the caller's own, of more bytes than it has.
struct Short(Frames);

impl OwnedMemory for Short {
    fn bytes(&self) -> u64 {
        4097
    }

    fn frames(&self) -> &[FrameSpan] {
        self.0.frames()
    }

    fn read(&self, at: u64, out: &mut [u8]) {
        self.0.read(at, out);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.0.write(at, bytes);
    }

    fn maintain(&self, bytes: Range<u64>, what: Maintenance) {
        self.0.maintain(bytes, what);
    }

    fn is_snooped(&self) -> bool {
        self.0.is_snooped()
    }
}

#[test]
#[should_panic(expected = "4097 bytes in frames of 4096")]
fn memory_that_has_fewer_frames_than_bytes_is_no_backing() {
    let frames = Frames::take(&machine().source(), 4096, Wanted::default()).unwrap();
    let _ = Backing::adopt(Box::new(Short(frames)));
}
