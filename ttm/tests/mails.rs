//! The five discussions that the DMA layer answers, replayed: what was asked for, and what happens
//! here.

use ttm::dma::{
    AttachOutcome, AttachRequest, BusRange, Code, Constraints, CpuUse, Decision, DmaAddr, DmaError,
    FrameBytes, Mask, MaskChange, Masks, Memory, Need, PageList, Path, SegmentParms, Share,
    SkipSync, Solver, Storage, StorageKind, Tri, Verdict, choose,
};
use ttm::pages::FrameSpan;
use ttm::placement::PageCount;

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
