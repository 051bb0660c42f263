//! An input of bytes is a list of requests to a space, whose answers are held against a bitmap.

use ttm::placement::{Buddy, Extent, PageCount, PageRange, Range, Request, Space, TakeError, Trim};

const MOST: u64 = 96;

/// Runs the requests of `bytes`, on a space that the first two choose.
///
/// # Panics
/// If an answer is wrong.
pub(crate) fn run(bytes: &[u8]) {
    let [kind, size, ops @ ..] = bytes else {
        return;
    };
    let size = u64::from(*size) % MOST + 1;
    match kind & 1 {
        0 => play(Range::new(pages(size)), size, ops, true),
        // Blocks of powers of two may refuse a run that a bitmap has.
        _ => play(Buddy::new(pages(size)), size, ops, false),
    }
}

fn pages(n: u64) -> PageCount {
    PageCount::new(n).expect("few")
}

/// `exact`: it refuses only what a bitmap cannot grant either.
fn play(mut space: impl Trim, size: u64, ops: &[u8], exact: bool) {
    let mut taken = vec![false; size as usize];
    let mut held: Vec<Extent> = Vec::new();
    for op in ops.chunks_exact(4) {
        match op[0] & 3 {
            0 | 1 => {
                let request = request(op);
                match space.take(&request) {
                    Ok(extents) => {
                        grant(&mut taken, &request, &extents);
                        held.extend(extents);
                    }
                    Err(refused) => refuse(&taken, &request, refused, exact),
                }
            }
            2 if !held.is_empty() => {
                let extent = held.swap_remove(usize::from(op[1]) % held.len());
                mark(&mut taken, extent.range(), false);
                space.give(extent);
            }
            3 if !held.is_empty() => {
                let n = usize::from(op[1]) % held.len();
                let whole = held[n];
                let keep = u64::from(op[2]) % whole.pages().get() + 1;
                held[n] = space.trim(whole, pages(keep));
                let kept = held[n].range();
                assert_eq!((kept.start(), kept.len()), (whole.start(), pages(keep)));
                let tail = PageRange::new(kept.end(), whole.range().end()).expect("in order");
                mark(&mut taken, tail, false);
            }
            _ => {}
        }
        compare(&space, &taken, &held);
    }
    for extent in held {
        space.give(extent);
    }
    assert_eq!(space.free(), space.size());
    space.check().unwrap();
}

fn request(op: &[u8]) -> Request {
    let mut request = Request::new(pages(u64::from(op[1] & 31)));
    request.align = pages(match op[2] & 7 {
        7 => 3,
        n => 1 << (n & 3),
    });
    if op[3] & 0x80 != 0 {
        let start = u64::from(op[3] & 63);
        let window = PageRange::new(start, start + u64::from(op[2] >> 3));
        request = request.within(window.expect("in order"));
    }
    request.contiguous = op[0] & 4 == 0;
    request.top_down = op[0] & 8 != 0;
    request
}

fn mark(taken: &mut [bool], range: PageRange, to: bool) {
    for page in range.start()..range.end() {
        let page = &mut taken[page as usize];
        assert_ne!(*page, to, "{range:?} was granted twice, or never");
        *page = to;
    }
}

fn grant(taken: &mut [bool], request: &Request, extents: &[Extent]) {
    let sum: u64 = extents.iter().map(|e| e.pages().get()).sum();
    assert_eq!(sum, request.pages.get(), "{request:?}");
    assert!(
        !request.contiguous || extents.len() == 1,
        "{request:?} came in pieces"
    );
    for extent in extents {
        assert!(
            request.window.contains_range(&extent.range()),
            "{extent:?} for {request:?}"
        );
        assert_eq!(
            extent.start() % request.align.get(),
            0,
            "{extent:?} for {request:?}"
        );
        mark(taken, extent.range(), true);
    }
}

fn refuse(taken: &[bool], request: &Request, refused: TakeError, exact: bool) {
    let (want, align) = (request.pages.get() as usize, request.align.get() as usize);
    let invalid = want == 0 || !align.is_power_of_two();
    assert_eq!(refused == TakeError::Invalid, invalid, "{request:?}");
    if invalid {
        return;
    }
    let end = request.window.end().min(taken.len() as u64) as usize;
    let starts = (request.window.start() as usize..end).filter(|p| p % align == 0);
    let fits = |taken: &[bool]| {
        let mut starts = starts.clone();
        starts.any(|at| at + want <= end && !taken[at..at + want].contains(&true))
    };
    let ever = fits(&vec![false; taken.len()]);
    if refused == TakeError::Never {
        assert!(
            !ever || !exact,
            "{request:?} would fit into the empty space"
        );
    } else {
        assert!(ever, "{request:?} will never fit");
        assert!(
            !exact || !fits(taken),
            "{request:?} was refused, though it fits: {taken:?}"
        );
    }
}

fn compare(space: &impl Space, taken: &[bool], held: &[Extent]) {
    space.check().unwrap_or_else(|e| panic!("{e}"));
    let free = taken.iter().filter(|t| !**t).count() as u64;
    assert_eq!(space.free(), pages(free));
    let mut ranges: Vec<_> = held.iter().map(|e| e.range()).collect();
    ranges.sort_by_key(|r| r.start());
    assert_eq!(space.taken(), ranges);
}
