//! Buffers that keep their handle and their address wherever their objects go, buffers that are made
//! anew at each place, and what is refused. The work on them is raw commands on the user's handle.

use core::time::Duration;

use ash::vk;
use backends::host::MemfdPages;
use backends::vulkan::{Bound, BufferInfo, Copies, Described, Exported, VulkanDriver};
use placement::{CacheMode, MemType, PageCount, Placement};
use ttm::bo::Bo;
use ttm::bo_cache::BoCache;
use ttm::context::OpContext;
use ttm::error::Error;
use ttm::fence::Usage;
use ttm::pages::{PageSource, Want};

use super::gpu::{Gate, Gpu, buffer, generation};
use super::stage::{MIB, Setup, Stage, in_type};
use super::words::{assert_words, words};

const COPIED: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw()
        | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw(),
);

fn info(bytes: u64) -> BufferInfo {
    BufferInfo::new(bytes).usage(COPIED)
}

fn addressed(stage: &Stage, bytes: u64) -> BufferInfo {
    match stage.vulkan.facts().can.buffer_address {
        true => info(bytes).usage(COPIED | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS),
        false => info(bytes),
    }
}

fn make(stage: &Stage, info: &BufferInfo) -> Bo<VulkanDriver> {
    let Described { info, object } = stage.vulkan.buffer(info).unwrap();
    stage.device.create(info, object).unwrap()
}

fn vram() -> Placement {
    in_type(MemType::VRAM)
}

fn pieces(stage: &Stage, bo: &Bo<VulkanDriver>) -> Vec<(vk::DeviceMemory, u64, u64)> {
    let locked = stage.device.exec(OpContext::new(), |t| {
        let reserved = t.lock(bo)?;
        stage.vulkan.pieces(&reserved)
    });
    locked.unwrap().value().clone()
}

/// The words of `bo` as the device sees them through its handle.
fn seen(stage: &Stage, gpu: &Gpu<'_>, bo: &Bo<VulkanDriver>) -> Vec<u8> {
    let copy = make(stage, &info(bo.bytes()));
    gpu.copy(bo, &copy, Some(&vram()), bo.bytes())
        .unwrap()
        .wait();
    stage.read(&copy).unwrap()
}

#[test]
fn a_stable_buffer_is_the_same_through_every_move() {
    for copies in [Copies::Queue, Copies::Cpu] {
        let Some(stage) = Setup::with_vram(16 * MIB)
            .config(|c| c.copies(copies))
            .stage()
        else {
            return;
        };
        if !stage.vulkan.keeps_handles() {
            return super::stage::lacks(&"the device has no buffers that stay");
        }
        let gpu = Gpu::new(&stage);
        let bo = make(&stage, &addressed(&stage, 3 * MIB));
        let (handle, address) = (bo.object().stable_buffer(), bo.object().stable_address());
        assert!(bo.object().is_stable() && handle.is_some());
        stage.write(&bo, &words(1, 0, bo.bytes())).unwrap();
        let mut places = Vec::new();
        let mut blockers = Vec::new();
        for round in 1..5 {
            assert_words(&seen(&stage, &gpu, &bo), 1, round - 1);
            let again = gpu.work(&[(&bo, Usage::Read)], None, |_, _, _| {}).unwrap();
            assert_eq!(again.rebound, 0, "it is bound where it is");
            let Bound::Buffer {
                handle: now,
                address: at,
                generation,
            } = again.bound[0]
            else {
                panic!("{:?}", again.bound)
            };
            assert_eq!((Some(now), at, generation), (handle, address, 0));
            places.push(pieces(&stage, &bo));
            // Out, with other content, and to another place.
            stage.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
            stage.write(&bo, &words(1, round, bo.bytes())).unwrap();
            let blocker = make(&stage, &info(MIB));
            gpu.fill(&blocker, Some(&vram()), 7).unwrap();
            blockers.push(blocker);
        }
        places.dedup();
        assert!(places.len() > 1, "it was somewhere else: {places:?}");
        drop((gpu, bo, blockers));
        stage.assert_empty();
    }
}

/// The driver may give a new allocation the handle of one that was freed. A buffer that was bound to
/// the old one is not bound to the new one.
#[test]
fn a_stable_buffer_is_bound_anew_when_its_memory_was_freed_between() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let bo = make(&stage, &info(MIB));
    for round in 0..8 {
        stage.write(&bo, &words(2, round, MIB)).unwrap();
        let done = gpu.work(&[(&bo, Usage::Read)], Some(&vram()), |_, _, _| {});
        assert_eq!(
            done.unwrap().rebound,
            u64::from(stage.vulkan.keeps_handles())
        );
        assert_words(&seen(&stage, &gpu, &bo), 2, round);
        gpu.fill(&bo, None, 0x0101_0101).unwrap().wait();
        stage.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
        assert!(stage.read(&bo).unwrap().iter().all(|byte| *byte == 1));
        stage.until("the chunks are empty", || {
            stage.vulkan.trim();
            stage.vulkan.usage(MemType::VRAM).unwrap().chunks == 0
        });
    }
    drop((gpu, bo));
    stage.assert_empty();
}

#[test]
fn content_leaves_after_the_work_at_the_old_place() {
    for stable in [true, false] {
        for copies in [Copies::Queue, Copies::Cpu] {
            let Some(stage) = Setup::with_vram(16 * MIB)
                .config(|c| c.copies(copies).stable(stable))
                .stage()
            else {
                return;
            };
            let gpu = Gpu::new(&stage);
            let bo = make(&stage, &info(2 * MIB));
            gpu.fill(&bo, Some(&vram()), 1).unwrap();
            let gate = Gate::new(&stage);
            let work = gpu.fill_behind(&bo, None, Some(&gate), 2).unwrap();
            std::thread::scope(|scope| {
                let evicting =
                    scope.spawn(|| stage.device.evict_all(MemType::VRAM, OpContext::new()));
                std::thread::sleep(std::time::Duration::from_millis(20));
                assert!(!work.fence.is_signalled());
                gate.open();
                evicting.join().unwrap().unwrap();
            });
            assert_eq!(stage.place_of(&bo), Some(MemType::SYSTEM));
            let found = stage.read(&bo).unwrap();
            assert!(found.chunks(4).all(|w| w == [2, 0, 0, 0]), "{copies:?}");
            drop((gate, gpu, bo));
            stage.assert_empty();
        }
    }
}

/// A semaphore that a copy waits for stays until the copy is done, though its user has let go of it. The
/// validation layer, where it is loaded, says so if it does not.
#[test]
fn a_timeline_stays_while_copies_wait_for_it() {
    let Some(stage) = Setup::with_vram(16 * MIB)
        .config(|c| c.copies(Copies::Queue))
        .stage()
    else {
        return;
    };
    let bo = make(&stage, &info(MIB));
    for round in 1..20 {
        let gpu = Gpu::new(&stage);
        gpu.fill(&bo, Some(&vram()), round).unwrap();
        stage.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
        drop(gpu);
    }
    let found = stage.read(&bo).unwrap();
    assert!(found.chunks(4).all(|w| w == [19, 0, 0, 0]));
    drop(bo);
    stage.assert_empty();
}

#[test]
fn a_buffer_that_does_not_stay_is_made_anew_exactly_when_it_moved() {
    for by_config in [true, false] {
        let Some(stage) = Setup::with_vram(16 * MIB)
            .config(|c| c.stable(!by_config))
            .stage()
        else {
            return;
        };
        let gpu = Gpu::new(&stage);
        let wish = addressed(&stage, MIB);
        let wish = if by_config { wish } else { wish.stable(false) };
        let bo = make(&stage, &wish);
        assert!(!bo.object().is_stable() && bo.object().stable_buffer().is_none());
        stage.write(&bo, &words(3, 0, MIB)).unwrap();
        let mut blockers = Vec::new();
        for round in 1..6 {
            let first = gpu.work(&[(&bo, Usage::Read)], Some(&vram()), |_, _, _| {});
            let first = first.unwrap().bound[0];
            assert_eq!(generation(&first), round, "once for each move");
            let second = gpu.work(&[(&bo, Usage::Read)], Some(&vram()), |_, _, _| {});
            assert_eq!(second.unwrap().bound[0], first, "it did not move");
            assert_words(&seen(&stage, &gpu, &bo), 3, round - 1);
            stage.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
            stage.write(&bo, &words(3, round, MIB)).unwrap();
            let blocker = make(&stage, &info(MIB));
            gpu.fill(&blocker, Some(&vram()), 7).unwrap();
            blockers.push(blocker);
        }
        drop((gpu, bo, blockers));
        stage.assert_empty();
    }
}

/// The validation layer, where it is loaded, says so if the old handle went too early.
#[test]
fn an_old_handle_stays_while_work_uses_it() {
    // The CPU would wait for the work before it clears the new place.
    let Some(stage) = Setup::with_vram(16 * MIB)
        .config(|c| c.stable(false).copies(Copies::Queue))
        .stage()
    else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let bo = make(&stage, &info(MIB));
    let old = gpu.fill(&bo, Some(&vram()), 1).unwrap();
    let gate = Gate::new(&stage);
    let work = gpu.fill_behind(&bo, None, Some(&gate), 2).unwrap();
    assert_eq!(work.bound, old.bound);
    // The content is thrown away while it is being written.
    stage.validate(&bo, &Placement::new()).unwrap();
    let other = gpu.fill(&bo, Some(&vram()), 3).unwrap();
    assert_ne!(buffer(&other.bound[0]), buffer(&work.bound[0]));
    assert!(!work.fence.is_signalled() && !other.fence.is_signalled());
    gate.open();
    other.wait();
    assert!(
        stage
            .read(&bo)
            .unwrap()
            .chunks(4)
            .all(|w| w == [3, 0, 0, 0])
    );
    drop((gate, gpu, bo));
    stage.assert_empty();
}

#[test]
fn imported_pages_are_buffers_where_they_are() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    if !stage.vulkan.trials().import {
        return super::stage::skip(&"the device imports nothing");
    }
    let gpu = Gpu::new(&stage);
    let families = [stage.vulkan.general_queue().family()];
    for (bytes, align) in [(4096, 1), (60 << 10, 64 << 10), (MIB, 2 * MIB), (100, 256)] {
        let wish = info(bytes).stable(false).align(align).shared_by(&families);
        let bo = make(&stage, &wish);
        let tt = in_type(MemType::TT);
        let filled = gpu.fill(&bo, Some(&tt), 0x0202_0202).unwrap();
        assert_eq!(generation(&filled.bound[0]), 1);
        assert!(stage.vulkan.imports() > 0);
        let found = stage.read(&bo).unwrap();
        assert!(found.iter().all(|byte| *byte == 2), "{bytes}");
        // And back again: what the CPU writes there, the device sees.
        stage.write(&bo, &vec![5; bytes as usize]).unwrap();
        let copy = make(&stage, &info(bytes));
        stage.validate(&copy, &vram()).unwrap();
        let done = gpu.copy(&bo, &copy, None, bytes).unwrap();
        assert_eq!(generation(&done.bound[0]), 1, "it is where it was");
        assert!(stage.read(&copy).unwrap().iter().all(|byte| *byte == 5));
        // In device memory its place is a multiple.
        stage.validate(&bo, &vram()).unwrap();
        let at = pieces(&stage, &bo)[0].1;
        assert!(at.is_multiple_of(align), "{at}");
        assert_eq!(stage.read(&bo).unwrap(), vec![5; bytes as usize]);
    }
    // Several runs are no buffer, and the error says what to do.
    let large = make(&stage, &info(9 * MIB).stable(false));
    let refused = gpu.fill(&large, Some(&in_type(MemType::TT)), 1);
    let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.is_empty() || error.contains("one run"), "{error}");
    // One that stays is refused there if the device does not bind such pages.
    if stage.vulkan.keeps_handles() && !stage.vulkan.trials().sparse_import {
        let stays = make(&stage, &info(MIB));
        let refused = gpu.fill(&stays, Some(&in_type(MemType::TT)), 1);
        let error = refused.err().expect("refused").to_string();
        assert!(error.contains("stable(false)"), "{error}");
        // It is none the worse for that.
        gpu.fill(&stays, Some(&vram()), 1).unwrap();
    }
    drop((gpu, large));
    stage.settle();
    assert_eq!(stage.vulkan.imports(), 0);
    stage.assert_empty();
}

#[test]
fn a_stable_buffer_may_lie_in_many_chunks() {
    let Some(stage) = Setup::with_vram(16 * MIB)
        .config(|c| c.chunks(MIB, MIB))
        .stage()
    else {
        return;
    };
    if !stage.vulkan.keeps_handles() {
        return super::stage::lacks(&"the device has no buffers that stay");
    }
    let gpu = Gpu::new(&stage);
    // Every second half of a chunk is taken.
    let mut small: Vec<_> = (0..32)
        .map(|_| {
            let bo = make(&stage, &info(MIB / 2));
            stage.validate(&bo, &vram()).unwrap();
            bo
        })
        .collect();
    let mut n = 0;
    small.retain(|_| {
        n += 1;
        n % 2 == 0
    });
    stage.settle();
    let bo = make(&stage, &info(5 * MIB));
    stage.write(&bo, &words(4, 0, bo.bytes())).unwrap();
    stage.validate(&bo, &vram()).unwrap();
    let parts = pieces(&stage, &bo);
    assert!(parts.len() >= 2, "{parts:?}");
    assert_eq!(parts.iter().map(|part| part.2).sum::<u64>(), 5 * MIB);
    assert_words(&seen(&stage, &gpu, &bo), 4, 0);
    gpu.fill(&bo, None, 0x0404_0404).unwrap();
    assert!(stage.read(&bo).unwrap().iter().all(|byte| *byte == 4));
    // One that does not stay is not made of pieces.
    drop(small);
    let whole = make(&stage, &info(5 * MIB).stable(false));
    gpu.fill(&whole, Some(&vram()), 3).unwrap();
    assert_eq!(pieces(&stage, &whole).len(), 1);
    drop((gpu, bo, whole));
    stage.assert_empty();
}

/// Memory in pieces has room for it once others have left.
#[test]
fn a_buffer_that_does_not_stay_lies_in_one_run() {
    let Some(stage) = Setup::with_vram(8 * MIB)
        .config(|c| c.chunks(MIB, MIB))
        .stage()
    else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let mut small: Vec<_> = (0..16)
        .map(|_| {
            let bo = make(&stage, &info(MIB / 2));
            stage.validate(&bo, &vram()).unwrap();
            bo
        })
        .collect();
    let mut n = 0;
    small.retain(|_| {
        n += 1;
        n % 2 == 0
    });
    stage.settle();
    let bo = make(&stage, &info(3 * MIB).stable(false));
    gpu.fill(&bo, Some(&vram()), 1).unwrap();
    assert_eq!(pieces(&stage, &bo).len(), 1);
    drop((gpu, bo, small));
    stage.assert_empty();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let Some(stage) = Setup::with_vram(8 * MIB)
        .config(|c| c.stable(false))
        .stage()
    else {
        return;
    };
    let refused = |info: &BufferInfo| stage.vulkan.buffer(info).map(drop);
    for wrong in [
        info(0),
        info(4096).align(0),
        info(4096).align(3),
        info(u64::MAX),
        info(4096).shared_by(&[99]),
        info(4096).usage(vk::BufferUsageFlags::empty()),
    ] {
        let answer = refused(&wrong);
        assert!(
            matches!(answer, Err(Error::Invalid(_))),
            "{wrong:?}: {answer:?}"
        );
    }
    let answer = refused(&info(4096).stable(true));
    assert!(matches!(answer, Err(Error::Unsupported(why)) if why.contains("stable")));
    refused(&info(4096).stable(false)).unwrap();
    // Memory has no handle.
    let gpu = Gpu::new(&stage);
    let bo = stage.make(stage.vulkan.memory(4096));
    let answer = gpu.fill(&bo, Some(&vram()), 1).map(drop);
    assert!(matches!(answer, Err(Error::Unsupported(_))), "{answer:?}");
    drop((gpu, bo));
    stage.assert_empty();
}

/// A stage whose device memory goes out.
fn exporting() -> Option<Stage> {
    let setup = Setup::with_vram(16 * MIB).config(|c| c.stable(false));
    let stage = setup.stage()?;
    if stage.vulkan.trials().file.is_none() {
        super::stage::lacks(&"memory of the device goes out as no file");
        return None;
    }
    Some(stage)
}

fn export(stage: &Stage, bo: &Bo<VulkanDriver>) -> Option<Exported> {
    let mut exported = None;
    let locked = stage.device.exec(OpContext::new(), |t| {
        exported = Some(stage.vulkan.export(&t.lock(bo)?)?);
        Ok(())
    });
    if let Err(error) = locked {
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
    }
    exported
}

/// What goes out as a descriptor comes in again as the same memory.
#[test]
fn memory_goes_out_and_comes_in() {
    let Some(stage) = exporting() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let (from, to) = (make(&stage, &info(MIB)), make(&stage, &info(MIB)));
    stage.write(&from, &words(4, 1, MIB)).unwrap();
    assert!(
        export(&stage, &from).is_none(),
        "system pages do not go out"
    );
    stage.validate(&from, &vram()).unwrap();
    let exported = export(&stage, &from).expect("device memory does");
    assert_eq!(exported.bytes, MIB);
    // SAFETY: it is of this device, as it says.
    let foreign = unsafe {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC;
        stage.vulkan.import(exported, usage).unwrap()
    };
    let region = [vk::BufferCopy::default().size(MIB)];
    let done = gpu
        .work(
            &[(&from, Usage::Read), (&to, Usage::Write)],
            Some(&vram()),
            |device, commands, bound| {
                // SAFETY: the commands are being recorded; both buffers live until the work is done, and
                // have so many bytes.
                unsafe {
                    device.cmd_copy_buffer(
                        commands,
                        foreign.handle(),
                        super::gpu::buffer(&bound[1]),
                        &region,
                    );
                }
            },
        )
        .unwrap();
    done.wait();
    assert_words(&seen(&stage, &gpu, &to), 4, 1);
    let cache = BoCache::new(&stage.device, 8 * MIB, Duration::from_secs(1));
    assert!(cache.put(info(MIB), to));
    assert!(!cache.put(info(MIB), from), "others reach it");
    cache.clear();
    drop((done, foreign, gpu));
    stage.assert_empty();
}

/// What comes in as an object is locked, fenced, bound and released with the others, and stays where it
/// is.
#[test]
fn memory_of_others_is_an_object_that_stays() {
    let Some(stage) = exporting() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let (from, to) = (make(&stage, &info(MIB)), make(&stage, &info(MIB)));
    stage.validate(&from, &vram()).unwrap();
    let exported = export(&stage, &from).expect("device memory goes out");
    // SAFETY: it is of this device, as it says.
    let described = unsafe { stage.vulkan.import_object(exported, COPIED).unwrap() };
    let foreign = stage.make(described);
    assert!(foreign.object().is_stable());
    // It goes nowhere, and nobody looks into it here.
    for refused in [
        stage.validate(&foreign, &vram()),
        stage.validate(&foreign, &Placement::default()),
        stage.write(&foreign, &[1]),
        stage.read(&foreign).map(drop),
    ] {
        let error = refused.expect_err("it is somebody else's");
        assert!(matches!(error, Error::Unsupported(why) if why.contains("somebody else")));
    }
    // Work on it, and then on another, by the fences of both.
    let gate = Gate::new(&stage);
    let filled = gpu
        .fill_behind(&foreign, None, Some(&gate), 0x0505_0505)
        .unwrap();
    stage.validate(&to, &vram()).unwrap();
    let copied = gpu.copy(&foreign, &to, None, MIB).unwrap();
    assert_eq!(filled.bound[0], copied.bound[0], "one handle for ever");
    // It is dropped with work on it, which has its buffer until the end.
    let cache = BoCache::new(&stage.device, 8 * MIB, Duration::from_secs(1));
    assert!(!cache.put((), foreign), "it is nobody's to give on");
    stage.device.reap();
    assert!(!filled.fence.is_signalled());
    gate.open();
    copied.wait();
    assert!(seen(&stage, &gpu, &to).iter().all(|byte| *byte == 5));
    assert!(seen(&stage, &gpu, &from).iter().all(|byte| *byte == 5));
    drop((filled, copied, gate, gpu, from, to));
    stage.assert_empty();
}

/// A dma-buf comes in whatever its maker numbers memory types. On lavapipe, which maps whatever it is
/// handed, a memory file stands in for it.
#[test]
fn a_dma_buf_comes_in_without_a_memory_type() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    if !stage.vulkan.facts().name.contains("llvmpipe") {
        return super::stage::lacks(&"a device that takes a memory file for a dma-buf");
    }
    let file = MemfdPages::new().unwrap();
    let run = file.take(&Want::new(PageCount::new(16).unwrap())).unwrap();
    assert_eq!(run.span().first, 0, "a dma-buf begins with its content");
    let from = |how, type_index| Exported {
        fd: file.file().try_clone().unwrap().into(),
        how,
        type_index,
        allocation: 1 << 16,
        offset: 0,
        bytes: 1 << 16,
    };
    let how = vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;
    // SAFETY: lavapipe maps the file, which is so large; the pages are taken.
    let described = unsafe { stage.vulkan.import_object(from(how, 99), COPIED) };
    let described = match described {
        Ok(described) => described,
        Err(Error::Backend(error)) if error.to_string().contains("VK_EXT_external") => {
            file.give(run.dirtied());
            return super::stage::lacks(&error);
        }
        Err(error) => panic!("{error}"),
    };
    let gpu = Gpu::new(&stage);
    let foreign = stage.make(described);
    gpu.fill(&foreign, None, 0x0909_0909).unwrap().wait();
    let mut found = vec![0; 1 << 16];
    file.map(run.span(), CacheMode::Cached)
        .unwrap()
        .read(0, &mut found);
    assert!(found.iter().all(|byte| *byte == 9), "the same bytes");
    drop((gpu, foreign));
    stage.assert_empty();
    file.give(run.dirtied());
}

/// What comes out of a cache is bound as it was: the same handle, no new bind, and, as nobody cleared
/// it, the words of its last user. Its next user's work comes behind that of the last.
#[test]
fn a_cached_buffer_comes_back_bound() {
    for stable in [false, true] {
        let setup = Setup::with_vram(16 * MIB).config(|c| c.stable(stable));
        let Some(stage) = setup.stage() else {
            return;
        };
        let gpu = Gpu::new(&stage);
        let cache = BoCache::new(&stage.device, 8 * MIB, Duration::from_secs(3600));
        let want = info(MIB);
        let bo = make(&stage, &want);
        let first = gpu.fill(&bo, Some(&vram()), 0x0707_0707).unwrap();
        let id = bo.id();
        assert!(cache.put(want.clone(), bo));
        let bo = cache.take(&want).expect("it lies there");
        assert_eq!(bo.id(), id);
        let again = gpu
            .work(&[(&bo, Usage::Write)], Some(&vram()), |_, _, _| {})
            .unwrap();
        assert_eq!(first.bound, again.bound, "handle, address, generation");
        assert_eq!(again.rebound, 0);
        again.wait();
        assert!(first.fence.is_signalled(), "it came behind");
        let words = seen(&stage, &gpu, &bo);
        assert!(words.iter().all(|byte| *byte == 7), "as it was left");
        let copied = || {
            let system = stage.device.manager(MemType::SYSTEM).unwrap();
            system.counters().bytes_in
        };
        let before = copied();
        // Who needs the room has it.
        assert!(cache.put(want.clone(), bo));
        let big: Vec<_> = (0..15).map(|_| make(&stage, &want)).collect();
        for bo in &big {
            stage.validate(bo, &vram()).unwrap();
        }
        let last = make(&stage, &want);
        stage.validate(&last, &vram()).unwrap();
        assert!(cache.take(&want).is_none());
        assert_eq!(copied(), before, "nothing was copied away");
        cache.check().unwrap();
        drop((first, again, gpu, big, last));
        stage.assert_empty();
    }
}
