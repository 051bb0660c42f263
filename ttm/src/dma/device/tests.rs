use std::collections::BTreeMap;

use placement::{PAGE_SIZE, PageCount};

use super::super::dice::Dice;
use super::super::{
    Direction, DmaAddr, DmaError, FrameBytes, IoRun, IovaConfig, IovaSpan, Mapper, Mask, Path,
    SegmentParms, Verdict,
};
use super::{DmaDevice, Translation};
use crate::clock::{Blocking, Clock, Time};
use crate::pages::FrameSpan;
use crate::sync::{Arc, Mutex};

const STRICT: Path = Path::Translated { strict: true };

fn span(first: u64, pages: u64) -> FrameSpan {
    FrameSpan {
        file: 0,
        first,
        pages: PageCount::new(pages).unwrap(),
    }
}

fn bytes(spans: &[FrameSpan]) -> FrameBytes<'_> {
    FrameBytes {
        spans,
        offset: 0,
        len: spans.iter().map(|s| s.pages.bytes()).sum(),
    }
}

/// Tables by the page, and how often something was forgotten.
#[derive(Default)]
struct Tables {
    shown: Mutex<BTreeMap<u64, u64>>,
    forgotten: Mutex<u64>,
    /// So many pages can be shown.
    room: Mutex<Option<usize>>,
}

impl Translation for Tables {
    fn map(&self, at: DmaAddr, run: &IoRun, _: Direction) -> Result<(), DmaError> {
        let mut shown = self.shown.lock();
        let pages = run.len / PAGE_SIZE;
        if let Some(room) = *self.room.lock()
            && shown.len() + pages as usize > room
        {
            return Err(DmaError::IovaExhausted {
                len: run.len,
                limit: Mask::ALL,
            });
        }
        for n in 0..pages {
            let page = at.get() / PAGE_SIZE + n;
            let before = shown.insert(page, run.span.first + n);
            assert_eq!(before, None, "page {page:#x} is shown twice");
        }
        Ok(())
    }

    fn unmap(&self, gone: IovaSpan) {
        let mut shown = self.shown.lock();
        let first = gone.first().get() / PAGE_SIZE;
        for page in first..=gone.last() / PAGE_SIZE {
            shown.remove(&page);
        }
    }

    fn invalidate(&self, gone: &[IovaSpan]) {
        let shown = self.shown.lock();
        for span in gone {
            let pages = span.first().get() / PAGE_SIZE..=span.last() / PAGE_SIZE;
            assert_eq!(shown.range(pages).count(), 0, "forgotten before it is gone");
            *self.forgotten.lock() += 1;
        }
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Blocking::new(|| Time::ZERO))
}

fn translated(config: IovaConfig) -> (DmaDevice, Arc<Tables>) {
    let tables = Arc::new(Tables::default());
    let shown: Arc<dyn Translation> = Arc::clone(&tables) as _;
    let verdict = Verdict::for_tests(STRICT);
    let device = DmaDevice::translated(verdict, SegmentParms::DEFAULT, config, shown, clock());
    (device.unwrap(), tables)
}

fn direct(path: Path) -> Result<DmaDevice, DmaError> {
    let verdict = Verdict::for_tests(path);
    DmaDevice::direct(verdict, SegmentParms::DEFAULT, |span: FrameSpan| {
        Some(span.first * PAGE_SIZE)
    })
}

#[test]
fn a_device_is_made_for_the_kind_of_path_that_it_has() {
    for path in [Path::Direct, Path::Identity] {
        assert!(direct(path).is_ok());
    }
    for path in [STRICT, Path::Blocked, Path::Unknown] {
        assert_eq!(direct(path).unwrap_err(), DmaError::NoPath { path });
    }
    let (device, _) = translated(IovaConfig::default());
    let refused = device.renegotiate(Verdict::for_tests(Path::Identity));
    let path = Path::Identity;
    assert_eq!(refused, Err(DmaError::NoPath { path }));
    assert_eq!(device.path().epoch, 0);
}

#[test]
fn the_path_is_kept_in_the_mapping_and_does_not_change_while_one_lives() {
    let device = direct(Path::Direct).unwrap();
    let spans = [span(16, 4)];
    let mapping = device.map(bytes(&spans), Direction::Both).unwrap();
    let refused = device.renegotiate(Verdict::for_tests(Path::Identity));
    assert_eq!(refused, Err(DmaError::PathChangeWhileLive { live: 1 }));
    // The same path, learned again, is no change.
    let again = device.renegotiate(Verdict::for_tests(Path::Direct));
    assert_eq!(again.unwrap().epoch, 1);
    assert_eq!(mapping.path(), Path::Direct);
    device.unmap(mapping);
    let changed = device.renegotiate(Verdict::for_tests(Path::Identity));
    assert_eq!(changed.unwrap().path, Path::Identity);
}

#[test]
fn nothing_is_mapped_above_the_mask_and_no_mask_is_narrowed_below_what_is() {
    let device = direct(Path::Direct).unwrap();
    device.set_masks(Mask::bits(28)).unwrap();
    let high = [span(1 << 16, 1)];
    let refused = device.map(bytes(&high), Direction::Both).unwrap_err();
    let mask = Mask::bits(28);
    let end = (1 << 28) + PAGE_SIZE - 1;
    assert_eq!(refused, DmaError::AboveMask { end, mask });
    assert_eq!(device.live(), 0);
    let low = [span((1 << 16) - 1, 1)];
    let mapping = device.map(bytes(&low), Direction::Both).unwrap();
    let narrowed = device.set_streaming_mask(Mask::bits(24));
    assert!(matches!(
        narrowed,
        Err(DmaError::MaskNarrowedWhileLive { live: 1, .. })
    ));
    device.unmap(mapping);
    device.set_streaming_mask(Mask::bits(24)).unwrap();
}

#[test]
fn a_device_tells_what_it_needs_and_what_costs_least() {
    let device = direct(Path::Direct).unwrap();
    assert_eq!(device.required_mask(), Mask::bits(35));
    assert!(!device.is_addressing_limited());
    device.set_masks(Mask::bits(32)).unwrap();
    assert!(device.is_addressing_limited());
    assert_eq!(
        (device.merge_boundary(), device.optimal_bytes()),
        (None, None)
    );
    device.flush();

    let (device, _) = translated(IovaConfig::default());
    device.set_masks(Mask::bits(32)).unwrap();
    assert_eq!(device.required_mask(), Mask::bits(32));
    assert!(!device.is_addressing_limited());
    assert_eq!(device.merge_boundary(), Some(PAGE_SIZE - 1));
    let most = device.optimal_bytes().unwrap();
    assert_eq!(most, 32 * PAGE_SIZE);
    // What is so long comes back from what is kept at hand.
    let spans = [span(1, 32)];
    let map = || device.map(bytes(&spans), Direction::Both).unwrap();
    let first = map();
    let at = first.list().dma_segments()[0].addr;
    device.unmap(first);
    let second = map();
    assert_eq!(second.list().dma_segments()[0].addr, at);
    device.unmap(second);
    assert_eq!(device.iova_stats().unwrap().cached, most);
}

#[test]
fn a_list_behind_translation_is_one_block_within_the_mask() {
    let (device, tables) = translated(IovaConfig::default());
    device.set_masks(Mask::bits(28)).unwrap();
    let spans = [span(1 << 40, 3), span(7, 2), span(1 << 30, 1)];
    let mapping = device.map(bytes(&spans), Direction::Both).unwrap();
    let segments = mapping.list().dma_segments();
    assert_eq!((segments.len(), segments[0].len), (1, 6 * PAGE_SIZE));
    assert!(segments[0].last().unwrap() < 1 << 28);
    let frames: Vec<u64> = tables.shown.lock().values().copied().collect();
    assert_eq!(
        frames,
        [1 << 40, (1 << 40) + 1, (1 << 40) + 2, 7, 8, 1 << 30]
    );
    device.unmap(mapping);
    assert!(tables.shown.lock().is_empty());
    assert_eq!(*tables.forgotten.lock(), 1);
    assert_eq!(device.iova_stats().unwrap().live, 0);
}

/// F-29: addresses run out, and the tables refuse, at each page of a list.
#[test]
fn what_cannot_be_shown_leaves_nothing_behind() {
    let (device, tables) = translated(IovaConfig::default());
    let spans = [span(1, 2), span(10, 2), span(20, 2)];
    for room in 0..6 {
        *tables.room.lock() = Some(room);
        let refused = device.map(bytes(&spans), Direction::Both).unwrap_err();
        assert!(refused.is_retryable());
        assert!(tables.shown.lock().is_empty());
        assert_eq!((device.live(), device.iova_stats().unwrap().live), (0, 0));
    }
    *tables.room.lock() = None;
    let aperture = Mask::up_to(8 * PAGE_SIZE - 1);
    let (device, _) = translated(IovaConfig {
        aperture,
        ..IovaConfig::default()
    });
    let kept: Vec<_> = core::iter::from_fn(|| {
        let mapped = device.map(bytes(&spans[..1]), Direction::Both);
        match mapped {
            Ok(mapping) => Some(mapping),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                None
            }
        }
    })
    .collect();
    // Granule 0 is nobody's, and blocks of two are aligned.
    assert_eq!(kept.len(), 3);
    kept.into_iter().for_each(|mapping| device.unmap(mapping));
}

#[test]
fn frames_without_an_address_and_no_bytes_are_refused() {
    let device = DmaDevice::direct(
        Verdict::for_tests(Path::Direct),
        SegmentParms::DEFAULT,
        |_: FrameSpan| None,
    )
    .unwrap();
    let spans = [span(0, 1)];
    let refused = device.map(bytes(&spans), Direction::Both).unwrap_err();
    assert_eq!(refused, DmaError::NoAddress { index: 0 });
    let none = FrameBytes {
        len: 0,
        ..bytes(&spans)
    };
    let refused = device.map(none, Direction::Both).unwrap_err();
    assert_eq!(refused, DmaError::ZeroLength);
}

#[test]
#[should_panic(expected = "another device")]
fn a_mapping_is_ended_by_its_own_device() {
    let (one, other) = (direct(Path::Direct).unwrap(), direct(Path::Direct).unwrap());
    let spans = [span(1, 1)];
    let mapping = one.map(bytes(&spans), Direction::Both).unwrap();
    other.unmap(mapping);
}

/// Random mapping and unmapping: tables show exactly what is live, and segments say so.
#[test]
fn tables_show_what_is_live_and_nothing_else() {
    for seed in 0..20 {
        let dice = &mut Dice::new(seed);
        let (device, tables) = translated(IovaConfig {
            aperture: Mask::bits(24),
            reserved: vec![0x10_0000..=0x1f_ffff],
            ..IovaConfig::default()
        });
        let mut live = Vec::new();
        for _ in 0..200 {
            if live.is_empty() || dice.one_in(2) {
                let runs = 1 + dice.below(6);
                let spans: Vec<_> = (0..runs)
                    .map(|_| span(dice.below(1 << 20), 1 + dice.below(40)))
                    .collect();
                match device.map(bytes(&spans), Direction::Both) {
                    Ok(mapping) => live.push((spans, mapping)),
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            } else {
                let n = dice.below(live.len() as u64) as usize;
                device.unmap(live.swap_remove(n).1);
            }
            let mut expected = BTreeMap::new();
            for (spans, mapping) in &live {
                let frames = spans.iter().flat_map(|s| s.first..s.first + s.pages.get());
                let pages = mapping.list().dma_pages(PAGE_SIZE).unwrap();
                for (frame, page) in frames.zip(pages) {
                    expected.insert(page.addr.get() / PAGE_SIZE, frame);
                }
            }
            assert_eq!(*tables.shown.lock(), expected);
        }
        live.into_iter()
            .for_each(|(_, mapping)| device.unmap(mapping));
        assert_eq!(device.iova_stats().unwrap().live, 0);
    }
}
