//! Objects over memory that a user brings.

mod support;

use std::os::unix::fs::FileExt;

use backends::host::{MemfdPages, memory_file};
use backends::sim::SimDriver;
use placement::{CacheMode, Place, Placement};
use ttm::bo::BoInfo;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::dma::{Constraints, Direction, Mask, Path, Verdict};
use ttm::driver::{Advice, Side};
use ttm::error::Error;
use ttm::fence::Usage;
use ttm::pages::{PageSource, Want};
use ttm::share::{AttachInfo, ExportInfo};
use ttm::sync::Arc;

use support::{Found, PAGE, Setup, World, pages, system, tt, vram};

fn world(found: Found) -> World {
    World::new(&Setup {
        system_limit: Some(16),
        found,
        ..Setup::default()
    })
}

/// The device reads and writes it through its own view, wherever it may be, and the limit does not
/// notice.
#[test]
fn a_device_works_on_what_a_user_brought() {
    for found in [Found::Frames, Found::Direct, Found::Translated] {
        let world = world(found);
        let memory = world.gpu.memory().unwrap();
        // More than the system limit.
        let mine = memory.bring(&Want::new(pages(32))).unwrap();
        let span = mine.span();
        let seen = memory.map(span, CacheMode::Cached).unwrap();
        seen.write(0, &[7; 8]);
        let bo = world.device.bring(BoInfo::new(1), mine, ()).unwrap();
        assert_eq!(bo.bytes(), 32 * PAGE);
        for place in [tt(), system(), tt()] {
            world.validate(&bo, &place).unwrap();
            let add = |side: &Side, after| Ok((world.gpu.queue(0).add(side, 1, after)?, ()));
            drop(world.kernel(&bo, Usage::Write, add).unwrap());
            world.device.check().unwrap();
        }
        world.settle(&bo);
        let mut word = [0; 8];
        seen.read(0, &mut word);
        assert_eq!(word, [10, 7, 7, 7, 7, 7, 7, 7]);
        seen.read(31 * PAGE as usize, &mut word);
        assert_eq!(word, [3, 0, 0, 0, 0, 0, 0, 0]);
        assert!(world.device.system_budget().used().is_zero());
        drop((seen, bo));
        world.assert_empty();
        // Theirs no more, the frames are nobody's.
        assert!(memory.map(span, CacheMode::Cached).is_err());
    }
}

#[test]
fn what_was_brought_stays_where_and_as_it_is() {
    let world = world(Found::Translated);
    let memory = world.gpu.memory().unwrap();
    let mine = memory.bring(&Want::new(pages(4))).unwrap();
    let span = mine.span();
    let bo = world.device.bring(BoInfo::new(1), mine, ()).unwrap();
    let refused = |result: Result<u64, Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
    };
    refused(world.validate(&bo, &vram()));
    refused(world.validate(&bo, &Placement::new()));
    let combined = Place::new(placement::MemType::TT).cached(CacheMode::WriteCombined);
    refused(world.validate(&bo, &Placement::of(combined)));
    // Of several places, those that will do.
    let either = Placement::of(Place::new(placement::MemType::VRAM))
        .with(Place::new(placement::MemType::TT));
    world.validate(&bo, &either).unwrap();
    assert_eq!(world.place_of(&bo), Some(placement::MemType::TT));
    // Nobody throws it away, or swaps it, however short memory is.
    let kept = world.with(&bo, |r| Ok(r.advise(Advice::DontNeed))).unwrap();
    assert!(kept);
    world
        .device
        .evict_all(placement::MemType::TT, OpContext::new())
        .unwrap();
    assert_eq!(world.place_of(&bo), Some(placement::MemType::SYSTEM));
    let others: Vec<_> = (0..8).map(|_| world.create_in(8 * PAGE, &tt())).collect();
    world.with(&bo, |r| r.swap_out()).unwrap();
    assert_eq!(world.with(&bo, |r| Ok(r.swapped())).unwrap(), pages(0));
    world.validate(&bo, &tt()).unwrap();
    let side = world.with(&bo, |r| r.side()).unwrap();
    let ttm::driver::Side::Mapped(list) = side else {
        panic!("{side:?}");
    };
    let frames: Vec<_> = list.cpu_pages().unwrap().map(|page| page.page).collect();
    assert_eq!(frames, (span.first..span.first + 4).collect::<Vec<_>>());
    world.device.check().unwrap();
    drop((others, bo));
    world.assert_empty();
}

/// A device that reaches less is refused, rather than given a copy that is its user's no more.
#[test]
fn what_was_brought_is_lent_as_it_is_or_not_at_all() {
    let setup = Setup {
        found: Found::Translated,
        ..Setup::default()
    };
    let low = backends::sim::SimMemory::new(pages(1 << 20)).dma32(pages(4096));
    let config = backends::sim::GpuConfig {
        memory: low,
        ..setup.config()
    };
    let clock = backends::sim::VirtualClock::new();
    let time = backends::sim::SimClock::Virtual(Arc::clone(&clock));
    let gpu = backends::sim::Gpu::new(config, time).unwrap();
    let world = setup.on(gpu.clone(), Some(clock), SimDriver::new());
    let mine = gpu.memory().unwrap().bring(&Want::new(pages(4))).unwrap();
    let span = mine.span();
    let bo = world.device.bring(BoInfo::new(1), mine, ()).unwrap();
    let shared = world.device.export(&bo, ExportInfo::new()).unwrap();
    let camera = gpu.beside(Setup::default().config()).unwrap();
    for (limit, fits) in [(Mask::ALL, true), (Mask::bits(32), false)] {
        let verdict = Verdict {
            mask: limit,
            ..Verdict::for_tests(Path::Direct)
        };
        let mapper = camera.mapper(verdict).unwrap();
        let reach = Constraints {
            limit,
            ..Constraints::ANY
        };
        let info = AttachInfo::new("camera").constraints(reach).dynamic();
        let attached = shared.attach(OpContext::new(), mapper, info.migrating());
        let attached = attached.unwrap();
        let mapped = shared.exec(OpContext::new(), |bo| attached.map(bo, Direction::Both));
        match mapped {
            Ok(locked) if fits => {
                assert_eq!(locked.value().cpu_segments().unwrap()[0].span, span);
            }
            Err(Error::Unsupported(why)) if !fits => assert!(why.contains("brought"), "{why}"),
            other => panic!("{limit}: {:?}", other.map(drop)),
        }
    }
    world.device.check().unwrap();
    drop((shared, bo));
    world.assert_empty();
}

fn host() -> (Device<SimDriver>, Arc<MemfdPages>) {
    let pages = Arc::new(MemfdPages::new().unwrap());
    let clock = backends::host::wall_clock();
    let device = Device::builder(SimDriver::new(), clock)
        .pages(Arc::clone(&pages) as Arc<dyn PageSource>)
        .build()
        .unwrap();
    (device, pages)
}

#[test]
fn a_memory_file_is_the_objects_and_its_users_at_once() {
    let (device, source) = host();
    let mine = memory_file("mine", 4 * PAGE).unwrap();
    mine.write_all_at(b"before", PAGE).unwrap();
    let run = source
        .adopt_file(mine.try_clone().unwrap(), PAGE, 2 * PAGE)
        .unwrap();
    let bo = device.bring(BoInfo::new(1), run, ()).unwrap();
    let context = OpContext::new();
    let locked = device.exec(context, |t| {
        let held = t.lock(&bo)?;
        let mut seen = [0; 6];
        held.read(0, &mut seen)?;
        held.write(PAGE + 5, b"after")?;
        Ok(seen)
    });
    assert_eq!(locked.unwrap().value(), b"before");
    let mut seen = [0; 5];
    mine.read_exact_at(&mut seen, 2 * PAGE + 5).unwrap();
    assert_eq!(&seen, b"after");
    drop(bo);
    device.close(None).unwrap();
    assert_eq!(source.live_mappings(), 0, "it is let go");
    // And nothing of it was cleared.
    mine.read_exact_at(&mut seen, 2 * PAGE + 5).unwrap();
    assert_eq!(&seen, b"after");
}

#[test]
fn a_mapping_that_was_given_away_is_unmapped_with_the_object() {
    let (device, source) = host();
    let mut mine = memmap2::MmapMut::map_anon(3 * PAGE as usize).unwrap();
    mine[PAGE as usize..][..4].copy_from_slice(b"mine");
    let run = source.adopt_range(mine).unwrap();
    assert_eq!(source.live_mappings(), 1);
    let bo = device.bring(BoInfo::new(1), run, ()).unwrap();
    let locked = device.exec(OpContext::new(), |t| {
        let mut seen = [0; 4];
        t.lock(&bo)?.read(PAGE, &mut seen)?;
        Ok(seen)
    });
    assert_eq!(locked.unwrap().value(), b"mine");
    drop(bo);
    device.close(None).unwrap();
    assert_eq!(source.live_mappings(), 0);
}

/// F-21, F-33.
#[test]
fn what_could_end_the_program_is_not_taken_in() {
    let (_, source) = host();
    let file = |seals: rustix::fs::SealFlags| {
        use rustix::fs::MemfdFlags;
        let fd = rustix::fs::memfd_create("odd", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 2 * PAGE).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        std::fs::File::from(fd)
    };
    use rustix::fs::SealFlags;
    let shrink = SealFlags::SHRINK;
    let rows = [
        (SealFlags::empty(), 0, PAGE, "may shrink"),
        (shrink | SealFlags::WRITE, 0, PAGE, "sealed against writing"),
        (shrink, 0, 0, "at least one"),
        (shrink, 0, PAGE + 1, "whole pages"),
        (shrink, 1, PAGE, "begins at a page"),
        (shrink, PAGE, 2 * PAGE, "ends before"),
        (shrink, u64::MAX - 4095, PAGE, "memory"),
        (shrink, 0, u64::MAX - 4095, "memory"),
    ];
    for (seals, offset, bytes, hint) in rows {
        let refused = source.adopt_file(file(seals), offset, bytes).unwrap_err();
        assert!(refused.to_string().contains(hint), "{refused}");
    }
    let plain = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(source.adopt_file(plain, 0, PAGE).is_err());
    let odd = memmap2::MmapMut::map_anon(100).unwrap();
    assert!(source.adopt_range(odd).is_err());
    assert_eq!(source.live_mappings(), 0);
}

#[test]
fn what_is_refused_comes_back() {
    let (device, source) = host();
    let mine = memory_file("mine", PAGE).unwrap();
    let run = source.adopt_file(mine, 0, PAGE).unwrap();
    let info = BoInfo::new(1).priority(9);
    let refused = device.bring(info, run, ()).unwrap_err();
    assert!(matches!(refused.error, Error::Invalid(_)), "{refused}");
    let bo = device.bring(BoInfo::new(1), refused.frames, ()).unwrap();
    drop(bo);
    device.close(None).unwrap();
}
