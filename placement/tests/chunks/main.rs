//! The laws of a space in chunks.
//!
//! First every state that a few operations reach in a space of a few pages, and in each every
//! request; then long random runs, against the same naive model (`model.rs`), which foretells
//! each chunk opened and closed; then what the memory behind the chunks does, told step by step.

mod model;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use placement::{Chunks, Extent, PageCount, PageRange, Request, Space, TakeError};

use model::{Model, pages, sizes};

#[derive(Clone, Copy, Debug)]
enum Op {
    Take { pages: u64, contiguous: bool },
    Give { index: usize },
    Trim { index: usize },
    Refuse { index: usize },
    Close,
    Drain,
    Limit { pages: u64 },
    Allow,
}

fn apply(model: &mut Model, op: Op) {
    match op {
        Op::Take {
            pages: n,
            contiguous,
        } => {
            let request = Request {
                contiguous,
                ..Request::new(pages(n))
            };
            model.take(&request);
        }
        Op::Give { index } => model.give(index),
        Op::Trim { index } => model.trim(index, 1),
        Op::Refuse { index } => model.refuse(model.held[index].start()),
        Op::Close => model.close_empty(0),
        Op::Drain => model.drain_closed(),
        Op::Limit { pages } => model.set_limit(pages),
        Op::Allow => model.allow_growth(),
    }
}

/// A space of a few pages.
#[derive(Clone, Copy)]
struct Small {
    limit: u64,
    sizes: [u64; 3],
    depth: usize,
}

impl Small {
    fn replay(&self, ops: &[Op]) -> Model {
        let [least, most, granule] = self.sizes;
        let mut model = Model::new(self.limit, sizes(least, most, granule));
        ops.iter().for_each(|op| apply(&mut model, *op));
        model
    }

    fn ops(&self, model: &Model) -> Vec<Op> {
        let takes = (1..=self.limit.min(4)).map(|pages| Op::Take {
            pages,
            contiguous: true,
        });
        let wide = Op::Take {
            pages: self.limit - 1,
            contiguous: false,
        };
        let held = (0..model.held.len())
            .flat_map(|index| [Op::Give { index }, Op::Trim { index }, Op::Refuse { index }]);
        let half = Op::Limit {
            pages: self.limit / 2,
        };
        let whole = Op::Limit { pages: self.limit };
        let others = [wide, Op::Close, Op::Drain, half, whole, Op::Allow];
        takes.chain(held).chain(others).collect()
    }

    fn explore(&self) -> usize {
        let mut seen = BTreeSet::new();
        let mut layer: Vec<Vec<Op>> = vec![Vec::new()];
        for depth in 0..=self.depth {
            let mut next = Vec::new();
            for ops in layer {
                let model = self.replay(&ops);
                if !seen.insert(model.state()) {
                    continue;
                }
                model.compare();
                self.try_every_request(&ops);
                if depth < self.depth {
                    let more = self.ops(&model).into_iter();
                    next.extend(more.map(|op| [&ops[..], &[op]].concat()));
                }
            }
            layer = next;
        }
        seen.len()
    }

    fn try_every_request(&self, ops: &[Op]) {
        let windows = [PageRange::ALL, PageRange::new(1, 5).unwrap()];
        for (n, align) in (0..=self.limit + 1).flat_map(|n| [1, 2, 3, 4].map(|align| (n, align))) {
            for window in windows {
                for (contiguous, top_down) in [(true, false), (true, true), (false, false)] {
                    let mut model = self.replay(ops);
                    let granted = model.take(&Request {
                        pages: pages(n),
                        align: pages(align),
                        window,
                        contiguous,
                        top_down,
                    });
                    if granted {
                        model.compare();
                    }
                }
            }
        }
    }
}

#[test]
fn every_request_in_every_small_state_is_answered_as_foretold() {
    for (limit, sizes, depth, states) in [
        (1, [1, 1, 1], 6, 12),
        (3, [1, 2, 1], 6, 500),
        (5, [2, 4, 2], 6, 1000),
        (6, [1, 1, 1], 5, 500),
        (6, [0, 4, 4], 5, 500),
        (7, [4, 4, 3], 5, 500),
    ] {
        let small = Small {
            limit,
            sizes,
            depth,
        };
        let seen = small.explore();
        println!("limit {limit} sizes {sizes:?}: {seen} states");
        assert!(
            seen >= states,
            "limit {limit} sizes {sizes:?}: {seen} states"
        );
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

    fn request(&mut self, longest: u64, numbers: u64) -> Request {
        let (a, b) = (self.below(numbers + 1), self.below(numbers + 1));
        let window = match self.below(8) {
            0 => PageRange::new(a.min(b), a.max(b)).unwrap(),
            _ => PageRange::ALL,
        };
        Request {
            pages: pages(1 + self.below(longest)),
            align: pages(1 << self.below(9).saturating_sub(4)),
            window,
            contiguous: self.below(3) > 0,
            top_down: self.below(3) == 0,
        }
    }
}

fn step(model: &mut Model, random: &mut Random, takes: u64, limit: u64, longest: u64) {
    let held = model.held.len() as u64;
    match random.below(100) {
        0 => model.set_limit(limit / 2 + random.below(limit / 2 + 1)),
        1 => model.set_limit(limit),
        2 | 3 => model.allow_growth(),
        4 => model.close_empty(random.below(limit / 4 + 1)),
        5..10 => model.drain_closed(),
        10 | 11 if held > 0 => {
            let page = model.held[random.below(held) as usize].start();
            model.refuse(page);
        }
        12..18 if held > 0 => {
            let index = random.below(held) as usize;
            let keep = 1 + random.below(model.held[index].pages().get());
            model.trim(index, keep);
        }
        dice if held == 0 || dice < takes => {
            model.take(&random.request(longest, 2 * limit));
        }
        _ => model.give(random.below(held) as usize),
    }
}

#[test]
fn random_histories_agree_with_the_model() {
    for (seed, limit, longest, [least, most, granule]) in [
        (1, 40, 9, [4, 16, 1]),
        (2, 64, 20, [8, 8, 8]),
        (3, 150, 5, [2, 16, 2]),
        (4, 97, 30, [5, 24, 3]),
        (5, 60, 60, [1, 64, 4]),
    ] {
        println!("seed {seed} limit {limit}");
        let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let mut model = Model::new(limit, sizes(least, most, granule));
        for count in 0..3000 {
            // Fuller and emptier by turns.
            let takes = if count / 300 % 2 == 0 { 75 } else { 40 };
            step(&mut model, &mut random, takes, limit, longest);
            if count % 10 == 0 {
                model.compare();
            }
        }
        while !model.held.is_empty() {
            model.give(0);
        }
        model.drain_closed();
        model.close_empty(0);
        model.compare();
        assert_eq!(model.open(), 0);
    }
}

#[test]
fn laws_hold_with_hundreds_of_chunks() {
    let mut space = Chunks::new(pages(1 << 14), sizes(32, 32, 1));
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut held: Vec<Extent> = Vec::new();
    let mut most = 0;
    for step in 0..60_000 {
        if random.below(100) < if step % 20_000 < 12_000 { 65 } else { 35 } {
            let request = Request {
                window: PageRange::ALL,
                ..random.request(9, 1)
            };
            held.extend(space.take(&request).unwrap_or_default());
        } else if !held.is_empty() {
            let victim = random.below(held.len() as u64) as usize;
            space.give(held.swap_remove(victim));
        }
        if step % 2_000 == 0 {
            most = most.max(space.chunks().count());
            space.check().unwrap();
        }
    }
    assert!(most > 300, "{most} chunks");
    held.into_iter().for_each(|extent| space.give(extent));
    space.check().unwrap();
    assert_eq!(space.largest_hole(), space.size());
}

fn one(space: &mut Chunks, n: u64) -> Extent {
    space.take(&Request::new(pages(n))).unwrap()[0]
}

fn lengths(space: &Chunks) -> Vec<u64> {
    space
        .chunks()
        .map(|chunk| chunk.range.len().get())
        .collect()
}

#[test]
fn nothing_is_granted_above_a_lowered_limit() {
    let mut space = Chunks::new(pages(32), sizes(8, 8, 1));
    let held: Vec<Extent> = (0..3).map(|_| one(&mut space, 6)).collect();
    space.set_limit(pages(10));
    assert_eq!((space.size(), space.free()), (pages(18), pages(0)));
    assert_eq!(space.largest_hole(), pages(0));
    assert_eq!(space.take(&Request::new(pages(1))), Err(TakeError::Full));
    assert_eq!(space.take(&Request::new(pages(11))), Err(TakeError::Never));
    space.give(held[1]);
    assert_eq!(space.take(&Request::new(pages(1))), Err(TakeError::Full));
    space.give(held[0]);
    // The chunks are still open: more pages than the limit leaves.
    assert_eq!((space.free(), space.open()), (pages(4), pages(24)));
    assert_eq!(one(&mut space, 4).pages(), pages(4));
    assert_eq!(space.take(&Request::new(pages(1))), Err(TakeError::Full));
    space.check().unwrap();
}

#[test]
fn a_refused_chunk_grants_nothing_and_goes_with_its_last_extent() {
    let mut space = Chunks::new(pages(64), sizes(8, 8, 1));
    let (a, b) = (one(&mut space, 2), one(&mut space, 2));
    let range = space.chunk_of(a.start()).unwrap().range;
    assert_eq!(space.chunk_of(b.start()).unwrap().range, range);
    // Both owners find that there is no memory.
    space.refuse(a.start());
    space.refuse(b.start());
    assert!(space.growth_stopped() && space.chunk_of(a.start()).unwrap().refused);
    // There may be half of it, once.
    assert_eq!(space.take(&Request::new(pages(5))), Err(TakeError::Full));
    let half = one(&mut space, 4);
    space.refuse(half.start());
    space.give(half);
    assert_eq!(space.take(&Request::new(pages(3))), Err(TakeError::Full));
    space.give(a);
    assert_eq!((lengths(&space), space.empties()), (vec![8], pages(0)));
    assert_eq!(space.close_empty(PageCount::ZERO), []);
    space.give(b);
    assert_eq!((lengths(&space), space.chunk_of(b.start())), (vec![], None));
    assert_eq!(space.drain_closed().count(), 0);
    // Too late, and without effect.
    space.allow_growth();
    space.refuse(b.start());
    assert!(!space.growth_stopped());
    // The same numbers again, and a greater generation.
    let again = one(&mut space, 2);
    assert_eq!(space.chunk_of(again.start()).unwrap().range, range);
    assert!(again.generation() > b.generation());
    space.check().unwrap();
}

#[test]
fn a_second_refusal_of_a_chunk_takes_no_returned_pages() {
    let mut space = Chunks::new(pages(64), sizes(8, 8, 1));
    let backed = one(&mut space, 8);
    let (a, b) = (one(&mut space, 4), one(&mut space, 4));
    space.refuse(a.start());
    space.give(backed);
    assert_eq!(space.close_empty(PageCount::ZERO).len(), 1);
    space.refuse(b.start());
    // The eight that were returned, and half of the eight that were refused.
    assert_eq!(space.largest_hole(), pages(12));
    assert_eq!(one(&mut space, 12).pages(), pages(12));
    assert_eq!(space.take(&Request::new(pages(1))), Err(TakeError::Full));
}

#[test]
fn without_growth_empty_chunks_make_room_for_a_larger_one() {
    let mut space = Chunks::new(pages(64), sizes(8, 8, 4));
    let backed: Vec<Extent> = (0..3).map(|_| one(&mut space, 8)).collect();
    let refused = one(&mut space, 8);
    space.refuse(refused.start());
    space.give(refused);
    // The half of it is not there either, nor a quarter.
    for half in [4, 2, 1] {
        let smaller = one(&mut space, half);
        space.refuse(smaller.start());
        space.give(smaller);
    }
    assert_eq!(space.take(&Request::new(pages(10))), Err(TakeError::Full));
    space.give(backed[0]);
    assert_eq!(space.take(&Request::new(pages(10))), Err(TakeError::Full));
    assert_eq!(lengths(&space), [8, 8, 8]);
    space.give(backed[2]);
    let large = one(&mut space, 10);
    let closed: Vec<PageRange> = space.drain_closed().collect();
    assert_eq!(closed, [2, 0].map(|i: usize| backed[i].range()));
    assert_eq!(
        space.chunk_of(large.start()).unwrap().range.len(),
        pages(12)
    );
    // Of the sixteen pages returned, four are left.
    assert_eq!(space.largest_hole(), pages(4));
    space.check().unwrap();
}

#[test]
fn numbers_of_a_closed_chunk_wait_until_it_is_drained() {
    let mut space = Chunks::new(pages(8), sizes(2, 2, 1));
    let first = one(&mut space, 2);
    space.give(first);
    let second = one(&mut space, 8);
    assert!(!first.range().intersects(&second.range()));
    space.give(second);
    assert_eq!(one(&mut space, 2).start(), second.start());
    assert_eq!(space.drain_closed().collect::<Vec<_>>(), [first.range()]);
    assert_eq!(space.drain_closed().count(), 0);
    space.check().unwrap();
}

#[test]
fn a_large_request_has_a_chunk_of_its_own_size() {
    let mut space = Chunks::new(pages(1000), sizes(16, 64, 8));
    one(&mut space, 1);
    one(&mut space, 100);
    assert_eq!(lengths(&space), [16, 104]);
    // The limit leaves 880, and the granule is given up only for the last of it.
    one(&mut space, 876);
    assert_eq!(space.open(), pages(1000));
}

#[test]
fn chunks_grow_with_what_is_open() {
    let mut space = Chunks::new(pages(10_000), sizes(16, 128, 1));
    while space.open() < pages(2000) {
        one(&mut space, 4);
    }
    let mut lengths = lengths(&space);
    lengths.dedup();
    assert_eq!(lengths, [16, 32, 64, 128]);
}

#[test]
fn a_scattered_request_is_spread_over_chunks_or_not_granted_at_all() {
    let mut space = Chunks::new(pages(24), sizes(8, 8, 1));
    let pins: Vec<Extent> = (0..3).map(|_| one(&mut space, 5)).collect();
    let request = Request::new(pages(9)).scattered();
    let extents = space.take(&request).unwrap();
    assert_eq!((extents.len(), space.free()), (3, pages(0)));
    extents.into_iter().for_each(|extent| space.give(extent));

    // In pairs there is room for three; the page left over in each chunk is odd.
    let pairs = |n| Request::new(pages(n)).aligned(pages(2)).scattered();
    for n in [7, 8, 9] {
        assert_eq!(space.take(&pairs(n)), Err(TakeError::Full));
        assert_eq!(space.free(), pages(9));
    }
    for n in [5, 6] {
        let extents = space.take(&pairs(n)).unwrap();
        assert!(extents.iter().all(|extent| extent.start() % 2 == 0));
        extents.into_iter().for_each(|extent| space.give(extent));
    }

    // A refused chunk has none of it.
    space.refuse(pins[1].start());
    assert_eq!(space.take(&request), Err(TakeError::Full));
    assert_eq!(space.free(), pages(9));
    space.check().unwrap();
}

#[test]
fn a_scattered_request_uses_what_is_open_before_the_rest_of_the_limit() {
    let mut space = Chunks::new(pages(20), sizes(8, 8, 1));
    one(&mut space, 5);
    one(&mut space, 5);
    // Three pages here, three there, and four of a new chunk.
    let extents = space.take(&Request::new(pages(10)).scattered()).unwrap();
    let lengths: Vec<u64> = extents.iter().map(|extent| extent.pages().get()).collect();
    assert_eq!(lengths, [3, 3, 4]);
    assert_eq!((space.free(), space.chunks().count()), (pages(0), 3));
}

#[test]
fn a_window_is_obeyed_by_old_and_new_chunks() {
    let mut space = Chunks::new(pages(64), sizes(8, 8, 1));
    one(&mut space, 1);
    let low = PageRange::new(4, 6).unwrap();
    let inside = space.take(&Request::new(pages(2)).within(low)).unwrap()[0];
    assert_eq!(inside.range(), low);
    assert_eq!(space.chunks().count(), 1);
    let far = PageRange::new(1000, 1010).unwrap();
    let outside = space.take(&Request::new(pages(3)).within(far)).unwrap()[0];
    assert!(far.contains_range(&outside.range()));
    assert_eq!(space.chunks().count(), 2);
    let narrow = Request::new(pages(3)).within(PageRange::new(4, 6).unwrap());
    assert_eq!(space.take(&narrow), Err(TakeError::Never));
    space.check().unwrap();
}

/// A memory that has fewer pages than its space believes, and which others use too.
#[test]
fn asking_again_after_each_refusal_comes_to_an_end() {
    for (seed, real) in [(1, 0), (2, 3), (3, 40), (4, 61), (5, 100)] {
        let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let mut space = Chunks::new(pages(100), sizes(8, 16, 1));
        let (mut held, mut backed) = (Vec::<Extent>::new(), BTreeSet::new());
        for _ in 0..300 {
            let wanted = 1 + random.below(20);
            let mut rounds = 0;
            loop {
                rounds += 1;
                assert!(
                    rounds < 300,
                    "seed {seed}: {wanted} pages are asked for for ever"
                );
                match space.take(&Request::new(pages(wanted))) {
                    Err(_) if held.is_empty() => break,
                    Err(_) => {
                        space.give(held.swap_remove(random.below(held.len() as u64) as usize))
                    }
                    Ok(extents) => {
                        for range in space.drain_closed() {
                            assert!(backed.remove(&(range.start(), range.end())), "{range}");
                        }
                        let range = space.chunk_of(extents[0].start()).unwrap().range;
                        let used: u64 = backed.iter().map(|(start, end)| end - start).sum();
                        // One time in four, others have just taken the rest.
                        let others = if random.below(4) == 0 { real - used } else { 0 };
                        let chunk = (range.start(), range.end());
                        if backed.contains(&chunk) || used + others + range.len().get() <= real {
                            backed.insert(chunk);
                            held.extend(extents);
                            break;
                        }
                        space.refuse(extents[0].start());
                        space.give(extents[0]);
                    }
                }
            }
            space.check().unwrap();
            if random.below(20) == 0 {
                space.allow_growth();
            }
        }
        let open: BTreeSet<_> = space
            .chunks()
            .map(|c| (c.range.start(), c.range.end()))
            .collect();
        assert_eq!(open, backed);
    }
}

#[test]
fn what_was_granted_from_a_closed_chunk_cannot_be_given() {
    let mut space = Chunks::new(pages(64), sizes(8, 8, 1));
    let old = one(&mut space, 3);
    space.give(old);
    let panics = |space: &mut Chunks| {
        let given = catch_unwind(AssertUnwindSafe(|| space.give(old)));
        let text = *given.expect_err("gone").downcast::<String>().unwrap();
        assert!(text.contains(&old.to_string()), "{text}");
    };
    panics(&mut space);
    space.close_empty(PageCount::ZERO);
    panics(&mut space);
    let new = one(&mut space, 3);
    assert_eq!(new.range(), old.range());
    panics(&mut space);
    space.check().unwrap();
    assert_eq!(space.taken(), [new.range()]);
}

#[test]
fn nothing_wraps_at_the_ends_of_the_types() {
    let edges = [0, 1, 2, 7, 1 << 31, 1 << 51, (1 << 52) - 2, (1 << 52) - 1];
    for (limit, most) in edges
        .iter()
        .flat_map(|&limit| edges.map(|most| (limit, most)))
    {
        let mut space = Chunks::new(pages(limit), sizes(most / 2, most, most.max(1)));
        for (n, align) in edges.iter().flat_map(|&n| edges.map(|align| (n, align))) {
            let request = Request::new(pages(n)).aligned(pages(align));
            for request in [request, request.scattered(), request.top_down()] {
                match space.take(&request) {
                    Err(TakeError::Invalid) => assert!(n == 0 || !align.is_power_of_two()),
                    Err(TakeError::Never) => assert!(n > limit),
                    Err(TakeError::Full) => panic!("{limit} are empty: {request:?}"),
                    Ok(extents) => extents.into_iter().for_each(|extent| space.give(extent)),
                }
                assert!(space.open() <= pages(limit));
                assert_eq!(space.largest_hole(), pages(limit));
                space.check().unwrap();
                space.drain_closed().count();
                space.close_empty(PageCount::ZERO);
            }
        }
    }
}

#[test]
#[should_panic(expected = "granule")]
fn chunks_have_a_granule() {
    let _ = Chunks::new(pages(1), sizes(1, 1, 0));
}

#[test]
#[should_panic(expected = "least")]
fn the_least_chunk_is_not_above_the_most() {
    let _ = Chunks::new(pages(1), sizes(2, 1, 1));
}
