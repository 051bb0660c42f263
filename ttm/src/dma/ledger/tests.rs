//! A case for each class, told to a ledger as somebody would who has no types; then what the types
//! let through, and the ledger itself.

use super::*;
use crate::dma::fixture::{Machine, Platform};
use crate::dma::{AnyStreaming, Backing, Direction, DmaAddr, Keep, MapAttrs, OwnedMemory, dir};
use crate::pages::{FrameSpan, Zone};
use crate::sync::Arc;
use placement::PageCount;

const DEVICE: u64 = 7;

fn record() -> Record {
    Record {
        device: DEVICE,
        kind: Kind::Single,
        addr: 0x1000,
        len: 0x100,
        direction: Direction::Both,
        segments: 1,
        attrs: RecordAttrs::empty(),
        memory: 1,
        origin: Origin::Backing,
        bytes: vec![(0, 0x1000, 0x1100)],
        line: 64,
    }
}

fn map(ledger: &Ledger, record: &Record) -> Ticket {
    ledger.mapped(record.clone(), &[], &SegmentParms::DEFAULT)
}

/// Maps, looks at the result, and unmaps as something else.
fn freed_as(ledger: &Ledger, change: impl Fn(&mut Record)) {
    let ticket = map(ledger, &record());
    ledger.checked(ticket);
    let mut record = record();
    change(&mut record);
    let ticket = None;
    ledger.unmapped(&Claim { record, ticket });
}

/// Maps and syncs as something else.
fn synced_as(ledger: &Ledger, mapped: Direction, to: SyncTo, change: impl Fn(&mut Synced)) {
    let direction = mapped;
    map(
        ledger,
        &Record {
            direction,
            ..record()
        },
    );
    let mut sync = Synced {
        device: DEVICE,
        addr: 0x1000,
        len: 0x100,
        direction,
        to,
        segments: Some(1),
    };
    change(&mut sync);
    ledger.synced(&sync);
}

fn of_origin(ledger: &Ledger, origin: Origin) {
    map(ledger, &Record { origin, ..record() });
}

fn with_segment(ledger: &Ledger, addr: u64, len: u64, parms: &SegmentParms) {
    let addr = DmaAddr::new(addr).unwrap();
    let bus = false;
    ledger.mapped(record(), &[DmaSegment { addr, len, bus }], parms);
}

/// Does what a class is of, to a ledger of its own.
fn commit(ledger: &Ledger, class: Class) {
    use Direction::{Both, FromDevice, ToDevice};
    match class {
        Class::Leak => {
            map(ledger, &record());
            ledger.released(DEVICE);
        }
        Class::FreeOfError => freed_as(ledger, |claim| claim.addr = u64::MAX),
        Class::FreeOfUnmapped => freed_as(ledger, |claim| claim.addr = 0x2000),
        Class::FreeOfOtherSize => freed_as(ledger, |claim| claim.len = 0x80),
        Class::FreeAsOtherKind => freed_as(ledger, |claim| claim.kind = Kind::List),
        Class::FreeOfOtherMemory => freed_as(ledger, |claim| claim.memory = 2),
        Class::FreeOfOtherCount => freed_as(ledger, |claim| claim.segments = 2),
        Class::FreeInOtherDirection => freed_as(ledger, |claim| claim.direction = ToDevice),
        Class::Unchecked => {
            map(ledger, &record());
            let (record, ticket) = (record(), None);
            ledger.unmapped(&Claim { record, ticket });
        }
        Class::FreeWithOtherAttrs => {
            freed_as(ledger, |claim| claim.attrs = RecordAttrs::PRIVILEGED);
        }
        Class::Stack => of_origin(ledger, Origin::Stack),
        Class::ReadOnlyMemory => of_origin(ledger, Origin::ReadOnly),
        Class::InvalidMemory => of_origin(ledger, Origin::Invalid),
        Class::Unregistered => of_origin(ledger, Origin::Unregistered),
        Class::MemoryAsRegisters => of_origin(ledger, Origin::AsRegisters),
        Class::SyncOfUnmapped => synced_as(ledger, Both, SyncTo::Cpu, |s| s.addr = 0x1100),
        Class::SyncOutOfRange => synced_as(ledger, Both, SyncTo::Cpu, |s| s.len = 0x101),
        Class::SyncInOtherDirection => {
            synced_as(ledger, FromDevice, SyncTo::Cpu, |s| s.direction = Both);
        }
        Class::SyncForCpuOfReadOnly => {
            synced_as(ledger, ToDevice, SyncTo::Cpu, |s| s.direction = FromDevice);
        }
        Class::SyncForDeviceOfWriteOnly => {
            synced_as(ledger, FromDevice, SyncTo::Device, |s| {
                s.direction = ToDevice
            });
        }
        Class::SyncOfOtherCount => {
            synced_as(ledger, Both, SyncTo::Cpu, |s| s.segments = Some(2));
        }
        Class::SegmentTooLong => with_segment(ledger, 0, 0x1_0001, &SegmentParms::DEFAULT),
        Class::SegmentAcrossBoundary => {
            let parms = SegmentParms {
                boundary_mask: 0xfff,
                ..SegmentParms::DEFAULT
            };
            with_segment(ledger, 0xf00, 0x200, &parms);
        }
        Class::OverlappingLines => overlapping(ledger, 2),
        Class::TooManyOverlaps => overlapping(ledger, 9),
        Class::LateWrite => {
            let text = "told by a device".into();
            ledger.offence(class, None, text, false);
        }
    }
}

/// Mappings of the same line, each a byte on.
fn overlapping(ledger: &Ledger, count: u64) {
    for n in 0..count {
        let first = 0x1000 + n;
        map(
            ledger,
            &Record {
                addr: first,
                bytes: vec![(0, first, first + 1)],
                ..record()
            },
        );
    }
}

#[test]
fn each_class_is_found_and_no_other() {
    for class in Class::ALL {
        let ledger = Ledger::new(100);
        commit(&ledger, class);
        assert!(ledger.count(class) >= 1, "{class} was not found");
        for other in Class::ALL {
            let comes_with_it = class == Class::TooManyOverlaps && other == Class::OverlappingLines;
            if other != class && !comes_with_it {
                assert_eq!(ledger.count(other), 0, "{class}: {other}");
            }
        }
        let report = ledger.verdict().unwrap_err();
        assert_eq!(report.violations[0].site.file(), file!());
        assert!(!report.switched_off);
    }
}

#[test]
fn codes_are_stable_and_each_class_says_what_the_types_do() {
    for (n, class) in Class::ALL.into_iter().enumerate() {
        assert_eq!(class as usize, n);
        let code = format!("L{:02} ", n + 1);
        assert!(class.to_string().starts_with(&code), "{class}");
        let (Typed::Found(text) | Typed::Impossible(text)) = class.typed();
        assert!(!text.is_empty());
    }
    assert_eq!(Class::ALL.len(), 26);
}

#[test]
fn what_is_done_right_is_no_violation() {
    for platform in Platform::ALL {
        let ledger = Arc::new(Ledger::new(10).strict());
        let machine = Machine::with(platform, 1, |dma| dma.with_ledger(Arc::clone(&ledger)));
        for _ in 0..3 {
            let backing = Backing::alloc(&machine.source(), 9000, Zone::Normal).unwrap();
            let attrs = MapAttrs::new().allow_bounce();
            let mapped = machine
                .dma
                .map_streaming(backing, 5..8999, dir::Bidi, &attrs);
            let mut mapped = mapped.unwrap();
            assert_eq!(ledger.live(), 1);
            drop(mapped.to_cpu_range(123..4091));
            let ours = mapped.to_cpu().unwrap();
            ours.to_device().unwrap().unmap(Keep::Sync).unwrap();
            assert_eq!(ledger.live(), 0);
        }
        drop(machine);
        ledger.verdict().unwrap();
    }
}

/// Every class that the types let through, by them.
#[test]
fn what_the_types_let_through_is_found() {
    let ledger = Arc::new(Ledger::new(100));
    let machine = Machine::with(Platform::Coherent, 1, |dma| {
        dma.with_ledger(Arc::clone(&ledger)).with_late_write_check()
    });
    let source = machine.source();
    let alloc = || Backing::alloc(&source, 4096, Zone::Normal).unwrap();
    let attrs = MapAttrs::new();
    let mut both = machine
        .dma
        .map_streaming(alloc(), 0..4096, dir::Bidi, &attrs)
        .unwrap();
    assert!(both.to_cpu_range(4000..4097).is_err());
    both.unmap(Keep::Sync).unwrap();

    let to = machine.dma.map_streaming(alloc(), 0..4096, dir::To, &attrs);
    let mut to = AnyStreaming::from(to.unwrap());
    assert!(to.to_cpu(Direction::Both).is_err());
    to.to_cpu(Direction::ToDevice).unwrap();
    assert!(to.to_device(Direction::Both).is_err());
    to.unmap(Keep::Sync).unwrap();
    let from = machine
        .dma
        .map_streaming(alloc(), 0..4096, dir::From, &attrs);
    let mut from = AnyStreaming::from(from.unwrap());
    from.to_cpu(Direction::FromDevice).unwrap();
    assert!(from.to_device(Direction::ToDevice).is_err());
    from.unmap(Keep::Sync).unwrap();

    let frames = alloc();
    let span = frames.frames()[0];
    let same: Vec<_> = (0..9)
        .map(|n| {
            let backing = Backing::adopt(Box::new(Same([span])));
            let mapped = machine
                .dma
                .map_streaming(backing, n..n + 1, dir::Bidi, &attrs);
            mapped.unwrap()
        })
        .collect();
    for mapping in same {
        mapping.unmap(Keep::Sync).unwrap();
    }

    let timeline = crate::fence::Timeline::new(1, crate::dma::fixture::clock());
    let mut late = machine
        .dma
        .map_streaming(alloc(), 0..4096, dir::Bidi, &attrs)
        .unwrap();
    late.attach_fence(timeline.issue());
    let segment = late.dma().dma_segments()[0];
    drop(late);
    timeline.signal(1);
    machine.dma.reap_quarantine();
    let frame = segment.addr.get() / 4096;
    machine.memory.device_writes(frame, 9, b"late");
    machine.dma.reap_quarantine();

    for class in Class::ALL {
        match class.typed() {
            Typed::Found(_) => assert!(ledger.count(class) > 0, "{class}"),
            Typed::Impossible(_) => assert_eq!(ledger.count(class), 0, "{class}"),
        }
    }
    let report = ledger.verdict().unwrap_err();
    for violation in &report.violations {
        let site = violation.map_site.expect("it was mapped");
        assert_eq!(site.file(), file!(), "{violation}");
    }
}

/// Frames that somebody else has too.
struct Same([FrameSpan; 1]);

impl OwnedMemory for Same {
    fn bytes(&self) -> u64 {
        4096
    }

    fn frames(&self) -> &[FrameSpan] {
        &self.0
    }

    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn write(&self, _: u64, _: &[u8]) {}

    fn maintain(&self, _: core::ops::Range<u64>, _: crate::cache::Maintenance) {}

    fn is_snooped(&self) -> bool {
        true
    }
}

#[test]
fn what_may_overlap_is_no_violation() {
    for change in [
        |record: &mut Record| record.direction = Direction::ToDevice,
        |record: &mut Record| record.attrs = RecordAttrs::SKIP_SYNC,
        |record: &mut Record| record.attrs = RecordAttrs::IGNORE_LINES,
        |record: &mut Record| record.attrs = RecordAttrs::COHERENT,
        |record: &mut Record| record.bytes[0].0 = 1,
        |record: &mut Record| record.bytes = vec![(0, 0x1100, 0x1140)],
        |record: &mut Record| record.bytes.clear(),
    ] {
        let ledger = Ledger::new(2).strict();
        map(&ledger, &record());
        let mut other = record();
        change(&mut other);
        map(&ledger, &other);
        ledger.verdict().unwrap();
    }
}

#[test]
fn the_best_of_several_records_at_an_address_is_ended() {
    let ledger = Ledger::new(10);
    let other = Record {
        direction: Direction::ToDevice,
        len: 0x40,
        ..record()
    };
    for record in [&record(), &other] {
        let ticket = map(&ledger, record);
        ledger.checked(ticket);
    }
    for record in [other, record()] {
        let ticket = None;
        ledger.unmapped(&Claim { record, ticket });
    }
    ledger.verdict().unwrap();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_ledger_that_is_full_switches_itself_off_and_fails_the_test() {
    let ledger = Ledger::new(2);
    let pages = PageCount::ONE.get();
    for n in 0..=2 {
        let addr = 0x1_0000 * (n + pages);
        let bytes = Vec::new();
        map(
            &ledger,
            &Record {
                addr,
                bytes,
                ..record()
            },
        );
    }
    let report = ledger.verdict().unwrap_err();
    assert!(report.switched_off && report.total == 0);
    assert!(report.to_string().contains("switched off"), "{report}");
    // What comes now is not looked at.
    commit(&ledger, Class::FreeOfUnmapped);
    assert_eq!(ledger.count(Class::FreeOfUnmapped), 0);
}

#[test]
fn violations_are_counted_without_end_and_kept_up_to_a_bound() {
    let ledger = Ledger::new(10);
    for _ in 0..1000 {
        commit(&ledger, Class::FreeOfError);
        ledger.released(DEVICE);
    }
    assert_eq!(ledger.count(Class::FreeOfError), 1000);
    assert_eq!(ledger.verdict().unwrap_err().violations.len(), KEPT);
}

#[test]
#[should_panic(expected = "L17 SyncOutOfRange at")]
fn a_strict_ledger_panics_where_it_is_done() {
    commit(&Ledger::new(10).strict(), Class::SyncOutOfRange);
}
