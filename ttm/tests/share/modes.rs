//! Cache modes of what is lent.

use super::*;

#[test]
fn a_changed_cache_mode_is_told() {
    let mut offers = ttm::pages::Offers::ordinary(ttm::placement::PageCount::new(64).unwrap());
    offers.modes = ttm::cache::Modes::all();
    let device = builder()
        .pages(Arc::new(Switching(offers, AtomicU64::new(0))))
        .build()
        .unwrap();
    let in_mode = |mode| Placement::of(Place::new(MemType::TT).cached(mode));
    let bo = device
        .create_in(OpContext::new(), BoInfo::new(SIZE), (), &tt())
        .unwrap();
    let camera = camera();
    let shared = device.export(&bo, ExportInfo::new()).unwrap();
    let only = Constraints {
        caching: CacheModes::of(&[CacheMode::Cached]),
        ..Constraints::ANY
    };
    let info = AttachInfo::new("camera").dynamic().constraints(only);
    let attached = shared
        .attach(OpContext::new(), mapper(&camera), info)
        .unwrap();
    let map = || {
        let locked = shared.exec(OpContext::new(), |bo| {
            attached.map(bo, Direction::Both)?;
            Ok(bo.facts().mode)
        });
        *locked.unwrap().value()
    };
    assert_eq!(map(), CacheMode::Cached);
    let to = in_mode(CacheMode::WriteCombined);
    drop(
        device
            .exec(OpContext::new(), |t| t.lock(&bo)?.validate(&to))
            .unwrap(),
    );
    assert!(matches!(attached.list(), Err(DmaError::Revoked { .. })));
    device.reap();
    assert_eq!(camera.live(), 0);
    // It cannot use that mode, so it is changed back for it.
    assert_eq!(map(), CacheMode::Cached);
    device.check().unwrap_or_else(|v| panic!("{v}"));
    // Another mode than those attached can use is refused while somebody keeps it.
    let wc = Constraints {
        caching: CacheModes::of(&[CacheMode::WriteCombined]),
        ..Constraints::ANY
    };
    let other = AttachInfo::new("display").constraints(wc).migrating();
    let refused = shared.attach(OpContext::new(), mapper(&camera), other);
    let refused = dma(refused.unwrap_err());
    assert!(
        matches!(
            refused,
            DmaError::AttachIncompatible {
                field: Field::Caching,
                ..
            }
        ),
        "{refused}"
    );
}

/// Counted frames that can have every mode.
struct Switching(ttm::pages::Offers, AtomicU64);

impl ttm::pages::PageSource for Switching {
    fn offers(&self) -> ttm::pages::Offers {
        self.0
    }

    fn take(&self, want: &ttm::pages::Want) -> Result<ttm::pages::FrameRun> {
        let pages = want.pages;
        let first = self.1.fetch_add(pages.get(), Ordering::Relaxed);
        let span = FrameSpan {
            file: 0,
            first,
            pages,
        };
        let zone = ttm::pages::Zone::Normal;
        Ok(ttm::pages::FrameRun::fresh(span, zone, 0, first))
    }

    fn give(&self, _: ttm::pages::FrameRun<ttm::pages::Dirty>) {}

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn map(&self, _: FrameSpan, _: CacheMode) -> Result<ttm::pages::Mapped> {
        Err(Error::Unsupported("there is no content"))
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<ttm::pages::FileRange> {
        Err(Error::Unsupported("there is no file"))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: ttm::cache::Maintenance) {}

    fn taken(&self) -> ttm::placement::PageCount {
        ttm::placement::PageCount::new(self.1.load(Ordering::Relaxed)).unwrap()
    }
}
