//! What devices were seen to do on real platforms, done by the fake one: addresses that wrap, writes
//! that go nowhere, translations that are remembered.
//!
//! The rows follow what was observed with an emulated card (28 address lines, no error reporting)
//! behind an emulated IOMMU, and without one.

mod support;

use backends::sim::{Gpu, GpuConfig, IoSpace, Platform, SimClock, SimPages, VirtualClock};
use placement::{CacheMode, PageCount};
use ttm::dma::{
    Direction, DmaAddr, DmaDevice, DmaError, DmaMapping, FrameBytes, Mapper, Mask, Path,
    SegmentParms, Translation, Verdict,
};
use ttm::driver::Side;
use ttm::fence::{Fence, Status, Usage};
use ttm::pages::{Dirty, FrameRun, PageSource, Want};
use ttm::sync::Arc;
use ttm::trace::Event;

use support::{Found, PAGE, Setup, World, pages, tt};

const WORDS: usize = PAGE as usize / 8;
const STRICT: Path = Path::Translated { strict: true };

/// A card behind an IOMMU, without a manager.
struct Card {
    gpu: Gpu,
}

/// Frames with the CPU's view of them.
struct Memory<'a> {
    source: &'a Arc<SimPages>,
    run: Option<FrameRun<Dirty>>,
}

impl Card {
    fn new(platform: &str) -> Self {
        let mut config = GpuConfig::new(pages(64));
        let platform = Platform::named(platform).unwrap();
        platform.put(&mut config, 1);
        let gpu = Gpu::new(config, SimClock::Virtual(VirtualClock::new())).unwrap();
        Self { gpu }
    }

    fn memory(&self, count: u64) -> Memory<'_> {
        let source = self.gpu.memory().unwrap();
        let run = source.take(&Want::new(pages(count))).unwrap();
        let run = Some(run.dirtied());
        Memory { source, run }
    }

    fn wait(&self, fence: &Fence) {
        assert_eq!(fence.wait(None).unwrap(), Status::Done);
    }

    fn fill(&self, mapping: &DmaMapping, word: u64) {
        let side = Side::Mapped(Arc::clone(mapping.list()));
        let fence = self.gpu.queue(0).fill(&side, word, []).unwrap();
        self.wait(&fence);
    }
}

impl Memory<'_> {
    fn map(&self, card: &DmaDevice, direction: Direction) -> Result<DmaMapping, DmaError> {
        let spans = [self.run.as_ref().unwrap().span()];
        let len = spans[0].pages.bytes();
        let offset = 0;
        let spans = &spans;
        card.map(FrameBytes { spans, offset, len }, direction)
    }

    fn cpu(&self) -> ttm::pages::Mapped {
        let span = self.run.as_ref().unwrap().span();
        self.source.map(span, CacheMode::Cached).unwrap()
    }

    fn words(&self) -> Vec<u64> {
        let mapped = self.cpu();
        let mut bytes = vec![0; mapped.len()];
        mapped.read(0, &mut bytes);
        let words = bytes.chunks_exact(8);
        words
            .map(|w| u64::from_le_bytes(w.try_into().unwrap()))
            .collect()
    }

    fn fill(&self, word: u64) {
        let mapped = self.cpu();
        for at in (0..mapped.len()).step_by(8) {
            mapped.write(at, &word.to_le_bytes());
        }
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        self.source.give(self.run.take().unwrap());
    }
}

fn widest(path: Path) -> Verdict {
    Verdict::for_tests(path)
}

#[test]
fn what_goes_to_the_card_and_back_is_the_same_byte_by_byte() {
    for name in [
        "coherent",
        "iommu-amd",
        "iommu-intel",
        "identity",
        "untrusted",
    ] {
        let card = Card::new(name);
        let verdict = Platform::named(name).unwrap().verdict();
        let mapper = card.gpu.mapper(verdict).unwrap();
        let memory = card.memory(3);
        memory.fill(0x0123_4567_89ab_cdef);
        let mapping = memory.map(&mapper, Direction::Both).unwrap();
        let side = Side::Mapped(Arc::clone(mapping.list()));
        let fence = card.gpu.queue(0).add(&side, 0x1111, []).unwrap();
        card.wait(&fence);
        let found = memory.words();
        assert_eq!(found, vec![0x0123_4567_89ab_df00; 3 * WORDS], "{name}");
        mapper.unmap(mapping);
    }
}

#[test]
fn an_address_above_the_lines_lands_on_somebody_else_and_nothing_says_so() {
    let card = Card::new("iommu-intel");
    let io = IoSpace::new(Mask::bits(28), Arc::clone(card.gpu.inject()));
    // Who ignores the mask: addresses come from the top of 32 bits.
    let believed = Verdict {
        mask: Mask::bits(32),
        ..widest(STRICT)
    };
    let wrong = card.gpu.mapper_in(believed, Some(&io)).unwrap();
    let (first, second) = (card.memory(1), card.memory(1));
    first.fill(1);
    second.fill(2);
    let queue = card.gpu.queue(0).through(&io);
    // One where the card reaches it, one 2^28 above.
    let low = Verdict {
        mask: Mask::bits(28),
        ..widest(STRICT)
    };
    let right = card.gpu.mapper_in(low, Some(&io)).unwrap();
    let victim = first.map(&right, Direction::Both).unwrap();
    let at = victim.list().dma_segments()[0].addr.get();
    let mut above = Vec::new();
    let hit = loop {
        let mapping = second.map(&wrong, Direction::Both).unwrap();
        let found = mapping.list().dma_segments()[0].addr.get();
        if found & Mask::bits(28).last() == at {
            break mapping;
        }
        above.push(mapping);
    };
    let side = Side::Mapped(Arc::clone(hit.list()));
    let fence = queue.fill(&side, 9, []).unwrap();
    card.wait(&fence);
    assert_eq!(first.words(), vec![9; WORDS], "somebody else's");
    assert_eq!(
        second.words(),
        vec![2; WORDS],
        "not where it was meant to go"
    );
    assert_eq!(io.faults(), []);
    for mapping in above.into_iter().chain([hit]) {
        wrong.unmap(mapping);
    }
    right.unmap(victim);
}

#[test]
fn what_is_not_mapped_or_may_not_be_written_stays_as_it_is_and_the_job_ends_well() {
    let card = Card::new("iommu-amd");
    let io = card.gpu.io_space().unwrap();
    let mapper = card.gpu.mapper(widest(STRICT)).unwrap();
    let memory = card.memory(2);
    memory.fill(5);
    // Read only.
    let mapping = memory.map(&mapper, Direction::ToDevice).unwrap();
    card.fill(&mapping, 6);
    assert_eq!(memory.words(), vec![5; 2 * WORDS]);
    assert_eq!(io.faults().len(), 2);
    assert!(io.faults().iter().all(|fault| fault.write));
    // Write only: what it reads are ones.
    mapper.unmap(mapping);
    let mapping = memory.map(&mapper, Direction::FromDevice).unwrap();
    let side = Side::Mapped(Arc::clone(mapping.list()));
    let (fence, sum) = card.gpu.queue(0).checksum(&side, []).unwrap();
    card.wait(&fence);
    let ones = backends::sim::checksum_words([u64::MAX; 2 * WORDS]);
    assert_eq!(sum.get(), Some(ones));
    // After unmapping.
    let list = Arc::clone(mapping.list());
    card.fill(&mapping, 7);
    mapper.unmap(mapping);
    let faults = io.faults().len();
    let fence = card.gpu.queue(0).fill(&Side::Mapped(list), 8, []).unwrap();
    card.wait(&fence);
    assert_eq!(memory.words(), vec![7; 2 * WORDS]);
    assert_eq!(io.faults().len(), faults + 2);
    assert_eq!(io.stale_uses(), 0);
}

#[test]
fn addresses_are_shown_once_and_interrupts_keep_theirs() {
    let card = Card::new("iommu-intel");
    let io = card.gpu.io_space().unwrap();
    let memory = card.memory(1);
    let mapper = card.gpu.mapper(widest(STRICT)).unwrap();
    let mapping = memory.map(&mapper, Direction::Both).unwrap();
    let at = mapping.list().dma_segments()[0].addr;
    let run = ttm::dma::IoRun {
        at: 0,
        span: memory.run.as_ref().unwrap().span(),
        offset: 0,
        len: PAGE,
    };
    let twice = io.map(at, &run, Direction::Both).unwrap_err();
    let (first, len) = (at.get(), PAGE);
    assert_eq!(twice, DmaError::IovaInUse { first, len });
    mapper.unmap(mapping);
    // All addresses of 32 bits, one after the other, in blocks of 16 MiB.
    let narrow = Verdict {
        mask: Mask::bits(32),
        ..widest(STRICT)
    };
    let mapper = card.gpu.mapper(narrow).unwrap();
    let large = card.memory(4096);
    let mut all = Vec::new();
    while let Ok(mapping) = large.map(&mapper, Direction::Both) {
        for segment in mapping.list().dma_segments() {
            let (first, last) = (segment.addr.get(), segment.last().unwrap());
            assert!(first > 0xfeef_ffff || last < 0xfee0_0000, "{segment:?}");
            assert!(first > 0, "nothing is at 0");
        }
        all.push(mapping);
    }
    // All but the first block and that of the interrupts.
    assert_eq!(all.len(), 256 - 2);
    all.into_iter().for_each(|mapping| mapper.unmap(mapping));
}

#[test]
fn the_page_at_the_limit_of_a_direct_card_is_page_0_to_it() {
    let card = Card::new("mask-28");
    let ignoring = widest(Path::Direct);
    let mapper = card.gpu.mapper(ignoring).unwrap();
    let high = card.memory(1);
    assert!(high.run.as_ref().unwrap().span().first >= 1 << 16);
    high.fill(3);
    let mapping = high.map(&mapper, Direction::Both).unwrap();
    card.fill(&mapping, 4);
    assert_eq!(high.words(), vec![3; WORDS], "it went elsewhere");
    mapper.unmap(mapping);
    // Who asks the platform is refused.
    let told = Platform::named("mask-28").unwrap().verdict();
    let mapper = card.gpu.mapper(told).unwrap();
    let refused = high.map(&mapper, Direction::Both).unwrap_err();
    assert!(matches!(refused, DmaError::AboveMask { .. }), "{refused}");
}

/// Several contexts of one card: the same frames in address spaces of their own.
#[test]
fn a_card_finds_the_same_pages_in_two_address_spaces() {
    let card = Card::new("iommu-amd");
    let inject = card.gpu.inject();
    let spaces = [0, 1].map(|_| IoSpace::new(Mask::ALL, Arc::clone(inject)));
    let mappers = spaces.each_ref().map(|io| {
        let mapper = card.gpu.mapper_in(widest(STRICT), Some(io));
        mapper.unwrap()
    });
    let (shared, own) = (card.memory(4), card.memory(2));
    // So that the addresses differ.
    let aside = own.map(&mappers[1], Direction::Both).unwrap();
    let lists = mappers
        .each_ref()
        .map(|mapper| shared.map(mapper, Direction::Both).unwrap());
    let at = |n: usize| lists[n].list().dma_segments()[0].addr;
    assert_ne!(at(0), at(1));
    let side = |n: usize| Side::Mapped(Arc::clone(lists[n].list()));
    let queue = |n: usize| card.gpu.queue(n).through(&spaces[n]);
    let first = queue(0).fill(&side(0), 40, []).unwrap();
    let second = queue(1).add(&side(1), 2, [first]).unwrap();
    card.wait(&second);
    assert_eq!(shared.words(), vec![42; 4 * WORDS]);
    // One context goes, and the other does not notice; the pages were not touched.
    let [one, other] = lists;
    mappers[0].unmap(one);
    let fence = card
        .gpu
        .queue(1)
        .through(&spaces[1])
        .add(&Side::Mapped(Arc::clone(other.list())), 1, [])
        .unwrap();
    card.wait(&fence);
    assert_eq!(shared.words(), vec![43; 4 * WORDS]);
    assert!(spaces.iter().all(|io| io.faults().is_empty()));
    mappers[1].unmap(other);
    mappers[1].unmap(aside);
}

fn translated() -> World {
    World::new(&Setup {
        found: Found::Translated,
        ..Setup::default()
    })
}

fn job(world: &World, bo: &ttm::bo::Bo<backends::sim::SimDriver>, word: u64) {
    let fill = |side: &Side, after| Ok((world.gpu.queue(0).fill(side, word, after)?, ()));
    drop(world.kernel(bo, Usage::Write, fill).unwrap());
    world.settle(bo);
}

/// F-27.
#[test]
fn a_card_that_remembers_what_was_unmapped_writes_where_it_must_not() {
    for skips in [false, true] {
        let world = translated();
        if skips {
            world.inject.fail("iommu.skip-invalidate", 1, true);
        }
        let first = world.create_in(4 * PAGE, &tt());
        job(&world, &first, 1);
        let kept = world.create_in(4 * PAGE, &tt());
        job(&world, &kept, 2);
        drop(first);
        world.device.reap();
        // Somebody takes the frames of the first, and somebody else its addresses.
        let taker = world.create(4 * PAGE);
        world.with(&taker, |r| r.write(0, &[1])).unwrap();
        world.with(&taker, |r| r.populate()).unwrap();
        let next = world.create_in(4 * PAGE, &tt());
        job(&world, &next, 3);
        let mut word = [0; 8];
        world.with(&next, |r| r.read(0, &mut word)).unwrap();
        let stale = world.gpu.io_space().unwrap().stale_uses();
        match skips {
            false => assert_eq!((u64::from_le_bytes(word), stale), (3, 0)),
            true => assert!(word == [0; 8] && stale > 0, "{word:?}, {stale}"),
        }
    }
}

/// I-49, I-50: mapped while in TT, from when it comes until it has left and nothing uses it.
#[test]
fn an_object_is_found_by_its_device_while_it_is_in_tt() {
    let world = translated();
    let (card, io) = (world.card.as_ref().unwrap(), world.gpu.io_space().unwrap());
    let shown = || (card.live(), io.shown().get());
    let bo = world.create_in(3 * PAGE, &support::system());
    assert_eq!(shown(), (0, 0));
    world.log.take();
    world.validate(&bo, &tt()).unwrap();
    assert_eq!(shown(), (1, 3));
    let told = world.log.take();
    let mapped = |event: &&Event| matches!(event, Event::Mapped { bytes, lent: false, .. } if *bytes == 3 * PAGE);
    assert_eq!(told.iter().filter(mapped).count(), 1, "{told:?}");
    // The engine that takes it to device memory needs it until it is done.
    world.validate(&bo, &support::vram()).unwrap();
    world.settle(&bo);
    world.device.reap();
    assert_eq!(shown(), (0, 0));
    world.validate(&bo, &support::system()).unwrap();
    assert_eq!(shown(), (1, 3), "the engine writes to it");
    world.settle(&bo);
    world.device.reap();
    assert_eq!(shown(), (0, 0));
    // In SYSTEM it is found for as long as a job uses it.
    job(&world, &bo, 4);
    world.device.reap();
    assert_eq!(shown(), (0, 0));
    world.validate(&bo, &tt()).unwrap();
    world.validate(&bo, &support::system()).unwrap();
    assert_eq!(shown(), (0, 0), "nothing used it");
    world.validate(&bo, &tt()).unwrap();
    world.device.check().unwrap();
    drop(bo);
    world.assert_empty();
}

/// Addresses for two objects: a third has one of them leave, and a busy one is waited for.
#[test]
fn who_finds_no_addresses_has_others_leave() {
    let world = World::new(&Setup {
        found: Found::Scarce(24),
        ..Setup::default()
    });
    let bos: Vec<_> = (0..3).map(|_| world.create(8 * PAGE)).collect();
    for (n, bo) in (1..).zip(&bos) {
        world.validate(bo, &tt()).unwrap();
        job(&world, bo, n);
    }
    let places: Vec<_> = bos.iter().map(|bo| world.place_of(bo)).collect();
    let (system, tt_type) = (placement::MemType::SYSTEM, placement::MemType::TT);
    assert_eq!(places, [Some(system), Some(tt_type), Some(tt_type)]);
    world.device.check().unwrap();
    // More than the device has addresses for.
    let large = world.create(32 * PAGE);
    let refused = world.validate(&large, &tt()).unwrap_err();
    assert!(refused.to_string().contains("limit"), "{refused}");
    assert_eq!(refused.class(), ttm::error::Class::Refuse);
    assert_eq!(
        refused.to_errno(),
        5,
        "EIO, as the kernel's: not to be retried"
    );
    for (n, bo) in (1_u64..).zip(&bos) {
        let mut word = [0; 8];
        world.with(bo, |r| r.read(7 * PAGE, &mut word)).unwrap();
        assert_eq!(u64::from_le_bytes(word), n);
    }
    drop((bos, large));
    world.assert_empty();
}

/// A mapper of the wrong kind is found out when it is made.
#[test]
fn a_verdict_of_another_path_makes_no_mapper() {
    let card = Card::new("iommu-amd");
    assert!(card.gpu.mapper(widest(Path::Direct)).is_err());
    assert!(card.gpu.mapper_in(widest(Path::Direct), None).is_ok());
    let parms = SegmentParms {
        max_segment: 1,
        ..SegmentParms::DEFAULT
    };
    let refused = DmaDevice::direct(widest(Path::Direct), parms, |_| None);
    assert!(matches!(refused, Err(DmaError::BadParms { .. })));
    let one = PageCount::ONE;
    assert_eq!(DmaAddr::new(one.bytes()).unwrap().get(), PAGE);
}
