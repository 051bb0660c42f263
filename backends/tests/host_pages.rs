//! The laws of the host's page files, on real memory files: whose frames are whose, what they read
//! as, what becomes of them when they come back, huge pages, nodes, and what the host refuses.

#[path = "support/host.rs"]
mod support;

use backends::host::{HugeCounts, HugePages, MemfdPages, wall_clock};
use placement::{CacheMode, PageCount};
use support::*;
use ttm::Error;
use ttm::Result;
use ttm::cache::Maintenance;
use ttm::pages::{
    FrameKind, FrameRun, FrameSpan, Mapped, PageSource, Pool, PoolConfig, Want, Zone,
};
use ttm::sync::Arc;

const CACHED: CacheMode = CacheMode::Cached;

fn take(source: &MemfdPages, n: u64) -> FrameRun {
    source.take(&Want::new(pages(n))).unwrap()
}

fn filled(source: &MemfdPages, n: u64, owner: u64) -> Result<(FrameRun, Mapped)> {
    let run = source.take(&Want::new(pages(n)))?;
    let mapped = source.map(run.span(), CACHED)?;
    stamp(&mapped, owner);
    Ok((run, mapped))
}

fn on_node(n: u64, node: u8) -> Want {
    Want {
        pages: pages(n),
        kind: FrameKind {
            node,
            ..FrameKind::default()
        },
    }
}

fn assert_nothing_left(source: &MemfdPages) {
    let left = (
        source.taken(),
        source.live_mappings(),
        source.resident().unwrap(),
    );
    assert_eq!(left, (pages(0), 0, 0), "taken, mapped, resident");
}

#[test]
fn frames_are_zero_for_each_owner() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    for round in 0..3 {
        for n in [1, 2, 7, 8, 9, 512, 513, 1024] {
            let run = take(&source, n);
            assert_eq!((run.span().file, run.pages()), (0, pages(n)));
            let mapped = source.map(run.span(), CACHED).unwrap();
            assert!(is_zero(&mapped), "round {round}, {n} pages");
            stamp(&mapped, n);
            drop(mapped);
            source.give(run.dirtied());
        }
    }
    assert_nothing_left(&source);
}

#[test]
fn frames_from_a_pool_are_zero_for_each_owner() {
    let _left = NothingLeft::expected();
    for nodes in [1, 2] {
        let source = Arc::new(MemfdPages::with_nodes(nodes).unwrap());
        let pool = Pool::new(
            Arc::clone(&source) as Arc<dyn PageSource>,
            wall_clock(),
            PoolConfig::default(),
        );
        for round in 0..4 {
            for n in [1, 2, 7, 512, 1024] {
                let run = pool.take(&on_node(n, (round % nodes).min(1))).unwrap();
                let window = pool.kmap(run.span()).unwrap();
                let mut bytes = vec![1; window.len()];
                window.read(0, &mut bytes);
                assert!(bytes.iter().all(|b| *b == 0), "round {round}, {n} pages");
                window.write(0, &vec![0xa5; window.len()]);
                drop(window);
                pool.give(run.dirtied());
            }
        }
        assert!(pool.counts().zeroed_at_once > 0, "{:?}", pool.counts());
        pool.check().unwrap();
        pool.shrink();
        assert_nothing_left(&source);
    }
}

#[test]
fn frames_are_overwritten_with_zeroes_mapped_or_not() {
    let _left = NothingLeft::expected();
    for how in [HugePages::Never, HugePages::Collapse, HugePages::Hugetlb] {
        let source = MemfdPages::new().unwrap().huge_pages(how).unwrap();
        let (run, mapped) = filled(&source, 512, 5).unwrap();
        source.zero(run.span().part(3, pages(2)), CACHED).unwrap();
        let around = [(0, 3), (5, 507)].map(|(at, n)| run.span().part(at, pages(n)));
        assert!(is_zero(
            &source.map(run.span().part(3, pages(2)), CACHED).unwrap()
        ));
        for part in around {
            assert!(!is_zero(&source.map(part, CACHED).unwrap()));
        }
        source.zero(run.span(), CACHED).unwrap();
        assert!(is_zero(&mapped));
        drop(mapped);
        source.give(run.dirtied());
        assert_nothing_left(&source);
    }
}

#[test]
fn runs_never_overlap_and_keep_their_content() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let runs: Vec<_> = (1..40).map(|n| filled(&source, n, n).unwrap().0).collect();
    for (n, a) in runs.iter().enumerate() {
        for b in &runs[n + 1..] {
            assert!(!a.span().overlaps(&b.span()), "{a:?} {b:?}");
        }
    }
    assert_eq!(source.taken(), pages((1..40).sum()));
    assert_eq!(source.resident().unwrap(), source.taken().bytes());
    for (n, run) in (1..40).zip(runs) {
        assert_stamped(&source.map(run.span(), CACHED).unwrap(), n);
        source.give(run.dirtied());
    }
    assert_nothing_left(&source);
}

#[test]
fn later_owners_of_the_same_frames_have_greater_generations() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let mut last = None;
    for n in [1, 2, 512, 3, 1] {
        let run = take(&source, n);
        assert!(last < Some(run.generation()), "{last:?} {run:?}");
        last = Some(run.generation());
        source.give(run.dirtied());
    }
}

#[test]
fn a_mapping_shows_its_part_of_the_run_and_ends_with_its_drop() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let (run, whole) = filled(&source, 4, 9).unwrap();
    assert_eq!(source.live_mappings(), 1);
    let part = source.map(run.span().part(2, pages(1)), CACHED).unwrap();
    assert_eq!((source.live_mappings(), part.len()), (2, 4096));
    part.write(0, b"here");
    let mut bytes = [0; 4];
    whole.read(2 * 4096, &mut bytes);
    assert_eq!(&bytes, b"here");
    drop((part, whole));
    assert_eq!(source.live_mappings(), 0);
    source.give(run.dirtied());
}

#[test]
fn frames_that_nobody_took_are_not_mapped() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let (a, b) = (take(&source, 2), take(&source, 2));
    let refused = |span| matches!(source.map(span, CACHED), Err(Error::Invalid(_)));
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
    source.give(a.dirtied());
    assert!(refused(gone), "given back");
    source.give(b.dirtied());
}

#[test]
fn running_out_of_frames_is_an_error_and_takes_nothing() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let kept = take(&source, 3);
    // More than any host has.
    for n in [1 << 38, 1 << 39, PageCount::MAX.get()] {
        let refused = source.take(&Want::new(pages(n)));
        assert!(
            matches!(&refused, Err(Error::NoMemory { wanted, .. }) if wanted.get() == n),
            "{refused:?}"
        );
    }
    let refused = source.take(&Want::new(pages(0)));
    assert!(matches!(refused, Err(Error::Invalid(_))));
    assert_eq!(source.taken(), pages(3));
    source.give(kept.dirtied());
    assert_nothing_left(&source);
}

#[test]
fn what_a_process_cannot_have_is_unsupported_and_takes_nothing() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::with_nodes(2).unwrap();
    for zone in [Zone::Dma32, Zone::High] {
        let mut want = on_node(1, 0);
        want.kind.zone = zone;
        assert!(matches!(source.take(&want), Err(Error::Unsupported(_))));
    }
    assert!(matches!(
        source.take(&on_node(1, 2)),
        Err(Error::Unsupported(_))
    ));
    let run = take(&source, 1);
    let switched = source.switch(&[run.span()], CACHED, CacheMode::WriteCombined);
    assert!(matches!(switched, Err(Error::Unsupported(_))));
    source.maintain(run.span(), Maintenance::Clean);
    source.give(run.dirtied());
    assert_nothing_left(&source);
}

#[test]
fn threads_take_and_give_at_the_same_time() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::with_nodes(2).unwrap();
    let work = |owner: u64| {
        for n in [512, 1, 1024, 600, 3, 512] {
            let want = on_node(n, u8::try_from(owner % 2).unwrap());
            let mut front = source.take(&want).unwrap();
            let mapped = source.map(front.span(), CACHED).unwrap();
            assert!(is_zero(&mapped));
            stamp(&mapped, owner);
            let back = (n > 1).then(|| front.split_off(pages(n / 2)));
            assert_stamped(&mapped, owner);
            drop(mapped);
            back.into_iter()
                .for_each(|back| source.give(back.dirtied()));
            source.give(front.dirtied());
        }
    };
    std::thread::scope(|scope| {
        // More threads than can make huge pages at the same time.
        for owner in 1..7 {
            let work = &work;
            scope.spawn(move || work(owner));
        }
    });
    let counts = source.huge_counts();
    assert_eq!(counts.wanted, 6 * 4);
    assert_eq!(counts.got + counts.refused + counts.skipped, counts.wanted);
    assert_nothing_left(&source);
}

#[test]
fn each_node_has_a_page_file_of_its_own() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::with_nodes(3).unwrap();
    assert_eq!((source.offers().nodes, source.files().len()), (3, 3));
    let runs = [0, 1, 2].map(|node| source.take(&on_node(512, node)).unwrap());
    for (node, run) in (0..).zip(&runs) {
        assert_eq!((run.kind().node, run.span().file), (node, u32::from(node)));
        let mapped = source.map(run.span(), CACHED).unwrap();
        assert!(is_zero(&mapped));
        stamp(&mapped, u64::from(node));
    }
    for (node, run) in (0..).zip(runs) {
        assert_stamped(&source.map(run.span(), CACHED).unwrap(), node);
        source.give(run.dirtied());
    }
    assert_nothing_left(&source);
    assert_eq!(MemfdPages::with_nodes(0).unwrap().offers().nodes, 1);
}

#[test]
#[should_panic(expected = "was not taken here")]
fn frames_are_given_back_once() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let run = take(&source, 1);
    let copy = FrameRun::fresh(run.span(), Zone::Normal, 0, 0);
    source.give(run.dirtied());
    source.give(copy.dirtied());
}

#[test]
#[should_panic(expected = "was not taken here")]
fn a_part_is_given_back_once() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let mut run = take(&source, 4);
    let tail = run.split_off(pages(2));
    let copy = FrameRun::fresh(tail.span(), Zone::Normal, 0, 0);
    source.give(tail.dirtied());
    source.give(copy.dirtied());
}

#[test]
fn a_part_that_comes_back_is_the_systems_and_the_rest_stays() {
    let _left = NothingLeft::expected();
    for how in [HugePages::Never, HugePages::Collapse, HugePages::Hugetlb] {
        let source = MemfdPages::new().unwrap().huge_pages(how).unwrap();
        let (mut front, mapped) = filled(&source, 1024, 7).unwrap();
        let mut back = front.split_off(pages(100));
        let middle = back.split_off(pages(700));
        assert!(!front.is_huge() && !middle.is_huge());
        drop(mapped);
        let mut gone = pages(0);
        for part in [back, front] {
            let span = part.span();
            gone = gone.checked_add(part.pages()).unwrap();
            source.give(part.dirtied());
            assert!(matches!(source.map(span, CACHED), Err(Error::Invalid(_))));
            assert_eq!(source.taken(), pages(1024 - gone.get()));
            // The kernel may keep a huge page of which a part is in use.
            assert!(source.resident().unwrap() >= source.taken().bytes());
            let kept = source.map(middle.span(), CACHED).unwrap();
            let mut word = [0; 8];
            kept.read(0, &mut word);
            assert_eq!(u64::from_le_bytes(word), (7 << 32) + 800);
        }
        // Their indices are nobody's until the whole run is back.
        let other = take(&source, 1024);
        assert!(other.span().first >= middle.span().end() || other.span().file != 0);
        source.give(middle.dirtied());
        source.give(other.dirtied());
        assert_nothing_left(&source);
    }
}

#[test]
fn the_page_file_never_shrinks() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let run = take(&source, 1);
    for file in source.files() {
        assert!(file.set_len(0).is_err(), "it is sealed");
    }
    source.give(run.dirtied());
}

/// What the kernel counts as mapped by huge entries, of all page files of this process.
fn huge_mapped_kib() -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut in_frames = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or("");
        if !first.ends_with(':') {
            in_frames = line.contains("memfd:ttm");
        } else if in_frames && (first == "ShmemPmdMapped:" || first == "FilePmdMapped:") {
            sum += line
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap();
        }
    }
    sum
}

#[test]
fn runs_of_huge_pages_are_mapped_as_such() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    let run = take(&source, 1024);
    let counts = source.huge_counts();
    assert_eq!(counts.wanted, 2);
    assert_eq!(run.is_huge(), counts.got == 2, "{counts:?}");
    let mapped = source.map(run.span(), CACHED).unwrap();
    assert!(mapped.as_ptr().addr().is_multiple_of(2 << 20));
    assert!(is_zero(&mapped));
    if run.is_huge() {
        assert_eq!(huge_mapped_kib(), 4096, "both, by one entry each");
    } else {
        println!("SKIPPED: the kernel made no huge pages: {counts:?}");
    }
    drop(mapped);
    assert_eq!(source.resident().unwrap(), 4 << 20);
    source.give(run.dirtied());
    assert_nothing_left(&source);
}

#[test]
fn runs_that_are_no_multiple_of_a_huge_page_are_not_tried() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new().unwrap();
    for n in [1, 511, 513] {
        let run = take(&source, n);
        assert!(!run.is_huge());
        source.give(run.dirtied());
    }
    assert_eq!(source.huge_counts(), HugeCounts::default());
}

#[test]
fn without_huge_pages_none_is_asked_for() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new()
        .unwrap()
        .huge_pages(HugePages::Never)
        .unwrap();
    let run = take(&source, 1024);
    assert!(!run.is_huge());
    let counts = source.huge_counts();
    assert_eq!((counts.wanted, counts.skipped), (2, 2));
    assert_eq!(source.resident().unwrap(), 4 << 20);
    source.give(run.dirtied());
    assert_nothing_left(&source);
}

/// Huge pages of 2 MiB that the administrator has set aside and nobody uses.
fn pages_set_aside() -> u64 {
    std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[test]
fn when_no_huge_pages_are_set_aside_they_are_made_of_ordinary_memory() {
    let _left = NothingLeft::expected();
    let source = MemfdPages::new()
        .unwrap()
        .huge_pages(HugePages::Hugetlb)
        .unwrap();
    // One more than there are.
    let n = pages_set_aside() + 1;
    let run = take(&source, n * 512);
    assert_eq!(run.span().file, 0, "ordinary memory");
    assert_eq!(source.huge_counts().wanted, n);
    let (other, mapped) = filled(&source, 3, 1).unwrap();
    assert_stamped(&mapped, 1);
    drop(mapped);
    source.give(run.dirtied());
    source.give(other.dirtied());
    assert_nothing_left(&source);
}

#[test]
fn huge_pages_that_are_set_aside_are_used_first() {
    let _left = NothingLeft::expected();
    if pages_set_aside() < 2 {
        println!("SKIPPED: vm.nr_hugepages sets no two huge pages aside");
        return;
    }
    let source = MemfdPages::new()
        .unwrap()
        .huge_pages(HugePages::Hugetlb)
        .unwrap();
    let (run, mapped) = filled(&source, 1024, 3).unwrap();
    assert!(run.is_huge());
    assert_eq!(run.span().file, 1, "the file after that of the only node");
    assert_stamped(&mapped, 3);
    let part = source.map(run.span().part(600, pages(2)), CACHED).unwrap();
    assert_eq!(part.len(), 8192);
    part.write(0, b"here");
    let mut bytes = [0; 4];
    mapped.read(600 * 4096, &mut bytes);
    assert_eq!(&bytes, b"here");
    assert_eq!(source.huge_counts().got, 2);
    drop((mapped, part));
    source.give(run.dirtied());
    assert_nothing_left(&source);
}

/// Forbids this process huge pages, for good.
fn forbid_huge_pages() {
    // SAFETY: sets a flag of this process.
    let answer = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn refused_huge_pages_are_small_ones_and_the_next_runs_do_not_ask() {
    let name = "refused_huge_pages_are_small_ones_and_the_next_runs_do_not_ask";
    if !in_child(name, "true") {
        return;
    }
    forbid_huge_pages();
    let source = MemfdPages::new().unwrap();
    let mut refused = 0;
    for n in 0..200 {
        let run = take(&source, 512);
        assert!(!run.is_huge());
        assert!(is_zero(&source.map(run.span(), CACHED).unwrap()));
        assert_eq!(source.resident().unwrap(), 2 << 20, "all of it is there");
        source.give(run.dirtied());
        // Sixty-four are skipped after the first, and then twice as many.
        refused += u64::from(n == 0 || n == 65 || n == 194);
        let counts = source.huge_counts();
        let expected = (n + 1, 0, refused, n + 1 - refused);
        let found = (counts.wanted, counts.got, counts.refused, counts.skipped);
        assert_eq!(found, expected, "wanted, got, refused, skipped");
    }
    assert_nothing_left(&source);
}

#[test]
fn a_mapping_that_the_host_refuses_is_an_error_and_the_frames_stay() {
    let name = "a_mapping_that_the_host_refuses_is_an_error_and_the_frames_stay";
    if !in_child(name, "ulimit -v 1500000") {
        return;
    }
    let source = MemfdPages::new().unwrap();
    for n in [511, 512] {
        let run = take(&source, n);
        let mut held = Vec::new();
        let error = loop {
            match source.map(run.span(), CACHED) {
                Ok(mapped) => held.push(mapped),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Backend(_)), "{error}");
        assert_eq!(source.live_mappings(), held.len() as u64);
        let another = MemfdPages::new().map(drop);
        assert!(matches!(another, Err(Error::Backend(_))), "no addresses");
        held.truncate(held.len() - 2);
        let mapped = source.map(run.span(), CACHED).unwrap();
        stamp(&mapped, 1);
        assert_stamped(&held[0], 1);
        assert_eq!(source.taken(), pages(n));
        drop((held, mapped));
        source.give(run.dirtied());
    }
    assert_nothing_left(&source);
}

#[test]
fn a_host_that_gives_no_files_gives_no_source() {
    let name = "a_host_that_gives_no_files_gives_no_source";
    if !in_child(name, "ulimit -n 24") {
        return;
    }
    let mut held = Vec::new();
    let error = loop {
        match MemfdPages::with_nodes(2) {
            Ok(source) => held.push(source),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Backend(_)), "{error}");
    held.pop();
    let run = take(&held[0], 1);
    held[0].give(run.dirtied());
    assert!(MemfdPages::with_nodes(2).is_ok());
}

#[test]
fn a_page_file_that_may_not_grow_is_an_error_and_takes_nothing() {
    let name = "a_page_file_that_may_not_grow_is_an_error_and_takes_nothing";
    // The signal would end the process before it sees the error.
    if !in_child(name, "trap '' XFSZ; ulimit -f 1000") {
        return;
    }
    let source = MemfdPages::new().unwrap();
    for n in [1, 512] {
        let error = source.take(&Want::new(pages(n))).unwrap_err();
        assert!(matches!(error, Error::Backend(_)), "{error}");
        assert_nothing_left(&source);
    }
}

#[cfg(feature = "plant")]
#[test]
fn a_planted_skipped_zeroing_shows() {
    use ttm::plant::{Defect, set};
    let _left = NothingLeft::expected();
    let source: Arc<dyn PageSource> = Arc::new(MemfdPages::new().unwrap());
    let pool = Pool::new(source, wall_clock(), PoolConfig::default());
    let want = Want::new(pages(2));
    let run = pool.take(&want).unwrap();
    pool.kmap(run.span()).unwrap().write(0, b"secret");
    pool.give(run.dirtied());
    set(Defect::SkippedZeroing);
    let run = pool.take(&want).unwrap();
    set(Defect::None);
    let mut bytes = [0; 6];
    pool.kmap(run.span()).unwrap().read(0, &mut bytes);
    assert_eq!(&bytes, b"secret");
    pool.give(run.dirtied());
}

/// What is maintained, by name.
#[derive(Default)]
struct Noted(ttm::sync::Mutex<Vec<(usize, ttm::cache::Maintenance)>>);

impl ttm::dma::CacheOps for Noted {
    fn line(&self) -> u32 {
        64
    }

    fn maintain(
        &self,
        memory: &ttm::pages::Mapped,
        bytes: core::ops::Range<usize>,
        what: ttm::cache::Maintenance,
    ) {
        assert!(bytes.end <= memory.len());
        self.0.lock().push((bytes.len(), what));
    }

    fn barrier(&self) {}
}

/// For devices that do not see the caches, they are maintained by who can.
#[test]
fn caches_are_maintained_for_devices_that_do_not_see_them() {
    use ttm::cache::Maintenance;
    let _left = NothingLeft::expected();
    let noted = ttm::sync::Arc::new(Noted::default());
    let ops = ttm::sync::Arc::clone(&noted) as ttm::sync::Arc<dyn ttm::dma::CacheOps>;
    let source = MemfdPages::new().unwrap().not_snooped(ops);
    assert!(!source.offers().snooped);
    let run = source.take(&Want::new(pages(3))).unwrap();
    source.maintain(run.span(), Maintenance::Clean);
    let seen = core::mem::take(&mut *noted.0.lock());
    let bytes = 3 * 4096;
    assert_eq!(
        seen,
        [(bytes, Maintenance::Flush), (bytes, Maintenance::Clean)]
    );
    assert_eq!(source.live_mappings(), 0);
    source.give(run.dirtied());

    // And the machine's own instructions change no byte.
    let Ok(cache) = backends::host::HostCache::probe() else {
        println!("skipped: no cache instructions for user mode here");
        return;
    };
    let source = MemfdPages::new()
        .unwrap()
        .not_snooped(ttm::sync::Arc::new(cache));
    let run = source.take(&Want::new(pages(3))).unwrap();
    let mapped = source.map(run.span(), CacheMode::Cached).unwrap();
    mapped.write(5000, b"kept");
    for what in [
        Maintenance::Clean,
        Maintenance::Invalidate,
        Maintenance::Flush,
    ] {
        source.maintain(run.span(), what);
        let mut found = [0; 4];
        mapped.read(5000, &mut found);
        assert_eq!(&found, b"kept");
    }
    drop(mapped);
    source.give(run.dirtied());
}
