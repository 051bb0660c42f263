//! The laws of a space, over each kind of space.
//!
//! First every state that a few operations reach in a space of a few pages, and in each every
//! request; then long random runs, against the same naive model (`model.rs`); then the edges:
//! sizes, alignments and windows at the ends of their types, and extents given back twice.
//!
//! A space in chunks has page numbers beyond its size, which this model cannot say; of these laws
//! it has those on grants, and `tests/chunks` for the others.

mod model;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use placement::{
    Buddy, ChunkSizes, Chunks, Extent, PageCount, PageRange, Range, Request, Space, TakeError,
    Trim, Unbounded,
};

use model::{Kind, Model, pages};

const BOUNDED: [Kind; 2] = [Kind::Range, Kind::Buddy];
const NUMBERED_BY_SIZE: [Kind; 3] = [Kind::Range, Kind::Buddy, Kind::Unbounded];
const ALL: [Kind; 4] = [Kind::Range, Kind::Buddy, Kind::Unbounded, Kind::Chunks];

fn space(kind: Kind, size: u64) -> Box<dyn Trim> {
    match kind {
        Kind::Range => Box::new(Range::new(pages(size))),
        Kind::Buddy => Box::new(Buddy::new(pages(size))),
        Kind::Unbounded => Box::new(Unbounded::new()),
        Kind::Chunks => {
            let sizes = ChunkSizes {
                least: pages(1),
                most: pages(16),
                granule: pages(1),
            };
            Box::new(Chunks::new(pages(size), sizes))
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Take { pages: u64, top_down: bool },
    Give { index: usize },
    Trim { index: usize },
}

fn replay(kind: Kind, size: u64, ops: &[Op]) -> Option<(Box<dyn Trim>, Model)> {
    let (mut space, mut model) = (space(kind, size), Model::new(kind, size));
    for op in ops {
        match *op {
            Op::Take { pages: n, top_down } => {
                let request = Request {
                    top_down,
                    ..Request::new(pages(n))
                };
                if !model.take(&mut *space, &request) {
                    return None;
                }
            }
            Op::Give { index } if index < model.held.len() => model.give(&mut *space, index),
            Op::Trim { index } if index < model.held.len() => {
                let half = model.held[index].pages().get().div_ceil(2);
                model.trim(&mut *space, index, half);
            }
            Op::Give { .. } | Op::Trim { .. } => return None,
        }
    }
    Some((space, model))
}

/// Every request, in the state after `ops`; each grant is given back at once.
fn try_every_request(space: &mut dyn Trim, model: &mut Model, size: u64) {
    let windows = (0..=size + 1).flat_map(|a| (a..=size + 1).map(move |b| (a, b)));
    for (start, end) in windows {
        for (n, align) in (0..=size + 1).flat_map(|n| [1, 2, 3, 4].map(|align| (n, align))) {
            for (contiguous, top_down) in
                [(true, false), (true, true), (false, false), (false, true)]
            {
                let window = PageRange::new(start, end).unwrap();
                let (n, align) = (pages(n), pages(align));
                let request = Request {
                    pages: n,
                    align,
                    window,
                    contiguous,
                    top_down,
                };
                let before = model.held.len();
                model.take(space, &request);
                while model.held.len() > before {
                    model.give(space, model.held.len() - 1);
                }
            }
        }
    }
    model.compare(space);
}

fn explore(kind: Kind, size: u64, depth: usize, ops: &mut Vec<Op>, seen: &mut BTreeSet<Vec<u64>>) {
    let Some((mut space, mut model)) = replay(kind, size, ops) else {
        return;
    };
    model.compare(&*space);
    let state = space
        .taken()
        .iter()
        .flat_map(|range| [range.start(), range.end()])
        .collect();
    if seen.insert(state) {
        try_every_request(&mut *space, &mut model, size);
    }
    if ops.len() == depth {
        return;
    }
    let takes = (1..=size.min(4))
        .flat_map(|pages| [false, true].map(|top_down| Op::Take { pages, top_down }));
    let gives = (0..model.held.len()).flat_map(|index| [Op::Give { index }, Op::Trim { index }]);
    for op in takes.chain(gives) {
        ops.push(op);
        explore(kind, size, depth, ops, seen);
        ops.pop();
    }
}

#[test]
fn every_request_in_every_small_state_is_answered_as_by_trying_all_places() {
    for kind in BOUNDED {
        for (size, depth) in [
            (0, 1),
            (1, 4),
            (2, 4),
            (3, 4),
            (4, 5),
            (5, 4),
            (6, 4),
            (7, 3),
            (8, 3),
        ] {
            explore(kind, size, depth, &mut Vec::new(), &mut BTreeSet::new());
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn request(&mut self, size: u64, longest: u64) -> Request {
        let (a, b) = (self.below(size + 1), self.below(size + 1));
        let window = match self.below(3) {
            0 => PageRange::new(a.min(b), a.max(b)).unwrap(),
            _ => PageRange::ALL,
        };
        Request {
            pages: pages(1 + self.below(longest)),
            align: pages(1 << self.below(8).saturating_sub(4)),
            window,
            contiguous: self.below(3) > 0,
            top_down: self.below(3) == 0,
        }
    }
}

#[test]
fn random_histories_agree_with_the_model() {
    for kind in BOUNDED {
        for (seed, size, longest) in [
            (1, 37, 9),
            (2, 64, 16),
            (3, 500, 3),
            (4, 500, 40),
            (5, 1023, 2),
        ] {
            println!("{kind:?} seed {seed} size {size}");
            let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
            let (mut space, mut model) = (space(kind, size), Model::new(kind, size));
            for step in 0..4000 {
                // Fuller and emptier by turns.
                let takes = if step / 500 % 2 == 0 { 7 } else { 3 };
                let held = model.held.len() as u64;
                if held == 0 || random.below(10) < takes {
                    model.take(&mut *space, &random.request(size, longest));
                } else if random.below(8) == 0 {
                    let index = random.below(held) as usize;
                    let keep = 1 + random.below(model.held[index].pages().get());
                    model.trim(&mut *space, index, keep);
                } else {
                    model.give(&mut *space, random.below(held) as usize);
                }
                if step % 20 == 0 {
                    model.compare(&*space);
                }
            }
            while !model.held.is_empty() {
                model.give(&mut *space, 0);
            }
            model.compare(&*space);
        }
    }
}

#[test]
fn laws_hold_with_ten_thousand_holes() {
    for kind in BOUNDED {
        let size = 1 << 16;
        let mut space = space(kind, size);
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut held: Vec<Extent> = Vec::new();
        for step in 0..200_000 {
            if random.below(100) < if step % 50_000 < 30_000 { 60 } else { 40 } {
                let request = Request {
                    top_down: random.below(4) == 0,
                    ..random.request(size, 3)
                };
                held.extend(space.take(&request).unwrap_or_default());
            } else if !held.is_empty() {
                let victim = random.below(held.len() as u64) as usize;
                space.give(held.swap_remove(victim));
            }
            if step % 10_000 == 0 {
                space
                    .check()
                    .unwrap_or_else(|broken| panic!("{kind:?} {step}: {broken}"));
            }
        }
        held.into_iter().for_each(|extent| space.give(extent));
        space.check().unwrap();
        assert_eq!(space.largest_hole(), space.size());
    }
}

#[test]
fn a_freed_extent_merges_with_both_neighbours() {
    for kind in BOUNDED {
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut space = space(kind, 16);
            let grants: Vec<Extent> = [4, 4, 8]
                .iter()
                .map(|&n| space.take(&Request::new(pages(n))).unwrap()[0])
                .collect();
            assert_eq!(space.free(), PageCount::ZERO);
            assert_eq!(space.take(&Request::new(pages(1))), Err(TakeError::Full));
            for index in order {
                space.give(grants[index]);
                space.check().unwrap();
            }
            assert_eq!(space.largest_hole(), pages(16));
        }
    }
}

#[test]
fn a_page_gets_a_greater_generation_with_each_owner() {
    for kind in ALL {
        let mut space = space(kind, 4);
        let mut last = 0;
        for n in [1, 4, 2, 3, 1] {
            let extent = space.take(&Request::new(pages(n))).unwrap()[0];
            assert!(extent.generation() > last, "{kind:?} {extent}");
            last = extent.generation();
            let kept = space.trim(extent, pages(1));
            assert_eq!(kept.generation(), last);
            space.give(kept);
        }
    }
}

#[test]
fn what_was_not_granted_cannot_be_given() {
    for kind in ALL {
        let grant = |space: &mut dyn Trim, n| space.take(&Request::new(pages(n))).unwrap()[0];
        let mut space = space(kind, 64);
        let stays = grant(&mut *space, 8);
        let gone = grant(&mut *space, 8);
        space.give(gone);
        let (long, free) = (grant(&mut *space, 8), space.free());
        let short = space.trim(long, pages(3));
        let mut other = self::space(kind, 64);
        (0..20).for_each(|_| drop(other.take(&Request::new(pages(1)))));
        let foreign = grant(&mut *other, 1);
        for (wrong, why) in [
            (gone, "twice"),
            (long, "trimmed since"),
            (foreign, "of another"),
        ] {
            let given = catch_unwind(AssertUnwindSafe(|| space.give(wrong)));
            let text = *given.expect_err(why).downcast::<String>().expect("a text");
            assert!(text.contains(&wrong.to_string()), "{text}");
            catch_unwind(AssertUnwindSafe(|| space.trim(wrong, pages(1)))).expect_err(why);
        }
        for keep in [0, 4] {
            let keep = pages(keep);
            catch_unwind(AssertUnwindSafe(|| space.trim(short, keep))).expect_err("a length");
        }
        space.check().unwrap();
        assert_eq!(space.free().get(), free.get() + 5);
        space.give(stays);
        space.give(short);
        assert!(space.taken().is_empty());
    }
}

#[test]
fn nothing_wraps_at_the_ends_of_the_types() {
    let edges = [
        0,
        1,
        2,
        3,
        7,
        64,
        1 << 31,
        1 << 32,
        1 << 51,
        (1 << 52) - 2,
        (1 << 52) - 1,
    ];
    let sizes = [0, 1, 2, 255, 1 << 32, (1 << 33) + 5, 1 << 51, (1 << 52) - 1];
    let kinds = NUMBERED_BY_SIZE.iter();
    for (kind, size) in kinds.flat_map(|&kind| sizes.map(|size| (kind, size))) {
        let mut space = space(kind, size);
        let size = space.size().get();
        for (n, align) in edges.iter().flat_map(|&n| edges.map(|align| (n, align))) {
            for (start, end) in edges
                .iter()
                .flat_map(|&start| edges.map(|end| (start, end)))
            {
                let Some(window) = PageRange::new(start, end) else {
                    continue;
                };
                for (contiguous, top_down) in [(true, false), (true, true), (false, false)] {
                    let (pages, align) = (pages(n), pages(align));
                    let request = Request {
                        pages,
                        align,
                        window,
                        contiguous,
                        top_down,
                    };
                    let aligned = align.get().is_power_of_two();
                    let first = start.checked_next_multiple_of(align.get().max(1)).unwrap();
                    match space.take(&request) {
                        Err(TakeError::Invalid) => assert!(n == 0 || !aligned),
                        Err(TakeError::Never) => {
                            assert!(kind == Kind::Buddy || first + n > end.min(size));
                        }
                        Err(TakeError::Full) => panic!("{kind:?} is empty: {request:?}"),
                        Ok(extents) => {
                            assert!(n > 0 && aligned && first + n <= end.min(size));
                            for extent in extents {
                                let range = extent.range();
                                assert!(window.contains_range(&range), "{request:?} {extent}");
                                assert!(range.end() <= size);
                                assert_eq!(extent.start() % align.get(), 0);
                                space.give(extent);
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(space.free().get(), size);
        space.check().unwrap();
    }
    assert_eq!(
        (PageCount::new(1 << 63), PageCount::new(1 << 52)),
        (None, None)
    );
}

#[test]
fn widths_beyond_a_weight_stay_exact() {
    // The tree of holes weighs up to 32,767 pages exactly; wider holes are told apart all the same.
    let mut space = Range::new(pages(1 << 20));
    let pins: Vec<Extent> = [100_000u64, 240_000, 300_000]
        .iter()
        .map(|&at| {
            let window = PageRange::at(at, pages(1)).unwrap();
            space.take(&Request::new(pages(1)).within(window)).unwrap()[0]
        })
        .collect();
    assert_eq!(space.largest_hole().get(), (1 << 20) - 300_001);
    let wide = space.take(&Request::new(pages(130_000))).unwrap();
    assert_eq!(wide[0].start(), 100_001);
    assert_eq!(
        space.take(&Request::new(pages(1 << 20))),
        Err(TakeError::Full)
    );
    let rest = (1 << 20) - 3 - 130_000;
    let scattered = space.take(&Request::new(pages(rest)).scattered()).unwrap();
    assert!(scattered.len() >= 4 && space.free().is_zero());
    wide.into_iter()
        .chain(scattered)
        .chain(pins)
        .for_each(|extent| space.give(extent));
    assert_eq!(space.largest_hole().get(), 1 << 20);
    space.check().unwrap();
}

#[test]
fn an_unbounded_space_is_full_only_when_its_numbers_end() {
    let mut space = Unbounded::new();
    let half = space.take(&Request::new(pages(1 << 51))).unwrap();
    assert_eq!(
        space.take(&Request::new(PageCount::MAX)),
        Err(TakeError::Full)
    );
    assert_eq!(space.free().get(), (1 << 51) - 1);
    half.into_iter().for_each(|extent| space.give(extent));
    assert_eq!(space.largest_hole(), PageCount::MAX);
    assert_eq!(
        space.take(&Request::new(PageCount::ZERO)),
        Err(TakeError::Invalid)
    );
    space.check().unwrap();
}
