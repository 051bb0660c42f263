//! Caches that a device does not snoop, at the seam: what a missing flush, a missing invalidation
//! or a second mode shows, byte by byte, through raw mappings. No manager is here; `sim_coherence`
//! shows that the manager does all of it right.

use backends::sim::{
    CacheCounts, CacheModel, Gpu, GpuConfig, SimClock, SimMemory, VirtualClock, checksum_words,
};
use placement::{CacheMode, PageCount};
use ttm::cache::Maintenance;
use ttm::driver::Side;
use ttm::error::Error;
use ttm::fence::Status;
use ttm::pages::{FrameRun, FrameSpan, Mapped, PageSource, Want};
use ttm::sync::Arc;

const LINE: usize = 64;
const PAGE: usize = 4096;

fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

fn gpu(model: CacheModel) -> Gpu {
    let config = GpuConfig {
        memory: SimMemory::new(pages(64)).cache(model),
        ..GpuConfig::default()
    };
    Gpu::new(config, SimClock::Virtual(VirtualClock::new())).unwrap()
}

/// A device, and two frames of it.
struct Bench {
    gpu: Gpu,
    source: Arc<dyn PageSource>,
    run: Option<FrameRun>,
}

impl Bench {
    fn new(model: CacheModel) -> Self {
        let gpu = gpu(model);
        let source = gpu.pages();
        let run = Some(source.take(&Want::new(pages(2))).unwrap());
        Self { gpu, source, run }
    }

    fn span(&self) -> FrameSpan {
        self.run.as_ref().unwrap().span()
    }

    fn map(&self, mode: CacheMode) -> Mapped {
        self.source.map(self.span(), mode).unwrap()
    }

    fn maintain(&self, what: Maintenance) {
        self.source.maintain(self.span(), what);
    }

    fn switch(&self, from: CacheMode, to: CacheMode) {
        self.source.switch(&[self.span()], from, to).unwrap();
    }

    fn side(&self) -> Side {
        Side::Frames([self.span()].into())
    }

    fn device_fills(&self, word: u64) {
        let fence = self.gpu.queue(0).fill(&self.side(), word, []).unwrap();
        assert_eq!(fence.wait(None).unwrap(), Status::Done);
    }

    /// Whether the device finds `word` everywhere.
    fn device_sees(&self, word: u64) -> bool {
        let (fence, sum) = self.gpu.queue(0).checksum(&self.side(), []).unwrap();
        assert_eq!(fence.wait(None).unwrap(), Status::Done);
        sum.get().unwrap() == checksum_words([word; 2 * PAGE / 8])
    }

    fn counts(&self) -> CacheCounts {
        self.gpu.cache_counts()
    }

    /// Gives the frames back and takes some anew: the same ones.
    fn retake(&mut self) {
        let before = self.span();
        self.source.give(self.run.take().unwrap().dirtied());
        self.run = Some(self.source.take(&Want::new(pages(2))).unwrap());
        assert_eq!(self.span(), before);
    }
}

fn fill(mapped: &Mapped, word: u64) {
    mapped.write(0, &word.to_le_bytes().repeat(mapped.len() / 8));
}

fn word_at(mapped: &Mapped, at: usize) -> u64 {
    let mut bytes = [0; 8];
    mapped.read(at, &mut bytes);
    u64::from_le_bytes(bytes)
}

fn all_words_are(mapped: &Mapped, word: u64) -> bool {
    (0..mapped.len())
        .step_by(8)
        .all(|at| word_at(mapped, at) == word)
}

#[test]
fn what_the_cpu_writes_shows_to_the_device_once_it_is_cleaned() {
    let bench = Bench::new(CacheModel::still());
    let mapped = bench.map(CacheMode::Cached);
    fill(&mapped, 7);
    assert!(bench.device_sees(0), "the dirty lines are in the way");
    assert_eq!(bench.counts().unseen, 2 * (PAGE / LINE) as u64);
    bench.maintain(Maintenance::Clean);
    assert!(bench.device_sees(7));
    assert_eq!(bench.counts().cleaned, 2 * (PAGE / LINE) as u64);
}

#[test]
fn what_a_device_writes_shows_to_the_cpu_once_its_lines_are_dropped() {
    let bench = Bench::new(CacheModel::still());
    let mapped = bench.map(CacheMode::Cached);
    fill(&mapped, 7);
    bench.maintain(Maintenance::Clean);
    bench.device_fills(8);
    assert!(all_words_are(&mapped, 7), "the lines are stale");
    bench.maintain(Maintenance::Invalidate);
    assert!(all_words_are(&mapped, 8));
    let counts = bench.counts();
    assert_eq!(
        (counts.invalidated, counts.lost),
        (2 * (PAGE / LINE) as u64, 0)
    );
}

#[test]
fn an_invalidation_loses_what_was_not_cleaned_and_a_flush_does_not() {
    for (what, kept) in [(Maintenance::Invalidate, 0), (Maintenance::Flush, 7)] {
        let bench = Bench::new(CacheModel::still());
        let mapped = bench.map(CacheMode::Cached);
        fill(&mapped, 7);
        bench.maintain(what);
        assert!(all_words_are(&mapped, kept) && bench.device_sees(kept));
        assert_eq!(bench.counts().lost > 0, kept == 0);
    }
}

/// A line is dirty as a whole: cleaning it undoes what a device wrote beside the CPU's bytes.
#[test]
fn a_dirty_line_takes_its_neighbours_with_it() {
    let bench = Bench::new(CacheModel::still());
    let mapped = bench.map(CacheMode::Cached);
    mapped.write(LINE, &7_u64.to_le_bytes());
    bench.device_fills(8);
    bench.maintain(Maintenance::Clean);
    bench.maintain(Maintenance::Invalidate);
    let found = [0, LINE, LINE + 8, 2 * LINE].map(|at| word_at(&mapped, at));
    assert_eq!(found, [8, 7, 0, 8]);
}

#[test]
fn two_modes_at_once_are_two_contents() {
    let bench = Bench::new(CacheModel::still());
    let cached = bench.map(CacheMode::Cached);
    let uncached = bench.map(CacheMode::Uncached);
    fill(&cached, 7);
    fill(&uncached, 8);
    assert!(all_words_are(&cached, 7) && all_words_are(&uncached, 8));
    assert!(
        bench.device_sees(8),
        "the device is where the uncached writes are"
    );
    bench.maintain(Maintenance::Clean);
    assert!(
        all_words_are(&uncached, 7),
        "an old line wins over a newer write"
    );
}

#[test]
fn gathered_writes_arrive_when_they_are_drained_and_reads_are_not_stale() {
    let bench = Bench::new(CacheModel::still());
    bench.switch(CacheMode::Cached, CacheMode::WriteCombined);
    let mapped = bench.map(CacheMode::WriteCombined);
    mapped.write(0, &7_u64.to_le_bytes());
    assert!(bench.device_sees(0), "the write is gathered");
    bench.device_fills(8);
    assert_eq!([0, LINE].map(|at| word_at(&mapped, at)), [7, 8]);
    bench.maintain(Maintenance::Clean);
    let drained = bench.map(CacheMode::Uncached);
    assert_eq!([0, LINE].map(|at| word_at(&drained, at)), [7, 8]);
}

#[test]
fn a_device_that_snoops_and_the_cpu_see_the_same_cached_bytes() {
    let bench = Bench::new(CacheModel::seeded(3).snooped());
    assert!(bench.source.offers().snooped);
    let mapped = bench.map(CacheMode::Cached);
    for word in 1..20 {
        fill(&mapped, word);
        assert!(bench.device_sees(word));
        bench.device_fills(word << 32);
        assert!(all_words_are(&mapped, word << 32));
    }
    assert_eq!(bench.counts().unseen, 0);
}

#[test]
fn zeroes_are_dirty_lines_until_they_are_cleaned() {
    let bench = Bench::new(CacheModel::still());
    bench.device_fills(8);
    bench.source.zero(bench.span(), CacheMode::Cached).unwrap();
    assert!(bench.device_sees(8), "the zeroes are still in the caches");
    bench.maintain(Maintenance::Clean);
    assert!(bench.device_sees(0));

    bench.device_fills(9);
    bench.maintain(Maintenance::Flush);
    bench.switch(CacheMode::Cached, CacheMode::Uncached);
    bench
        .source
        .zero(bench.span(), CacheMode::Uncached)
        .unwrap();
    assert!(bench.device_sees(0), "uncached zeroes are there at once");
}

#[test]
fn nothing_of_the_last_owner_is_left_in_any_view() {
    let mut bench = Bench::new(CacheModel::seeded(5));
    for mode in [
        CacheMode::Cached,
        CacheMode::WriteCombined,
        CacheMode::Uncached,
    ] {
        bench.switch(CacheMode::Cached, mode);
        bench.device_fills(8);
        let mapped = bench.map(mode);
        mapped.write(100, b"secret");
        drop(mapped);
        bench.switch(mode, CacheMode::Cached);
        bench.retake();
        let unseen = bench.counts().unseen;
        for mode in [CacheMode::Cached, CacheMode::Uncached] {
            assert!(all_words_are(&bench.map(mode), 0));
        }
        assert!(bench.device_sees(0));
        assert_eq!(bench.counts().unseen, unseen, "no line is dirty");
    }
}

/// Each change of mode without the maintenance that belongs to it, and with it.
#[test]
fn a_switch_without_its_maintenance_shows_wrong_bytes() {
    use CacheMode::{Cached, Uncached, WriteCombined};
    let cases = [
        (Cached, WriteCombined),
        (Cached, Uncached),
        (WriteCombined, Cached),
        (WriteCombined, Uncached),
    ];
    for (from, to) in cases {
        for maintained in [false, true] {
            let bench = Bench::new(CacheModel::still());
            bench.switch(Cached, from);
            fill(&bench.map(from), 7);
            if maintained {
                bench.maintain(Maintenance::of_switch(from, to).unwrap());
            }
            bench.switch(from, to);
            let right = all_words_are(&bench.map(to), 7) && bench.device_sees(7);
            assert_eq!(right, maintained, "{from} to {to}");
            assert_eq!(bench.counts().lost == 0, maintained);
        }
    }
    // Old lines may outlive the time in which memory was not cached.
    for maintained in [false, true] {
        let bench = Bench::new(CacheModel::still());
        fill(&bench.map(Cached), 1);
        bench.maintain(Maintenance::Flush);
        bench.switch(Cached, Uncached);
        fill(&bench.map(Uncached), 7);
        if maintained {
            bench.maintain(Maintenance::of_switch(Uncached, Cached).unwrap());
        }
        bench.switch(Uncached, Cached);
        assert_eq!(all_words_are(&bench.map(Cached), 7), maintained);
    }
}

#[test]
fn a_switch_from_another_mode_than_the_frames_have_is_refused() {
    let bench = Bench::new(CacheModel::still());
    let wrong = bench.source.switch(
        &[bench.span()],
        CacheMode::Uncached,
        CacheMode::WriteCombined,
    );
    assert!(matches!(wrong, Err(Error::Invalid(_))));
}

/// What a seed draws: CPU writes, device writes, maintenance, all of them unordered.
fn history(seed: u64) -> (CacheCounts, Vec<u8>) {
    let bench = Bench::new(CacheModel::seeded(seed));
    let mapped = bench.map(CacheMode::Cached);
    for n in 0..200_u64 {
        mapped.write((n * 72) as usize % (2 * PAGE - 8), &n.to_le_bytes());
        if n % 9 == 0 {
            bench.device_fills(n);
        }
        bench.maintain(Maintenance::Clean);
    }
    let mut bytes = vec![0; mapped.len()];
    mapped.read(0, &mut bytes);
    (bench.counts(), bytes)
}

#[test]
fn what_moves_by_itself_is_the_same_for_the_same_seed() {
    let first = history(11);
    assert!(first.0.written_back > 0 && first.0.fetched > 0, "{first:?}");
    assert_eq!(history(11), first);
    assert_ne!(history(12), first);
}

/// A line that leaves early, or comes early, is what a program that maintains its caches never
/// notices.
#[test]
fn what_moves_by_itself_breaks_no_program_that_maintains_its_caches() {
    for seed in 0..20 {
        let bench = Bench::new(CacheModel {
            spontaneous_per_mille: 1000,
            ..CacheModel::seeded(seed)
        });
        let mapped = bench.map(CacheMode::Cached);
        for word in 1..20 {
            fill(&mapped, word);
            bench.gpu.memory().unwrap().tick();
            bench.maintain(Maintenance::Clean);
            assert!(bench.device_sees(word));
            bench.device_fills(word << 32);
            bench.gpu.memory().unwrap().tick();
            bench.maintain(Maintenance::Invalidate);
            assert!(all_words_are(&mapped, word << 32));
        }
        let counts = bench.counts();
        assert!(counts.written_back > 0 && counts.fetched > 0, "{counts:?}");
        assert_eq!((counts.lost, counts.unseen), (0, 0));
    }
}

#[test]
fn without_a_model_cpu_and_device_see_the_same_in_every_mode() {
    let config = GpuConfig {
        memory: SimMemory::new(pages(64)),
        ..GpuConfig::default()
    };
    let gpu = Gpu::new(config, SimClock::Virtual(VirtualClock::new())).unwrap();
    let source = gpu.pages();
    let run = Some(source.take(&Want::new(pages(2))).unwrap());
    let bench = Bench { gpu, source, run };
    fill(&bench.map(CacheMode::Cached), 7);
    assert!(bench.device_sees(7) && all_words_are(&bench.map(CacheMode::Uncached), 7));
    assert_eq!(bench.counts(), CacheCounts::default());
}
