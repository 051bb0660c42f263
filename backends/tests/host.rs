//! The laws of the host backends: frames, swap, time, threads.
//!
//! Each law runs on the real thing: memfds, files in the temporary directory, a tmpfs of 64 KiB
//! (root only; without root that is printed and not shown). Every test that opens or maps
//! something looks at the process's descriptors afterwards, so the tests take turns.

use std::path::{Path, PathBuf};
use std::process::Command;

use backends::host::{FileBackup, MemfdPages, Threads, WallClock, wall_clock};
use placement::PageCount;
use ttm::clock::{Clock, Progress, Service, Time, WaitCell, WaitFor, Woken};
use ttm::error::{Error, Result};
use ttm::pages::{FrameRun, FrameSpan, Mapped, PageSource};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex, MutexGuard};
use ttm::tt::{Backup, SlotRun, SlotTag};

static TURN: Mutex<()> = Mutex::new(());

fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

fn tag(object: u64) -> SlotTag {
    SlotTag {
        object,
        first_page: 0,
        generation: 1,
    }
}

/// Descriptors and mappings of page files that are there at the end as at the beginning.
struct NothingLeft {
    fds: usize,
    maps: usize,
    _turn: MutexGuard<'static, ()>,
}

impl NothingLeft {
    fn expected() -> Self {
        let turn = TURN.lock();
        Self {
            fds: fds(),
            maps: maps(),
            _turn: turn,
        }
    }
}

impl Drop for NothingLeft {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(
                (fds(), maps()),
                (self.fds, self.maps),
                "descriptors, mappings"
            );
        }
    }
}

/// Memory files, and files without a name.
fn fds() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    targets
        .filter(|t| t.to_string_lossy().ends_with(" (deleted)"))
        .count()
}

fn maps() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|l| l.contains("memfd:")).count()
}

/// Words that say which page of which owner they are.
fn stamp(mapped: &Mapped, owner: u64) {
    for page in 0..mapped.len() / 4096 {
        let word = owner << 32 | page as u64;
        for n in 0..512 {
            mapped.write(page * 4096 + n * 8, &(word + n as u64).to_le_bytes());
        }
    }
}

fn assert_stamped(mapped: &Mapped, owner: u64) {
    for page in 0..mapped.len() / 4096 {
        let word = owner << 32 | page as u64;
        for n in 0..512 {
            let mut bytes = [0; 8];
            mapped.read(page * 4096 + n * 8, &mut bytes);
            assert_eq!(u64::from_le_bytes(bytes), word + n as u64, "page {page}");
        }
    }
}

fn is_zero(mapped: &Mapped) -> bool {
    let mut bytes = vec![1; mapped.len()];
    mapped.read(0, &mut bytes);
    bytes.iter().all(|b| *b == 0)
}

fn filled(source: &MemfdPages, n: u64, owner: u64) -> Result<(FrameRun, Mapped)> {
    let run = source.take(pages(n))?;
    let mapped = source.map(run.span())?;
    stamp(&mapped, owner);
    Ok((run, mapped))
}

#[test]
fn frames_are_zero_for_each_owner_whether_cached_or_fresh() {
    let _left = NothingLeft::expected();
    for cache in [0, 8, 1 << 14] {
        let source = MemfdPages::with_cache(3, pages(cache)).unwrap();
        for round in 0..3 {
            for n in [1, 2, 7, 8, 9, 512] {
                let run = source.take(pages(n)).unwrap();
                assert_eq!((run.span().file, run.pages()), (3, pages(n)));
                let mapped = source.map(run.span()).unwrap();
                assert!(is_zero(&mapped), "cache {cache}, round {round}, {n} pages");
                stamp(&mapped, n);
                drop(mapped);
                source.give(run);
            }
        }
        assert!(source.cached() <= pages(cache));
        source.trim();
        assert_eq!((source.cached(), source.taken()), (pages(0), pages(0)));
    }
}

#[test]
fn runs_never_overlap_and_keep_their_content() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let runs: Vec<_> = (1..40).map(|n| filled(&source, n, n).unwrap().0).collect();
    for a in &runs {
        for b in &runs {
            let (a, b) = (a.span(), b.span());
            let apart = a.first + a.pages.get() <= b.first || b.first + b.pages.get() <= a.first;
            assert!(a == b || apart, "{a:?} {b:?}");
        }
    }
    assert_eq!(source.taken(), pages((1..40).sum()));
    for (n, run) in (1..40).zip(runs) {
        assert_stamped(&source.map(run.span()).unwrap(), n);
        source.give(run);
    }
}

#[test]
fn a_mapping_shows_its_part_of_the_run_and_ends_with_its_drop() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let (run, whole) = filled(&source, 4, 9).unwrap();
    assert_eq!(source.live_mappings(), 1);
    let part = source.map(run.span().part(2, pages(1))).unwrap();
    assert_eq!((source.live_mappings(), part.len()), (2, 4096));
    part.write(0, b"here");
    let mut bytes = [0; 4];
    whole.read(2 * 4096, &mut bytes);
    assert_eq!(&bytes, b"here");
    drop((part, whole));
    assert_eq!(source.live_mappings(), 0);
    source.give(run);
}

#[test]
fn frames_that_nobody_took_are_not_mapped() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let (a, b) = (
        source.take(pages(2)).unwrap(),
        source.take(pages(2)).unwrap(),
    );
    let refused = |span| matches!(source.map(span), Err(Error::Invalid(_)));
    let first = a.span().first.min(b.span().first);
    let span = |file, first, n| FrameSpan {
        file,
        first,
        pages: pages(n),
    };
    assert!(refused(span(0, first, 4)), "two runs");
    assert!(refused(span(0, first + 100, 1)), "no run");
    assert!(refused(span(1, first, 1)), "another file");
    assert!(refused(span(0, first, 0)), "no page");
    assert!(refused(span(0, u64::MAX, 1)), "no such page");
    let gone = a.span();
    source.give(a);
    assert!(refused(gone), "given back");
    source.give(b);
}

#[test]
fn running_out_of_frames_is_an_error_and_takes_nothing() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let kept = source.take(pages(3)).unwrap();
    // More than any host has.
    for n in [1 << 38, 1 << 39, PageCount::MAX.get()] {
        let refused = source.take(pages(n));
        assert!(
            matches!(&refused, Err(Error::NoMemory { wanted }) if wanted.get() == n),
            "{refused:?}"
        );
    }
    assert!(matches!(source.take(pages(0)), Err(Error::Invalid(_))));
    assert_eq!(source.taken(), pages(3));
    source.give(kept);
    assert_eq!(source.taken(), pages(0));
}

#[test]
#[should_panic(expected = "was not taken here")]
fn frames_are_given_back_once() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let run = source.take(pages(1)).unwrap();
    let copy = FrameRun::new(run.span());
    source.give(run);
    source.give(copy);
}

#[test]
fn the_page_file_never_shrinks() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let run = source.take(pages(1)).unwrap();
    assert!(source.file().set_len(0).is_err(), "it is sealed");
    source.give(run);
}

#[test]
fn what_is_stored_comes_back_in_any_order() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let swap = FileBackup::new(std::env::temp_dir(), 64 << 20).unwrap();
    let sizes = [1, 512, 3, 700, 2];
    let mut stored = Vec::new();
    for (n, size) in (1..).zip(sizes) {
        let (run, mapped) = filled(&source, size, n).unwrap();
        stored.push((n, swap.store(tag(n), &mapped).unwrap()));
        drop(mapped);
        source.give(run);
    }
    assert_eq!(swap.used(), pages(sizes.iter().sum()));
    for (n, slots) in stored.into_iter().rev() {
        let run = source.take(slots.pages()).unwrap();
        let mapped = source.map(run.span()).unwrap();
        for _ in 0..2 {
            mapped.zero(0, mapped.len());
            swap.load(&slots, tag(n), &mapped).unwrap();
            assert_stamped(&mapped, n);
        }
        swap.discard(slots);
        drop(mapped);
        source.give(run);
    }
    assert_eq!(swap.used(), pages(0));
}

#[test]
fn slots_answer_only_to_their_tag_and_size() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let swap = FileBackup::new(std::env::temp_dir(), 1 << 20).unwrap();
    let (run, mapped) = filled(&source, 2, 1).unwrap();
    let slots = swap.store(tag(1), &mapped).unwrap();
    let refused = |slots: &SlotRun, tag, into: &Mapped| {
        matches!(swap.load(slots, tag, into), Err(Error::Invalid(_)))
    };
    assert!(refused(&slots, tag(2), &mapped), "another object");
    let older = SlotTag {
        generation: 0,
        ..tag(1)
    };
    assert!(refused(&slots, older, &mapped), "another generation");
    let half = source.map(run.span().part(0, pages(1))).unwrap();
    assert!(refused(&slots, tag(1), &half), "another size");
    let stale = SlotRun::new(slots.first(), slots.pages(), tag(1));
    swap.discard(slots);
    assert!(refused(&stale, tag(1), &mapped), "discarded");
    drop((mapped, half));
    source.give(run);
}

#[test]
fn the_limit_is_exact_and_can_be_changed() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let swap = FileBackup::new(std::env::temp_dir(), 64 << 10).unwrap();
    assert_eq!(swap.limit(), pages(16));
    let (run, eight) = filled(&source, 8, 1).unwrap();
    let a = swap.store(tag(1), &eight).unwrap();
    let b = swap.store(tag(2), &eight).unwrap();
    let full = |result: Result<SlotRun>| {
        let text = result.unwrap_err().to_string();
        let dir = std::env::temp_dir();
        assert!(text.contains(&*dir.to_string_lossy()), "{text}");
        text
    };
    assert!(full(swap.store(tag(3), &eight)).contains("64 KiB"));
    assert_eq!(swap.used(), pages(16));
    swap.discard(a);
    // Fragments are no obstacle: slots are numbers, not places.
    let c = swap.store(tag(3), &eight).unwrap();

    swap.set_limit_bytes(0);
    full(swap.store(tag(4), &eight));
    swap.load(&b, tag(2), &eight).unwrap();
    swap.discard(b);
    swap.discard(c);
    full(swap.store(tag(4), &eight));
    swap.set_limit_bytes(u64::MAX);
    let d = swap.store(tag(4), &eight).unwrap();
    swap.discard(d);
    drop(eight);
    source.give(run);
}

#[test]
fn no_file_is_left_and_none_is_made_where_none_can_be() {
    let _left = NothingLeft::expected();
    let dir = temp_dir("left");
    let swap = FileBackup::new(&dir, 1 << 20).unwrap();
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        0,
        "it has no name"
    );
    drop(swap);
    std::fs::remove_dir(&dir).unwrap();

    let error = FileBackup::new(&dir, 1 << 20).unwrap_err();
    assert!(matches!(error, Error::Backup(_)), "{error}");
    assert!(
        error.to_string().contains(&*dir.to_string_lossy()),
        "{error}"
    );
    assert!(
        FileBackup::new("/proc/self/status", 1).is_err(),
        "no directory"
    );
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing_taken() {
    let _left = NothingLeft::expected();
    let Some(disk) = Tmpfs::of_64_kib() else {
        println!("SKIPPED: a tmpfs can be mounted only as root; a really full disk was not shown");
        return;
    };
    let source = MemfdPages::new().unwrap();
    // The limit is far above the disk.
    let swap = FileBackup::new(&disk.0, 1 << 30).unwrap();
    let (run, mapped) = filled(&source, 8, 1).unwrap();
    let (large, wide) = filled(&source, 17, 2).unwrap();
    let error = swap.store(tag(2), &wide).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(swap.used(), pages(0));

    let a = swap.store(tag(1), &mapped).unwrap();
    let b = swap.store(tag(2), &mapped).unwrap();
    assert!(swap.store(tag(3), &mapped).is_err());
    assert_eq!(swap.used(), pages(16));
    mapped.zero(0, mapped.len());
    swap.load(&a, tag(1), &mapped).unwrap();
    assert_stamped(&mapped, 1);
    swap.discard(a);
    let c = swap.store(tag(3), &mapped).unwrap();
    swap.discard(b);
    swap.discard(c);
    // Blocks that were kept for reuse make way for a run of another size.
    let (three, small) = filled(&source, 3, 5).unwrap();
    let d = swap.store(tag(5), &small).unwrap();
    swap.discard(d);
    swap.discard(swap.store(tag(1), &mapped).unwrap());
    drop(small);
    source.give(three);
    drop((mapped, wide));
    source.give(run);
    source.give(large);
}

fn temp_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ttm-host-test-{}-{name}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    dir
}

struct Tmpfs(PathBuf);

impl Tmpfs {
    fn of_64_kib() -> Option<Self> {
        let dir = temp_dir("tmpfs");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&dir)
            .output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(dir));
        }
        std::fs::remove_dir(&dir).unwrap();
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let umount = |dir: &Path| Command::new("umount").arg("-l").arg(dir).status();
        if umount(&self.0).is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

#[test]
fn the_wall_clock_runs_forward_and_keeps_deadlines() {
    let clock = WallClock::new();
    let cell = WaitCell::new();
    let until = clock.now().after_nanos(2_000_000);
    assert_eq!(
        clock.park(&cell, Some(until), WaitFor::Work),
        Woken::TimedOut
    );
    assert!(clock.now() >= until);
    clock.unpark(&cell);
    assert_eq!(
        clock.park(&cell, Some(Time::NEVER), WaitFor::Work),
        Woken::Notified
    );
}

/// Counts up to `to`.
struct Counting {
    done: AtomicU64,
    to: AtomicU64,
    bell: Arc<WaitCell>,
}

impl Service for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
    fn step(&self) -> Progress {
        if self.done.load(Ordering::SeqCst) >= self.to.load(Ordering::SeqCst) {
            return Progress::Idle;
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        Progress::Did
    }
    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}

#[test]
fn services_are_stepped_until_idle_again_at_the_bell_and_never_after_the_drop() {
    let clock = wall_clock();
    let counting = Arc::new(Counting {
        done: AtomicU64::new(0),
        to: AtomicU64::new(5),
        bell: WaitCell::new(),
    });
    let threads = Threads::start(&clock, [counting.clone() as Arc<dyn Service>]).unwrap();
    assert_eq!(threads.len(), 1);
    let reach = |n| {
        while counting.done.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
    };
    reach(5);
    counting.to.store(9, Ordering::SeqCst);
    clock.unpark(counting.bell());
    reach(9);
    // The thread looks again by itself, if nobody rings.
    counting.to.store(10, Ordering::SeqCst);
    reach(10);
    drop(threads);
    counting.to.store(20, Ordering::SeqCst);
    assert_eq!(counting.done.load(Ordering::SeqCst), 10);
    assert_eq!(Arc::strong_count(&counting), 1);
}

/// Runs a test of this file again in a process of its own, under limits that a shell sets.
/// Answers whether this is that process.
fn in_child(test: &str, limits: &str) -> bool {
    const NAME: &str = "TTM_HOST_TEST_CHILD";
    if std::env::var_os(NAME).is_some_and(|name| name == test) {
        return true;
    }
    let script = format!("{limits}; exec \"$0\" --exact {test} --nocapture");
    let out = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(NAME, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{limits}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    false
}

#[test]
fn without_descriptors_nothing_is_made() {
    if !in_child("without_descriptors_nothing_is_made", "ulimit -n 24") {
        return;
    }
    let swap = FileBackup::new(std::env::temp_dir(), 1 << 20).unwrap();
    let source = MemfdPages::new().unwrap();
    let opened: Vec<_> = (0..)
        .map_while(|_| std::fs::File::open("/dev/null").ok())
        .collect();
    assert!(matches!(MemfdPages::new(), Err(Error::Backend(_))));
    let error = FileBackup::new(std::env::temp_dir(), 1 << 20).unwrap_err();
    assert!(matches!(error, Error::Backup(_)), "{error}");
    // What is there needs no further descriptor.
    let (run, mapped) = filled(&source, 3, 1).unwrap();
    let slots = swap.store(tag(1), &mapped).unwrap();
    swap.load(&slots, tag(1), &mapped).unwrap();
    assert_stamped(&mapped, 1);
    swap.discard(slots);
    drop((mapped, opened));
    source.give(run);
}

#[test]
fn a_mapping_that_the_host_refuses_is_an_error_and_the_frames_stay() {
    let name = "a_mapping_that_the_host_refuses_is_an_error_and_the_frames_stay";
    if !in_child(name, "ulimit -v 1500000") {
        return;
    }
    let source = MemfdPages::with_cache(0, pages(0)).unwrap();
    let run = source.take(pages(512)).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match source.map(run.span()) {
            Ok(mapped) => held.push(mapped),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Backend(_)), "{error}");
    assert_eq!(source.live_mappings(), held.len() as u64);
    held.pop();
    let mapped = source.map(run.span()).unwrap();
    stamp(&mapped, 1);
    assert_stamped(&held[0], 1);
    assert_eq!(source.taken(), pages(512));
    drop((held, mapped));
    source.give(run);
}

#[test]
fn a_file_that_may_not_grow_is_an_error_that_leaves_nothing_taken() {
    let name = "a_file_that_may_not_grow_is_an_error_that_leaves_nothing_taken";
    // The signal that goes with the limit is ignored, across exec.
    if !in_child(name, "trap '' XFSZ; ulimit -f 4096") {
        return;
    }
    let source = MemfdPages::new().unwrap();
    assert!(matches!(source.take(pages(1)), Err(Error::Backend(_))));
    assert_eq!(source.taken(), pages(0));
    let swap = FileBackup::new(std::env::temp_dir(), 1 << 30).unwrap();
    let memory = Mapping::of(16 << 20);
    let error = swap.store(tag(1), &memory.0).unwrap_err();
    assert!(matches!(error, Error::Backup(_)), "{error}");
    assert_eq!(swap.used(), pages(0));
}

/// Memory that is no frame.
struct Mapping(Mapped);

impl Mapping {
    #[expect(unsafe_code, reason = "an anonymous mapping becomes a Mapped")]
    fn of(len: usize) -> Self {
        let map = memmap2::MmapOptions::new().len(len).map_anon().unwrap();
        let map = memmap2::MmapRaw::from(map);
        let at = core::ptr::NonNull::new(map.as_mut_ptr()).unwrap();
        // SAFETY: `len` bytes are mapped at `at` until the owner drops, and nobody refers to them.
        Self(unsafe { Mapped::new(at, len, Box::new(map)) })
    }
}

#[cfg(feature = "plant")]
#[test]
fn a_planted_skipped_zeroing_shows() {
    use ttm::plant::{Defect, set};
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let (run, mapped) = filled(&source, 2, 1).unwrap();
    drop(mapped);
    source.give(run);
    set(Defect::SkippedZeroing);
    let run = source.take(pages(2)).unwrap();
    set(Defect::None);
    assert!(!is_zero(&source.map(run.span()).unwrap()));
    source.give(run);
}
