//! Simulated physical memory: addresses, zones and nodes that mean something, and runs that can be
//! too long for it. At the seam and through a device of the manager.

mod support;

use backends::sim::{Gpu, GpuConfig, SimClock, SimDriver, SimMemory, VirtualClock};
use placement::PageCount;
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::device::{Device, DeviceBuilder};
use ttm::driver::Side;
use ttm::error::{Error, Result};
use ttm::pages::{FrameKind, FrameRun, FrameSpan, Want, Zone, Zones};
use ttm::trace::Event;

use support::{PAGE, Setup, World, pages, tt};

const GIB: u64 = 1 << 30;

fn gpu(memory: SimMemory) -> Gpu {
    let config = GpuConfig {
        memory,
        ..GpuConfig::default()
    };
    Gpu::new(config, SimClock::Virtual(VirtualClock::new())).unwrap()
}

/// 64 frames below 4 GiB, 128 above, 32 beyond, on two nodes.
fn zoned() -> SimMemory {
    SimMemory::new(pages(128))
        .dma32(pages(64))
        .high(pages(32))
        .nodes(2)
}

fn want(n: u64, zone: Zone, node: u8) -> Want {
    let kind = FrameKind {
        zone,
        node,
        ..FrameKind::default()
    };
    Want {
        kind,
        ..Want::new(pages(n))
    }
}

fn device(
    gpu: &Gpu,
    with: impl FnOnce(DeviceBuilder<SimDriver>) -> DeviceBuilder<SimDriver>,
) -> Result<Device<SimDriver>> {
    with(Device::builder(SimDriver::new(), gpu.clock()).pages(gpu.pages())).build()
}

/// Makes an object of so many pages in TT, populated.
fn create(device: &Device<SimDriver>, n: u64) -> Result<Bo<SimDriver>> {
    device.create_in(OpContext::new(), BoInfo::new(n * PAGE), (), &tt())
}

fn spans(device: &Device<SimDriver>, bo: &Bo<SimDriver>) -> Vec<FrameSpan> {
    let locked = device.exec(OpContext::new(), |t| t.lock(bo)?.side());
    match locked.unwrap().value() {
        Side::Frames(spans) => spans.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_have_addresses_in_their_zone_and_on_their_node() {
    let gpu = gpu(zoned());
    let source = gpu.pages();
    let offers = source.offers();
    assert_eq!((offers.zones, offers.nodes), (Zones::all(), 2));
    assert_eq!(offers.capacity, pages(64 + 128 + 32));
    let bounds = [
        (Zone::Dma32, 1 << 20, 4 * GIB),
        (Zone::Normal, 4 * GIB, 4 * GIB + 128 * PAGE),
        (Zone::High, 5 * GIB, 5 * GIB + 32 * PAGE),
    ];
    let mut runs: Vec<FrameRun> = Vec::new();
    for (zone, first, end) in bounds {
        let mut last = first;
        for node in 0..2 {
            let run = source.take(&want(8, zone, node)).unwrap();
            let address = gpu.physical(run.span()).unwrap();
            assert!(
                (last..end).contains(&address),
                "{zone} {node}: {address:#x}"
            );
            assert!(
                address.is_multiple_of(8 * PAGE),
                "at a multiple of its size"
            );
            last = address + 8 * PAGE;
            runs.push(run);
        }
    }
    let adjoin = |a: &FrameRun, b: &FrameRun| a.span().end() == b.span().first;
    let more = source.take(&want(8, Zone::Normal, 0)).unwrap();
    assert!(
        adjoin(&runs[2], &more),
        "what adjoins by number adjoins by address"
    );
    runs.push(more);
    assert_eq!(source.taken(), pages(7 * 8));
    runs.into_iter().for_each(|run| source.give(run.dirtied()));
    assert_eq!(source.taken(), PageCount::ZERO);
}

#[test]
fn a_zone_that_is_full_is_full_and_no_other_stands_in() {
    let gpu = gpu(zoned());
    let source = gpu.pages();
    let low = source.take(&want(32, Zone::Dma32, 0)).unwrap();
    for n in [1, 32] {
        let full = source.take(&want(n, Zone::Dma32, 0));
        assert!(matches!(full, Err(Error::NoMemory { wanted, .. }) if wanted == pages(n)));
    }
    let other = source.take(&want(32, Zone::Dma32, 1)).unwrap();
    assert_eq!(source.taken(), pages(64));
    source.give(low.dirtied());
    source.give(source.take(&want(32, Zone::Dma32, 0)).unwrap().dirtied());
    source.give(other.dirtied());
}

#[test]
fn what_there_is_not_is_refused() {
    let only_normal = gpu(SimMemory::new(pages(16)));
    let source = only_normal.pages();
    assert_eq!(source.offers().zones, Zones::NORMAL);
    let refused = |want: Want| matches!(source.take(&want), Err(Error::Unsupported(_)));
    assert!(refused(want(1, Zone::Dma32, 0)) && refused(want(1, Zone::Normal, 1)));
    assert!(matches!(
        source.take(&want(0, Zone::Normal, 0)),
        Err(Error::Invalid(_))
    ));
    let impossible = [
        SimMemory::new(pages(1)).dma32(pages(1 << 20)),
        SimMemory::new(PageCount::MAX),
        SimMemory::new(pages(1)).nodes(0),
    ];
    for memory in impossible {
        let config = GpuConfig {
            memory,
            ..GpuConfig::default()
        };
        let clock = SimClock::Virtual(VirtualClock::new());
        assert!(matches!(Gpu::new(config, clock), Err(Error::Invalid(_))));
    }
}

#[test]
fn parts_of_a_run_go_back_one_by_one_and_are_one_run_again() {
    let gpu = gpu(SimMemory::new(pages(16)));
    let source = gpu.pages();
    let mut run = source.take(&want(16, Zone::Normal, 0)).unwrap();
    let generation = run.generation();
    let mut parts: Vec<FrameRun> = (1..16)
        .rev()
        .map(|keep| run.split_off(pages(keep)))
        .collect();
    parts.push(run);
    // Every second frame first, so that they come back as holes.
    let (odd, even): (Vec<_>, Vec<_>) = (0..16).zip(parts).partition(|(n, _)| n % 2 == 1);
    odd.into_iter()
        .for_each(|(_, part)| source.give(part.dirtied()));
    assert_eq!(source.taken(), pages(8));
    assert!(source.take(&want(2, Zone::Normal, 0)).is_err());
    even.into_iter()
        .for_each(|(_, part)| source.give(part.dirtied()));
    let whole = source.take(&want(16, Zone::Normal, 0)).unwrap();
    assert!(whole.generation() > generation, "a later owner");
    source.give(whole.dirtied());
}

#[test]
#[should_panic(expected = "was not taken here")]
fn frames_of_another_source_are_not_taken_back() {
    let (here, there) = (gpu(zoned()), gpu(zoned()));
    let run = there.pages().take(&want(4, Zone::Normal, 0)).unwrap();
    here.pages().give(run.dirtied());
}

#[test]
fn a_device_gets_its_frames_from_its_zone_and_node() {
    let gpu = gpu(zoned());
    let dma32 = device(&gpu, |b| b.zone(Zone::Dma32)).unwrap();
    let bo = create(&dma32, 8).unwrap();
    for span in spans(&dma32, &bo) {
        assert!(gpu.physical(span).unwrap() + span.pages.bytes() <= 4 * GIB);
    }
    // The other 24 frames of the node are all that is left.
    let error = create(&dma32, 25).unwrap_err();
    assert!(matches!(error, Error::NoMemory { .. }), "{error}");
    let rest = create(&dma32, 24).unwrap();
    dma32.check().unwrap();
    drop((bo, rest));
    drop(dma32);
    assert_eq!(gpu.pages().taken(), PageCount::ZERO);

    let far = device(&gpu, |b| b.node(1)).unwrap();
    let bo = create(&far, 8).unwrap();
    let first_of_node = 4 * GIB + 64 * PAGE;
    for span in spans(&far, &bo) {
        assert!(gpu.physical(span).unwrap() >= first_of_node);
    }
    far.check().unwrap();
}

#[test]
fn a_zone_that_is_full_leaves_the_others_alone() {
    let gpu = gpu(zoned());
    let hog = gpu.pages().take(&want(32, Zone::Dma32, 0)).unwrap();
    let dma32 = device(&gpu, |b| b.zone(Zone::Dma32)).unwrap();
    let normal = device(&gpu, |b| b).unwrap();
    assert!(matches!(create(&dma32, 1), Err(Error::NoMemory { .. })));
    let bo = create(&normal, 64).unwrap();
    assert_eq!(
        spans(&normal, &bo)
            .iter()
            .map(|s| s.pages.get())
            .sum::<u64>(),
        64
    );
    gpu.pages().give(hog.dirtied());
    create(&dma32, 1).unwrap();
}

#[test]
fn a_device_of_a_node_or_zone_that_there_is_not_is_refused() {
    let gpu = gpu(SimMemory::new(pages(64)));
    for refused in [
        device(&gpu, |b| b.node(1)),
        device(&gpu, |b| b.zone(Zone::Dma32)),
    ] {
        assert!(matches!(refused, Err(Error::Unsupported(_))));
    }
}

#[test]
fn fragments_leave_no_long_run_and_come_back() {
    let gpu = gpu(SimMemory::new(pages(4096)));
    let (source, memory) = (gpu.pages(), gpu.memory().unwrap());
    for seed in 0..5 {
        let fragments = memory.fragment(seed, 64);
        assert_eq!(fragments.frames(), pages(64));
        assert_eq!(source.taken(), PageCount::ZERO);
        assert!(matches!(
            source.take(&want(128, Zone::Normal, 0)),
            Err(Error::NoMemory { .. })
        ));
        source.give(source.take(&want(32, Zone::Normal, 0)).unwrap().dirtied());
        drop(fragments);
        source.give(source.take(&want(4096, Zone::Normal, 0)).unwrap().dirtied());
    }
}

/// Real addresses adjoin by luck: an object gets shorter runs, and nobody is asked to leave.
#[test]
fn a_fragmented_memory_gives_shorter_runs_and_evicts_nobody() {
    let setup = Setup::default();
    let clock = VirtualClock::new();
    let config = GpuConfig {
        memory: SimMemory::new(pages(4096)),
        ..setup.config()
    };
    let gpu = Gpu::new(config, SimClock::Virtual(clock.clone())).unwrap();
    let world: World = setup.on(gpu, Some(clock), SimDriver::new());
    let bystander = world.create_in(700 * PAGE, &tt());
    let fragments = world.gpu.memory().unwrap().fragment(1, 64);
    world.log.take();
    let bo = world.create_in(512 * PAGE, &tt());
    let spans = spans(&world.device, &bo);
    assert_eq!(spans.iter().map(|s| s.pages.get()).sum::<u64>(), 512);
    assert!(
        spans.len() > 4 && spans.iter().all(|s| s.pages.get() < 128),
        "{spans:?}"
    );
    let left = |e: &Event| matches!(e, Event::SwappedOut { .. } | Event::Moved { object: 1, .. });
    assert!(!world.log.events().iter().any(left), "nobody leaves");
    assert_eq!(
        world.with(&bystander, |r| Ok(r.swapped().get())).unwrap(),
        0
    );
    world.check();

    let bytes: Vec<u8> = (0..512 * PAGE).map(|n| (n * 7 % 251) as u8).collect();
    world.with(&bo, |r| r.write(0, &bytes)).unwrap();
    world.validate(&bo, &support::system()).unwrap();
    world.with(&bo, |r| r.swap_out()).unwrap();
    let mut found = vec![0; bytes.len()];
    world.with(&bo, |r| r.read(0, &mut found)).unwrap();
    assert!(found == bytes);
    world.check();
    drop((bo, bystander, fragments));
    world.assert_empty();
}
