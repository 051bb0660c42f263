//! What cannot be mapped so, and what is an error of whoever has it mapped.

use super::*;
use crate::dma::{Code, Direction, NotCoherent, Path, SegmentParms, Tri, Verdict};
use crate::pages::FrameSpan;

fn refusal<D: Dir + Copy>(
    machine: &Machine,
    range: Range<u64>,
    direction: D,
    attrs: &MapAttrs<'_>,
) -> DmaError {
    let refused = machine
        .dma
        .map_streaming(backing(machine), range, direction, attrs);
    let (backing, error) = refused.map(drop).unwrap_err();
    assert_eq!(backing.bytes(), BYTES, "it comes back");
    assert_eq!(machine.dma.live_mappings().count, 0);
    assert_eq!(machine.pool.stats().used, 0);
    error
}

#[test]
fn ranges_that_are_empty_outside_or_backwards_are_refused() {
    let machine = Machine::new(Platform::Coherent, 1);
    let refused = |range| refusal(&machine, range, dir::To, &bouncing());
    assert_eq!(refused(7..7), DmaError::ZeroLength);
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    let backwards = 9..7;
    assert_eq!(refused(backwards), DmaError::ZeroLength);
    let (offset, len, buffer) = (1, BYTES, BYTES);
    let out = DmaError::RangeOutOfBuffer {
        offset,
        len,
        buffer,
    };
    assert_eq!(refused(1..BYTES + 1), out);
    assert!(matches!(
        refused(1..u64::MAX),
        DmaError::RangeOutOfBuffer { .. }
    ));
}

#[test]
fn a_copy_is_opt_in_and_demanded_coherency_fails_with_the_cause() {
    let demand = MapAttrs::new().require_coherent();
    let plain = MapAttrs::new();
    for (platform, range, cause) in [
        (Platform::Forced, 0..BYTES, NotCoherent::ForcedBounce),
        (
            Platform::Untrusted,
            1..BYTES,
            NotCoherent::UntrustedUnaligned,
        ),
    ] {
        let machine = Machine::new(platform, 1);
        let refused = |attrs| refusal(&machine, range.clone(), dir::Bidi, attrs);
        assert_eq!(refused(&demand), DmaError::NotCoherent { cause });
        assert_eq!(refused(&plain), DmaError::WouldBounce { cause });
    }
    let machine = Machine::new(Platform::Narrow, 1);
    for attrs in [&demand, &plain] {
        let refused = refusal(&machine, 0..BYTES, dir::To, attrs);
        assert!(refused.to_string().contains("32-bit mask"), "{refused}");
    }
    let machine = Machine::new(Platform::Deaf, 1);
    let cause = NotCoherent::DeviceDoesNotSnoop;
    let refused = refusal(&machine, 0..BYTES, dir::To, &demand);
    assert_eq!(refused, DmaError::NotCoherent { cause });
    // Where it is coherent, the demand is met.
    for platform in [Platform::Coherent, Platform::Translated] {
        let machine = Machine::new(platform, 1);
        let mapped = machine
            .dma
            .map_streaming(backing(&machine), 0..BYTES, dir::To, &demand)
            .unwrap();
        assert!(!mapped.need_sync());
        mapped.unmap(Keep::Sync).unwrap();
    }
}

#[test]
fn part_of_a_line_that_the_device_writes_is_copied_or_refused() {
    let machine = Machine::new(Platform::Deaf, 1);
    let plain = MapAttrs::new();
    for range in [1..4096, 64..4095, 0..10] {
        let refused = refusal(&machine, range.clone(), dir::From, &plain);
        assert!(matches!(refused, DmaError::WouldBounce { .. }), "{refused}");
        // What the device only reads, it does not tear.
        let read = machine
            .dma
            .map_streaming(backing(&machine), range.clone(), dir::To, &plain);
        read.unwrap().unmap(Keep::Sync).unwrap();
        mapped(&machine, range, dir::From)
            .unmap(Keep::Sync)
            .unwrap();
    }
    assert!(machine.dma.stats().bounced_bytes > 0);
    let whole = machine
        .dma
        .map_streaming(backing(&machine), 64..4096, dir::From, &plain);
    whole.unwrap().unmap(Keep::Sync).unwrap();
    // The CPU's window in a buffer that both write.
    let mut both = mapped(&machine, 64..BYTES, dir::Bidi);
    let (head, tail, line) = (1, 62, 64);
    let refused = both.to_cpu_range(1..130).unwrap_err();
    assert_eq!(refused, DmaError::PartialCacheLine { head, tail, line });
    assert!(both.to_cpu_range(64..128).is_ok());
    assert!(both.to_cpu_range(128..BYTES - 64).is_ok());
    both.unmap(Keep::Sync).unwrap();
}

#[test]
fn what_has_no_sync_points_needs_memory_that_was_allocated_for_it() {
    let machine = Machine::new(Platform::Deaf, 1);
    let attrs = MapAttrs::new().persistent();
    let refused = refusal(&machine, 0..BYTES, dir::Bidi, &attrs);
    let (code, decrypted) = (Code::D20, false);
    assert_eq!(refused, DmaError::NeedsAllocation { code, decrypted });
    let forced = Machine::new(Platform::Forced, 1);
    let refused = refusal(&forced, 0..BYTES, dir::Bidi, &attrs);
    assert!(matches!(refused, DmaError::WouldBounce { .. }), "{refused}");
}

#[test]
fn attributes_that_exclude_each_other_are_refused() {
    let machine = Machine::new(Platform::Coherent, 1);
    let first = mapped(&machine, 0..BYTES, dir::To);
    let proof = first.device_owned_proof();
    for attrs in [
        bouncing().require_coherent(),
        bouncing().persistent(),
        bouncing().skip_cpu_sync(proof),
    ] {
        let refused = machine
            .dma
            .map_streaming(backing(&machine), 0..BYTES, dir::To, &attrs);
        let error = refused.map(drop).unwrap_err().1;
        assert!(matches!(error, DmaError::AttrConflict { .. }), "{error}");
    }
    // The proof of another backing proves nothing.
    let attrs = MapAttrs::new().skip_cpu_sync(proof);
    let refused = machine
        .dma
        .map_streaming(backing(&machine), 0..BYTES, dir::To, &attrs);
    let error = refused.map(drop).unwrap_err().1;
    assert_eq!(error, DmaError::SkipSyncWithoutProof);
    first.unmap(Keep::Sync).unwrap();
}

#[test]
fn without_a_pool_nothing_is_copied() {
    let machine = Machine::new(Platform::Coherent, 1);
    let verdict = Verdict {
        forced_bounce: Tri::Yes,
        ..Verdict::for_tests(Path::Direct)
    };
    let device = DmaDevice::direct(verdict, SegmentParms::DEFAULT, |span: FrameSpan| {
        Some(span.first * 4096)
    });
    let device = Arc::new(device.unwrap());
    let refused = device.map_streaming(backing(&machine), 0..BYTES, dir::To, &bouncing());
    assert_eq!(refused.map(drop).unwrap_err().1, DmaError::NoBouncePool);
}

#[test]
fn a_table_of_buffers_says_who_owns_and_which_way() {
    let machine = Machine::new(Platform::Coherent, 1);
    let mut to = AnyStreaming::from(mapped(&machine, 0..BYTES, dir::To));
    let (have, want) = (Owner::Device, Owner::Cpu);
    let wrong = Err(DmaError::WrongOwner { have, want });
    assert_eq!(to.read(0, &mut [0]), wrong);
    assert_eq!(to.write(0, &[0]), wrong);
    assert_eq!(to.to_device(Direction::ToDevice), wrong);
    let (mapped_as, asked) = (Direction::ToDevice, Direction::FromDevice);
    let mismatch = DmaError::DirectionMismatch {
        mapped: mapped_as,
        asked,
    };
    assert_eq!(to.to_cpu(asked), Err(mismatch));
    to.to_cpu(Direction::ToDevice).unwrap();
    assert_eq!(to.owner(), Owner::Cpu);
    assert!(to.dma().is_err());
    assert!(to.attach_fence(timeline().issue()).is_err());
    to.write(0, b"to").unwrap();
    let (to, error) = to.into_typed::<DeviceOwned, dir::To>().unwrap_err();
    assert!(matches!(error, DmaError::WrongOwner { .. }));
    let (to, error) = to.into_typed::<CpuOwned, dir::From>().unwrap_err();
    assert!(matches!(error, DmaError::DirectionMismatch { .. }));
    let typed = to.into_typed::<CpuOwned, dir::To>().unwrap();
    let _ = typed.unmap(Keep::Sync);

    let mut from = AnyStreaming::from(mapped(&machine, 0..BYTES, dir::From));
    from.to_cpu(Direction::FromDevice).unwrap();
    let refused = from.write(0, b"no").unwrap_err();
    assert!(matches!(refused, DmaError::DirectionMismatch { .. }));
    // What goes both ways is synced in either.
    let mut both = AnyStreaming::from(mapped(&machine, 0..BYTES, dir::Bidi));
    both.to_cpu(Direction::FromDevice).unwrap();
    both.to_device(Direction::ToDevice).unwrap();
    both.unmap(Keep::Sync).unwrap();
    from.unmap(Keep::Sync).unwrap();
}

#[test]
fn bytes_outside_of_a_mapping_are_refused() {
    let machine = Machine::new(Platform::Coherent, 1);
    let mut theirs = mapped(&machine, 100..200, dir::Bidi);
    let refused = |offset, len| DmaError::RangeOutOfMapping {
        offset,
        len,
        mapped: 100,
    };
    assert_eq!(theirs.to_cpu_range(99..101).unwrap_err(), refused(99, 2));
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    let backwards = theirs.to_cpu_range(9..7).map(drop);
    assert_eq!(backwards, Err(refused(9, 0)));
    let mut window = theirs.to_cpu_range(10..20).unwrap();
    let mut two = [0; 2];
    assert!(window.read(9, &mut two).is_err() && window.write(9, &two).is_err());
    assert_eq!(
        window.read(u64::MAX, &mut two),
        Err(DmaError::AddressOverflow)
    );
    drop(window);
    let mut ours = theirs.to_cpu().unwrap();
    assert_eq!(ours.read(99, &mut two), Err(refused(99, 2)));
    assert_eq!(ours.write(99, &two), Err(refused(99, 2)));
    let _ = ours.unmap(Keep::Sync);
}

#[test]
fn another_verdict_is_asked_at_the_next_hand_over() {
    let machine = Machine::new(Platform::Coherent, 1);
    let ours = mapped(&machine, 0..BYTES, dir::Bidi).to_cpu().unwrap();
    assert!(!ours.need_sync());
    let deaf = Verdict {
        snoop: Tri::No,
        ..Verdict::for_tests(Path::Direct)
    };
    machine.dma.renegotiate(deaf).unwrap();
    // Now it is synced.
    let theirs = ours.to_device().unwrap();
    assert!(theirs.need_sync());
    let ours = theirs.to_cpu().unwrap();
    let forced = Verdict {
        forced_bounce: Tri::Yes,
        ..Verdict::for_tests(Path::Direct)
    };
    machine.dma.renegotiate(forced).unwrap();
    let (ours, error) = ours.to_device().unwrap_err();
    let code = Code::D10;
    assert_eq!(error, DmaError::DecisionChanged { code });
    let _ = ours.unmap(Keep::Sync);
}

/// The kernel re-arms its flag by setting a mask, and drops the syncs of what was copied before.
#[test]
fn a_device_that_copied_needs_syncs_whatever_becomes_of_its_masks() {
    let machine = Machine::new(Platform::Narrow, 1);
    assert!(!machine.dma.device_need_sync());
    assert!(!machine.dma.live_mappings().need_unmap());
    let copied = mapped(&machine, 0..BYTES, dir::Bidi);
    assert!(copied.need_sync() && machine.dma.device_need_sync());
    assert!(machine.dma.live_mappings().need_unmap());
    machine.dma.set_masks(crate::dma::Mask::ALL).unwrap();
    assert!(machine.dma.device_need_sync());
    // By now it is mapped as it is, beside the copy.
    let plain = mapped(&machine, 0..BYTES, dir::Bidi);
    assert!(!plain.need_sync() && machine.dma.device_need_sync());
    copied.unmap(Keep::Sync).unwrap();
    assert!(machine.dma.device_need_sync());
    plain.unmap(Keep::Sync).unwrap();
    let all = Verdict::for_tests(Path::Direct);
    machine.dma.renegotiate(all).unwrap();
    assert!(!machine.dma.device_need_sync());
}
