//! Page lists: the edges one by one, then random lists against a model that knows bytes only.

use std::collections::BTreeMap;

use super::*;
use crate::dma::dice::Dice;

const PARMS: SegmentParms = SegmentParms::DEFAULT;

fn span(file: u32, first: u64, pages: u64) -> FrameSpan {
    let pages = PageCount::new(pages).unwrap();
    FrameSpan { file, first, pages }
}

fn addr(address: u64) -> DmaAddr {
    DmaAddr::new(address).unwrap()
}

fn build(
    parms: &SegmentParms,
    spans: &[FrameSpan],
    offset: u64,
    len: u64,
) -> Result<PageList, DmaError> {
    PageList::build(parms, FrameBytes { spans, offset, len })
}

/// First page, offset, length of each segment.
fn cpu(list: &PageList) -> Vec<(u64, u64, u64)> {
    let segments = list.cpu_segments().iter();
    segments.map(|s| (s.span.first, s.offset, s.len)).collect()
}

/// Address and length of each segment.
fn dma(list: &MappedList) -> Vec<(u64, u64)> {
    let segments = list.dma_segments().iter();
    segments.map(|s| (s.addr.get(), s.len)).collect()
}

/// Files lie 1 GiB apart.
fn address(span: FrameSpan) -> Option<u64> {
    Some((u64::from(span.file) << 30) + span.first * PAGE_SIZE)
}

#[test]
fn the_first_segment_has_the_offset_and_the_last_page_is_partial() {
    let list = build(&PARMS, &[span(0, 4, 2), span(0, 9, 2)], 0x100, 0x2f01).unwrap();
    assert_eq!(cpu(&list), [(4, 0x100, 0x1f00), (9, 0, 0x1001)]);
    assert_eq!(list.cpu_segments()[1].span, span(0, 9, 2));
    let pages: Vec<_> = list
        .cpu_pages()
        .map(|p| (p.page, p.offset, p.len))
        .collect();
    let whole = PAGE_SIZE;
    assert_eq!(
        pages,
        [(4, 0x100, 0xf00), (5, 0, whole), (9, 0, whole), (10, 0, 1)]
    );
    assert_eq!(list.bytes(), 0x2f01);
}

#[test]
fn an_offset_may_skip_whole_spans_and_empty_ones_do_not_count() {
    let spans = [
        span(0, 4, 1),
        span(0, 7, 0),
        span(0, 8, 1),
        span(0, 9, 1),
        span(1, 2, 0),
    ];
    let list = build(&PARMS, &spans, PAGE_SIZE + 8, 2 * PAGE_SIZE - 8).unwrap();
    assert_eq!(cpu(&list), [(8, 8, 2 * PAGE_SIZE - 8)]);
    let list = build(&PARMS, &spans, 0, PAGE_SIZE).unwrap();
    assert_eq!(cpu(&list), [(4, 0, PAGE_SIZE)]);
}

#[test]
fn only_what_adjoins_in_one_file_is_merged() {
    let spans = [
        span(0, 4, 1),
        span(1, 5, 1),
        span(1, 6, 1),
        span(1, 6, 1),
        span(1, 5, 1),
    ];
    let list = build(&PARMS, &spans, 0, 5 * PAGE_SIZE).unwrap();
    let firsts: Vec<_> = cpu(&list).iter().map(|s| (s.0, s.2 / PAGE_SIZE)).collect();
    assert_eq!(firsts, [(4, 1), (5, 2), (6, 1), (5, 1)]);
}

#[test]
fn bytes_that_are_not_there_are_refused() {
    let spans = [span(0, 4, 1)];
    assert_eq!(build(&PARMS, &spans, 0, 0), Err(DmaError::ZeroLength));
    assert_eq!(
        build(&PARMS, &spans, 1, PAGE_SIZE),
        Err(DmaError::RangeOutOfMapping {
            offset: 1,
            len: PAGE_SIZE,
            mapped: PAGE_SIZE
        })
    );
    let overflow = Err(DmaError::AddressOverflow);
    assert_eq!(build(&PARMS, &spans, u64::MAX, 2), overflow);
    assert_eq!(build(&PARMS, &[span(0, u64::MAX, 1)], 0, 1), overflow);
    let most = PageCount::MAX.get();
    assert_eq!(build(&PARMS, &[span(0, 0, most), spans[0]], 0, 1), overflow);
    assert_eq!(MappedList::peer(&PARMS, &[]), Err(DmaError::ZeroLength));
    let nothing = BusRange {
        addr: addr(0),
        len: 0,
    };
    assert_eq!(
        MappedList::peer(&PARMS, &[nothing]),
        Err(DmaError::ZeroLength)
    );
    let beyond = BusRange {
        addr: addr(u64::MAX - 1),
        len: 2,
    };
    assert_eq!(
        MappedList::peer(&PARMS, &[beyond]),
        Err(DmaError::AddressOverflow)
    );
}

#[test]
fn segments_end_at_the_longest_and_at_boundaries() {
    // The longest counts whole pages: the first segment, with its offset, is shorter.
    let parms = SegmentParms {
        max_segment: 0x2fff,
        ..PARMS
    };
    let list = build(&parms, &[span(0, 1, 5)], 0x10, 5 * PAGE_SIZE - 0x10).unwrap();
    let lens: Vec<_> = cpu(&list).iter().map(|s| s.2).collect();
    assert_eq!(lens, [0x1ff0, 0x2000, 0x1000]);
    // Boundaries lie at every fourth page.
    let parms = SegmentParms {
        boundary_mask: 0x3fff,
        ..PARMS
    };
    let list = build(&parms, &[span(0, 3, 7)], 0, 7 * PAGE_SIZE).unwrap();
    let firsts: Vec<_> = cpu(&list).iter().map(|s| s.0).collect();
    assert_eq!(firsts, [3, 4, 8]);
    // Cuts are aligned, the ends need not be.
    let parms = SegmentParms {
        max_segment: 0x5000,
        min_align_mask: 0x1fff,
        ..PARMS
    };
    let list = build(&parms, &[span(0, 3, 8)], 0, 8 * PAGE_SIZE).unwrap();
    let firsts: Vec<_> = cpu(&list).iter().map(|s| s.0).collect();
    assert_eq!(firsts, [3, 6, 10]);
    list.direct(&parms, address).unwrap();
    let spans = [span(0, 2, 1), span(0, 4, 1)];
    let list = build(&parms, &spans, 0, 2 * PAGE_SIZE).unwrap();
    assert_eq!(
        list.direct(&parms, address),
        Err(DmaError::Misaligned {
            index: 0,
            mask: 0x1fff
        })
    );
}

#[test]
fn frames_without_an_address_are_not_mapped_as_they_are() {
    let list = build(&PARMS, &[span(0, 1, 1), span(1, 1, 1)], 0, 2 * PAGE_SIZE).unwrap();
    let first_file = |span: FrameSpan| (span.file == 0).then_some(0);
    assert_eq!(
        list.direct(&PARMS, first_file),
        Err(DmaError::NoAddress { index: 1 })
    );
    assert_eq!(
        list.direct(&PARMS, |_| Some(8)),
        Err(DmaError::Misaligned {
            index: 0,
            mask: 0xfff
        })
    );
    // Frames that do not lie as they are numbered are caught when they have addresses.
    let parms = SegmentParms {
        boundary_mask: 0x1fff,
        ..PARMS
    };
    let list = build(&parms, &[span(0, 2, 2)], 0, 2 * PAGE_SIZE).unwrap();
    assert_eq!(
        list.direct(&parms, |_| Some(0x1000)),
        Err(DmaError::BoundaryCrossed { index: 0 })
    );
}

#[test]
fn a_translation_joins_what_ends_and_begins_on_granules() {
    let spans = [span(0, 8, 1), span(0, 2, 1), span(0, 5, 1)];
    let list = build(&PARMS, &spans, 0x80, 3 * PAGE_SIZE - 0x100).unwrap();
    let mapped = list.layout(&PARMS, PAGE_SIZE).unwrap();
    let mapped = mapped.at(addr(0x10_0000)).unwrap();
    assert_eq!(dma(&mapped), [(0x10_0080, 3 * PAGE_SIZE - 0x100)]);
    assert_eq!(mapped.cpu_segments().unwrap().len(), 3);
    // Not beyond the longest, nor across a boundary.
    for parms in [
        SegmentParms {
            max_segment: 0x2fff,
            ..PARMS
        },
        SegmentParms {
            boundary_mask: 0x1fff,
            ..PARMS
        },
    ] {
        let list = build(&parms, &spans, 0, 3 * PAGE_SIZE).unwrap();
        let mapped = list.layout(&parms, PAGE_SIZE).unwrap();
        let mapped = mapped.at(addr(0x10_0000)).unwrap();
        assert_eq!(dma(&mapped), [(0x10_0000, 0x2000), (0x10_2000, 0x1000)]);
    }
}

#[test]
fn a_segment_that_would_cross_a_boundary_is_moved_up_to_it() {
    let parms = SegmentParms {
        boundary_mask: 0x3fff,
        ..PARMS
    };
    let spans = [span(0, 8, 3), span(0, 4, 2)];
    let list = build(&parms, &spans, 0, 5 * PAGE_SIZE).unwrap();
    let layout = list.layout(&parms, PAGE_SIZE).unwrap();
    assert_eq!((layout.bytes(), layout.align()), (0x6000, 0x4000));
    let places: Vec<_> = layout.runs().map(|run| run.at).collect();
    assert_eq!(places, [0, 0x4000]);
    let mapped = layout.at(addr(0x4_0000)).unwrap();
    assert_eq!(dma(&mapped), [(0x4_0000, 0x3000), (0x4_4000, 0x2000)]);
    assert_eq!(
        layout.at(addr(0x4_1000)),
        Err(DmaError::Misaligned {
            index: 0,
            mask: 0x3fff
        })
    );
    let last = addr(!0x3fff);
    assert_eq!(layout.at(last), Err(DmaError::AddressOverflow));
}

#[test]
fn a_translation_shows_no_neighbours_and_keeps_no_more_than_a_granule() {
    let list = build(&PARMS, &[span(0, 1, 1)], 0, 1).unwrap();
    for granule in [0, 3, 2 * PAGE_SIZE] {
        let most = PAGE_SIZE;
        assert_eq!(
            list.layout(&PARMS, granule).err(),
            Some(DmaError::BadGranule { granule, most })
        );
    }
    let (mask, granule) = (0xfff, 0x800);
    let parms = SegmentParms {
        min_align_mask: mask,
        ..PARMS
    };
    assert_eq!(
        list.layout(&parms, granule).err(),
        Some(DmaError::AlignmentUnsupported { mask, granule })
    );
    // A list that was built for another device.
    let list = build(&PARMS, &[span(0, 0, 2)], 0, 2 * PAGE_SIZE).unwrap();
    let parms = SegmentParms {
        boundary_mask: 0xfff,
        ..PARMS
    };
    assert_eq!(
        list.layout(&parms, PAGE_SIZE).err(),
        Some(DmaError::BoundaryCrossed { index: 0 })
    );
    let parms = SegmentParms {
        max_segment: PAGE_SIZE,
        ..PARMS
    };
    let layout = list.layout(&parms, PAGE_SIZE).unwrap();
    assert_eq!(
        layout.at(addr(0)),
        Err(DmaError::SegmentTooLong {
            index: 0,
            len: 2 * PAGE_SIZE,
            max: PAGE_SIZE
        })
    );
}

#[test]
fn the_pages_of_a_device_have_the_size_it_asks_for() {
    let spans = [span(0, 8, 1), span(0, 2, 1)];
    let list = build(&PARMS, &spans, 0, 2 * PAGE_SIZE).unwrap();
    let layout = list.layout(&PARMS, PAGE_SIZE).unwrap();
    let mapped = layout.at(addr(0x2000)).unwrap();
    let pages = |size| -> Result<Vec<u64>, DmaError> {
        Ok(mapped.dma_pages(size)?.map(|p| p.addr.get()).collect())
    };
    assert_eq!(pages(0x2000).unwrap(), [0x2000]);
    assert_eq!(pages(0x1000).unwrap(), [0x2000, 0x3000]);
    assert_eq!(pages(0x800).unwrap(), [0x2000, 0x2800, 0x3000, 0x3800]);
    let granule = 0x4000;
    let refused = DmaError::NotAMultiple { index: 0, granule };
    assert_eq!(pages(granule), Err(refused));
    for granule in [0, 0x3000] {
        let most = 1 << 63;
        assert_eq!(pages(granule), Err(DmaError::BadGranule { granule, most }));
    }
    assert_eq!(mapped.cpu_pages().unwrap().count(), 2);
    let partial = build(&PARMS, &spans, 0, PAGE_SIZE + 1).unwrap();
    let partial = partial.direct(&PARMS, address).unwrap();
    let granule = PAGE_SIZE;
    assert_eq!(
        partial.dma_pages(granule).err(),
        Some(DmaError::NotAMultiple { index: 1, granule })
    );
}

#[test]
fn memory_of_another_device_is_cut_but_never_joined() {
    let range = |first, len| BusRange {
        addr: addr(first),
        len,
    };
    let adjoining = [range(0xf000_0000, 0x1000), range(0xf000_1000, 0x2_0000)];
    let list = MappedList::peer(&PARMS, &adjoining).unwrap();
    assert!(list.cpu_segments().is_none() && list.cpu_pages().is_none());
    assert!(list.dma_segments().iter().all(|segment| segment.bus));
    assert_eq!(
        dma(&list),
        [
            (0xf000_0000, 0x1000),
            (0xf000_1000, 0x1_0000),
            (0xf001_1000, 0x1_0000)
        ]
    );
    assert_eq!(list.bytes(), 0x2_1000);
    let parms = SegmentParms {
        max_segments: Some(2),
        ..PARMS
    };
    assert_eq!(
        MappedList::peer(&parms, &adjoining),
        Err(DmaError::TooManySegments { have: 3, most: 2 })
    );
}

/// A byte of a file.
type Byte = (u32, u64);

/// The bytes of a list, one by one.
fn bytes_of(spans: &[FrameSpan], offset: u64, len: u64) -> Vec<Byte> {
    let all = spans.iter().flat_map(|span| {
        let first = span.first * PAGE_SIZE;
        (0..span.pages.bytes()).map(move |n| (span.file, first + n))
    });
    all.skip(offset as usize).take(len as usize).collect()
}

fn random_parms(dice: &mut Dice) -> SegmentParms {
    let parms = SegmentParms {
        max_segment: dice.of(&[0x1000, 0x1800, 0x2000, 0x3001, 0x7000, 0x10000, u64::MAX]),
        boundary_mask: dice.of(&[0xfff, 0x1fff, 0x3fff, u64::MAX, u64::MAX]),
        min_align_mask: dice.of(&[0, 0, 0x1ff, 0xfff, 0x1fff]),
        max_segments: dice.of(&[None, None, Some(1), Some(4)]),
    };
    match parms.validate() {
        Ok(()) => parms,
        Err(_) => random_parms(dice),
    }
}

fn random_spans(dice: &mut Dice) -> Vec<FrameSpan> {
    let count = 1 + dice.below(5);
    let mut spans: Vec<FrameSpan> = Vec::new();
    for _ in 0..count {
        let (file, first) = match spans.last() {
            Some(before) if dice.one_in(2) => (before.file, before.end()),
            _ => (dice.below(2) as u32, dice.below(12)),
        };
        spans.push(span(file, first, dice.below(5)));
    }
    spans
}

fn check_cpu(list: &PageList, parms: &SegmentParms, bytes: &[Byte]) {
    let found = list.cpu_segments().iter().flat_map(|segment| {
        let first = segment.span.first * PAGE_SIZE + segment.offset;
        (first..first + segment.len).map(|at| (segment.span.file, at))
    });
    assert!(found.eq(bytes.iter().copied()));
    let paged = list.cpu_pages().flat_map(|page| {
        let first = page.page * PAGE_SIZE + page.offset;
        (first..first + page.len).map(move |at| (page.file, at))
    });
    assert!(paged.eq(bytes.iter().copied()));
    for segment in list.cpu_segments() {
        let first = segment.span.first * PAGE_SIZE + segment.offset;
        assert!(segment.len <= parms.longest() && segment.offset < PAGE_SIZE);
        assert!(first | parms.boundary_mask >= first + segment.len - 1);
        let pages = (segment.offset + segment.len).div_ceil(PAGE_SIZE);
        assert_eq!(segment.span.pages.get(), pages);
    }
    // No two could have been one, but for an alignment.
    for pair in list.cpu_segments().windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let adjoin = a.span.file == b.span.file && a.span.end() == b.span.first;
        if adjoin && b.offset == 0 && parms.min_align_mask < PAGE_SIZE {
            let start = b.span.first * PAGE_SIZE;
            let full = a.span.pages.bytes() == parms.longest();
            assert!(full || start & parms.boundary_mask == 0, "{a:?} {b:?}");
        }
    }
}

fn check_direct(list: &PageList, parms: &SegmentParms, bytes: &[Byte]) -> bool {
    let mapped = match list.direct(parms, address) {
        Ok(mapped) => mapped,
        Err(DmaError::TooManySegments { have, most }) => {
            assert!(have == list.cpu_segments().len() && have > most as usize);
            return false;
        }
        Err(DmaError::Misaligned { mask, .. }) => {
            assert!(mask >= PAGE_SIZE && mask == parms.min_align_mask);
            return false;
        }
        Err(other) => panic!("{other}"),
    };
    let found = mapped.dma_segments().iter().flat_map(|segment| {
        let first = segment.addr.get();
        (first..first + segment.len).map(|at| ((at >> 30) as u32, at & ((1 << 30) - 1)))
    });
    assert!(found.eq(bytes.iter().copied()));
    assert_eq!(mapped.dma_segments().len(), list.cpu_segments().len());
    true
}

/// What a translation answers for each granule.
fn translation(layout: &IoLayout<'_>, base: u64, granule: u64) -> BTreeMap<u64, Byte> {
    let mut table = BTreeMap::new();
    for run in layout.runs() {
        assert_eq!((run.at | run.offset | run.len) & (granule - 1), 0);
        assert!(run.offset + run.len <= run.span.pages.bytes());
        assert!(run.at + run.len <= layout.bytes());
        for n in (0..run.len).step_by(granule as usize) {
            let byte = (run.span.file, run.span.first * PAGE_SIZE + run.offset + n);
            let before = table.insert(base + run.at + n, byte);
            assert_eq!(before, None, "two frames at one address");
        }
    }
    table
}

fn check_translated(list: &PageList, parms: &SegmentParms, bytes: &[Byte], granule: u64) -> bool {
    let layout = match list.layout(parms, granule) {
        Ok(layout) => layout,
        Err(DmaError::AlignmentUnsupported { .. }) => return false,
        Err(other) => panic!("{other}"),
    };
    let base = 0x4000_0000;
    let mapped = match layout.at(addr(base)) {
        Ok(mapped) => mapped,
        Err(DmaError::TooManySegments { have, most }) => {
            assert!(have > most as usize);
            return false;
        }
        Err(other) => panic!("{other}"),
    };
    assert!(mapped.dma_segments().len() <= list.cpu_segments().len());
    let table = translation(&layout, base, granule);
    let found = mapped.dma_segments().iter().flat_map(|segment| {
        let first = segment.addr.get();
        (first..first + segment.len).map(|at| {
            let (file, start) = table[&(at & !(granule - 1))];
            (file, start + at % granule)
        })
    });
    assert!(found.eq(bytes.iter().copied()));
    parms.check(mapped.dma_segments()).unwrap();
    check_pages(&mapped);
    true
}

fn check_pages(mapped: &MappedList) {
    for size in [0x200, 0x1000, 0x2000] {
        let whole = |s: &DmaSegment| (s.addr.get() | s.len).is_multiple_of(size);
        match mapped.dma_pages(size) {
            Ok(pages) => {
                assert!(mapped.dma_segments().iter().all(whole));
                assert_eq!(pages.count() as u64 * size, mapped.bytes());
            }
            Err(DmaError::NotAMultiple { index, granule }) => {
                assert!(granule == size && !whole(&mapped.dma_segments()[index]));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn random_lists_have_the_bytes_of_the_model() {
    let (mut direct, mut translated) = (0, 0);
    for seed in 0..600 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let spans = random_spans(&mut dice);
        let total: u64 = spans.iter().map(|span| span.pages.bytes()).sum();
        if total == 0 {
            continue;
        }
        let offset = dice.below(total);
        let mut len = 1 + dice.below(total - offset);
        if dice.one_in(3) {
            len = total - offset;
        }
        let parms = random_parms(&mut dice);
        let bytes = bytes_of(&spans, offset, len);
        let list = build(&parms, &spans, offset, len).unwrap();
        assert_eq!(list.bytes(), bytes.len() as u64);
        check_cpu(&list, &parms, &bytes);
        direct += u32::from(check_direct(&list, &parms, &bytes));
        let granule = dice.of(&[PAGE_SIZE, PAGE_SIZE, 0x400]);
        translated += u32::from(check_translated(&list, &parms, &bytes, granule));
    }
    assert!(direct > 100 && translated > 100, "{direct} {translated}");
}
