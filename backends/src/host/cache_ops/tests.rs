//! What can be seen without a device that does not snoop: which lines are covered, in which order,
//! and that memory keeps its content.

use placement::{CacheMode, PageCount};
use ttm::dma::maintain;
use ttm::pages::{PageSource, Want};
use ttm::sync::Mutex;

use super::*;
use crate::host::MemfdPages;

const ALL: [Maintenance; 3] = [
    Maintenance::Clean,
    Maintenance::Invalidate,
    Maintenance::Flush,
];

/// `None`, with a word about it, where nothing can be maintained.
fn host() -> Option<HostCache> {
    match HostCache::probe() {
        Ok(cache) => Some(cache),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Calls `f` with `pages` mapped pages.
fn with_memory(pages: u64, f: impl FnOnce(&Mapped)) {
    let source = MemfdPages::new().unwrap();
    let run = source
        .take(&Want::new(PageCount::new(pages).unwrap()))
        .unwrap();
    f(&source.map(run.span(), CacheMode::Cached).unwrap());
    source.give(run.dirtied());
}

#[test]
fn the_line_is_a_power_of_two_and_no_shorter_than_what_is_told() {
    let Some(cache) = host() else { return };
    assert!(cache.line().is_power_of_two(), "{cache:?}");
    assert!(
        cache.line() as usize >= cache.instructions.step(),
        "{cache:?}"
    );
    let listed = longest_line(&ProbeRoot::system()).map_or(0, |listed| listed.0);
    assert!(cache.line() >= listed, "{cache:?}, {listed}");
    let says = cache.says();
    assert!(says.contains("cleans") && says.contains("waits"), "{says}");
}

#[test]
fn each_line_with_a_byte_of_the_range_is_covered_once() {
    with_memory(2, |memory| {
        let base = memory.as_ptr().addr();
        for step in [16, 64, 128] {
            for start in [0, 1, 15, 63, 64, 100, 127, 128, 4000, 8191, 8192] {
                for len in [0, 1, 2, 63, 64, 65, 129, 4096] {
                    let end = (start + len).min(8192);
                    let covered: Vec<_> = Lines::of(memory, start..end, step)
                        .map(|at| (at.addr() - base) / step)
                        .collect();
                    let mut expected: Vec<_> = (start..end).map(|byte| byte / step).collect();
                    expected.dedup();
                    assert_eq!(covered, expected, "{start}..{end} in lines of {step}");
                }
            }
        }
    });
}

#[test]
fn memory_keeps_its_content_whatever_is_maintained() {
    let Some(cache) = host() else { return };
    with_memory(2, |memory| {
        let mut content = vec![0; memory.len()];
        for what in ALL {
            for (start, end) in [
                (0, 8192),
                (0, 0),
                (1, 2),
                (61, 67),
                (4090, 4200),
                (8191, 8192),
                (8192, 8192),
            ] {
                let pattern = |n: usize| (n * 7 + start * 3 + what as usize) as u8;
                let written: Vec<_> = (0..memory.len()).map(pattern).collect();
                memory.write(0, &written);
                cache.maintain(memory, start..end, what);
                cache.barrier();
                memory.read(0, &mut content);
                assert_eq!(content, written, "{what:?} of {start}..{end}");
            }
        }
    });
}

#[test]
#[should_panic(expected = "bytes 4090..4097 of a mapping of 4096")]
fn a_range_outside_the_mapping_is_a_mistake() {
    with_memory(1, |memory| {
        Lines::of(memory, 4090..4097, 64).for_each(drop);
    });
}

/// What was asked for, in order.
#[derive(Default)]
struct Log(Mutex<Vec<Step>>);

#[derive(PartialEq, Eq, Debug)]
enum Step {
    Barrier,
    Maintain(Range<usize>, Maintenance),
}

impl CacheOps for Log {
    fn line(&self) -> u32 {
        64
    }

    fn maintain(&self, _: &Mapped, bytes: Range<usize>, what: Maintenance) {
        self.0.lock().push(Step::Maintain(bytes, what));
    }

    fn barrier(&self) {
        self.0.lock().push(Step::Barrier);
    }
}

#[test]
fn a_list_is_maintained_between_two_barriers() {
    with_memory(1, |memory| {
        let log = Log::default();
        maintain(&log, [], Maintenance::Clean);
        assert!(log.0.lock().is_empty(), "no ranges, no barriers");
        let list = [(memory, 0..64), (memory, 0..0), (memory, 128..4096)];
        maintain(&log, list, Maintenance::Flush);
        let flushed = |bytes| Step::Maintain(bytes, Maintenance::Flush);
        let expected = [
            Step::Barrier,
            flushed(0..64),
            flushed(0..0),
            flushed(128..4096),
            Step::Barrier,
        ];
        assert_eq!(*log.0.lock(), expected);
    });
}
