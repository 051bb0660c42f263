//! What is granted, where it lies, that both see it alike, and when it is freed.

use super::*;
use crate::cache::Modes;
use crate::dma::dice::Dice;
use crate::dma::fixture::{FakeMemory, Machine, Platform};
use crate::dma::{Class, Code, DeviceReset, Ledger, Mask, Path, SegmentParms, Tri, Verdict};
use crate::fence::Timeline;
use crate::pages::FrameSpan;

use CacheMode::{Cached, Uncached, WriteCombined};

fn alloc(
    machine: &Machine,
    bytes: u64,
    asked: CacheMode,
) -> Result<Granted<CoherentBuf>, DmaError> {
    let attrs = AllocAttrs::new();
    machine
        .dma
        .alloc_coherent(&machine.source(), bytes, asked, attrs)
}

#[test]
fn the_mode_is_what_the_device_needs_and_is_said() {
    let all = Modes::all();
    let (cached, wc, uncached) = (Modes::CACHED, Modes::WRITE_COMBINED, Modes::UNCACHED);
    for (platform, modes, asked, got) in [
        (Platform::Coherent, all, Cached, Some(Cached)),
        (Platform::Coherent, all, WriteCombined, Some(Cached)),
        (Platform::Coherent, cached, Uncached, Some(Cached)),
        (Platform::Forced, cached, WriteCombined, Some(Cached)),
        (Platform::Deaf, all, Cached, Some(Uncached)),
        (Platform::Deaf, all, WriteCombined, Some(WriteCombined)),
        (Platform::Deaf, all, Uncached, Some(Uncached)),
        (Platform::Deaf, cached | wc, Cached, Some(WriteCombined)),
        (
            Platform::Deaf,
            cached | uncached,
            WriteCombined,
            Some(Uncached),
        ),
        (Platform::Deaf, cached | wc, Uncached, None),
        (Platform::Deaf, cached, Cached, None),
    ] {
        let machine = Machine::new(platform, 1);
        machine.memory.set_modes(modes);
        match (alloc(&machine, 1, asked), got) {
            (Ok(granted), Some(got)) => {
                assert_eq!((granted.asked, granted.got), (asked, got), "{platform:?}");
                assert_eq!(granted.buf.mode(), got);
                granted.buf.free().unwrap();
            }
            (Err(error), None) => {
                assert_eq!(error, DmaError::CoherentUnsupported { asked });
            }
            other => panic!("{platform:?} {modes:?} {asked}: {other:?}"),
        }
        assert_eq!(machine.memory.taken().get(), 0);
    }
}

#[test]
fn both_see_the_same_after_publish_and_observe_whatever_caches_do() {
    for platform in Platform::ALL {
        for asked in [Cached, WriteCombined, Uncached] {
            for seed in 0..20 {
                let machine = Machine::new(platform, seed);
                if seed % 2 == 0 {
                    machine.memory.fragment();
                }
                let dice = &mut Dice::new(seed);
                let buf = alloc(&machine, 3 * 4096, asked).unwrap().buf;
                let mut truth = vec![0_u8; 3 * 4096];
                for _ in 0..100 {
                    machine.memory.tick(dice.below(20));
                    let at = dice.below(3 * 512) * 8;
                    let range = at as usize..at as usize + 8;
                    let value = dice.below(1 << 40);
                    let right = u64::from_ne_bytes(truth[range.clone()].try_into().unwrap());
                    match dice.below(4) {
                        0 => {
                            buf.store_u64(at, value).unwrap();
                            buf.publish();
                            truth[range].copy_from_slice(&value.to_ne_bytes());
                        }
                        1 => {
                            buf.observe();
                            assert_eq!(buf.load_u64(at), Ok(right));
                            assert_eq!(buf.load_u32(at).map(u64::from), {
                                let half = right.to_ne_bytes()[..4].try_into().unwrap();
                                Ok(u64::from(u32::from_ne_bytes(half)))
                            });
                        }
                        2 => {
                            let mut seen = [0; 8];
                            machine.device.read(buf.dma(), at, &mut seen);
                            assert_eq!(u64::from_ne_bytes(seen), right);
                        }
                        _ => {
                            machine.device.write(buf.dma(), at, &value.to_ne_bytes());
                            truth[range].copy_from_slice(&value.to_ne_bytes());
                        }
                    }
                }
                let mut seen = vec![0; 3 * 4096];
                buf.read(0, &mut seen).unwrap();
                assert_eq!(seen, truth, "{platform:?} {asked} {seed}");
                buf.free().unwrap();
                assert_eq!(machine.dma.live_mappings().count, 0);
            }
        }
    }
}

#[test]
fn it_is_whole_pages_zero_and_within_the_coherent_mask() {
    let machine = Machine::new(Platform::Narrow, 1);
    let buf = alloc(&machine, 5000, Cached).unwrap().buf;
    assert_eq!(buf.bytes(), 8192);
    let mut seen = [1; 8192];
    machine.device.read(buf.dma(), 0, &mut seen);
    assert!(seen.iter().all(|byte| *byte == 0));
    // The source gave what is high first.
    let last = buf.dma().dma_segments()[0].last().unwrap();
    assert!(last <= u64::from(u32::MAX));
    // It commits the coherent mask, and that alone.
    machine.dma.set_streaming_mask(Mask::bits(20)).unwrap();
    let narrowed = machine.dma.set_coherent_mask(Mask::bits(20));
    assert!(matches!(
        narrowed,
        Err(DmaError::MaskNarrowedWhileLive { live: 1, .. })
    ));
    buf.free().unwrap();
    machine.dma.set_coherent_mask(Mask::bits(20)).unwrap();
    let refused = alloc(&machine, 1, Cached).unwrap_err();
    assert!(matches!(refused, DmaError::AboveMask { .. }), "{refused}");
    assert_eq!(machine.memory.taken().get(), 0);
}

#[test]
fn a_pool_that_is_empty_and_a_system_that_is_are_told_apart() {
    let machine = Machine::new(Platform::Coherent, 1);
    let refused = |attrs| {
        let bytes = 600 * 4096;
        let source = machine.source();
        let refused = machine.dma.alloc_coherent(&source, bytes, Cached, attrs);
        refused.unwrap_err()
    };
    let bytes = 600 * 4096;
    assert_eq!(refused(AllocAttrs::new()), DmaError::OutOfMemory { bytes });
    let pool = "sram";
    let exhausted = refused(AllocAttrs::new().pool(pool));
    assert_eq!(exhausted, DmaError::PoolExhausted { pool });
    assert!(exhausted.is_retryable());
    assert_eq!(
        alloc(&machine, 0, Cached).unwrap_err(),
        DmaError::ZeroLength
    );
}

#[test]
fn runs_are_as_the_attributes_say() {
    let machine = Machine::new(Platform::Coherent, 1);
    let get = |attrs: AllocAttrs| {
        let source = machine.source();
        machine.dma.alloc_coherent(&source, 8 * 4096, Cached, attrs)
    };
    let runs = |buf: &CoherentBuf| buf.inner.frames.frames().len();
    let one = get(AllocAttrs::new().contiguous()).unwrap().buf;
    let many = get(AllocAttrs::new().single_pages()).unwrap().buf;
    assert_eq!((runs(&one), runs(&many)), (1, 8));
    machine.memory.fragment();
    let bytes = 8 * 4096;
    let refused = get(AllocAttrs::new().contiguous()).unwrap_err();
    assert_eq!(refused, DmaError::OutOfMemory { bytes });
    let any = get(AllocAttrs::new()).unwrap().buf;
    assert_eq!(runs(&any), 8);
    for buf in [one, many, any] {
        buf.free().unwrap();
    }
}

#[test]
fn words_and_bytes_outside_or_out_of_step_are_refused() {
    let machine = Machine::new(Platform::Coherent, 1);
    let buf = alloc(&machine, 4096, Cached).unwrap().buf;
    let (offset, len, buffer) = (4096, 4, 4096);
    let out = DmaError::RangeOutOfBuffer {
        offset,
        len,
        buffer,
    };
    assert_eq!(buf.load_u32(4096), Err(out));
    let (address, align) = (4, 8);
    let misaligned = DmaError::MisalignedAddress { address, align };
    assert_eq!(buf.store_u64(4, 1), Err(misaligned));
    assert!(buf.store_u32(2, 1).is_err() && buf.load_u64(4092).is_err());
    assert!(buf.read(4095, &mut [0; 2]).is_err() && buf.write(4095, &[0; 2]).is_err());
    assert_eq!(buf.load_u32(u64::MAX - 3), Err(DmaError::AddressOverflow));
    buf.free().unwrap();
}

#[test]
fn it_is_freed_behind_the_device_alone() {
    let ledger = Arc::new(Ledger::new(10));
    let machine = Machine::with(Platform::Deaf, 1, |dma| {
        dma.with_ledger(Arc::clone(&ledger))
    });
    let timeline = Timeline::new(1, crate::dma::fixture::clock());
    let mut buf = alloc(&machine, 4096, Uncached).unwrap().buf;
    buf.attach_fence(timeline.issue());
    let (buf, error) = buf.free().unwrap_err();
    assert!(error.is_retryable());
    // With a fence a drop is as good, a while later.
    drop(buf);
    assert_eq!(machine.dma.reap_quarantine(), 0);
    assert_eq!(machine.memory.taken().get(), 1);
    timeline.signal(1);
    assert_eq!(machine.dma.reap_quarantine(), 1);
    assert_eq!(machine.memory.taken().get(), 0);
    ledger.verdict().unwrap();
    // Without, it is a leak until the device is reset.
    let handle = machine
        .dma
        .alloc_coherent_unmapped(&machine.source(), 1, Uncached, AllocAttrs::new())
        .unwrap();
    assert_eq!((handle.got, handle.buf.bytes()), (Uncached, 4096));
    drop(handle);
    assert_eq!(ledger.count(Class::Leak), 1);
    assert_eq!(machine.dma.reap_quarantine(), 0);
    let reset = DeviceReset::done("a power cycle");
    assert_eq!(machine.dma.release_quarantine(reset), 1);
    assert_eq!(machine.memory.taken().get(), 0);
}

#[test]
fn late_writes_to_coherent_memory_are_found_too() {
    for platform in [Platform::Deaf, Platform::Coherent] {
        let machine = Machine::with(platform, 1, DmaDevice::with_late_write_check);
        let timeline = Timeline::new(1, crate::dma::fixture::clock());
        let mut lists = Vec::new();
        for asked in [Uncached, WriteCombined] {
            let mut buf = alloc(&machine, 4096, asked).unwrap().buf;
            buf.attach_fence(timeline.issue());
            lists.push(Arc::clone(buf.inner.hold().mapping().list()));
        }
        timeline.signal(2);
        assert_eq!(machine.dma.reap_quarantine(), 0);
        machine.device.write(&lists[1], 17, b"late");
        assert_eq!(machine.dma.reap_quarantine(), 1);
        assert_eq!(machine.dma.stats().late_writes, 1);
    }
}

#[test]
fn encrypted_guests_need_memory_that_is_not() {
    let verdict = Verdict {
        encrypted: Tri::Yes,
        ..Verdict::for_tests(Path::Direct)
    };
    let device = DmaDevice::direct(verdict, SegmentParms::DEFAULT, |span: FrameSpan| {
        Some(span.first * 4096)
    });
    let device = Arc::new(device.unwrap());
    let source: Arc<dyn PageSource> = FakeMemory::new(16, 16, true, true, 1);
    let get = |attrs| device.alloc_coherent(&source, 4096, Cached, attrs);
    let (code, decrypted) = (Code::D07, true);
    let refused = get(AllocAttrs::new()).unwrap_err();
    assert_eq!(refused, DmaError::NeedsAllocation { code, decrypted });
    let granted = get(AllocAttrs::new().decrypted()).unwrap();
    granted.buf.free().unwrap();
}
