//! Addresses against a naive set: no overlap, nothing reserved, within the limit, aligned, on one
//! side of each boundary, and none that is queued. First case by case, then drawn. Threads are in
//! `tests/dma_space.rs`.

use super::*;
use crate::dma::dice::Dice;
use crate::sync::{Arc, OnceLock, Weak};

const GRANULE: u64 = 4096;

fn space(config: IovaConfig) -> IovaSpace {
    IovaSpace::new(config, |_| {}).unwrap()
}

fn small(granules: u64) -> IovaConfig {
    IovaConfig {
        aperture: Mask::up_to(granules * GRANULE - 1),
        ..IovaConfig::default()
    }
}

fn request(granules: u64) -> IovaRequest {
    IovaRequest::new(granules * GRANULE).limit(Mask::ALL)
}

fn at(address: u64) -> DmaAddr {
    DmaAddr::new(address).unwrap()
}

#[test]
fn a_granule_is_a_power_of_two_up_to_a_page() {
    for granule in [0, 3, 6144, 8192] {
        let config = IovaConfig {
            granule,
            ..IovaConfig::default()
        };
        let refused = IovaSpace::new(config, |_| {}).unwrap_err();
        let most = GRANULE;
        assert_eq!(refused, DmaError::BadGranule { granule, most });
    }
    for granule in [1, 512, 4096] {
        let all = space(IovaConfig {
            granule,
            aperture: Mask::ALL,
            ..IovaConfig::default()
        });
        let range = all.alloc(&IovaRequest::new(5000).limit(Mask::ALL)).unwrap();
        assert!(range.len() >= 5000);
        all.free(range, Time::ZERO);
    }
}

#[test]
fn it_is_filled_from_the_limit_down_and_never_at_0() {
    let space = space(small(16));
    let low = Mask::up_to(8 * GRANULE + 5);
    let mut live = Vec::new();
    for expected in (1..8).rev() {
        let range = space.alloc(&request(1).limit(low)).unwrap();
        assert_eq!(range.first().get(), expected * GRANULE);
        live.push(range);
    }
    let full = space.alloc(&request(1).limit(low)).unwrap_err();
    let expected = DmaError::IovaExhausted {
        len: GRANULE,
        limit: low,
    };
    assert_eq!(full, expected);
    assert!(full.is_retryable());
    space.free(live.pop().unwrap(), Time::ZERO);
    assert_eq!(
        space.alloc(&request(1).limit(low)).unwrap().first().get(),
        GRANULE
    );
}

#[test]
fn what_never_fits_is_no_matter_of_retrying() {
    let space = space(small(16));
    let above = |request: IovaRequest| match space.alloc(&request).unwrap_err() {
        DmaError::AboveMask { .. } => {}
        other => panic!("{request:?}: {other}"),
    };
    above(request(16));
    above(request(9));
    above(request(1).limit(Mask::up_to(GRANULE)));
    above(request(1).align(Align::Min(1 << 63)));
    above(IovaRequest::new(u64::MAX).limit(Mask::ALL));
    assert!(space.alloc(&request(9).align(Align::Min(1))).is_ok());
    let refused = |request: IovaRequest| space.alloc(&request).unwrap_err();
    assert_eq!(refused(IovaRequest::new(0)), DmaError::ZeroLength);
    assert!(matches!(
        refused(request(1).align(Align::Min(24))),
        DmaError::BadAlignment { asked: 24, .. }
    ));
    assert!(matches!(
        refused(request(1).boundary(24)),
        DmaError::BadAlignment { asked: 25, .. }
    ));
    let (len, boundary) = (3 * GRANULE, 2 * GRANULE - 1);
    let crossed = DmaError::LongerThanBoundary { len, boundary };
    assert_eq!(refused(request(3).boundary(boundary)), crossed);
    assert!(!crossed.is_retryable());
}

#[test]
fn a_boundary_is_not_crossed_though_the_highest_place_crosses_it() {
    let space = space(small(16));
    let request = request(3).align(Align::Min(1)).boundary(4 * GRANULE - 1);
    let firsts = [13, 9, 5, 1].map(|first| first * GRANULE);
    for first in firsts {
        assert_eq!(space.alloc(&request).unwrap().first().get(), first);
    }
    assert!(space.alloc(&request).is_err());
}

#[test]
fn fixed_addresses_are_granted_refused_and_given_back() {
    let mut config = small(64);
    config.reserved = vec![
        0x8000..=0x8fff,
        0x8800..=0x9000,
        0x20_0000..=u64::MAX,
        #[expect(clippy::reversed_empty_ranges, reason = "nothing is reserved by it")]
        {
            5..=4
        },
    ];
    let space = space(config);
    let take = |first, len| space.alloc_at(at(first), len, Mask::ALL);
    let reserved = |first, len| Err(DmaError::IovaReserved { first, len });
    assert_eq!(take(0, 1), reserved(0, 1));
    assert_eq!(take(0x7000, 0x1001), reserved(0x7000, 0x1001));
    assert_eq!(take(0x9000, 1), reserved(0x9000, 1));
    let range = take(0xa000, 5000).unwrap();
    assert_eq!((range.len(), range.last()), (0x2000, 0xbfff));
    let (first, len) = (0xb000, 1);
    assert_eq!(take(first, len), Err(DmaError::IovaInUse { first, len }));
    assert_eq!(
        take(0xc001, 1),
        Err(DmaError::MisalignedAddress {
            address: 0xc001,
            align: GRANULE
        })
    );
    assert_eq!(take(0xc000, 0), Err(DmaError::ZeroLength));
    assert_eq!(take(0xc000, u64::MAX), Err(DmaError::AddressOverflow));
    let mask = Mask::up_to(0xbfff);
    let end = 0xcfff;
    let above = space.alloc_at(at(0xb000), 0x1001, mask);
    assert_eq!(above, Err(DmaError::AboveMask { end, mask }));
    assert!(matches!(
        take(64 * GRANULE, 1),
        Err(DmaError::AboveMask { .. })
    ));
    // What a thread keeps at hand is not in use.
    space.free(range, Time::ZERO);
    let ones = space.alloc_at(at(0xc000), 1, Mask::ALL).unwrap();
    space.free(ones, Time::ZERO);
    assert_eq!(space.stats().cached, 0x3000);
    assert!(take(0xb000, 0x2000).is_ok());
}

#[test]
fn low_addresses_come_first_until_they_do_not_suffice() {
    let space = space(IovaConfig {
        limit32_first: true,
        reserved: vec![0..=(1 << 32) - 1 - 2 * GRANULE],
        ..IovaConfig::default()
    });
    let wide = request(1);
    let firsts: Vec<_> = (0..2).map(|_| space.alloc(&wide).unwrap()).collect();
    assert!(firsts.iter().all(|range| range.last() < 1 << 32));
    // One that reaches no more says nothing about those that do.
    assert!(space.alloc(&wide.limit(Mask::bits(32))).is_err());
    assert!(space.is_low_first());
    assert!(space.alloc(&wide).unwrap().first().get() > 1 << 32);
    assert!(!space.is_low_first());
    for range in firsts {
        space.free(range, Time::ZERO);
    }
    // Those that were given back are at hand, and no longer preferred to anything.
    let low = space.alloc(&wide.limit(Mask::bits(32))).unwrap();
    assert!(low.last() < 1 << 32);
}

#[test]
fn what_is_kept_is_used_only_where_it_fits() {
    let space = space(small(64));
    let two = request(2);
    let odd = two.align(Align::Min(1)).limit(Mask::up_to(0x1_2fff));
    let high = space.alloc(&two).unwrap();
    let uneven = space.alloc(&odd).unwrap();
    assert_eq!(
        (high.first().get(), uneven.first().get()),
        (62 * GRANULE, 0x1_1000)
    );
    space.free(high, Time::ZERO);
    space.free(uneven, Time::ZERO);
    let kept = space.stats().cached;
    assert_eq!(kept, 4 * GRANULE);
    // Above the limit, or not aligned to two: neither is taken.
    let low = space.alloc(&two.limit(Mask::up_to(0x1_3fff))).unwrap();
    assert_eq!(low.first().get(), 0xe000);
    // Aligned well enough, but across a boundary.
    let inside = odd.boundary(2 * GRANULE - 1);
    assert_eq!(space.alloc(&inside).unwrap().first().get(), 0xc000);
    assert_eq!(space.stats().cached, kept);
    assert_eq!(space.alloc(&odd).unwrap().first().get(), 0x1_1000);
    assert_eq!(space.alloc(&two).unwrap().first().get(), 62 * GRANULE);
}

#[test]
fn a_strict_range_is_invalidated_before_it_is_free() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let space = IovaSpace::new(small(16), move |gone| log.lock().extend_from_slice(gone)).unwrap();
    let range = space.alloc(&request(4)).unwrap();
    let span = range.span();
    space.free(range, Time::ZERO);
    assert_eq!(*seen.lock(), [span]);
    assert_eq!(space.alloc(&request(4)).unwrap().span(), span);
}

#[test]
fn a_lazy_range_waits_for_its_batch_its_time_or_a_flush() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let config = IovaConfig {
        invalidation: Invalidation::Lazy {
            batch: 3,
            timeout_ns: 100,
        },
        ..small(16)
    };
    let space = IovaSpace::new(config, move |gone| log.lock().push(gone.len())).unwrap();
    let free_at = |ns| {
        let range = space.alloc(&request(1)).unwrap();
        let first = range.first();
        space.free(range, Time::from_nanos(ns));
        first
    };
    let first = free_at(0);
    assert_ne!(free_at(99), first);
    assert_eq!(space.stats().queued, 2 * GRANULE);
    // The third makes a batch.
    free_at(99);
    assert_eq!((seen.lock().clone(), space.stats().queued), (vec![3], 0));
    // The oldest is a hundred nanoseconds old.
    free_at(100);
    free_at(200);
    assert_eq!(*seen.lock(), [3, 2]);
    free_at(300);
    space.flush_due(Time::from_nanos(399));
    assert_eq!(*seen.lock(), [3, 2]);
    space.flush_due(Time::from_nanos(400));
    assert_eq!(*seen.lock(), [3, 2, 1]);
    free_at(500);
    space.flush();
    space.flush();
    assert_eq!(*seen.lock(), [3, 2, 1, 1]);
    assert_eq!(space.stats().live, 0);
}

#[test]
fn an_allocation_without_room_invalidates_and_tries_again() {
    let seen = Arc::new(Mutex::new(0));
    let log = Arc::clone(&seen);
    let config = IovaConfig {
        invalidation: Invalidation::Lazy {
            batch: 100,
            timeout_ns: u64::MAX,
        },
        ..small(16)
    };
    let space = IovaSpace::new(config, move |gone| *log.lock() += gone.len()).unwrap();
    let ranges: Vec<_> = (0..15).map(|_| space.alloc(&request(1)).unwrap()).collect();
    for range in ranges {
        space.free(range, Time::ZERO);
    }
    assert_eq!(*seen.lock(), 0);
    assert_eq!(space.alloc(&request(8)).unwrap().first().get(), 8 * GRANULE);
    assert_eq!(*seen.lock(), 15);
    let range = space.alloc_at(at(GRANULE), GRANULE, Mask::ALL).unwrap();
    space.free(range, Time::ZERO);
    assert!(space.alloc_at(at(GRANULE), GRANULE, Mask::ALL).is_ok());
    let stats = space.stats();
    assert_eq!((stats.queued, stats.cached), (0, 0));
    assert_eq!((stats.live, stats.high_water), (9 * GRANULE, 15 * GRANULE));
}

#[test]
#[should_panic(expected = "another space")]
fn a_range_goes_back_where_it_is_from() {
    let (one, other) = (space(small(4)), space(small(4)));
    other.free(one.alloc(&request(1)).unwrap(), Time::ZERO);
}

#[test]
fn what_is_being_invalidated_is_nobodys_and_no_lock_is_held() {
    let lazy = |batch, timeout_ns| Invalidation::Lazy { batch, timeout_ns };
    for invalidation in [Invalidation::Strict, lazy(1, 9), lazy(9, 0), lazy(99, 99)] {
        let config = IovaConfig {
            invalidation,
            ..small(16)
        };
        let whole: Arc<OnceLock<Weak<IovaSpace>>> = Arc::default();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (own, kept) = (Arc::clone(&whole), Arc::clone(&taken));
        let space = IovaSpace::new(config, move |gone| {
            // As another thread would, in the middle of it.
            let space = own.get().unwrap().upgrade().unwrap();
            let range = space.alloc(&request(2)).unwrap();
            for span in gone {
                assert!(!range.span().intersects(*span), "{invalidation:?}");
            }
            kept.lock().push(range);
        });
        let space = Arc::new(space.unwrap());
        whole.set(Arc::downgrade(&space)).unwrap();
        let range = space.alloc(&request(2)).unwrap();
        space.free(range, Time::ZERO);
        space.flush();
        assert_eq!(taken.lock().len(), 1, "{invalidation:?}");
    }
}

/// What is taken, as a list.
struct Model {
    granules: u64,
    reserved: Vec<(u64, u64)>,
    live: Vec<IovaRange>,
    /// Freed and not yet invalidated; the invalidation empties it.
    queued: Arc<Mutex<Vec<IovaSpan>>>,
}

impl Model {
    fn admit(&self, range: &IovaRange, request: &IovaRequest) {
        let (first, last) = (range.first().get(), range.last());
        assert!(range.len() >= request.len && first > 0);
        assert!(last <= request.limit.last() && last < self.granules * GRANULE);
        for &(from, to) in &self.reserved {
            assert!(last < from || first > to, "reserved");
        }
        let align = match request.align {
            Align::Natural => range.len().next_power_of_two(),
            Align::Min(align) => align.max(GRANULE),
        };
        assert!(first.is_multiple_of(align));
        assert_eq!(first & !request.boundary, last & !request.boundary);
        for other in &self.live {
            assert!(!range.span().intersects(other.span()), "taken twice");
        }
        for queued in self.queued.lock().iter() {
            assert!(!range.span().intersects(*queued), "not yet invalidated");
        }
    }

    /// Whether there is a place after all, if nothing is kept back.
    fn has_room(&self, request: &IovaRequest, len: u64) -> bool {
        let align = match request.align {
            Align::Natural => len.next_power_of_two(),
            Align::Min(align) => align.max(GRANULE),
        };
        let end = (self.granules * GRANULE - 1).min(request.limit.last());
        (1..self.granules).any(|granule| {
            let (first, last) = (granule * GRANULE, granule * GRANULE + len - 1);
            last <= end
                && first.is_multiple_of(align)
                && first & !request.boundary == last & !request.boundary
                && self
                    .reserved
                    .iter()
                    .all(|&(from, to)| last < from || first > to)
                && self
                    .live
                    .iter()
                    .all(|r| last < r.first().get() || first > r.last())
        })
    }
}

fn drawn_request(dice: &mut Dice, granules: u64) -> IovaRequest {
    let len = match dice.below(4) {
        0 => 1 + dice.below(60 * GRANULE),
        _ => 1 + dice.below(9 * GRANULE),
    };
    let align = match dice.below(3) {
        0 => Align::Min(1 << dice.below(16)),
        _ => Align::Natural,
    };
    let limit = match dice.below(3) {
        0 => Mask::up_to(dice.below(granules * GRANULE)),
        _ => Mask::ALL,
    };
    let boundary = dice.of(&[u64::MAX, u64::MAX, (1 << 20) - 1, (1 << 16) - 1]);
    IovaRequest::new(len)
        .limit(limit)
        .align(align)
        .boundary(boundary)
}

fn against_a_model(seed: u64, lazy: bool) {
    let mut dice = Dice::new(seed);
    let granules = 64 + dice.below(256);
    let reserved: Vec<(u64, u64)> = (0..dice.below(4))
        .map(|_| {
            let from = dice.below(granules * GRANULE);
            (from, from + dice.below(4 * GRANULE))
        })
        .collect();
    let invalidation = match lazy {
        true => Invalidation::Lazy {
            batch: 1 + dice.below(20) as usize,
            timeout_ns: 50,
        },
        false => Invalidation::Strict,
    };
    let config = IovaConfig {
        reserved: reserved.iter().map(|&(from, to)| from..=to).collect(),
        invalidation,
        ..small(granules)
    };
    let queued: Arc<Mutex<Vec<IovaSpan>>> = Arc::default();
    let log = Arc::clone(&queued);
    let space = IovaSpace::new(config, move |gone| {
        log.lock().retain(|span| !gone.contains(span));
    });
    let space = space.unwrap();
    let mut model = Model {
        granules,
        reserved: reserved
            .iter()
            .map(|&(from, to)| (from & !(GRANULE - 1), to | (GRANULE - 1)))
            .collect(),
        live: Vec::new(),
        queued,
    };
    for now in 0..2000 {
        match dice.below(5) {
            0..=1 => {
                let request = drawn_request(&mut dice, granules);
                match space.alloc(&request) {
                    Ok(range) => {
                        model.admit(&range, &request);
                        model.live.push(range);
                    }
                    Err(DmaError::IovaExhausted { .. }) => {
                        let least = request.len.next_multiple_of(GRANULE);
                        let len = match request.align {
                            Align::Natural if least <= 32 * GRANULE => least.next_power_of_two(),
                            _ => least,
                        };
                        assert!(!model.has_room(&request, len), "seed {seed}: {request:?}");
                    }
                    Err(DmaError::AboveMask { .. } | DmaError::LongerThanBoundary { .. }) => {}
                    Err(other) => panic!("seed {seed}: {other}"),
                }
            }
            2 => {
                let first = dice.below(granules) * GRANULE;
                let len = 1 + dice.below(6 * GRANULE);
                if let Ok(range) = space.alloc_at(at(first), len, Mask::ALL) {
                    let request = IovaRequest::new(len).limit(Mask::ALL);
                    model.admit(&range, &request.align(Align::Min(1)));
                    model.live.push(range);
                }
            }
            3 if dice.below(20) == 0 => space.flush(),
            _ if model.live.is_empty() => {}
            _ => {
                let which = dice.below(model.live.len() as u64) as usize;
                let range = model.live.swap_remove(which);
                model.queued.lock().push(range.span());
                space.free(range, Time::from_nanos(now));
            }
        }
        let stats = space.stats();
        let live: u64 = model.live.iter().map(IovaRange::len).sum();
        let queued: u64 = model.queued.lock().iter().map(|span| span.len()).sum();
        assert_eq!((stats.live, stats.queued), (live, queued), "seed {seed}");
        assert!(stats.high_water >= live + queued + stats.cached);
    }
    space.bare.lock().range.check().unwrap();
}

#[test]
fn drawn_requests_keep_the_laws() {
    for seed in 0..40 {
        against_a_model(seed, seed % 2 == 0);
    }
}

fn state(space: &IovaSpace, len: u64, physical: u64) -> IovaState {
    let request = IovaRequest::new(len);
    IovaState::try_alloc(space, &request, physical).unwrap()
}

#[test]
fn only_the_first_link_starts_and_only_the_last_ends_within_a_granule() {
    let space = space(IovaConfig::default());
    let mut state = state(&space, 0x3000, 0x200);
    assert_eq!(state.address().get() & 0xfff, 0x200);
    let misaligned = |address| {
        Err(DmaError::MisalignedAddress {
            address,
            align: GRANULE,
        })
    };
    // The first ends within a granule, and is not the last.
    assert_eq!(state.link(0, 0x5200, 0x100), misaligned(0x300));
    // It begins elsewhere in its granule than was said.
    assert_eq!(state.link(0, 0x5300, 0xe00), misaligned(0x5300));
    let first = state.link(0, 0x5200, 0xe00).unwrap();
    assert_eq!((first.physical, first.span.len()), (0x5000, 0x1000));
    assert_eq!(first.span.first().get(), state.address().get() - 0x200);
    // A later one starts within a granule.
    assert_eq!(state.link(0x1000, 0x6200, 0x2000), misaligned(0x1200));
    assert_eq!(state.link(0xe00, 0x6100, 0x1000), misaligned(0x6100));
    state.link(0x1e00, 0x9000, 0x1200).unwrap();
    assert!(matches!(
        state.link(0x1e00, 0x9000, 0x1000),
        Err(DmaError::IovaInUse { .. })
    ));
    assert!(matches!(
        state.link(0x2e00, 0x9000, 0x1000),
        Err(DmaError::RangeOutOfMapping { .. })
    ));
    assert!(state.needs_sync());
    assert_eq!(state.sync().unwrap().len(), 0x4000);
    assert_eq!(state.sync(), None);
    state.link(0xe00, 0x7000, 0x1000).unwrap();
    assert_eq!(state.sync().unwrap().len(), 0x1000);
    let mut gone = Vec::new();
    state.destroy(&space, Time::ZERO, |span| gone.push(span.len()));
    assert_eq!(gone, [0x4000]);
    assert_eq!(space.stats().live, 0);
}

#[test]
fn links_are_unlinked_whole_and_once() {
    let space = space(IovaConfig::default());
    let mut state = state(&space, 0x6000, 0);
    for offset in [0, 0x2000, 0x4000] {
        state.link(offset, 0x10_0000 + offset, 0x2000).unwrap();
    }
    let cut = |offset, len, link| Err(DmaError::PartialUnmap { offset, len, link });
    assert_eq!(state.unlink(0x1000, 0x1000), cut(0x1000, 0x1000, 0));
    assert_eq!(state.unlink(0, 0x3000), cut(0, 0x3000, 0x2000));
    assert_eq!(state.unlink(0x2000, 0x2000).unwrap().len(), 0x2000);
    let hole = Err(DmaError::NotMapped { offset: 0x2000 });
    assert_eq!(state.unlink(0x2000, 0x2000), hole);
    assert_eq!(state.unlink(0, 0x6000), hole);
    assert_eq!(state.unlink(0, 0), Err(DmaError::ZeroLength));
    let mut gone = Vec::new();
    let first = state.address().get();
    state.destroy(&space, Time::ZERO, |s| gone.push(s.first().get() - first));
    assert_eq!(gone, [0, 0x4000]);
}
