//! Objects move between the device's memory and the host's, by the queue and by the CPU, and keep
//! their content.

use backends::vulkan::{BufferInfo, Copies};
use placement::MemType;
use ttm::error::Error;
use ttm::trace::{Event, How};

use super::stage::{MIB, Setup, in_type};
use super::words::{assert_words, words};

#[test]
fn content_survives_every_way_by_whoever_copies() {
    for copies in [Copies::Queue, Copies::Cpu, Copies::Measured] {
        let Some(stage) = Setup::with_vram(64 * MIB)
            .config(|c| c.copies(copies))
            .stage()
        else {
            return;
        };
        for (object, bytes) in [(1, 4096), (2, 3 * MIB), (3, 9 * MIB)] {
            let bo = stage.make(stage.vulkan.memory(bytes));
            stage.write(&bo, &words(object, 0, bytes)).unwrap();
            for mem_type in [
                MemType::VRAM,
                MemType::SYSTEM,
                MemType::VRAM,
                MemType::TT,
                MemType::VRAM,
            ] {
                stage.validate(&bo, &in_type(mem_type)).unwrap();
                stage.check();
                assert_eq!(stage.place_of(&bo), Some(mem_type));
            }
            stage.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
            assert_words(&stage.read(&bo).unwrap(), object, 0);
        }
        let by_queue = stage
            .log
            .take()
            .iter()
            .filter(|e| {
                matches!(
                    e,
                    Event::Moved {
                        how: How::Engine(_),
                        ..
                    }
                )
            })
            .count();
        match copies {
            Copies::Queue => assert_eq!(by_queue, 18),
            Copies::Cpu => assert_eq!(by_queue, 0),
            Copies::Measured => {}
        }
        stage.assert_empty();
    }
}

#[test]
fn fresh_memory_of_the_device_reads_as_zero() {
    for copies in [Copies::Queue, Copies::Cpu] {
        let Some(stage) = Setup::with_vram(16 * MIB)
            .config(|c| c.copies(copies))
            .stage()
        else {
            return;
        };
        for round in 0..3 {
            let bo = stage.make(stage.vulkan.memory(2 * MIB));
            stage.validate(&bo, &in_type(MemType::VRAM)).unwrap();
            let found = stage.read(&bo).unwrap();
            assert!(found.iter().all(|byte| *byte == 0), "round {round}");
            // The next one gets these pages.
            stage.write(&bo, &words(9, round, 2 * MIB)).unwrap();
        }
        stage.assert_empty();
    }
}

#[test]
fn twice_the_memory_comes_and_goes() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    let count = 16;
    let bos: Vec<_> = (0..count)
        .map(|n| {
            let bytes = 2 * MIB;
            let described = stage.vulkan.buffer(&BufferInfo::new(bytes)).unwrap();
            let bo = stage.make(described);
            stage.write(&bo, &words(n, 0, bytes)).unwrap();
            bo
        })
        .collect();
    for seq in 1..4 {
        for (n, bo) in (0..).zip(&bos) {
            stage.validate(bo, &in_type(MemType::VRAM)).unwrap();
            assert_words(&stage.read(bo).unwrap(), n, seq - 1);
            stage.write(bo, &words(n, seq, bo.bytes())).unwrap();
        }
        stage.check();
    }
    let usage = stage.vulkan.usage(MemType::VRAM).unwrap();
    assert!(usage.allocated <= 16 * MIB, "{usage:?}");
    for (n, bo) in (0..).zip(&bos) {
        assert_words(&stage.read(bo).unwrap(), n, 3);
    }
    drop(bos);
    stage.assert_empty();
}

#[test]
fn what_is_larger_than_the_limit_is_refused_at_once() {
    let Some(stage) = Setup::with_vram(8 * MIB).stage() else {
        return;
    };
    let small = stage.make(stage.vulkan.memory(MIB));
    stage.validate(&small, &in_type(MemType::VRAM)).unwrap();
    let large = stage.make(stage.vulkan.memory(9 * MIB));
    let refused = stage.validate(&large, &in_type(MemType::VRAM));
    assert!(matches!(refused, Err(Error::TooBig { .. })), "{refused:?}");
    // Nobody was pushed out for it.
    assert_eq!(stage.place_of(&small), Some(MemType::VRAM));
    // The limit is whatever it is now.
    stage.vulkan.set_limit(MemType::VRAM, 16 * MIB).unwrap();
    stage.validate(&large, &in_type(MemType::VRAM)).unwrap();
    stage.vulkan.set_limit(MemType::VRAM, MIB).unwrap();
    let again = stage.make(stage.vulkan.memory(MIB));
    stage.validate(&again, &in_type(MemType::VRAM)).unwrap();
    assert_eq!(
        stage.place_of(&large),
        Some(MemType::SYSTEM),
        "it had to leave"
    );
    drop((small, large, again));
    stage.assert_empty();
}
