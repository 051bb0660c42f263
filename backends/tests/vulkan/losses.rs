//! A device that is lost, whichever call says so: nothing hangs, and what was in system memory stays.

use ash::vk;
use backends::vulkan::{BufferInfo, Copies};
use placement::MemType;
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::error::Error;
use ttm::fence::{Fence, FenceError, Status, Timeline, Usage};
use ttm::trace::Event;

use super::shim::plan::{self, Call, Rule};
use super::shim::{Shimmed, Watchdog, eventually};
use super::stage::{MIB, Setup, in_type};
use super::words::{assert_words, words};

type Object = Bo<backends::vulkan::VulkanDriver>;

const BYTES: u64 = 64 << 10;

fn made(s: &Shimmed, number: u64) -> Object {
    let bo = s.make(s.vulkan.memory(BYTES));
    s.write(&bo, &words(number, 0, BYTES)).unwrap();
    bo
}

/// Work that comes by every call, some of which is refused.
///
/// With `waits` it waits for moves, and has the queue wait for them.
fn work(s: &Shimmed, kept: &mut Vec<Object>, waits: bool) {
    let Ok(described) = s.vulkan.buffer(&BufferInfo::new(3 * MIB)) else {
        return;
    };
    let bo = s.make(described);
    let places: &[_] = match waits {
        true => &[MemType::VRAM, MemType::SYSTEM, MemType::VRAM],
        false => &[MemType::VRAM],
    };
    for &mem_type in places {
        let _ = s.device.exec(OpContext::new(), |t| {
            t.lock(&bo)?.validate(&in_type(mem_type))
        });
        let locked = s.device.exec(OpContext::new(), |t| t.lock(&bo).map(drop));
        if let (Ok(locked), true) = (locked, waits) {
            let _ = s.vulkan.bind(&locked, &[&bo], Usage::Write);
        }
    }
    kept.push(bo);
}

fn lose_by(call: Call, nth: u64) {
    let setup = Setup::with_vram(32 * MIB).config(|c| c.copies(Copies::Queue));
    let Some(s) = Shimmed::new(&setup) else {
        return;
    };
    if call == Call::BindSparse && !s.vulkan.keeps_handles() {
        super::stage::lacks(&"the device binds no sparse buffers");
        return s.end();
    }
    let _dog = Watchdog::new(&format!("a loss by {call:?}, {nth}"));
    let system = made(&s, 1);
    let swapped = made(&s, 2);
    (s.device)
        .exec(OpContext::new(), |t| t.lock(&swapped)?.swap_out())
        .unwrap();
    let vram = made(&s, 3);
    s.validate(&vram, &in_type(MemType::VRAM)).unwrap();
    assert_words(&s.read(&vram).unwrap(), 3, 0);
    // On its way, behind what nobody signals yet; nothing passes it on the queue.
    let holds = matches!(call, Call::Wait | Call::Counter | Call::Allocate) || nth == 1;
    let held = made(&s, 4);
    let foreign = Timeline::new(77, s.vulkan.clock());
    let gate = foreign.issue();
    let moving = holds.then(|| behind(&s, &held, &gate));
    let users = s.vulkan.timeline().unwrap();
    let (pending, _) = users.next();
    plan::arm(Rule {
        call,
        nth,
        result: vk::Result::ERROR_DEVICE_LOST,
        forever: false,
    });
    if matches!(call, Call::Submit | Call::BindSparse) {
        foreign.signal(gate.seqno());
    }
    let mut kept = Vec::new();
    let waits = foreign.reached() > 0 || !holds;
    eventually("the loss", || {
        work(&s, &mut kept, waits);
        kept.truncate(8);
        s.vulkan.is_lost()
    });
    // With the device gone at the first bind, the move was over.
    let moving = moving.filter(|_| call != Call::BindSparse);
    for fence in moving.iter().chain([&pending]) {
        eventually("a fence of a lost device", || fence.is_signalled());
        assert_eq!(fence.status(), Status::Failed(FenceError::DeviceLost));
    }
    eventually("the event", || s.device.is_lost());
    // Points that are given out now fail too.
    let (late, _) = users.next();
    eventually("a late fence", || late.is_signalled());
    assert!(matches!(late.status(), Status::Failed(_)));
    let refused = s.validate(&system, &in_type(MemType::VRAM));
    assert!(matches!(refused, Err(Error::DeviceLost)), "{refused:?}");
    let locked = s
        .device
        .exec(OpContext::new(), |t| t.lock(&system).map(drop));
    let bound = s
        .vulkan
        .bind(&locked.unwrap(), &[&system], Usage::Write)
        .map(drop);
    assert!(matches!(bound, Err(Error::DeviceLost)), "{bound:?}");
    assert_words(&s.read(&system).unwrap(), 1, 0);
    assert_words(&s.read(&swapped).unwrap(), 2, 0);
    let lost = s.read(&vram).map(drop);
    assert!(
        matches!(lost, Err(Error::ContentLost | Error::DeviceLost)),
        "{lost:?}"
    );
    foreign.signal(gate.seqno());
    if moving.is_some() || !holds {
        // It had not left.
        assert_words(&s.read(&held).unwrap(), 4, 0);
    }
    let told = |e: &&Event| matches!(e, Event::DeviceLost);
    let mut events = 0;
    let mut look = || {
        events += s.log.take().iter().filter(told).count();
        events
    };
    // It comes a moment after the device calls itself lost.
    eventually("the event", || look() > 0);
    std::thread::sleep(core::time::Duration::from_millis(30));
    assert_eq!(look(), 1);
    drop((kept, system, swapped, vram, held, users));
    s.end();
}

/// Has an object move to VRAM behind a fence; answers the move's.
fn behind(s: &Shimmed, bo: &Object, gate: &Fence) -> Fence {
    let locked = s.device.exec(OpContext::new(), |t| {
        let reserved = t.lock(bo)?;
        reserved.reserve_fences(1)
    });
    locked.unwrap().fence(bo, gate, Usage::Write).unwrap();
    let moved = s.device.exec(OpContext::new(), |t| {
        let reserved = t.lock(bo)?;
        reserved.validate(&in_type(MemType::VRAM))?;
        Ok(reserved.fences(Usage::Kernel))
    });
    let moved = moved.unwrap();
    let fences = moved.value();
    assert_eq!(fences.len(), 1, "{fences:?}");
    fences[0].clone()
}

#[test]
fn a_loss_is_an_error_and_no_hang_whichever_call_says_so() {
    for call in [
        Call::Submit,
        Call::Wait,
        Call::Counter,
        Call::BindSparse,
        Call::Allocate,
    ] {
        for nth in [1, 2, 3, 7] {
            lose_by(call, nth);
        }
    }
}

/// Who came after the loss was found was never told of it.
#[test]
fn who_asks_after_the_loss_is_told_too() {
    let Some(s) = Shimmed::new(&Setup::with_vram(8 * MIB)) else {
        return;
    };
    let _dog = Watchdog::new("a late listener");
    plan::once(Call::Counter, vk::Result::ERROR_DEVICE_LOST);
    let mut kept = Vec::new();
    eventually("the event", || {
        work(&s, &mut kept, true);
        kept.clear();
        s.device.is_lost()
    });
    s.device.set_restored();
    s.vulkan.tell_of_loss(&s.device);
    eventually("the second event", || s.device.is_lost());
    s.end();
}
