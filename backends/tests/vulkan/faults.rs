//! Memory that runs out, cannot be mapped, is not seen by the CPU, or is not for us just now.

use ash::vk;
use backends::vulkan::{Copies, VulkanDriver};
use placement::MemType;
use ttm::bo::Bo;
use ttm::error::Error;
use ttm::trace::{Event, How};

use super::shim::plan::{self, Call, Rule};
use super::shim::{Shimmed, Watchdog, eventually};
use super::stage::{MIB, Setup, in_type, turn};
use super::words::{assert_words, words};

type Object = Bo<VulkanDriver>;

fn queue_only(bytes: u64) -> Setup {
    Setup::with_vram(bytes).config(|c| c.copies(Copies::Queue))
}

fn made(s: &Shimmed, numbers: core::ops::Range<u64>, bytes: u64) -> Vec<Object> {
    let one = |number| {
        let bo = s.make(s.vulkan.memory(bytes));
        s.write(&bo, &words(number, 0, bytes)).unwrap();
        bo
    };
    numbers.map(one).collect()
}

fn assert_all(s: &Shimmed, bos: &[Object]) {
    for (number, bo) in (0..).zip(bos) {
        assert_words(&s.read(bo).unwrap(), number, 0);
    }
}

/// No place, and no other error.
fn assert_full(refused: ttm::Result<()>) {
    assert!(
        matches!(refused, Err(Error::NoSpace(_) | Error::NoMemory { .. })),
        "{refused:?}"
    );
}

#[test]
fn memory_that_the_driver_refuses_is_made_room_in() {
    for forbidden in [vk::Result::ERROR_OUT_OF_DEVICE_MEMORY, vk::Result::SUCCESS] {
        let Some(s) = Shimmed::new(&queue_only(64 * MIB)) else {
            return;
        };
        let _dog = Watchdog::new("room made by eviction");
        match forbidden {
            // By its bytes: the limit would allow much more.
            vk::Result::SUCCESS => plan::plan().most_bytes = Some(6 * MIB),
            result => plan::arm(Rule {
                call: Call::Allocate,
                nth: 3,
                result,
                forever: true,
            }),
        }
        let bos = made(&s, 0..16, MIB);
        for round in 0..2 {
            for bo in &bos {
                s.validate(bo, &in_type(MemType::VRAM)).unwrap();
            }
            s.check();
            let there = bos
                .iter()
                .filter(|bo| s.place_of(bo) == Some(MemType::VRAM))
                .count();
            assert!((1..16).contains(&there), "round {round}: {there}");
        }
        assert_all(&s, &bos);
        // No victim helps: what is wanted is larger than all that there is.
        let large = s.make(s.vulkan.memory(16 * MIB));
        assert_full(s.validate(&large, &in_type(MemType::VRAM)));
        assert_all(&s, &bos);
        plan::calm();
        eventually("room that came back", || {
            s.validate(&large, &in_type(MemType::VRAM)).is_ok()
        });
        assert_all(&s, &bos);
        drop((bos, large));
        s.end();
    }
}

#[test]
fn memory_that_cannot_be_mapped_or_made_is_refused_and_comes_back() {
    for (call, result) in [
        (Call::Map, vk::Result::ERROR_MEMORY_MAP_FAILED),
        (Call::Map, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
        (Call::Allocate, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
        (Call::Allocate, vk::Result::ERROR_TOO_MANY_OBJECTS),
        (Call::CreateBuffer, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
        (Call::BindBuffer, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
        (Call::MemoryFd, vk::Result::ERROR_TOO_MANY_OBJECTS),
    ] {
        // Where memory that goes out cannot be bound to buffers that stay, it goes out without them.
        let stable = call != Call::MemoryFd;
        let Some(s) = Shimmed::new(&queue_only(8 * MIB).config(|c| c.stable(stable))) else {
            return;
        };
        let _dog = Watchdog::new(&format!("{call:?} {result:?}"));
        plan::arm(Rule {
            call,
            nth: 1,
            result,
            forever: true,
        });
        let bos = made(&s, 0..3, 256 << 10);
        let before = plan::injected();
        let refused = s.validate(&bos[0], &in_type(MemType::VRAM));
        match plan::injected() > before {
            true => assert_full(refused),
            false => refused.unwrap(),
        }
        s.check();
        assert_all(&s, &bos);
        plan::disarm();
        eventually("a device that can again", || {
            s.validate(&bos[0], &in_type(MemType::VRAM)).is_ok()
        });
        assert_all(&s, &bos);
        drop(bos);
        s.end();
    }
}

#[test]
fn who_cannot_be_imported_any_more_has_others_leave() {
    let Some(s) = Shimmed::new(&queue_only(8 * MIB)) else {
        return;
    };
    if !s.vulkan.trials().import {
        eprintln!("skipped: this device imports nothing");
        return s.end();
    }
    let _dog = Watchdog::new("imports");
    plan::plan().most_imports = Some(3);
    let bos = made(&s, 0..10, 64 << 10);
    for bo in &bos {
        s.validate(bo, &in_type(MemType::TT)).unwrap();
        assert!(plan::live().1 <= 3);
    }
    s.check();
    for bo in &bos {
        s.validate(bo, &in_type(MemType::VRAM)).unwrap();
    }
    assert_all(&s, &bos);
    // None at all: that is an error to retry, and nothing moved.
    plan::plan().most_imports = Some(0);
    for bo in &bos {
        s.validate(bo, &in_type(MemType::SYSTEM)).unwrap_err();
        let refused = s.validate(bo, &in_type(MemType::SYSTEM));
        assert!(
            matches!(refused, Err(Error::Dma { retry: true, .. })),
            "{refused:?}"
        );
    }
    plan::plan().most_imports = None;
    assert_all(&s, &bos);
    drop(bos);
    s.end();
}

#[test]
fn what_the_cpu_does_not_reach_goes_by_the_queue() {
    for import in [true, false] {
        let turn = turn();
        plan::calm();
        plan::plan().hidden = true;
        let setup = Setup::with_vram(8 * MIB).config(|c| c.import(import));
        let Some(s) = Shimmed::with(&setup, turn) else {
            return;
        };
        let _dog = Watchdog::new("hidden memory");
        let vram = s.vulkan.layout().memory(MemType::VRAM).unwrap();
        assert!(!vram.chunked().unwrap().visible);
        let bos = made(&s, 0..12, MIB);
        for bo in &bos {
            s.validate(bo, &in_type(MemType::VRAM)).unwrap();
        }
        s.check();
        let event = |e: &Event, by_cpu: bool| match e {
            Event::Moved { from, to, how, .. } => {
                let vram = *from == Some(MemType::VRAM) || *to == MemType::VRAM;
                vram && matches!(how, How::Cpu | How::Clear) == by_cpu
            }
            _ => false,
        };
        let events = s.log.take();
        assert!(events.iter().any(|e| event(e, false)));
        assert!(!events.iter().any(|e| event(e, true)), "{events:?}");
        let there = bos.iter().find(|bo| s.place_of(bo) == Some(MemType::VRAM));
        let refused = s.read(there.expect("some fit")).map(drop);
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
        for round in 0..3 {
            for to in [MemType::TT, MemType::VRAM, MemType::SYSTEM] {
                for (number, bo) in (0..).zip(&bos) {
                    s.validate(bo, &in_type(to)).unwrap();
                    if to != MemType::VRAM {
                        assert_words(&s.read(bo).unwrap(), number, round);
                    }
                }
            }
            for (number, bo) in (0..).zip(&bos) {
                s.write(bo, &words(number, round + 1, bo.bytes())).unwrap();
            }
        }
        drop(bos);
        s.end();
    }
}

#[test]
fn a_budget_of_nothing_refuses_and_one_that_comes_back_allows() {
    let turn = turn();
    plan::calm();
    let Some(s) = Shimmed::with(&queue_only(32 * MIB), turn) else {
        return;
    };
    if s.vulkan.budget(MemType::VRAM).is_none() {
        eprintln!("skipped: this device tells no budget");
        return s.end();
    }
    let _dog = Watchdog::new("a budget of nothing");
    let bos = made(&s, 0..6, MIB);
    s.validate(&bos[0], &in_type(MemType::VRAM)).unwrap();
    plan::plan().budget = Some(0);
    eventually("the budget that shrank", || {
        s.vulkan.budget(MemType::VRAM) == Some(0)
    });
    // What there is can still be used.
    let large = s.make(s.vulkan.memory(16 * MIB));
    assert_full(s.validate(&large, &in_type(MemType::VRAM)));
    for bo in &bos {
        let _ = s.validate(bo, &in_type(MemType::VRAM));
    }
    s.check();
    assert_all(&s, &bos);
    plan::plan().budget = None;
    eventually("the budget that grew", || {
        s.validate(&large, &in_type(MemType::VRAM)).is_ok()
    });
    assert_all(&s, &bos);
    drop((bos, large));
    s.end();
}

/// What lavapipe is found to do, as it prints it here (Mesa 25.0.7): sparse buffers show what is bound
/// to them; imported memory is the process's own, but is not what a sparse buffer shows; memory goes
/// out as an opaque descriptor, which is a file in which it begins at byte 4096, but is then not what a
/// sparse buffer shows either.
#[test]
fn what_is_tried_when_a_device_is_opened_is_repeatable() {
    let Some(s) = Shimmed::new(&queue_only(8 * MIB)) else {
        return;
    };
    let said = format!("{:?}", s.vulkan.trials());
    eprintln!("{}: {said}", s.vulkan.facts().name);
    for _ in 0..3 {
        let again = s.opened.take_on(&queue_only(8 * MIB)).unwrap();
        assert_eq!(format!("{:?}", again.trials()), said);
    }
    s.end();
}
