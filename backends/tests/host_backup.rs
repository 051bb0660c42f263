//! The laws of backups: in a file with each engine, on real files and a real tmpfs of 64 KiB (root
//! only; without root that is printed and not shown), and in memory.

#[path = "support/backup.rs"]
mod backup;
#[path = "support/host.rs"]
mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use backends::host::{FileBackup, IoEngine, MemfdPages};
use backends::sim::MemoryBackup;
use placement::{CacheMode, PageCount};
use ttm::cache::Maintenance;
use ttm::error::{Error, Result};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want, Zone};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::tt::{Backup, Direction, SlotRun, Transfer, Transfers};

use backup::{Batch, Frames, many, one, tag};
use support::{Mapping, NothingLeft, Tmpfs, assert_stamped, in_child, pages, temp_dir};

const ENGINES: [IoEngine; 4] = [
    IoEngine::Auto,
    IoEngine::Uring,
    IoEngine::Threads,
    IoEngine::Caller,
];

fn file(limit: u64, engine: IoEngine) -> FileBackup {
    let swap = FileBackup::with_engine(std::env::temp_dir(), limit, engine).unwrap();
    swap.prepare(8).unwrap();
    if engine == IoEngine::Uring && swap.stats().engine != "io_uring" {
        println!("SKIPPED: the system refuses io_uring; its laws were shown by the calling thread");
    }
    swap
}

/// A backup of each kind.
fn each(limit: u64, law: impl Fn(&dyn Backup)) {
    for engine in ENGINES {
        let swap = file(limit, engine);
        law(&swap);
        assert_eq!(swap.used(), pages(0));
        swap.check().unwrap();
    }
    let memory = MemoryBackup::new(pages(limit / 4096)).unwrap();
    memory.prepare(8).unwrap();
    law(&memory);
    assert_eq!(memory.used(), pages(0));
}

/// The swap file of this process that is open, opened again.
fn opened_again() -> File {
    let dir = std::env::temp_dir();
    let is_ours = |fd: &PathBuf| {
        std::fs::read_link(fd).is_ok_and(|target| {
            let name = target.to_string_lossy();
            target.starts_with(&dir) && name.ends_with(" (deleted)")
        })
    };
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let ours = fds.map(|fd| fd.unwrap().path()).find(is_ours);
    let path = ours.expect("a file without a name");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn what_is_stored_comes_back_in_any_order() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    each(64 << 20, |swap| {
        let sizes = [1, 512, 3, 511, 2];
        let stored = (1..).zip(sizes);
        let stored = stored.map(|(n, size)| (n, frames.store(swap, size, n).unwrap()));
        let stored: Vec<(u64, SlotRun)> = stored.collect();
        assert_eq!(swap.used(), pages(sizes.iter().sum()));
        for (n, slots) in stored.into_iter().rev() {
            for _ in 0..2 {
                frames.assert_stored(swap, &slots, n);
            }
            swap.discard(slots);
        }
    });
}

#[test]
fn many_runs_move_at_once_and_in_any_number() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    for engine in ENGINES {
        let swap = file(256 << 20, engine);
        swap.prepare(40).unwrap();
        let sizes = (0..40).map(|n| if n % 3 == 0 { 512 } else { 1 + n });
        let runs: Vec<_> = (1..)
            .zip(sizes)
            .map(|(n, size)| frames.of(size, n))
            .collect();
        let take = |run: &FrameRun<_>| swap.take(run.pages(), tag(1)).unwrap();
        let slots: Vec<_> = runs.iter().map(take).collect();
        let windows = |runs: &[FrameRun<_>]| {
            let both = slots.iter().zip(runs);
            both.map(|(slots, run)| (slots.first(), frames.kmap(run)))
                .collect()
        };
        many(&swap, Direction::Out, windows(&runs));
        let others: Vec<_> = runs
            .iter()
            .map(|run| frames.of(run.pages().get(), 0))
            .collect();
        many(&swap, Direction::In, windows(&others));
        for (n, run) in (1..).zip(&others) {
            assert_stamped(&frames.kmap(run), n);
        }
        let stats = swap.stats();
        println!("{stats}");
        let bytes = runs.iter().map(|run| run.pages().bytes()).sum::<u64>();
        assert_eq!((stats.stored_bytes, stats.loaded_bytes), (bytes, bytes));
        let at_once = if stats.engine == "calling thread" {
            1
        } else {
            8
        };
        assert_eq!(stats.most_in_flight, at_once, "{stats}");
        // Each run is one request, unless the system did some in parts.
        assert!((80..90).contains(&stats.requests), "{stats}");
        slots.into_iter().for_each(|slots| swap.discard(slots));
        runs.into_iter()
            .chain(others)
            .for_each(|run| frames.give(run));
        swap.check().unwrap();
    }
}

#[test]
fn two_threads_move_runs_at_the_same_time() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    for engine in ENGINES {
        let swap = file(64 << 20, engine);
        std::thread::scope(|scope| {
            for owner in 1..=3 {
                let (frames, swap) = (&frames, &swap);
                scope.spawn(move || {
                    for round in 1..20 {
                        let owner = owner << 8 | round;
                        let slots = frames.store(swap, 100 + round, owner).unwrap();
                        frames.assert_stored(swap, &slots, owner);
                        swap.discard(slots);
                    }
                });
            }
        });
        swap.check().unwrap();
    }
}

/// Panics when the second run is done, with others on their way.
struct Panics(Batch);

impl Transfers for Panics {
    fn next(&mut self) -> Option<Transfer> {
        self.0.next()
    }

    fn done(&mut self, transfer: Transfer, result: Result<()>) {
        self.0.done(transfer, result);
        assert!(self.0.done.len() < 2, "the owner of the runs panics");
    }
}

#[test]
fn a_panic_of_their_owner_leaves_no_run_on_its_way() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    for engine in ENGINES {
        let swap = file(64 << 20, engine);
        swap.prepare(8).unwrap();
        let runs: Vec<_> = (0..8).map(|n| frames.of(512, n)).collect();
        let slots: Vec<_> = (0..8)
            .map(|n| swap.take(pages(512), tag(n)).unwrap())
            .collect();
        let mut batch = Batch::default();
        for (slots, run) in slots.iter().zip(&runs) {
            batch.add(slots.first(), frames.kmap(run));
        }
        let mut work = Panics(batch);
        let moving = AssertUnwindSafe(|| swap.transfer(Direction::Out, &mut work));
        assert!(catch_unwind(moving).is_err());
        drop(work);
        assert_eq!(frames.0.kmaps().live, 0, "no window is left");
        runs.into_iter().for_each(|run| frames.give(run));
        slots.into_iter().for_each(|slots| swap.discard(slots));
        let slots = frames.store(&swap, 100, 9).unwrap();
        frames.assert_stored(&swap, &slots, 9);
        swap.discard(slots);
        swap.check().unwrap();
    }
}

#[test]
fn the_limit_is_exact_and_can_be_changed() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    each(64 << 10, |swap| {
        assert_eq!(swap.limit(), pages(16));
        let a = frames.store(swap, 8, 1).unwrap();
        let b = frames.store(swap, 8, 2).unwrap();
        let error = frames.store(swap, 1, 3).unwrap_err();
        assert!(matches!(error, Error::Backup(_)), "{error}");
        assert!(error.to_string().contains("limit 64 KiB"), "{error}");
        assert_eq!(swap.used(), pages(16));
        swap.discard(a);
        let c = frames.store(swap, 8, 3).unwrap();
        swap.discard(b);
        swap.discard(c);
    });
    let swap = file(64 << 10, IoEngine::Auto);
    let b = frames.store(&swap, 8, 2).unwrap();
    swap.set_limit_bytes(0);
    let text = frames.store(&swap, 1, 4).unwrap_err().to_string();
    let dir = std::env::temp_dir();
    assert!(text.contains(&*dir.to_string_lossy()), "{text}");
    frames.assert_stored(&swap, &b, 2);
    swap.discard(b);
    assert_eq!(
        swap.stats().kept_bytes,
        0,
        "nothing is kept above the limit"
    );
    assert!(frames.store(&swap, 1, 4).is_err());
    swap.set_limit_bytes(u64::MAX);
    let d = frames.store(&swap, 512, 4).unwrap();
    swap.discard(d);
    swap.check().unwrap();
}

#[test]
fn a_run_that_was_not_prepared_for_or_is_too_long_is_refused() {
    let _left = NothingLeft::expected();
    let swap = FileBackup::new(std::env::temp_dir(), 1 << 30).unwrap();
    let memory = MemoryBackup::new(pages(2000)).unwrap();
    for swap in [&swap as &dyn Backup, &memory] {
        let refused = |n| matches!(swap.take(pages(n), tag(1)), Err(Error::Invalid(_)));
        assert!(refused(1), "not prepared");
        swap.prepare(1).unwrap();
        assert!(refused(0) && refused(513));
        let slots = swap.take(pages(512), tag(1)).unwrap();
        swap.discard(slots);
        swap.unprepare(1);
    }
}

#[test]
fn slots_never_show_what_another_stored() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    each(1 << 20, |swap| {
        let refused = |direction, first, n| {
            let run = frames.of(n, 7);
            let result = one(swap, direction, first, frames.kmap(&run));
            assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
            assert_stamped(&frames.kmap(&run), 7);
            frames.give(run);
        };
        let a = frames.store(swap, 4, 1).unwrap();
        let first = a.first();
        swap.discard(a);
        refused(Direction::In, first, 4);
        refused(Direction::Out, first, 4);
        let b = swap.take(pages(4), tag(2)).unwrap();
        assert_eq!(b.first(), first, "the same slots");
        refused(Direction::In, first, 4);
        refused(Direction::In, first + 2, 3);
        let run = frames.of(4, 2);
        one(swap, Direction::Out, first, frames.kmap(&run)).unwrap();
        frames.give(run);
        frames.assert_stored(swap, &b, 2);
        swap.discard(b);
    });
}

#[test]
fn trimmed_slots_are_holes() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    let swap = file(1 << 20, IoEngine::Auto);
    let slots = frames.store(&swap, 4, 1).unwrap();
    let at = slots.first() * 4096;
    let file = opened_again();
    let is_zero = || {
        let mut bytes = [1; 4 * 4096];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes.iter().all(|byte| *byte == 0)
    };
    assert!(!is_zero());
    swap.discard(slots);
    assert_eq!(swap.stats().kept_bytes, 4 * 4096);
    swap.trim();
    assert_eq!(swap.stats().kept_bytes, 0);
    assert!(is_zero());
    swap.check().unwrap();
}

#[test]
fn the_file_never_has_more_blocks_than_the_limit() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    let swap = file(64 * 4096, IoEngine::Caller);
    swap.prepare(64).unwrap();
    let mut held = Vec::new();
    let mut seed = 3_u64;
    for round in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match frames.store(&swap, 1 + (seed >> 33) % 30, round) {
            Ok(slots) => held.push((round, slots)),
            Err(error) => assert!(error.to_string().contains("is full"), "{error}"),
        }
        if held.len() > 2 && seed >> 60 > 3 {
            let (owner, slots) = held.swap_remove((seed >> 40) as usize % held.len());
            frames.assert_stored(&swap, &slots, owner);
            swap.discard(slots);
        }
        swap.check().unwrap();
        let used = held.iter().map(|(_, slots)| slots.pages().get()).sum();
        assert_eq!(swap.used(), pages(used));
        // One more is the file system's own, for the list of its extents.
        let blocks = opened_again().metadata().unwrap().blocks();
        assert!(
            blocks * 512 <= 65 * 4096,
            "{blocks} blocks in round {round}"
        );
    }
    held.into_iter().for_each(|(_, slots)| swap.discard(slots));
}

#[test]
fn random_takes_and_discards_agree_with_a_list() {
    let _left = NothingLeft::expected();
    const LIMIT: u64 = 20_000;
    const RUNS: usize = 100;
    let file = file(LIMIT * 4096, IoEngine::Caller);
    let memory = MemoryBackup::new(pages(LIMIT)).unwrap();
    for swap in [&file as &dyn Backup, &memory] {
        swap.prepare(RUNS).unwrap();
        let mut held: Vec<SlotRun> = Vec::new();
        let mut seed = 11_u64;
        for step in 0..4000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = match seed >> 62 {
                0 => 512,
                1 => 1,
                _ => 1 + (seed >> 33) % 512,
            };
            let used = held.iter().map(|slots| slots.pages().get()).sum::<u64>();
            assert_eq!(swap.used(), pages(used));
            if held.len() == RUNS || (seed >> 20) % 5 < 2 && !held.is_empty() {
                swap.discard(held.swap_remove((seed >> 40) as usize % held.len()));
                continue;
            }
            match swap.take(pages(n), tag(step)) {
                Ok(slots) => {
                    let apart = |other: &SlotRun| {
                        let end = |slots: &SlotRun| slots.first() + slots.pages().get();
                        end(other) <= slots.first() || end(&slots) <= other.first()
                    };
                    assert!(used + n <= LIMIT && held.iter().all(apart), "step {step}");
                    held.push(slots);
                }
                Err(error) => assert!(used + n > LIMIT, "step {step}: {error}"),
            }
            if step % 64 == 0 {
                file.check().unwrap();
            }
        }
        held.into_iter().for_each(|slots| swap.discard(slots));
        assert_eq!(swap.used(), pages(0));
    }
    file.check().unwrap();
}

#[test]
fn slots_are_discarded_once_and_as_they_were_taken() {
    let _left = NothingLeft::expected();
    let file = file(1 << 20, IoEngine::Caller);
    let memory = MemoryBackup::new(pages(256)).unwrap();
    memory.prepare(8).unwrap();
    for swap in [&file as &dyn Backup, &memory] {
        let a = swap.take(pages(4), tag(1)).unwrap();
        let b = swap.take(pages(4), tag(2)).unwrap();
        let first = a.first();
        for (from, n) in [(first, 2), (first, 8), (first + 1, 3), (900_000, 1)] {
            let made_up = SlotRun::new(from, pages(n), tag(1));
            assert!(catch_unwind(AssertUnwindSafe(|| swap.discard(made_up))).is_err());
        }
        swap.discard(a);
        let again = SlotRun::new(first, pages(4), tag(1));
        assert!(catch_unwind(AssertUnwindSafe(|| swap.discard(again))).is_err());
        swap.discard(b);
        assert_eq!(swap.used(), pages(0));
    }
    file.check().unwrap();
}

#[test]
fn no_file_is_left_and_none_is_made_where_none_can_be() {
    let _left = NothingLeft::expected();
    let dir = temp_dir("left");
    let swap = FileBackup::new(&dir, 1 << 20).unwrap();
    let files = std::fs::read_dir(&dir).unwrap();
    assert_eq!(files.count(), 0, "it has no name");
    drop(swap);
    std::fs::remove_dir(&dir).unwrap();

    let error = FileBackup::new(&dir, 1 << 20).unwrap_err();
    assert!(matches!(error, Error::Backup(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&*dir.to_string_lossy()), "{text}");
    assert!(
        FileBackup::new("/proc/self/status", 1).is_err(),
        "no directory"
    );
}

/// F-12.
#[test]
fn a_full_disk_is_an_error_that_leaves_nothing_taken() {
    let _left = NothingLeft::expected();
    let Some(disk) = Tmpfs::of_64_kib() else {
        println!("SKIPPED: a tmpfs can be mounted only as root; a really full disk was not shown");
        return;
    };
    let frames = Frames::new();
    for engine in ENGINES {
        // The limit is far above the disk.
        let swap = FileBackup::with_engine(&disk.0, 1 << 30, engine).unwrap();
        swap.prepare(4).unwrap();
        let error = frames.store(&swap, 17, 2).unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(swap.used(), pages(0));

        let a = frames.store(&swap, 8, 1).unwrap();
        let b = frames.store(&swap, 8, 2).unwrap();
        assert!(frames.store(&swap, 8, 3).is_err());
        assert_eq!(swap.used(), pages(16));
        frames.assert_stored(&swap, &a, 1);
        swap.discard(a);
        let c = frames.store(&swap, 8, 3).unwrap();
        frames.assert_stored(&swap, &b, 2);
        frames.assert_stored(&swap, &c, 3);
        swap.discard(b);
        swap.discard(c);
        // Blocks that were kept for reuse make way for a run that does not fit into them.
        let odd: Vec<_> = (0..4).map(|n| frames.store(&swap, 3, n).unwrap()).collect();
        odd.into_iter().for_each(|slots| swap.discard(slots));
        let d = frames.store(&swap, 16, 5).unwrap();
        frames.assert_stored(&swap, &d, 5);
        swap.discard(d);
        swap.check().unwrap();
    }
}

/// F-15.
#[test]
fn a_file_that_was_cut_off_is_an_error() {
    let _left = NothingLeft::expected();
    let frames = Frames::new();
    for engine in ENGINES {
        let swap = file(1 << 20, engine);
        let slots = frames.store(&swap, 8, 1).unwrap();
        opened_again().set_len(slots.first() * 4096 + 4096).unwrap();
        let error = frames.load(&swap, &slots).unwrap_err();
        assert!(matches!(error, Error::Backup(_)), "{error}");
        swap.discard(slots);
        let slots = frames.store(&swap, 8, 2).unwrap();
        frames.assert_stored(&swap, &slots, 2);
        swap.discard(slots);
    }
}

#[test]
fn without_descriptors_nothing_is_made() {
    if !in_child("without_descriptors_nothing_is_made", "ulimit -n 24") {
        return;
    }
    let frames = Frames::new();
    let swap = FileBackup::new(std::env::temp_dir(), 1 << 20).unwrap();
    let opened = std::iter::from_fn(|| File::open("/dev/null").ok());
    let opened: Vec<_> = opened.collect();
    assert!(matches!(MemfdPages::new(), Err(Error::Backend(_))));
    let error = FileBackup::new(std::env::temp_dir(), 1 << 20).unwrap_err();
    assert!(matches!(error, Error::Backup(_)), "{error}");
    // What is there needs no further descriptor: the ring is refused, threads do as well.
    swap.prepare(1).unwrap();
    assert_eq!(
        (swap.stats().engine, swap.stats().fallbacks),
        ("threads", 1)
    );
    let slots = frames.store(&swap, 3, 1).unwrap();
    frames.assert_stored(&swap, &slots, 1);
    swap.discard(slots);
    drop(opened);
}

/// Frames of memory that belongs to no file. Each mapping is new memory, `skew` bytes behind the
/// beginning of a page; content lasts as long as the pool keeps the mapping.
struct Anonymous {
    next: AtomicU64,
    skew: usize,
}

impl Anonymous {
    fn new(skew: usize) -> Arc<Self> {
        let next = AtomicU64::new(0);
        Arc::new(Self { next, skew })
    }
}

impl PageSource for Anonymous {
    fn offers(&self) -> Offers {
        Offers::ordinary(pages(1 << 20))
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let pages = want.pages;
        let span = FrameSpan {
            file: 0,
            first: self.next.fetch_add(pages.get(), Ordering::Relaxed),
            pages,
        };
        Ok(FrameRun::fresh(span, Zone::Normal, 0, span.first))
    }

    fn give(&self, _: FrameRun<Dirty>) {}

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn map(&self, span: FrameSpan, _: CacheMode) -> Result<Mapped> {
        Ok(Mapping::skewed(span.pages.bytes() as usize, self.skew).0)
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<FileRange> {
        Err(Error::Unsupported("in no file"))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: Maintenance) {}

    fn taken(&self) -> PageCount {
        PageCount::ZERO
    }
}

#[test]
fn a_file_that_may_not_grow_is_an_error_that_leaves_nothing_taken() {
    let name = "a_file_that_may_not_grow_is_an_error_that_leaves_nothing_taken";
    // The signal that goes with the limit is ignored, across exec.
    if !in_child(name, "trap '' XFSZ; ulimit -f 4096") {
        return;
    }
    let frames = Frames::over(Anonymous::new(0));
    for engine in ENGINES {
        let swap = file(1 << 30, engine);
        let fits = frames.store(&swap, 512, 1).unwrap();
        let error = frames.store(&swap, 512, 2).unwrap_err();
        assert!(matches!(error, Error::Backup(_)), "{error}");
        assert_eq!(swap.used(), pages(512));
        swap.discard(fits);
        swap.check().unwrap();
    }
}

/// Memory that direct I/O refuses stands in for a file system that has none. Several requests are
/// on their way when it turns out.
#[test]
fn where_direct_io_is_refused_the_page_cache_does() {
    let _left = NothingLeft::expected();
    for engine in ENGINES {
        let swap = file(64 << 20, engine);
        let frames = Frames::over(Anonymous::new(1));
        let runs: Vec<_> = (1..=8).map(|n| frames.of(100, n)).collect();
        let slots: Vec<_> = (1..=8)
            .map(|n| swap.take(pages(100), tag(n)).unwrap())
            .collect();
        let windows = |runs: &[FrameRun<_>]| {
            let both = slots.iter().zip(runs);
            both.map(|(slots, run)| (slots.first(), frames.kmap(run)))
                .collect()
        };
        many(&swap, Direction::Out, windows(&runs));
        if swap.is_direct() {
            println!("SKIPPED: this file system takes direct I/O from anywhere");
        }
        let others: Vec<_> = (0..8).map(|_| frames.of(100, 0)).collect();
        many(&swap, Direction::In, windows(&others));
        for (n, run) in (1..).zip(&others) {
            assert_stamped(&frames.kmap(run), n);
        }
        runs.into_iter()
            .chain(others)
            .for_each(|run| frames.give(run));
        slots.into_iter().for_each(|slots| swap.discard(slots));
    }
}
