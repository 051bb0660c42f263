//! Every call of a small scenario fails once, or from then on for ever: errors are typed, nothing is
//! lost, and everything can be given back.

use ash::vk;
use backends::vulkan::{BufferInfo, Copies, GART, ImageInfo, VulkanDriver};
use placement::MemType;
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::error::{Class, Error, Result};
use ttm::fence::Usage;

use super::shim::plan::{self, Call, Rule};
use super::shim::{Opened, Shimmed, Watchdog, eventually};
use super::stage::{MIB, Setup, in_type, skip, turn};
use super::words::{assert_words, words};

/// Calls of the scenario, each with what it can answer.
const CALLS: [(Call, vk::Result); 18] = [
    (Call::Allocate, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
    (Call::Allocate, vk::Result::ERROR_TOO_MANY_OBJECTS),
    (Call::Import, vk::Result::ERROR_TOO_MANY_OBJECTS),
    (Call::Import, vk::Result::ERROR_INVALID_EXTERNAL_HANDLE),
    (Call::Map, vk::Result::ERROR_MEMORY_MAP_FAILED),
    (Call::Submit, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::BindSparse, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
    (Call::CreateBuffer, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::BindBuffer, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
    (Call::CreateImage, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::BindImage, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
    (Call::Counter, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::Wait, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::Signal, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::AllocateCommands, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::Begin, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
    (Call::End, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
    (Call::MemoryFd, vk::Result::ERROR_OUT_OF_HOST_MEMORY),
];

/// The most calls of one kind that are tried: some come as often as their thread likes.
const MOST: u64 = 24;

const BYTES: u64 = 64 << 10;

struct Object {
    bo: Bo<VulkanDriver>,
    number: u64,
    image: bool,
}

fn objects(s: &Shimmed) -> Vec<Object> {
    let mut all = Vec::new();
    let v = &s.vulkan;
    let image = ImageInfo::new(vk::Format::R8G8B8A8_UNORM, 64, 64);
    let described = [
        (Ok(v.memory(4 * BYTES)), false),
        (v.buffer(&BufferInfo::new(BYTES)), false),
        (v.buffer(&BufferInfo::new(BYTES).stable(false)), false),
        (v.image(&image), true),
    ];
    for (number, (described, image)) in (1..).zip(described) {
        match described {
            Ok(described) => {
                let bo = s.make(described);
                if !image {
                    s.write(&bo, &words(number, 0, bo.bytes())).unwrap();
                }
                all.push(Object { bo, number, image });
            }
            Err(error) => assert_typed(&error),
        }
    }
    all
}

/// It says what to do next, and that nothing was lost.
fn assert_typed(error: &Error) {
    let typed = match error.class() {
        Class::Retry => true,
        Class::Refuse => !matches!(error, Error::Invalid(_) | Error::Purged),
        Class::Broken => matches!(error, Error::Backend(_)),
    };
    assert!(typed, "{error:?}");
}

fn step(s: &Shimmed, object: &Object, to: MemType) -> Result<()> {
    let Object { bo, image, .. } = object;
    let locked = s
        .device
        .exec(OpContext::new(), |t| t.lock(bo)?.validate(&in_type(to)))?;
    if to == MemType::VRAM || to == GART && !image {
        s.vulkan.bind(&locked, &[bo], Usage::Write)?;
    }
    Ok(())
}

/// Everything goes everywhere, whatever fails. Answers how many steps did.
fn scenario(s: &Shimmed, objects: &[Object]) -> u64 {
    let mut failed = 0;
    let gart = s.vulkan.layout().memory(GART).is_some();
    let places = [
        MemType::TT,
        MemType::VRAM,
        MemType::SYSTEM,
        MemType::VRAM,
        GART,
        MemType::VRAM,
    ];
    for to in places {
        for object in objects {
            if to == GART && !gart || to == MemType::TT && object.image {
                continue;
            }
            if let Err(error) = step(s, object, to) {
                assert_typed(&error);
                failed += 1;
            }
        }
    }
    failed
}

/// Nothing fails any more: everything is as it was written, goes where it is sent, and can go.
fn assert_whole(s: &Shimmed, objects: Vec<Object>) {
    s.vulkan.set_limit(MemType::VRAM, 16 * MIB).unwrap();
    let _ = s.vulkan.set_limit(GART, 16 * MIB);
    for object in objects.iter().filter(|o| !o.image) {
        assert_words(&s.read(&object.bo).unwrap(), object.number, 0);
    }
    for object in &objects {
        step(s, object, MemType::VRAM).unwrap();
        s.validate(&object.bo, &in_type(MemType::SYSTEM)).unwrap();
    }
    for object in objects.iter().filter(|o| !o.image) {
        assert_words(&s.read(&object.bo).unwrap(), object.number, 0);
    }
    drop(objects);
    // The next run allocates again.
    eventually("everything given back", || {
        s.device.reap();
        s.vulkan.trim();
        plan::live() == (0, 0)
    });
}

#[test]
fn the_nth_call_of_each_kind_may_fail_once_or_for_ever() {
    fail_nth(true);
}

/// Memory goes out then.
#[test]
fn the_nth_call_of_each_kind_may_fail_on_a_device_whose_buffers_do_not_stay() {
    fail_nth(false);
}

fn fail_nth(stable: bool) {
    let setup = Setup::with_vram(16 * MIB).config(|c| c.copies(Copies::Queue).stable(stable));
    let Some(s) = Shimmed::new(&setup) else {
        return;
    };
    let _dog = Watchdog::new("fail-nth");
    let before = plan::injected();
    let (mut runs, mut failed) = (0, 0);
    for (call, result) in CALLS {
        plan::forget_counts();
        let all = objects(&s);
        assert_eq!(scenario(&s, &all), 0, "without a fault");
        assert_whole(&s, all);
        let count = plan::count(call);
        for (nth, forever) in (1..=count.min(MOST)).flat_map(|n| [(n, false), (n, true)]) {
            if forever && call == Call::Counter {
                // Nobody could say then that anything is over.
                continue;
            }
            plan::arm(Rule {
                call,
                nth,
                result,
                forever,
            });
            let all = objects(&s);
            failed += scenario(&s, &all);
            plan::disarm();
            runs += 1;
            assert_whole(&s, all);
        }
        s.check();
        eprintln!("{call:?} {result:?}: {count} calls");
    }
    let injected = plan::injected() - before;
    eprintln!("{runs} runs, {injected} calls failed, and {failed} steps");
    assert!(injected > 200, "{injected}");
    s.end();
}

#[test]
fn opening_fails_cleanly_at_every_call() {
    let turn = turn();
    let _dog = Watchdog::new("opening");
    plan::calm();
    let setup = Setup::with_vram(16 * MIB);
    let open = || match Opened::new() {
        Ok(opened) => Some(opened),
        Err(error) => {
            skip(&error);
            None
        }
    };
    let Some(opened) = open() else { return };
    drop(opened.take_on(&setup).unwrap());
    let calls = [
        Call::Allocate,
        Call::Import,
        Call::Map,
        Call::Submit,
        Call::BindSparse,
        Call::CreateBuffer,
        Call::BindBuffer,
        Call::CreateSemaphore,
        Call::CreatePool,
        Call::AllocateCommands,
        Call::Begin,
        Call::End,
        Call::Counter,
        Call::Wait,
        Call::HostPointer,
        Call::MemoryFd,
    ];
    let counts: Vec<_> = calls.iter().map(|call| plan::count(*call)).collect();
    drop(opened);
    let before = plan::injected();
    let Some(opened) = open() else { return };
    for (call, count) in calls.into_iter().zip(counts) {
        for result in [
            vk::Result::ERROR_OUT_OF_HOST_MEMORY,
            vk::Result::ERROR_DEVICE_LOST,
        ] {
            for nth in 1..=count.min(6) {
                plan::calm();
                plan::arm(Rule {
                    call,
                    nth,
                    result,
                    forever: false,
                });
                let taken = opened.take_on(&setup);
                if let Ok(vulkan) = &taken {
                    // Its watching thread may have met it since.
                    let lost = result == vk::Result::ERROR_DEVICE_LOST;
                    let late = matches!(call, Call::Counter | Call::Wait);
                    assert!(!lost || late || !vulkan.is_lost(), "{call:?} {nth}");
                }
                drop(taken);
                assert_eq!(plan::live(), (0, 0), "{call:?} {nth} {result:?}");
            }
        }
    }
    plan::calm();
    eprintln!("{} calls failed", plan::injected() - before);
    drop(opened);
    drop(turn);
}
