//! Every legal sequence gives both sides the right bytes.

use super::*;
use crate::dma::dice::Dice;
use crate::dma::{BounceRequest, Direction, Mask, Unmap};

/// One buffer, its right content, and what is around it in the backing.
struct Run<'m> {
    machine: &'m Machine,
    dice: Dice,
    /// What both see when they own it.
    truth: Vec<u8>,
}

enum Now<D: Dir> {
    Cpu(Streaming<CpuOwned, D>),
    Device(Streaming<DeviceOwned, D>),
}

impl Run<'_> {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.dice.below(256) as u8).collect()
    }

    fn range(&mut self, step: u64) -> Range<usize> {
        let len = self.truth.len() as u64;
        let (a, b) = (self.dice.below(len + 1), self.dice.below(len + 1));
        let (start, end) = (a.min(b), a.max(b));
        // A multiple, or the end.
        let up = |n: u64| (n.div_ceil(step) * step).min(len) as usize;
        up(start)..up(end)
    }

    fn tick(&mut self) {
        let lines = self.dice.below(40);
        self.machine.memory.tick(lines);
    }

    fn device_turn(&mut self, list: &MappedList, direction: Direction) {
        if direction.device_reads() {
            let range = self.range(1);
            let mut seen = vec![0; range.len()];
            self.machine
                .device
                .read(list, range.start as u64, &mut seen);
            assert_eq!(seen, self.truth[range], "the device sees old bytes");
        }
        if direction.device_writes() {
            let range = self.range(1);
            let bytes = self.bytes(range.len());
            self.machine.device.write(list, range.start as u64, &bytes);
            self.truth[range].copy_from_slice(&bytes);
        }
    }

    fn check(&self, what: &str, range: Range<usize>, read: impl Fn(u64, &mut [u8])) {
        let mut seen = vec![0; range.len()];
        read(range.start as u64, &mut seen);
        assert_eq!(seen, self.truth[range], "{what}");
    }
}

/// Writes to what the CPU owns, where the direction lets it.
trait Scribble: Dir + Copy {
    fn write(buffer: &mut Streaming<CpuOwned, Self>, at: u64, bytes: &[u8]) -> bool;
    fn window(window: &mut CpuWindow<'_, Self>, bytes: &[u8]) -> bool;
}

macro_rules! scribbles {
    ($direction:ty) => {
        impl Scribble for $direction {
            fn write(buffer: &mut Streaming<CpuOwned, Self>, at: u64, bytes: &[u8]) -> bool {
                buffer.write(at, bytes).unwrap();
                true
            }

            fn window(window: &mut CpuWindow<'_, Self>, bytes: &[u8]) -> bool {
                window.write(0, bytes).unwrap();
                true
            }
        }
    };
}

scribbles!(dir::To);
scribbles!(dir::Bidi);

impl Scribble for dir::From {
    fn write(_: &mut Streaming<CpuOwned, Self>, _: u64, _: &[u8]) -> bool {
        false
    }

    fn window(_: &mut CpuWindow<'_, Self>, _: &[u8]) -> bool {
        false
    }
}

fn run<D: Scribble>(platform: Platform, seed: u64, direction: D) {
    let machine = Machine::new(platform, seed);
    let mut run = Run {
        machine: &machine,
        dice: Dice::new(seed),
        truth: Vec::new(),
    };
    if run.dice.one_in(3) {
        machine.memory.fragment();
    }
    let backing = backing(&machine);
    let before = run.bytes(BYTES as usize);
    backing.write(0, &before).unwrap();
    let (a, b) = (run.dice.below(BYTES), run.dice.below(BYTES));
    let range = a.min(b)..a.max(b) + 1;
    let inside = range.start as usize..range.end as usize;
    run.truth = before[inside.clone()].to_vec();

    let mapped = machine
        .dma
        .map_streaming(backing, range, direction, &bouncing());
    let mut now = Now::Device(mapped.unwrap());
    for _ in 0..40 {
        run.tick();
        now = match now {
            Now::Device(mut buffer) => match run.dice.below(4) {
                0 => Now::Cpu(buffer.to_cpu().unwrap()),
                1 => {
                    let bytes = run.range(64);
                    let asked = bytes.start as u64..bytes.end as u64;
                    match buffer.to_cpu_range(asked) {
                        Ok(mut window) => {
                            run.check("a window shows old bytes", bytes.clone(), |_, out| {
                                window.read(0, out).unwrap();
                            });
                            let new = run.bytes(bytes.len());
                            if D::window(&mut window, &new) {
                                run.truth[bytes].copy_from_slice(&new);
                            }
                            run.tick();
                        }
                        // The range of the mapping does not begin at a line.
                        Err(DmaError::PartialCacheLine { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    Now::Device(buffer)
                }
                _ => {
                    run.device_turn(buffer.dma(), D::DIRECTION);
                    Now::Device(buffer)
                }
            },
            Now::Cpu(mut buffer) => match run.dice.below(3) {
                0 => Now::Device(buffer.to_device().unwrap()),
                1 => {
                    let bytes = run.range(1);
                    run.check("the CPU sees old bytes", bytes, |at, out| {
                        buffer.read(at, out).unwrap();
                    });
                    Now::Cpu(buffer)
                }
                _ => {
                    let bytes = run.range(1);
                    let new = run.bytes(bytes.len());
                    if D::write(&mut buffer, bytes.start as u64, &new) {
                        run.truth[bytes].copy_from_slice(&new);
                    }
                    Now::Cpu(buffer)
                }
            },
        };
    }
    let backing = match now {
        Now::Device(buffer) => buffer.unmap(Keep::Sync).unwrap(),
        Now::Cpu(buffer) => buffer.unmap(Keep::Sync),
    };
    // I-52: what is around is as it was.
    let mut right = before;
    right[inside].copy_from_slice(&run.truth);
    assert_eq!(super::seen(&backing), right, "after all");
    let live = machine.dma.live_mappings().count;
    assert_eq!((live, machine.pool.stats().used), (0, 0));
    let stats = machine.dma.stats();
    assert_eq!((stats.mapped, stats.unmapped), (1, 1));
}

#[test]
fn every_legal_sequence_gives_both_sides_the_right_bytes() {
    for platform in Platform::ALL {
        for seed in 0..60 {
            run(platform, seed, dir::To);
            run(platform, seed, dir::From);
            run(platform, seed, dir::Bidi);
        }
    }
}

#[test]
fn what_is_skipped_at_the_end_of_a_copy_is_as_the_last_sync_left_it() {
    let machine = Machine::new(Platform::Forced, 1);
    let mapped = mapped(&machine, 0..BYTES, dir::From);
    machine.device.write(mapped.dma(), 0, b"seen");
    let ours = mapped.to_cpu().unwrap();
    let theirs = ours.to_device().unwrap();
    machine.device.write(theirs.dma(), 0, b"lost");
    let backing = theirs.unmap(Keep::SkipSync).unwrap();
    assert_eq!(&super::seen(&backing)[..4], b"seen");
}

#[test]
fn what_is_longer_than_a_set_of_slots_is_copied_in_pieces() {
    let machine = Machine::new(Platform::Forced, 1);
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let len = bytes.len() as u64;
    let big = Backing::alloc(&machine.source(), len, Zone::Normal).unwrap();
    big.write(0, &bytes).unwrap();
    let mapped = machine
        .dma
        .map_streaming(big, 5..len, dir::Bidi, &bouncing());
    let mapped = mapped.unwrap();
    assert!(mapped.dma().dma_segments().len() > 1);
    let mut seen = vec![0; bytes.len() - 5];
    machine.device.read(mapped.dma(), 0, &mut seen);
    assert_eq!(seen, bytes[5..]);
    machine.device.write(mapped.dma(), len - 5 - 3, b"end");
    let backing = mapped.unmap(Keep::Sync).unwrap();
    let mut end = [0; 4];
    backing.read(len - 4, &mut end).unwrap();
    assert_eq!((end[0], &end[1..]), (bytes[len as usize - 4], &b"end"[..]));
    assert_eq!(machine.dma.stats().bounced_bytes, len - 5);
}

/// F-30, I-53: with one slot less each time, a mapping in several pieces is whole or is not there.
#[test]
fn a_pool_runs_out_at_each_slot_and_keeps_no_piece() {
    let machine = Machine::new(Platform::Forced, 1);
    let alloc = |bytes| Backing::alloc(&machine.source(), bytes, Zone::Normal).unwrap();
    let map = |bytes| {
        let mapped = machine
            .dma
            .map_streaming(alloc(bytes), 0..bytes, dir::To, &bouncing());
        mapped.map_err(|(_, error)| error)
    };
    // Others' single slots.
    let mut buffers = vec![[0; 2048]; 4096];
    let mut buffers = buffers.iter_mut();
    let request = BounceRequest::new(0, Direction::ToDevice).limit(Mask::ALL);
    let mut slots = Vec::new();
    let mut refusals = 0;
    loop {
        let used = machine.pool.stats().used;
        match map(300_000) {
            Ok(whole) => {
                assert!(machine.pool.stats().used >= used + 300_000);
                whole.unmap(Keep::Sync).unwrap();
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                refusals += 1;
            }
        }
        assert_eq!(machine.pool.stats().used, used, "a piece is left");
        let buffer = buffers.next().expect("more than the pool has slots");
        match machine.pool.map(buffer, &request) {
            Ok(slot) => slots.push(slot),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                break;
            }
        }
    }
    let stats = machine.pool.stats();
    assert_eq!(stats.used, stats.total);
    assert!(refusals > 100, "{refusals}");
    for slot in slots {
        machine.pool.unmap(slot, Unmap::Sync);
    }
    assert_eq!(machine.pool.stats().used, 0);
}

/// I-53: exhausted at each piece of a list, nothing stays taken.
#[test]
fn a_pool_that_is_full_maps_nothing() {
    let machine = Machine::new(Platform::Forced, 1);
    let alloc = |bytes| Backing::alloc(&machine.source(), bytes, Zone::Normal).unwrap();
    let mut kept = Vec::new();
    loop {
        let used = machine.pool.stats().used;
        let range = 0..300_000;
        match machine
            .dma
            .map_streaming(alloc(300_000), range, dir::To, &bouncing())
        {
            Ok(mapping) => kept.push(mapping),
            Err((backing, error)) => {
                assert!(error.is_retryable(), "{error}");
                assert_eq!(machine.pool.stats().used, used);
                drop(backing);
                break;
            }
        }
    }
    assert_eq!(kept.len(), 3);
    for mapping in kept {
        mapping.unmap(Keep::Sync).unwrap();
    }
    let whole = machine.pool.stats().total;
    let refused = machine
        .dma
        .map_streaming(alloc(whole + 1), 0..whole + 1, dir::To, &bouncing());
    let (len, max) = (whole + 1, whole);
    assert_eq!(
        refused.unwrap_err().1,
        DmaError::TooLargeForBounce { len, max }
    );
    assert_eq!(machine.dma.live_mappings().count, 0);
}
