//! The five discussions that the DMA layer answers, replayed: what was asked for, and what happens
//! here.

use ttm::cache::CacheMode;
use ttm::dma::fixture::{Machine, Platform};
use ttm::dma::{
    Access, AllocAttrs, AttachOutcome, AttachRequest, Backing, BounceMemory, BounceRequest,
    BusRange, Class, Code, Constraints, CpuUse, Decision, Direction, DmaAddr, DmaDevice, DmaError,
    FrameBytes, Keep, Ledger, MapAttrs, Mask, MaskChange, Masks, Memory, Need, NotCoherent,
    PageList, Path, SegmentParms, Share, SharedStreaming, SkipSync, Solver, Storage, StorageKind,
    Tri, Unmap, Verdict, choose, dir,
};
use ttm::pages::{FrameSpan, PageSource, Zone};
use ttm::placement::PageCount;
use ttm::sync::Arc;

fn snooping(path: Path) -> Verdict {
    Verdict::for_tests(path)
}

/// A driver of a virtual card wants to know whether streaming mappings are coherent, and asked
/// whether the path is direct instead. Path and coherency are two things; a forced bounce is a third,
/// and no reason to give graphics up.
#[test]
fn mail_000_one_question_was_answered_by_another() {
    for path in [
        Path::Direct,
        Path::Identity,
        Path::Translated { strict: true },
        Path::Translated { strict: false },
    ] {
        let seen = snooping(path);
        assert_eq!(seen.streaming_is_coherent(), Some(true), "{path}");
        let deaf = Verdict {
            snoop: Tri::No,
            ..snooping(path)
        };
        assert_eq!(deaf.streaming_is_coherent(), Some(false), "{path}");
    }
    let forced = Verdict {
        forced_bounce: Tri::Yes,
        ..snooping(Path::Direct)
    };
    assert_eq!(forced.streaming_is_coherent(), Some(false));
    assert_eq!(
        choose(&forced, &Need::default()).decision,
        Decision::Coherent
    );
    // Translated paths do not ask what direct ones do.
    let translated = Verdict {
        path: Path::Translated { strict: true },
        ..forced
    };
    assert_eq!(translated.streaming_is_coherent(), Some(true));
    // Demanded of one mapping, it fails with the cause.
    let demanded = Need {
        coherent: true,
        memory: Memory::Foreign { end: 1 << 33 },
        ..Need::default()
    };
    let narrow = Verdict {
        mask: Mask::bits(32),
        ..snooping(Path::Direct)
    };
    let refused = choose(&narrow, &demanded);
    assert_eq!(refused.code, Code::D01);
    let text = format!("{}: {}", refused.code, refused.reason);
    assert!(text.contains("above the device's 32-bit mask"), "{text}");
}

/// The same driver with this crate: it demands what it cannot do without of each mapping, and where
/// the platform copies, it allocates instead of giving graphics up.
#[test]
fn mail_000_replayed_by_a_driver() {
    let user_memory = |machine: &Machine| {
        let backing = Backing::alloc(&machine.source(), 8192, Zone::Normal).unwrap();
        backing.write(0, b"vertices").unwrap();
        backing
    };
    let demand = MapAttrs::new().require_coherent();
    for platform in [Platform::Coherent, Platform::Translated] {
        let machine = Machine::new(platform, 1);
        let mapped = machine
            .dma
            .map_streaming(user_memory(&machine), 0..8192, dir::Bidi, &demand)
            .unwrap();
        assert!(!mapped.need_sync() && !machine.dma.device_need_sync());
        let mut seen = [0; 8];
        machine.device.read(mapped.dma(), 0, &mut seen);
        assert_eq!(&seen, b"vertices");
        mapped.unmap(Keep::Sync).unwrap();
    }
    for platform in [Platform::Forced, Platform::Narrow] {
        let machine = Machine::new(platform, 1);
        let refused = machine
            .dma
            .map_streaming(user_memory(&machine), 0..8192, dir::Bidi, &demand);
        let (backing, error) = refused.map(drop).unwrap_err();
        let DmaError::NotCoherent { cause } = error else {
            panic!("{error}");
        };
        match platform {
            Platform::Forced => assert_eq!(cause, NotCoherent::ForcedBounce),
            _ => assert!(matches!(cause, NotCoherent::AboveMask { .. }), "{cause}"),
        }
        assert_eq!(backing.bytes(), 8192, "nothing is lost");
        // What the table says to do: it is not copied.
        let granted = machine
            .dma
            .alloc_coherent(
                &machine.source(),
                8192,
                CacheMode::Cached,
                AllocAttrs::new(),
            )
            .unwrap();
        assert_eq!(granted.got, CacheMode::Cached);
        let ring = granted.buf;
        ring.store_u64(8, 42).unwrap();
        ring.publish();
        let mut seen = [0; 8];
        machine.device.read(ring.dma(), 8, &mut seen);
        assert_eq!(u64::from_ne_bytes(seen), 42);
        assert_eq!(machine.dma.stats().bounced_bytes, 0);
        ring.free().unwrap();
    }
}

/// A disk controller's driver: mask 32, buffers, mask 64, buffers, then a streaming mask of 32 for
/// some ports. The path depends on none of it, and no mask falls below what is mapped.
#[test]
fn mail_001_masks_change_while_buffers_are_there() {
    let mut masks = Masks::new(Mask::bits(24));
    assert_eq!(masks.set_both(Mask::bits(32)), Ok(MaskChange::Same));
    masks.enter_coherent(0x8000_0000, 4096).unwrap();
    assert_eq!(masks.set_both(Mask::ALL), Ok(MaskChange::Widened));
    masks.enter_coherent(0x1_0000_0000, 4096).unwrap();
    // Streaming alone may be narrow: nothing is mapped so.
    assert_eq!(
        masks.set_streaming(Mask::bits(32)),
        Ok(MaskChange::Narrowed)
    );
    assert_eq!(masks.coherent(), Mask::ALL);
    let refused = masks.set_coherent(Mask::bits(32));
    assert!(matches!(
        refused,
        Err(DmaError::MaskNarrowedWhileLive { live: 2, .. })
    ));
    let seen = Verdict {
        mask: masks.streaming(),
        ..snooping(Path::Translated { strict: true })
    };
    assert_eq!(choose(&seen, &Need::default()).code, Code::D27);
}

/// Device pages and CPU pages of one list are different things: a device's may be fewer, and
/// another device's memory has no CPU pages at all.
#[test]
fn mail_002_a_lists_two_sides_are_walked_apart() {
    let span = |first, pages| FrameSpan {
        file: 0,
        first,
        pages: PageCount::new(pages).unwrap(),
    };
    let spans = [span(7, 1), span(3, 1), span(20, 2)];
    let parms = SegmentParms::DEFAULT;
    let bytes = FrameBytes {
        spans: &spans,
        offset: 0,
        len: 4 * 4096,
    };
    let list = PageList::build(&parms, bytes).unwrap();
    assert_eq!(list.cpu_segments().len(), 3);
    let at = DmaAddr::new(0x10_0000).unwrap();
    let mapped = list.layout(&parms, 4096).unwrap().at(at).unwrap();
    // Translated, it is one for the device.
    assert_eq!(mapped.dma_segments().len(), 1);
    assert_eq!(mapped.cpu_pages().unwrap().count(), 4);
    assert_eq!(mapped.dma_pages(4096).unwrap().count(), 4);
    assert_eq!(mapped.dma_pages(8192).unwrap().count(), 2);
}

/// What the mail was about: memory for a graphics device, in runs that lie anywhere, in the mode that
/// the device needs, and moved. The device's pages are walked by the mapping that the device has now.
#[test]
fn mail_002_replayed_by_a_driver() {
    let machine = Machine::new(Platform::TranslatedDeaf, 1);
    machine.memory.fragment();
    let backing = Backing::alloc(&machine.source(), 4 * 4096, Zone::Normal).unwrap();
    backing.write(3 * 4096, b"texture").unwrap();
    assert_eq!(backing.frames().len(), 4);
    let attrs = MapAttrs::new();
    let mapped = machine
        .dma
        .map_streaming(backing, 0..4 * 4096, dir::Bidi, &attrs);
    let mapped = mapped.unwrap();
    let list = mapped.dma();
    assert_eq!(list.cpu_segments().map(<[_]>::len), Some(4));
    assert_eq!(list.dma_segments().len(), 1);
    assert_eq!(list.dma_pages(4096).unwrap().count(), 4);
    let backing = mapped.unmap(Keep::Sync).unwrap();

    // It moves: to memory that was allocated for the device, write-combined.
    let asked = CacheMode::WriteCombined;
    let source = machine.source();
    let granted = machine
        .dma
        .alloc_coherent(&source, 4 * 4096, asked, AllocAttrs::new())
        .unwrap();
    assert_eq!(granted.got, asked);
    let new = granted.buf;
    let mut bytes = vec![0; 4 * 4096];
    backing.read(0, &mut bytes).unwrap();
    new.write(0, &bytes).unwrap();
    new.publish();
    drop(backing);
    let mut seen = [0; 7];
    machine.device.read(new.dma(), 3 * 4096, &mut seen);
    assert_eq!(&seen, b"texture");
    new.free().unwrap();
    // Of a device that snoops, the same is cached, and that is said.
    let snooping = Machine::new(Platform::Translated, 1);
    let source = snooping.source();
    let granted = snooping
        .dma
        .alloc_coherent(&source, 4096, asked, AllocAttrs::new())
        .unwrap();
    assert_eq!((granted.asked, granted.got), (asked, CacheMode::Cached));
    granted.buf.free().unwrap();
}

/// A camera attaches to a buffer that a display has mapped already, and can take one segment only.
/// Before the first mapping that narrows the choice; after it, it is a move if that is possible, and
/// refused, with the field, if not.
#[test]
fn mail_003_a_strict_device_attaches_late() {
    let one_piece = Constraints {
        max_segments: Some(1),
        ..Constraints::ANY
    };
    let display = |dynamic| AttachRequest {
        name: "display",
        constraints: Constraints::ANY,
        dynamic,
    };
    let camera = AttachRequest {
        name: "camera",
        constraints: one_piece,
        dynamic: false,
    };
    let piece = |addr, len| BusRange {
        addr: DmaAddr::new(addr).unwrap(),
        len,
    };
    let scattered = || {
        let pieces = [piece(0x10_0000, 4096), piece(0x20_0000, 4096)];
        Storage::new(StorageKind::Ram, &pieces).unwrap()
    };
    for dynamic in [true, false] {
        let mut solver = Solver::new(Constraints::ANY).unwrap();
        let AttachOutcome::Fits(id) = solver.attach(&display(dynamic)) else {
            panic!("nothing is stored yet");
        };
        solver.settle(scattered()).unwrap();
        solver.map(id);
        match solver.attach(&camera) {
            AttachOutcome::MigrateFirst(plan) if dynamic => {
                assert_eq!(plan.unmap, [id]);
                assert_eq!(plan.to.max_segments, Some(1));
            }
            AttachOutcome::Incompatible { .. } if !dynamic => {}
            other => panic!("{dynamic}: {other:?}"),
        }
    }
    // All attach first: then the storage is chosen for both.
    let mut solver = Solver::new(Constraints::ANY).unwrap();
    assert!(matches!(
        solver.attach(&display(false)),
        AttachOutcome::Fits(_)
    ));
    assert!(matches!(solver.attach(&camera), AttachOutcome::Fits(_)));
    assert!(solver.settle(scattered()).is_err());
    let whole = Storage::new(StorageKind::Ram, &[piece(0x10_0000, 8192)]).unwrap();
    solver.settle(whole).unwrap();
    assert!(solver.explain().unwrap().to_string().contains("camera"));
}

/// A heap maps one buffer for several devices and skips the syncs. With a copy on the way each
/// device has its own, and data is lost: so a shared buffer is never copied, and a sync is skipped
/// only for what a device owns already.
#[test]
fn mail_004_a_shared_buffer_is_never_copied() {
    let shared = Need {
        share: Share::Shared,
        cpu_use: CpuUse::Bracketed,
        memory: Memory::Foreign { end: 1 << 33 },
        allow_bounce: true,
        ..Need::default()
    };
    let forced = Verdict {
        forced_bounce: Tri::Yes,
        ..snooping(Path::Direct)
    };
    let narrow = Verdict {
        mask: Mask::bits(32),
        bounce_pool: Tri::Yes,
        ..snooping(Path::Direct)
    };
    for bounced in [&forced, &narrow] {
        let refused = choose(bounced, &shared).decision;
        assert!(
            matches!(
                refused,
                Decision::Refuse(DmaError::WouldBounceShared { .. })
            ),
            "{refused:?}"
        );
        // One device alone may, if it is allowed.
        let alone = Need {
            share: Share::Exclusive,
            ..shared
        };
        assert!(choose(bounced, &alone).decision.copies());
        // Not while it skips the sync that the copy needs.
        let skipping = Need {
            skip_sync: SkipSync::Proven,
            ..alone
        };
        assert!(!choose(bounced, &skipping).decision.copies());
    }
    let unproven = Need {
        skip_sync: SkipSync::Unproven,
        ..shared
    };
    let refused = choose(&snooping(Path::Direct), &unproven);
    assert_eq!(
        refused.decision,
        Decision::Refuse(DmaError::SkipSyncWithoutProof)
    );
    // Where nothing is copied, sharing is fine.
    assert_eq!(
        choose(&snooping(Path::Direct), &shared).decision,
        Decision::Streaming
    );
}

/// The heap with this crate. What it did with copies on the way, in the pool itself; then what there
/// is in place of it.
#[test]
fn mail_004_replayed_by_a_heap() {
    let forced = Machine::new(Platform::Forced, 1);
    // As it was: mapped with a copy, the syncs skipped. The device's frame is gone.
    let mut buffer = *b"before";
    let request = BounceRequest::new(0, Direction::FromDevice);
    let copy = forced.pool.map(&mut buffer, &request).unwrap();
    forced.pool.memory().put(0, b"frame!");
    assert_eq!(forced.pool.unmap(copy, Unmap::SkipSync), b"before");

    // Shared, it is refused at the first device already.
    let alloc = |machine: &Machine| {
        let backing = Backing::alloc(&machine.source(), 4096, Zone::Normal);
        backing.unwrap()
    };
    let allowed = MapAttrs::new().allow_bounce();
    let shared = SharedStreaming::new(alloc(&forced), 0..4096).unwrap();
    let refused = shared.attach(&forced.dma, Direction::FromDevice, &allowed);
    let cause = NotCoherent::ForcedBounce;
    assert_eq!(refused, Err(DmaError::WouldBounceShared { cause }));
    // One device alone, bracketed, gets its copies, both ways.
    let mapped = forced
        .dma
        .map_streaming(alloc(&forced), 0..4096, dir::Bidi, &allowed)
        .unwrap();
    forced.device.write(mapped.dma(), 0, b"frame!");
    let mut ours = mapped.to_cpu().unwrap();
    let mut seen = [0; 6];
    ours.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"frame!");
    ours.write(0, b"answer").unwrap();
    let theirs = ours.to_device().unwrap();
    forced.device.read(theirs.dma(), 0, &mut seen);
    assert_eq!(&seen, b"answer");
    theirs.unmap(Keep::Sync).unwrap();

    // Where nothing is copied, several devices that do not snoop have one buffer, and the second
    // skips the maintenance by the proof of the first.
    let ledger = Arc::new(Ledger::new(100));
    let watched = |dma: DmaDevice| dma.with_ledger(Arc::clone(&ledger));
    let camera = Machine::with(Platform::Deaf, 1, watched);
    let display = Machine::beside(
        Platform::TranslatedDeaf,
        Arc::clone(&camera.memory),
        watched,
    );
    let mut shared = SharedStreaming::new(alloc(&camera), 0..4096).unwrap();
    let first = shared
        .attach(&camera.dma, Direction::FromDevice, &MapAttrs::new())
        .unwrap();
    let maintained = camera.memory.maintained();
    let skip = MapAttrs::new().skip_cpu_sync(shared.device_owned_proof().unwrap());
    let second = shared
        .attach(&display.dma, Direction::ToDevice, &skip)
        .unwrap();
    assert_eq!(camera.memory.maintained(), maintained);
    // Of another buffer it proves nothing.
    let other = SharedStreaming::new(alloc(&camera), 0..4096).unwrap();
    let refused = other.attach(&display.dma, Direction::ToDevice, &skip);
    assert_eq!(refused, Err(DmaError::SkipSyncWithoutProof));
    camera
        .device
        .write(&shared.dma(first).unwrap(), 0, b"frame!");
    camera.memory.tick(1000);
    display
        .device
        .read(&shared.dma(second).unwrap(), 0, &mut seen);
    assert_eq!(&seen, b"frame!");
    let mut access = shared.begin_cpu(Access::Write).unwrap();
    access.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"frame!");
    access.write(0, b"marked").unwrap();
    access.end().unwrap();
    display
        .device
        .read(&shared.dma(second).unwrap(), 0, &mut seen);
    assert_eq!(&seen, b"marked");
    for id in [first, second] {
        shared.detach(id).unwrap();
    }
    drop((shared.into_backing().unwrap(), other));
    assert_eq!(ledger.count(Class::Leak), 0);
    ledger.verdict().unwrap();
    assert_eq!(camera.memory.taken().get(), 0);
}
